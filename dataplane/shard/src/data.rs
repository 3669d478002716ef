//! File contents.
//!
//! Pages of 4 KiB. Unstable writes gather as dirty pages in memory, with the file's size and times as an *overlay* over
//! the inode record; they leave as full stripes (large) or as journalled pages (small), in one transaction with size and
//! times, and the overlay goes.
//!
//! Where a page's bytes are, looked up in this order: the page cache (dirty or clean), a PAGE key, the EXTENT that covers
//! it, else it is a hole and reads as zeroes. A page never has both a PAGE key and an extent. Bytes of the last page
//! behind the end of the file are zero everywhere, so that growing a file is a change of its size alone.
//!
//! Who may change what at the same time:
//! * Unstable writes change cached pages and the overlay in one step that never suspends, under no lock.
//! * Write-back, truncation and hole punching change where pages are stored; they hold the file's `layout` lock.
//! * Packing moves journalled pages into stripes under no lock (a holder of `layout` may be waiting for the journal room
//!   that packing makes); it checks inside its transaction that what it packed is still current.
//! * A read from the drives registers as a [`file::Load`]; whatever changes those pages meanwhile marks it stale, and
//!   then its bytes answer the read that asked but do not enter the cache.
//!
//! * `extent`: extents on media, and their lookup, cutting and removal within a transaction.
//! * `cache`, `file`: pages in memory; bounds, eviction, the state of one file.
//! * `read`, `readahead`, `write`, `writeback`, `resize`, `punch`, `seek`, `pack`: what their names say.

mod cache;
mod extent;
mod file;
mod pack;
mod punch;
mod read;
mod readahead;
mod resize;
mod seek;
#[cfg(test)]
mod tests;
mod write;
mod writeback;

use crate::index::{Index, Store, Txn, TxnResult, fs_error};
use crate::inode::Inode;
use crate::keys;
use crate::vfs::*;
use basalt_pool::BlockAddr;
use basalt_reactor::Instant;
use basalt_reactor::sync::Notify;
use cache::Cache;
use file::File;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};

pub(crate) const PAGE_BYTES: u64 = 4096;

/// Value of an EXTENT key. Logical end is in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Logical length in bytes, a multiple of 4096 for now.
    pub(crate) len: u64,
    pub(crate) at: BlockAddr,
    /// First byte within the block (0 for now).
    pub(crate) byte: u16,
    /// Bytes stored (= len while codec is 0).
    pub(crate) stored_len: u64,
    /// 0: plain.
    pub(crate) codec: u8,
    /// 0: not encrypted.
    pub(crate) key_id: u32,
}

/// Size and times that unstable writes have given a file and that are not yet in its inode record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) size: u64,
    pub(crate) mtime: WallTime,
    pub(crate) ctime: WallTime,
    pub(crate) change: u64,
}

impl Overlay {
    /// The inode as clients are to see it: every [`Attr`] of a file that has an overlay is made from this.
    pub(crate) fn merge_into(&self, inode: &mut Inode) {
        inode.size = self.size;
        inode.mtime = self.mtime;
        // A change of mode or owner may have come after the last unstable write.
        inode.ctime = later(inode.ctime, self.ctime);
        inode.change = inode.change.max(self.change);
    }
}

fn later(a: WallTime, b: WallTime) -> WallTime {
    if (a.sec, a.nsec) >= (b.sec, b.nsec) { a } else { b }
}

/// Contents of one shard's files.
pub(crate) struct Data {
    me: Weak<Data>,
    index: Rc<Index>,
    cache: Cache,
    /// Files with something in memory; swept of idle ones as it grows.
    files: RefCell<BTreeMap<Ino, Rc<File>>>,
    sweep_at: Cell<usize>,
    dirty_files: RefCell<BTreeSet<Ino>>,
    /// Files in which a full stripe's worth has gathered.
    gathered: RefCell<VecDeque<Ino>>,
    /// Wakes the background write-back. Outlives `Data`, whose drop ends that task with it.
    kick: Rc<Notify>,
    /// A writer waits for dirty pages to become clean.
    pressure: Cell<bool>,
    /// When the background looks through all dirty files again for old ones.
    next_look: Cell<Instant>,
    /// Background write-backs under way.
    writing_back: Cell<usize>,
    /// What the last background write-back failed with; a writer that would wait for room gets it.
    failing: Cell<Option<FsError>>,
    /// The store said that there is no space for data; writes ask again before they gather more.
    full: Cell<bool>,
    prefetches: Cell<usize>,
}

