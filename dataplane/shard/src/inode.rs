//! The inode record.

use crate::vfs::{Attr, FileType, Ino, WallTime};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

const VERSION: u16 = 1;
/// Hash of directory keys: 0 where there is none, 1 the one that `ops` computes.
const HASH_ALGORITHM: u8 = 1;

/// Version 1. The inode number is the key's, not repeated here.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OnMedia {
    version: U16,
    /// Incompatible features that this record uses: none are defined, so anything but 0 is not understood.
    flags: U16,
    kind: u8,
    /// Which hash the entries of this directory are keyed by.
    hash_algorithm: u8,
    dir_layout: U16,
    generation: U32,
    mode: U32,
    nlink: U32,
    uid: U32,
    gid: U32,
    rdev_major: U32,
    rdev_minor: U32,
    project: U32,
    tenant: U32,
    scheme: U16,
    tail_bytes: U16,
    size: U64,
    blocks: U64,
    change: U64,
    parent: U64,
    hash_seed: U64,
    entries: U64,
    atime: OnMediaTime,
    mtime: OnMediaTime,
    ctime: OnMediaTime,
    btime: OnMediaTime,
    create_verifier: [u8; 8],
}
const _: () = assert!(size_of::<OnMedia>() == 152);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OnMediaTime {
    sec: I64,
    nsec: U32,
}
const _: () = assert!(size_of::<OnMediaTime>() == 12);

impl From<WallTime> for OnMediaTime {
    fn from(t: WallTime) -> Self {
        OnMediaTime { sec: t.sec.into(), nsec: t.nsec.into() }
    }
}
impl From<OnMediaTime> for WallTime {
    fn from(t: OnMediaTime) -> Self {
        WallTime { sec: t.sec.get(), nsec: t.nsec.get() }
    }
}

/// Values are on media, in inodes and directory entries: never renumber.
pub(crate) fn kind_code(kind: FileType) -> u8 {
    match kind {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::BlockDevice => 4,
        FileType::CharDevice => 5,
        FileType::Fifo => 6,
        FileType::Socket => 7,
    }
}
pub(crate) fn kind_of(code: u8) -> Option<FileType> {
    Some(match code {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::Symlink,
        4 => FileType::BlockDevice,
        5 => FileType::CharDevice,
        6 => FileType::Fifo,
        7 => FileType::Socket,
        _ => return None,
    })
}

