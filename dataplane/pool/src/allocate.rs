//! Which units and slots a grant gets: pure decisions over the root's state.

use crate::pool::Capacity;
use crate::record::Record;
use crate::state::RootState;
use crate::types::*;

/// Journal chunks a shard starts with.
pub const CHUNKS_PER_SHARD: usize = 4;
/// One to write to and one to go on in.
const CHUNKS_LEAST: u64 = 2;
/// Reed-Solomon, Cauchy, GF(2^8) polynomial 0x11d.
const CODE_REED_SOLOMON: u8 = 1;
/// Segments of the reserve per shard: one to flush a memtable to, one to merge into.
const RESERVE_PER_SHARD: u64 = 2;

impl RootState {
    /// The pool's scheme, or with fewer live drives the widest of the same m; `None` when m + 1 do not live.
    pub(crate) fn effective_scheme(&self) -> Option<Scheme> {
        let Scheme { k, m } = self.pool.scheme;
        let live = self.live_drives().count();
        let k = live.saturating_sub(m as usize).min(k as usize) as u8;
        (k >= 1).then_some(Scheme { k, m })
    }

    /// Segments with more members on out drives than their parity makes up for.
    pub(crate) fn lost_segments(&self) -> usize {
        let lost = |s: &&SegmentEntry| {
            s.members.iter().filter(|a| !self.is_live(a.drive)).count() > s.scheme.m as usize
        };
        self.segments.values().filter(lost).count()
    }

