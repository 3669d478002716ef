//! What is in memory of one file.

use super::cache::{Cache, Joiner, Page};
use super::{Overlay, PAGE_BYTES};
use crate::vfs::Ino;
use basalt_pool::Lsn;
use basalt_reactor::Instant;
use basalt_reactor::sync::{Mutex, Notify};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Pages of a chunk: the bits of a word say which are dirty.
pub(super) const CHUNK_PAGES: u64 = 32;

struct Chunk {
    id: u64,
    used: bool,
    /// As long as the highest page present.
    pages: Vec<Option<Page>>,
    dirty: u32,
    /// Dirty, and what a write-back under way is writing is still the newest.
    writing: u32,
}
impl Chunk {
    fn page(&self, i: usize) -> Option<&Page> {
        self.pages.get(i).and_then(|p| p.as_ref())
    }
}

#[derive(Default)]
struct Pages {
    chunks: BTreeMap<u64, Chunk>,
    dirty_chunks: BTreeSet<u64>,
    dirty: usize,
}

pub(super) struct File {
    pub(super) ino: Ino,
    /// Held by whoever changes where pages are stored, except packing.
    pub(super) layout: Mutex<()>,
    pub(super) overlay: Cell<Option<Overlay>>,
    pub(super) loads: RefCell<Vec<Rc<Load>>>,
    pub(super) stream: Cell<super::readahead::Stream>,
    pub(super) dirty_since: Cell<Option<Instant>>,
    /// Pages dirtied since the background was last told that a stripe has gathered.
    pub(super) gathered: Cell<usize>,
    /// A background write-back is under way.
    pub(super) writing_back: Cell<bool>,
    /// After a failed background write-back: not again before.
    pub(super) retry_at: Cell<Instant>,
    /// Record of the last write-back: what is clean is durable once this is.
    pub(super) clean_lsn: Cell<Lsn>,
    pages: RefCell<Pages>,
}

/// A stretch of a file, in pages, as the cache knows it.
pub(super) enum Stretch {
    Cached(Vec<Bytes>),
    Missing { first: u64, end: u64 },
}

/// Contiguous dirty pages that a write-back takes.
pub(super) struct DirtyRun {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) data: Vec<Bytes>,
}

impl File {
    pub(super) fn new(ino: Ino) -> File {
        File {
            ino,
            layout: Mutex::new(()),
            overlay: Cell::new(None),
            loads: RefCell::default(),
            stream: Cell::default(),
            dirty_since: Cell::new(None),
            gathered: Cell::new(0),
            writing_back: Cell::new(false),
            retry_at: Cell::new(Instant(0)),
            clean_lsn: Cell::new(Lsn(0)),
            pages: RefCell::default(),
        }
    }
    pub(super) fn is_idle(&self) -> bool {
        self.pages.borrow().chunks.is_empty() && self.overlay.get().is_none()
    }
    pub(super) fn dirty_pages(&self) -> usize {
        self.pages.borrow().dirty
    }

    // ---- single pages