impl Inode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        debug_assert!(self.tail.len() <= crate::vfs::SYMLINK_MAX);
        let fixed = OnMedia {
            version: VERSION.into(),
            flags: 0.into(),
            kind: kind_code(self.kind),
            hash_algorithm: if self.kind == FileType::Directory { HASH_ALGORITHM } else { 0 },
            dir_layout: self.dir_layout.into(),
            generation: self.generation.into(),
            mode: self.mode.into(),
            nlink: self.nlink.into(),
            uid: self.uid.into(),
            gid: self.gid.into(),
            rdev_major: self.rdev.0.into(),
            rdev_minor: self.rdev.1.into(),
            project: self.project.into(),
            tenant: self.tenant.into(),
            scheme: self.scheme.into(),
            tail_bytes: (self.tail.len() as u16).into(),
            size: self.size.into(),
            blocks: self.blocks.into(),
            change: self.change.into(),
            parent: self.parent.0.into(),
            hash_seed: self.hash_seed.into(),
            entries: self.entries.into(),
            atime: self.atime.into(),
            mtime: self.mtime.into(),
            ctime: self.ctime.into(),
            btime: self.btime.into(),
            create_verifier: self.create_verifier,
        };
        let mut out = Vec::with_capacity(size_of::<OnMedia>() + self.tail.len());
        out.extend_from_slice(fixed.as_bytes());
        out.extend_from_slice(&self.tail);
        out
    }
    /// `None` when the bytes are not a version this code knows.
    pub(crate) fn decode(ino: Ino, bytes: &[u8]) -> Option<Inode> {
        let (m, tail) = OnMedia::read_from_prefix(bytes).ok()?;
        if m.version.get() != VERSION || m.flags.get() != 0 || m.tail_bytes.get() as usize != tail.len() {
            return None;
        }
        let kind = kind_of(m.kind)?;
        if m.hash_algorithm != if kind == FileType::Directory { HASH_ALGORITHM } else { 0 } {
            return None;
        }
        Some(Inode {
            ino,
            generation: m.generation.get(),
            kind,
            mode: m.mode.get(),
            nlink: m.nlink.get(),
            uid: m.uid.get(),
            gid: m.gid.get(),
            size: m.size.get(),
            blocks: m.blocks.get(),
            rdev: (m.rdev_major.get(), m.rdev_minor.get()),
            atime: m.atime.into(),
            mtime: m.mtime.into(),
            ctime: m.ctime.into(),
            btime: m.btime.into(),
            change: m.change.get(),
            parent: Ino(m.parent.get()),
            hash_seed: m.hash_seed.get(),
            dir_layout: m.dir_layout.get(),
            entries: m.entries.get(),
            project: m.project.get(),
            tenant: m.tenant.get(),
            scheme: m.scheme.get(),
            create_verifier: m.create_verifier,
            tail: tail.to_vec(),
        })
    }
    pub(crate) fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            generation: self.generation,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            used: self.blocks.saturating_mul(4096),
            rdev: self.rdev,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            change: self.change,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = WallTime> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(sec, nsec)| WallTime { sec, nsec })
    }
    prop_compose! {
        fn inode()(
            (ino, generation, kind, mode, nlink) in (any::<u64>(), any::<u32>(), 1u8..8, any::<u32>(), any::<u32>()),
            (uid, gid, size, blocks, rdev) in (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<(u32, u32)>()),
            (atime, mtime, ctime, btime) in (time(), time(), time(), time()),
            (change, parent, hash_seed, dir_layout, entries) in any::<(u64, u64, u64, u16, u64)>(),
            (project, tenant, scheme, create_verifier) in any::<(u32, u32, u16, [u8; 8])>(),
            tail in prop::collection::vec(any::<u8>(), 0..64),
        ) -> Inode {
            Inode {
                ino: Ino(ino), generation, kind: kind_of(kind).unwrap(), mode, nlink, uid, gid, size, blocks, rdev,
                atime, mtime, ctime, btime, change, parent: Ino(parent), hash_seed, dir_layout, entries, project, tenant,
                scheme, create_verifier, tail,
            }
        }
    }
    proptest! {
        #[test]
        fn survives_the_media(i in inode()) {
            prop_assert_eq!(Inode::decode(i.ino, &i.encode()), Some(i));
        }
        #[test]
        fn any_bytes_are_an_answer(b in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Inode::decode(Ino(1), &b);
        }
        #[test]
        fn a_cut_record_is_refused(i in inode(), cut in 1usize..200) {
            let b = i.encode();
            prop_assert_eq!(Inode::decode(i.ino, &b[..b.len().saturating_sub(cut)]), None);
        }
    }

    /// The layout is on media: this test changes only together with `VERSION`.
    #[test]
    fn golden_bytes() {
        let t = |n: u32| WallTime { sec: 0x0102030405060700 + i64::from(n), nsec: n };
        let i = Inode {
            ino: Ino(99),
            generation: 0x11121314,
            kind: FileType::Symlink,
            mode: 0o777,
            nlink: 2,
            uid: 3,
            gid: 4,
            size: 5,
            blocks: 6,
            rdev: (7, 8),
            atime: t(1),
            mtime: t(2),
            ctime: t(3),
            btime: t(4),
            change: 0x2122232425262728,
            parent: Ino(9),
            hash_seed: 10,
            dir_layout: 11,
            entries: 12,
            project: 13,
            tenant: 14,
            scheme: 15,
            create_verifier: *b"verifier",
            tail: b"../to".to_vec(),
        };
        let hex: String = i.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "0100",
                "0000",
                "03",
                "00",
                "0b00",
                "14131211",
                "ff010000",
                "02000000",
                "03000000",
                "04000000",
                "07000000",
                "08000000",
                "0d000000",
                "0e000000",
                "0f00",
                "0500",
                "0500000000000000",
                "0600000000000000",
                "2827262524232221",
                "0900000000000000",
                "0a00000000000000",
                "0c00000000000000",
                "010706050403020101000000",
                "020706050403020102000000",
                "030706050403020103000000",
                "040706050403020104000000",
                "7665726966696572",
                "2e2e2f746f"
            )
        );
    }
}
