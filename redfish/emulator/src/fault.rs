//! What goes wrong on demand.

use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Not handled, never answered.
    Hang,
    /// Handled, answered late.
    Slow(Duration),
    /// Handled; the answer breaks off after so many bytes.
    Truncate(usize),
    /// Handled; the connection closes before the answer.
    LoseAnswer,
    /// Not handled; the answer has no end.
    Endless,
    /// Not handled; an answer of this many bytes.
    Large(usize),
    /// Not handled; this status with this body.
    Status(u16, String),
    /// Not handled; 200 with this body.
    Body(String),
    /// Handled; the answer's ETag is wrong.
    WrongTag,
    /// Not handled; no HTTP.
    Noise,
    /// Not handled; the connection closes.
    Close,
}

#[derive(Debug)]
pub(crate) struct Planned {
    /// Part of `METHOD /path?query`.
    pub(crate) when: String,
    pub(crate) fault: Fault,
    pub(crate) times: usize,
}

impl Planned {
    /// The fault for this request, if one is planned; it counts.
    pub(crate) fn take(all: &mut Vec<Self>, request: &str) -> Option<Fault> {
        let at = all.iter().position(|planned| request.contains(&planned.when))?;
        let planned = &mut all[at];
        let fault = planned.fault.clone();
        planned.times -= 1;
        if planned.times == 0 {
            all.remove(at);
        }
        Some(fault)
    }
}
