//! Simulated drives for `reactor::sim`: latency, torn, lost and misdirected writes, bit rot, failure, and power cut with
//! unsynced data dropped. The media outlives nodes.

use crate::DriveRef;

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

#[derive(Clone)]
pub struct SimDrive {}

impl SimDrive {
    /// Sparse in memory.
    pub fn new(_name: &str, _size_bytes: u64, _volatile_cache: bool) -> SimDrive {
        todo!()
    }
    pub fn drive(&self) -> DriveRef {
        todo!()
    }
    pub fn set_faults(&self, _f: SimFaults) {
        todo!()
    }
    /// All requests from now on fail with `Gone`.
    pub fn fail(&self) {
        todo!()
    }
    pub fn revive(&self) {
        todo!()
    }
    /// Requests in flight are torn at block granularity (each block old or new), unflushed cached writes are each kept or
    /// dropped; call together with `Sim::crash`.
    pub fn power_cut(&self) {
        todo!()
    }
    /// Flips a bit in the block at `offset`.
    pub fn corrupt(&self, _offset: u64) {
        todo!()
    }
    /// Direct look at the media, for checks.
    pub fn peek(&self, _offset: u64, _len: usize) -> Vec<u8> {
        todo!()
    }
    pub fn poke(&self, _offset: u64, _data: &[u8]) {
        todo!()
    }
    /// What faults really happened, for coverage counters.
    pub fn counters(&self) -> SimDriveCounters {
        todo!()
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
