//! What a shard asks of the root, as a trait so that the shard's tests can stand on a double.

use crate::pool::{Pool, ShardGrant};
use crate::types::*;
use async_trait::async_trait;
use basalt_bdev::Bdev;
use std::rc::Rc;

/// See the methods of the same names on [`Pool`].
#[async_trait(?Send)]
pub(crate) trait Root {
    fn uuid(&self) -> Uuid;
    fn geometry(&self) -> Geometry;
    async fn grant_shard(&self, id: ShardId) -> Result<ShardGrant>;
    async fn grant_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        class: Class,
        count: usize,
    ) -> Result<Vec<SegmentEntry>>;
    async fn seal_segment(&self, shard: ShardId, epoch: Epoch, id: SegmentId) -> Result<()>;
    async fn free_segments(&self, shard: ShardId, epoch: Epoch, ids: Vec<SegmentId>) -> Result<()>;
    async fn grant_chunk(&self, shard: ShardId, epoch: Epoch, wanted: ChunkWanted) -> Result<ChunkEntry>;
    async fn drive_out(&self, drive: DriveIndex, cause: &str) -> Result<()>;
    fn channel(&self, drive: DriveIndex) -> Option<Rc<dyn Bdev>>;
    fn au_offset(&self, au: u32) -> u64;
    fn chunk_offset(&self, slot: u32) -> u64;
}

#[async_trait(?Send)]
impl Root for Pool {
    fn uuid(&self) -> Uuid {
        Pool::uuid(self)
    }
    fn geometry(&self) -> Geometry {
        Pool::geometry(self)
    }
    async fn grant_shard(&self, id: ShardId) -> Result<ShardGrant> {
        Pool::grant_shard(self, id).await
    }
    async fn grant_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        class: Class,
        count: usize,
    ) -> Result<Vec<SegmentEntry>> {
        Pool::grant_segments(self, shard, epoch, class, count).await
    }
    async fn seal_segment(&self, shard: ShardId, epoch: Epoch, id: SegmentId) -> Result<()> {
        Pool::seal_segment(self, shard, epoch, id).await
    }
    async fn free_segments(&self, shard: ShardId, epoch: Epoch, ids: Vec<SegmentId>) -> Result<()> {
        Pool::free_segments(self, shard, epoch, ids).await
    }
    async fn grant_chunk(&self, shard: ShardId, epoch: Epoch, wanted: ChunkWanted) -> Result<ChunkEntry> {
        Pool::grant_chunk(self, shard, epoch, wanted).await
    }
    async fn drive_out(&self, drive: DriveIndex, cause: &str) -> Result<()> {
        Pool::drive_out(self, drive, cause).await
    }
    fn channel(&self, drive: DriveIndex) -> Option<Rc<dyn Bdev>> {
        Pool::channel(self, drive)
    }
    fn au_offset(&self, au: u32) -> u64 {
        Pool::au_offset(self, au)
    }
    fn chunk_offset(&self, slot: u32) -> u64 {
        Pool::chunk_offset(self, slot)
    }
}
