//! What has happened in a shard, for `basalt top` and for the simulator's coverage.

use super::Shard;
use std::cell::Cell;
use std::collections::BTreeMap;

#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Requests answered from the record of an earlier one.
    Replayed,
    /// Transactions across shards that a crash had left prepared.
    Resolved,
}

#[derive(Default)]
pub(crate) struct Counted([Cell<u64>; 2]);

impl Counted {
    pub(crate) fn add(&self, counter: Counter) {
        let cell = &self.0[counter as usize];
        cell.set(cell.get() + 1);
    }
    fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].get()
    }
}

/// Totals by name.
pub(crate) type Totals = BTreeMap<&'static str, u64>;

impl Shard {
    pub(crate) fn totals(&self) -> Totals {
        let index = self.index.stats();
        let store = self.index.store().stats();
        Totals::from([
            ("answers replayed", self.counted.get(Counter::Replayed)),
            ("transactions across shards cut and resolved", self.counted.get(Counter::Resolved)),
            ("memtable flushes", index.flushes),
            ("merges of runs", index.merges),
            ("degraded reads", store.degraded_reads),
            ("blocks repaired", store.repaired_blocks),
            ("stripes written again elsewhere", store.stripes_rewritten),
            ("journal chunks that lost a member", store.chunk_failures),
            ("checkpoints", store.checkpoints),
            ("segments freed", store.segments_freed),
        ])
    }
}
