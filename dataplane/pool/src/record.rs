//! Records of the root log: every change of the root's state is one of these, and a checkpoint is the list of records
//! that makes the state out of nothing. One codec for both.
//!
//! On media: kind (u8), body length (u32), body; integers little-endian, byte strings with a u32 length before them.

use crate::types::*;

/// Longest key of the key-value area.
pub const MAX_META_KEY_BYTES: usize = 1024;
/// Longest value of the key-value area.
pub const MAX_META_VALUE_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// First of every checkpoint.
    Pool {
        uuid: Uuid,
        name: String,
        scheme: Scheme,
        geometry: Geometry,
        ready: bool,
    },
    DriveAdded {
        index: DriveIndex,
        uuid: Uuid,
        domain: String,
        size_bytes: u64,
        au_count: u32,
        journal_slots: u32,
    },
    /// `since` is the root sequence of this record: nothing that the drive holds counts from then on.
    DriveOut {
        index: DriveIndex,
        since: u64,
        cause: String,
    },
    /// While `previous` is not empty a change needs a quorum of both sets.
    RootSet {
        generation: u64,
        members: Vec<DriveIndex>,
        previous: Vec<DriveIndex>,
    },
    ShardCreated {
        id: ShardId,
    },
    /// A new owner; open segments of the shard are sealed by it.
    ShardEpoch {
        id: ShardId,
        epoch: Epoch,
    },
    /// Takes its segments and chunks along.
    ShardDestroyed {
        id: ShardId,
    },
    SegmentGranted(SegmentEntry),
    SegmentSealed {
        id: SegmentId,
    },
    SegmentsFreed {
        ids: Vec<SegmentId>,
    },
    ChunkGranted(ChunkEntry),
    ChunkFreed {
        id: ChunkId,
    },
    MetaSet {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    MetaDeleted {
        key: Vec<u8>,
    },
    /// Only in checkpoints: the ids that come next, since those of what is gone are not used again.
    NextIds {
        segment: u64,
        shard: u32,
        chunk: u64,
    },
}

pub(crate) const HEADER_BYTES: usize = 5;

struct Writer<'a>(&'a mut Vec<u8>);
impl Writer<'_> {
    fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.0.extend_from_slice(v);
    }
    fn drives(&mut self, v: &[DriveIndex]) {
        self.u16(v.len() as u16);
        v.iter().for_each(|d| self.u16(d.0));
    }
}

struct Reader<'a>(&'a [u8]);
impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.u32()? as usize;
        self.take(len).map(<[u8]>::to_vec)
    }
    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }
    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid)
    }
    fn drives(&mut self) -> Option<Vec<DriveIndex>> {
        let len = self.u16()?;
        (0..len).map(|_| self.u16().map(DriveIndex)).collect()
    }
}

