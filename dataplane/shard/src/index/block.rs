//! Blocks of a sorted run, each a whole number of 4 KiB: data blocks hold entries, index blocks say where blocks are.
//!
//! A run is a tree of three levels: *top* (one block) -> *partitions* (an index of some data blocks, and the Bloom filter of their
//! keys) -> *data*. Numbers in entries are LEB128 varints, those in headers little-endian. The store checks checksums; here
//! are checked form and order.

use super::filter::Filter;
use basalt_pool::store::Placed;
use basalt_pool::{BlockAddr, Lsn, SegmentId};
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"BsRn";
const VERSION: u8 = 1;
const GRANULE_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 1,
    Partition = 2,
    Top = 3,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    /// Incompatible features: none are defined.
    features: U16,
    entries: U32,
    /// Bytes of entries, which follow the header.
    body_bytes: U32,
    /// Bytes of the filter, which follows the entries.
    filter_bytes: U32,
    reserved: U32,
    /// Newest record of any entry; entries store how far they are behind.
    newest_lsn: U64,
}
const _: () = assert!(size_of::<Header>() == 32);
const HEADER_BYTES: usize = size_of::<Header>();

pub(crate) enum Block {
    Data(DataBlock),
    Index(IndexBlock),
}
impl Block {
    /// `None` when the bytes are not a block of this kind in a form this code knows.
    pub(crate) fn decode(kind: Kind, bytes: Bytes) -> Option<Block> {
        Some(match kind {
            Kind::Data => Block::Data(DataBlock::decode(bytes)?),
            Kind::Partition | Kind::Top => Block::Index(IndexBlock::decode(kind, bytes)?),
        })
    }
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Block::Data(d) => d.bytes.len() + d.slots.len() * size_of::<Slot>(),
            Block::Index(i) => i.bytes.len() + i.entries.len() * (size_of::<Child>() + size_of::<Placed>()),
        }
    }
}

/// Header, body and filter, padded to whole granules.
fn assemble(kind: Kind, entries: usize, newest: Lsn, body: &[u8], filter: &[u8]) -> Bytes {
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        kind: kind as u8,
        features: 0.into(),
        entries: (entries as u32).into(),
        body_bytes: (body.len() as u32).into(),
        filter_bytes: (filter.len() as u32).into(),
        reserved: 0.into(),
        newest_lsn: newest.0.into(),
    };
    let used = HEADER_BYTES + body.len() + filter.len();
    let mut out = DmaBuf::zeroed(used.next_multiple_of(GRANULE_BYTES));
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    out[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
    out[HEADER_BYTES + body.len()..used].copy_from_slice(filter);
    out.freeze()
}
struct Parts {
    entries: usize,
    newest: Lsn,
    /// Ends of body and filter; the body begins after the header.
    body_end: usize,
    filter_end: usize,
}
fn parts(kind: Kind, bytes: &[u8]) -> Option<Parts> {
    let (h, rest) = Header::ref_from_prefix(bytes).ok()?;
    let known = h.magic == MAGIC && h.version == VERSION && h.kind == kind as u8 && h.features.get() == 0;
    let (body, filter) = (h.body_bytes.get() as usize, h.filter_bytes.get() as usize);
    // An entry has at least two bytes, so that `entries` bounds allocations by what was read.
    (known && body.checked_add(filter)? <= rest.len() && h.entries.get() as usize <= body / 2).then_some(
        Parts {
            entries: h.entries.get() as usize,
            newest: Lsn(h.newest_lsn.get()),
            body_end: HEADER_BYTES + body,
            filter_end: HEADER_BYTES + body + filter,
        },
    )
}

/// Collects entries of one data block, in key order.
#[derive(Default)]
pub(crate) struct DataBuilder {
    entries: Vec<(Bytes, Lsn, Option<Bytes>)>,
    bytes: usize,
}
impl DataBuilder {
    /// At most what an entry adds to the block.
    pub(crate) fn entry_bytes(key: &[u8], value: Option<&Bytes>) -> usize {
        3 + 5 + 10 + key.len() + value.map_or(0, Bytes::len)
    }
    pub(crate) fn push(&mut self, key: Bytes, lsn: Lsn, value: Option<Bytes>) {
        self.bytes += Self::entry_bytes(&key, value.as_ref());
        self.entries.push((key, lsn, value));
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// At most this many bytes.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.bytes
    }
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.iter().map(|(k, ..)| k)
    }
    pub(crate) fn encode(&self) -> Bytes {
        let newest = self.entries.iter().map(|(_, lsn, _)| *lsn).max().unwrap_or(Lsn(0));
        let mut body = Vec::with_capacity(self.bytes);
        for (key, lsn, value) in &self.entries {
            put_varint(&mut body, key.len() as u64);
            // 0: a tombstone; else the value's length and one.
            put_varint(&mut body, value.as_ref().map_or(0, |v| v.len() as u64 + 1));
            put_varint(&mut body, newest.0 - lsn.0);
            body.extend_from_slice(key);
            body.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        assemble(Kind::Data, self.entries.len(), newest, &body, &[])
    }
}

