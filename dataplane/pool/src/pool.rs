//! The pool handle of one reactor.

use crate::types::*;
use basalt_bdev::{Bdev, DriveRef};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// What to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolSpec {
    pub name: String,
    /// `None`: the catalogue picks for the drives there are.
    pub scheme: Option<Scheme>,
    /// Overwrite labels and file systems found on the drives.
    pub force: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Capacity {
    /// Bytes of user data that fit in all (scheme overhead, checksums and reserve taken off).
    pub total_bytes: u64,
    /// Bytes of user data that can still be written.
    pub available_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriveState {
    Live,
    /// Taken out by a failure or an operator.
    Out,
    /// Named in the root log, not found at import.
    Missing,
}

/// A reactor's handle. Cheap to clone; not `Send`: hand a [`PoolRef`] to other reactors.
#[derive(Clone)]
pub struct Pool {}

/// Sendable reference from which any reactor of the node attaches its own handle.
#[derive(Clone)]
pub struct PoolRef {}
impl PoolRef {
    /// Opens this reactor's drive channels.
    pub async fn attach(&self) -> Result<Pool> {
        todo!()
    }
}

impl Pool {
    /// Writes labels, root log and journal areas; progress is reported in bytes done, bytes in all.
    pub async fn create(_drives: Vec<DriveRef>, _spec: &PoolSpec, _progress: impl Fn(u64, u64)) -> Result<Pool> {
        todo!()
    }
    /// Imports the one pool found on `drives`; the calling reactor becomes the root's owner.
    pub async fn import(_drives: Vec<DriveRef>) -> Result<Pool> {
        todo!()
    }
    pub fn to_ref(&self) -> PoolRef {
        todo!()
    }
    pub fn uuid(&self) -> Uuid {
        todo!()
    }
    pub fn name(&self) -> String {
        todo!()
    }
    pub fn geometry(&self) -> Geometry {
        todo!()
    }
    /// Durable small values in the root log (file systems, exports, client records). Keys are namespaced by a prefix
    /// such as `fs/`, values at most 64 KiB, all together at most 16 MiB.
    pub async fn meta_get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        todo!()
    }
    /// `None` deletes. All or nothing; durable on a majority of root copies when it returns.
    pub async fn meta_write(&self, _changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        todo!()
    }
    pub async fn meta_scan(&self, _prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        todo!()
    }
    /// New shards with their journal chunks.
    pub async fn create_shards(&self, _count: u16) -> Result<Vec<ShardId>> {
        todo!()
    }
    /// Frees all segments and chunks of the shards.
    pub async fn destroy_shards(&self, _ids: &[ShardId]) -> Result<()> {
        todo!()
    }
    pub async fn capacity(&self) -> Result<Capacity> {
        todo!()
    }
    /// Takes a drive out by hand or because a request on it failed.
    pub async fn drive_out(&self, _drive: DriveIndex, _cause: &str) -> Result<()> {
        todo!()
    }

    // What `store` needs of the root.

    /// A new epoch for the shard and all that it owns. Open segments of earlier epochs come back sealed.
    pub(crate) async fn grant_shard(&self, _id: ShardId) -> Result<ShardGrant> {
        todo!()
    }
    /// Up to `count` fresh segments of the widest scheme that fits the live drives. `NoSpace` when not even one.
    pub(crate) async fn grant_segments(
        &self,
        _shard: ShardId,
        _epoch: Epoch,
        _class: Class,
        _count: usize,
    ) -> Result<Vec<SegmentEntry>> {
        todo!()
    }
    pub(crate) async fn seal_segment(&self, _shard: ShardId, _epoch: Epoch, _id: SegmentId) -> Result<()> {
        todo!()
    }
    pub(crate) async fn free_segments(&self, _shard: ShardId, _epoch: Epoch, _ids: Vec<SegmentId>) -> Result<()> {
        todo!()
    }
    /// Gives `old` back (if any) and grants a chunk on live drives.
    pub(crate) async fn grant_chunk(&self, _shard: ShardId, _epoch: Epoch, _old: Option<ChunkId>) -> Result<ChunkEntry> {
        todo!()
    }
    /// `None` while the drive is out or missing.
    pub(crate) fn channel(&self, _drive: DriveIndex) -> Option<Rc<dyn Bdev>> {
        todo!()
    }
    /// Byte offset of an AU or a journal slot on its drive.
    pub(crate) fn au_offset(&self, _au: u32) -> u64 {
        todo!()
    }
    pub(crate) fn chunk_offset(&self, _slot: u32) -> u64 {
        todo!()
    }
}

/// Answer of the root to a new owner.
#[derive(Clone, Debug)]
pub struct ShardGrant {
    pub epoch: Epoch,
    pub segments: Vec<SegmentEntry>,
    pub chunks: Vec<ChunkEntry>,
}
