//! A shard's ordered keys and values: memtable over sorted runs, and the transactions that change them.
//!
//! An operation is a plain function over a [`Txn`]: it reads, decides, and writes into the transaction, and never
//! suspends. When something it reads is not in memory it returns [`Stop::Wait`] with the future that brings it; the driver
//! awaits that and runs the function again from the start (nothing had happened yet), with what was loaded pinned. When
//! it returns `Ok`, its writes become one journal record and one set of memtable entries, atomically.

mod block;
mod cache;
mod error;
mod filter;
mod flush;
mod locks;
mod manifest;
mod memtable;
mod merge;
mod read;
mod record;
mod run;
mod store;
mod txn;

#[cfg(test)]
mod tests;

pub(crate) use error::fs_error;
pub(crate) use store::Store;
pub(crate) use txn::Txn;

use crate::planted::{self, Planted};
use crate::vfs::{FsError, FsResult};
use basalt_pool::store::{Recovery, ShardStore};
use basalt_pool::{Lsn, Pool, PoolError, ShardId};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::sync::{Mutex, Notify};
use bytes::Bytes;
use cache::Cache;
use locks::Locks;
use manifest::Manifest;
use memtable::{Entry, Memtable};
use read::Pins;
use record::Item;
use run::Run;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Why a transaction function did not finish.
pub(crate) enum Stop {
    /// Await this, then run the function again.
    Wait(LocalBoxFuture<'static, FsResult<()>>),
    /// The operation's answer is this error.
    Fs(FsError),
}
impl From<FsError> for Stop {
    fn from(e: FsError) -> Stop {
        Stop::Fs(e)
    }
}
pub(crate) type TxnResult<T> = Result<T, Stop>;

/// What a finished transaction did.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    /// Its record's LSN; `None` when it wrote nothing.
    pub(crate) lsn: Option<Lsn>,
    /// The newest record among what it read and wrote: a reply waits for this one.
    pub(crate) observed: Lsn,
}

/// A page that a flush asks to have packed into stripes: key of tag PAGE and its value.
pub(crate) struct FrozenPage {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    /// Record that put it; still current while [`Index::page_lsn`] says the same.
    pub(crate) lsn: Lsn,
}

/// Packs frozen pages into stripes and commits extents (and the deletion of the PAGE keys) for those still current;
/// implemented by `data`. It must be possible in a full pool (class Meta as a last resort): until it succeeds the journal
/// cannot shrink. Transactions run from within the returned future, not from tasks it spawns, may use the journal's reserve.
pub(crate) type PackPages = Rc<dyn Fn(Vec<FrozenPage>) -> LocalBoxFuture<'static, FsResult<()>>>;

/// Sizes and thresholds; tests make them small.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    /// Journal written since the last flush that starts the next: with one flush running and one waiting, a shard replays
    /// at most about twice this, and sixteen shards replay in well under a second.
    pub(crate) flush_journal_bytes: usize,
    pub(crate) flush_memtable_bytes: usize,
    /// More runs than this are merged.
    pub(crate) runs: usize,
    /// A flush fails rather than make more runs than this, which bounds the manifest.
    pub(crate) max_runs: usize,
    pub(crate) data_block_bytes: usize,
    /// Data blocks, and keys, that share a partition of the block index and its Bloom filter.
    pub(crate) partition_blocks: usize,
    pub(crate) partition_keys: usize,
    pub(crate) cache_bytes: usize,
    /// Attempts of one operation before it is told to come back later.
    pub(crate) attempts: u32,
    /// How long a writer waits for journal room before it learns why there is none.
    pub(crate) room_wait: Duration,
}
impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            flush_journal_bytes: 4 << 20,
            flush_memtable_bytes: 8 << 20,
            runs: 6,
            max_runs: 64,
            data_block_bytes: 16 << 10,
            partition_blocks: 64,
            partition_keys: 4096,
            cache_bytes: 32 << 20,
            attempts: 10_000,
            room_wait: Duration::from_secs(5),
        }
    }
}

thread_local! {
    static SMALL: Cell<bool> = const { Cell::new(false) };
}

/// Makes memtables of this thread's shards so small that a simulated life has flushes and merges.
pub fn small_memtables(small: bool) {
    SMALL.set(small);
}

fn tuning() -> Tuning {
    match SMALL.get() {
        true => Tuning {
            flush_journal_bytes: 96 << 10,
            flush_memtable_bytes: 128 << 10,
            runs: 2,
            ..Tuning::default()
        },
        false => Tuning::default(),
    }
}

