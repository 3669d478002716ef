//! The bounds of a shard's page cache, and its eviction.
//!
//! Eviction goes by chunks of 32 pages: a queue in order of arrival with a second chance for what was used since (the
//! order of an LRU at the cost of a flag per use). Dirty pages are never evicted; their own bound makes writers wait.

use super::PAGE_BYTES;
use super::file::File;
use basalt_reactor::sync::Notify;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// 4 KiB of a buffer that may be larger: pages written or read together share one, and leave together as one piece.
#[derive(Clone)]
pub(super) struct Page {
    buf: Bytes,
    at: u32,
}
impl Page {
    /// The pages of a buffer.
    pub(super) fn split(buf: Bytes) -> impl Iterator<Item = Page> {
        let pages = buf.len() as u64 / PAGE_BYTES;
        (0..pages).map(move |i| Page { buf: buf.clone(), at: (i * PAGE_BYTES) as u32 })
    }
    /// The first page of a buffer.
    pub(super) fn new(buf: Bytes) -> Page {
        Page { buf, at: 0 }
    }
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.buf[self.at as usize..][..PAGE_BYTES as usize]
    }
}

/// Joins pages that lie behind each other in the same buffer to one piece.
#[derive(Default)]
pub(super) struct Joiner {
    pieces: Vec<Bytes>,
    open: Option<(Bytes, u32, u32)>,
}
impl Joiner {
    pub(super) fn push(&mut self, page: &Page) {
        if let Some((buf, _, end)) = &mut self.open {
            // Equal address and length of two live buffers: the same buffer.
            if *end == page.at && buf.as_ptr() == page.buf.as_ptr() && buf.len() == page.buf.len() {
                *end += PAGE_BYTES as u32;
                return;
            }
        }
        self.close();
        self.open = Some((page.buf.clone(), page.at, page.at + PAGE_BYTES as u32));
    }
    fn close(&mut self) {
        if let Some((buf, at, end)) = self.open.take() {
            self.pieces.push(buf.slice(at as usize..end as usize));
        }
    }
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.pieces
    }
}

struct Entry {
    file: Weak<File>,
    chunk: u64,
    id: u64,
}

/// Accounts of all pages of a shard.
pub(super) struct Cache {
    pub(super) resident: Cell<usize>,
    pub(super) dirty: Cell<usize>,
    pub(super) chunks: Cell<usize>,
    /// Notified when dirty pages became clean or went.
    pub(super) cleaned: Notify,
    max_resident: Cell<usize>,
    max_dirty: Cell<usize>,
    queue: RefCell<VecDeque<Entry>>,
    next_id: Cell<u64>,
}

const RESIDENT_MIN_PAGES: usize = 256;

impl Cache {
    pub(super) fn new() -> Cache {
        let c = Cache {
            resident: Cell::new(0),
            dirty: Cell::new(0),
            chunks: Cell::new(0),
            cleaned: Notify::new(),
            max_resident: Cell::new(0),
            max_dirty: Cell::new(0),
            queue: RefCell::default(),
            next_id: Cell::new(0),
        };
        c.set_limits(128 << 20, 64 << 20);
        c
    }
    pub(super) fn set_limits(&self, cache_bytes: u64, dirty_bytes: u64) {
        self.max_dirty.set(((dirty_bytes / PAGE_BYTES) as usize).max(1));
        self.max_resident.set(((cache_bytes / PAGE_BYTES) as usize).max(RESIDENT_MIN_PAGES));
    }
    /// Whether `pages` more may become dirty now. One write alone always may, whatever its size.
    pub(super) fn admits(&self, pages: usize) -> bool {
        self.dirty.get() == 0 || self.dirty.get() + pages <= self.max_dirty.get()
    }
    pub(super) fn half_dirty(&self) -> bool {
        self.dirty.get() >= self.max_dirty.get() / 2
    }
    /// Queues a new chunk and returns its id.
    pub(super) fn enqueue(&self, file: &Rc<File>, chunk: u64) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.chunks.set(self.chunks.get() + 1);
        self.queue.borrow_mut().push_back(Entry { file: Rc::downgrade(file), chunk, id });
        id
    }
    /// Drops the least recently used clean pages while there are too many. Call with no file borrowed.
    pub(super) fn evict(&self) {
        let mut queue = self.queue.borrow_mut();
        // Chunks that went by truncation or deletion leave entries behind.
        if queue.len() > 2 * self.chunks.get() + 1024 {
            queue.retain(|e| e.file.upgrade().is_some_and(|f| f.has_chunk(e.chunk, e.id)));
        }
        drop(queue);
        if self.resident.get() <= self.max_resident.get() {
            return;
        }
        // Twice around: once to take second chances away, once to evict.
        let mut looks = self.queue.borrow().len() * 2;
        while self.resident.get() > self.max_resident.get() && looks > 0 {
            looks -= 1;
            let Some(e) = self.queue.borrow_mut().pop_front() else { return };
            let Some(file) = e.file.upgrade() else { continue };
            if file.evict_chunk(self, e.chunk, e.id) {
                self.queue.borrow_mut().push_back(e);
            }
        }
    }
}