    pub(super) fn page(&self, page: u64) -> Option<Page> {
        let mut pages = self.pages.borrow_mut();
        let chunk = pages.chunks.get_mut(&(page / CHUNK_PAGES))?;
        chunk.used = true;
        chunk.page((page % CHUNK_PAGES) as usize).cloned()
    }
    pub(super) fn is_dirty(&self, page: u64) -> bool {
        let pages = self.pages.borrow();
        pages.chunks.get(&(page / CHUNK_PAGES)).is_some_and(|c| c.dirty & 1 << (page % CHUNK_PAGES) != 0)
    }
    /// The first dirty page from `page` on.
    pub(super) fn next_dirty(&self, page: u64) -> Option<u64> {
        let pages = self.pages.borrow();
        for &n in pages.dirty_chunks.range(page / CHUNK_PAGES..) {
            let mut bits = pages.chunks[&n].dirty;
            if n == page / CHUNK_PAGES {
                bits &= u32::MAX << (page % CHUNK_PAGES);
            }
            if bits != 0 {
                return Some(n * CHUNK_PAGES + bits.trailing_zeros() as u64);
            }
        }
        None
    }
    /// Caches what was read; a page that is there already is newer and stays.
    pub(super) fn put_clean(self: &Rc<Self>, cache: &Cache, page: u64, content: Page) {
        let mut pages = self.pages.borrow_mut();
        let slot = pages.slot(self, cache, page).0;
        if slot.is_none() {
            *slot = Some(content);
            cache.resident.set(cache.resident.get() + 1);
        }
    }
    pub(super) fn put_dirty(self: &Rc<Self>, cache: &Cache, page: u64, content: Page) {
        let mut pages = self.pages.borrow_mut();
        let bit = 1 << (page % CHUNK_PAGES);
        let (slot, dirty, writing) = pages.slot(self, cache, page);
        if slot.replace(content).is_none() {
            cache.resident.set(cache.resident.get() + 1);
        }
        // What is being written back is no longer the newest: it stays dirty.
        *writing &= !bit;
        if *dirty & bit == 0 {
            *dirty |= bit;
            pages.dirty += 1;
            pages.dirty_chunks.insert(page / CHUNK_PAGES);
            cache.dirty.set(cache.dirty.get() + 1);
        }
    }

    // ---- stretches

    /// What of pages `first..end` is cached, in order and without gaps.
    pub(super) fn stretches(&self, first: u64, end: u64) -> Vec<Stretch> {
        let mut pages = self.pages.borrow_mut();
        let mut out = Vec::new();
        let mut cached: Option<Joiner> = None;
        let mut missing: Option<u64> = None;
        let mut page = first;
        while page < end {
            let n = page / CHUNK_PAGES;
            let stop = end.min((n + 1) * CHUNK_PAGES);
            let chunk = pages.chunks.get_mut(&n);
            if let Some(c) = chunk {
                c.used = true;
                for p in page..stop {
                    match c.page((p % CHUNK_PAGES) as usize) {
                        Some(content) => {
                            if let Some(first) = missing.take() {
                                out.push(Stretch::Missing { first, end: p });
                            }
                            cached.get_or_insert_default().push(content);
                        }
                        None => {
                            if let Some(j) = cached.take() {
                                out.push(Stretch::Cached(j.finish()));
                            }
                            missing.get_or_insert(p);
                        }
                    }
                }
            } else {
                if let Some(j) = cached.take() {
                    out.push(Stretch::Cached(j.finish()));
                }
                missing.get_or_insert(page);
            }
            page = stop;
        }
        if let Some(j) = cached {
            out.push(Stretch::Cached(j.finish()));
        }
        if let Some(first) = missing {
            out.push(Stretch::Missing { first, end });
        }
        out
    }
    /// Drops pages `first..end`, dirty ones too, and makes reads of them that are under way stale.
    pub(super) fn drop_pages(&self, cache: &Cache, first: u64, end: u64) {
        self.make_stale(first, end);
        let mut guard = self.pages.borrow_mut();
        let pages = &mut *guard;
        let last_chunk = end.div_ceil(CHUNK_PAGES);
        let touched: Vec<u64> =
            pages.chunks.range(first / CHUNK_PAGES..last_chunk).map(|(n, _)| *n).collect();
        for n in touched {
            let Some(chunk) = pages.chunks.get_mut(&n) else { continue };
            for i in 0..chunk.pages.len() {
                let page = n * CHUNK_PAGES + i as u64;
                if page < first || page >= end || chunk.pages[i].take().is_none() {
                    continue;
                }
                cache.resident.set(cache.resident.get() - 1);
                let bit = 1u32 << i;
                chunk.writing &= !bit;
                if chunk.dirty & bit != 0 {
                    chunk.dirty &= !bit;
                    pages.dirty -= 1;
                    cache.dirty.set(cache.dirty.get() - 1);
                }
            }
            if chunk.dirty == 0 {
                pages.dirty_chunks.remove(&n);
            }
            pages.remove_if_empty(cache, n);
        }
    }
    /// Puts a page that is durable in just this form.
    pub(super) fn replace_clean(self: &Rc<Self>, cache: &Cache, page: u64, content: Page) {
        self.drop_pages(cache, page, page + 1);
        self.put_clean(cache, page, content);
    }

