//! Stripes: the record that names one, the cutting of pieces into blocks, and the write of k+m columns.

use super::checksum::{BLOCK, crc32c};
use super::footer::FooterEntry;
use super::layout::{Layout, UNIT_BLOCKS};
use super::segment::{Segment, Slot, Token};
use super::{Owner, Piece, Placed, Root};
use crate::planted::{self, Planted};
use crate::types::*;
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::buf::{DmaBuf, zeroes};
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::rc::Rc;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const VERSION: u8 = 1;

/// On media, followed by a CRC32C per block of every column, column by column.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawRecord {
    version: u8,
    height: u8,
    columns: u8,
    reserved: u8,
    /// Physical block, the same in every column.
    block: U32,
    segment: U64,
    /// Data blocks that hold something: the rest of the last row is padding.
    placed: U32,
}
const _: () = assert!(size_of::<RawRecord>() == 20);

/// The journal's word for a stripe: segment, first block, height, checksums of all k+m columns. Opaque to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeRecord {
    pub(crate) segment: SegmentId,
    pub(crate) block: u32,
    pub(crate) height: u32,
    pub(crate) columns: u32,
    pub(crate) placed: u32,
    /// `[column * height + i]`
    pub(crate) crcs: Vec<u32>,
    /// Keeps the segment while the stripe is written but not yet applied.
    pub(crate) token: Token,
}

impl StripeRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let raw = RawRecord {
            version: VERSION,
            height: self.height as u8,
            columns: self.columns as u8,
            reserved: 0,
            block: U32::new(self.block),
            segment: U64::new(self.segment.0),
            placed: U32::new(self.placed),
        };
        out.extend_from_slice(raw.as_bytes());
        for crc in &self.crcs {
            out.extend_from_slice(&crc.to_le_bytes());
        }
    }
    /// Consumes from the front of `input`; `None` when malformed.
    pub fn decode(input: &mut &[u8]) -> Option<StripeRecord> {
        let (raw, rest) = RawRecord::read_from_prefix(input).ok()?;
        let (height, columns) = (raw.height as u32, raw.columns as u32);
        let in_row = raw.block.get() % super::layout::ROW_BLOCKS;
        let sound = raw.version == VERSION
            && (1..=UNIT_BLOCKS).contains(&height)
            && (1..=basalt_erasure::MAX_COLUMNS as u32).contains(&columns)
            && in_row + height <= super::layout::ROW_DATA
            && raw.placed.get() <= height * columns;
        if !sound {
            return None;
        }
        let (crcs, rest) = rest.split_at_checked((height * columns) as usize * 4)?;
        *input = rest;
        Some(StripeRecord {
            segment: SegmentId(raw.segment.get()),
            block: raw.block.get(),
            height,
            columns,
            placed: raw.placed.get(),
            crcs: crcs.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
            token: Token::none(),
        })
    }
}

/// All blocks of a write in one row, wherever their bytes lie.
pub(crate) struct BlockList {
    /// Contiguous bytes and the index of their first block.
    parts: Vec<(usize, Bytes)>,
    /// First block and owner of every piece.
    pieces: Vec<(usize, Owner)>,
    blocks: usize,
}

impl BlockList {
    pub(crate) fn new(pieces: Vec<Piece>) -> Result<BlockList> {
        let mut list = BlockList { parts: Vec::new(), pieces: Vec::new(), blocks: 0 };
        for piece in pieces {
            list.pieces.push((list.blocks, piece.owner));
            for bytes in piece.data {
                if bytes.len() % BLOCK != 0 {
                    return Err(PoolError::Refused(format!(
                        "a stripe write of {} bytes is not whole blocks of {BLOCK}; pad it",
                        bytes.len()
                    )));
                }
                if !bytes.is_empty() {
                    let first = list.blocks;
                    list.blocks += bytes.len() / BLOCK;
                    list.parts.push((first, bytes));
                }
            }
        }
        Ok(list)
    }
    pub(crate) fn of_bytes(bytes: Bytes) -> BlockList {
        let blocks = bytes.len() / BLOCK;
        BlockList { parts: vec![(0, bytes)], pieces: Vec::new(), blocks }
    }
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }
    /// The bytes of blocks `first..first + count`, in order.
    fn slices(&self, first: usize, count: usize) -> Vec<Bytes> {
        let mut out = Vec::new();
        let end = first + count;
        let start = self.parts.partition_point(|(f, _)| *f <= first).saturating_sub(1);
        for (part_first, bytes) in &self.parts[start..] {
            let part_end = part_first + bytes.len() / BLOCK;
            let (from, to) = (first.max(*part_first), end.min(part_end));
            if *part_first >= end {
                break;
            }
            if from < to {
                out.push(bytes.slice((from - part_first) * BLOCK..(to - part_first) * BLOCK));
            }
        }
        out
    }

    /// Owners of a run of blocks, cut where one piece ends and the next begins: (piece, owner of the first block, blocks).
    pub(crate) fn owners(&self, first: usize, count: usize) -> Vec<(usize, Owner, usize)> {
        let mut out = Vec::new();
        let mut at = first;
        let mut piece = self.pieces.partition_point(|(f, _)| *f <= first).saturating_sub(1);
        while at < first + count && piece < self.pieces.len() {
            let (piece_first, owner) = self.pieces[piece];
            let piece_end = self.pieces.get(piece + 1).map_or(self.blocks, |p| p.0);
            let end = piece_end.min(first + count);
            if at < end {
                let offset = owner.offset + ((at - piece_first) * BLOCK) as u64;
                out.push((piece, Owner { inode: owner.inode, offset }, end - at));
                at = end;
            }
            piece += 1;
        }
        out
    }
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

