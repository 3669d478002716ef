//! Keys of a shard's index. Big-endian, so that byte order is key order.

use crate::vfs::Ino;

/// First byte of every key. Values are on media: never renumber.
pub(crate) mod tag {
    /// ino -> [`crate::inode::Inode`]
    pub(crate) const INODE: u8 = 1;
    /// dir, hash64, name -> ino, type
    pub(crate) const DIRENT: u8 = 2;
    /// ino, end offset in bytes (exclusive) -> [`crate::data::Extent`]. Keyed by the end, so that one forward seek to
    /// `offset + 1` finds the extent that covers `offset`, or the next one.
    pub(crate) const EXTENT: u8 = 3;
    /// ino, page number -> up to 4 KiB of that page, trailing zeroes cut: a small synchronous write that travels in the
    /// journal. Lives in memtables only: a flush packs such pages into stripes and never writes them to a run.
    pub(crate) const PAGE: u8 = 4;
    /// ino -> why: no name left (or never given one), contents to be deleted when nothing holds it open.
    pub(crate) const ORPHAN: u8 = 5;
    /// Prepared and decided transactions across shards.
    pub(crate) const TX: u8 = 6;
    /// ino, client, owner, range -> byte-range locks
    pub(crate) const LOCK: u8 = 7;
    /// session, slot, op -> answer of a v4.1 operation
    pub(crate) const REPLAY_V4: u8 = 8;
    /// ring position -> answer of a v3 operation
    pub(crate) const REPLAY_V3: u8 = 9;
    /// The shard's own counters (next local inode number, ...).
    pub(crate) const SHARD: u8 = 10;
}

pub(crate) fn inode(ino: Ino) -> Vec<u8> {
    ino_key(tag::INODE, ino)
}
pub(crate) fn ino_key(tag: u8, ino: Ino) -> Vec<u8> {
    let mut k = Vec::with_capacity(9);
    k.push(tag);
    k.extend_from_slice(&ino.0.to_be_bytes());
    k
}
/// `tag`, ino and one more number: extents by end offset, pages by page number.
pub(crate) fn ino_u64_key(tag: u8, ino: Ino, n: u64) -> Vec<u8> {
    let mut k = Vec::with_capacity(17);
    k.push(tag);
    k.extend_from_slice(&ino.0.to_be_bytes());
    k.extend_from_slice(&n.to_be_bytes());
    k
}
pub(crate) fn dirent(dir: Ino, hash: u64, name: &[u8]) -> Vec<u8> {
    let mut k = ino_u64_key(tag::DIRENT, dir, hash);
    k.extend_from_slice(name);
    k
}
/// The smallest key greater than every key that starts with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 255 {
            end.push(last + 1);
            return end;
        }
    }
    Vec::new()
}