    // ---- write-back; at most one under way per file, under `layout`

    /// Takes up to `max_pages` dirty pages of `first..end` in order. With `whole` set, only runs of that many pages and
    /// multiples of it.
    pub(super) fn begin_writing(
        &self,
        first: u64,
        end: u64,
        max_pages: usize,
        whole: Option<u64>,
    ) -> Vec<DirtyRun> {
        let mut pages = self.pages.borrow_mut();
        let mut spans: Vec<(u64, u64)> = Vec::new();
        let mut left = max_pages as u64;
        'chunks: for &n in pages.dirty_chunks.range(first / CHUNK_PAGES..) {
            let bits = pages.chunks[&n].dirty;
            let base = n * CHUNK_PAGES;
            if base >= end {
                break;
            }
            let mut i = first.saturating_sub(base);
            while i < CHUNK_PAGES {
                i += (bits as u64 >> i).trailing_zeros().min((CHUNK_PAGES - i) as u32) as u64;
                let ones = (bits as u64 >> i).trailing_ones() as u64;
                if i >= CHUNK_PAGES || ones == 0 || base + i >= end {
                    break;
                }
                let from = base + i;
                let mut to = end.min(from + ones);
                i += ones;
                // A run in whole stripes is closed when the next one does not continue it.
                match spans.last_mut() {
                    Some(last) if last.1 == from => {
                        to = to.min(from + left);
                        left -= to - from;
                        last.1 = to;
                    }
                    _ => {
                        if let (Some(w), Some(last)) = (whole, spans.last_mut()) {
                            left += (last.1 - last.0) % w;
                            last.1 -= (last.1 - last.0) % w;
                            if last.0 == last.1 {
                                spans.pop();
                            }
                        }
                        to = to.min(from + left);
                        left -= to - from;
                        spans.push((from, to));
                    }
                }
                if left == 0 {
                    break 'chunks;
                }
            }
        }
        if let (Some(w), Some(last)) = (whole, spans.last_mut()) {
            last.1 -= (last.1 - last.0) % w;
            if last.0 == last.1 {
                spans.pop();
            }
        }
        spans
            .into_iter()
            .map(|(first, end)| {
                let mut data = Joiner::default();
                for page in first..end {
                    if let Some(c) = pages.chunks.get_mut(&(page / CHUNK_PAGES)) {
                        c.writing |= 1 << (page % CHUNK_PAGES);
                        if let Some(p) = c.page((page % CHUNK_PAGES) as usize) {
                            data.push(p);
                        }
                    }
                }
                DirtyRun { first, end, data: data.finish() }
            })
            .collect()
    }
    /// Whether no page is dirty once the write-back under way is done.
    pub(super) fn clean_after_writing(&self) -> bool {
        let pages = self.pages.borrow();
        let left = |n: &u64| pages.chunks.get(n).map_or(0, |c| c.dirty & !c.writing);
        pages.dirty_chunks.iter().all(|n| left(n) == 0)
    }
    /// Ends what `begin_writing` began; with `written`, pages that were not written to meanwhile are clean.
    pub(super) fn end_writing(&self, cache: &Cache, runs: &[DirtyRun], written: bool) {
        let mut guard = self.pages.borrow_mut();
        let pages = &mut *guard;
        for run in runs {
            for n in run.first / CHUNK_PAGES..run.end.div_ceil(CHUNK_PAGES) {
                let Some(c) = pages.chunks.get_mut(&n) else { continue };
                let base = n * CHUNK_PAGES;
                let lo = run.first.max(base) - base;
                let hi = run.end.min(base + CHUNK_PAGES) - base;
                let mask = (((1u64 << hi) - 1) & !((1u64 << lo) - 1)) as u32;
                let done = c.writing & mask;
                c.writing &= !mask;
                if written {
                    c.dirty &= !done;
                    pages.dirty -= done.count_ones() as usize;
                    cache.dirty.set(cache.dirty.get() - done.count_ones() as usize);
                    if c.dirty == 0 {
                        pages.dirty_chunks.remove(&n);
                    }
                }
            }
        }
    }

    // ---- eviction

    pub(super) fn has_chunk(&self, chunk: u64, id: u64) -> bool {
        self.pages.borrow().chunks.get(&chunk).is_some_and(|c| c.id == id)
    }
    /// Drops the chunk's clean pages unless it was used since the last look; whether the chunk is still there.
    pub(super) fn evict_chunk(&self, cache: &Cache, chunk: u64, id: u64) -> bool {
        let mut pages = self.pages.borrow_mut();
        let Some(c) = pages.chunks.get_mut(&chunk).filter(|c| c.id == id) else { return false };
        if std::mem::take(&mut c.used) {
            return true;
        }
        for (i, page) in c.pages.iter_mut().enumerate() {
            if c.dirty & 1 << i == 0 && page.take().is_some() {
                cache.resident.set(cache.resident.get() - 1);
            }
        }
        !pages.remove_if_empty(cache, chunk)
    }

    // ---- reads under way

    /// What is read from the drives for these pages is no longer what they hold.
    pub(super) fn make_stale(&self, first: u64, end: u64) {
        for load in self.loads.borrow().iter() {
            if load.first < end && first < load.end {
                load.stale.set(true);
            }
        }
    }
    /// A read under way that will bring some of these pages.
    pub(super) fn load_of(&self, first: u64, end: u64) -> Option<Rc<Load>> {
        let loads = self.loads.borrow();
        loads.iter().find(|l| l.first < end && first < l.end && !l.stale.get()).cloned()
    }
}

