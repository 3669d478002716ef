//! What one shard writes through, on its owner's reactor: a journal, stripes, reads, and the account of live blocks.
//!
//! The order of durability is the caller's to use: [`ShardStore::write`] returns with the stripe durable, its
//! [`StripeRecord`] then goes into the caller's next journal record together with the extents that point into it, and
//! a reply waits for [`ShardStore::wait_durable`] of that record.
//!
//! Accounts change only through `apply_*`, which the caller calls in the same breath as `append` and again, record by
//! record, during replay, so that they are always exactly what the journal says.

use crate::pool::Pool;
use crate::types::*;
use bytes::Bytes;

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

/// The journal's word for a stripe: segment, first block, height, checksums of all k+m columns. Opaque to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeRecord {}
impl StripeRecord {
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Consumes from the front of `input`; `None` when malformed.
    pub fn decode(_input: &mut &[u8]) -> Option<StripeRecord> {
        todo!()
    }
}

pub struct Written {
    /// One or more stripes; all go into the caller's record.
    pub stripes: Vec<StripeRecord>,
    /// Per piece, in order, the runs that hold it, in order.
    pub placed: Vec<Vec<Placed>>,
}

/// A shard's store. Methods take `&self`; share it by `Rc` among the shard's tasks.
pub struct ShardStore {}

impl ShardStore {
    /// Takes ownership under a new epoch: finds the journal's longest valid chain, copies it to a full set where members are
    /// missing, and returns what to replay. The caller replays (calling `apply_*`) and then calls `start`.
    pub async fn open(_pool: &Pool, _shard: ShardId) -> Result<(ShardStore, Recovery)> {
        todo!()
    }
    /// End of replay: segments that hold nothing live and are not open go back to the root.
    pub async fn start(&self) -> Result<()> {
        todo!()
    }
    pub fn epoch(&self) -> Epoch {
        todo!()
    }
    pub fn shard(&self) -> ShardId {
        todo!()
    }

    // ---- journal

    /// Queues a record (at most [`MAX_RECORD_BYTES`]) for group commit. Never suspends.
    pub fn append(&self, _record: &[u8]) -> Lsn {
        todo!()
    }
    /// LSN of the last record appended.
    pub fn last_lsn(&self) -> Lsn {
        todo!()
    }
    pub fn durable_lsn(&self) -> Lsn {
        todo!()
    }
    /// Returns once `lsn` is durable on all members of its chunk, or with the error that stopped the journal for good.
    pub async fn wait_durable(&self, _lsn: Lsn) -> Result<()> {
        todo!()
    }
    /// Suspends while the journal is too full to take more; callers wait here before they append for a client.
    pub async fn wait_room(&self) -> Result<()> {
        todo!()
    }
    /// Bytes of journal that a replay would read now; the caller flushes and checkpoints to bound it.
    pub fn replay_bytes(&self) -> u64 {
        todo!()
    }
    /// Appends a checkpoint record with `payload` (at most 256 KiB): state as of now, except that records from `replay_from` on
    /// are still to be replayed. Once it is durable, chunks wholly below `replay_from` are recycled. The accounts
    /// (live blocks, checksums of open rows) are saved along with it by the store itself.
    pub fn checkpoint(&self, _payload: &[u8], _replay_from: Lsn) -> Lsn {
        todo!()
    }

    // ---- data

    /// Writes pieces as whole stripes, durable when it returns. Nothing is referenced until the caller applies and journals the
    /// stripe records. A drive that fails meanwhile is taken out and the stripe written elsewhere.
    pub async fn write(&self, _class: Class, _pieces: Vec<Piece>) -> Result<Written> {
        todo!()
    }
    /// Reads and verifies `blocks` blocks from `at`; reconstructs what is missing or fails its checksum.
    pub async fn read(&self, _at: BlockAddr, _blocks: u32) -> Result<Bytes> {
        todo!()
    }
    /// Data bytes of one full-height stripe of the current scheme: the best size for `write`.
    pub fn stripe_bytes(&self) -> usize {
        todo!()
    }
    /// From this many bytes on a synchronous write goes straight to a stripe (k x 4 KiB).
    pub fn direct_threshold_bytes(&self) -> usize {
        todo!()
    }

    // ---- accounts

    /// The stripe of journal record `lsn` now counts as live, all its data blocks. Ignored when a restored checkpoint covers `lsn`.
    pub fn apply_stripe(&self, _lsn: Lsn, _stripe: &StripeRecord) {
        todo!()
    }
    /// `blocks` blocks from `at` are no longer referenced as of journal record `lsn`.
    pub fn apply_dead(&self, _lsn: Lsn, _at: BlockAddr, _blocks: u32) {
        todo!()
    }
    /// Keeps segments from being freed (and so reused) while a read that started before their death runs.
    pub fn pin(&self) -> ReadPin {
        todo!()
    }
}

/// See [`ShardStore::pin`].
pub struct ReadPin {}

pub const MAX_RECORD_BYTES: usize = 2 << 20;
