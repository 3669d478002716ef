//! Simulated drives for `reactor::sim`: latency, torn, lost and misdirected writes, bit rot, failure, and power cut with
//! unsynced data dropped. The media outlives nodes.
//!
//! A write takes effect at one instant, when it completes. A request whose caller went away still completes later, as
//! a real drive's would, unless its node crashes first: then each of its blocks is old or new, decided at that moment.

mod channel;
mod media;

use crate::{BLOCK_BYTES, Bdev, Drive, DriveInfo, DriveRef, Result};
use media::{Media, State};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Probabilities are per request, in parts per million, drawn from the world's generator.
#[derive(Clone, Debug, Default)]
pub struct SimFaults {
    pub read_error_ppm: u32,
    /// A completed write that never reaches the media.
    pub lost_write_ppm: u32,
    /// A write that lands at another offset of the same drive.
    pub misdirected_write_ppm: u32,
    /// A bit of a written block flips later.
    pub bit_rot_ppm: u32,
    /// Now and then a request takes this much longer.
    pub slow_ppm: u32,
    pub slow_us: u32,
}

/// Handle on a simulated drive, for the driver of the simulation; clones name the same drive.
#[derive(Clone)]
pub struct SimDrive {
    shared: Arc<Shared>,
}

struct Shared {
    info: DriveInfo,
    /// Never held across a suspension. A simulation is one thread: the lock only makes the handle `Send`.
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimDrive {
    /// Sparse in memory.
    pub fn new(name: &str, size_bytes: u64, volatile_cache: bool) -> SimDrive {
        let info = DriveInfo {
            name: name.to_owned(),
            backend: "sim".to_owned(),
            size_bytes: size_bytes / BLOCK_BYTES * BLOCK_BYTES,
            block_bytes: BLOCK_BYTES as u32,
            volatile_cache,
        };
        let media = Media::new(info.size_bytes, volatile_cache);
        SimDrive { shared: Arc::new(Shared { info, state: Mutex::new(State::new(media)) }) }
    }

    pub fn drive(&self) -> DriveRef {
        Arc::new(self.clone())
    }

    pub fn set_faults(&self, f: SimFaults) {
        self.shared.state().faults = f;
    }

    /// All requests from now on fail with `Gone`.
    pub fn fail(&self) {
        self.shared.state().gone = true;
    }

    pub fn revive(&self) {
        self.shared.state().gone = false;
    }

    /// Requests in flight are torn at block granularity (each block old or new), unflushed cached writes are each kept or
    /// dropped; call together with `Sim::crash`.
    ///
    /// What is kept is drawn from a generator of the drive's own, seeded by its name and its last write's draw from the
    /// world: outside of a reactor there is no other.
    pub fn power_cut(&self) {
        self.shared.state().power_cut(&self.shared.info.name);
    }

    /// Flips a bit in the block at `offset`.
    pub fn corrupt(&self, offset: u64) {
        let mut s = self.shared.state();
        let bit = s.own_rng(&self.shared.info.name).below(BLOCK_BYTES * 8);
        s.media.flip_bit(offset, bit);
    }

    /// Direct look at the media, for checks: what a read would find now.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let first = offset / BLOCK_BYTES * BLOCK_BYTES;
        let s = self.shared.state();
        let mut at = first;
        while at < offset + len as u64 {
            let block = s.media.block(at);
            for (i, b) in block.iter().enumerate() {
                if let Some(out) = (at + i as u64).checked_sub(offset).and_then(|o| out.get_mut(o as usize)) {
                    *out = *b;
                }
            }
            at += BLOCK_BYTES;
        }
        out
    }

    /// Writes the media directly; durable at once.
    pub fn poke(&self, offset: u64, data: &[u8]) {
        let mut s = self.shared.state();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let block_at = at / BLOCK_BYTES * BLOCK_BYTES;
            let within = (at - block_at) as usize;
            let n = (BLOCK_BYTES as usize - within).min(data.len() - done);
            let mut block = s.media.block(block_at).to_vec();
            block[within..within + n].copy_from_slice(&data[done..done + n]);
            s.media.put_durable(block_at, &block);
            done += n;
        }
    }

    /// What faults really happened, for coverage counters.
    pub fn counters(&self) -> SimDriveCounters {
        self.shared.state().counters
    }
}

impl Drive for SimDrive {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }
    fn open(&self) -> Result<Rc<dyn Bdev>> {
        Ok(Rc::new(channel::Channel::new(self.shared.clone())?))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimDriveCounters {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub read_errors: u64,
    pub torn_writes: u64,
    pub lost_writes: u64,
    pub misdirected_writes: u64,
    pub bit_rots: u64,
    pub dropped_at_power_cut: u64,
}
