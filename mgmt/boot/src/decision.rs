//! What a node is to do when it boots.

use crate::error::Result;
use crate::node::NodeId;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Boot over the network and write Basalt to the node's own disk.
    Install,
    /// Run from memory; nothing is written to the node's boot disk.
    Diskless,
    /// Boot what is on the node's own disk.
    Local,
    /// Get nothing: no address, no image. The attempt is recorded.
    Quarantine,
}

impl Action {
    pub const ALL: [Action; 4] = [Action::Install, Action::Diskless, Action::Local, Action::Quarantine];

    pub fn name(self) -> &'static str {
        match self {
            Action::Install => "install",
            Action::Diskless => "diskless",
            Action::Local => "local",
            Action::Quarantine => "quarantine",
        }
    }

    /// Gets an image over the network.
    pub fn boots_image(self) -> bool {
        matches!(self, Action::Install | Action::Diskless)
    }
}

impl std::str::FromStr for Action {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Action, String> {
        let found = Action::ALL.into_iter().find(|a| a.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of install, diskless, local, quarantine"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    #[serde(flatten)]
    pub node: NodeId,
    pub action: Action,
    /// None: the newest image there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With [`Action::Install`]: serial number or path of the disk to install on. None: the node chooses where there is no doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// With [`Action::Install`]: what is on that disk may go. Never outlives one installation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wipe: bool,
    /// A word for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub decided_s: u64,
}

impl Decision {
    /// What follows once the node has installed: it boots its disk, with the version that is on it. None where nothing was to be
    /// installed.
    pub fn once_installed(&self, now_s: u64) -> Option<Decision> {
        (self.action == Action::Install).then(|| Decision {
            action: Action::Local,
            disk: None,
            wipe: false,
            decided_s: now_s,
            ..self.clone()
        })
    }
}

/// The decisions that were made; nodes without one get the service's default. One per node.
#[async_trait]
pub trait Decisions: Send + Sync {
    /// Replaces what was decided for the node before. Durable when it returns.
    async fn decide(&self, decision: Decision) -> Result<()>;
    /// Back to the default. False: there was no decision.
    async fn forget(&self, node: &NodeId) -> Result<bool>;
    /// The newest of those that match: a node with several ports may have one for each, and one of its ports may have installed since.
    async fn for_node(&self, node: &NodeId) -> Result<Option<Decision>>;
    /// The node says that it has installed: every `install` that was decided for it becomes what follows it
    /// ([`Decision::once_installed`]). Durable when it returns, and nothing that was decided meanwhile is lost. How many changed.
    async fn installed(&self, node: &NodeId, now_s: u64) -> Result<usize>;
    async fn all(&self) -> Result<Vec<Decision>>;
}
