//! The root's owner: one object on one reactor that grants, records and commits.
//!
//! A request checks itself against the state in memory, changes it, queues the records and waits until they are durable.
//! One task commits whatever has queued up meanwhile in one write to all root copies. A request that is dropped while it
//! waits is committed all the same.

use crate::allocate::{apply_own, no_chunks};
use crate::geometry::Layout;
use crate::label::Label;
use crate::planted::{self, Planted};
use crate::pool::{Capacity, ShardGrant};
use crate::record::{MAX_META_KEY_BYTES, MAX_META_VALUE_BYTES, Record};
use crate::rootlog::{self, Position};
use crate::shared::Shared;
use crate::state::{MAX_META_BYTES, RootState, meta_cost};
use crate::status::{PoolStatus, status_of};
use crate::types::*;
use basalt_bdev::{Bdev, BdevError, Durability};
use basalt_reactor::sync::{Notify, join_all};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Most segments in one grant.
pub const MAX_SEGMENTS_PER_GRANT: usize = 64;
/// Most shards in the pool (a file system's slot map is 16 bits wide).
const MAX_SHARDS: usize = 65_536;

/// A drive that was found, as the root's owner uses it.
pub(crate) struct RootDrive {
    pub(crate) bdev: Rc<dyn Bdev>,
    pub(crate) layout: Layout,
    pub(crate) uuid: Uuid,
    pub(crate) domain: String,
    /// Area that holds this drive's newest state; the next checkpoint goes to the other.
    pub(crate) newest_area: usize,
}

pub(crate) struct Root {
    pub(crate) shared: Arc<Shared>,
    drives: BTreeMap<DriveIndex, RootDrive>,
    inner: RefCell<Inner>,
    work: Notify,
    progress: Notify,
}

struct Inner {
    state: RootState,
    term: u64,
    /// Sequence of the last record in `state`.
    applied: u64,
    /// Sequence up to which the records are durable on a write quorum.
    committed: u64,
    /// Encoded records from `committed` (or what is being written) to `applied`.
    pending: Vec<u8>,
    pending_records: u32,
    /// Area of each copy whose chain is whole up to the last frame.
    copies: BTreeMap<DriveIndex, usize>,
    areas: BTreeMap<DriveIndex, usize>,
    /// Where the next frame goes, in every whole copy.
    log_end: u64,
    last_crc: u32,
    /// Sequence of the record that made the root set joint, while it is.
    joint_since: u64,
    /// A checkpoint is due whatever is pending.
    checkpoint_due: bool,
    /// The last try to commit failed for a reason that may pass.
    failed: Option<(u64, PoolError)>,
    /// Nothing will ever be committed again.
    stopped: Option<String>,
    label_generation: u64,
    labelled_root_set: u64,
    /// The commit task is gone, and nothing of it is under way any more.
    ended: bool,
    notes: Vec<String>,
}

struct Round {
    frame: rootlog::Frame,
    sequence: u64,
    /// (drive, offset of the frame, area)
    writes: Vec<(DriveIndex, u64, usize)>,
    is_checkpoint: bool,
    quorums: Vec<Vec<DriveIndex>>,
}

impl Root {
    pub(crate) fn new(
        shared: Arc<Shared>,
        drives: BTreeMap<DriveIndex, RootDrive>,
        state: RootState,
        position: Position,
        (label_generation, labelled_root_set): (u64, u64),
        notes: Vec<String>,
    ) -> Rc<Root> {
        let areas = drives.iter().map(|(i, d)| (*i, d.newest_area)).collect();
        let root = Rc::new(Root {
            shared,
            drives,
            inner: RefCell::new(Inner {
                state,
                term: position.term,
                applied: position.sequence,
                // Until the first checkpoint nothing is known to be on a quorum.
                committed: 0,
                pending: Vec::new(),
                pending_records: 0,
                copies: BTreeMap::new(),
                areas,
                log_end: 0,
                last_crc: 0,
                joint_since: position.sequence,
                checkpoint_due: true,
                failed: None,
                stopped: None,
                label_generation,
                labelled_root_set,
                ended: false,
                notes,
            }),
            work: Notify::new(),
            progress: Notify::new(),
        });
        crate::shared::register(&root);
        let owner = root.clone();
        // Dropping the handle detaches the task; it ends when the root is closed or stopped.
        drop(basalt_reactor::spawn(async move { owner.commit_loop().await }));
        root
    }

