//! Block checksums: 8 bytes per 4 KiB block, a CRC32C of the data and a tag that names the block's place.
//!
//! The tag makes a checksum block that was lost or landed elsewhere worthless: a stale pair of data and checksums would
//! otherwise verify against itself.

use super::layout::{Layout, ROW_DATA};
use crate::planted::{self, Planted};
use crate::types::SegmentId;
use basalt_bdev::BLOCK_BYTES;
use basalt_reactor::buf::DmaBuf;
use std::collections::BTreeMap;
use std::rc::Rc;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const BLOCK: usize = BLOCK_BYTES as usize;
const ROW: usize = ROW_DATA as usize;

pub(crate) fn crc32c(data: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32
}

/// Identity of a block, pinned on media (golden test below). 0 marks an entry that was never set, so it is no tag.
pub(crate) fn identity_tag(segment: SegmentId, column: u8, block: u32) -> u32 {
    let place = (column as u64) << 32 | block as u64;
    let mut x = segment.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    for _ in 0..2 {
        x ^= x >> 32;
        x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    x ^= x >> 32;
    match x as u32 {
        0 => 1,
        t => t,
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    crc: U32,
    tag: U32,
}

/// Last block of a row, as it lies on media.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ChecksumBlock {
    entries: [Entry; ROW],
    /// CRC32C over all that stands before it and over its own tag.
    own: Entry,
}
const _: () = assert!(size_of::<Entry>() == 8);
const _: () = assert!(size_of::<ChecksumBlock>() == BLOCK);

fn own_crc(block: &ChecksumBlock) -> u32 {
    let mut d = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    d.update(block.entries.as_bytes());
    d.update(block.own.tag.as_bytes());
    d.finalize() as u32
}

/// Checksums of one column of a row, taken from its checksum block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnSums {
    crcs: Vec<Option<u32>>,
}

impl ColumnSums {
    /// `in_row`: index of the data block in its row.
    pub(crate) fn get(&self, in_row: u32) -> Option<u32> {
        self.crcs.get(in_row as usize).copied().flatten()
    }
}

/// `None` when the block is damaged or belongs elsewhere.
pub(crate) fn decode_block(bytes: &[u8], segment: SegmentId, column: u8, row: u32) -> Option<ColumnSums> {
    let block = ChecksumBlock::ref_from_bytes(bytes).ok()?;
    if block.own.crc.get() != own_crc(block) {
        return None;
    }
    let ignore_tags = planted::is(Planted::IgnoredChecksumAddress);
    let own_block = Layout::checksum_block(row);
    if !ignore_tags && block.own.tag.get() != identity_tag(segment, column, own_block) {
        return None;
    }
    let first = own_block - ROW_DATA;
    let crcs = block.entries.iter().enumerate().map(|(i, e)| {
        let set = e.tag.get() == identity_tag(segment, column, first + i as u32)
            || (ignore_tags && e.tag.get() != 0);
        set.then(|| e.crc.get())
    });
    Some(ColumnSums { crcs: crcs.collect() })
}

/// Whether `data`, one block, is what its checksum says.
pub(crate) fn verifies(data: &[u8], crc: u32) -> bool {
    planted::is(Planted::IgnoredChecksum) || crc32c(data) == crc
}

/// Checksums of all columns of a row that is not known to have its checksum blocks on media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowSums {
    columns: u32,
    /// One bit per block of the row: a stripe covers all columns of its blocks.
    set: [u64; 8],
    /// `[column * 511 + in_row]`
    crcs: Vec<u32>,
}

