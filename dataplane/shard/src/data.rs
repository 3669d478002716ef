//! File contents.
//!
//! Pages of 4 KiB. Unstable writes gather as dirty pages in memory, with the file's size and times as an *overlay* over
//! the inode record; they leave as full stripes (large) or as journalled pages (small), in one transaction with size and
//! times, and the overlay goes.

use crate::index::{Index, Txn, TxnResult};
use crate::inode::Inode;
use crate::vfs::*;
use basalt_pool::BlockAddr;
use bytes::Bytes;
use std::rc::Rc;

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
pub(crate) struct Data {}

impl Data {
    pub(crate) fn new(_index: Rc<Index>) -> Rc<Data> {
        todo!()
    }
    /// What unstable writes add; merged into every [`Attr`] that leaves the shard.
    pub(crate) fn overlay(&self, _ino: Ino) -> Option<Overlay> {
        todo!()
    }
    /// The checks that ops makes on an inode (exists, type, permission) are `check`, run inside the transaction.
    pub(crate) async fn read(
        &self,
        _ino: Ino,
        _offset: u64,
        _len: u32,
        _check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<ReadReply> {
        todo!()
    }
    pub(crate) async fn write(
        &self,
        _ino: Ino,
        _offset: u64,
        _data: Vec<Bytes>,
        _stability: Stability,
        _verifier: [u8; 8],
        _check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<WriteReply> {
        todo!()
    }
    pub(crate) async fn commit(&self, _ino: Ino, _offset: u64, _len: u64) -> FsResult<(PreAttr, Attr)> {
        todo!()
    }
    /// Size change and other attributes in one: `edit` gets the inode record (with the overlay already merged in) inside the
    /// transaction, checks and changes it, `size` included; contents follow the size. Large truncations free their extents
    /// in the background after the size is durable.
    pub(crate) async fn resize(
        &self,
        _ino: Ino,
        _edit: &dyn Fn(&mut Inode, &Txn<'_>) -> FsResult<()>,
    ) -> FsResult<(PreAttr, Attr)> {
        todo!()
    }
    pub(crate) async fn seek(&self, _ino: Ino, _offset: u64, _what: SeekWhat) -> FsResult<u64> {
        todo!()
    }
    pub(crate) async fn deallocate(
        &self,
        _ino: Ino,
        _offset: u64,
        _len: u64,
        _check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<Attr> {
        todo!()
    }
    /// One bounded slice of deleting an orphan's contents, inside the caller's transaction; true when nothing is left.
    pub(crate) fn delete_slice(&self, _txn: &mut Txn<'_>, _ino: Ino) -> TxnResult<bool> {
        todo!()
    }
    /// Drops pages and overlay of an inode that is being deleted.
    pub(crate) fn forget(&self, _ino: Ino) {
        todo!()
    }
    /// Everything dirty goes out (clean stop).
    pub(crate) async fn sync(&self) -> FsResult<()> {
        todo!()
    }
}
