//! A shard's journal: group commit into mirrored chunks.
//!
//! Records gather while blocks are in flight and leave together in the next block. Up to [`BLOCKS_IN_FLIGHT`] blocks are
//! written at once, acknowledged in order, each when every member of the chunk has it. When a member fails or is slow,
//! the journal goes on in another registered chunk; its first block says where the journal ended in the last one, and
//! records that were not yet acknowledged are written again there. Blocks past that end are never looked at again,
//! whenever they land.

use super::chunks::{Chunk, Chunks};
use super::journal_block::*;
use super::{Root, StoreStats};
use crate::planted::{self, Planted};
use crate::types::*;
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::sync::{Notify, join_all};
use basalt_reactor::{Instant, now, sleep, spawn, timeout};
use bytes::Bytes;
use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// One is being written while the next is sent: the drives never wait for the reactor, and a block still gathers what
/// arrives during a whole write.
pub(super) const BLOCKS_IN_FLIGHT: usize = 2;
/// A member that takes longer is left behind with its chunk, for now without taking the drive out.
const SLOW_MEMBER: Duration = Duration::from_secs(2);
/// Callers wait when so much is queued: more than the drives take in a few tens of milliseconds. Half a chunk at most,
/// so that the queue never needs more than the chunks that are kept in reserve.
const QUEUE_ROOM_BYTES: usize = 8 << 20;

pub(crate) struct Journal {
    root: Rc<dyn Root>,
    identity: Identity,
    epoch: Epoch,
    state: RefCell<State>,
    pub(crate) chunks: Chunks,
    /// Wakes the writer.
    work: Notify,
    /// Rung when the durable LSN moves or the journal fails.
    moved: Notify,
    /// Rung when something became durable that tidying may wait for.
    bell: Rc<Notify>,
    stats: Rc<RefCell<StoreStats>>,
}

struct State {
    /// Records not yet durable.
    queue: VecDeque<Record>,
    queued_bytes: usize,
    /// Records at the queue's front that are in blocks in flight.
    sent: usize,
    next_lsn: u64,
    durable: Lsn,
    /// Last record of what a new owner rewrites before it serves; `None` once that is durable.
    takeover: Option<Lsn>,
    active: Option<Active>,
    chunk_seq: u64,
    /// End of the newest durable block.
    tail: Tail,
    in_flight: VecDeque<InFlight>,
    next_block: u64,
    /// Durable blocks a replay would read: (last LSN, bytes).
    replay: VecDeque<(Lsn, u64)>,
    replay_bytes: u64,
    /// Checkpoints appended, not yet durable: (LSN, replay from).
    checkpoints: VecDeque<(Lsn, Lsn)>,
    /// Newest durable checkpoint.
    checkpoint: Option<(Lsn, Lsn)>,
    failed: Option<PoolError>,
    closed: bool,
}

/// The chunk being written.
struct Active {
    chunk: Chunk,
    seq: u64,
    offset: u32,
    index: u32,
    /// CRC and last LSN of the newest block sent.
    crc: u32,
    last_lsn: Lsn,
}

struct InFlight {
    id: u64,
    sent_at: Instant,
    header: Header,
    end: u32,
    records: usize,
    outcome: Option<Outcome>,
    /// Members that have answered.
    answered: Vec<bool>,
    /// Retried because the host's file system is full; not the drive's slowness.
    host_full: bool,
}

enum Outcome {
    Durable,
    Failed(Vec<(DriveIndex, String)>),
}

/// What the writer does next.
enum Step {
    Wait,
    Again,
    Switch,
    Stop,
}

/// What recovery found, for the journal to go on from.
pub(crate) struct Resume {
    pub(crate) tail: Tail,
    /// To be written again under the new epoch before anything is served, in order.
    pub(crate) rewrite: Vec<Record>,
    pub(crate) next_lsn: Lsn,
    pub(crate) chunk_seq: u64,
    pub(crate) replay: Vec<(Lsn, u64)>,
    pub(crate) checkpoint: Option<(Lsn, Lsn)>,
}

