//! What is done about a controller that misbehaves: time-out, abort, reset, and giving up. A state machine without I/O:
//! the supervisor tells it what happened and carries out what it says.
//!
//! ```text
//!             overdue: abort      abort overdue, violation, fatal status
//!   Running ◄──────────────────┐ ┌──────────────────► Resetting ──tries spent──► Failed
//!      ▲                       └─┘                        │
//!      └────────────────── reset done ────────────────────┘        all ones, departed, at any time: Gone
//! ```

use crate::queue::{Cid, Violation};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Aborts in flight at a time (Identify Controller, ACL, made 1-based).
    pub aborts: u32,
    /// Tries of one reset.
    pub tries: u32,
    /// Resets within `window_ns` after which the controller counts as failed.
    pub resets: u32,
    pub window_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { aborts: 4, tries: 3, resets: 5, window_ns: 600_000_000_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command's time is over; `abort_sent`: and its abort's too. `csts` was read just now.
    Overdue {
        qid: u16,
        cid: Cid,
        abort_sent: bool,
    },
    /// An abort has been answered, whatever it said; its command gets its own completion or its time runs out.
    AbortAnswered,
    Violation(Violation),
    /// CSTS.CFS.
    Fatal,
    /// Somebody needs a reset: new firmware, an admin command without an answer.
    Wanted(String),
    /// Registers read as all ones, or the bus says that it left.
    Departed,
    ResetDone,
    ResetFailed(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Abort {
        qid: u16,
        cid: Cid,
    },
    Reset {
        why: String,
    },
    /// The controller answers no more: its commands fail, and so do those to come.
    Fail {
        why: String,
    },
    /// As `Fail`, and the drive is gone.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Resetting { tries: u32 },
    Failed,
    Gone,
}

#[derive(Debug)]
pub struct Recovery {
    limits: Limits,
    state: State,
    aborts: u32,
    resets_begun: u64,
    /// When the latest resets began.
    resets_ns: VecDeque<u64>,
}

impl Recovery {
    pub fn new(limits: Limits) -> Recovery {
        Recovery { limits, state: State::Running, aborts: 0, resets_begun: 0, resets_ns: VecDeque::new() }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Resets begun so far.
    pub fn resets(&self) -> u64 {
        self.resets_begun
    }

    pub fn on(&mut self, event: Event, now_ns: u64) -> Action {
        match (self.state, event) {
            (State::Gone, _) => Action::Nothing,
            (_, Event::Departed) => {
                self.state = State::Gone;
                Action::Remove
            }
            (State::Failed, _) => Action::Nothing,
            (State::Running, Event::Overdue { qid, cid, abort_sent: false }) => {
                // Beyond the controller's limit they wait: the next look finds them overdue again.
                if self.aborts >= self.limits.aborts {
                    return Action::Nothing;
                }
                self.aborts += 1;
                Action::Abort { qid, cid }
            }
            (State::Running, Event::Overdue { qid, cid, abort_sent: true }) => self.reset(
                format!("command {:#x} of queue {qid} outlived its time and its abort", cid.0),
                now_ns,
            ),
            (State::Running, Event::Violation(v)) => self.reset(format!("it {v}"), now_ns),
            (State::Running, Event::Wanted(why)) => self.reset(why, now_ns),
            (State::Running, Event::Fatal) => self.reset("it reports a fatal status".to_owned(), now_ns),
            (_, Event::AbortAnswered) => {
                self.aborts = self.aborts.saturating_sub(1);
                Action::Nothing
            }
            (State::Running, Event::ResetDone | Event::ResetFailed(_)) => Action::Nothing,
            (State::Resetting { .. }, Event::ResetDone) => {
                self.state = State::Running;
                Action::Nothing
            }
            (State::Resetting { tries }, Event::ResetFailed(why)) => {
                if tries < self.limits.tries {
                    self.state = State::Resetting { tries: tries + 1 };
                    return Action::Reset { why };
                }
                self.fail(format!("{why}; {tries} resets in a row did not bring it back"))
            }
            // What is overdue or strange while a reset is under way is dealt with by the reset.
            (State::Resetting { .. }, _) => Action::Nothing,
        }
    }

    fn reset(&mut self, why: String, now_ns: u64) -> Action {
        let window_ns = self.limits.window_ns;
        self.resets_ns.retain(|&at| now_ns.saturating_sub(at) < window_ns);
        if self.resets_ns.len() >= self.limits.resets as usize {
            let n = self.resets_ns.len();
            return self.fail(format!("{why}, after {n} resets within {} s", window_ns / 1_000_000_000));
        }
        self.resets_ns.push_back(now_ns);
        self.resets_begun += 1;
        self.state = State::Resetting { tries: 1 };
        // A reset answers every abort there is.
        self.aborts = 0;
        Action::Reset { why }
    }

    fn fail(&mut self, why: String) -> Action {
        self.state = State::Failed;
        Action::Fail { why }
    }
}
