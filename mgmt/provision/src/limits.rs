//! How much happens at once.

use crate::state::State;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// BMCs asked at once. Each costs a connection and up to 8 MiB.
    pub bmcs: usize,
    /// Servers whose firmware is written at once: a bad file must not take the whole rack.
    pub firmware: usize,
    /// Servers that boot at once: what the boot service's link carries. 16 images of 100 MB are 13 s on 1 Gb/s.
    pub boots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bmcs: 64, firmware: 4, boots: 16 }
    }
}

#[derive(Clone)]
pub(crate) struct Permits {
    bmcs: Arc<Semaphore>,
    firmware: Arc<Semaphore>,
    boots: Arc<Semaphore>,
}

/// What a node holds: at most one of each.
#[derive(Default)]
pub(crate) struct Held {
    bmc: Option<OwnedSemaphorePermit>,
    firmware: Option<OwnedSemaphorePermit>,
    boot: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(crate) fn new(limits: &Limits) -> Permits {
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.clamp(1, 4096)));
        Permits {
            bmcs: semaphore(limits.bmcs),
            firmware: semaphore(limits.firmware),
            boots: semaphore(limits.boots),
        }
    }

    /// Waits for what the work in `state` needs and gives back the rest. Always in the same order (boot, firmware, BMC), and never one
    /// while holding a later one, so that nobody waits in a circle.
    pub(crate) async fn for_state(&self, state: State, held: &mut Held) {
        let boots = matches!(state, State::BootSet | State::Booting);
        let firmware = state == State::Inspected;
        let bmc = matches!(state, State::Discovered | State::Firmware | State::BootSet);
        if !bmc {
            held.bmc = None;
        }
        if !firmware {
            held.firmware = None;
        }
        if !boots {
            held.boot = None;
        }
        // Semaphores are never closed: an error cannot come.
        if boots && held.boot.is_none() {
            held.bmc = None;
            held.boot = self.boots.clone().acquire_owned().await.ok();
        }
        if firmware && held.firmware.is_none() {
            held.bmc = None;
            held.firmware = self.firmware.clone().acquire_owned().await.ok();
        }
        if bmc && held.bmc.is_none() {
            held.bmc = self.bmcs.clone().acquire_owned().await.ok();
        }
    }
}
