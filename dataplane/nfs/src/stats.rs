//! Counters and latency histograms per operation, for `basalt top` and metrics.

use basalt_reactor::Instant;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Bucket `i` counts what took less than 2^i microseconds (and not less than half of it); the last takes the rest.
pub const BUCKETS: usize = 28;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpStats {
    pub calls: u64,
    pub errors: u64,
    pub total_us: u64,
    pub max_us: u64,
    /// Histogram of latencies, see [`BUCKETS`].
    pub buckets: Vec<u64>,
}

impl OpStats {
    fn record(&mut self, us: u64, failed: bool) {
        self.calls += 1;
        self.errors += failed as u64;
        self.total_us += us;
        self.max_us = self.max_us.max(us);
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        let bucket = (64 - us.leading_zeros() as usize).min(BUCKETS - 1);
        self.buckets[bucket] += 1;
    }
    fn add(&mut self, other: &OpStats) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.total_us += other.total_us;
        self.max_us = self.max_us.max(other.max_us);
        self.buckets.resize(BUCKETS.max(self.buckets.len()), 0);
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
    }
    /// Upper bound of the bucket that holds this share (0..=1) of the calls, in microseconds.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let want = (self.calls as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= want {
                return 1 << i;
            }
        }
        self.max_us
    }
}

/// All of a server's numbers since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsSnapshot {
    pub connections: u64,
    pub connections_accepted: u64,
    pub connections_refused: u64,
    pub clients: u64,
    pub sessions: u64,
    /// Opens and locks held.
    pub states: u64,
    pub replay_cache_bytes: u64,
    pub replays: u64,
    pub malformed: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// By name: `v4.read`, `v3.lookup`, `mount.mnt`.
    pub ops: BTreeMap<String, OpStats>,
}

impl StatsSnapshot {
    pub(crate) fn merge(&mut self, o: &StatsSnapshot) {
        self.connections += o.connections;
        self.connections_accepted += o.connections_accepted;
        self.connections_refused += o.connections_refused;
        self.clients += o.clients;
        self.sessions += o.sessions;
        self.states += o.states;
        self.replay_cache_bytes += o.replay_cache_bytes;
        self.replays += o.replays;
        self.malformed += o.malformed;
        self.bytes_read += o.bytes_read;
        self.bytes_written += o.bytes_written;
        for (name, op) in &o.ops {
            self.ops.entry(name.clone()).or_default().add(op);
        }
    }
}

/// One reactor's numbers.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) accepted: Cell<u64>,
    pub(crate) refused: Cell<u64>,
    pub(crate) replays: Cell<u64>,
    pub(crate) malformed: Cell<u64>,
    pub(crate) bytes_read: Cell<u64>,
    pub(crate) bytes_written: Cell<u64>,
    ops: RefCell<BTreeMap<&'static str, OpStats>>,
}

pub(crate) fn bump(c: &Cell<u64>, by: u64) {
    c.set(c.get() + by);
}

impl Stats {
    pub(crate) fn record(&self, op: &'static str, started: Instant, failed: bool) {
        let us = started.elapsed().as_micros() as u64;
        self.ops.borrow_mut().entry(op).or_default().record(us, failed);
    }
    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            connections_accepted: self.accepted.get(),
            connections_refused: self.refused.get(),
            replays: self.replays.get(),
            malformed: self.malformed.get(),
            bytes_read: self.bytes_read.get(),
            bytes_written: self.bytes_written.get(),
            ops: self.ops.borrow().iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            ..StatsSnapshot::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_buckets() {
        let mut o = OpStats::default();
        for us in [0, 1, 3, 100, 1_000_000_000] {
            o.record(us, false);
        }
        assert_eq!(o.quantile_us(0.2), 1);
        assert_eq!(o.quantile_us(0.6), 4);
        assert_eq!(o.quantile_us(0.8), 128);
        assert_eq!(o.buckets[BUCKETS - 1], 1);
    }
}