fn flag(v: u8) -> Option<bool> {
    match v {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Pool { .. } => 1,
            Record::DriveAdded { .. } => 2,
            Record::DriveOut { .. } => 3,
            Record::RootSet { .. } => 4,
            Record::ShardCreated { .. } => 5,
            Record::ShardEpoch { .. } => 6,
            Record::ShardDestroyed { .. } => 7,
            Record::SegmentGranted(_) => 8,
            Record::SegmentSealed { .. } => 9,
            Record::SegmentsFreed { .. } => 10,
            Record::ChunkGranted(_) => 11,
            Record::ChunkFreed { .. } => 12,
            Record::MetaSet { .. } => 13,
            Record::MetaDeleted { .. } => 14,
            Record::NextIds { .. } => 15,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut w = Writer(out);
        match self {
            Record::Pool { uuid, name, scheme, geometry, ready } => {
                w.0.extend_from_slice(&uuid.0);
                w.bytes(name.as_bytes());
                w.u8(scheme.k);
                w.u8(scheme.m);
                w.u64(geometry.au_bytes);
                w.u64(geometry.chunk_bytes);
                w.u8(*ready as u8);
            }
            Record::DriveAdded { index, uuid, domain, size_bytes, au_count, journal_slots } => {
                w.u16(index.0);
                w.0.extend_from_slice(&uuid.0);
                w.bytes(domain.as_bytes());
                w.u64(*size_bytes);
                w.u32(*au_count);
                w.u32(*journal_slots);
            }
            Record::DriveOut { index, since, cause } => {
                w.u16(index.0);
                w.u64(*since);
                w.bytes(cause.as_bytes());
            }
            Record::RootSet { generation, members, previous } => {
                w.u64(*generation);
                w.drives(members);
                w.drives(previous);
            }
            Record::ShardCreated { id } => w.u32(id.0),
            Record::ShardEpoch { id, epoch } => {
                w.u32(id.0);
                w.u64(epoch.0);
            }
            Record::ShardDestroyed { id } => w.u32(id.0),
            Record::SegmentGranted(s) => {
                w.u64(s.id.0);
                w.u32(s.shard.0);
                w.u64(s.epoch.0);
                w.u8(s.scheme.k);
                w.u8(s.scheme.m);
                w.u8(match s.class {
                    Class::Data => 0,
                    Class::Meta => 1,
                });
                w.u8(match s.state {
                    SegmentState::Open => 0,
                    SegmentState::Sealed => 1,
                });
                w.u8(s.code);
                w.u32(s.key_id);
                w.u8(s.members.len() as u8);
                for member in &s.members {
                    w.u16(member.drive.0);
                    w.u32(member.au);
                }
            }
            Record::SegmentSealed { id } => w.u64(id.0),
            Record::SegmentsFreed { ids } => {
                w.u32(ids.len() as u32);
                ids.iter().for_each(|id| w.u64(id.0));
            }
            Record::ChunkGranted(c) => {
                w.u64(c.id.0);
                w.u32(c.shard.0);
                w.u8(c.members.len() as u8);
                for (drive, slot) in &c.members {
                    w.u16(drive.0);
                    w.u32(*slot);
                }
            }
            Record::ChunkFreed { id } => w.u64(id.0),
            Record::MetaSet { key, value } => {
                w.bytes(key);
                w.bytes(value);
            }
            Record::MetaDeleted { key } => w.bytes(key),
            Record::NextIds { segment, shard, chunk } => {
                w.u64(*segment);
                w.u32(*shard);
                w.u64(*chunk);
            }
        }
        let len = (out.len() - len_at - 4) as u32;
        out[len_at..len_at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Takes one record off the front of `input`; `None` when malformed or of an unknown kind.
    pub(crate) fn decode(input: &mut &[u8]) -> Option<Record> {
        let mut r = Reader(input);
        let kind = r.u8()?;
        let len = r.u32()? as usize;
        let body = r.take(len)?;
        let rest = r.0;
        let mut r = Reader(body);
        let record = match kind {
            1 => Record::Pool {
                uuid: r.uuid()?,
                name: r.string()?,
                scheme: Scheme { k: r.u8()?, m: r.u8()? },
                geometry: Geometry { au_bytes: r.u64()?, chunk_bytes: r.u64()? },
                ready: flag(r.u8()?)?,
            },
            2 => Record::DriveAdded {
                index: DriveIndex(r.u16()?),
                uuid: r.uuid()?,
                domain: r.string()?,
                size_bytes: r.u64()?,
                au_count: r.u32()?,
                journal_slots: r.u32()?,
            },
            3 => Record::DriveOut { index: DriveIndex(r.u16()?), since: r.u64()?, cause: r.string()? },
            4 => Record::RootSet { generation: r.u64()?, members: r.drives()?, previous: r.drives()? },
            5 => Record::ShardCreated { id: ShardId(r.u32()?) },
            6 => Record::ShardEpoch { id: ShardId(r.u32()?), epoch: Epoch(r.u64()?) },
            7 => Record::ShardDestroyed { id: ShardId(r.u32()?) },
            8 => Record::SegmentGranted(decode_segment(&mut r)?),
            9 => Record::SegmentSealed { id: SegmentId(r.u64()?) },
            10 => {
                let count = r.u32()?;
                let ids: Option<_> = (0..count).map(|_| r.u64().map(SegmentId)).collect();
                Record::SegmentsFreed { ids: ids? }
            }
            11 => {
                let (id, shard, count) = (ChunkId(r.u64()?), ShardId(r.u32()?), r.u8()?);
                let members: Option<_> = (0..count).map(|_| Some((DriveIndex(r.u16()?), r.u32()?))).collect();
                Record::ChunkGranted(ChunkEntry { id, shard, members: members? })
            }
            12 => Record::ChunkFreed { id: ChunkId(r.u64()?) },
            13 => Record::MetaSet { key: r.bytes()?, value: r.bytes()? },
            14 => Record::MetaDeleted { key: r.bytes()? },
            15 => Record::NextIds { segment: r.u64()?, shard: r.u32()?, chunk: r.u64()? },
            _ => return None,
        };
        if !r.0.is_empty() {
            return None;
        }
        *input = rest;
        Some(record)
    }

    pub(crate) fn decode_all(mut input: &[u8]) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        while !input.is_empty() {
            records.push(Record::decode(&mut input)?);
        }
        Some(records)
    }
}

fn decode_segment(r: &mut Reader<'_>) -> Option<SegmentEntry> {
    Some(SegmentEntry {
        id: SegmentId(r.u64()?),
        shard: ShardId(r.u32()?),
        epoch: Epoch(r.u64()?),
        scheme: Scheme { k: r.u8()?, m: r.u8()? },
        class: match r.u8()? {
            0 => Class::Data,
            1 => Class::Meta,
            _ => return None,
        },
        state: match r.u8()? {
            0 => SegmentState::Open,
            1 => SegmentState::Sealed,
            _ => return None,
        },
        code: r.u8()?,
        key_id: r.u32()?,
        members: {
            let count = r.u8()?;
            let members: Option<_> =
                (0..count).map(|_| Some(AuRef { drive: DriveIndex(r.u16()?), au: r.u32()? })).collect();
            members?
        },
    })
}
