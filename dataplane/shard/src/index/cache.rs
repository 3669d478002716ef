//! Decoded blocks of runs, bounded. Second-chance (CLOCK) order: close to LRU and a hit writes one bit.

use super::block::Block;
use basalt_pool::BlockAddr;
use basalt_reactor::sync::Notify;
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;

/// Keyed by the first place of a block; segments are never reused, so neither are keys.
pub(crate) struct Cache {
    capacity_bytes: usize,
    bytes: usize,
    slots: Vec<Slot>,
    places: HashMap<BlockAddr, usize, BuildHasherDefault<SipHasher13>>,
    hand: usize,
    /// Blocks being read, so that two that miss the same one read it once.
    pub(super) loading: BTreeMap<BlockAddr, Rc<Notify>>,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}
struct Slot {
    at: BlockAddr,
    block: Rc<Block>,
    bytes: usize,
    used: bool,
}

impl Cache {
    pub(crate) fn new(capacity_bytes: usize) -> Cache {
        Cache {
            capacity_bytes,
            bytes: 0,
            slots: Vec::new(),
            places: HashMap::default(),
            hand: 0,
            loading: BTreeMap::new(),
            hits: 0,
            misses: 0,
        }
    }
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn set_capacity(&mut self, bytes: usize) {
        self.capacity_bytes = bytes;
        self.evict();
    }
    pub(crate) fn get(&mut self, at: BlockAddr) -> Option<Rc<Block>> {
        let Some(&i) = self.places.get(&at) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        self.slots[i].used = true;
        Some(self.slots[i].block.clone())
    }
    pub(crate) fn insert(&mut self, at: BlockAddr, block: Rc<Block>) {
        if self.places.contains_key(&at) {
            return;
        }
        let bytes = block.memory_bytes() + size_of::<Slot>();
        self.bytes += bytes;
        self.places.insert(at, self.slots.len());
        self.slots.push(Slot { at, block, bytes, used: false });
        self.evict();
    }
    fn evict(&mut self) {
        // Two rounds at most: the first clears every `used`.
        while self.bytes > self.capacity_bytes && !self.slots.is_empty() {
            self.hand %= self.slots.len();
            let slot = &mut self.slots[self.hand];
            if std::mem::take(&mut slot.used) {
                self.hand += 1;
                continue;
            }
            let gone = self.slots.swap_remove(self.hand);
            self.bytes -= gone.bytes;
            self.places.remove(&gone.at);
            if let Some(moved) = self.slots.get(self.hand) {
                self.places.insert(moved.at, self.hand);
            }
            // The one moved here came from the end: give it its turn later.
            self.hand += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{DataBuilder, Kind};
    use super::*;
    use basalt_pool::{Lsn, SegmentId};
    use bytes::Bytes;

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let mut b = DataBuilder::default();
        b.push(Bytes::from_static(b"k"), Lsn(1), None);
        let bytes = b.encode();
        let block = || Rc::new(Block::decode(Kind::Data, bytes.clone()).unwrap());
        let at = |i| BlockAddr { segment: SegmentId(1), column: 0, block: i };
        let mut c = Cache::new(50_000);
        for i in 0..1000 {
            c.insert(at(i), block());
            assert!(c.bytes() <= 50_000);
            assert!(c.get(at(0)).is_some(), "the one that is always used was evicted at {i}");
        }
        assert_eq!(c.slots.len(), c.places.len());
        assert!(c.slots.iter().enumerate().all(|(i, s)| c.places[&s.at] == i));
        assert_eq!(c.bytes(), c.slots.iter().map(|s| s.bytes).sum::<usize>());
        c.set_capacity(0);
        assert_eq!((c.bytes(), c.slots.len(), c.places.len()), (0, 0, 0));
    }
}