/// Figures for `status`, benches and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexStats {
    pub(crate) memtable_bytes: usize,
    pub(crate) memtable_entries: usize,
    pub(crate) runs: usize,
    pub(crate) run_bytes: u64,
    pub(crate) flushes: u64,
    pub(crate) merges: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    pub(crate) cache_bytes: usize,
}

/// One shard's index. Shared by `Rc` among the shard's tasks.
pub(crate) struct Index {
    inner: Rc<Inner>,
    /// The same store under its own type, for `data`; tests of the index alone have none.
    shard_store: Option<Rc<ShardStore>>,
}

/// What the index's own tasks and the futures of waiting transactions share.
struct Inner {
    store: Rc<dyn Store>,
    tuning: Tuning,
    state: RefCell<State>,
    locks: Locks,
    pack_pages: RefCell<Option<PackPages>>,
    /// Journal bytes appended since the last freeze.
    since_freeze_bytes: Cell<usize>,
    /// A transaction of the flush itself is running: it may use the journal's reserve, since room comes from it alone.
    in_flush: Cell<bool>,
    /// Why the last flush failed, until one succeeds.
    flush_failed: Cell<Option<FsError>>,
    flushing: Mutex<()>,
    merging: Mutex<()>,
    next_run: Cell<u64>,
    cache: RefCell<Cache>,
    stats: Cell<IndexStats>,
    /// The last record that was found when the shard was opened.
    recovered: Lsn,
    /// Wakes the background tasks that flush and merge.
    work: Notify,
    merge_work: Notify,
    stopping: Cell<bool>,
}

struct State {
    active: Memtable,
    frozen: Option<Rc<Frozen>>,
    /// Newest first.
    runs: Vec<Rc<Run>>,
    /// Records from here on are in no run.
    replay_from: Lsn,
}
/// A memtable that a flush is writing out.
struct Frozen {
    table: Memtable,
    /// The last record in it.
    upto: Lsn,
}

impl State {
    fn newest_in_memory(&self, key: &[u8]) -> Option<&Entry> {
        self.active.get(key).or_else(|| self.frozen.as_ref()?.table.get(key))
    }
}