impl Pages {
    fn slot(&mut self, file: &Rc<File>, cache: &Cache, page: u64) -> (&mut Option<Page>, &mut u32, &mut u32) {
        let n = page / CHUNK_PAGES;
        let chunk = self.chunks.entry(n).or_insert_with(|| Chunk {
            id: cache.enqueue(file, n),
            used: true,
            pages: Vec::new(),
            dirty: 0,
            writing: 0,
        });
        chunk.used = true;
        let i = (page % CHUNK_PAGES) as usize;
        if chunk.pages.len() <= i {
            chunk.pages.resize(i + 1, None);
        }
        (&mut chunk.pages[i], &mut chunk.dirty, &mut chunk.writing)
    }
    fn remove_if_empty(&mut self, cache: &Cache, n: u64) -> bool {
        let empty = self.chunks.get(&n).is_some_and(|c| c.pages.iter().all(Option::is_none));
        if empty {
            self.chunks.remove(&n);
            cache.chunks.set(cache.chunks.get() - 1);
        }
        empty
    }
}

/// A read from the drives under way.
pub(super) struct Load {
    first: u64,
    end: u64,
    pub(super) stale: Cell<bool>,
    over: Cell<bool>,
    ended: Notify,
}
impl Load {
    pub(super) async fn wait(&self) {
        if !self.over.get() {
            self.ended.notified().await;
        }
    }
}
/// Registers a [`Load`] for as long as it lives.
pub(super) struct LoadGuard {
    file: Rc<File>,
    pub(super) load: Rc<Load>,
}
impl LoadGuard {
    pub(super) fn new(file: &Rc<File>, first: u64, end: u64) -> LoadGuard {
        let load = Rc::new(Load {
            first,
            end,
            stale: Cell::new(false),
            over: Cell::new(false),
            ended: Notify::new(),
        });
        file.loads.borrow_mut().push(load.clone());
        LoadGuard { file: file.clone(), load }
    }
}
impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.file.loads.borrow_mut().retain(|l| !Rc::ptr_eq(l, &self.load));
        self.load.over.set(true);
        self.load.ended.notify_all();
    }
}

/// A page of its own from up to 4 KiB of content, the rest zero.
pub(super) fn padded(content: &[u8]) -> Page {
    let mut buf = basalt_reactor::buf::DmaBuf::zeroed(PAGE_BYTES as usize);
    buf[..content.len()].copy_from_slice(content);
    whole(buf)
}
/// The single page that `buf` (4 KiB) is.
pub(super) fn whole(buf: basalt_reactor::buf::DmaBuf) -> Page {
    Page::new(buf.freeze())
}
