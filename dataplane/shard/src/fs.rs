//! A mounted file system: its slot map, and the routing of each operation to the reactor that owns the shard.

use crate::vfs::*;
use basalt_pool::{Pool, PoolRef};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FsSpec {
    pub name: String,
    /// Number of shards, fixed for the life of the file system (default 16).
    pub shards: u16,
}

/// One reactor's handle; cheap to clone.
#[derive(Clone)]
pub struct FileSystem {}

/// Sendable; [`FileSystemRef::attach`] makes a handle on another reactor.
#[derive(Clone)]
pub struct FileSystemRef {}
impl FileSystemRef {
    pub fn attach(&self) -> FileSystem {
        todo!()
    }
}

/// As listed by `basalt fs list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FsInfo {
    pub name: String,
    /// UUID in the usual form.
    pub id: String,
    pub shards: u16,
    pub mounted: bool,
}

impl FileSystem {
    /// Writes the file system's record (root log key `fs/NAME`), its shards and its root directory.
    pub async fn create(_pool: &Pool, _spec: &FsSpec) -> Result<(), basalt_pool::PoolError> {
        todo!()
    }
    pub async fn list(_pool: &Pool) -> Result<Vec<FsInfo>, basalt_pool::PoolError> {
        todo!()
    }
    /// Deals the shards to the reactors present, opens them all in parallel and finishes transactions a crash cut.
    pub async fn mount(_pool: &PoolRef, _name: &str) -> Result<FileSystem, basalt_pool::PoolError> {
        todo!()
    }
    /// Flushes everything and closes the shards.
    pub async fn unmount(&self) -> Result<(), basalt_pool::PoolError> {
        todo!()
    }
    /// Refused while mounted.
    pub async fn destroy(_pool: &Pool, _name: &str) -> Result<(), basalt_pool::PoolError> {
        todo!()
    }
    pub fn to_ref(&self) -> FileSystemRef {
        todo!()
    }
    /// The object protocols talk to.
    pub fn vfs(&self) -> std::rc::Rc<dyn Vfs> {
        todo!()
    }
}