impl RowSums {
    pub(crate) fn new(columns: u32) -> RowSums {
        RowSums { columns, set: [0; 8], crcs: vec![0; columns as usize * ROW] }
    }
    pub(crate) fn is_set(&self, in_row: u32) -> bool {
        in_row < ROW_DATA && self.set[in_row as usize / 64] >> (in_row % 64) & 1 == 1
    }
    /// Takes the checksums of a stripe: `crcs[column * height + i]` is block `in_row + i` of `column`.
    pub(crate) fn set_stripe(&mut self, in_row: u32, height: u32, crcs: &[u32]) {
        debug_assert_eq!(crcs.len() as u32, self.columns * height);
        debug_assert!(in_row + height <= ROW_DATA);
        for i in 0..height {
            self.set[(in_row + i) as usize / 64] |= 1 << ((in_row + i) % 64);
        }
        for (column, of_column) in crcs.chunks(height as usize).enumerate() {
            let at = column * ROW + in_row as usize;
            self.crcs[at..at + of_column.len()].copy_from_slice(of_column);
        }
    }
    pub(crate) fn get(&self, column: u8, in_row: u32) -> Option<u32> {
        (self.is_set(in_row) && (column as u32) < self.columns)
            .then(|| self.crcs[column as usize * ROW + in_row as usize])
    }
    /// The checksum block of one column.
    pub(crate) fn encode_block(&self, segment: SegmentId, column: u8, row: u32) -> DmaBuf {
        let mut buf = DmaBuf::zeroed(BLOCK);
        let own_block = Layout::checksum_block(row);
        let first = own_block - ROW_DATA;
        let Ok(block) = ChecksumBlock::mut_from_bytes(&mut buf) else {
            unreachable!("a buffer of one block")
        };
        for (i, entry) in block.entries.iter_mut().enumerate() {
            if let Some(crc) = self.get(column, i as u32) {
                entry.crc.set(crc);
                entry.tag.set(identity_tag(segment, column, first + i as u32));
            }
        }
        block.own.tag.set(identity_tag(segment, column, own_block));
        block.own.crc.set(own_crc(block));
        buf
    }

    /// Checkpoint form: bitmap, then for each column the checksums of the blocks that are set.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for word in self.set {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for column in 0..self.columns as usize {
            for i in (0..ROW_DATA).filter(|i| self.is_set(*i)) {
                out.extend_from_slice(&self.crcs[column * ROW + i as usize].to_le_bytes());
            }
        }
    }
    pub(crate) fn decode(input: &mut &[u8], columns: u32) -> Option<RowSums> {
        let mut sums = RowSums::new(columns);
        for word in &mut sums.set {
            let (bytes, rest) = input.split_first_chunk::<8>()?;
            *word = u64::from_le_bytes(*bytes);
            *input = rest;
        }
        // Bit 511 is the checksum block's own place.
        if sums.set[7] >> 63 != 0 {
            return None;
        }
        for column in 0..columns as usize {
            for i in 0..ROW_DATA {
                if sums.is_set(i) {
                    let (bytes, rest) = input.split_first_chunk::<4>()?;
                    sums.crcs[column * ROW + i as usize] = u32::from_le_bytes(*bytes);
                    *input = rest;
                }
            }
        }
        Some(sums)
    }
}

/// Which checksum block: segment, column, row.
pub(crate) type ColumnRow = (SegmentId, u8, u32);

/// Checksum blocks read from media, least recently used out first. Bounds what a shard keeps to 4 MiB: each entry of
/// 4 KiB vouches for 2 MiB of data.
pub(crate) struct ChecksumCache {
    entries: BTreeMap<ColumnRow, (u64, Rc<ColumnSums>)>,
    by_use: BTreeMap<u64, ColumnRow>,
    clock: u64,
}

const CACHED_CHECKSUM_BLOCKS: usize = 1024;

