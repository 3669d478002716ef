//! What one shard writes through, on its owner's reactor: a journal, stripes, reads, and the account of live blocks.
//!
//! The order of durability is the caller's to use: [`ShardStore::write`] returns with the stripe durable, its
//! [`StripeRecord`] then goes into the caller's next journal record together with the extents that point into it, and
//! a reply waits for [`ShardStore::wait_durable`] of that record.
//!
//! Accounts change only through `apply_*`, which the caller calls in the same breath as `append` and again, record by
//! record, during replay, so that they are always exactly what the journal says.

mod account;
mod checksum;
mod chunks;
mod footer;
pub(crate) mod inspect;
mod journal;
mod journal_block;
mod layout;
mod read;
mod recovery;
mod root;
mod segment;
mod stats;
mod stripe;
mod tidy;
mod write;

#[cfg(test)]
mod tests;

pub use footer::FooterEntry;
pub use stats::StoreStats;
pub use stripe::StripeRecord;

pub(crate) use root::Root;

use crate::pool::Pool;
use crate::types::*;
use account::{Accounts, Checkpoint};
use basalt_reactor::spawn;
use basalt_reactor::sync::{Mutex, Notify};
use bytes::Bytes;
use checksum::{BLOCK, ChecksumCache};
use chunks::Chunks;
use journal::{Journal, Resume};
use journal_block::{Identity, MAX_BLOCK_BYTES, RecordKind, Tail};
use recovery::Recovered;
use segment::{Phase, Segment};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What was found when the shard was opened.
pub struct Recovery {
    /// Payload of the newest checkpoint.
    pub checkpoint: Option<Bytes>,
    /// LSN of that checkpoint record (0 when there is none).
    pub checkpoint_lsn: Lsn,
    /// Every record from the checkpoint's `replay_from` on, the checkpoint record itself left out.
    pub records: Vec<(Lsn, Bytes)>,
}

/// Footer entry: whose bytes these blocks are. For reclaim and salvage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Inode number, or 0 for the shard's own sorted runs.
    pub inode: u64,
    /// Byte offset in that inode (or run).
    pub offset: u64,
}

/// A run of whole blocks to be stored contiguously as far as columns allow.
pub struct Piece {
    pub owner: Owner,
    /// Each a multiple of 4 KiB.
    pub data: Vec<Bytes>,
}

/// Where one part of a piece went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub at: BlockAddr,
    pub blocks: u32,
}

pub struct Written {
    /// One or more stripes; all go into the caller's record.
    pub stripes: Vec<StripeRecord>,
    /// Per piece, in order, the runs that hold it, in order.
    pub placed: Vec<Vec<Placed>>,
}

/// Largest record of the caller. With its framing and the block's header it fits one block, and a block fits every chunk.
pub const MAX_RECORD_BYTES: usize = (1 << 20) + (64 << 10);
const _: () = assert!(MAX_RECORD_BYTES + (4 << 10) < MAX_BLOCK_BYTES);
/// Largest payload of a checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = 256 << 10;

/// LSNs that a new owner leaves out, so that none that was ever shown, be it by an unstable attribute, comes again. The
/// queue of records not yet durable is far shorter.
const LSN_GAP: u64 = 1 << 20;
/// Width taken for granted until the first segment of this owner is there.
const SCHEME_GUESS: Scheme = Scheme { k: 4, m: 2 };

/// A shard's store. Methods take `&self`; share it by `Rc` among the shard's tasks.
pub struct ShardStore {
    inner: Rc<Inner>,
}

/// What the store's own tasks share with it.
pub(crate) struct Inner {
    root: Rc<dyn Root>,
    shard: ShardId,
    epoch: Epoch,
    geometry: Geometry,
    journal: Rc<Journal>,
    accounts: RefCell<Accounts>,
    cache: RefCell<ChecksumCache>,
    stats: Rc<RefCell<StoreStats>>,
    /// Scheme of the newest segment.
    scheme: Cell<Scheme>,
    /// One request for segments of a class at a time, indexed by [`Class`].
    granting: [Mutex<()>; 2],
    reclaiming: Mutex<()>,
    /// Drives that failed a read, to be taken out.
    suspects: RefCell<BTreeMap<DriveIndex, String>>,
    /// Wakes the tidying task.
    bell: Rc<Notify>,
    closed: Cell<bool>,
}

impl Inner {
    fn segment(&self, id: SegmentId) -> Option<Rc<Segment>> {
        self.accounts.borrow().get(id).cloned()
    }
    fn suspect(&self, drive: DriveIndex, cause: String) {
        self.suspects.borrow_mut().insert(drive, cause);
        self.bell.notify_all();
    }
}

