//! One attempt of an operation: what it sees, what it will write, and the commit.

use super::memtable::{Entry, bounds};
use super::read::Pins;
use super::{Inner, Stop, TxnResult, record};
use crate::keys::tag;
use crate::vfs::{FsError, WallTime};
use basalt_pool::store::{MAX_RECORD_BYTES, StripeRecord};
use basalt_pool::{BlockAddr, Lsn};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One attempt of an operation.
pub(crate) struct Txn<'a> {
    inner: &'a Rc<Inner>,
    /// Blocks of runs that earlier attempts waited for.
    pins: &'a Pins,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    stripes: Vec<StripeRecord>,
    dead: Vec<(BlockAddr, u32)>,
    locks: Vec<(Bytes, u128)>,
    entered: Vec<u128>,
    time: Cell<Option<WallTime>>,
    observed: Lsn,
}

impl<'a> Txn<'a> {
    pub(super) fn new(inner: &'a Rc<Inner>, pins: &'a Pins) -> Txn<'a> {
        Txn {
            inner,
            pins,
            writes: BTreeMap::new(),
            stripes: Vec::new(),
            dead: Vec::new(),
            locks: Vec::new(),
            entered: Vec::new(),
            time: Cell::new(None),
            observed: Lsn(0),
        }
    }

    /// Sees the transaction's own writes. Waits on a key that another shard's transaction has prepared.
    pub(crate) fn get(&mut self, key: &[u8]) -> TxnResult<Option<Bytes>> {
        if let Some(own) = self.writes.get(key) {
            return Ok(own.clone());
        }
        self.pass_lock(key)?;
        let state = self.inner.state.borrow();
        if let Some(e) = state.newest_in_memory(key) {
            self.observed = self.observed.max(e.lsn);
            return Ok(e.value.clone());
        }
        self.pins.get(self.inner, &state.runs, key)
    }

    /// Up to `limit` entries of `from..to` in order (`to` empty: to the end), own writes included.
    pub(crate) fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> TxnResult<Vec<(Bytes, Bytes)>> {
        if limit == 0 || !to.is_empty() && from >= to {
            return Ok(Vec::new());
        }
        let state = self.inner.state.borrow();
        let mut own = self.writes.range::<[u8], _>(bounds(from, to)).peekable();
        let mut active = state.active.range(from, to).peekable();
        let mut frozen = state.frozen.as_ref().map(|f| f.table.range(from, to).peekable());
        // Journalled pages are in no run: looking for them costs no block of one.
        let in_memtables_only = from.first() == Some(&tag::PAGE) && to.first() == Some(&tag::PAGE);
        let runs: &[_] = if in_memtables_only { &[] } else { &state.runs };
        let mut runs = self.pins.seek(self.inner, runs, from, to)?;
        let mut out = Vec::new();
        while out.len() < limit {
            // The smallest key of all sources; where several have it, the newest source's word counts.
            let in_memory = [
                own.peek().map(|(k, _)| *k),
                active.peek().map(|(k, _)| *k),
                frozen.as_mut().and_then(|f| f.peek().map(|(k, _)| *k)),
            ];
            let in_memory = in_memory.into_iter().flatten().min();
            let Some(key) = (match (in_memory, runs.smallest()) {
                (Some(m), Some(r)) if *r < **m => Some(r),
                (Some(m), _) => Some(m.clone()),
                (None, r) => r,
            }) else {
                break;
            };
            let mut found: Option<Option<Bytes>> = None;
            if let Some((_, value)) = own.next_if(|(k, _)| **k == key) {
                found = Some(value.clone());
            }
            let mut entry = |e: Option<(&Bytes, &Entry)>| {
                if let (Some((_, e)), None) = (e, &found) {
                    self.observed = self.observed.max(e.lsn);
                    found = Some(e.value.clone());
                }
            };
            entry(active.next_if(|(k, _)| **k == key));
            entry(frozen.as_mut().and_then(|f| f.next_if(|(k, _)| **k == key)));
            let in_runs = runs.take(self.inner, self.pins, &key, limit - out.len())?;
            if let Some(value) = found.or(in_runs).flatten() {
                out.push((key, value));
            }
        }
        if !self.inner.locks.is_empty() {
            let seen_to = match out.last() {
                // Just after the last key: what lies beyond was not looked at.
                Some((last, _)) if out.len() == limit => Some([last, &[0][..]].concat()),
                _ => None,
            };
            if self
                .inner
                .locks
                .any_in(from, seen_to.as_deref().unwrap_or(to), |tx| self.entered.contains(&tx))
            {
                return Err(self.wait_for_release());
            }
        }
        Ok(out)
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key.into(), Some(value.into()));
    }
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key.into(), None);
    }
    /// The record carries this stripe; it counts as live from here.
    pub(crate) fn stripe(&mut self, s: StripeRecord) {
        self.stripes.push(s);
    }
    /// These blocks are no longer referenced.
    pub(crate) fn dead(&mut self, at: BlockAddr, blocks: u32) {
        self.dead.push((at, blocks));
    }
    /// The LSN this transaction's record will have.
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(self.inner.store.last_lsn().0 + 1)
    }
    /// One time for the whole transaction.
    pub(crate) fn time(&self) -> WallTime {
        self.time.get().unwrap_or_else(|| {
            let now = basalt_reactor::wall_clock();
            self.time.set(Some(now));
            now
        })
    }
    /// Locks `key` for a prepared cross-shard transaction once this one commits: `get` and `scan` of others wait until
    /// [`Index::unlock`](super::Index::unlock). `Err(Delay)` when another transaction has it.
    pub(crate) fn lock(&mut self, key: Vec<u8>, tx: u128) -> TxnResult<()> {
        match self.inner.locks.holder(&key) {
            Some(holder) if holder != tx => Err(FsError::Delay.into()),
            _ => {
                self.locks.push((key.into(), tx));
                Ok(())
            }
        }
    }
    /// Reads past the locks of `tx` (to finish what it prepared).
    pub(crate) fn enter(&mut self, tx: u128) {
        self.entered.push(tx);
    }

    fn pass_lock(&self, key: &[u8]) -> TxnResult<()> {
        if self.inner.locks.is_empty() {
            return Ok(());
        }
        match self.inner.locks.holder(key) {
            Some(tx) if !self.entered.contains(&tx) => Err(self.wait_for_release()),
            _ => Ok(()),
        }
    }
    fn wait_for_release(&self) -> Stop {
        let released = self.inner.locks.released();
        Stop::Wait(Box::pin(async move {
            released.await;
            Ok(())
        }))
    }

    pub(super) fn observed(&self) -> Lsn {
        self.observed
    }
    /// Whether committing it appends a record.
    pub(super) fn writes_anything(&self) -> bool {
        !(self.writes.is_empty() && self.stripes.is_empty() && self.dead.is_empty())
    }
    /// Makes it so: locks, record, accounts, memtable. Nothing has happened when it errs.
    pub(super) fn commit(self) -> TxnResult<Option<Lsn>> {
        // A blind write must not slip past a lock either; the keys that this transaction locks itself are free or its own.
        for key in self.writes.keys() {
            if !self.locks.iter().any(|(k, _)| k == key) {
                self.pass_lock(key)?;
            }
        }
        let lsn = if self.writes_anything() { Some(self.append()?) } else { None };
        for (key, tx) in self.locks {
            self.inner.locks.take(key, tx);
        }
        let Some(lsn) = lsn else { return Ok(None) };
        for s in &self.stripes {
            self.inner.store.apply_stripe(lsn, s);
        }
        for (at, blocks) in self.dead {
            self.inner.store.apply_dead(lsn, at, blocks);
        }
        let mut state = self.inner.state.borrow_mut();
        for (key, value) in self.writes {
            state.active.insert(key, Entry { lsn, value });
        }
        if state.active.bytes() > self.inner.tuning.flush_memtable_bytes {
            self.inner.work.notify_all();
        }
        Ok(Some(lsn))
    }
    fn append(&self) -> TxnResult<Lsn> {
        if let Some(key) = self.writes.keys().find(|k| k.len() > usize::from(u16::MAX)) {
            tracing::error!("a key of {} bytes exceeds what records hold; refused", key.len());
            return Err(FsError::Resource.into());
        }
        let mut w = record::Writer::new();
        for (key, value) in &self.writes {
            match value {
                Some(v) => w.put(key, v),
                None => w.delete(key),
            }
        }
        for s in &self.stripes {
            w.stripe(s);
        }
        for (at, blocks) in &self.dead {
            w.dead(*at, *blocks);
        }
        if w.bytes().len() > MAX_RECORD_BYTES {
            let got = w.bytes().len();
            tracing::error!(
                "a transaction of {got} bytes exceeds a journal record's {MAX_RECORD_BYTES}; refused"
            );
            return Err(FsError::Resource.into());
        }
        let expect = self.lsn();
        let lsn = self.inner.store.append(w.bytes());
        debug_assert_eq!(lsn, expect);
        self.inner.journalled(w.bytes().len());
        Ok(lsn)
    }
}
