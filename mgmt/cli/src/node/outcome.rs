//! How a command about nodes ended, for programs.

use basalt_provision::fault::{Fault, FaultKind};
use basalt_provision::list::AddError;

/// The worst of what happened; ordered, so that `max` finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Hardware is not as expected, or not healthy. As with `basalt fabric`, 1 is taken.
    Differs = 30,
    /// A BMC does not answer, or not with what makes sense.
    NoAnswer = 31,
    /// User or password is refused, or the account is locked.
    Credentials = 32,
    /// A certificate that is expired, changed or of nobody we trust.
    Certificate = 33,
    /// Another server than the list says, or one that is in it twice.
    OtherServer = 34,
    /// The BMC takes the request and says no, or cannot do that.
    Refused = 35,
    /// Nodes ended in failed.
    Failed = 36,
}

/// An ending, and one line about it.
#[derive(Debug, thiserror::Error)]
#[error("{summary}")]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    summary: String,
}

impl Outcome {
    pub(super) fn new(ending: Ending, summary: impl Into<String>) -> Self {
        Self { ending, summary: summary.into() }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.ending as u8
    }
}

pub(super) fn ending(kind: FaultKind) -> Ending {
    match kind {
        FaultKind::Unreachable
        | FaultKind::TimedOut
        | FaultKind::Busy
        | FaultKind::NotRedfish
        | FaultKind::BadReply => Ending::NoAnswer,
        FaultKind::WrongPassword | FaultKind::AccountLocked => Ending::Credentials,
        FaultKind::Certificate => Ending::Certificate,
        FaultKind::OtherServer | FaultKind::Duplicate => Ending::OtherServer,
        FaultKind::NotAsExpected => Ending::Differs,
        FaultKind::Refused => Ending::Refused,
        FaultKind::NotBlank | FaultKind::Boot | FaultKind::OutOfTime | FaultKind::Stuck => Ending::Failed,
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Outcome {
        Outcome::new(ending(fault.kind), fault.to_string())
    }
}

impl From<AddError> for crate::control::CliError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Twin { .. } => Outcome::new(Ending::OtherServer, error.to_string()).into(),
            AddError::List(error) => error.into(),
        }
    }
}

impl From<Fault> for crate::control::CliError {
    fn from(fault: Fault) -> Self {
        Outcome::from(fault).into()
    }
}
