//! How a command about the fabric ended, for programs.

use super::count;
use basalt_switch_api::engine::PerSwitch;
use basalt_switch_api::verify::{Finding, FindingKind};
use basalt_switch_api::{Cause, SwitchError};

/// The worst of what happened; ordered, so that `max` finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Something is not as wanted. As `diff` ends with 1 where files differ; 1 is taken here.
    Differs = 20,
    /// A switch could not be asked, or its answer made no sense.
    NoAnswer = 21,
    /// Nothing was sent, or the switch did not take it.
    Refused = 22,
    /// A change was begun and taken back, or stands in part.
    Interrupted = 23,
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

    /// From what each switch answered; `done` says how the rest stands.
    pub(super) fn of_answers<T>(answers: &PerSwitch<T>, done: Result<(), Self>) -> Result<(), Self> {
        let failed: Vec<&SwitchError> = answers.values().filter_map(|a| a.as_ref().err()).collect();
        let worst = failed.iter().map(|error| ending(&error.cause)).max();
        match (worst, done) {
            (None, done) => done,
            (Some(worst), Err(done)) if done.ending > worst => Err(done),
            (Some(worst), _) => {
                let all = count(answers.len(), "switch", "switches");
                Err(Self::new(worst, format!("{} of {all} failed; the reasons are above", failed.len())))
            }
        }
    }

    pub(super) fn of_findings(findings: &[Finding]) -> Result<(), Self> {
        if findings.is_empty() {
            return Ok(());
        }
        let silent = findings.iter().any(|f| f.kind == FindingKind::NoAnswer);
        let ending = if silent { Ending::NoAnswer } else { Ending::Differs };
        Err(Self::new(ending, count(findings.len(), "finding", "findings")))
    }
}

/// What went wrong with one switch, as an ending.
pub(super) fn ending(cause: &Cause) -> Ending {
    match cause {
        Cause::Interrupted { .. }
        | Cause::LostManagementPath { .. }
        | Cause::LostNeighbours { .. }
        | Cause::Stopped { .. }
        | Cause::NotBegun
        | Cause::Skipped { .. } => Ending::Interrupted,
        Cause::Unreachable { .. }
        | Cause::TimedOut { .. }
        | Cause::Tls { .. }
        | Cause::RateLimited { .. }
        | Cause::PartialReply { .. }
        | Cause::ReplyTooLarge { .. }
        | Cause::BadReply { .. } => Ending::NoAnswer,
        _ => Ending::Refused,
    }
}