impl ShardStore {
    /// Takes ownership under a new epoch: finds the journal's longest valid chain, copies it to a full set where members are
    /// missing, and returns what to replay. The caller replays (calling `apply_*`) and then calls `start`.
    pub async fn open(pool: &Pool, shard: ShardId) -> Result<(ShardStore, Recovery)> {
        Self::open_on(Rc::new(pool.clone()), shard).await
    }

    pub(crate) async fn open_on(root: Rc<dyn Root>, shard: ShardId) -> Result<(ShardStore, Recovery)> {
        let grant = root.grant_shard(shard).await?;
        let identity = Identity { pool: root.uuid(), shard };
        let recovered = recovery::recover(&*root, &identity, grant.chunks).await?;
        if recovered.chain.is_empty() && !grant.segments.is_empty() {
            return Err(PoolError::Corrupt(format!(
                "shard {shard} has {} segments but no journal was found in its chunks",
                grant.segments.len()
            )));
        }
        let bell = Rc::new(Notify::new());
        let stats = Rc::new(RefCell::new(StoreStats::default()));
        let geometry = root.geometry();
        let mut accounts = Accounts::new();
        let mut scheme = SCHEME_GUESS;
        for entry in grant.segments {
            scheme = entry.scheme;
            accounts.insert(Rc::new(Segment::new(entry, &geometry, Phase::Sealed, bell.clone())));
        }
        let recovery = restore(&recovered, &mut accounts, shard)?;
        let journal = take_over(&root, identity, grant.epoch, recovered, &bell, &stats).await?;
        let inner = Inner {
            root,
            shard,
            epoch: grant.epoch,
            geometry,
            journal,
            accounts: RefCell::new(accounts),
            cache: RefCell::new(ChecksumCache::new()),
            stats,
            scheme: Cell::new(scheme),
            granting: [Mutex::new(()), Mutex::new(())],
            reclaiming: Mutex::new(()),
            suspects: RefCell::new(BTreeMap::new()),
            bell,
            closed: Cell::new(false),
        };
        Ok((ShardStore { inner: Rc::new(inner) }, recovery))
    }