pub(crate) struct DataBlock {
    bytes: Bytes,
    slots: Vec<Slot>,
}
struct Slot {
    key: u32,
    value: u32,
    end: u32,
    tombstone: bool,
    lsn: Lsn,
}
impl DataBlock {
    fn decode(bytes: Bytes) -> Option<DataBlock> {
        let parts = parts(Kind::Data, &bytes)?;
        let mut at = HEADER_BYTES;
        let mut slots: Vec<Slot> = Vec::with_capacity(parts.entries);
        for _ in 0..parts.entries {
            let mut rest = &bytes[at..parts.body_end];
            let key_bytes = usize::try_from(varint(&mut rest)?).ok()?;
            let value_bytes = usize::try_from(varint(&mut rest)?).ok()?;
            let behind = varint(&mut rest)?;
            let key = parts.body_end - rest.len();
            let value = key.checked_add(key_bytes)?;
            let end = value.checked_add(value_bytes.saturating_sub(1))?;
            if end > parts.body_end {
                return None;
            }
            let ordered =
                slots.last().is_none_or(|s| bytes[s.key as usize..s.value as usize] < bytes[key..value]);
            if !ordered {
                return None;
            }
            slots.push(Slot {
                key: key as u32,
                value: value as u32,
                end: end as u32,
                tombstone: value_bytes == 0,
                lsn: Lsn(parts.newest.0.checked_sub(behind)?),
            });
            at = end;
        }
        (at == parts.body_end && !slots.is_empty()).then_some(DataBlock { bytes, slots })
    }
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
    pub(crate) fn key(&self, i: usize) -> &[u8] {
        &self.bytes[self.slots[i].key as usize..self.slots[i].value as usize]
    }
    pub(crate) fn key_bytes(&self, i: usize) -> Bytes {
        self.bytes.slice(self.slots[i].key as usize..self.slots[i].value as usize)
    }
    pub(crate) fn value(&self, i: usize) -> Option<Bytes> {
        let s = &self.slots[i];
        (!s.tombstone).then(|| self.bytes.slice(s.value as usize..s.end as usize))
    }
    pub(crate) fn lsn(&self, i: usize) -> Lsn {
        self.slots[i].lsn
    }
    /// First entry whose key is not below `key`; `len()` when there is none.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> usize {
        self.slots.partition_point(|s| &self.bytes[s.key as usize..s.value as usize] < key)
    }
}

/// What an index block says of one block below it.
pub(crate) struct Child {
    pub(crate) first_key: Bytes,
    pub(crate) at: Vec<Placed>,
}

