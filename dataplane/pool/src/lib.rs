//! The pool: drives with labels, a root log that knows them all, and for every shard a journal and segments of
//! erasure-coded stripes. Nothing here knows files or protocols.
//!
//! * [`Pool`] is a reactor's handle: create, import, status, the root's key-value area, shards.
//! * [`store::ShardStore`] is what one shard's owner writes through: journal, stripes, reads, live-space accounts.

pub mod planted;
pub mod store;
pub mod types;

mod pool;

pub use pool::*;
pub use types::*;
