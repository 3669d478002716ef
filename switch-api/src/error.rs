//! One error type for every driver: which switch, what happened in plain words, what to do next.

use crate::names::{DeviceName, InterfaceName};
use std::time::Duration;

pub type Result<T, E = SwitchError> = std::result::Result<T, E>;

/// Something went wrong with one switch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{switch}: {cause}")]
pub struct SwitchError {
    pub switch: DeviceName,
    pub cause: Cause,
}

impl SwitchError {
    pub fn new(switch: &DeviceName, cause: Cause) -> Self {
        Self { switch: switch.clone(), cause }
    }
}

/// Why. Each cause names the next step, so that the message can be shown as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    #[error(
        "no connection to {endpoint}: {reason}; check the address, that the API is enabled and that a firewall lets it through"
    )]
    Unreachable { endpoint: String, reason: String },
    #[error(
        "no answer to '{request}' within {} s; the switch may be busy: try again, or raise management.timeout_s",
        .after.as_secs()
    )]
    TimedOut { request: String, after: Duration },
    #[error(
        "TLS with {endpoint} failed: {reason}; set management.tls.ca_file or pin_sha256 to what the switch presents"
    )]
    Tls { endpoint: String, reason: String },
    #[error(
        "{endpoint} wants to see a certificate of ours that it believes ({reason}); set management.tls.certificate_file and key_file to one that its CA has signed"
    )]
    OwnCertificate { endpoint: String, reason: String },
    #[error(
        "the switch refused the credentials of user '{user}'; check management.user and management.credentials"
    )]
    Unauthorised { user: String },
    #[error("user '{user}' may not {request}; give it a role that may change the configuration")]
    Forbidden { user: String, request: String },
    #[error("the switch limits our rate{}; it was tried {attempts} times", after_words(.retry_after))]
    RateLimited { retry_after: Option<Duration>, attempts: u32 },
    #[error(
        "the answer to '{request}' broke off after {got_bytes} bytes; nothing was concluded from it, try again"
    )]
    PartialReply { request: String, got_bytes: u64 },
    #[error(
        "the answer to '{request}' is larger than {limit_bytes} bytes and was not read on; this is not a switch we know"
    )]
    ReplyTooLarge { request: String, limit_bytes: u64 },
    #[error("the answer to '{request}' makes no sense: {reason}; is this really a {expected} switch?")]
    BadReply { request: String, reason: String, expected: &'static str },
    #[error(
        "the switch runs {found}, and the driver needs {needed}; upgrade the switch or choose another driver"
    )]
    VersionMismatch { found: String, needed: String },
    #[error("the switch rejected {path}: {reason}")]
    Rejected { path: String, reason: String },
    #[error(
        "someone else changed the configuration meanwhile ({reason}); plan again and look at the new differences"
    )]
    Conflict { reason: String },
    #[error(
        "{held_by} holds the configuration lock; wait until it is done, or end that session on the switch"
    )]
    Locked { held_by: String },
    #[error(
        "it stopped in the middle: {done} of {total} changes are in force ({reason}); `plan` shows the rest, `apply` finishes it"
    )]
    Interrupted { done: usize, total: usize, reason: String },
    #[error("the management path was lost after the change{}", rolled_back_words(*.back))]
    LostManagementPath { back: WayBack },
    #[error(
        "LLDP neighbours were lost after the change on {}{}",
        list(.ports), rolled_back_words(*.back)
    )]
    LostNeighbours { ports: Vec<InterfaceName>, back: WayBack },
    #[error(
        "refused: '{change}' would cut {interface}, by which we reach the switch; make that change on the console, or manage it out of band"
    )]
    WouldCutManagement { interface: InterfaceName, change: String },
    #[error(
        "{object} is there and not marked as ours ({reason}); remove it or list the switch as `adopt: true`"
    )]
    NotOwned { object: String, reason: String },
    #[error("not done, since {other} failed before it; fix that and apply again")]
    Skipped { other: DeviceName },
    #[error("not begun, since a stop was asked for; nothing was sent to it")]
    NotBegun,
    #[error("stopped on request; {}", stopped_words(*.back))]
    Stopped { back: WayBack },
    #[error("this switch cannot do {what}; take it out of the intent or use another switch")]
    Unsupported { what: String },
    #[error("{what}: {reason}; correct fabric.yaml")]
    Settings { what: String, reason: String },
}

/// What became of a change that had to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// Seen to be as before.
    Done,
    /// The switch has a commit timer and goes back by itself when that ends; it was not seen doing so.
    LeftToSwitch { after: Duration },
    /// Nobody does it.
    NotDone,
}

impl Cause {
    /// Whether the same request may be sent again: nothing was decided by the switch yet, and another try may go better.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::RateLimited { .. }
                | Self::PartialReply { .. }
                | Self::Locked { .. }
        )
    }

    pub fn at(self, switch: &DeviceName) -> SwitchError {
        SwitchError::new(switch, self)
    }
}

fn after_words(retry_after: &Option<Duration>) -> String {
    retry_after.map_or(String::new(), |d| format!(" and asks to wait {} s", d.as_secs().max(1)))
}

fn rolled_back_words(back: WayBack) -> String {
    match back {
        WayBack::Done => {
            "; the change was rolled back and the switch is as before: look at the diff for what cut it"
                .to_owned()
        }
        WayBack::LeftToSwitch { after } => left_to_switch(after),
        WayBack::NotDone => "; the change could NOT be rolled back: use the console of the switch".to_owned(),
    }
}

fn stopped_words(back: WayBack) -> String {
    match back {
        WayBack::Done => "the change was rolled back and the switch is as before".to_owned(),
        WayBack::LeftToSwitch { after } => left_to_switch(after).trim_start_matches("; ").to_owned(),
        WayBack::NotDone => "the change could NOT be rolled back: `diff` shows what stands".to_owned(),
    }
}

fn left_to_switch(after: Duration) -> String {
    format!(
        "; the switch has not been seen since, and takes the change back by itself: its commit timer is {} s, counted from when it runs again if it was down; `diff` shows whether it has",
        after.as_secs().max(1)
    )
}

fn list(ports: &[InterfaceName]) -> String {
    ports.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(", ")
}
