//! The chunks a shard's journal owns: free ones, used ones that a replay may still need, and spent ones on their way
//! through the root, where a reused place gets a new id.

use super::{Root, StoreStats};
use crate::types::*;
use basalt_reactor::sync::Notify;
use basalt_reactor::timeout;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A shard asks the root for more chunks up to here.
const SOFT_CHUNKS: usize = 8;
/// Flush and checkpoint, which do not wait for room, may go so far.
const HARD_CHUNKS: usize = 12;
/// Chunks that clients' records do not use: one for the flush that makes room, one for the next owner's takeover.
const RESERVED_CHUNKS: usize = 2;

/// A chunk and the writes to it that have not ended. Its place is not given back before they have: a late write would
/// land in somebody else's journal.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub(crate) entry: Rc<ChunkEntry>,
    writes: Rc<Cell<u32>>,
}
impl Chunk {
    pub(crate) fn new(entry: ChunkEntry) -> Chunk {
        Chunk { entry: Rc::new(entry), writes: Rc::new(Cell::new(0)) }
    }
    pub(crate) fn begin_write(&self) {
        self.writes.set(self.writes.get() + 1);
    }
    pub(crate) fn end_write(&self) {
        self.writes.set(self.writes.get() - 1);
    }
}

pub(crate) struct Chunks {
    root: Rc<dyn Root>,
    shard: ShardId,
    epoch: Epoch,
    chunk_bytes: u32,
    state: RefCell<State>,
    /// Rung when a chunk becomes free.
    pub(crate) freed: Notify,
    stats: Rc<RefCell<StoreStats>>,
}

struct State {
    free: Vec<Chunk>,
    /// Oldest first, with the last LSN in each.
    used: VecDeque<(Chunk, Lsn)>,
    /// To be exchanged for chunks with new ids.
    spent: VecDeque<Chunk>,
    active: bool,
    /// Replay needs nothing below.
    replay_from: Lsn,
    /// The root had no more to give.
    refused: bool,
}

impl State {
    fn held(&self) -> usize {
        self.free.len() + self.used.len() + self.spent.len() + self.active as usize
    }
    fn may_grow_by(&self) -> usize {
        if self.refused { 0 } else { SOFT_CHUNKS.saturating_sub(self.held()) }
    }
}

impl Chunks {
    pub(crate) fn new(
        root: Rc<dyn Root>,
        shard: ShardId,
        epoch: Epoch,
        free: Vec<ChunkEntry>,
        used: Vec<(ChunkEntry, Lsn)>,
        stats: Rc<RefCell<StoreStats>>,
    ) -> Chunks {
        let chunk_bytes = root.geometry().chunk_bytes as u32;
        let state = State {
            free: free.into_iter().map(Chunk::new).collect(),
            used: used.into_iter().map(|(c, lsn)| (Chunk::new(c), lsn)).collect(),
            spent: VecDeque::new(),
            active: false,
            replay_from: Lsn(0),
            refused: false,
        };
        Chunks { root, shard, epoch, chunk_bytes, state: RefCell::new(state), freed: Notify::new(), stats }
    }
    pub(crate) fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Counts only chunks that are here: what the root would grant it may have granted to others by the time it is
    /// asked, and a flush that finds no chunk for the records it waits for can never make room.
    pub(crate) fn has_room(&self) -> bool {
        let s = self.state.borrow();
        s.free.len() > RESERVED_CHUNKS || s.used.is_empty()
    }
    /// Half of what clients may fill is full.
    pub(crate) fn half_full(&self) -> bool {
        let s = self.state.borrow();
        let room = s.free.len() + s.may_grow_by();
        !s.used.is_empty() && room.saturating_sub(RESERVED_CHUNKS) <= s.used.len()
    }
    /// The next switch would leave clients without room, and the root may have more chunks.
    pub(crate) fn wants_more(&self) -> bool {
        let s = self.state.borrow();
        s.free.len() <= RESERVED_CHUNKS + 1 && !s.used.is_empty() && s.may_grow_by() > 0
    }

    fn is_live(&self, chunk: &ChunkEntry) -> bool {
        chunk.members.iter().all(|(drive, _)| self.root.channel(*drive).is_some())
    }

