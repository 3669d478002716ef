//! Write-back: dirty pages become extents (large) or journalled pages (small), in one transaction with the size and
//! times that belong to them. COMMIT, stable writes and the background all come through here.

use super::extent;
use super::file::{DirtyRun, File};
use super::{Data, PAGE_BYTES, fs_error, later, merged, pre_attr, record};
use crate::index::{Txn, TxnResult};
use crate::planted::{self, Planted};
use crate::vfs::*;
use basalt_pool::Class;
use basalt_pool::store::{Owner, Piece, Written};
use basalt_reactor::Instant;
use basalt_reactor::sync::{Notify, join_all};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Data of one transaction. Worst case, every page a run of its own: 2,048 extents put and as many removed, about
/// 300 KiB of journal record.
const ROUND_BYTES: u64 = 8 << 20;
/// Dirty pages leave by themselves after this long.
const AGE: Duration = Duration::from_millis(1000);
/// How often the background looks for them.
const TICK: Duration = Duration::from_millis(250);
/// After a failed background write-back.
const RETRY: Duration = Duration::from_millis(1000);
/// Background write-backs under way, per shard.
const BACKGROUND_MAX: usize = 8;

impl Data {
    pub(super) fn stripe_pages(&self) -> u64 {
        (self.store().stripe_bytes() as u64 / PAGE_BYTES).max(1)
    }

    pub(crate) async fn commit(&self, ino: Ino, offset: u64, len: u64) -> FsResult<(PreAttr, Attr)> {
        let file = self.file(ino);
        let (first, end) = match len {
            0 => (offset / PAGE_BYTES, u64::MAX),
            _ => (offset / PAGE_BYTES, offset.saturating_add(len).div_ceil(PAGE_BYTES)),
        };
        let done = self.index.run_nowait(|txn| merged(txn, &file)).await?;
        let before = pre_attr(&done.value);
        if !planted::is(Planted::CommitIgnoresDirty) {
            self.write_back(&file, first, end, false).await?;
        }
        // Waits for the inode's record, which is the write-back's, too when that was another's.
        let after = self.index.run(|txn| merged(txn, &file)).await?;
        self.index.wait_durable(file.clean_lsn.get()).await?;
        Ok((before, after.attr()))
    }

    /// Everything dirty goes out (clean stop).
    pub(crate) async fn sync(&self) -> FsResult<()> {
        let mut result = Ok(());
        let all: Vec<Ino> = self.dirty_files.borrow().iter().copied().collect();
        for some in all.chunks(BACKGROUND_MAX) {
            let outcomes = join_all(some.iter().map(|ino| async move {
                let file = self.file(*ino);
                self.write_back(&file, 0, u64::MAX, false).await?;
                self.index.wait_durable(file.clean_lsn.get()).await
            }));
            for outcome in outcomes.await {
                result = result.and(outcome);
            }
        }
        result
    }

    /// Writes the dirty pages of `first..end` back; with `whole_stripes` only runs that fill stripes. They are durable
    /// once the file's `clean_lsn` is. Pages dirtied behind its back are left for the next time, so it ends.
    /// On an error they stay dirty.
    pub(super) async fn write_back(
        &self,
        file: &Rc<File>,
        first: u64,
        end: u64,
        whole_stripes: bool,
    ) -> FsResult<()> {
        if file.dirty_pages() == 0 {
            return Ok(());
        }
        let _layout = file.layout.lock().await;
        let stripe = self.stripe_pages();
        let max_pages = (ROUND_BYTES / PAGE_BYTES / stripe * stripe).max(stripe);
        let mut cursor = first;
        loop {
            let whole = whole_stripes.then_some(stripe);
            let runs = file.begin_writing(cursor, end, max_pages as usize, whole);
            let Some(last) = runs.last() else { return Ok(()) };
            cursor = last.end;
            let writing = Writing { data: self, file, runs };
            self.write_round(file, &writing.runs).await?;
        }
    }

    async fn write_round(&self, file: &Rc<File>, runs: &[DirtyRun]) -> FsResult<()> {
        let pages: u64 = runs.iter().map(|r| r.end - r.first).sum();
        let threshold = self.store().direct_threshold_bytes() as u64;
        // While the pool is full nothing goes through the journal either: packing it later would take from the reserve.
        let written = if pages * PAGE_BYTES >= threshold || self.full.get() {
            let pieces = runs
                .iter()
                .map(|r| Piece {
                    owner: Owner { inode: file.ino.0, offset: r.first * PAGE_BYTES },
                    data: r.data.clone(),
                })
                .collect();
            let outcome = self.store().write(Class::Data, pieces).await.map_err(fs_error);
            match &outcome {
                Ok(_) => self.full.set(false),
                Err(FsError::NoSpace) => self.full.set(true),
                Err(_) => {}
            }
            Some(outcome?)
        } else {
            None
        };
        let done = self.index.run_nowait(|txn| self.publish(txn, file, runs, written.as_ref())).await?;
        // The same poll as the commit: nothing has come in between.
        match done.value {
            Published::Yes => {
                file.clean_lsn.set(done.observed);
                file.end_writing(&self.cache, runs, true);
                self.settle(file);
            }
            Published::Gone => self.drop_pages(file, 0, u64::MAX),
        }
        Ok(())
    }

