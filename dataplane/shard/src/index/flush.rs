//! From memtable to run, and the checkpoint that lets the journal go.
//!
//! A flush freezes the memtable at record F, has its pages packed into stripes (their extents enter the *new* memtable), writes
//! everything else as a run, and appends a checkpoint that names the run and says that replay begins at F + 1. The run's
//! stripes and the dead blocks of merged runs are applied to the store's accounts under the checkpoint's own LSN just before
//! it is appended: one record carries manifest and accounts, so a crash finds both or neither.

use super::manifest::Manifest;
use super::run::{NewRun, RunWriter};
use super::{Frozen, FrozenPage, Inner, Memtable, State, fs_error};
use crate::keys::tag;
use crate::planted::{self, Planted};
use crate::vfs::{FsError, FsResult};
use basalt_pool::Lsn;
use basalt_pool::store::{Placed, StripeRecord};
use basalt_reactor::LocalBoxFuture;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Memtable entries looked at or freed before others run: some 50 µs.
const SLICE_ENTRIES: usize = 256;
/// Less than this is not flushed before the journal is full.
const MIN_FLUSH_BYTES: usize = 64 << 10;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

impl Inner {
    pub(super) async fn flush(&self) -> FsResult<()> {
        let _one = self.flushing.lock().await;
        if self.stopping.get() {
            return Ok(());
        }
        let flushed = self.flush_locked().await;
        self.flush_failed.set(flushed.err());
        flushed
    }
    async fn flush_locked(&self) -> FsResult<()> {
        // One that a failed flush left behind goes first.
        if self.state.borrow().frozen.is_none() && !self.freeze() {
            return Ok(());
        }
        let left_behind = self.since_freeze_bytes.get() > 0;
        self.write_frozen().await?;
        if left_behind && self.freeze() { self.write_frozen().await } else { Ok(()) }
    }

    /// False when nothing was journalled since the last time, and no room waits for a checkpoint.
    fn freeze(&self) -> bool {
        if self.since_freeze_bytes.replace(0) == 0 && !self.holds_room() {
            return false;
        }
        let mut state = self.state.borrow_mut();
        debug_assert!(state.frozen.is_none());
        let table = std::mem::take(&mut state.active);
        state.frozen = Some(Rc::new(Frozen { table, upto: self.store.last_lsn() }));
        true
    }

    async fn write_frozen(&self) -> FsResult<()> {
        let frozen = self.state.borrow().frozen.clone().expect("frozen before");
        // A run must not hold what a crash could still take back.
        self.store.wait_durable(frozen.upto).await.map_err(fs_error)?;
        self.pack_pages(&frozen).await?;
        while self.state.borrow().runs.len() >= self.tuning.max_runs {
            self.merge_step(true).await?;
        }
        let new = self.write_run(&frozen).await.map_err(fs_error)?;
        let (run, stripes) = new.map_or((None, Vec::new()), |n| (Some(n.run), n.stripes));
        let checkpoint = self.install(&stripes, &[], |state| {
            state.runs.splice(0..0, run.map(Rc::new));
            state.frozen = None;
            state.replay_from = Lsn(frozen.upto.0 + 1 + u64::from(planted::is(Planted::CheckpointTooEarly)));
        });
        self.count(|s| s.flushes += 1);
        self.merge_work.notify_all();
        // Tens of thousands of entries take milliseconds to free.
        if let Ok(frozen) = Rc::try_unwrap(frozen) {
            let mut entries = frozen.table.into_entries();
            while entries.by_ref().take(SLICE_ENTRIES).count() == SLICE_ENTRIES {
                basalt_reactor::yield_now().await;
            }
        }
        // Until then the journal has no more room than before, and another flush would not help.
        self.store.wait_durable(checkpoint).await.map_err(fs_error)
    }

    /// Pages of the frozen table that nothing newer has replaced.
    async fn current_pages(&self, frozen: &Memtable) -> Vec<FrozenPage> {
        let mut pages = Vec::new();
        for (n, (key, e)) in frozen.range(&[tag::PAGE], &[tag::PAGE + 1]).enumerate() {
            if let Some(value) = &e.value
                && self.state.borrow().active.get(key).is_none()
            {
                pages.push(FrozenPage { key: key.clone(), value: value.clone(), lsn: e.lsn });
            }
            if n % SLICE_ENTRIES == SLICE_ENTRIES - 1 {
                basalt_reactor::yield_now().await;
            }
        }
        pages
    }
    async fn pack_pages(&self, frozen: &Frozen) -> FsResult<()> {
        let pages = self.current_pages(&frozen.table).await;
        if pages.is_empty() {
            return Ok(());
        }
        let Some(pack) = self.pack_pages.borrow().clone() else {
            tracing::error!("{} journalled pages wait for whom to pack them", pages.len());
            return Err(FsError::Delay);
        };
        InFlush { flag: &self.in_flush, work: pack(pages) }.await?;
        let left = self.current_pages(&frozen.table).await.len();
        if left > 0 {
            tracing::error!("{left} journalled pages were not packed; the flush is tried again");
            return Err(FsError::Delay);
        }
        Ok(())
    }