    /// End of replay: segments that hold nothing live and are not open go back to the root.
    pub async fn start(&self) -> Result<()> {
        {
            let mut accounts = self.inner.accounts.borrow_mut();
            let segments: Vec<Rc<Segment>> = accounts.segments.values().cloned().collect();
            for segment in segments {
                if segment.state().live == 0 {
                    // Nobody will read it: its checksums need no place on media.
                    segment.state_mut().rows.clear();
                }
                accounts.note(&segment);
            }
        }
        self.inner.reclaim().await?;
        spawn(self.inner.clone().tidy());
        Ok(())
    }
    /// Ends the store's own tasks once everything appended is durable. Dropping the store ends them at once.
    pub async fn close(&self) -> Result<()> {
        let result = self.wait_durable(self.last_lsn()).await;
        self.shut();
        result
    }
    fn shut(&self) {
        self.inner.closed.set(true);
        self.inner.journal.close();
        self.inner.bell.notify_all();
    }
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }
    pub fn shard(&self) -> ShardId {
        self.inner.shard
    }
    pub fn stats(&self) -> StoreStats {
        *self.inner.stats.borrow()
    }

    // ---- journal

    /// Queues a record (at most [`MAX_RECORD_BYTES`]) for group commit. Never suspends.
    ///
    /// # Panics
    /// When the record is larger.
    pub fn append(&self, record: &[u8]) -> Lsn {
        assert!(record.len() <= MAX_RECORD_BYTES, "a journal record of {} bytes", record.len());
        self.inner.journal.append(RecordKind::Plain, Bytes::copy_from_slice(record))
    }
    /// LSN of the last record appended.
    pub fn last_lsn(&self) -> Lsn {
        self.inner.journal.last_lsn()
    }
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.journal.durable_lsn()
    }
    /// Returns once `lsn` is durable on all members of its chunk, or with the error that stopped the journal for good.
    pub async fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.inner.journal.wait_durable(lsn).await
    }
    /// Suspends while the journal is too full to take more; callers wait here before they append for a client. What makes
    /// room is a checkpoint, so whoever checkpoints must not wait here; see [`ShardStore::checkpoint_due`].
    pub async fn wait_room(&self) -> Result<()> {
        self.inner.journal.wait_room().await
    }
    /// Bytes of journal that a replay would read now; the caller flushes and checkpoints to bound it.
    pub fn replay_bytes(&self) -> u64 {
        self.inner.journal.replay_bytes()
    }
    /// True when half of the journal that clients may fill is full: time to flush and checkpoint whatever
    /// [`ShardStore::replay_bytes`] says. Small pools have small journals.
    pub fn checkpoint_due(&self) -> bool {
        self.inner.journal.chunks.half_full()
    }
    /// The error that stopped the journal for good.
    pub fn failed(&self) -> Option<PoolError> {
        self.inner.journal.failed()
    }
    /// Appends a checkpoint record with `payload` (at most 256 KiB): state as of now, except that records from `replay_from` on
    /// are still to be replayed. Once it is durable, chunks wholly below `replay_from` are recycled. The accounts
    /// (live blocks, checksums of open rows) are saved along with it by the store itself.
    ///
    /// # Panics
    /// When the payload is larger.
    pub fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn {
        assert!(payload.len() <= MAX_CHECKPOINT_BYTES, "a checkpoint of {} bytes", payload.len());
        let mut accounts = Vec::new();
        self.inner.accounts.borrow().encode(&mut accounts);
        let record = Checkpoint { replay_from, payload, accounts: &accounts }.encode();
        self.inner.journal.append_checkpoint(record.into(), replay_from)
    }

    // ---- data

    /// Writes pieces as whole stripes, durable when it returns. Nothing is referenced until the caller applies and journals the
    /// stripe records. A drive that fails meanwhile is taken out and the stripe written elsewhere.
    pub async fn write(&self, class: Class, pieces: Vec<Piece>) -> Result<Written> {
        self.inner.write(class, pieces).await
    }
    /// Reads and verifies `blocks` blocks from `at`; reconstructs what is missing or fails its checksum.
    pub async fn read(&self, at: BlockAddr, blocks: u32) -> Result<Bytes> {
        self.inner.read(at, blocks).await
    }
    /// Data bytes of one full-height stripe of the current scheme: the best size for `write`.
    pub fn stripe_bytes(&self) -> usize {
        self.direct_threshold_bytes() * layout::UNIT_BLOCKS as usize
    }
    /// From this many bytes on a synchronous write goes straight to a stripe (k x 4 KiB).
    pub fn direct_threshold_bytes(&self) -> usize {
        self.inner.scheme.get().k as usize * BLOCK
    }

    // ---- accounts

    /// The stripe of journal record `lsn` now counts as live, all its data blocks. Ignored when a restored checkpoint covers `lsn`.
    pub fn apply_stripe(&self, lsn: Lsn, stripe: &StripeRecord) {
        self.inner.accounts.borrow().apply_stripe(lsn, stripe);
    }
    /// `blocks` blocks from `at` are no longer referenced as of journal record `lsn`.
    pub fn apply_dead(&self, lsn: Lsn, at: BlockAddr, blocks: u32) {
        if self.inner.accounts.borrow_mut().apply_dead(lsn, at, blocks) {
            self.inner.bell.notify_all();
        }
    }
    /// Data blocks that are referenced, as the journal says.
    pub fn live_blocks(&self) -> u64 {
        self.inner.accounts.borrow().segments.values().map(|s| s.state().live).sum()
    }
    /// Keeps segments from being freed (and so reused) while a read that started before their death runs.
    pub fn pin(&self) -> ReadPin {
        let pin = self.inner.accounts.borrow_mut().pin();
        ReadPin { inner: self.inner.clone(), pin }
    }
}

impl Drop for ShardStore {
    fn drop(&mut self) {
        self.shut();
    }
}

/// See [`ShardStore::pin`].
pub struct ReadPin {
    inner: Rc<Inner>,
    pin: u64,
}
impl Drop for ReadPin {
    fn drop(&mut self) {
        self.inner.accounts.borrow_mut().unpin(self.pin);
        self.inner.bell.notify_all();
    }
}

/// Restores the accounts from the newest checkpoint and says what the caller is to replay.
fn restore(recovered: &Recovered, accounts: &mut Accounts, shard: ShardId) -> Result<Recovery> {
    let mut recovery = Recovery { checkpoint: None, checkpoint_lsn: Lsn(0), records: Vec::new() };
    if let Some((lsn, record)) = &recovered.checkpoint {
        let decoded = Checkpoint::decode(record);
        let Some(()) = decoded.as_ref().and_then(|c| accounts.restore(c.accounts, *lsn)) else {
            return Err(PoolError::Corrupt(format!("shard {shard}: checkpoint {lsn} is malformed")));
        };
        recovery.checkpoint = decoded.map(|c| record.slice_ref(c.payload));
        recovery.checkpoint_lsn = *lsn;
    }
    let replay =
        recovered.records().filter(|r| r.lsn >= recovered.replay_from && r.kind == RecordKind::Plain);
    recovery.records = replay.map(|r| (r.lsn, r.data.clone())).collect();
    Ok(recovery)
}

