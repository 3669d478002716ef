//! Who watches the engine, and who may stop it.

use crate::names::DeviceName;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What the engine does with one switch at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has its place among those that are spoken to at the same time.
    Begun,
    /// Changes are being sent.
    Changing {
        changes: usize,
    },
    /// They are in force, and it is being watched whether the switch stays reachable.
    Watching,
    /// They hold from now on.
    Confirmed,
    TakingBack,
    Done,
    Failed,
}

impl Step {
    /// Whether a change may be in force that is not confirmed.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Changing { .. } | Self::Watching | Self::TakingBack)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun => f.write_str("asked"),
            Self::Changing { changes: 1 } => f.write_str("sending 1 change"),
            Self::Changing { changes } => write!(f, "sending {changes} changes"),
            Self::Watching => f.write_str("in force, watching the way to it and its neighbours"),
            Self::Confirmed => f.write_str("confirmed"),
            Self::TakingBack => f.write_str("taking the change back"),
            Self::Done => f.write_str("done"),
            Self::Failed => f.write_str("failed"),
        }
    }
}

type Call = dyn Fn(&DeviceName, Step) + Send + Sync;

/// Is called at every step of every switch; must not block.
#[derive(Clone, Default)]
pub(super) struct Watcher(Option<Arc<Call>>);

impl Watcher {
    pub(super) fn new(call: impl Fn(&DeviceName, Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(super) fn say(&self, switch: &DeviceName, step: Step) {
        if let Some(call) = &self.0 {
            call(switch, step);
        }
    }
}

/// A wish to end an apply early, without leaving anything half done: no further switch is begun, and changes that are not confirmed
/// yet are taken back. A clone is the same wish.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Sleeps, but wakes when asked to stop.
    pub(super) async fn sleep(&self, pause: Duration) {
        let mut wish = self.0.subscribe();
        // The sender lives as long as `self`; the time running out is the usual end.
        let _ = tokio::time::timeout(pause, wish.wait_for(|asked| *asked)).await;
    }
}