    // ---- commits

    async fn commit_loop(self: Rc<Self>) {
        loop {
            let wake = self.work.notified();
            if self.inner.borrow().stopped.is_some() {
                self.inner.borrow_mut().ended = true;
                self.progress.notify_all();
                return;
            }
            if !self.has_work() {
                wake.await;
                continue;
            }
            self.commit_round().await;
            self.rewrite_labels_if_due().await;
        }
    }

    fn has_work(&self) -> bool {
        let inner = self.inner.borrow();
        inner.failed.is_none()
            && (inner.pending_records > 0
                || inner.checkpoint_due
                || !inner.state.root_set.previous.is_empty()
                || inner.state.wanted_root_set() != inner.state.root_set.members)
    }

    async fn commit_round(&self) {
        let Some(round) = self.inner.borrow_mut().next_round(&self.shared, &self.drives) else { return };
        let minority = planted::is(Planted::RootMinorityAck);
        let results = join_all(round.writes.iter().take(if minority { 1 } else { usize::MAX }).map(
            |&(drive, offset, _)| {
                let bytes = round.frame.bytes.clone();
                async move {
                    (drive, self.drives[&drive].bdev.write(offset, vec![bytes], Durability::Durable).await)
                }
            },
        ))
        .await;
        let mut inner = self.inner.borrow_mut();
        let mut written = Vec::new();
        let mut failure = None;
        for (drive, result) in results {
            match result {
                Ok(()) => written.push(drive),
                Err(error) => {
                    inner.copies.remove(&drive);
                    if !matches!(error, BdevError::HostFull { .. }) {
                        inner.take_out(&self.shared, drive, &format!("writing the root log: {error}"));
                    }
                    failure = Some(error);
                }
            }
        }
        if minority {
            written = round.writes.iter().map(|w| w.0).collect();
        }
        inner.finish_round(&round, &written, failure);
        drop(inner);
        self.progress.notify_all();
    }

    /// Labels name the root set; they are a hint, so they follow it.
    async fn rewrite_labels_if_due(&self) {
        let due = {
            let inner = self.inner.borrow();
            let set = &inner.state.root_set;
            inner.stopped.is_none()
                && inner.failed.is_none()
                && inner.state.pool.ready
                && set.previous.is_empty()
                && set.generation != inner.labelled_root_set
                && inner.committed == inner.applied
        };
        if due {
            self.write_labels().await;
        }
    }

    /// All copies on all live drives. Only one may run at a time: at creation, later from the commit task.
    pub(crate) async fn write_labels(&self) {
        let (labels, set_generation) = {
            let mut inner = self.inner.borrow_mut();
            inner.label_generation += 1;
            let labels: Vec<(DriveIndex, Label)> = inner
                .state
                .live_drives()
                .map(|(i, _)| i)
                .filter_map(|i| Some((i, self.label(&inner, i)?)))
                .collect();
            (labels, inner.state.root_set.generation)
        };
        let writes = labels.iter().map(|(drive, label)| async move {
            let bdev = &self.drives[drive].bdev;
            for (n, offset) in Layout::label_offsets(label.layout.size_bytes).into_iter().enumerate() {
                // One after the other: whatever happens, at most one copy is in doubt.
                bdev.write(offset, vec![label.encode(n).freeze()], Durability::Durable).await?;
            }
            Ok(())
        });
        let results: Vec<basalt_bdev::Result<()>> = join_all(writes).await;
        let mut inner = self.inner.borrow_mut();
        for ((drive, _), result) in labels.iter().zip(results) {
            match result {
                Ok(()) | Err(BdevError::HostFull { .. }) => {}
                Err(error) => inner.take_out(&self.shared, *drive, &format!("writing the label: {error}")),
            }
        }
        inner.labelled_root_set = set_generation;
        drop(inner);
        self.work.notify_all();
    }