pub(crate) struct IndexBlock {
    bytes: Bytes,
    entries: Vec<Child>,
    pub(crate) filter: Filter,
}
impl IndexBlock {
    pub(crate) fn encode(kind: Kind, children: &[Child], filter: &[u8]) -> Bytes {
        let mut body = Vec::new();
        for c in children {
            put_varint(&mut body, c.first_key.len() as u64);
            put_varint(&mut body, c.at.len() as u64);
            body.extend_from_slice(&c.first_key);
            for p in &c.at {
                put_varint(&mut body, p.at.segment.0);
                body.push(p.at.column);
                put_varint(&mut body, u64::from(p.at.block));
                put_varint(&mut body, u64::from(p.blocks));
            }
        }
        assemble(kind, children.len(), Lsn(0), &body, filter)
    }
    fn decode(kind: Kind, bytes: Bytes) -> Option<IndexBlock> {
        let parts = parts(kind, &bytes)?;
        let mut rest = &bytes[HEADER_BYTES..parts.body_end];
        let mut entries: Vec<Child> = Vec::with_capacity(parts.entries);
        for _ in 0..parts.entries {
            let key_bytes = usize::try_from(varint(&mut rest)?).ok()?;
            let places = varint(&mut rest)?;
            let key = parts.body_end - rest.len();
            rest = rest.get(key_bytes..)?;
            let first_key = bytes.slice(key..key + key_bytes);
            let mut at = Vec::new();
            for _ in 0..places {
                let segment = SegmentId(varint(&mut rest)?);
                let (&column, tail) = rest.split_first()?;
                rest = tail;
                let block = u32::try_from(varint(&mut rest)?).ok()?;
                let blocks = u32::try_from(varint(&mut rest)?).ok()?;
                at.push(Placed { at: BlockAddr { segment, column, block }, blocks });
            }
            if at.is_empty() || entries.last().is_some_and(|e| e.first_key >= first_key) {
                return None;
            }
            entries.push(Child { first_key, at });
        }
        let filter = Filter(bytes.slice(parts.body_end..parts.filter_end));
        (rest.is_empty() && !entries.is_empty()).then_some(IndexBlock { bytes, entries, filter })
    }
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
    pub(crate) fn at(&self, i: usize) -> &[Placed] {
        &self.entries[i].at
    }
    /// The child that would hold `key`; `None` when `key` is before the first.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        self.entries.partition_point(|e| e.first_key[..] <= *key).checked_sub(1)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(b & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if b < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn bytes(n: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..n)
    }
    type Entries = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;
    fn entries() -> impl Strategy<Value = Entries> {
        prop::collection::btree_map(bytes(40), (any::<u64>(), prop::option::of(bytes(300))), 1..60)
    }
    fn data(entries: &Entries) -> Bytes {
        let mut b = DataBuilder::default();
        for (k, (lsn, v)) in entries {
            b.push(k.clone().into(), Lsn(*lsn), v.clone().map(Bytes::from));
        }
        let out = b.encode();
        assert!(out.len() <= b.bytes().next_multiple_of(GRANULE_BYTES));
        out
    }
    fn child() -> impl Strategy<Value = Vec<(u64, u8, u32, u32)>> {
        prop::collection::vec(any::<(u64, u8, u32, u32)>(), 1..4)
    }

    proptest! {
        #[test]
        fn data_survives(entries in entries(), probe in bytes(40)) {
            let d = DataBlock::decode(data(&entries)).unwrap();
            let back: Entries =
                (0..d.len()).map(|i| (d.key(i).to_vec(), (d.lsn(i).0, d.value(i).map(|v| v.to_vec())))).collect();
            let at = d.lower_bound(&probe);
            prop_assert_eq!(entries.range(probe..).next().map(|(k, _)| &k[..]), (at < d.len()).then(|| d.key(at)));
            prop_assert_eq!(back, entries);
        }
        #[test]
        fn index_survives(
            children in prop::collection::btree_map(bytes(40), child(), 1..20), filter in bytes(50), probe in bytes(40)
        ) {
            let list: Vec<Child> = children.iter().map(|(k, at)| Child {
                first_key: k.clone().into(),
                at: at.iter().map(|&(s, column, block, blocks)| Placed {
                    at: BlockAddr { segment: SegmentId(s), column, block }, blocks,
                }).collect(),
            }).collect();
            let b = IndexBlock::decode(Kind::Partition, IndexBlock::encode(Kind::Partition, &list, &filter)).unwrap();
            prop_assert_eq!(&b.filter.0[..], &filter[..]);
            prop_assert_eq!(b.len(), list.len());
            for (i, c) in list.iter().enumerate() {
                prop_assert_eq!(b.at(i), &c.at[..]);
                prop_assert_eq!(b.find(&c.first_key), Some(i));
            }
            let below = children.range(..=probe.clone()).count().checked_sub(1);
            prop_assert_eq!(b.find(&probe), below);
        }
        #[test]
        fn damaged_blocks_are_refused_or_read(entries in entries(), at in 0usize..4096, to in any::<u8>()) {
            let mut b = data(&entries).to_vec();
            let at = at % b.len();
            b[at] = to;
            for kind in [Kind::Data, Kind::Partition, Kind::Top] {
                b[5] = kind as u8;
                let _ = Block::decode(kind, b.clone().into());
            }
        }
        #[test]
        fn random_bodies_are_refused_or_read(body in bytes(200), n in 0usize..50, filter in bytes(20)) {
            for kind in [Kind::Data, Kind::Partition] {
                let _ = Block::decode(kind, assemble(kind, n, Lsn(5), &body, &filter));
            }
            let _ = Block::decode(Kind::Data, body.into());
        }
        #[test]
        fn varints(n in any::<u64>()) {
            let mut b = Vec::new();
            put_varint(&mut b, n);
            prop_assert_eq!(varint(&mut &b[..]), Some(n));
            prop_assert_eq!(varint(&mut &b[..b.len() - 1]), None);
        }
    }

    /// The layout is on media: this test changes only together with `VERSION`.
    #[test]
    fn golden_bytes() {
        let mut b = DataBuilder::default();
        b.push(Bytes::from_static(b"a"), Lsn(0x1005), Some(Bytes::from_static(b"value")));
        b.push(Bytes::from_static(b"b"), Lsn(0x1000), None);
        let got = b.encode();
        let mut expect = b"BsRn\x01\x01\0\0\x02\0\0\0\x0d\0\0\0\0\0\0\0\0\0\0\0\x05\x10\0\0\0\0\0\0".to_vec();
        expect.extend(b"\x01\x06\0avalue\x01\0\x05b");
        assert_eq!(got[..expect.len()], expect);
        assert_eq!(got.len(), 4096);
        assert!(got[expect.len()..].iter().all(|b| *b == 0));

        let child = Child {
            first_key: Bytes::from_static(b"k"),
            at: vec![Placed { at: BlockAddr { segment: SegmentId(300), column: 2, block: 7 }, blocks: 4 }],
        };
        let got = IndexBlock::encode(Kind::Top, &[child], b"FF");
        let mut expect = b"BsRn\x01\x03\0\0\x01\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        expect.extend(b"\x01\x01k\xac\x02\x02\x07\x04FF");
        assert_eq!(got[..expect.len()], expect);
    }
}
