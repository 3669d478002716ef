//! The root's state in memory: what the records add up to, with the free units and slots that follow from it.
//!
//! `apply` is the only way to change it, and it checks every record against the state: a log that contradicts itself is
//! damage, not a panic.

use crate::record::Record;
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};

/// Free places (units or journal slots) of one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreeMap {
    /// A set bit is a place in use.
    words: Vec<u64>,
    count: u32,
    free: u32,
    /// No free place below this word.
    first_word: usize,
}

impl FreeMap {
    fn new(count: u32) -> FreeMap {
        let mut words = vec![0; (count as usize).div_ceil(64)];
        if !count.is_multiple_of(64) {
            // Beyond the end counts as used.
            *words.last_mut().unwrap() = !0 << (count % 64);
        }
        FreeMap { words, count, free: count, first_word: 0 }
    }
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
    pub(crate) fn free(&self) -> u32 {
        self.free
    }
    pub(crate) fn used(&self) -> u32 {
        self.count - self.free
    }
    /// The lowest free place: keeps sparse drives short.
    pub(crate) fn lowest_free(&self) -> Option<u32> {
        let (word, bits) = self.words.iter().enumerate().skip(self.first_word).find(|(_, w)| **w != !0)?;
        Some(word as u32 * 64 + bits.trailing_ones())
    }
    fn take(&mut self, place: u32) -> std::result::Result<(), &'static str> {
        let word = self.words.get_mut(place as usize / 64).ok_or("place beyond the drive")?;
        let bit = 1 << (place % 64);
        if *word & bit != 0 {
            return Err("place granted twice");
        }
        *word |= bit;
        self.free -= 1;
        while self.words.get(self.first_word) == Some(&!0) {
            self.first_word += 1;
        }
        Ok(())
    }
    fn give(&mut self, place: u32) {
        let word = place as usize / 64;
        self.words[word] &= !(1 << (place % 64));
        self.free += 1;
        self.first_word = self.first_word.min(word);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutSince {
    pub(crate) since: u64,
    pub(crate) cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DriveRecord {
    pub(crate) uuid: Uuid,
    pub(crate) domain: String,
    pub(crate) size_bytes: u64,
    pub(crate) out: Option<OutSince>,
    pub(crate) aus: FreeMap,
    pub(crate) slots: FreeMap,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardRecord {
    pub(crate) epoch: u64,
    pub(crate) segments: BTreeSet<SegmentId>,
    pub(crate) chunks: BTreeSet<ChunkId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolRecord {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) scheme: Scheme,
    pub(crate) geometry: Geometry,
    /// Creation ran to its end.
    pub(crate) ready: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootSet {
    pub(crate) generation: u64,
    pub(crate) members: Vec<DriveIndex>,
    pub(crate) previous: Vec<DriveIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootState {
    pub(crate) pool: PoolRecord,
    pub(crate) drives: BTreeMap<DriveIndex, DriveRecord>,
    pub(crate) root_set: RootSet,
    pub(crate) shards: BTreeMap<ShardId, ShardRecord>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentEntry>,
    pub(crate) chunks: BTreeMap<ChunkId, ChunkEntry>,
    pub(crate) meta: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) meta_bytes: usize,
    pub(crate) next_segment: u64,
    pub(crate) next_shard: u32,
    pub(crate) next_chunk: u64,
}

/// A record that does not fit the state it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction(pub(crate) &'static str);
impl From<&'static str> for Contradiction {
    fn from(why: &'static str) -> Self {
        Contradiction(why)
    }
}

pub(crate) const MAX_META_BYTES: usize = 16 << 20;

impl RootState {
    pub(crate) fn new(pool: PoolRecord) -> RootState {
        RootState {
            pool,
            drives: BTreeMap::new(),
            root_set: RootSet::default(),
            shards: BTreeMap::new(),
            segments: BTreeMap::new(),
            chunks: BTreeMap::new(),
            meta: BTreeMap::new(),
            meta_bytes: 0,
            next_segment: 1,
            next_shard: 1,
            next_chunk: 1,
        }
    }

    /// The state that a checkpoint's records make.
    pub(crate) fn from_records(records: &[Record]) -> std::result::Result<RootState, Contradiction> {
        let Some(Record::Pool { uuid, name, scheme, geometry, ready }) = records.first() else {
            return Err(Contradiction("the checkpoint does not begin with the pool"));
        };
        let pool = PoolRecord {
            uuid: *uuid,
            name: name.clone(),
            scheme: *scheme,
            geometry: *geometry,
            ready: *ready,
        };
        if pool.scheme.k == 0 || pool.scheme.width() > 64 {
            return Err(Contradiction("impossible scheme"));
        }
        let mut state = RootState::new(pool);
        records[1..].iter().try_for_each(|r| state.apply(r))?;
        Ok(state)
    }

    /// Records that make this state out of nothing, in an order that `apply` accepts.
    pub(crate) fn to_records(&self) -> Vec<Record> {
        let p = &self.pool;
        let mut out = vec![Record::Pool {
            uuid: p.uuid,
            name: p.name.clone(),
            scheme: p.scheme,
            geometry: p.geometry,
            ready: p.ready,
        }];
        for (&index, d) in &self.drives {
            out.push(Record::DriveAdded {
                index,
                uuid: d.uuid,
                domain: d.domain.clone(),
                size_bytes: d.size_bytes,
                au_count: d.aus.count(),
                journal_slots: d.slots.count(),
            });
            if let Some(o) = &d.out {
                out.push(Record::DriveOut { index, since: o.since, cause: o.cause.clone() });
            }
        }
        let r = &self.root_set;
        out.push(Record::RootSet {
            generation: r.generation,
            members: r.members.clone(),
            previous: r.previous.clone(),
        });
        for (&id, shard) in &self.shards {
            out.push(Record::ShardCreated { id });
            if shard.epoch != 0 {
                out.push(Record::ShardEpoch { id, epoch: Epoch(shard.epoch) });
            }
        }
        out.extend(self.segments.values().cloned().map(Record::SegmentGranted));
        out.extend(self.chunks.values().cloned().map(Record::ChunkGranted));
        out.extend(self.meta.iter().map(|(k, v)| Record::MetaSet { key: k.clone(), value: v.clone() }));
        out.push(Record::NextIds {
            segment: self.next_segment,
            shard: self.next_shard,
            chunk: self.next_chunk,
        });
        out
    }

    pub(crate) fn apply(&mut self, record: &Record) -> std::result::Result<(), Contradiction> {
        match record {
            Record::Pool { uuid, ready, .. } => {
                if *uuid != self.pool.uuid {
                    return Err("another pool".into());
                }
                self.pool.ready = *ready;
            }
            Record::DriveAdded { index, uuid, domain, size_bytes, au_count, journal_slots } => {
                // Bounds what a damaged record can make us allocate: 2^40 bytes is 2^19 smallest units, and 16 M units of
                // 1 GiB are beyond any drive.
                if *au_count > 1 << 24 || *journal_slots > 1 << 24 {
                    return Err("a drive of impossible size".into());
                }
                let drive = DriveRecord {
                    uuid: *uuid,
                    domain: domain.clone(),
                    size_bytes: *size_bytes,
                    out: None,
                    aus: FreeMap::new(*au_count),
                    slots: FreeMap::new(*journal_slots),
                };
                if self.drives.insert(*index, drive).is_some() {
                    return Err("a drive added twice".into());
                }
            }
            Record::DriveOut { index, since, cause } => {
                let drive = self.drives.get_mut(index).ok_or("a drive that is not in the pool went out")?;
                drive.out.get_or_insert_with(|| OutSince { since: *since, cause: cause.clone() });
            }
            Record::RootSet { generation, members, previous } => {
                if members.is_empty() || members.iter().chain(previous).any(|d| !self.drives.contains_key(d))
                {
                    return Err("a root set with unknown drives".into());
                }
                self.root_set =
                    RootSet { generation: *generation, members: members.clone(), previous: previous.clone() };
            }
            Record::ShardCreated { id } => {
                if self.shards.insert(*id, ShardRecord::default()).is_some() {
                    return Err("a shard created twice".into());
                }
                self.next_shard = self.next_shard.max(id.0.saturating_add(1));
            }
            Record::ShardEpoch { id, epoch } => {
                let shard = self.shards.get_mut(id).ok_or("an epoch of no shard")?;
                if epoch.0 <= shard.epoch {
                    return Err("an epoch that does not grow".into());
                }
                shard.epoch = epoch.0;
                for segment in &shard.segments {
                    if let Some(segment) = self.segments.get_mut(segment) {
                        segment.state = SegmentState::Sealed;
                    }
                }
            }
            Record::ShardDestroyed { id } => {
                let shard = self.shards.remove(id).ok_or("no shard to destroy")?;
                shard.segments.into_iter().for_each(|s| self.release_segment(s));
                shard.chunks.into_iter().for_each(|c| self.release_chunk(c));
            }
            Record::SegmentGranted(entry) => self.add_segment(entry)?,
            Record::SegmentSealed { id } => {
                self.segments.get_mut(id).ok_or("no segment to seal")?.state = SegmentState::Sealed;
            }
            Record::SegmentsFreed { ids } => {
                for id in ids {
                    let owner = self.segments.get(id).ok_or("no segment to free")?.shard;
                    if let Some(shard) = self.shards.get_mut(&owner) {
                        shard.segments.remove(id);
                    }
                    self.release_segment(*id);
                }
            }
            Record::ChunkGranted(entry) => self.add_chunk(entry)?,
            Record::ChunkFreed { id } => {
                let owner = self.chunks.get(id).ok_or("no chunk to free")?.shard;
                if let Some(shard) = self.shards.get_mut(&owner) {
                    shard.chunks.remove(id);
                }
                self.release_chunk(*id);
            }
            Record::MetaSet { key, value } => {
                let old = self.meta.insert(key.clone(), value.clone());
                self.meta_bytes += meta_cost(key, value);
                self.meta_bytes -= old.map_or(0, |o| meta_cost(key, &o));
            }
            Record::MetaDeleted { key } => {
                self.meta_bytes -= self.meta.remove(key).map_or(0, |o| meta_cost(key, &o));
            }
            Record::NextIds { segment, shard, chunk } => {
                self.next_segment = self.next_segment.max(*segment);
                self.next_shard = self.next_shard.max(*shard);
                self.next_chunk = self.next_chunk.max(*chunk);
            }
        }
        Ok(())
    }

    fn add_segment(&mut self, entry: &SegmentEntry) -> std::result::Result<(), Contradiction> {
        if entry.members.len() != entry.scheme.width() || self.segments.contains_key(&entry.id) {
            return Err("a malformed segment entry".into());
        }
        let shard = self.shards.get_mut(&entry.shard).ok_or("a segment of no shard")?;
        for member in &entry.members {
            self.drives.get_mut(&member.drive).ok_or("a segment on an unknown drive")?.aus.take(member.au)?;
        }
        shard.segments.insert(entry.id);
        self.segments.insert(entry.id, entry.clone());
        self.next_segment = self.next_segment.max(entry.id.0.saturating_add(1));
        Ok(())
    }

    fn add_chunk(&mut self, entry: &ChunkEntry) -> std::result::Result<(), Contradiction> {
        if self.chunks.contains_key(&entry.id) {
            return Err("a chunk granted twice".into());
        }
        let shard = self.shards.get_mut(&entry.shard).ok_or("a chunk of no shard")?;
        for (drive, slot) in &entry.members {
            self.drives.get_mut(drive).ok_or("a chunk on an unknown drive")?.slots.take(*slot)?;
        }
        shard.chunks.insert(entry.id);
        self.chunks.insert(entry.id, entry.clone());
        self.next_chunk = self.next_chunk.max(entry.id.0.saturating_add(1));
        Ok(())
    }

    fn release_segment(&mut self, id: SegmentId) {
        if let Some(entry) = self.segments.remove(&id) {
            for member in entry.members {
                self.drives.get_mut(&member.drive).expect("checked when granted").aus.give(member.au);
            }
        }
    }

    fn release_chunk(&mut self, id: ChunkId) {
        if let Some(entry) = self.chunks.remove(&id) {
            for (drive, slot) in entry.members {
                self.drives.get_mut(&drive).expect("checked when granted").slots.give(slot);
            }
        }
    }

    pub(crate) fn live_drives(&self) -> impl Iterator<Item = (DriveIndex, &DriveRecord)> {
        self.drives.iter().filter(|(_, d)| d.out.is_none()).map(|(i, d)| (*i, d))
    }
    pub(crate) fn is_live(&self, drive: DriveIndex) -> bool {
        self.drives.get(&drive).is_some_and(|d| d.out.is_none())
    }
}

/// What a pair counts against [`MAX_META_BYTES`]: its bytes in a checkpoint.
pub(crate) fn meta_cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + crate::record::HEADER_BYTES + 8
}