/// Chunks at a chain's end that together fill no more than this part of one are rewritten at a takeover.
const SHORT_END_PART: usize = 4;

/// Starts the journal of a new epoch and waits until its takeover is durable on a full set of members.
///
/// The old chain stays where it is as far as it is known to be on every member, and what lies beyond is rewritten; so are
/// short chunks at its end, or a node that crashes again and again before it checkpoints would use up a chunk each time.
/// Where members are missing or damaged, everything a replay needs is rewritten, provided the root has the chunks for
/// it; otherwise the old chain keeps serving until the next checkpoint retires it.
async fn take_over(
    root: &Rc<dyn Root>,
    identity: Identity,
    epoch: Epoch,
    recovered: Recovered,
    bell: &Rc<Notify>,
    stats: &Rc<RefCell<StoreStats>>,
) -> Result<Rc<Journal>> {
    let shard = identity.shard;
    let checkpoint = recovered.checkpoint.as_ref().map(|(lsn, _)| (*lsn, recovered.replay_from));
    let needed_from = checkpoint.map_or(Lsn(1), |(lsn, replay_from)| lsn.min(replay_from));
    let next_lsn = if recovered.chain.is_empty() { Lsn(1) } else { Lsn(recovered.last_lsn.0 + LSN_GAP) };
    let degraded = recovered.is_degraded();
    let used = recovered.chain.iter().map(|c| {
        let last = c.blocks.last().map_or(Lsn(0), |b| b.header.last_lsn());
        (c.entry.clone(), last)
    });
    let used: Vec<(ChunkEntry, Lsn)> = used.collect();
    let old: Vec<ChunkId> = used.iter().map(|(c, _)| c.id).collect();
    let chunks = Chunks::new(root.clone(), shard, epoch, recovered.unused.clone(), used, stats.clone());

    let copy_bytes: usize = recovered.chain.iter().map(|c| c.bytes()).sum();
    // A chunk may end a block's length early.
    let per_chunk = chunks.chunk_bytes() as usize - MAX_BLOCK_BYTES.min(chunks.chunk_bytes() as usize / 2);
    let copy = degraded && chunks.reserve(copy_bytes.div_ceil(per_chunk) + 1).await?;
    if degraded && !copy {
        tracing::warn!(%shard, "the journal stays on fewer copies until its next checkpoint: the root has no chunks to copy it to");
    }

    let first_rewritten =
        if copy { 0 } else { recovered.first_of_short_end(chunks.chunk_bytes() as usize / SHORT_END_PART) };

    let mut resume = Resume {
        tail: Tail::beginning(),
        rewrite: Vec::new(),
        next_lsn,
        chunk_seq: recovered.chunk_seq,
        replay: Vec::new(),
        checkpoint,
    };
    let mut kept: Vec<ChunkId> = Vec::new();
    if first_rewritten == 0 {
        resume.rewrite = recovered.records().filter(|r| r.lsn >= needed_from).cloned().collect();
        let before = resume.rewrite.first().map_or(recovered.last_lsn, |r| Lsn(r.lsn.0 - 1));
        resume.tail.last_lsn = before;
    } else {
        for (n, chunk) in recovered.chain.iter().enumerate() {
            for block in &chunk.blocks {
                let last_lsn = block.header.last_lsn();
                if n >= first_rewritten || last_lsn > recovered.committed_lsn {
                    resume.rewrite.extend(block.records.iter().cloned());
                    continue;
                }
                resume.tail = Tail {
                    chunk: Some(chunk.entry.id),
                    members: chunk.entry.members.clone(),
                    end: block.end,
                    last_lsn,
                    crc: block.header.header_crc,
                };
                if last_lsn >= needed_from {
                    resume.replay.push((last_lsn, block.header.block_bytes() as u64));
                }
                if !kept.contains(&chunk.entry.id) {
                    kept.push(chunk.entry.id);
                }
            }
        }
    }
    let journal = Journal::resume(root.clone(), identity, epoch, resume, chunks, bell.clone(), stats.clone());
    if let Err(e) = journal.taken_over().await {
        journal.close();
        return Err(e);
    }
    let void: Vec<ChunkId> = old.into_iter().filter(|id| !kept.contains(id)).collect();
    journal.chunks.discard_used(&void);
    Ok(journal)
}
