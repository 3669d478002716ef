//! What a drive holds that is not ours: the magic numbers of common file systems, partition tables and volume managers.
//! Two bounded reads, nothing is parsed.

use basalt_bdev::Bdev;

/// Enough for the farthest magic from the start (zfs uberblocks end at 256 KiB).
const HEAD_BYTES: u64 = 256 << 10;
/// mdraid 0.90 keeps its superblock 64 to 128 KiB before the end.
const TAIL_BYTES: u64 = 128 << 10;

/// (offset, magic, name), most telling first.
const MAGICS: &[(usize, &[u8], &str)] = &[
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    (0, b"XFSB", "an xfs file system"),
    (0x438, b"\x53\xef", "an ext2/3/4 file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (1024, b"\x10\x20\xf5\xf2", "an f2fs file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an erofs file system"),
    (0, b"hsqs", "a squashfs file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT16   ", "a FAT file system"),
    (54, b"FAT12   ", "a FAT file system"),
    (32769, b"CD001", "an ISO 9660 image"),
    (4086, b"SWAPSPACE2", "swap space"),
    (65526, b"SWAPSPACE2", "swap space"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of an md RAID"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of an md RAID"),
    (0, b"LABELONE", "an LVM physical volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1024, b"LABELONE", "an LVM physical volume"),
    (1536, b"LABELONE", "an LVM physical volume"),
    (
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "a bcache or bcachefs device",
    ),
    (0, b"bluestore block device", "a Ceph BlueStore device"),
    // Last, since boot sectors of file systems end in it as well.
    (510, b"\x55\xaa", "an MBR partition table"),
];

const ZFS_UBERBLOCK: [u8; 4] = [0x0c, 0xb1, 0xba, 0x00];
const MD_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

fn in_head(head: &[u8]) -> Option<&'static str> {
    let found = MAGICS.iter().find(|(at, magic, _)| head.get(*at..at + magic.len()) == Some(*magic));
    if let Some((_, _, name)) = found {
        return Some(name);
    }
    // The ring of uberblocks is the second half of a zfs label; slots are at least 1 KiB.
    let ring = head.get(128 << 10..256 << 10).unwrap_or_default();
    let big_endian = [0, 0xba, 0xb1, 0x0c];
    let is_zfs = ring
        .chunks(1024)
        .any(|c| c.starts_with(&ZFS_UBERBLOCK) || c[..8.min(c.len())].ends_with(&big_endian));
    is_zfs.then_some("a member of a ZFS pool")
}

/// `tail` is what begins at `tail_offset` and ends with the drive.
fn in_tail(tail: &[u8], tail_offset: u64, size_bytes: u64) -> Option<&'static str> {
    let sectors = size_bytes / 512;
    let md_090 = (size_bytes & !0xffff).checked_sub(0x10000);
    let md_10 = sectors.checked_sub(16).map(|s| (s & !7) * 512);
    let has_md = [md_090, md_10].into_iter().flatten().any(|at| {
        let at = at.checked_sub(tail_offset).map(|a| a as usize);
        at.and_then(|a| tail.get(a..a + 4)) == Some(&MD_MAGIC[..])
    });
    if has_md {
        return Some("a member of an md RAID");
    }
    let gpt =
        |block: usize| tail.len().checked_sub(block).and_then(|a| tail.get(a..a + 8)) == Some(b"EFI PART");
    (gpt(512) || gpt(4096)).then_some("a GPT partition table (its backup)")
}

/// Names what is on the drive, if it is known.
pub(crate) async fn foreign_contents(bdev: &dyn Bdev) -> basalt_bdev::Result<Option<&'static str>> {
    let size_bytes = bdev.info().size_bytes;
    let end = size_bytes / 4096 * 4096;
    let head = bdev.read(0, HEAD_BYTES.min(end) as usize).await?;
    if let Some(name) = in_head(&head) {
        return Ok(Some(name));
    }
    let tail_offset = end.saturating_sub(TAIL_BYTES);
    let tail = bdev.read(tail_offset, (end - tail_offset) as usize).await?;
    Ok(in_tail(&tail, tail_offset, size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_is_seen_and_blank_is_blank() {
        assert_eq!(in_head(&vec![0; HEAD_BYTES as usize]), None);
        for (at, magic, name) in MAGICS {
            let mut head = vec![0; HEAD_BYTES as usize];
            head[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(in_head(&head), Some(*name));
        }
        let mut head = vec![0; HEAD_BYTES as usize];
        head[200 << 10..][..4].copy_from_slice(&ZFS_UBERBLOCK);
        assert_eq!(in_head(&head), Some("a member of a ZFS pool"));
        assert_eq!(in_head(&[]), None);
    }

    #[test]
    fn superblocks_at_the_end_are_seen() {
        let size = 1u64 << 30;
        let tail_offset = size - TAIL_BYTES;
        let mut tail = vec![0; TAIL_BYTES as usize];
        assert_eq!(in_tail(&tail, tail_offset, size), None);
        tail[TAIL_BYTES as usize - 0x10000..][..4].copy_from_slice(&MD_MAGIC);
        assert!(in_tail(&tail, tail_offset, size).unwrap().contains("md RAID"));
        let mut tail = vec![0; TAIL_BYTES as usize];
        tail[TAIL_BYTES as usize - 512..][..8].copy_from_slice(b"EFI PART");
        assert!(in_tail(&tail, tail_offset, size).unwrap().contains("GPT"));
    }
}
