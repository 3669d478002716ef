//! Faults planted on purpose, to prove that the simulation finds them. Off unless a test of this thread says otherwise.

use std::cell::Cell;

thread_local! {
    static LOST_REPLAY_SLOT: Cell<bool> = const { Cell::new(false) };
}

/// A retried request is executed again, and the file system is not told that it is a retry.
pub fn set_lost_replay_slot(on: bool) {
    LOST_REPLAY_SLOT.set(on);
}

pub(crate) fn lost_replay_slot() -> bool {
    LOST_REPLAY_SLOT.get()
}