    /// Why nothing may be written, if so.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        let Scheme { k, m } = self.pool.scheme;
        let (all, live) = (self.drives.len(), self.live_drives().count());
        if self.effective_scheme().is_none() {
            return Some(format!(
                "{live} of {all} drives are live, and data that survives {m} more failures ({k}+{m}) needs at least {}; bring drives back and import again",
                m + 1
            ));
        }
        // Without this count the scan of the segment table would be wasted on every grant.
        if all - live > m as usize {
            let lost = self.lost_segments();
            if lost > 0 {
                return Some(format!(
                    "{} of {all} drives are out, more than the {m} that {k}+{m} makes up for, and {lost} segments cannot be read whole",
                    all - live
                ));
            }
        }
        None
    }

    /// How many segments of `width` units on distinct drives the counts of free units give.
    fn segments_in(free: &[u64], width: u64) -> u64 {
        // n segments fit exactly if the drives hold n * width units, none more than n of them.
        let fits = |n: u64| free.iter().map(|&f| f.min(n)).sum::<u64>() >= n * width;
        let (mut low, mut high) = (0, free.iter().sum::<u64>() / width.max(1) + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        low
    }

    pub(crate) fn free_segments(&self) -> u64 {
        let Some(scheme) = self.effective_scheme() else { return 0 };
        let free: Vec<u64> = self.live_drives().map(|(_, d)| d.aus.free() as u64).collect();
        Self::segments_in(&free, scheme.width() as u64)
    }

    /// Segments that data may not take, so that flushes, merges and deletes go on when the pool is full.
    pub(crate) fn reserve_segments(&self) -> u64 {
        let Some(scheme) = self.effective_scheme() else { return 0 };
        let all: Vec<u64> = self.live_drives().map(|(_, d)| d.aus.count() as u64).collect();
        let total = Self::segments_in(&all, scheme.width() as u64);
        (total / 50).max(RESERVE_PER_SHARD * self.shards.len() as u64).min(total / 4)
    }

    fn segment_data_bytes(&self, scheme: Scheme) -> u64 {
        let rows = self.pool.geometry.au_bytes / ROW_BYTES;
        rows * ROW_DATA_BLOCKS * 4096 * scheme.k as u64
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let Some(scheme) = self.effective_scheme() else {
            return Capacity { total_bytes: 0, available_bytes: 0 };
        };
        let used: u64 = self.segments.values().map(|s| self.segment_data_bytes(s.scheme)).sum();
        let free = self.free_segments();
        let reserve = self.reserve_segments();
        let each = self.segment_data_bytes(scheme);
        Capacity {
            total_bytes: (used + free * each).saturating_sub(reserve * each),
            available_bytes: if self.stop_reason().is_some() {
                0
            } else {
                free.saturating_sub(reserve) * each
            },
        }
    }

    /// The segment that `shard` gets next, on the emptiest drives.
    pub(crate) fn next_segment_entry(
        &self,
        shard: ShardId,
        epoch: Epoch,
        class: Class,
    ) -> Result<SegmentEntry> {
        let Some(scheme) = self.effective_scheme() else {
            return Err(PoolError::Stopped(self.stop_reason().unwrap_or_default()));
        };
        let mut drives: Vec<(DriveIndex, u32, u32)> =
            self.live_drives().filter_map(|(i, d)| Some((i, d.aus.free(), d.aus.lowest_free()?))).collect();
        let full = |what: &str| PoolError::NoSpace(format!("{what}; delete data to make room"));
        if drives.len() < scheme.width() {
            return Err(full("no segment is free"));
        }
        if class == Class::Data && self.free_segments() <= self.reserve_segments() {
            return Err(full("only the reserve for metadata and deletes is free"));
        }
        drives.sort_by_key(|&(index, free, _)| (std::cmp::Reverse(free), index));
        drives.truncate(scheme.width());
        // Columns move on from segment to segment, so that parity is spread over the drives.
        drives.sort_by_key(|&(index, ..)| index);
        let id = SegmentId(self.next_segment);
        drives.rotate_left((id.0 % scheme.width() as u64) as usize);
        Ok(SegmentEntry {
            id,
            shard,
            epoch,
            scheme,
            class,
            state: SegmentState::Open,
            code: CODE_REED_SOLOMON,
            key_id: 0,
            members: drives.into_iter().map(|(drive, _, au)| AuRef { drive, au }).collect(),
        })
    }

    /// Whether so many more chunks can be granted.
    pub(crate) fn has_chunks(&self, count: u64) -> bool {
        let free: Vec<u64> = self.live_drives().map(|(_, d)| d.slots.free() as u64).collect();
        Self::segments_in(&free, self.pool.scheme.m as u64 + 1) >= count
    }

    /// Chunks that each of `count` new shards gets at first: four where the journal areas have room, fewer where they are
    /// small. A takeover needs full mirror sets, so shards get only what they could be given again, with one chunk more,
    /// after all the losses that the scheme survives; on the smallest drives, after one.
    pub(crate) fn chunks_for(&self, count: u64) -> Option<u64> {
        let (chunks, shards) = (self.chunks.len() as u64, self.shards.len() as u64);
        let after_all = self.chunks_after_losses(self.pool.scheme.m as usize);
        let survives_all =
            |each: &u64| chunks + count * each + shards + count <= after_all && self.has_chunks(count * each);
        // Beside the checkpoint's chunk and the one in use, two for takeovers that crash before they checkpoint: the second
        // is written while the first still counts.
        let room_for_all = (shards + count) * CHUNKS_PER_SHARD as u64 <= self.chunks_after_losses(0);
        let survives_one = |each: &u64| {
            room_for_all
                && chunks + count * each <= self.chunks_after_losses(1)
                && self.has_chunks(count * each)
        };
        let most_first = || (CHUNKS_LEAST..=CHUNKS_PER_SHARD as u64).rev();
        most_first().find(survives_all).or_else(|| most_first().rev().find(survives_one))
    }

    /// Whether a shard that asks for one more chunk may have it without taking what takeovers need after the losses that
    /// may still come.
    pub(crate) fn may_grow_journal(&self, shard: ShardId) -> bool {
        // One in use, one to go on in, one for a takeover: without these a shard cannot work at all.
        if self.shards.get(&shard).is_some_and(|s| s.chunks.len() <= CHUNKS_LEAST as usize) {
            return true;
        }
        let lost = self.drives.len() - self.live_drives().count();
        let to_come = (self.pool.scheme.m as usize).saturating_sub(lost);
        let needed = self.chunks.len() + 1 + self.shards.len();
        needed as u64 <= self.chunks_after_losses(to_come)
    }

    /// Full mirror sets that the journal areas hold when `losses` more drives are gone.
    fn chunks_after_losses(&self, losses: usize) -> u64 {
        let mirrors = self.pool.scheme.m as usize + 1;
        let mut slots: Vec<u64> = self.live_drives().map(|(_, d)| d.slots.count() as u64).collect();
        slots.sort_unstable();
        let left = slots.len().saturating_sub(losses).max(mirrors.min(slots.len()));
        Self::segments_in(&slots[..left], mirrors as u64)
    }

    /// A chunk on m + 1 live drives, those with the most free slots, as if `freed` were given back already.
    pub(crate) fn next_chunk_entry(&self, shard: ShardId, freed: Option<&ChunkEntry>) -> Result<ChunkEntry> {
        let mirrors = self.pool.scheme.m as usize + 1;
        let mut drives: Vec<(DriveIndex, u32, Option<u32>)> = Vec::new();
        for (index, d) in self.live_drives() {
            let back = freed
                .and_then(|c| c.members.iter().find(|(drive, _)| *drive == index))
                .map(|(_, slot)| *slot);
            let lowest = [d.slots.lowest_free(), back].into_iter().flatten().min();
            drives.push((index, d.slots.free() + back.is_some() as u32, lowest));
        }
        if drives.len() < mirrors {
            return Err(PoolError::Stopped(self.stop_reason().unwrap_or_default()));
        }
        drives.sort_by_key(|&(index, free, _)| (std::cmp::Reverse(free), index));
        let members: Option<Vec<_>> =
            drives.into_iter().take(mirrors).map(|(drive, _, slot)| Some((drive, slot?))).collect();
        Ok(ChunkEntry { id: ChunkId(self.next_chunk), shard, members: members.ok_or_else(no_chunks)? })
    }

    /// The members that root copies should be on: those that live stay, live drives fill the gaps.
    pub(crate) fn wanted_root_set(&self) -> Vec<DriveIndex> {
        let wanted = 2 * self.pool.scheme.m as usize + 1;
        let mut members: Vec<DriveIndex> =
            self.root_set.members.iter().copied().filter(|d| self.is_live(*d)).take(wanted).collect();
        for (index, _) in self.live_drives() {
            if members.len() < wanted && !members.contains(&index) {
                members.push(index);
            }
        }
        members.sort();
        members
    }
}

pub(crate) fn no_chunks() -> PoolError {
    PoolError::NoSpace(
        "the journal areas of the live drives are all granted; destroy a file system or use fewer shards"
            .into(),
    )
}

/// Applies `record` to a state of our own making.
pub(crate) fn apply_own(state: &mut RootState, record: &Record) {
    if let Err(why) = state.apply(record) {
        // Every caller has checked its request against this very state.
        unreachable!("the root made a change that contradicts its state: {why:?}");
    }
}