    /// All but pages, as a run. Tombstones too, unless there is nothing older.
    async fn write_run(&self, frozen: &Frozen) -> Result<Option<NewRun>, basalt_pool::PoolError> {
        let keep_tombstones = !self.state.borrow().runs.is_empty();
        let mut out = RunWriter::new(self, self.take_run_id());
        for (key, e) in frozen.table.iter() {
            if key.first() != Some(&tag::PAGE) && (keep_tombstones || e.value.is_some()) {
                out.push(key.clone(), e.lsn, e.value.clone()).await?;
            }
        }
        out.finish().await
    }

    /// Never reused, also not after a crash: a checkpoint that names a run saves a larger one, and what no checkpoint names is gone.
    pub(super) fn take_run_id(&self) -> u64 {
        let id = self.next_run.get();
        self.next_run.set(id + 1);
        id
    }

    /// Changes the set of runs, accounts for it and appends the checkpoint, in one breath.
    pub(super) fn install(
        &self,
        stripes: &[StripeRecord],
        dead: &[Placed],
        change: impl FnOnce(&mut State),
    ) -> Lsn {
        let lsn = Lsn(self.store.last_lsn().0 + 1);
        for s in stripes {
            self.store.apply_stripe(lsn, s);
        }
        for d in dead {
            self.store.apply_dead(lsn, d.at, d.blocks);
        }
        let mut state = self.state.borrow_mut();
        change(&mut state);
        let manifest = Manifest { next_run: self.next_run.get(), runs: state.runs.clone() };
        let got = self.store.checkpoint(&manifest.encode(), state.replay_from);
        debug_assert_eq!(got, lsn);
        lsn
    }

    /// Somebody waits for room in chunks that hold only what the next checkpoint makes worthless, such as older checkpoints.
    fn holds_room(&self) -> bool {
        self.store.flush_due() && self.store.room().is_pending()
    }

    fn wants_flush(&self) -> bool {
        let state = self.state.borrow();
        let since = self.since_freeze_bytes.get();
        state.frozen.is_some()
            || since > self.tuning.flush_journal_bytes
            || state.active.bytes() > self.tuning.flush_memtable_bytes
            || since > MIN_FLUSH_BYTES && self.store.flush_due()
            // Somebody waits for room.
            || since > 0 && self.store.room().is_pending()
            || self.holds_room()
    }

    /// The tasks that flush and merge when it is time. They end with [`Inner::stop`].
    pub(super) fn start_background(self: &Rc<Inner>) {
        let inner = self.clone();
        drop(basalt_reactor::spawn(async move {
            let mut retry = RETRY_FIRST;
            while !inner.stopping.get() {
                let woken = inner.work.notified();
                if !inner.wants_flush() {
                    woken.await;
                } else if let Err(e) = inner.flush().await {
                    tracing::warn!("shard's memtable could not be flushed ({e}); next attempt in {retry:?}");
                    basalt_reactor::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_LAST);
                } else {
                    retry = RETRY_FIRST;
                }
            }
        }));
        let inner = self.clone();
        drop(basalt_reactor::spawn(async move {
            let mut retry = RETRY_FIRST;
            while !inner.stopping.get() {
                let woken = inner.merge_work.notified();
                match inner.merge_step(false).await {
                    Ok(true) => retry = RETRY_FIRST,
                    Ok(false) => woken.await,
                    Err(e) => {
                        tracing::warn!("runs could not be merged ({e}); next attempt in {retry:?}");
                        basalt_reactor::sleep(retry).await;
                        retry = (retry * 2).min(RETRY_LAST);
                    }
                }
            }
        }));
    }
}

/// Marks what runs inside as the flush's own work.
struct InFlush<'a> {
    flag: &'a Cell<bool>,
    work: LocalBoxFuture<'static, FsResult<()>>,
}
impl Future for InFlush<'_> {
    type Output = FsResult<()>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FsResult<()>> {
        let before = self.flag.replace(true);
        let polled = self.work.as_mut().poll(cx);
        self.flag.set(before);
        polled
    }
}
