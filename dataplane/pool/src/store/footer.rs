//! Segment footer: whose bytes each run of blocks is. Written as the last stripes of a segment that fills up; reclaim and
//! salvage read it, nothing else does. A segment sealed early (a drive failed, the owner changed) has none.
//!
//! The footer is one byte string, a header and then entries, laid out over the footer's blocks in the order of
//! [`super::stripe`]: full-height stripes, each filled column by column. The header is therefore the first block of
//! column 0 at the fixed place where data ends.

use super::checksum::crc32c;
use crate::types::SegmentId;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 8] = *b"BSLTSEGF";
const VERSION: u16 = 1;
pub(crate) const ENTRY_BYTES: usize = 24;
const HEADER_BYTES: usize = 64;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    header_bytes: U16,
    entry_bytes: U16,
    columns: u8,
    data_columns: u8,
    segment: U64,
    entries: U32,
    entries_crc: U32,
    reserved: [u8; 28],
    header_crc: U32,
}
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    inode: U64,
    offset: U64,
    /// Bits 0..24: low bits of the block; 24..32: column.
    place: U32,
    /// Bits 0..16: blocks of the run; 16..32: high bits of the block.
    blocks: U32,
}
const _: () = assert!(size_of::<RawEntry>() == ENTRY_BYTES);

/// A run never leaves its row, so its length needs 9 bits.
fn pack(e: &FooterEntry) -> RawEntry {
    RawEntry {
        inode: U64::new(e.inode),
        offset: U64::new(e.offset),
        place: U32::new((e.column as u32) << 24 | e.block & 0x00ff_ffff),
        blocks: U32::new((e.block >> 24) << 16 | e.blocks as u32),
    }
}

/// Whose bytes a run of blocks of one column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FooterEntry {
    pub inode: u64,
    pub offset: u64,
    pub column: u8,
    pub block: u32,
    pub blocks: u16,
}

pub(crate) fn encoded_bytes(entries: usize) -> usize {
    HEADER_BYTES + entries * ENTRY_BYTES
}

pub(crate) fn encode(segment: SegmentId, k: u8, columns: u8, entries: &[FooterEntry]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for e in entries {
        out.extend_from_slice(pack(e).as_bytes());
    }
    let mut header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        header_bytes: U16::new(HEADER_BYTES as u16),
        entry_bytes: U16::new(ENTRY_BYTES as u16),
        columns,
        data_columns: k,
        segment: U64::new(segment.0),
        entries: U32::new(entries.len() as u32),
        entries_crc: U32::new(crc32c(&out[HEADER_BYTES..])),
        reserved: [0; 28],
        header_crc: U32::new(0),
    };
    header.header_crc.set(crc32c(&header.as_bytes()[..HEADER_BYTES - 4]));
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    out
}

/// Bytes of the whole footer, from its first block. `None`: there is no footer of this segment here.
pub(crate) fn total_bytes(first_block: &[u8], segment: SegmentId) -> Option<usize> {
    Some(encoded_bytes(header(first_block, segment)?.entries.get() as usize))
}

fn header(bytes: &[u8], segment: SegmentId) -> Option<Header> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let sound = header.magic == MAGIC
        && header.header_crc.get() == crc32c(&header.as_bytes()[..HEADER_BYTES - 4])
        && header.version.get() == VERSION
        && header.header_bytes.get() as usize == HEADER_BYTES
        && header.entry_bytes.get() as usize == ENTRY_BYTES
        && header.segment.get() == segment.0;
    sound.then_some(header)
}

pub(crate) fn decode(bytes: &[u8], segment: SegmentId) -> Option<Vec<FooterEntry>> {
    let header = header(bytes, segment)?;
    let count = header.entries.get() as usize;
    let raw = bytes.get(HEADER_BYTES..)?.get(..count.checked_mul(ENTRY_BYTES)?)?;
    if crc32c(raw) != header.entries_crc.get() {
        return None;
    }
    let entries = <[RawEntry]>::ref_from_bytes(raw).ok()?;
    Some(
        entries
            .iter()
            .map(|e| FooterEntry {
                inode: e.inode.get(),
                offset: e.offset.get(),
                column: (e.place.get() >> 24) as u8,
                block: e.place.get() & 0x00ff_ffff | e.blocks.get() >> 16 << 24,
                blocks: e.blocks.get() as u16,
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_footer() {
        let entries = [
            FooterEntry { inode: 0x0102, offset: 0x1000, column: 3, block: 0x0a0b, blocks: 32 },
            FooterEntry { inode: 0, offset: 0, column: 0, block: 0x0312_3456, blocks: 511 },
        ];
        let bytes = encode(SegmentId(0x77), 4, 6, &entries);
        assert_eq!(bytes.len(), 64 + 48);
        assert_eq!(
            &bytes[..32],
            &[
                b'B', b'S', b'L', b'T', b'S', b'E', b'G', b'F', 1, 0, 64, 0, 24, 0, 6, 4, 0x77, 0, 0, 0, 0,
                0, 0, 0, 2, 0, 0, 0, bytes[28], bytes[29], bytes[30], bytes[31]
            ]
        );
        assert_eq!(
            &bytes[64..88],
            &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 3, 32, 0, 0, 0]
        );
        assert_eq!(&bytes[104..], &[0x56, 0x34, 0x12, 0, 0xff, 1, 3, 0]);
        assert_eq!(crc32c(&bytes), 300232692);
    }

    proptest! {
        #[test]
        fn round_trip(raw in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u8>(), 0u32..1 << 26, 1u16..512), 0..200)) {
            let entries: Vec<_> = raw
                .into_iter()
                .map(|(inode, offset, column, block, blocks)| FooterEntry { inode, offset, column, block, blocks })
                .collect();
            let bytes = encode(SegmentId(5), 4, 6, &entries);
            prop_assert_eq!(bytes.len(), encoded_bytes(entries.len()));
            prop_assert_eq!(total_bytes(&bytes, SegmentId(5)), Some(bytes.len()));
            prop_assert_eq!(decode(&bytes, SegmentId(5)), Some(entries));
            prop_assert_eq!(decode(&bytes, SegmentId(6)), None);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, SegmentId(5));
            let _ = total_bytes(&bytes, SegmentId(5));
        }
    }
}
