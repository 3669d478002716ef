//! Extents on media, and what is done to them inside a transaction.

use super::{Extent, PAGE_BYTES};
use crate::index::{Stop, Txn, TxnResult};
use crate::keys::{ino_key, ino_u64_key, prefix_end, tag};
use crate::vfs::{FsError, Ino};
use basalt_pool::store::Placed;
use basalt_pool::{BlockAddr, SegmentId};
use bytes::Bytes;
use std::cell::Cell;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const VERSION: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OnMedia {
    version: u8,
    codec: u8,
    byte: U16,
    key_id: U32,
    len: U64,
    stored_len: U64,
    segment: U64,
    block: U32,
    column: u8,
    /// Incompatible features that this extent uses: none are defined, so anything but 0 is not understood.
    flags: u8,
    reserved: [u8; 10],
}
const _: () = assert!(size_of::<OnMedia>() == 48);

impl Extent {
    pub(crate) fn encode(&self) -> Vec<u8> {
        OnMedia {
            version: VERSION,
            codec: self.codec,
            byte: self.byte.into(),
            key_id: self.key_id.into(),
            len: self.len.into(),
            stored_len: self.stored_len.into(),
            segment: self.at.segment.0.into(),
            block: self.at.block.into(),
            column: self.at.column,
            flags: 0,
            reserved: [0; 10],
        }
        .as_bytes()
        .to_vec()
    }
    /// `None` when the bytes are not an extent that this code can use.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Extent> {
        let m = OnMedia::ref_from_bytes(bytes).ok()?;
        let len = m.len.get();
        let understood = m.version == VERSION
            && m.flags == 0
            && m.codec == 0
            && m.key_id.get() == 0
            && m.byte.get() == 0
            && len > 0
            && len.is_multiple_of(PAGE_BYTES)
            && len == m.stored_len.get();
        understood.then_some(Extent {
            len,
            at: BlockAddr { segment: SegmentId(m.segment.get()), column: m.column, block: m.block.get() },
            byte: 0,
            stored_len: len,
            codec: 0,
            key_id: 0,
        })
    }
    /// Plain blocks in a run.
    pub(super) fn plain(at: BlockAddr, blocks: u64) -> Extent {
        let len = blocks * PAGE_BYTES;
        Extent { len, at, byte: 0, stored_len: len, codec: 0, key_id: 0 }
    }
}

/// An extent with its place in the file, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) at: BlockAddr,
}
impl Run {
    /// Address of page `page`, which it covers.
    pub(super) fn addr(&self, page: u64) -> BlockAddr {
        BlockAddr { block: self.at.block + (page - self.first) as u32, ..self.at }
    }
}

fn key_number(key: &[u8]) -> Result<u64, Stop> {
    key.get(9..17).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or(Stop::Fs(FsError::Io))
}

/// Entries looked at by one scan.
const SCAN: usize = 64;

/// Up to `limit` extents that overlap pages `first..end`, in order.
pub(super) fn extents(
    txn: &mut Txn<'_>,
    ino: Ino,
    first: u64,
    end: u64,
    limit: usize,
) -> TxnResult<Vec<Run>> {
    let mut found = Vec::new();
    let to = prefix_end(&ino_key(tag::EXTENT, ino));
    let mut from = first;
    while from < end && found.len() < limit {
        // Keyed by end: the first key behind `from` is the extent that covers it, or the next one.
        let key = ino_u64_key(tag::EXTENT, ino, from * PAGE_BYTES + 1);
        let batch = SCAN.min(limit - found.len()).min((end - from).saturating_add(1) as usize);
        let entries = txn.scan(&key, &to, batch)?;
        let short = entries.len() < batch;
        for (key, value) in entries {
            let run_end = key_number(&key)? / PAGE_BYTES;
            let extent = Extent::decode(&value).ok_or(FsError::Io)?;
            let run_first = run_end.checked_sub(extent.len / PAGE_BYTES).ok_or(FsError::Io)?;
            if run_first >= end {
                return Ok(found);
            }
            found.push(Run { first: run_first, end: run_end, at: extent.at });
            from = run_end;
        }
        if short {
            break;
        }
    }
    Ok(found)
}

/// Up to `limit` journalled pages of `first..end`, in order.
pub(super) fn pages(
    txn: &mut Txn<'_>,
    ino: Ino,
    first: u64,
    end: u64,
    limit: usize,
) -> TxnResult<Vec<(u64, Bytes)>> {
    let entries = txn.scan(&ino_u64_key(tag::PAGE, ino, first), &ino_u64_key(tag::PAGE, ino, end), limit)?;
    entries.into_iter().map(|(k, v)| Ok((key_number(&k)?, v))).collect()
}