impl Data {
    pub(crate) fn new(index: Rc<Index>) -> Rc<Data> {
        let kick = Rc::new(Notify::new());
        let data = Rc::new_cyclic(|me: &Weak<Data>| Data {
            me: me.clone(),
            index: index.clone(),
            cache: Cache::new(),
            files: RefCell::default(),
            sweep_at: Cell::new(FILES_BEFORE_SWEEP),
            dirty_files: RefCell::default(),
            gathered: RefCell::default(),
            kick: kick.clone(),
            pressure: Cell::new(false),
            next_look: Cell::new(Instant(0)),
            writing_back: Cell::new(0),
            failing: Cell::new(None),
            full: Cell::new(false),
            prefetches: Cell::new(0),
        });
        let weak = Rc::downgrade(&data);
        index.set_pack_pages(Rc::new(move |pages| {
            let weak = weak.clone();
            Box::pin(async move {
                let data = weak.upgrade().ok_or(FsError::Delay)?;
                data.pack(pages).await
            })
        }));
        basalt_reactor::spawn(writeback::background(Rc::downgrade(&data), kick));
        data
    }
    /// Bounds of the page cache and of the dirty part of it. Defaults: 128 MiB and 64 MiB.
    #[cfg(test)]
    pub(crate) fn set_limits(&self, cache_bytes: u64, dirty_bytes: u64) {
        self.cache.set_limits(cache_bytes, dirty_bytes);
        self.cache.evict();
    }
    /// What unstable writes add; merged into every [`Attr`] that leaves the shard.
    pub(crate) fn overlay(&self, ino: Ino) -> Option<Overlay> {
        self.files.borrow().get(&ino).and_then(|f| f.overlay.get())
    }
    /// Drops pages and overlay of an inode that is being deleted.
    pub(crate) fn forget(&self, ino: Ino) {
        // The file's state itself stays until the next sweep: operations under way hold on to it.
        let file = self.files.borrow().get(&ino).cloned();
        if let Some(file) = file {
            self.drop_pages(&file, 0, u64::MAX);
        }
    }
    /// One bounded slice of deleting an orphan's contents, inside the caller's transaction; true when nothing is left.
    pub(crate) fn delete_slice(&self, txn: &mut Txn<'_>, ino: Ino) -> TxnResult<bool> {
        extent::delete_slice(txn, ino)
    }

    fn store(&self) -> &Rc<dyn Store> {
        self.index.any_store()
    }
    fn file(&self, ino: Ino) -> Rc<File> {
        let mut files = self.files.borrow_mut();
        if let Some(f) = files.get(&ino) {
            return f.clone();
        }
        if files.len() >= self.sweep_at.get() {
            files.retain(|_, f| Rc::strong_count(f) > 1 || !f.is_idle());
            self.sweep_at.set((files.len() * 2).max(FILES_BEFORE_SWEEP));
        }
        let f = Rc::new(File::new(ino));
        files.insert(ino, f.clone());
        f
    }
    /// Drops cached pages, dirty ones too.
    fn drop_pages(&self, file: &Rc<File>, first: u64, end: u64) {
        file.drop_pages(&self.cache, first, end);
        // What could not be written back may be just what went.
        self.failing.set(None);
        self.settle(file);
    }
    /// After pages became clean or went: bookkeeping of files that have none dirty left, and wakes writers.
    fn settle(&self, file: &Rc<File>) {
        if file.dirty_pages() == 0 {
            file.overlay.set(None);
            file.dirty_since.set(None);
            self.dirty_files.borrow_mut().remove(&file.ino);
        }
        self.cache.cleaned.notify_all();
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.kick.notify_all();
    }
}

const FILES_BEFORE_SWEEP: usize = 4096;

/// The record as journalled, without overlay.
fn record(txn: &mut Txn<'_>, ino: Ino) -> TxnResult<Option<Inode>> {
    match txn.get(&keys::inode(ino))? {
        None => Ok(None),
        Some(bytes) => match Inode::decode(ino, &bytes) {
            Some(inode) => Ok(Some(inode)),
            None => Err(FsError::Io.into()),
        },
    }
}
/// The inode as clients see it.
fn merged(txn: &mut Txn<'_>, file: &File) -> TxnResult<Inode> {
    let mut inode = record(txn, file.ino)?.ok_or(FsError::Stale)?;
    if let Some(o) = file.overlay.get() {
        o.merge_into(&mut inode);
    }
    Ok(inode)
}
fn pre_attr(inode: &Inode) -> PreAttr {
    PreAttr { size: inode.size, mtime: inode.mtime, ctime: inode.ctime, change: inode.change }
}
/// The change attribute for a record about to be written: its LSN, never behind what was shown before.
fn next_change(txn: &Txn<'_>, shown: u64) -> u64 {
    (txn.lsn().0 << 16).max(shown + 1)
}
