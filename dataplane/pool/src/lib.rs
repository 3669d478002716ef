//! The pool: drives with labels, a root log that knows them all, and for every shard a journal and segments of
//! erasure-coded stripes. Nothing here knows files or protocols.
//!
//! * [`Pool`] is a reactor's handle: create, import, status, the root's key-value area, shards.
//! * [`store::ShardStore`] is what one shard's owner writes through: journal, stripes, reads, live-space accounts.

pub mod catalogue;
pub mod inspect;
pub mod planted;
pub mod store;
pub mod types;

mod allocate;
mod create;
mod geometry;
mod import;
mod label;
mod pool;
mod probe;
mod record;
mod root;
mod rootlog;
mod scan;
mod shared;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use allocate::CHUNKS_PER_SHARD;
pub use create::MAX_DRIVES;
pub use geometry::MIN_DRIVE_BYTES;
pub use import::{FoundPool, discover};
pub use pool::*;
pub use record::{MAX_META_KEY_BYTES, MAX_META_VALUE_BYTES};
pub use root::MAX_SEGMENTS_PER_GRANT;
pub use status::*;
pub use types::*;
