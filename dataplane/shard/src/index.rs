//! A shard's ordered keys and values: memtable over sorted runs, and the transactions that change them.
//!
//! An operation is a plain function over a [`Txn`]: it reads, decides, and writes into the transaction, and never
//! suspends. When something it reads is not in memory it returns [`Stop::Wait`] with the future that brings it; the driver
//! awaits that and runs the function again from the start (nothing had happened yet), with what was loaded pinned. When
//! it returns `Ok`, its writes become one journal record and one set of memtable entries, atomically.

use crate::vfs::{FsError, FsResult, WallTime};
use basalt_pool::store::{ShardStore, StripeRecord};
use basalt_pool::{BlockAddr, Lsn, Pool, ShardId};
use basalt_reactor::LocalBoxFuture;
use bytes::Bytes;
use std::rc::Rc;

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

/// One attempt of an operation.
pub(crate) struct Txn<'a> {
    _p: std::marker::PhantomData<&'a ()>,
}
impl Txn<'_> {
    /// Sees the transaction's own writes. Waits on a key that another shard's transaction has prepared.
    pub(crate) fn get(&mut self, _key: &[u8]) -> TxnResult<Option<Bytes>> {
        todo!()
    }
    /// Up to `limit` entries of `from..to` in order (`to` empty: to the end), own writes included.
    pub(crate) fn scan(&mut self, _from: &[u8], _to: &[u8], _limit: usize) -> TxnResult<Vec<(Bytes, Bytes)>> {
        todo!()
    }
    pub(crate) fn put(&mut self, _key: Vec<u8>, _value: Vec<u8>) {
        todo!()
    }
    pub(crate) fn delete(&mut self, _key: Vec<u8>) {
        todo!()
    }
    /// The record carries this stripe; it counts as live from here.
    pub(crate) fn stripe(&mut self, _s: StripeRecord) {
        todo!()
    }
    /// These blocks are no longer referenced.
    pub(crate) fn dead(&mut self, _at: BlockAddr, _blocks: u32) {
        todo!()
    }
    /// The LSN this transaction's record will have.
    pub(crate) fn lsn(&self) -> Lsn {
        todo!()
    }
    /// One time for the whole transaction.
    pub(crate) fn time(&self) -> WallTime {
        todo!()
    }
    /// Locks `key` for a prepared cross-shard transaction once this one commits: `get` and `scan` of others wait until
    /// [`Index::unlock`]. `Err(Delay)` when another transaction has it.
    pub(crate) fn lock(&mut self, _key: Vec<u8>, _tx: u128) -> TxnResult<()> {
        todo!()
    }
    /// Reads past the locks of `tx` (to finish what it prepared).
    pub(crate) fn enter(&mut self, _tx: u128) {
        todo!()
    }
}

/// A page that a flush asks to have packed into stripes: key of tag PAGE and its value.
pub(crate) struct FrozenPage {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    /// Record that put it; still current while [`Index::page_lsn`] says the same.
    pub(crate) lsn: Lsn,
}

/// Packs frozen pages into stripes and commits extents for those still current; implemented by `data`.
pub(crate) type PackPages = Rc<dyn Fn(Vec<FrozenPage>) -> LocalBoxFuture<'static, FsResult<()>>>;

/// One shard's index. Shared by `Rc` among the shard's tasks.
pub(crate) struct Index {}

impl Index {
    /// Opens the shard's store, restores the newest checkpoint and replays the journal into the memtable.
    pub(crate) async fn open(_pool: &Pool, _shard: ShardId) -> FsResult<Rc<Index>> {
        todo!()
    }
    /// Before the first flush.
    pub(crate) fn set_pack_pages(&self, _p: PackPages) {
        todo!()
    }
    pub(crate) fn store(&self) -> &Rc<ShardStore> {
        todo!()
    }
    /// Runs `f` until it neither waits nor errs, commits it, and returns when what it saw and wrote is durable. Errors too
    /// are returned only when what they were concluded from is durable.
    pub(crate) async fn run<T>(&self, _f: impl FnMut(&mut Txn<'_>) -> TxnResult<T>) -> FsResult<T> {
        todo!()
    }
    /// As [`Index::run`], but returns at once; the caller waits for `observed` itself.
    pub(crate) async fn run_nowait<T>(
        &self,
        _f: impl FnMut(&mut Txn<'_>) -> TxnResult<T>,
    ) -> FsResult<Done<T>> {
        todo!()
    }
    pub(crate) async fn wait_durable(&self, _lsn: Lsn) -> FsResult<()> {
        todo!()
    }
    /// Replay and crash recovery re-take locks with this; unlocking wakes those that wait.
    pub(crate) fn relock(&self, _key: Vec<u8>, _tx: u128) {
        todo!()
    }
    pub(crate) fn unlock(&self, _tx: u128) {
        todo!()
    }
    /// LSN of the record that put the page now current under this key; `None` when there is none.
    pub(crate) fn page_lsn(&self, _key: &[u8]) -> Option<Lsn> {
        todo!()
    }
    /// Freezes the memtable, packs its pages, writes it as a run, merges when there are many, checkpoints. Runs by itself when
    /// the journal has grown enough; callable to force it (before a clean stop).
    pub(crate) async fn flush(&self) -> FsResult<()> {
        todo!()
    }
}
