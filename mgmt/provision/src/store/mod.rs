//! Where the list is kept: behind a trait, so that a cluster can keep the same states in its log.

mod file;
mod memory;

pub use file::FileStore;
pub(crate) use file::replace;
pub use memory::MemoryStore;

use crate::error::Result;
use crate::node::{Node, NodeName};
use async_trait::async_trait;

/// A data hall.
pub const MAX_NODES: usize = 10_000;

/// Held while somebody works on a node; given back when it is dropped, and when its process dies.
pub trait Claim: Send + Sync {}

/// The list of servers. A change is durable when its call returns, and happens whole or not at all.
#[async_trait]
pub trait NodeStore: Send + Sync {
    /// In the order of their names.
    async fn all(&self) -> Result<Vec<Node>>;
    async fn get(&self, name: &NodeName) -> Result<Option<Node>>;
    /// A new node; refused where there is one of that name, unless that one was removed.
    async fn add(&self, node: &mut Node) -> Result<()>;
    /// Replaces the node of the same name and counts `revision` up; refused where the stored one has another revision.
    async fn put(&self, node: &mut Node) -> Result<()>;
    /// Forgets everything about it. False: there was none.
    async fn forget(&self, name: &NodeName) -> Result<bool>;
    /// The right to drive this node, for one command at a time.
    async fn claim(&self, name: &NodeName) -> Result<Box<dyn Claim>>;
}
