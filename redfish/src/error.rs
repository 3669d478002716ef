//! One error type: which BMC, what happened in plain words, what to do next.

use crate::model::ResourcePath;
use std::time::Duration;

pub type Result<T, E = RedfishError> = std::result::Result<T, E>;

/// Something went wrong with one BMC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bmc}: {cause}")]
pub struct RedfishError {
    /// The BMC's endpoint, `host:port`.
    pub bmc: String,
    pub cause: Cause,
}

/// Why. Each cause names the next step, so that the message can be shown as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    #[error(
        "no connection: {reason}; check the address, that the BMC is powered and that a firewall lets it through"
    )]
    Unreachable { reason: String },
    #[error(
        "no answer to '{request}' within {:.1} s; the BMC may be busy or hanging: try again, or reset the BMC",
        .after.as_secs_f32()
    )]
    TimedOut { request: String, after: Duration },
    #[error("TLS failed: {reason}; give the CA of the BMC's certificate, or pin the certificate it presents")]
    Tls { reason: String },
    #[error(
        "the BMC presents another certificate than the pinned one (SHA-256 {presented}); if it was renewed on purpose, pin the new one; else somebody may be in between"
    )]
    CertificateChanged { presented: String },
    #[error("the certificate of the BMC has expired ({reason}); renew it on the BMC, or pin it")]
    CertificateExpired { reason: String },
    #[error(
        "the BMC refused user '{user}'; check user and password (it was not tried again, since BMCs lock accounts)"
    )]
    Unauthorised { user: String },
    #[error(
        "the BMC has locked the account of user '{user}'; wait for its lockout time or unlock it, then correct the password"
    )]
    AccountLocked { user: String },
    #[error("user '{user}' must change the password before the BMC serves anything else; set a new one")]
    PasswordChangeRequired { user: String },
    #[error("user '{user}' may not {request}; give it the Administrator role")]
    Forbidden { user: String, request: String },
    #[error(
        "all sessions of the BMC are taken; log out others or wait for their time-out, or use basic authentication"
    )]
    SessionLimit,
    #[error(
        "the BMC cannot do that without a licence ({reason}); install the licence or do it without Redfish"
    )]
    LicenceNeeded { reason: String },
    #[error("the BMC is not ready ({reason}); it was tried {attempts} times: try again later")]
    Busy { reason: String, retry_after: Option<Duration>, attempts: u32 },
    #[error(
        "the answer to '{request}' broke off after {got_bytes} bytes; nothing was concluded from it, try again"
    )]
    PartialReply { request: String, got_bytes: u64 },
    #[error(
        "the answer to '{request}' is larger than {limit_bytes} bytes and was not read on; this is no Redfish resource"
    )]
    ReplyTooLarge { request: String, limit_bytes: u64 },
    #[error("'{request}' has more than {limit} members and was not read on; the BMC's collection has no end")]
    TooManyMembers { request: String, limit: usize },
    #[error("the answer to '{request}' makes no sense: {reason}; is this really a Redfish service?")]
    BadReply { request: String, reason: String },
    #[error("this is no Redfish service: {reason}; check the address and the port")]
    NotRedfish { reason: String },
    #[error("the BMC has no {path}")]
    NotFound { path: String },
    #[error("the BMC rejected '{request}': {reason}")]
    Rejected { request: String, status: u16, reason: String, message_ids: Vec<String> },
    #[error(
        "the BMC failed on '{request}' with status {status}: {reason}; look at the BMC's own log, reset the BMC if it stays"
    )]
    ServerError { request: String, status: u16, reason: String },
    #[error("{path} was changed by someone else meanwhile; read it again and decide anew")]
    Conflict { path: String },
    #[error(
        "the answer to '{request}' was lost, and it may have been done: {reason}; look at the server's state before doing it again"
    )]
    Unknown { request: String, reason: String },
    #[error("task {path} ended as {state}: {reason}")]
    TaskFailed { path: ResourcePath, state: String, reason: String },
    #[error("task {path} is still {state} after {} s ({percent}%); it goes on in the BMC: look again later", .after.as_secs())]
    TaskUnfinished { path: ResourcePath, state: String, percent: u8, after: Duration },
    #[error("the BMC does not offer {what}")]
    Unsupported { what: String },
    #[error(
        "another server answers: expected serial number {expected}, found {found}; nothing was done; check the address or the list of servers"
    )]
    WrongServer { expected: String, found: String },
    #[error("{what}: {reason}")]
    Settings { what: String, reason: String },
}

impl Cause {
    /// Whether the same request may be sent again when it changes nothing: another try may go better.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::Busy { .. }
                | Self::PartialReply { .. }
                | Self::SessionLimit
        )
    }

    /// Whether a person has to change something (credentials, trust, licence) before any try can go better.
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Tls { .. }
                | Self::CertificateChanged { .. }
                | Self::CertificateExpired { .. }
                | Self::Unauthorised { .. }
                | Self::AccountLocked { .. }
                | Self::PasswordChangeRequired { .. }
                | Self::Forbidden { .. }
                | Self::LicenceNeeded { .. }
                | Self::WrongServer { .. }
                | Self::Settings { .. }
        )
    }

    pub fn at(self, bmc: &str) -> RedfishError {
        RedfishError { bmc: bmc.to_owned(), cause: self }
    }
}