impl Journal {
    /// The journal of a new epoch, which starts with a takeover; [`Journal::taken_over`] waits for it.
    pub(crate) fn resume(
        root: Rc<dyn Root>,
        identity: Identity,
        epoch: Epoch,
        resume: Resume,
        chunks: Chunks,
        bell: Rc<Notify>,
        stats: Rc<RefCell<StoreStats>>,
    ) -> Rc<Journal> {
        let takeover = resume.rewrite.last().map_or(Lsn(resume.next_lsn.0 - 1), |r| r.lsn);
        let state = State {
            queued_bytes: resume.rewrite.iter().map(Record::framed_bytes).sum(),
            queue: resume.rewrite.into(),
            sent: 0,
            next_lsn: resume.next_lsn.0,
            durable: resume.tail.last_lsn,
            takeover: Some(takeover),
            active: None,
            chunk_seq: resume.chunk_seq,
            tail: resume.tail,
            in_flight: VecDeque::new(),
            next_block: 0,
            replay_bytes: resume.replay.iter().map(|(_, bytes)| bytes).sum(),
            replay: resume.replay.into(),
            checkpoints: VecDeque::new(),
            checkpoint: resume.checkpoint,
            failed: None,
            closed: false,
        };
        let journal = Rc::new(Journal {
            root,
            identity,
            epoch,
            state: RefCell::new(state),
            chunks,
            work: Notify::new(),
            moved: Notify::new(),
            bell,
            stats,
        });
        spawn(journal.clone().run());
        journal
    }

    // ---- the caller's side

