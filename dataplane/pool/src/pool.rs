//! The pool handle of one reactor.

use crate::root::Root;
use crate::shared::{Shared, find_root};
use crate::status::PoolStatus;
use crate::types::*;
use basalt_bdev::{Bdev, DriveRef};
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::sync::Arc;

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
///
/// Requests that change the pool go to the reactor that owns the root (the one that created or imported the pool) and
/// return when they are durable on a quorum of root copies.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    /// This reactor's channels, by drive index.
    channels: Rc<Vec<Option<Rc<dyn Bdev>>>>,
}

/// Sendable reference from which any reactor of the node attaches its own handle.
#[derive(Clone)]
pub struct PoolRef {
    shared: Arc<Shared>,
}
impl PoolRef {
    /// Opens this reactor's drive channels.
    pub async fn attach(&self) -> Result<Pool> {
        Pool::attach(self.shared.clone()).await
    }
}

impl Pool {
    /// Writes labels, root log and journal areas; progress is reported in bytes done, bytes in all.
    pub async fn create(drives: Vec<DriveRef>, spec: &PoolSpec, progress: impl Fn(u64, u64)) -> Result<Pool> {
        crate::create::create(drives, spec, progress).await
    }
    /// Imports the one pool found on `drives`; the calling reactor becomes the root's owner.
    pub async fn import(drives: Vec<DriveRef>) -> Result<Pool> {
        crate::import::import(drives, None).await
    }
    /// As [`Pool::import`] where the drives hold several pools: `which` is the name or UUID of one.
    pub async fn import_named(drives: Vec<DriveRef>, which: &str) -> Result<Pool> {
        crate::import::import(drives, Some(which)).await
    }
    pub(crate) async fn attach(shared: Arc<Shared>) -> Result<Pool> {
        let mut channels = Vec::new();
        let mut failed = Vec::new();
        for n in 0..shared.drives.len() {
            let index = DriveIndex(n as u16);
            channels.push(match shared.usable(index).map(|d| d.open()) {
                Some(Ok(bdev)) => Some(bdev),
                Some(Err(error)) => {
                    failed.push((index, error.to_string()));
                    None
                }
                None => None,
            });
        }
        let pool = Pool { shared, channels: Rc::new(channels) };
        for (index, error) in failed {
            pool.drive_out(index, &format!("opening it: {error}")).await?;
        }
        Ok(pool)
    }
    pub fn to_ref(&self) -> PoolRef {
        PoolRef { shared: self.shared.clone() }
    }
    pub fn uuid(&self) -> Uuid {
        self.shared.uuid
    }
    pub fn name(&self) -> String {
        self.shared.name.clone()
    }
    pub fn geometry(&self) -> Geometry {
        self.shared.layout.geometry
    }
    /// The scheme the pool was made with; new segments may be narrower while drives are out.
    pub fn scheme(&self) -> Scheme {
        self.shared.scheme
    }