    /// The transaction of a round.
    fn publish(
        &self,
        txn: &mut Txn<'_>,
        file: &Rc<File>,
        runs: &[DirtyRun],
        written: Option<&Written>,
    ) -> TxnResult<Published> {
        let ino = file.ino;
        let Some(mut inode) = record(txn, ino)? else { return Ok(Published::Gone) };
        let (mut freed, mut added) = (0, 0);
        for (i, run) in runs.iter().enumerate() {
            freed += extent::clear(txn, ino, run.first, run.end)?;
            added += run.end - run.first;
            match written {
                Some(w) => extent::put_placed(txn, ino, run.first, &w.placed[i]),
                None => {
                    let mut page = run.first;
                    for piece in &run.data {
                        for content in piece.chunks(PAGE_BYTES as usize) {
                            extent::put_page(txn, ino, page, content);
                            page += 1;
                        }
                    }
                }
            }
        }
        for stripe in written.iter().flat_map(|w| &w.stripes) {
            txn.stripe(stripe.clone());
        }
        inode.blocks = (inode.blocks + added).saturating_sub(freed);
        if let Some(o) = file.overlay.get() {
            inode.mtime = o.mtime;
            inode.ctime = later(inode.ctime, o.ctime);
            // Not this record's LSN: the client has seen this value, and nothing of what it sees changes now.
            inode.change = inode.change.max(o.change);
            // The size comes with the data that it belongs to.
            let reached = runs.last().map_or(0, |r| r.end * PAGE_BYTES);
            let size = if file.clean_after_writing() { o.size } else { o.size.min(reached) };
            inode.size = inode.size.max(size);
        }
        txn.put(crate::keys::inode(ino), inode.encode());
        Ok(Published::Yes)
    }

    /// Starts background write-backs that are due; whether any file is still dirty.
    fn start_due(&self) -> bool {
        let now = basalt_reactor::now();
        while self.writing_back.get() < BACKGROUND_MAX {
            let Some(ino) = self.gathered.borrow_mut().pop_front() else { break };
            self.start_one(&self.file(ino), true);
        }
        let pressed = self.cache.half_dirty() || self.pressure.replace(false);
        let time_to_look = now >= self.next_look.get();
        if (pressed || time_to_look) && self.writing_back.get() < BACKGROUND_MAX {
            if time_to_look {
                self.next_look.set(Instant(now.0 + TICK.as_nanos() as u64));
            }
            let dirty: Vec<Ino> = self.dirty_files.borrow().iter().copied().collect();
            for ino in dirty {
                if self.writing_back.get() >= BACKGROUND_MAX {
                    break;
                }
                let file = self.file(ino);
                let old = file.dirty_since.get().is_some_and(|t| now.since(t) >= AGE);
                if (old || pressed) && now >= file.retry_at.get() {
                    self.start_one(&file, false);
                }
            }
        }
        !self.dirty_files.borrow().is_empty()
    }

    fn start_one(&self, file: &Rc<File>, whole_stripes: bool) {
        if file.writing_back.replace(true) {
            return;
        }
        self.writing_back.set(self.writing_back.get() + 1);
        if !whole_stripes {
            file.dirty_since.set(Some(basalt_reactor::now()));
        }
        let (me, file) = (self.me.clone(), file.clone());
        basalt_reactor::spawn(async move {
            let Some(data) = me.upgrade() else { return };
            let outcome = data.write_back(&file, 0, u64::MAX, whole_stripes).await;
            if let Err(e) = outcome {
                tracing::warn!(ino = file.ino.0, error = %e, "write-back failed; it is tried again");
                file.retry_at.set(Instant(basalt_reactor::now().0 + RETRY.as_nanos() as u64));
                data.failing.set(Some(e));
                // Writers that wait for room learn of it.
                data.cache.cleaned.notify_all();
            } else {
                data.failing.set(None);
            }
            file.writing_back.set(false);
            data.writing_back.set(data.writing_back.get() - 1);
            data.kick.notify_all();
        });
    }
}

enum Published {
    Yes,
    /// The file was deleted meanwhile.
    Gone,
}

/// Pages taken by `begin_writing`; given back, still dirty, unless `publish` has made them clean.
struct Writing<'a> {
    data: &'a Data,
    file: &'a Rc<File>,
    runs: Vec<DirtyRun>,
}
impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.file.end_writing(&self.data.cache, &self.runs, false);
    }
}

/// The background write-back of a shard: full stripes as they gather, the rest when it gets old or memory short.
pub(super) async fn background(data: Weak<Data>, kick: Rc<Notify>) {
    loop {
        // Registered before the look, so that a kick during it is not lost.
        let kicked = kick.notified();
        let Some(d) = data.upgrade() else { return };
        let dirty = d.start_due();
        drop(d);
        if dirty {
            basalt_reactor::timeout(TICK, kicked).await;
        } else {
            kicked.await;
        }
    }
}
