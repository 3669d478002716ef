//! What provisioning asks of a server. [`crate::bmc`] does it by Redfish.

use crate::fault::Fault;
use crate::node::{BootVia, Identity, Node};
use async_trait::async_trait;
use basalt_inventory::Record;

/// The way to the servers of the list.
#[async_trait]
pub trait Servers: Send + Sync {
    /// Opens the BMC of `node` and asks who it is; nothing is changed there. The engine compares the answer with the list before it
    /// does anything else.
    async fn connect(&self, node: &Node) -> Result<Box<dyn Server>, Fault>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    On,
    Off,
    /// On its way, or the BMC does not say.
    Unknown,
}

/// What the BMC says of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateState {
    Running { percent: Option<u32> },
    Done,
    Failed { why: String },
}

/// Where the firmware looks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootSource {
    Network {
        via: BootVia,
        /// At every start; else at the next one alone.
        always: bool,
    },
    /// What its own boot order says.
    Normal,
}

/// One server whose BMC answers. Every call can be made again after a crash: it either has no further effect or the engine looks first.
#[async_trait]
pub trait Server: Send + Sync {
    fn identity(&self) -> &Identity;
    async fn inspect(&self) -> Result<Record, Fault>;
    async fn power(&self) -> Result<Power, Fault>;
    /// Switches it on where it is off, restarts it where it is on.
    async fn start_anew(&self) -> Result<(), Fault>;
    async fn set_boot(&self, source: &BootSource) -> Result<(), Fault>;
    /// Whether the next start goes where `source` says, as the BMC shows it.
    async fn boots_from(&self, source: &BootSource) -> Result<bool, Fault>;
    /// Version of a component; None: the BMC has none of that name.
    async fn firmware_version(&self, component: &str) -> Result<Option<String>, Fault>;
    /// Hands a file to the BMC; returns the task to watch.
    async fn begin_update(&self, component: &str, file: &str) -> Result<String, Fault>;
    async fn update_state(&self, task: &str) -> Result<UpdateState, Fault>;
}
