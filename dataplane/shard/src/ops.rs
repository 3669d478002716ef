//! One shard at work: what it answers, from its index and its contents.
//!
//! An operation is a function over a [`view::View`] run inside one transaction. When all inodes it touches live here, that
//! is all. When not, it becomes [`parts::Part`]s per shard, which [`across`] prepares and commits together.

pub(crate) mod across;
mod attrs;
pub(crate) mod check;
mod contents;
mod counters;
mod create;
mod entry;
mod link;
mod locks;
mod lookup;
mod opens;
mod orphan;
pub(crate) mod parts;
mod perm;
mod readdir;
mod remove;
mod rename;
mod replay;
mod view;

#[cfg(test)]
pub(crate) mod tests;

use crate::data::Data;
use crate::fs::Shared;
use crate::index::{Done, Index, Txn, TxnResult};
use crate::inode::Inode;
use crate::planted::{self, Planted};
use crate::vfs::*;
use basalt_pool::Pool;
use basalt_reactor::sync::Semaphore;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use view::{Effect, View};

/// Under tag SHARD.
const SHARD_NEXT_INO: u8 = 1;
/// Local numbers below are set apart; the root directory has one of them.
const FIRST_LOCAL_INO: u64 = 16;
pub(crate) const ROOT: Ino = Ino(1);
/// Inode numbers are never reused, so one generation is enough; 0 means any.
const GENERATION: u32 = 1;

/// One shard, on the reactor that owns it.
pub(crate) struct Shard {
    slot: u16,
    /// Of this ownership; never the same twice.
    epoch: u64,
    shared: Arc<Shared>,
    index: Rc<Index>,
    data: Rc<Data>,
    opens: RefCell<opens::Opens>,
    orphans: orphan::Orphans,
    ring: RefCell<replay::Ring>,
    across: across::Across,
    counted: counters::Counted,
    /// Held by the one directory that is moving between parents, on slot 0 only.
    root_token: Semaphore,
    root_token_held: RefCell<Option<basalt_reactor::sync::Permit>>,
    stopped: Cell<bool>,
}

impl Shard {
    /// Opens the index, and loads what is kept in memory of it. [`Shard::recover`] comes before the first operation.
    pub(crate) async fn open(pool: &Pool, shared: Arc<Shared>, slot: u16) -> FsResult<Rc<Shard>> {
        let index = Index::open(pool, shared.shards[slot as usize]).await?;
        let epoch = index.store().epoch().0;
        Shard::over(index, epoch, shared, slot).await
    }

    async fn over(index: Rc<Index>, epoch: u64, shared: Arc<Shared>, slot: u16) -> FsResult<Rc<Shard>> {
        let data = Data::new(index.clone());
        let shard = Rc::new(Shard {
            slot,
            epoch,
            index,
            data,
            opens: RefCell::default(),
            orphans: orphan::Orphans::default(),
            ring: RefCell::default(),
            across: across::Across::default(),
            counted: counters::Counted::default(),
            root_token: Semaphore::new(1),
            root_token_held: RefCell::default(),
            stopped: Cell::new(false),
            shared,
        });
        if slot == ROOT.slot() {
            shard.make_root().await?;
        }
        shard.load_replay_ring().await?;
        shard.load_orphans().await?;
        shard.relock_prepared().await?;
        Ok(shard)
    }

    /// After all shards are open: finishes what a crash cut, then starts the shard's own background work.
    pub(crate) async fn recover(self: &Rc<Self>) -> FsResult<()> {
        self.resolve_prepared().await
    }
    pub(crate) async fn start(self: &Rc<Self>) -> FsResult<()> {
        self.forget_decided().await?;
        self.resolve_intents().await?;
        basalt_reactor::spawn(self.clone().reap());
        Ok(())
    }

    /// Until no transaction between shards is under way.
    pub(crate) async fn rest(self: Rc<Self>) -> FsResult<()> {
        self.across.quiet().await;
        Ok(())
    }
    /// Everything out and durable; no operation may be running.
    pub(crate) async fn close(&self) -> FsResult<()> {
        self.stop();
        self.data.sync().await?;
        self.index.close().await
    }

    /// Background work ends.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.orphans.wake();
    }

    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }
    fn is_here(&self, ino: Ino) -> bool {
        ino.slot() == self.slot
    }

    /// Runs a local operation and waits until what it saw and wrote is durable.
    async fn run<T>(&self, mut f: impl FnMut(&mut View<'_, '_>) -> TxnResult<T>) -> FsResult<T> {
        self.run_with_effects(|txn| {
            let mut view = View::new(self, txn);
            let value = f(&mut view)?;
            Ok((value, view.into_effects().1))
        })
        .await
    }

    async fn run_with_effects<T>(
        &self,
        f: impl FnMut(&mut Txn<'_>) -> TxnResult<(T, Vec<Effect>)>,
    ) -> FsResult<T> {
        let done = self.commit_with_effects(f).await?;
        if done.lsn.is_some() || !planted::is(Planted::ReplyBeforeObserved) {
            self.index.wait_durable(done.observed).await?;
        }
        Ok(done.value)
    }

    /// Memory follows in the same poll as the commit: nothing comes in between.
    async fn commit_with_effects<T>(
        &self,
        f: impl FnMut(&mut Txn<'_>) -> TxnResult<(T, Vec<Effect>)>,
    ) -> FsResult<Done<T>> {
        let Done { value: (value, effects), lsn, observed } = self.index.run_nowait(f).await?;
        for effect in effects {
            match effect {
                Effect::OrphanRecord { key, value } => self.orphan_written(&key, value.as_deref()),
                Effect::Answered { n, key, stored } => self.ring.borrow_mut().insert(n, key, stored),
                Effect::Opened { ino, client, share } => self.opens.borrow_mut().add(ino, client, share),
            }
        }
        Ok(Done { value, lsn, observed })
    }

    /// The attributes as clients see them: the record and what unstable writes have added.
    fn attr(&self, inode: &Inode) -> Attr {
        match self.data.overlay(inode.ino) {
            None => inode.attr(),
            Some(overlay) => {
                let mut merged = inode.clone();
                overlay.merge_into(&mut merged);
                merged.attr()
            }
        }
    }

    /// A change attribute above all that were shown before.
    fn next_change(&self, inode: &Inode, txn: &Txn<'_>) -> u64 {
        (txn.lsn().0 << 16).max(self.attr(inode).change + 1)
    }

    /// `Stale` for a file without a name that nobody holds open.
    fn require_live(&self, inode: &Inode) -> FsResult<()> {
        if inode.nlink > 0 || self.opens.borrow().is_open(inode.ino) || self.orphans.is_held(inode.ino) {
            Ok(())
        } else {
            Err(FsError::Stale)
        }
    }

    async fn make_root(&self) -> FsResult<()> {
        let hash_seed = basalt_reactor::random_u64();
        self.run(|v| {
            if v.inode(ROOT)?.is_some() {
                return Ok(());
            }
            let root = create::blank(v, ROOT, FileType::Directory, 0o755, ROOT, hash_seed);
            v.put_inode(&root);
            Ok(())
        })
        .await
    }
}
