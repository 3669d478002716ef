//! Counters of one shard's store.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStats {
    pub stripes_written: u64,
    /// Data bytes in them, padding left out.
    pub stripe_bytes: u64,
    /// Zero blocks that only fill a stripe's last row.
    pub padding_bytes: u64,
    /// Stripes written again because a member failed.
    pub stripes_rewritten: u64,
    pub checksum_rows_written: u64,
    pub footers_written: u64,
    pub segments_granted: u64,
    pub segments_freed: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub checksum_blocks_read: u64,
    /// Reads that had to reconstruct.
    pub degraded_reads: u64,
    /// Blocks whose drive answered but whose contents did not verify or could not be read, given back by redundancy.
    pub repaired_blocks: u64,
    pub journal_blocks: u64,
    pub journal_bytes: u64,
    pub journal_records: u64,
    pub chunk_switches: u64,
    /// Switches because a member failed.
    pub chunk_failures: u64,
    /// Switches because a member was slow.
    pub chunk_slow: u64,
    pub chunks_recycled: u64,
    pub checkpoints: u64,
    /// Callers that had to wait in `wait_room`.
    pub room_waits: u64,
}
