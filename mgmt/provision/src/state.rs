//! How far a server has come, how long each step may take, and the ways out of every state.
//!
//! ```text
//! discovered -> inspected -> firmware -> boot set -> booting -> installed | diskless -> running
//!      \___________\____________\___________\___________\____________/______________________/
//!                 failed (retry: discovered, or installed where the disk is written) ; removed (add: discovered)
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What has been done, not what is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In the list; nothing is known of it but who answers at its BMC.
    Discovered,
    /// Its hardware is known and as expected.
    Inspected,
    /// Its firmware is as wanted.
    Firmware,
    /// The boot service knows what to give it, its BMC boots it from the network next.
    BootSet,
    /// It was reset.
    Booting,
    /// The image is on its disk.
    Installed,
    /// The image runs from memory.
    Diskless,
    /// It serves.
    Running,
    /// It went no further; the node says at which step and why.
    Failed,
    /// Taken out of the list by an operator.
    Removed,
}

impl State {
    pub const ALL: [State; 10] = [
        State::Discovered,
        State::Inspected,
        State::Firmware,
        State::BootSet,
        State::Booting,
        State::Installed,
        State::Diskless,
        State::Running,
        State::Failed,
        State::Removed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::Discovered => "discovered",
            State::Inspected => "inspected",
            State::Firmware => "firmware",
            State::BootSet => "boot set",
            State::Booting => "booting",
            State::Installed => "installed",
            State::Diskless => "diskless",
            State::Running => "running",
            State::Failed => "failed",
            State::Removed => "removed",
        }
    }

    /// Nothing is left to do until somebody says so.
    pub fn is_rest(self) -> bool {
        matches!(self, State::Running | State::Failed | State::Removed)
    }

    /// The states that may follow.
    pub fn exits(self) -> &'static [State] {
        use State::*;
        match self {
            Discovered => &[Inspected, Failed, Removed],
            Inspected => &[Firmware, Discovered, Failed, Removed],
            Firmware => &[BootSet, Discovered, Failed, Removed],
            BootSet => &[Booting, Discovered, Failed, Removed],
            Booting => &[Installed, Diskless, Discovered, Failed, Removed],
            Installed => &[Running, Discovered, Failed, Removed],
            Diskless => &[Running, Discovered, Failed, Removed],
            Running => &[Discovered, Failed, Removed],
            Failed => &[Discovered, Installed, Removed],
            Removed => &[Discovered],
        }
    }

    pub fn may_become(self, next: State) -> bool {
        self.exits().contains(&next)
    }

    /// What is done in this state, for people.
    pub fn work(self) -> &'static str {
        match self {
            State::Discovered => "reading the inventory",
            State::Inspected => "bringing the firmware up to date",
            State::Firmware => "setting the boot source",
            State::BootSet => "resetting the server",
            State::Booting => "waiting for the image to start",
            State::Installed | State::Diskless => "waiting until it serves",
            State::Running | State::Failed | State::Removed => "",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How long the work of each state may take, attempts after passing faults included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub inspect: Duration,
    /// BIOS and BMC flashing with their own restarts.
    pub firmware: Duration,
    pub set_boot: Duration,
    pub reset: Duration,
    /// Power-on self-test of large servers, memory training, and the image over the network.
    pub boot: Duration,
    pub serve: Duration,
    /// One question to a BMC.
    pub call: Duration,
    /// How often a boot is looked at.
    pub poll: Duration,
    /// The wait after the first passing fault; doubled each time, up to sixteen times this.
    pub pause: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        Times {
            inspect: minutes(5),
            firmware: minutes(60),
            set_boot: minutes(5),
            reset: minutes(5),
            boot: minutes(30),
            serve: minutes(15),
            call: minutes(2),
            poll: Duration::from_secs(1),
            pause: Duration::from_secs(2),
        }
    }
}

impl Times {
    pub fn limit(&self, state: State) -> Option<Duration> {
        match state {
            State::Discovered => Some(self.inspect),
            State::Inspected => Some(self.firmware),
            State::Firmware => Some(self.set_boot),
            State::BootSet => Some(self.reset),
            State::Booting => Some(self.boot),
            State::Installed | State::Diskless => Some(self.serve),
            State::Running | State::Failed | State::Removed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn reachable(from: State) -> BTreeSet<State> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(state) = todo.pop() {
            for next in state.exits() {
                if seen.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        seen
    }

    #[test]
    fn every_state_has_a_way_to_running_and_to_removed() {
        for state in State::ALL {
            let reachable = reachable(state);
            assert!(reachable.contains(&State::Running) && reachable.contains(&State::Removed), "{state}");
            assert!(!state.exits().contains(&state), "{state} leads to itself");
        }
    }

    #[test]
    fn every_state_with_work_has_a_limit_and_can_fail() {
        for state in State::ALL {
            assert_eq!(Times::default().limit(state).is_some(), !state.is_rest(), "{state}");
            assert_eq!(state.work().is_empty(), state.is_rest(), "{state}");
            assert!(state.is_rest() || state.may_become(State::Failed), "{state}");
        }
    }
}