/// Why a stripe was not written.
#[derive(Debug)]
pub(crate) enum StripeFailure {
    /// These drives failed; the caller takes them out and writes elsewhere.
    Members(Vec<(DriveIndex, String)>),
    /// Not a drive's fault: report it, take nothing out.
    Report(PoolError),
}

/// Blocks `first..first + count` of `list`, to be written at `slot`.
pub(crate) struct StripeJob {
    pub(crate) slot: Slot,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl StripeJob {
    fn segment(&self) -> &Rc<Segment> {
        &self.slot.segment
    }

    /// Runs of blocks of this stripe that lie together: (first block in the list, where).
    pub(crate) fn runs(&self) -> Vec<(usize, Placed)> {
        let height = self.slot.height as usize;
        let runs = (0..self.count).step_by(height).map(|done| {
            let at = BlockAddr {
                segment: self.segment().entry.id,
                column: (done / height) as u8,
                block: Layout::physical(self.slot.linear),
            };
            (self.first + done, Placed { at, blocks: height.min(self.count - done) as u32 })
        });
        runs.collect()
    }

    /// Computes parity and checksums, and writes all columns. Checksums are in the segment's open row when this returns.
    pub(crate) async fn write(
        &self,
        root: &dyn Root,
        list: &BlockList,
        durability: Durability,
    ) -> std::result::Result<StripeRecord, StripeFailure> {
        let segment = self.segment().clone();
        let (columns, record) = self.encode(list);
        segment.set_sums(&record);
        let block = record.block;
        let writes = segment.entry.members.iter().zip(columns).map(|(member, data)| {
            let channel = root.channel(member.drive);
            let offset = root.au_offset(member.au) + block as u64 * BLOCK as u64;
            async move {
                match channel {
                    Some(channel) => {
                        channel.write(offset, data, durability).await.map_err(|e| (member.drive, e))
                    }
                    None => Err((member.drive, BdevError::Gone { drive: format!("#{}", member.drive) })),
                }
            }
        });
        sort_failures(join_all(writes).await)?;
        Ok(record)
    }

    fn encode(&self, list: &BlockList) -> (Vec<Vec<Bytes>>, StripeRecord) {
        let segment = self.segment();
        let layout = segment.layout;
        let (k, m, height) = (layout.k as usize, layout.m as usize, self.slot.height as usize);
        let mut columns: Vec<Vec<Bytes>> = Vec::with_capacity(k + m);
        for column in 0..k {
            let done = (column * height).min(self.count);
            let here = height.min(self.count - done);
            let mut data = list.slices(self.first + done, here);
            if here < height {
                data.push(zeroes((height - here) * BLOCK));
            }
            columns.push(data);
        }
        // Encoding runs block by block, so that data is read where it lies and a codeword's blocks stay in cache.
        let blocks: Vec<Vec<&[u8]>> =
            columns.iter().map(|c| c.iter().flat_map(|b| b.chunks_exact(BLOCK)).collect()).collect();
        let mut crcs = Vec::with_capacity((k + m) * height);
        crcs.extend(blocks.iter().flatten().map(|b| crc32c(b)));
        let mut parity: Vec<DmaBuf> = (0..m).map(|_| DmaBuf::new(height * BLOCK)).collect();
        if m > 0 {
            let mut data: Vec<&[u8]> = vec![&[]; k];
            for row in 0..height {
                for (to, column) in data.iter_mut().zip(&blocks) {
                    *to = column[row];
                }
                let mut out: Vec<&mut [u8]> =
                    parity.iter_mut().map(|p| &mut p[row * BLOCK..(row + 1) * BLOCK]).collect();
                segment.codec.encode(&data, &mut out);
            }
        }
        drop(blocks);
        for p in parity {
            crcs.extend(p.chunks_exact(BLOCK).map(crc32c));
            columns.push(vec![p.freeze()]);
        }
        let record = StripeRecord {
            segment: segment.entry.id,
            block: Layout::physical(self.slot.linear),
            height: self.slot.height,
            columns: layout.columns(),
            placed: self.count as u32,
            crcs,
            token: Token::none(),
        };
        (columns, record)
    }

    pub(crate) fn footer_entries(&self, list: &BlockList) -> Vec<FooterEntry> {
        let mut out = Vec::new();
        for (first, placed) in self.runs() {
            let mut block = placed.at.block;
            for (_, owner, blocks) in list.owners(first, placed.blocks as usize) {
                let column = placed.at.column;
                let Owner { inode, offset } = owner;
                out.push(FooterEntry { inode, offset, column, block, blocks: blocks as u16 });
                block += blocks as u32;
            }
        }
        out
    }
}

/// All well, or who failed and whether it is the drives' fault.
fn sort_failures(
    results: Vec<std::result::Result<(), (DriveIndex, BdevError)>>,
) -> std::result::Result<(), StripeFailure> {
    let failed: Vec<(DriveIndex, BdevError)> = results.into_iter().filter_map(|r| r.err()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    if let Some((_, e)) = failed.iter().find(|(_, e)| !is_drive_failure(e)) {
        // A full host loses nothing and the drive is sound: the write may be tried again once there is space.
        return Err(StripeFailure::Report(e.clone().into()));
    }
    Err(StripeFailure::Members(failed.into_iter().map(|(d, e)| (d, e.to_string())).collect()))
}

/// Whether an error of a write means that the drive is to be taken out.
pub(crate) fn is_drive_failure(e: &BdevError) -> bool {
    match e {
        BdevError::Io { .. }
        | BdevError::Unreadable { .. }
        | BdevError::Gone { .. }
        | BdevError::Open { .. } => true,
        BdevError::HostFull { .. } | BdevError::OutOfRange { .. } | BdevError::Unsupported { .. } => false,
    }
}

/// Makes cached writes durable: one flush per drive with a volatile cache.
pub(crate) async fn flush(
    root: &dyn Root,
    drives: impl IntoIterator<Item = DriveIndex>,
) -> std::result::Result<(), StripeFailure> {
    if planted::is(Planted::SkippedFlush) {
        return Ok(());
    }
    let flushes = drives.into_iter().map(|drive| {
        let channel = root.channel(drive);
        async move {
            match channel {
                Some(c) if !c.info().volatile_cache => Ok(()),
                Some(c) => c.flush().await.map_err(|e| (drive, e)),
                None => Err((drive, BdevError::Gone { drive: format!("#{drive}") })),
            }
        }
    });
    sort_failures(join_all(flushes).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> StripeRecord {
        StripeRecord {
            segment: SegmentId(0x0102),
            block: 0x0200,
            height: 2,
            columns: 3,
            placed: 3,
            crcs: vec![1, 2, 3, 4, 5, 0xffff_ffff],
            token: Token::none(),
        }
    }

    #[test]
    fn golden_stripe_record() {
        let mut out = Vec::new();
        sample().encode(&mut out);
        let expect = [
            &[1, 2, 3, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0][..],
            &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(out, expect);
        let mut input = &out[..];
        assert_eq!(StripeRecord::decode(&mut input), Some(sample()));
        assert!(input.is_empty());
        for cut in 0..out.len() {
            assert_eq!(StripeRecord::decode(&mut &out[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = &bytes[..];
            if let Some(r) = StripeRecord::decode(&mut input) {
                let mut out = Vec::new();
                r.encode(&mut out);
                prop_assert_eq!(out.len() + input.len(), bytes.len());
            }
        }

        #[test]
        fn lists_cut_pieces_into_blocks(
            pieces in prop::collection::vec(prop::collection::vec(0usize..5, 0..4), 1..6),
            first in any::<prop::sample::Index>(),
            count in any::<prop::sample::Index>(),
        ) {
            let mut flat = Vec::new();
            let mut owners = Vec::new();
            let mut input = Vec::new();
            for (i, parts) in pieces.iter().enumerate() {
                let mut offset = 0;
                let data = parts.iter().map(|blocks| {
                    let bytes: Vec<u8> = (0..*blocks).flat_map(|_| {
                        owners.push((i, offset));
                        offset += 4096;
                        let n = owners.len() as u8;
                        vec![n; 4096]
                    }).collect();
                    flat.extend_from_slice(&bytes);
                    Bytes::from(bytes)
                }).collect();
                input.push(Piece { owner: Owner { inode: i as u64, offset: 0 }, data });
            }
            let list = BlockList::new(input).expect("whole blocks");
            prop_assert_eq!(list.blocks(), owners.len());
            if owners.is_empty() {
                return Ok(());
            }
            let first = first.index(owners.len());
            let count = 1 + count.index(owners.len() - first);
            prop_assert_eq!(list.slices(first, count).concat(), &flat[first * 4096..(first + count) * 4096]);
            let mut at = first;
            for (piece, owner, blocks) in list.owners(first, count) {
                for i in 0..blocks {
                    prop_assert_eq!((piece, owner.offset + i as u64 * 4096), owners[at]);
                    prop_assert_eq!(owner.inode, piece as u64);
                    at += 1;
                }
            }
            prop_assert_eq!(at, first + count);
        }
    }
}
