//! Putting servers into the list, and taking them out.

use crate::boot::BootDesk;
use crate::clock::Clock;
use crate::error::{ProvisionError, Result};
use crate::node::{BmcAddress, Identity, Node, NodeName};
use crate::state::State;
use crate::store::NodeStore;
use std::sync::Arc;

pub struct List {
    pub store: Arc<dyn NodeStore>,
    pub boot: BootDesk,
    pub clock: Arc<dyn Clock>,
}

/// An entry that is in the way of a new one.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("{what} is that of node {other} already; remove that one first, or use `basalt node replace`")]
    Twin { what: String, other: NodeName },
    #[error(transparent)]
    List(#[from] ProvisionError),
}

impl List {
    /// A new entry. One server has one entry, and one BMC address too.
    pub async fn add(&self, mut node: Node) -> std::result::Result<Node, AddError> {
        for other in self.store.all().await? {
            if other.state == State::Removed || other.name == node.name {
                continue;
            }
            let what = match () {
                _ if other.bmc.url == node.bmc.url => format!("the BMC address {}", node.bmc.url),
                _ if other.identity.same(&node.identity) => match node.identity.serial.as_str() {
                    "" => "its UUID".to_owned(),
                    serial => format!("serial number {serial}"),
                },
                _ => continue,
            };
            return Err(AddError::Twin { what, other: other.name });
        }
        self.store.add(&mut node).await?;
        Ok(node)
    }

    /// From any state. The boot service gives it nothing from now on; on the server itself nothing is changed.
    pub async fn remove(&self, name: &NodeName, cause: &str) -> Result<Node> {
        let _claim = self.store.claim(name).await?;
        let mut node = self.get(name).await?;
        // First: a crash in between leaves an entry that can be removed again, never a server that still boots.
        self.boot.forget(&node).await?;
        if node.state != State::Removed {
            node.become_state(State::Removed, cause, self.clock.now_s())?;
            self.store.put(&mut node).await?;
        }
        Ok(node)
    }

    /// Other hardware under the same name, or the same behind another BMC: inspected anew before anything is done with it.
    pub async fn replace(&self, name: &NodeName, bmc: BmcAddress, identity: Identity) -> Result<Node> {
        let _claim = self.store.claim(name).await?;
        let mut node = self.get(name).await?;
        for other in self.store.all().await? {
            if other.name != *name && other.state != State::Removed && other.identity.same(&identity) {
                return Err(ProvisionError::Invalid(format!(
                    "serial number {} is that of node {} already; remove that one first",
                    identity.serial, other.name
                )));
            }
        }
        self.boot.forget(&node).await?;
        let now_s = self.clock.now_s();
        let cause = format!(
            "replaced: serial number {} instead of {}",
            or_unknown(&identity.serial),
            or_unknown(&node.identity.serial)
        );
        node.bmc = bmc;
        node.identity = identity;
        node.macs.clone_from(&node.wanted.macs);
        node.wanted.install_drive = None;
        // What was allowed for the old drives does not hold for the new ones.
        node.wanted.wipe.clear();
        match node.state {
            State::Discovered => {
                node.work = crate::node::Work::default();
                node.remember(now_s, &cause);
            }
            _ => node.become_state(State::Discovered, &cause, now_s)?,
        }
        self.store.put(&mut node).await?;
        Ok(node)
    }

    /// Provisions a running node anew the next time.
    pub async fn again(&self, name: &NodeName, cause: &str) -> Result<Node> {
        let _claim = self.store.claim(name).await?;
        let mut node = self.get(name).await?;
        node.become_state(State::Discovered, cause, self.clock.now_s())?;
        self.store.put(&mut node).await?;
        Ok(node)
    }

    /// Changes what a node shall become, while nobody works on it.
    pub async fn change(&self, name: &NodeName, change: impl FnOnce(&mut Node) + Send) -> Result<Node> {
        let _claim = self.store.claim(name).await?;
        let mut node = self.get(name).await?;
        change(&mut node);
        self.store.put(&mut node).await?;
        Ok(node)
    }

    async fn get(&self, name: &NodeName) -> Result<Node> {
        self.store.get(name).await?.ok_or_else(|| ProvisionError::NoSuchNode(name.clone()))
    }
}

fn or_unknown(serial: &str) -> &str {
    if serial.is_empty() { "unknown" } else { serial }
}