impl Index {
    /// Opens the shard's store, restores the newest checkpoint and replays the journal into the memtable.
    pub(crate) async fn open(pool: &Pool, shard: ShardId) -> FsResult<Rc<Index>> {
        Index::open_tuned(pool, shard, tuning()).await
    }
    async fn open_tuned(pool: &Pool, shard: ShardId, tuning: Tuning) -> FsResult<Rc<Index>> {
        let (store, recovery) = ShardStore::open(pool, shard).await.map_err(fs_error)?;
        let store = Rc::new(store);
        let inner = Inner::restore(store.clone(), recovery, tuning).map_err(fs_error)?;
        store.start().await.map_err(fs_error)?;
        let (found, stats) = (inner.recovered, inner.stats());
        tracing::debug!(%shard, last_record = %found, ?stats, "index opened");
        inner.start_background();
        Ok(Rc::new(Index { inner, shard_store: Some(store) }))
    }
    /// Before the first flush.
    pub(crate) fn set_pack_pages(&self, p: PackPages) {
        *self.inner.pack_pages.borrow_mut() = Some(p);
        self.inner.work.notify_all();
    }
    pub(crate) fn store(&self) -> &Rc<ShardStore> {
        self.shard_store.as_ref().expect("an index made by open has a shard's store")
    }
    /// The same as the index itself sees it: `data` goes through this, so that it too can be tested over a store in memory.
    pub(crate) fn any_store(&self) -> &Rc<dyn Store> {
        &self.inner.store
    }
    /// Over a store of a test's own making.
    #[cfg(test)]
    pub(crate) fn over(store: Rc<dyn Store>, recovery: Recovery, tuning: Tuning) -> Rc<Index> {
        let inner = Inner::restore(store, recovery, tuning).expect("restores");
        inner.start_background();
        Rc::new(Index { inner, shard_store: None })
    }
    /// Runs `f` until it neither waits nor errs, commits it, and returns when what it saw and wrote is durable. Errors too
    /// are returned only when what they were concluded from is durable.
    pub(crate) async fn run<T>(&self, f: impl FnMut(&mut Txn<'_>) -> TxnResult<T>) -> FsResult<T> {
        let (result, lsn, observed) = self.attempt(f).await;
        if lsn.is_some() || !planted::is(Planted::ReplyBeforeObserved) {
            self.wait_durable(observed).await?;
        }
        result
    }
    /// As [`Index::run`], but returns at once; the caller waits for `observed` itself. (An error does wait.)
    pub(crate) async fn run_nowait<T>(
        &self,
        f: impl FnMut(&mut Txn<'_>) -> TxnResult<T>,
    ) -> FsResult<Done<T>> {
        let (result, lsn, observed) = self.attempt(f).await;
        match result {
            Ok(value) => Ok(Done { value, lsn, observed }),
            Err(e) => {
                self.wait_durable(observed).await?;
                Err(e)
            }
        }
    }
    /// The answer, the LSN of the record if there is one, and the newest record that the answer rests on.
    async fn attempt<T>(
        &self,
        mut f: impl FnMut(&mut Txn<'_>) -> TxnResult<T>,
    ) -> (FsResult<T>, Option<Lsn>, Lsn) {
        let inner = &self.inner;
        let pins = Pins::default();
        for _ in 0..inner.tuning.attempts {
            let mut txn = Txn::new(inner, &pins);
            let outcome = f(&mut txn);
            let observed = txn.observed();
            let stop = match outcome {
                Ok(value) => {
                    if txn.writes_anything() && !inner.in_flush.get() {
                        match inner.store.room() {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(e)) => return (Err(fs_error(e)), None, Lsn(0)),
                            Poll::Pending => {
                                drop(txn);
                                match inner.wait_room().await {
                                    Ok(()) => continue,
                                    Err(e) => return (Err(e), None, observed),
                                }
                            }
                        }
                    }
                    match txn.commit() {
                        Ok(lsn) => return (Ok(value), lsn, observed.max(lsn.unwrap_or(Lsn(0)))),
                        Err(stop) => stop,
                    }
                }
                Err(stop) => stop,
            };
            match stop {
                Stop::Fs(e) => return (Err(e), None, observed),
                Stop::Wait(what) => {
                    if let Err(e) = what.await {
                        return (Err(e), None, observed);
                    }
                }
            }
        }
        tracing::error!(
            "an operation was restarted {} times; its client is told to retry",
            inner.tuning.attempts
        );
        (Err(FsError::Delay), None, Lsn(0))
    }
    pub(crate) async fn wait_durable(&self, lsn: Lsn) -> FsResult<()> {
        if self.inner.store.durable_lsn() >= lsn {
            return Ok(());
        }
        self.inner.store.wait_durable(lsn).await.map_err(fs_error)
    }
    /// Replay and crash recovery re-take locks with this; unlocking wakes those that wait.
    pub(crate) fn relock(&self, key: Vec<u8>, tx: u128) {
        self.inner.locks.take(key.into(), tx);
    }
    pub(crate) fn unlock(&self, tx: u128) {
        self.inner.locks.release(tx);
    }
    /// LSN of the record that put the page now current under this key; `None` when there is none.
    pub(crate) fn page_lsn(&self, key: &[u8]) -> Option<Lsn> {
        let state = self.inner.state.borrow();
        state.newest_in_memory(key).filter(|e| e.value.is_some()).map(|e| e.lsn)
    }
    /// Freezes the memtable, packs its pages, writes it as a run, checkpoints. Runs by itself when the journal has grown enough
    /// (and merges when there are many runs); callable to force it.
    #[allow(dead_code, reason = "product code closes instead")]
    pub(crate) async fn flush(&self) -> FsResult<()> {
        self.inner.flush().await
    }
    /// Clean stop: flushes, then ends the background tasks. Nothing may be written afterwards.
    pub(crate) async fn close(&self) -> FsResult<()> {
        let flushed = self.inner.flush().await;
        self.inner.stop();
        // Neither task begins anything now; wait for what is under way.
        drop(self.inner.flushing.lock().await);
        drop(self.inner.merging.lock().await);
        tracing::debug!(stats = ?self.stats(), "index closed");
        match &self.shard_store {
            Some(store) => flushed.and(store.close().await.map_err(fs_error)),
            None => flushed,
        }
    }
    /// Bound of the block cache (32 MiB unless set).
    #[allow(dead_code, reason = "nobody sets it yet")]
    pub(crate) fn set_cache_bytes(&self, bytes: usize) {
        self.inner.cache.borrow_mut().set_capacity(bytes);
    }
    pub(crate) fn stats(&self) -> IndexStats {
        self.inner.stats()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Inner {
    /// From what the store recovered to the state as of the last record.
    fn restore(store: Rc<dyn Store>, recovery: Recovery, tuning: Tuning) -> Result<Rc<Inner>, PoolError> {
        let manifest = match &recovery.checkpoint {
            None => Manifest::default(),
            Some(payload) => Manifest::decode(payload).ok_or_else(|| {
                let lsn = recovery.checkpoint_lsn;
                PoolError::Corrupt(format!(
                    "the shard's manifest in checkpoint {lsn} has a form this version does not know; start the version that wrote it"
                ))
            })?,
        };
        let first = recovery.records.first().map(|(lsn, _)| *lsn);
        let mut state = State {
            active: Memtable::default(),
            frozen: None,
            runs: manifest.runs,
            replay_from: first.unwrap_or(Lsn(recovery.checkpoint_lsn.0 + 1)),
        };
        let mut replayed_bytes = 0;
        for (lsn, record) in &recovery.records {
            let lsn = *lsn;
            replayed_bytes += record.len();
            let mut put = |key: &[u8], value: Option<&[u8]>| {
                // Copies: a slice of the record would keep the whole read buffer of the journal in memory.
                let value = value.map(Bytes::copy_from_slice);
                state.active.insert(Bytes::copy_from_slice(key), Entry { lsn, value });
            };
            record::read(record, |item| match item {
                Item::Put { key, value } => put(key, Some(value)),
                Item::Delete { key } => put(key, None),
                Item::Stripe(s) => store.apply_stripe(lsn, &s),
                Item::Dead { at, blocks } => store.apply_dead(lsn, at, blocks),
            })
            .ok_or_else(|| {
                PoolError::Corrupt(format!(
                    "journal record {lsn} has a form this version does not know; start the version that wrote it"
                ))
            })?;
        }
        let cache = Cache::new(tuning.cache_bytes);
        let last = recovery.records.last().map_or(Lsn(0), |(lsn, _)| *lsn);
        Ok(Rc::new(Inner {
            store,
            tuning,
            state: RefCell::new(state),
            locks: Locks::default(),
            pack_pages: RefCell::new(None),
            since_freeze_bytes: Cell::new(replayed_bytes),
            in_flush: Cell::new(false),
            flush_failed: Cell::new(None),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            next_run: Cell::new(manifest.next_run),
            cache: RefCell::new(cache),
            stats: Cell::new(IndexStats::default()),
            recovered: last.max(recovery.checkpoint_lsn),
            work: Notify::new(),
            merge_work: Notify::new(),
            stopping: Cell::new(false),
        }))
    }
    fn stats(&self) -> IndexStats {
        let state = self.state.borrow();
        let cache = self.cache.borrow();
        let tables = [Some(&state.active), state.frozen.as_ref().map(|f| &f.table)];
        IndexStats {
            memtable_bytes: tables.iter().flatten().map(|t| t.bytes()).sum(),
            memtable_entries: tables.iter().flatten().map(|t| t.len()).sum(),
            runs: state.runs.len(),
            run_bytes: state.runs.iter().map(|r| r.blocks * basalt_bdev::BLOCK_BYTES).sum(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_bytes: cache.bytes(),
            ..self.stats.get()
        }
    }
    fn count(&self, count: impl FnOnce(&mut IndexStats)) {
        let mut stats = self.stats.get();
        count(&mut stats);
        self.stats.set(stats);
    }
    fn stop(&self) {
        self.stopping.set(true);
        self.work.notify_all();
        self.merge_work.notify_all();
    }
    /// A record of `bytes` went into the journal.
    fn journalled(&self, bytes: usize) {
        /// What the journal adds to a record, about.
        const RECORD_HEADER_BYTES: usize = 32;
        self.since_freeze_bytes.set(self.since_freeze_bytes.get() + bytes + RECORD_HEADER_BYTES);
        if self.since_freeze_bytes.get() > self.tuning.flush_journal_bytes || self.store.flush_due() {
            self.work.notify_all();
        }
    }
    /// Waits until the journal takes a client's record, or for so long that the client had better hear why not.
    async fn wait_room(&self) -> FsResult<()> {
        self.work.notify_all();
        match basalt_reactor::timeout(self.tuning.room_wait, self.store.wait_room()).await {
            Some(room) => room.map_err(fs_error),
            None => Err(self.flush_failed.get().unwrap_or(FsError::Delay)),
        }
    }
}
