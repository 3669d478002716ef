//! For tests, and for tools that need no list on disk.

use super::{Claim, MAX_NODES, NodeStore};
use crate::error::{ProvisionError, Result};
use crate::node::{Node, NodeName};
use crate::state::State;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeName, Node>,
    claimed: BTreeSet<NodeName>,
}

struct Held(MemoryStore, NodeName);

impl Claim for Held {}
impl Drop for Held {
    fn drop(&mut self) {
        self.0.inner().claimed.remove(&self.1);
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[async_trait]
impl NodeStore for MemoryStore {
    async fn all(&self) -> Result<Vec<Node>> {
        Ok(self.inner().nodes.values().cloned().collect())
    }

    async fn get(&self, name: &NodeName) -> Result<Option<Node>> {
        Ok(self.inner().nodes.get(name).cloned())
    }

    async fn add(&self, node: &mut Node) -> Result<()> {
        let mut inner = self.inner();
        may_add(inner.nodes.get(&node.name), inner.nodes.len(), node)?;
        inner.nodes.insert(node.name.clone(), node.clone());
        Ok(())
    }

    async fn put(&self, node: &mut Node) -> Result<()> {
        let mut inner = self.inner();
        may_put(inner.nodes.get(&node.name), node)?;
        inner.nodes.insert(node.name.clone(), node.clone());
        Ok(())
    }

    async fn forget(&self, name: &NodeName) -> Result<bool> {
        Ok(self.inner().nodes.remove(name).is_some())
    }

    async fn claim(&self, name: &NodeName) -> Result<Box<dyn Claim>> {
        match self.inner().claimed.insert(name.clone()) {
            true => Ok(Box::new(Held(self.clone(), name.clone()))),
            false => Err(ProvisionError::Claimed(name.clone())),
        }
    }
}

/// The rules of [`NodeStore::add`]; gives the node its revision.
pub(super) fn may_add(known: Option<&Node>, count: usize, node: &mut Node) -> Result<()> {
    match known {
        Some(known) if known.state != State::Removed => Err(ProvisionError::Exists(node.name.clone())),
        None if count >= MAX_NODES => Err(ProvisionError::Full(count)),
        _ => {
            node.revision = known.map_or(0, |k| k.revision) + 1;
            Ok(())
        }
    }
}

/// The rules of [`NodeStore::put`]; counts the node's revision up.
pub(super) fn may_put(known: Option<&Node>, node: &mut Node) -> Result<()> {
    match known {
        None => Err(ProvisionError::NoSuchNode(node.name.clone())),
        Some(known) if known.revision != node.revision => Err(ProvisionError::Changed(node.name.clone())),
        Some(_) => {
            node.revision += 1;
            Ok(())
        }
    }
}