impl ChecksumCache {
    pub(crate) fn new() -> ChecksumCache {
        ChecksumCache { entries: BTreeMap::new(), by_use: BTreeMap::new(), clock: 0 }
    }
    pub(crate) fn get(&mut self, key: ColumnRow) -> Option<Rc<ColumnSums>> {
        let (used, sums) = self.entries.get_mut(&key)?;
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, key);
        Some(sums.clone())
    }
    pub(crate) fn insert(&mut self, key: ColumnRow, sums: Rc<ColumnSums>) {
        self.clock += 1;
        if let Some((used, _)) = self.entries.insert(key, (self.clock, sums)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.clock, key);
        if self.entries.len() > CACHED_CHECKSUM_BLOCKS
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
    pub(crate) fn forget_segment(&mut self, segment: SegmentId) {
        let gone: Vec<ColumnRow> =
            self.entries.range((segment, 0, 0)..=(segment, u8::MAX, u32::MAX)).map(|(k, _)| *k).collect();
        for key in gone {
            if let Some((used, _)) = self.entries.remove(&key) {
                self.by_use.remove(&used);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn golden_tags() {
        let tags = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (u64::MAX, 5, 511)]
            .map(|(s, c, b)| identity_tag(SegmentId(s), c, b));
        assert_eq!(tags, GOLDEN_TAGS);
    }
    const GOLDEN_TAGS: [u32; 5] = [1784185, 1137630809, 4080473520, 1720900925, 92009574];

    fn sample() -> RowSums {
        let mut sums = RowSums::new(3);
        let crcs: Vec<u32> = (0..6).map(|i| 0x1111_1111 * (i + 1)).collect();
        sums.set_stripe(63, 2, &crcs);
        sums.set_stripe(510, 1, &[7, 8, 9]);
        sums
    }

    #[test]
    fn golden_checksum_block() {
        let block = sample().encode_block(SegmentId(0x0102_0304), 1, 2);
        assert_eq!(crc32c(&block), GOLDEN_BLOCK_CRC);
        assert_eq!(&block[63 * 8..63 * 8 + 4], &0x3333_3333u32.to_le_bytes());
        assert_eq!(&block[..63 * 8], &[0; 63 * 8][..]);
    }
    const GOLDEN_BLOCK_CRC: u32 = 981894508;

    #[test]
    fn a_checksum_block_is_good_for_its_own_place_only() {
        let sums = sample();
        let block = sums.encode_block(SegmentId(9), 1, 2);
        let read = decode_block(&block, SegmentId(9), 1, 2).expect("own place");
        for i in 0..ROW_DATA {
            assert_eq!(read.get(i), sums.get(1, i));
        }
        assert!(decode_block(&block, SegmentId(8), 1, 2).is_none());
        assert!(decode_block(&block, SegmentId(9), 2, 2).is_none());
        assert!(decode_block(&block, SegmentId(9), 1, 3).is_none());
        for at in [0, 63 * 8, 4087, 4088, 4095] {
            let mut bad = DmaBuf::from_slice(&block);
            bad[at] ^= 0x10;
            assert!(decode_block(&bad, SegmentId(9), 1, 2).is_none(), "flip at {at}");
        }
        assert!(decode_block(&block[1..], SegmentId(9), 1, 2).is_none());
    }

    #[test]
    fn rows_survive_a_checkpoint() {
        let sums = sample();
        let mut bytes = Vec::new();
        sums.encode(&mut bytes);
        let mut input = &bytes[..];
        assert_eq!(RowSums::decode(&mut input, 3).as_ref(), Some(&sums));
        assert!(input.is_empty());
        for cut in 0..bytes.len() {
            assert!(RowSums::decode(&mut &bytes[..cut], 3).is_none());
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = ChecksumCache::new();
        let sums = Rc::new(ColumnSums { crcs: Vec::new() });
        for row in 0..CACHED_CHECKSUM_BLOCKS as u32 + 50 {
            cache.insert((SegmentId(1), 0, row), sums.clone());
            assert!(cache.get((SegmentId(1), 0, 0)).is_some());
        }
        assert_eq!(cache.entries.len(), CACHED_CHECKSUM_BLOCKS);
        assert_eq!(cache.by_use.len(), CACHED_CHECKSUM_BLOCKS);
        assert!(cache.get((SegmentId(1), 0, 1)).is_none());
        cache.forget_segment(SegmentId(1));
        assert!(cache.entries.is_empty() && cache.by_use.is_empty());
    }
}
