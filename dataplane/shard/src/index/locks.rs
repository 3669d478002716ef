//! Keys that a prepared cross-shard transaction holds until it is decided. The locks themselves live in memory; what re-takes
//! them after a crash are the prepared transactions' own records.

use super::memtable::bounds;
use basalt_reactor::sync::{Notified, Notify};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Locks {
    held: RefCell<BTreeMap<Bytes, u128>>,
    released: Notify,
}

impl Locks {
    pub(crate) fn is_empty(&self) -> bool {
        self.held.borrow().is_empty()
    }
    /// Resolves when any lock has gone.
    pub(crate) fn released(&self) -> Notified {
        self.released.notified()
    }
    pub(crate) fn holder(&self, key: &[u8]) -> Option<u128> {
        self.held.borrow().get(key).copied()
    }
    /// Whether a transaction that `passes` says false for holds a key of `from..to`.
    pub(crate) fn any_in(&self, from: &[u8], to: &[u8], passes: impl Fn(u128) -> bool) -> bool {
        self.held.borrow().range::<[u8], _>(bounds(from, to)).any(|(_, tx)| !passes(*tx))
    }
    pub(crate) fn take(&self, key: Bytes, tx: u128) {
        self.held.borrow_mut().insert(key, tx);
    }
    pub(crate) fn release(&self, tx: u128) {
        self.held.borrow_mut().retain(|_, t| *t != tx);
        self.released.notify_all();
    }
}
