//! Writing: into dirty pages and the overlay, in one step; stable writes then go out at once.

use super::cache::Page;
use super::file::{CHUNK_PAGES, File};
use super::read::Plan;
use super::{Data, Overlay, PAGE_BYTES, fs_error, merged, pre_attr};
use crate::index::{Txn, TxnResult};
use crate::inode::Inode;
use crate::vfs::*;
use basalt_pool::Class;
use basalt_pool::store::{Owner, Piece};
use basalt_reactor::buf::{self, DmaBuf};
use bytes::Bytes;
use std::rc::Rc;

enum Step {
    /// Old contents of a page written in part have to be fetched first.
    Fetch(Plan),
    /// The low bits of the change attribute are used up: a record has to come in between.
    Publish,
    Done(PreAttr, Attr),
}

/// Times a write starts over because a page it needs was not in memory.
const TRIES_MAX: usize = 64;

impl Data {
    pub(crate) async fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: Vec<Bytes>,
        stability: Stability,
        verifier: [u8; 8],
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<WriteReply> {
        let len: u64 = data.iter().map(|d| d.len() as u64).sum();
        let end = offset.checked_add(len).filter(|e| *e <= FILE_SIZE_MAX).ok_or(FsError::FileTooBig)?;
        let count = u32::try_from(len).map_err(|_| FsError::Invalid)?;
        if len > 0 {
            self.admit(len.div_ceil(PAGE_BYTES) as usize + 1).await?;
        }
        let file = self.file(ino);
        for _ in 0..TRIES_MAX {
            let _pin = self.store().pin();
            let done = self.index.run_nowait(|txn| self.write_step(txn, &file, offset, &data, check)).await?;
            match done.value {
                Step::Fetch(Plan::Wait(load)) => load.wait().await,
                Step::Fetch(Plan::Parts(parts, guard)) => {
                    self.fetch(&file, parts, guard).await?;
                }
                Step::Publish => self.write_back(&file, 0, u64::MAX, false).await?,
                Step::Done(before, after) => {
                    self.cache.evict();
                    if stability != Stability::Unstable && len > 0 {
                        self.write_back(&file, offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES), false).await?;
                        self.index.wait_durable(file.clean_lsn.get()).await?;
                    }
                    self.index.wait_durable(done.observed).await?;
                    let committed =
                        if stability == Stability::Unstable { stability } else { Stability::FileSync };
                    return Ok(WriteReply { count, committed, verifier, before, after });
                }
            }
        }
        Err(FsError::Delay)
    }

    fn write_step(
        &self,
        txn: &mut Txn<'_>,
        file: &Rc<File>,
        offset: u64,
        data: &[Bytes],
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> TxnResult<Step> {
        let mut inode = merged(txn, file)?;
        check(&inode)?;
        let before = pre_attr(&inode);
        let end = offset + data.iter().map(|d| d.len() as u64).sum::<u64>();
        if end == offset {
            return Ok(Step::Done(before, inode.attr()));
        }
        if inode.change & 0xffff == 0xffff && file.overlay.get().is_some() {
            return Ok(Step::Publish);
        }
        // Old bytes are needed of the first and the last page, where the write leaves some of them.
        let (first, last) = (offset / PAGE_BYTES, (end - 1) / PAGE_BYTES);
        let head = !offset.is_multiple_of(PAGE_BYTES) && first * PAGE_BYTES < inode.size;
        let tail = !end.is_multiple_of(PAGE_BYTES) && end < inode.size;
        for (page, needed) in [(first, head || (tail && first == last)), (last, tail)] {
            if !needed || file.page(page).is_some() {
                continue;
            }
            match self.plan(txn, file, page, page + 1, true)? {
                // A hole, or it was in the journal's memtable and is cached by now.
                Plan::Parts(_, None) => {}
                fetch => return Ok(Step::Fetch(fetch)),
            }
        }
        // From here on nothing fails and nothing suspends.
        self.dirty(file, offset, end, data);
        let store = self.store();
        let time = txn.time();
        inode.size = inode.size.max(end);
        inode.mtime = time;
        inode.ctime = super::later(time, inode.ctime);
        // Above every record so far, below the next one's; a store that opens again jumps ahead, so even what a crash
        // makes forgotten is never shown twice.
        inode.change = (inode.change + 1).max(store.last_lsn().0 << 16 | 1);
        file.overlay.set(Some(Overlay {
            size: inode.size,
            mtime: inode.mtime,
            ctime: inode.ctime,
            change: inode.change,
        }));
        Ok(Step::Done(before, inode.attr()))
    }

    /// Copies `data` into dirty pages. Pages written in part are cached, or zero before.
    fn dirty(&self, file: &Rc<File>, offset: u64, end: u64, data: &[Bytes]) {
        let mut source = Source { pieces: data, at: 0 };
        let last = (end - 1) / PAGE_BYTES;
        let mut first = offset / PAGE_BYTES;
        file.make_stale(first, last + 1);
        while first <= last {
            // One buffer per chunk: pages that arrive together are evicted together, so none pins others for long.
            let stop = (last + 1).min((first / CHUNK_PAGES + 1) * CHUNK_PAGES);
            let base = first * PAGE_BYTES;
            let (from, to) = (offset.max(base), end.min(stop * PAGE_BYTES));
            let mut buf = DmaBuf::new(((stop - first) * PAGE_BYTES) as usize);
            if from > base {
                old_page(file, first, &mut buf[..PAGE_BYTES as usize]);
            }
            if to < stop * PAGE_BYTES && (stop - 1 > first || from == base) {
                let at = ((stop - 1 - first) * PAGE_BYTES) as usize;
                old_page(file, stop - 1, &mut buf[at..]);
            }
            source.copy_to(&mut buf[(from - base) as usize..(to - base) as usize]);
            for (page, content) in (first..).zip(Page::split(buf.freeze())) {
                file.put_dirty(&self.cache, page, content);
            }
            first = stop;
        }
        if file.dirty_since.get().is_none() {
            file.dirty_since.set(Some(basalt_reactor::now()));
        }
        let first_dirty = self.dirty_files.borrow().is_empty();
        self.dirty_files.borrow_mut().insert(file.ino);
        file.gathered.set(file.gathered.get() + (last + 1 - offset / PAGE_BYTES) as usize);
        let stripe = self.stripe_pages() as usize;
        if file.gathered.get() >= stripe && file.dirty_pages() >= stripe {
            file.gathered.set(0);
            let mut gathered = self.gathered.borrow_mut();
            if !gathered.contains(&file.ino) {
                gathered.push_back(file.ino);
            }
            self.kick.notify_all();
        } else if first_dirty || self.cache.half_dirty() {
            self.kick.notify_all();
        }
    }

    /// Waits until `pages` more may become dirty; errs where waiting would not help.
    async fn admit(&self, pages: usize) -> FsResult<()> {
        if self.full.get() {
            self.probe_space().await?;
        }
        while !self.cache.admits(pages) {
            if self.full.get() {
                return Err(FsError::NoSpace);
            }
            if let Some(e) = self.failing.get() {
                return Err(e);
            }
            let cleaned = self.cache.cleaned.notified();
            self.pressure.set(true);
            self.kick.notify_all();
            cleaned.await;
        }
        Ok(())
    }

    /// After the store has said that it is full: asks it again, with a page that nobody will refer to, before the write
    /// is taken. So the error reaches the writer, and not only its COMMIT.
    async fn probe_space(&self) -> FsResult<()> {
        let piece =
            Piece { owner: Owner { inode: 0, offset: 0 }, data: vec![buf::zeroes(PAGE_BYTES as usize)] };
        match self.store().write(Class::Data, vec![piece]).await {
            Ok(_) => {
                self.full.set(false);
                Ok(())
            }
            Err(e) => Err(fs_error(e)),
        }
    }
}

fn old_page(file: &File, page: u64, out: &mut [u8]) {
    match file.page(page) {
        Some(old) => out.copy_from_slice(old.as_slice()),
        None => out.fill(0),
    }
}

/// A cursor over the pieces of a request.
struct Source<'a> {
    pieces: &'a [Bytes],
    at: usize,
}
impl Source<'_> {
    fn copy_to(&mut self, mut out: &mut [u8]) {
        while !out.is_empty()
            && let Some(piece) = self.pieces.first()
        {
            let n = out.len().min(piece.len() - self.at);
            let (now, rest) = out.split_at_mut(n);
            now.copy_from_slice(&piece[self.at..self.at + n]);
            out = rest;
            self.at += n;
            if self.at == piece.len() {
                self.pieces = &self.pieces[1..];
                self.at = 0;
            }
        }
    }
}
