//! The platters: durable blocks, the volatile cache above them, and what happens to both.

use super::{SimDriveCounters, SimFaults};
use crate::BLOCK_BYTES;
use basalt_reactor::rng::Rng;
use bytes::Bytes;
use std::collections::BTreeMap;

const ZERO_BLOCK: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// Sparse contents by block number; a block that is absent is zero.
pub(super) struct Media {
    blocks: u64,
    durable: BTreeMap<u64, Box<[u8]>>,
    /// Written but not flushed, in drives that have a volatile cache.
    cache: Option<BTreeMap<u64, Box<[u8]>>>,
}

impl Media {
    pub(super) fn new(size_bytes: u64, volatile_cache: bool) -> Media {
        Media {
            blocks: size_bytes / BLOCK_BYTES,
            durable: BTreeMap::new(),
            cache: volatile_cache.then(BTreeMap::new),
        }
    }

    /// What a read of the block at this byte offset finds.
    pub(super) fn block(&self, offset: u64) -> &[u8] {
        let no = offset / BLOCK_BYTES;
        let cached = self.cache.as_ref().and_then(|c| c.get(&no));
        cached.or_else(|| self.durable.get(&no)).map_or(&ZERO_BLOCK, |b| b)
    }

    pub(super) fn put(&mut self, offset: u64, data: &[u8], durable: bool) {
        match &mut self.cache {
            Some(cache) if !durable => {
                cache.insert(offset / BLOCK_BYTES, data.into());
            }
            _ => self.put_durable(offset, data),
        }
    }

    pub(super) fn put_durable(&mut self, offset: u64, data: &[u8]) {
        let no = offset / BLOCK_BYTES;
        if let Some(c) = &mut self.cache {
            c.remove(&no);
        }
        if data.iter().all(|&b| b == 0) {
            self.durable.remove(&no);
        } else {
            self.durable.insert(no, data.into());
        }
    }

    /// In a drive with a cache, zeroes are as volatile as any other write.
    pub(super) fn put_zeroes(&mut self, offset: u64, len: u64) {
        let blocks = offset / BLOCK_BYTES..(offset + len) / BLOCK_BYTES;
        match &mut self.cache {
            // Only blocks that hold something, so that zeroing a whole sparse drive stays cheap.
            Some(cache) => {
                let mut held: Vec<_> = self.durable.range(blocks.clone()).map(|(no, _)| *no).collect();
                held.extend(cache.range(blocks).map(|(no, _)| *no));
                for no in held {
                    cache.insert(no, ZERO_BLOCK.into());
                }
            }
            None => {
                let mut tail = self.durable.split_off(&blocks.start);
                let mut rest = tail.split_off(&blocks.end);
                self.durable.append(&mut rest);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        let Some(cache) = &mut self.cache else { return };
        for (no, data) in std::mem::take(cache) {
            self.durable.insert(no, data);
        }
    }

    /// Flips a bit of what is stored, wherever it is stored.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u64) {
        let no = offset / BLOCK_BYTES;
        let cached = self.cache.as_mut().and_then(|c| c.get_mut(&no));
        let block = match cached {
            Some(b) => b,
            None => self.durable.entry(no).or_insert_with(|| ZERO_BLOCK.into()),
        };
        block[(bit / 8) as usize] ^= 1 << (bit % 8);
    }

    pub(super) fn random_block(&self, rng: &mut Rng) -> u64 {
        rng.below(self.blocks) * BLOCK_BYTES
    }
}

/// A write that the drive has accepted and not completed.
pub(super) struct InFlight {
    pub(super) offset: u64,
    pub(super) data: Vec<Bytes>,
}

impl InFlight {
    /// The blocks, with their offsets; a piece need not be whole blocks long.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
        let all: Vec<u8> = self.data.concat();
        let count = all.len() / BLOCK_BYTES as usize;
        (0..count).map(move |i| {
            let at = i * BLOCK_BYTES as usize;
            (self.offset + at as u64, all[at..at + BLOCK_BYTES as usize].to_vec())
        })
    }
}

struct Rot {
    at_ns: u64,
    offset: u64,
    bit: u64,
}

pub(super) struct State {
    pub(super) media: Media,
    pub(super) faults: SimFaults,
    pub(super) gone: bool,
    pub(super) counters: SimDriveCounters,
    in_flight: BTreeMap<u64, InFlight>,
    next_id: u64,
    /// Bits that will have flipped by then.
    rot: Vec<Rot>,
    own_draws: u64,
    /// Left by the last request, so that what happens outside of reactors differs from seed to seed.
    pub(super) entropy: u64,
}

impl State {
    pub(super) fn new(media: Media) -> State {
        State {
            media,
            faults: SimFaults::default(),
            gone: false,
            counters: SimDriveCounters::default(),
            in_flight: BTreeMap::new(),
            next_id: 0,
            rot: Vec::new(),
            own_draws: 0,
            entropy: 0,
        }
    }

    /// A generator for what happens outside of reactors, as repeatable as the calls are.
    pub(super) fn own_rng(&mut self, name: &str) -> Rng {
        self.own_draws += 1;
        let mut seed = self.own_draws ^ self.entropy;
        for b in name.bytes() {
            seed = (seed ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Rng::new(seed)
    }

    pub(super) fn accept(&mut self, write: InFlight) -> u64 {
        self.next_id += 1;
        self.in_flight.insert(self.next_id, write);
        self.next_id
    }

    /// Takes a write out of flight; `None` when a power cut decided about it already.
    pub(super) fn take_in_flight(&mut self, id: u64) -> Option<InFlight> {
        self.in_flight.remove(&id)
    }

    /// The write is cut short: each block old or new.
    pub(super) fn tear(&mut self, write: &InFlight, rng: &mut Rng) {
        let (mut kept, mut lost) = (0, 0);
        for (offset, data) in write.blocks() {
            if rng.below(2) == 0 {
                lost += 1;
                continue;
            }
            kept += 1;
            self.media.put_durable(offset, &data);
        }
        if kept > 0 && lost > 0 {
            self.counters.torn_writes += 1;
        }
    }

    pub(super) fn power_cut(&mut self, name: &str) {
        let mut rng = self.own_rng(name);
        // The cache first: a write in flight is newer than what is cached below it.
        if let Some(cache) = self.media.cache.as_mut().map(std::mem::take) {
            for (no, data) in cache {
                if rng.below(2) == 0 {
                    self.counters.dropped_at_power_cut += 1;
                } else {
                    self.media.durable.insert(no, data);
                }
            }
        }
        for write in std::mem::take(&mut self.in_flight).into_values() {
            self.tear(&write, &mut rng);
        }
    }

    pub(super) fn schedule_rot(&mut self, at_ns: u64, offset: u64, bit: u64) {
        self.rot.push(Rot { at_ns, offset, bit });
    }

    /// Flips the bits whose time has come.
    pub(super) fn rot_until(&mut self, now_ns: u64) {
        let mut i = 0;
        while i < self.rot.len() {
            if self.rot[i].at_ns > now_ns {
                i += 1;
                continue;
            }
            let r = self.rot.swap_remove(i);
            self.media.flip_bit(r.offset, r.bit);
            self.counters.bit_rots += 1;
        }
    }
}
