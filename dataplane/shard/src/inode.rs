//! The inode record.

use crate::vfs::{Attr, FileType, Ino, WallTime};

/// On media as a fixed 4 KiB-safe struct plus a tail (symlink target); see `docs/on-media-format.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) generation: u32,
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Blocks of 4 KiB referenced by extents and journalled pages.
    pub(crate) blocks: u64,
    pub(crate) rdev: (u32, u32),
    pub(crate) atime: WallTime,
    pub(crate) mtime: WallTime,
    pub(crate) ctime: WallTime,
    pub(crate) btime: WallTime,
    /// LSN of the record that last changed this inode, shifted left by 16; unstable writes count in the low bits.
    pub(crate) change: u64,
    /// Directories: parent, hash seed, layout (0: one shard), live entries.
    pub(crate) parent: Ino,
    pub(crate) hash_seed: u64,
    pub(crate) dir_layout: u16,
    pub(crate) entries: u64,
    /// Reserved fields of the format: 0 for now.
    pub(crate) project: u32,
    pub(crate) tenant: u32,
    pub(crate) scheme: u16,
    /// EXCLUSIVE create's verifier; 0 when none.
    pub(crate) create_verifier: [u8; 8],
    /// Symlink target.
    pub(crate) tail: Vec<u8>,
}

impl Inode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// `None` when the bytes are not a version this code knows.
    pub(crate) fn decode(_ino: Ino, _bytes: &[u8]) -> Option<Inode> {
        todo!()
    }
    pub(crate) fn attr(&self) -> Attr {
        todo!()
    }
}
