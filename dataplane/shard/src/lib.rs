//! The file system: a namespace split into shards, each owned by one reactor at a time.
//!
//! * [`vfs`]: what front ends may ask; [`FileSystem`] implements it by routing to shards.
//! * `index`: a shard's ordered keys: memtable, journal records, sorted runs, transactions.
//! * `data`: file contents: page cache, gathered writes, extents, read-ahead.
//! * `ops`: names, attributes, opens, locks, and operations across shards.

pub mod planted;
pub mod vfs;

mod data;
mod fs;
mod index;
mod inode;
mod keys;
mod ops;

pub use fs::{DEFAULT_SHARDS, FileSystem, FileSystemRef, FsInfo, FsSpec};
pub use index::small_memtables;