    fn label(&self, inner: &Inner, index: DriveIndex) -> Option<Label> {
        let drive = self.drives.get(&index)?;
        let state = &inner.state;
        Some(Label {
            pool_uuid: state.pool.uuid,
            pool_name: state.pool.name.clone(),
            drive_uuid: drive.uuid,
            drive_index: index,
            drive_count: state.drives.len() as u16,
            domain: drive.domain.clone(),
            scheme: state.pool.scheme,
            layout: drive.layout,
            features_compatible: 0,
            generation: inner.label_generation,
            root_set_generation: state.root_set.generation,
            root_set: state.root_set.members.clone(),
        })
    }

    /// Waits until everything up to now is durable: what a reply may speak of.
    pub(crate) async fn settled(&self) -> Result<()> {
        let sequence = self.inner.borrow().applied;
        loop {
            let progress = self.progress.notified();
            {
                let mut inner = self.inner.borrow_mut();
                if inner.committed >= sequence && !inner.checkpoint_due {
                    return Ok(());
                }
                if let Some(why) = &inner.stopped {
                    return Err(PoolError::Stopped(why.clone()));
                }
                if let Some((failed, error)) = inner.failed.clone() {
                    if failed >= sequence {
                        // The next request tries again.
                        inner.failed = None;
                        return Err(error);
                    }
                    inner.failed = None;
                }
            }
            self.work.notify_all();
            progress.await;
        }
    }

    /// Makes `change` of the state and waits for it to be durable.
    async fn change<T>(&self, change: impl FnOnce(&mut Inner) -> Result<T>) -> Result<T> {
        let out = {
            let mut inner = self.inner.borrow_mut();
            if let Some(why) = &inner.stopped {
                return Err(PoolError::Stopped(why.clone()));
            }
            change(&mut inner)?
        };
        self.settled().await?;
        Ok(out)
    }

    pub(crate) async fn mark_ready(&self) -> Result<()> {
        self.change(|inner| {
            let p = &inner.state.pool;
            let record = Record::Pool {
                uuid: p.uuid,
                name: p.name.clone(),
                scheme: p.scheme,
                geometry: p.geometry,
                ready: true,
            };
            inner.push(record);
            inner.labelled_root_set = inner.state.root_set.generation;
            Ok(())
        })
        .await
    }

    /// No more commits; outstanding ones fail. Returns when nothing is being written any more.
    pub(crate) async fn close(&self) {
        crate::shared::deregister(self.shared.key);
        self.inner.borrow_mut().stopped.get_or_insert_with(|| "the pool is closed".to_string());
        self.work.notify_all();
        self.progress.notify_all();
        loop {
            let progress = self.progress.notified();
            if self.inner.borrow().ended {
                return;
            }
            progress.await;
        }
    }

    // ---- requests

    pub(crate) async fn meta_get(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let value = self.inner.borrow().state.meta.get(&key).cloned();
        self.settled().await?;
        Ok(value)
    }