    /// A chunk to write next. Avoids drives in `slow` where it can. With `wait`, waits for a checkpoint to free one when
    /// there is none at all.
    pub(crate) async fn take(
        &self,
        slow: &[DriveIndex],
        wait: bool,
        closed: impl Fn() -> bool,
    ) -> Result<Chunk> {
        loop {
            let freed = self.freed.notified();
            if let Some(chunk) = self.take_free(slow) {
                return Ok(chunk);
            }
            let held = self.state.borrow().held();
            let mut refusal = None;
            if held < HARD_CHUNKS {
                match self.root.grant_chunk(self.shard, self.epoch, ChunkWanted::Now).await {
                    Ok(entry) => {
                        self.state.borrow_mut().free.push(Chunk::new(entry));
                        if let Some(chunk) = self.take_free(slow) {
                            return Ok(chunk);
                        }
                    }
                    Err(e @ PoolError::NoSpace(_)) => {
                        self.state.borrow_mut().refused = true;
                        refusal = Some(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            match self.exchange_degraded().await {
                Ok(()) => {}
                // No better chunks are to be had now: fewer copies, or a wait, but not the end.
                Err(e @ PoolError::NoSpace(_)) => refusal = Some(e),
                Err(e) => return Err(e),
            }
            if let Some(chunk) = self.take_free(slow).or_else(|| self.take_free(&[])) {
                return Ok(chunk);
            }
            if closed() {
                return Err(PoolError::Stopped("the shard was closed".into()));
            }
            if !wait {
                return Err(refusal.unwrap_or_else(|| PoolError::NoSpace("no journal chunk is free".into())));
            }
            // A checkpoint rings; the root may also have got room elsewhere.
            let _ = timeout(Duration::from_millis(500), freed).await;
        }
    }
    fn take_free(&self, slow: &[DriveIndex]) -> Option<Chunk> {
        let at = {
            let s = self.state.borrow();
            s.free.iter().position(|c| {
                self.is_live(&c.entry) && !c.entry.members.iter().any(|(drive, _)| slow.contains(drive))
            })?
        };
        let mut s = self.state.borrow_mut();
        s.active = true;
        Some(s.free.remove(at))
    }
    /// Makes sure that `count` chunks on live drives are free; false when the root cannot give so many.
    pub(crate) async fn reserve(&self, count: usize) -> Result<bool> {
        match self.exchange_degraded().await {
            Err(PoolError::NoSpace(_)) => return Ok(false),
            outcome => outcome?,
        }
        for _ in 0..count {
            let live = self.state.borrow().free.iter().filter(|c| self.is_live(&c.entry)).count();
            if live >= count {
                break;
            }
            match self.root.grant_chunk(self.shard, self.epoch, ChunkWanted::Ahead).await {
                Ok(entry) => self.state.borrow_mut().free.push(Chunk::new(entry)),
                Err(PoolError::NoSpace(_)) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(self.state.borrow().free.iter().filter(|c| self.is_live(&c.entry)).count() >= count)
    }

    /// `chunk` is full or has a bad member: it is kept for replay up to `last_lsn`.
    pub(crate) fn retire(&self, chunk: Chunk, last_lsn: Lsn) {
        let mut s = self.state.borrow_mut();
        s.active = false;
        s.used.push_back((chunk, last_lsn));
    }
    /// `chunk` holds nothing that counts.
    pub(crate) fn discard(&self, chunk: Chunk) {
        let mut s = self.state.borrow_mut();
        s.active = false;
        s.spent.push_back(chunk);
    }
    /// Every used chunk holds nothing that counts: all was copied.
    pub(crate) fn discard_used(&self, ids: &[ChunkId]) {
        let mut s = self.state.borrow_mut();
        let (gone, kept) =
            std::mem::take(&mut s.used).into_iter().partition(|(c, _)| ids.contains(&c.entry.id));
        s.used = kept;
        let gone: VecDeque<(Chunk, Lsn)> = gone;
        s.spent.extend(gone.into_iter().map(|(c, _)| c));
    }
    /// A durable checkpoint needs nothing below `replay_from`.
    pub(crate) fn checkpointed(&self, replay_from: Lsn) {
        let mut s = self.state.borrow_mut();
        s.replay_from = s.replay_from.max(replay_from);
        while s.used.front().is_some_and(|(_, last)| *last < s.replay_from) {
            if let Some((chunk, _)) = s.used.pop_front() {
                s.spent.push_back(chunk);
            }
        }
    }
    /// Sends what is spent through the root, and asks it for more where clients run short. One task at a time calls this.
    pub(crate) async fn recycle(&self) -> Result<()> {
        loop {
            let next = {
                let mut s = self.state.borrow_mut();
                let at = s.spent.iter().position(|c| c.writes.get() == 0);
                at.and_then(|at| s.spent.remove(at))
            };
            let Some(chunk) = next else { break };
            self.exchange(chunk).await?;
            self.stats.borrow_mut().chunks_recycled += 1;
        }
        while self.wants_more() {
            match self.root.grant_chunk(self.shard, self.epoch, ChunkWanted::Ahead).await {
                Ok(entry) => self.state.borrow_mut().free.push(Chunk::new(entry)),
                Err(PoolError::NoSpace(_)) => self.state.borrow_mut().refused = true,
                Err(e) => return Err(e),
            }
            self.freed.notify_all();
        }
        Ok(())
    }
    /// Free chunks with members on drives that are out are exchanged for whole ones.
    async fn exchange_degraded(&self) -> Result<()> {
        loop {
            let next = {
                let mut s = self.state.borrow_mut();
                let at = s.free.iter().position(|c| !self.is_live(&c.entry) && c.writes.get() == 0);
                at.map(|at| s.free.remove(at))
            };
            let Some(chunk) = next else { return Ok(()) };
            match self.exchange(chunk).await {
                Err(PoolError::NoSpace(_)) => return Ok(()),
                done => done?,
            }
        }
    }
    async fn exchange(&self, chunk: Chunk) -> Result<()> {
        match self.root.grant_chunk(self.shard, self.epoch, ChunkWanted::InPlaceOf(chunk.entry.id)).await {
            Ok(entry) => {
                let mut s = self.state.borrow_mut();
                s.free.push(Chunk::new(entry));
                s.refused = false;
                drop(s);
                self.freed.notify_all();
                Ok(())
            }
            Err(e) => {
                self.state.borrow_mut().spent.push_back(chunk);
                Err(e)
            }
        }
    }
}