    pub(crate) fn append(&self, kind: RecordKind, data: Bytes) -> Lsn {
        let mut s = self.state.borrow_mut();
        let lsn = Lsn(s.next_lsn);
        s.next_lsn += 1;
        let record = Record { lsn, kind, data };
        s.queued_bytes += record.framed_bytes();
        s.queue.push_back(record);
        self.work.notify_all();
        lsn
    }
    pub(crate) fn append_checkpoint(&self, data: Bytes, replay_from: Lsn) -> Lsn {
        let lsn = self.append(RecordKind::Checkpoint, data);
        self.state.borrow_mut().checkpoints.push_back((lsn, replay_from));
        lsn
    }
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn(self.state.borrow().next_lsn - 1)
    }
    pub(crate) fn durable_lsn(&self) -> Lsn {
        self.state.borrow().durable
    }
    /// LSN of the newest durable checkpoint.
    pub(crate) fn checkpoint_lsn(&self) -> Lsn {
        self.state.borrow().checkpoint.map_or(Lsn(0), |(lsn, _)| lsn)
    }
    pub(crate) fn replay_bytes(&self) -> u64 {
        let s = self.state.borrow();
        s.replay_bytes + s.queued_bytes as u64
    }

    pub(crate) async fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        if planted::is(Planted::ReplyBeforeCommit) {
            return Ok(());
        }
        self.wait_for(|s| s.durable >= lsn).await
    }
    /// The new epoch's first blocks are durable on a full set.
    pub(crate) async fn taken_over(&self) -> Result<()> {
        self.wait_for(|s| s.takeover.is_none()).await
    }
    pub(crate) async fn wait_room(&self) -> Result<()> {
        let mut waited = false;
        loop {
            let (moved, freed) = (self.moved.notified(), self.chunks.freed.notified());
            {
                let s = self.state();
                if let Some(e) = &s.failed {
                    return Err(e.clone());
                }
                let queue_room = QUEUE_ROOM_BYTES.min(self.chunks.chunk_bytes() as usize / 2);
                if s.queued_bytes < queue_room && self.chunks.has_room() {
                    return Ok(());
                }
            }
            if !waited {
                self.stats.borrow_mut().room_waits += 1;
                waited = true;
            }
            first_of(moved, freed).await;
        }
    }
    async fn wait_for(&self, done: impl Fn(&State) -> bool) -> Result<()> {
        loop {
            let moved = self.moved.notified();
            {
                let s = self.state();
                if done(&s) {
                    return Ok(());
                }
                if let Some(e) = &s.failed {
                    return Err(e.clone());
                }
            }
            moved.await;
        }
    }
    pub(crate) fn close(&self) {
        let mut s = self.state.borrow_mut();
        s.closed = true;
        if s.failed.is_none() {
            s.failed = Some(PoolError::Stopped(format!("shard {} was closed", self.identity.shard)));
        }
        drop(s);
        self.work.notify_all();
        self.moved.notify_all();
        self.chunks.freed.notify_all();
    }
    pub(crate) fn failed(&self) -> Option<PoolError> {
        self.state().failed.clone()
    }
    /// Members of the chunk being written.
    #[cfg(test)]
    pub(crate) fn active_members(&self) -> Vec<(DriveIndex, u32)> {
        self.state().active.as_ref().map(|a| a.chunk.entry.members.clone()).unwrap_or_default()
    }
    fn state(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    // ---- the writer

    async fn run(self: Rc<Journal>) {
        loop {
            let woken = self.work.notified();
            match self.step() {
                Step::Again => {}
                Step::Stop => return,
                Step::Switch => {
                    if let Err(e) = self.switch().await {
                        self.fail(e);
                        return;
                    }
                }
                Step::Wait => {
                    if self.state().in_flight.is_empty() {
                        woken.await;
                    } else if !self.leave_slow() {
                        timeout(SLOW_MEMBER, woken).await;
                    }
                }
            }
        }
    }

    fn fail(&self, e: PoolError) {
        tracing::error!(shard = %self.identity.shard, "the journal stopped: {e}");
        let mut s = self.state.borrow_mut();
        if s.failed.is_none() {
            s.failed = Some(e);
        }
        drop(s);
        self.moved.notify_all();
        self.bell.notify_all();
    }

    fn step(self: &Rc<Journal>) -> Step {
        let mut s = self.state.borrow_mut();
        if s.closed || s.failed.is_some() {
            return Step::Stop;
        }
        let mut acknowledged = false;
        while s.in_flight.front().is_some_and(|f| matches!(f.outcome, Some(Outcome::Durable))) {
            if let Some(f) = s.in_flight.pop_front() {
                self.acknowledge(&mut s, f);
                acknowledged = true;
            }
        }
        if acknowledged {
            self.moved.notify_all();
            self.bell.notify_all();
        }
        if s.in_flight.iter().any(|f| matches!(f.outcome, Some(Outcome::Failed(_)))) {
            let settled = s.in_flight.iter().all(|f| f.outcome.is_some());
            return if settled { Step::Switch } else { Step::Wait };
        }
        let empty_takeover = s.takeover.is_some() && s.queue.is_empty() && s.in_flight.is_empty();
        if s.in_flight.len() >= BLOCKS_IN_FLIGHT || (s.sent == s.queue.len() && !empty_takeover) {
            return Step::Wait;
        }
        let Some(active) = &s.active else { return Step::Switch };
        let room = (self.chunks.chunk_bytes() - active.offset) as usize;
        let records = gather(&s, room.min(MAX_BLOCK_BYTES));
        if records == 0 && !(empty_takeover && room > 0) {
            // The link in the next chunk names a durable end, so all before it must be durable first.
            return if s.in_flight.is_empty() { Step::Switch } else { Step::Wait };
        }
        self.send(&mut s, records);
        Step::Again
    }

    fn send(self: &Rc<Journal>, s: &mut State, records: usize) {
        let first_lsn = s.queue.get(s.sent).map_or(Lsn(s.next_lsn), |r| r.lsn);
        let committed_lsn = s.tail.last_lsn;
        let takeover = s.takeover;
        let link = s.tail.clone();
        let Some(active) = s.active.as_mut() else { return };
        let last_lsn = Lsn(first_lsn.0 + records as u64 - 1);
        let mut header = Header {
            chunk: active.chunk.entry.id,
            epoch: self.epoch,
            chunk_seq: active.seq,
            index: active.index,
            first_lsn,
            committed_lsn,
            count: 0,
            payload_bytes: 0,
            payload_crc: 0,
            previous_crc: active.crc,
            flags: Flags {
                takeover: takeover.is_some(),
                taken_over: takeover == Some(last_lsn),
                jump: first_lsn.0 != active.last_lsn.0 + 1,
            },
            link: (active.index == 0).then_some(link),
            header_crc: 0,
        };
        let block = encode_block(&mut header, &self.identity, s.queue.range(s.sent..s.sent + records));
        let offset = active.offset;
        let end = offset + block.len() as u32;
        active.offset = end;
        active.index += 1;
        active.crc = header.header_crc;
        active.last_lsn = last_lsn;
        let chunk = active.chunk.clone();
        s.sent += records;
        let id = s.next_block;
        s.next_block += 1;
        {
            let mut stats = self.stats.borrow_mut();
            stats.journal_blocks += 1;
            stats.journal_bytes += block.len() as u64;
            stats.journal_records += records as u64;
        }
        let answered = vec![false; chunk.entry.members.len()];
        s.in_flight.push_back(InFlight {
            id,
            sent_at: now(),
            header,
            end,
            records,
            outcome: None,
            answered,
            host_full: false,
        });
        chunk.begin_write();
        spawn(self.clone().write_block(id, chunk, offset, block));
    }

    async fn write_block(self: Rc<Journal>, id: u64, chunk: Chunk, offset: u32, block: Bytes) {
        let writes = chunk.entry.members.iter().enumerate().map(|(i, (drive, slot))| {
            let channel = self.root.channel(*drive);
            let at = self.root.chunk_offset(*slot) + offset as u64;
            let (journal, block, drive) = (self.clone(), block.clone(), *drive);
            async move {
                let result = journal.write_member(id, channel, drive, at, block).await;
                journal.answered(id, i, result.is_ok());
                result
            }
        });
        let results = join_all(writes).await;
        chunk.end_write();
        let failed: Vec<_> = results.into_iter().filter_map(|r| r.err()).collect();
        let outcome = if failed.is_empty() { Outcome::Durable } else { Outcome::Failed(failed) };
        if let Some(f) = self.state.borrow_mut().in_flight.iter_mut().find(|f| f.id == id) {
            f.outcome = Some(outcome);
        }
        self.work.notify_all();
        // A chunk left behind becomes recyclable when its last write ends.
        self.bell.notify_all();
    }

    async fn write_member(
        &self,
        id: u64,
        channel: Option<Rc<dyn basalt_bdev::Bdev>>,
        drive: DriveIndex,
        at: u64,
        block: Bytes,
    ) -> std::result::Result<(), (DriveIndex, String)> {
        let Some(channel) = channel else { return Err((drive, "it is out".into())) };
        loop {
            match channel.write(at, vec![block.clone()], Durability::Durable).await {
                Ok(()) => return Ok(()),
                // Journal areas are preallocated, so only a copy-on-write host file system comes here. Nothing is lost:
                // nothing is acknowledged until the operator frees space.
                Err(e @ BdevError::HostFull { .. }) => {
                    tracing::warn!(shard = %self.identity.shard, "the journal waits: {e}");
                    if let Some(f) = self.state.borrow_mut().in_flight.iter_mut().find(|f| f.id == id) {
                        f.host_full = true;
                    }
                    sleep(Duration::from_millis(500)).await;
                    if self.state().closed {
                        return Err((drive, e.to_string()));
                    }
                }
                Err(e) => return Err((drive, e.to_string())),
            }
        }
    }

    fn answered(&self, id: u64, member: usize, ok: bool) {
        let mut s = self.state.borrow_mut();
        if let Some(f) = s.in_flight.iter_mut().find(|f| f.id == id) {
            f.answered[member] = true;
            if ok && f.outcome.is_none() && planted::is(Planted::AckOneMirror) {
                f.outcome = Some(Outcome::Durable);
                self.work.notify_all();
            }
        }
    }

    /// Marks blocks that have waited too long for a member as failed, naming no drive.
    fn leave_slow(&self) -> bool {
        let mut s = self.state.borrow_mut();
        let slow = s
            .in_flight
            .iter()
            .any(|f| f.outcome.is_none() && !f.host_full && f.sent_at.elapsed() >= SLOW_MEMBER);
        if slow {
            for f in s.in_flight.iter_mut().filter(|f| f.outcome.is_none()) {
                f.outcome = Some(Outcome::Failed(Vec::new()));
            }
        }
        slow
    }

    fn acknowledge(&self, s: &mut State, f: InFlight) {
        let Some(active) = &s.active else { return };
        s.tail = Tail {
            chunk: Some(active.chunk.entry.id),
            members: active.chunk.entry.members.clone(),
            end: f.end,
            last_lsn: f.header.last_lsn(),
            crc: f.header.header_crc,
        };
        for _ in 0..f.records {
            if let Some(r) = s.queue.pop_front() {
                s.queued_bytes -= r.framed_bytes();
            }
        }
        s.sent -= f.records;
        s.durable = s.tail.last_lsn;
        let bytes = f.header.block_bytes() as u64;
        s.replay.push_back((s.tail.last_lsn, bytes));
        s.replay_bytes += bytes;
        if f.header.flags.taken_over {
            s.takeover = None;
            // Nothing was appended yet: the gap before the first LSN of this epoch holds no records.
            s.durable = s.durable.max(Lsn(s.next_lsn - 1));
        }
        while let Some((lsn, replay_from)) = s.checkpoints.front().copied()
            && lsn <= s.durable
        {
            s.checkpoints.pop_front();
            s.checkpoint = Some((lsn, replay_from));
            self.stats.borrow_mut().checkpoints += 1;
            while let Some((last, bytes)) = s.replay.front().copied()
                && last < replay_from.min(lsn)
            {
                s.replay.pop_front();
                s.replay_bytes -= bytes;
            }
            self.chunks.checkpointed(replay_from.min(lsn));
        }
    }

    /// Goes on in another chunk.
    async fn switch(self: &Rc<Journal>) -> Result<()> {
        let mut failed = Vec::new();
        let mut slow = Vec::new();
        {
            let mut s = self.state.borrow_mut();
            let in_flight = std::mem::take(&mut s.in_flight);
            s.sent = 0;
            let active = s.active.take();
            for f in in_flight {
                match (f.outcome, &active) {
                    (Some(Outcome::Failed(members)), Some(active)) if members.is_empty() => {
                        let members = active.chunk.entry.members.iter().zip(&f.answered);
                        slow.extend(
                            members.filter(|(_, answered)| !**answered).map(|((drive, _), _)| *drive),
                        );
                    }
                    (Some(Outcome::Failed(members)), _) => failed.extend(members),
                    _ => {}
                }
            }
            if let Some(active) = active {
                let mut stats = self.stats.borrow_mut();
                stats.chunk_switches += 1;
                stats.chunk_failures += !failed.is_empty() as u64;
                stats.chunk_slow += !slow.is_empty() as u64;
                if s.tail.chunk == Some(active.chunk.entry.id) {
                    self.chunks.retire(active.chunk, s.tail.last_lsn);
                } else {
                    // Nothing in it was acknowledged: no link will ever name it.
                    self.chunks.discard(active.chunk);
                }
            }
        }
        failed.sort();
        failed.dedup_by_key(|(drive, _)| *drive);
        for (drive, cause) in failed {
            tracing::warn!(shard = %self.identity.shard, %drive, "a journal write failed: {cause}");
            self.root.drive_out(drive, &cause).await?;
        }
        let wait = self.state().takeover.is_none();
        let chunk = self.chunks.take(&slow, wait, || self.state().closed).await?;
        let mut s = self.state.borrow_mut();
        s.chunk_seq += 1;
        s.active = Some(Active {
            chunk,
            seq: s.chunk_seq,
            offset: 0,
            index: 0,
            crc: s.tail.crc,
            last_lsn: s.tail.last_lsn,
        });
        drop(s);
        if self.chunks.wants_more() {
            self.bell.notify_all();
        }
        Ok(())
    }
}

/// How many queued records go into a block of at most `limit` bytes. Records of a block have consecutive LSNs.
fn gather(s: &State, limit: usize) -> usize {
    let mut bytes = HEADER_BYTES;
    let mut count = 0;
    let mut last: Option<Lsn> = None;
    for r in s.queue.range(s.sent..) {
        bytes += r.framed_bytes();
        if bytes > limit || last.is_some_and(|l| l.0 + 1 != r.lsn.0) {
            break;
        }
        last = Some(r.lsn);
        count += 1;
    }
    count
}

/// Resolves when either does.
async fn first_of(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|cx| {
        if a.as_mut().poll(cx).is_ready() || b.as_mut().poll(cx).is_ready() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