    pub(crate) async fn meta_scan(&self, prefix: Vec<u8>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let found = {
            let inner = self.inner.borrow();
            let from = inner.state.meta.range(prefix.clone()..);
            from.take_while(|(k, _)| k.starts_with(&prefix)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        self.settled().await?;
        Ok(found)
    }

    pub(crate) async fn meta_write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        for (key, value) in &changes {
            if key.is_empty() || key.len() > MAX_META_KEY_BYTES {
                return Err(PoolError::Refused(format!(
                    "a key of {} bytes: the root's keys have 1 to {MAX_META_KEY_BYTES}",
                    key.len()
                )));
            }
            if value.as_ref().is_some_and(|v| v.len() > MAX_META_VALUE_BYTES) {
                return Err(PoolError::Refused(format!(
                    "the value of {} is larger than the {MAX_META_VALUE_BYTES} bytes that fit in the root log",
                    String::from_utf8_lossy(key)
                )));
            }
        }
        self.change(|inner| {
            let added: usize = changes.iter().map(|(k, v)| v.as_ref().map_or(0, |v| meta_cost(k, v))).sum();
            let removed: usize = {
                let mut keys: Vec<&Vec<u8>> = changes.iter().map(|c| &c.0).collect();
                keys.sort();
                keys.dedup();
                let old = |k: &&Vec<u8>| inner.state.meta.get(*k).map_or(0, |v| meta_cost(k, v));
                keys.iter().map(old).sum()
            };
            if added > 0 && inner.state.meta_bytes - removed + added > MAX_META_BYTES {
                return Err(PoolError::NoSpace(format!(
                    "the root's records fill their {} MiB; delete exports or file systems that are not needed",
                    MAX_META_BYTES >> 20
                )));
            }
            for (key, value) in changes {
                inner.push(match value {
                    Some(value) => Record::MetaSet { key, value },
                    None => Record::MetaDeleted { key },
                });
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn create_shards(&self, count: u16) -> Result<Vec<ShardId>> {
        self.change(|inner| {
            inner.may_write()?;
            if inner.state.shards.len() + count as usize > MAX_SHARDS {
                return Err(PoolError::Refused(format!("the pool would have more than {MAX_SHARDS} shards")));
            }
            // All or nothing: beyond this check nothing can run short, since granting from the emptiest drives first is
            // the best there is.
            let chunks = inner.state.chunks_for(count as u64).ok_or_else(no_chunks)?;
            let mut ids = Vec::new();
            for _ in 0..count {
                let id = ShardId(inner.state.next_shard);
                ids.push(id);
                inner.push(Record::ShardCreated { id });
                for _ in 0..chunks {
                    let entry = inner.state.next_chunk_entry(id, None)?;
                    inner.push(Record::ChunkGranted(entry));
                }
            }
            Ok(ids)
        })
        .await
    }

    pub(crate) async fn destroy_shards(&self, ids: Vec<ShardId>) -> Result<()> {
        self.change(|inner| {
            let mut unique = ids.clone();
            unique.sort();
            unique.dedup();
            if let Some(id) = unique.iter().find(|id| !inner.state.shards.contains_key(id)) {
                return Err(no_shard(*id));
            }
            unique.into_iter().for_each(|id| inner.push(Record::ShardDestroyed { id }));
            Ok(())
        })
        .await
    }

    pub(crate) async fn grant_shard(&self, id: ShardId) -> Result<ShardGrant> {
        self.change(|inner| {
            let epoch = Epoch(inner.state.shards.get(&id).ok_or_else(|| no_shard(id))?.epoch + 1);
            inner.push(Record::ShardEpoch { id, epoch });
            let state = &inner.state;
            let shard = &state.shards[&id];
            Ok(ShardGrant {
                epoch,
                segments: shard.segments.iter().map(|s| state.segments[s].clone()).collect(),
                chunks: shard.chunks.iter().map(|c| state.chunks[c].clone()).collect(),
            })
        })
        .await
    }

    pub(crate) async fn grant_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        class: Class,
        count: usize,
    ) -> Result<Vec<SegmentEntry>> {
        self.change(|inner| {
            inner.check_owner(shard, epoch)?;
            inner.may_write()?;
            let mut granted = Vec::new();
            for _ in 0..count.clamp(1, MAX_SEGMENTS_PER_GRANT) {
                match inner.state.next_segment_entry(shard, epoch, class) {
                    Ok(entry) => {
                        inner.push(Record::SegmentGranted(entry.clone()));
                        granted.push(entry);
                    }
                    Err(error) if granted.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(granted)
        })
        .await
    }

    pub(crate) async fn seal_segment(&self, shard: ShardId, epoch: Epoch, id: SegmentId) -> Result<()> {
        self.change(|inner| {
            inner.check_owner(shard, epoch)?;
            if inner.own_segment(shard, id)?.state == SegmentState::Open {
                inner.push(Record::SegmentSealed { id });
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn free_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        mut ids: Vec<SegmentId>,
    ) -> Result<()> {
        self.change(|inner| {
            inner.check_owner(shard, epoch)?;
            ids.sort();
            ids.dedup();
            for id in &ids {
                inner.own_segment(shard, *id)?;
            }
            if !ids.is_empty() {
                inner.push(Record::SegmentsFreed { ids });
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn grant_chunk(
        &self,
        shard: ShardId,
        epoch: Epoch,
        wanted: ChunkWanted,
    ) -> Result<ChunkEntry> {
        self.change(|inner| {
            inner.check_owner(shard, epoch)?;
            inner.may_write()?;
            let freed = match wanted {
                ChunkWanted::InPlaceOf(id) => {
                    Some(inner.state.chunks.get(&id).filter(|c| c.shard == shard).ok_or_else(|| {
                        PoolError::Refused(format!("journal chunk {id} is not one of shard {shard}"))
                    })?)
                }
                ChunkWanted::Ahead if !inner.state.may_grow_journal(shard) => return Err(no_chunks()),
                ChunkWanted::Ahead | ChunkWanted::Now => None,
            };
            // Chosen before anything is freed: without a new chunk the old one must not go.
            let entry = inner.state.next_chunk_entry(shard, freed)?;
            if let ChunkWanted::InPlaceOf(id) = wanted {
                inner.push(Record::ChunkFreed { id });
            }
            inner.push(Record::ChunkGranted(entry.clone()));
            Ok(entry)
        })
        .await
    }

    pub(crate) async fn drive_out(&self, drive: DriveIndex, cause: &str) -> Result<()> {
        self.change(|inner| {
            if !inner.state.drives.contains_key(&drive) {
                return Err(PoolError::Refused(format!("the pool has no drive {drive}")));
            }
            inner.take_out(&self.shared, drive, cause);
            Ok(())
        })
        .await
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.inner.borrow().state.capacity()
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let inner = self.inner.borrow();
        let name_of = |index: DriveIndex| {
            let drive = self.shared.drives.get(index.0 as usize)?.drive.as_ref()?;
            Some(drive.info().name.clone())
        };
        let failed = inner.failed.as_ref().map(|(_, e)| e.to_string());
        let stopped = inner.stopped.as_deref().or(failed.as_deref());
        status_of(&inner.state, inner.applied, stopped, &inner.notes, name_of)
    }
}

fn no_shard(id: ShardId) -> PoolError {
    PoolError::Refused(format!("the pool has no shard {id}; its file system may have been destroyed"))
}

impl Inner {
    fn push(&mut self, record: Record) {
        apply_own(&mut self.state, &record);
        record.encode(&mut self.pending);
        self.pending_records += 1;
        self.applied += 1;
    }

    /// Records the drive out and makes every reactor's handle refuse it, at once.
    fn take_out(&mut self, shared: &Shared, drive: DriveIndex, cause: &str) {
        shared.take_out(drive);
        if self.state.is_live(drive) {
            tracing::warn!(drive = drive.0, cause, "drive is out");
            let cause = cause.chars().take(500).collect();
            self.push(Record::DriveOut { index: drive, since: self.applied + 1, cause });
        }
        self.copies.remove(&drive);
    }

    fn check_owner(&self, shard: ShardId, epoch: Epoch) -> Result<()> {
        let current = self.state.shards.get(&shard).ok_or_else(|| no_shard(shard))?.epoch;
        if epoch.0 != current && !planted::is(Planted::StaleEpochAccepted) {
            return Err(PoolError::Fenced { shard, ours: epoch, theirs: Epoch(current) });
        }
        Ok(())
    }

    fn own_segment(&self, shard: ShardId, id: SegmentId) -> Result<&SegmentEntry> {
        let entry = self.state.segments.get(&id).filter(|s| s.shard == shard);
        entry.ok_or_else(|| PoolError::Refused(format!("segment {id} is not one of shard {shard}")))
    }

    fn may_write(&self) -> Result<()> {
        match self.state.stop_reason() {
            Some(why) => Err(PoolError::Stopped(why)),
            None => Ok(()),
        }
    }

    /// Steps the root set on, where drives have come or gone. A change is joint first: it needs a quorum of the old set
    /// and of the new one, so no reader of either can miss it.
    fn step_root_set(&mut self) {
        let set = &self.state.root_set;
        let generation = set.generation + 1;
        if !set.previous.is_empty() {
            if self.committed >= self.joint_since {
                let members = set.members.clone();
                self.push(Record::RootSet { generation, members, previous: Vec::new() });
            }
            return;
        }
        let wanted = self.state.wanted_root_set();
        if wanted != set.members && !wanted.is_empty() {
            let previous = set.members.clone();
            self.push(Record::RootSet { generation, members: wanted, previous });
            self.joint_since = self.applied;
        }
    }

    /// What to write next: everything pending as a batch, or all of the state where a copy is not whole or an area is full.
    fn next_round(&mut self, shared: &Shared, drives: &BTreeMap<DriveIndex, RootDrive>) -> Option<Round> {
        self.step_root_set();
        let set = self.state.root_set.clone();
        let mut targets: Vec<DriveIndex> = set.members.iter().chain(&set.previous).copied().collect();
        targets.sort();
        targets.dedup();
        targets.retain(|d| shared.usable(*d).is_some() && drives.contains_key(d));
        self.copies.retain(|d, _| targets.contains(d));

        let uuid = self.state.pool.uuid;
        let position = Position { term: self.term, sequence: self.applied };
        let area_bytes = shared.layout.root_area_bytes;
        let batch_bytes = rootlog::frame_bytes(self.pending.len()) as u64;
        let is_checkpoint = self.checkpoint_due
            || targets.iter().any(|d| !self.copies.contains_key(d))
            || self.log_end + batch_bytes > area_bytes;
        let frame = if is_checkpoint {
            rootlog::checkpoint_frame(uuid, position, &self.state)
        } else {
            rootlog::batch_frame(uuid, position, self.pending_records, self.last_crc, &self.pending)
        };
        if is_checkpoint && frame.bytes.len() as u64 > area_bytes {
            self.stopped =
                Some("the root's state has outgrown its area; this is a defect, please report it".into());
            return None;
        }
        let writes = targets
            .iter()
            .map(|&d| {
                let area = if is_checkpoint {
                    1 - self.areas.get(&d).copied().unwrap_or(1)
                } else {
                    self.copies[&d]
                };
                let at = if is_checkpoint { 0 } else { self.log_end };
                (d, drives[&d].layout.root_area_offset[area] + at, area)
            })
            .collect();
        // Records that come while this is written belong to the next frame.
        self.pending.clear();
        self.pending_records = 0;
        let quorums = [set.members, set.previous].into_iter().filter(|s| !s.is_empty()).collect();
        Some(Round { frame, sequence: position.sequence, writes, is_checkpoint, quorums })
    }

    fn finish_round(&mut self, round: &Round, written: &[DriveIndex], failure: Option<BdevError>) {
        for (drive, _, area) in &round.writes {
            if written.contains(drive) && self.state.is_live(*drive) {
                self.copies.insert(*drive, *area);
                self.areas.insert(*drive, *area);
            }
        }
        self.log_end = if round.is_checkpoint { 0 } else { self.log_end } + round.frame.bytes.len() as u64;
        self.last_crc = round.frame.crc;
        let short = round.quorums.iter().find_map(|set| {
            let have = set.iter().filter(|d| written.contains(d)).count();
            let need = rootlog::write_quorum(set.len());
            (have < need).then(|| {
                format!("{have} of {} root copies could be written and {need} are needed", set.len())
            })
        });
        match (short, failure) {
            (None, _) => {
                self.committed = round.sequence;
                self.checkpoint_due = false;
                self.failed = None;
            }
            (Some(_), Some(error @ BdevError::HostFull { .. })) => {
                // May pass. What is in memory stays, and a checkpoint will bring all of it.
                self.checkpoint_due = true;
                self.failed = Some((self.applied, error.into()));
            }
            (Some(why), failure) => {
                let cause = failure.map(|e| format!(" ({e})")).unwrap_or_default();
                tracing::error!(why, "the root log has stopped");
                self.stopped = Some(format!("{why}{cause}; bring the drives back and import again"));
            }
        }
    }
}