/// Removes what is stored for pages `first..end`: PAGE keys, and extents or the parts of them. Returns how many blocks
/// the file refers to less. The caller bounds the number of entries in the range.
pub(super) fn clear(txn: &mut Txn<'_>, ino: Ino, first: u64, end: u64) -> TxnResult<u64> {
    let mut freed = 0;
    for (page, _) in pages(txn, ino, first, end, usize::MAX)? {
        txn.delete(ino_u64_key(tag::PAGE, ino, page));
        freed += 1;
    }
    for run in extents(txn, ino, first, end, usize::MAX)? {
        let (cut_first, cut_end) = (run.first.max(first), run.end.min(end));
        if run.end <= end {
            txn.delete(ino_u64_key(tag::EXTENT, ino, run.end * PAGE_BYTES));
        } else {
            put(txn, ino, end, run.end, run.addr(end));
        }
        if run.first < first {
            put(txn, ino, run.first, first, run.at);
        }
        txn.dead(run.addr(cut_first), (cut_end - cut_first) as u32);
        freed += cut_end - cut_first;
    }
    Ok(freed)
}

/// Stores the extent of pages `first..end`, which have nothing stored.
pub(super) fn put(txn: &mut Txn<'_>, ino: Ino, first: u64, end: u64, at: BlockAddr) {
    txn.put(ino_u64_key(tag::EXTENT, ino, end * PAGE_BYTES), Extent::plain(at, end - first).encode());
}
/// Stores the runs that hold the pages from `first` on.
pub(super) fn put_placed(txn: &mut Txn<'_>, ino: Ino, mut first: u64, placed: &[Placed]) {
    for p in placed {
        let end = first + p.blocks as u64;
        put(txn, ino, first, end, p.at);
        first = end;
    }
}
/// Stores a page in the journal; trailing zeroes are cut.
pub(super) fn put_page(txn: &mut Txn<'_>, ino: Ino, page: u64, content: &[u8]) {
    let len = content.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    txn.put(ino_u64_key(tag::PAGE, ino, page), content[..len].to_vec());
}

/// Entries that one transaction removes when a file shrinks or goes: about 64 KiB of journal record.
pub(super) const SLICE_ENTRIES: usize = 640;
/// Pages that hold no more than [`SLICE_ENTRIES`] entries however fragmented they are.
const SLICE_PAGES_MIN: u64 = 512;
/// First guess at the width of a slice.
pub(super) const SLICE_PAGES: u64 = 16384;

/// Clears from page `top` downwards, not below `low`, as much as one transaction may. Returns the page it came down to
/// and the blocks freed. `width` carries the width of a slice from one call to the next: wide where a file is sparse.
pub(super) fn clear_from_end(
    txn: &mut Txn<'_>,
    ino: Ino,
    low: u64,
    mut top: u64,
    width: &Cell<u64>,
) -> TxnResult<(u64, u64)> {
    let mut budget = SLICE_ENTRIES;
    let mut freed = 0;
    while top > low {
        let cut = low.max(top.saturating_sub(width.get()));
        let mut n = extents(txn, ino, cut, top, budget + 1)?.len();
        if n <= budget {
            n += pages(txn, ino, cut, top, budget + 1)?.len();
        }
        if n > budget {
            if budget < SLICE_ENTRIES {
                break;
            }
            width.set((width.get() / 2).max(SLICE_PAGES_MIN));
            continue;
        }
        freed += clear(txn, ino, cut, top)?;
        top = cut;
        budget -= n;
        if n < SLICE_ENTRIES / 4 {
            width.set(width.get().saturating_mul(2));
        }
    }
    Ok((top, freed))
}

/// See [`super::Data::delete_slice`].
pub(super) fn delete_slice(txn: &mut Txn<'_>, ino: Ino) -> TxnResult<bool> {
    const EACH: usize = 256;
    let pages = pages(txn, ino, 0, u64::MAX, EACH)?;
    let runs = extents(txn, ino, 0, u64::MAX / PAGE_BYTES, EACH)?;
    let done = pages.len() < EACH && runs.len() < EACH;
    for (page, _) in pages {
        txn.delete(ino_u64_key(tag::PAGE, ino, page));
    }
    for run in runs {
        txn.delete(ino_u64_key(tag::EXTENT, ino, run.end * PAGE_BYTES));
        txn.dead(run.at, (run.end - run.first) as u32);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let at = BlockAddr { segment: SegmentId(0x0102030405060708), column: 9, block: 0x0a0b0c0d };
        let bytes = Extent::plain(at, 3).encode();
        let mut expect = vec![1, 0, 0, 0, 0, 0, 0, 0];
        expect.extend([0, 0x30, 0, 0, 0, 0, 0, 0]);
        expect.extend([0, 0x30, 0, 0, 0, 0, 0, 0]);
        expect.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        expect.extend([0x0d, 0x0c, 0x0b, 0x0a, 9, 0]);
        expect.extend([0; 10]);
        assert_eq!(bytes, expect);
        assert_eq!(Extent::decode(&bytes), Some(Extent::plain(at, 3)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = Extent::plain(BlockAddr { segment: SegmentId(1), column: 0, block: 1 }, 1).encode();
        for i in [0, 1, 2, 4, 8, 16, 37] {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(Extent::decode(&bad), None, "byte {i}");
        }
        assert_eq!(Extent::decode(&good[..47]), None);
    }
}
