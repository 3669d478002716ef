//! What a server or its BMC did wrong, with what to do about it.

use crate::state::State;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Nobody answers, or the connection broke.
    Unreachable,
    /// It took the question and gave no answer in time.
    TimedOut,
    /// It says that it cannot just now.
    Busy,
    /// User or password. Never tried again by itself: BMCs lock accounts.
    WrongPassword,
    AccountLocked,
    /// Expired, changed, or of nobody we trust.
    Certificate,
    /// The BMC belongs to another server than the list says.
    OtherServer,
    /// Two entries of the list are one server.
    Duplicate,
    /// Something answers that is no BMC.
    NotRedfish,
    /// An answer that makes no sense.
    BadReply,
    /// The BMC takes the request and says no, or takes it without effect.
    Refused,
    /// The hardware is not as the profile says.
    NotAsExpected,
    /// A drive holds data and nobody said that it may go.
    NotBlank,
    /// The boot went wrong, or no further.
    Boot,
    /// Over the time limit of its step.
    OutOfTime,
    /// Begun again too often without progress.
    Stuck,
}

impl FaultKind {
    /// Worth another try within the step's time.
    pub fn passes(self) -> bool {
        matches!(self, FaultKind::Unreachable | FaultKind::TimedOut | FaultKind::Busy | FaultKind::BadReply)
    }

    /// What an operator does about it.
    pub fn next(self) -> &'static str {
        match self {
            FaultKind::Unreachable => "check the BMC's address, cable and VLAN",
            FaultKind::TimedOut => {
                "the BMC may hang: restart it (its reset button, or ipmitool mc reset cold), then provision again"
            }
            FaultKind::Busy => "wait until the BMC has finished what it does, then provision again",
            FaultKind::WrongPassword => {
                "give the right user and password; for a node of the list with `basalt node login`"
            }
            FaultKind::AccountLocked => "unlock the account at the BMC or wait until it opens by itself",
            FaultKind::Certificate => {
                "make sure that it is the right BMC, then accept its certificate (--accept-certificate; for a node of the list with `basalt node login`)"
            }
            FaultKind::OtherServer => {
                "correct the address, or say that the hardware was exchanged with `basalt node replace`"
            }
            FaultKind::Duplicate => "remove one of the two entries with `basalt node remove`",
            FaultKind::NotRedfish => "correct the address; Basalt speaks Redfish",
            FaultKind::BadReply => "update the BMC's firmware, or report the answer as a bug",
            FaultKind::Refused => "see the BMC's log with `basalt node logs`",
            FaultKind::NotAsExpected => "correct the hardware or the profile, then provision again",
            FaultKind::NotBlank => "name the drive with --wipe SERIAL if its contents may go",
            FaultKind::Boot => "see `basalt boot events` and the server's console",
            FaultKind::OutOfTime => "see the history with `basalt node show`, then provision again",
            FaultKind::Stuck => "see the history with `basalt node show`; remove what stands in the way",
        }
    }
}

/// One fault, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {}", kind.next())]
pub struct Fault {
    pub kind: FaultKind,
    pub cause: String,
}

impl Fault {
    pub fn new(kind: FaultKind, cause: impl Into<String>) -> Fault {
        Fault { kind, cause: cause.into() }
    }
}

/// Why a node is in [`State::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The state it did not get out of.
    pub at: State,
    pub kind: FaultKind,
    pub cause: String,
    pub at_s: u64,
}

impl Failure {
    pub fn next(&self) -> &'static str {
        self.kind.next()
    }
}