    /// Runs `request` on the reactor that owns the root.
    async fn at_root<T, F, Fut>(&self, request: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Root>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
    {
        let key = self.shared.key;
        basalt_reactor::call_on(self.shared.owner, move || async move {
            match find_root(key) {
                Some(root) => request(root).await,
                None => Err(PoolError::Stopped("the pool is closed".into())),
            }
        })
        .await
    }

    /// Durable small values in the root log (file systems, exports, client records). Keys are namespaced by a prefix
    /// such as `fs/`, values at most 64 KiB, all together at most 16 MiB.
    pub async fn meta_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = key.to_vec();
        self.at_root(move |root| async move { root.meta_get(key).await }).await
    }
    /// `None` deletes. All or nothing; durable on a majority of root copies when it returns.
    pub async fn meta_write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        self.at_root(move |root| async move { root.meta_write(changes).await }).await
    }
    pub async fn meta_scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let prefix = prefix.to_vec();
        self.at_root(move |root| async move { root.meta_scan(prefix).await }).await
    }
    /// New shards with their journal chunks.
    pub async fn create_shards(&self, count: u16) -> Result<Vec<ShardId>> {
        self.at_root(move |root| async move { root.create_shards(count).await }).await
    }
    /// Frees all segments and chunks of the shards.
    pub async fn destroy_shards(&self, ids: &[ShardId]) -> Result<()> {
        let ids = ids.to_vec();
        self.at_root(move |root| async move { root.destroy_shards(ids).await }).await
    }
    pub async fn capacity(&self) -> Result<Capacity> {
        self.at_root(move |root| async move { Ok(root.capacity()) }).await
    }
    pub async fn status(&self) -> Result<PoolStatus> {
        self.at_root(move |root| async move { Ok(root.status()) }).await
    }
    /// Takes a drive out by hand or because a request on it failed. From this call on no reactor's handle gives a
    /// channel to it; when it returns the root has recorded it, so that what the drive holds is not trusted when it
    /// returns. A writer that goes on without the drive waits for that before it acknowledges anything.
    pub async fn drive_out(&self, drive: DriveIndex, cause: &str) -> Result<()> {
        self.shared.take_out(drive);
        let cause = cause.to_string();
        self.at_root(move |root| async move { root.drive_out(drive, &cause).await }).await
    }
    /// Grows whenever a drive goes out, on all reactors at once.
    pub fn drive_generation(&self) -> u64 {
        self.shared.generation()
    }
    /// Ends the root's work. Requests from now on fail; what was acknowledged is on the drives.
    pub async fn close(&self) -> Result<()> {
        self.at_root(move |root| async move {
            let settled = root.settled().await;
            root.close().await;
            settled
        })
        .await
    }

    // What `store` needs of the root.

    /// A new epoch for the shard and all that it owns. Open segments of earlier epochs come back sealed.
    pub(crate) async fn grant_shard(&self, id: ShardId) -> Result<ShardGrant> {
        self.at_root(move |root| async move { root.grant_shard(id).await }).await
    }
    /// Up to `count` fresh segments of the widest scheme that fits the live drives. `NoSpace` when not even one.
    pub(crate) async fn grant_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        class: Class,
        count: usize,
    ) -> Result<Vec<SegmentEntry>> {
        self.at_root(move |root| async move { root.grant_segments(shard, epoch, class, count).await }).await
    }
    pub(crate) async fn seal_segment(&self, shard: ShardId, epoch: Epoch, id: SegmentId) -> Result<()> {
        self.at_root(move |root| async move { root.seal_segment(shard, epoch, id).await }).await
    }
    pub(crate) async fn free_segments(
        &self,
        shard: ShardId,
        epoch: Epoch,
        ids: Vec<SegmentId>,
    ) -> Result<()> {
        self.at_root(move |root| async move { root.free_segments(shard, epoch, ids).await }).await
    }
    /// Grants a chunk on live drives.
    pub(crate) async fn grant_chunk(
        &self,
        shard: ShardId,
        epoch: Epoch,
        wanted: ChunkWanted,
    ) -> Result<ChunkEntry> {
        self.at_root(move |root| async move { root.grant_chunk(shard, epoch, wanted).await }).await
    }
    /// `None` while the drive is out or missing.
    pub(crate) fn channel(&self, drive: DriveIndex) -> Option<Rc<dyn Bdev>> {
        self.shared.usable(drive)?;
        self.channels.get(drive.0 as usize)?.clone()
    }
    /// Byte offset of an AU or a journal slot on its drive.
    pub(crate) fn au_offset(&self, au: u32) -> u64 {
        let l = &self.shared.layout;
        l.au_offset + au as u64 * l.geometry.au_bytes
    }
    /// Where a slot of the journal area lies, on every drive.
    pub fn chunk_offset(&self, slot: u32) -> u64 {
        let l = &self.shared.layout;
        l.journal_offset + slot as u64 * l.geometry.chunk_bytes
    }
}

/// Answer of the root to a new owner.
#[derive(Clone, Debug)]
pub struct ShardGrant {
    pub epoch: Epoch,
    pub segments: Vec<SegmentEntry>,
    pub chunks: Vec<ChunkEntry>,
}
