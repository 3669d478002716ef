//! The trait that a driver implements, and what it speaks of.

use crate::desired::Desired;
use crate::error::Result;
use crate::names::{DeviceName, InterfaceName};
use crate::plan::{self, Plan};
use crate::state::{Kind, SwitchState};
use crate::verify::{self, Finding};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How a switch takes a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transaction {
    /// Change by change; one that dies in the middle leaves a part, which the next plan finds (RESTCONF).
    None,
    /// All or nothing, and at once for good (gNMI Set, MULTI/EXEC, OVSDB transact).
    Atomic,
    /// All or nothing, and taken back by the switch itself unless confirmed in time (EOS sessions, NVUE revisions).
    CommitTimer,
}

/// What a driver can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub transaction: Transaction,
    /// Kinds that this system has no notion of; they are left out of plans with a note.
    pub unsupported: BTreeSet<Kind>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub vendor: String,
    pub model: String,
    pub serial: String,
    pub os_version: String,
    /// Name it gives itself (and sends by LLDP).
    pub host_name: String,
}

/// What LLDP heard at a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    pub port: InterfaceName,
    /// System name; the chassis id where none is sent.
    pub device: String,
    /// Port id, where that is a name; else the port description.
    pub device_port: String,
    /// Port description, as a second way to tell the far port.
    pub description: String,
}

/// How a port stands at this moment, as opposed to how it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub up: bool,
    pub speed_gbps: Option<u32>,
    pub mtu_bytes: Option<u32>,
    pub fec: Option<crate::intent::Fec>,
}

/// Everything that is read from a switch in one go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// What is configured.
    pub state: SwitchState,
    pub neighbours: Vec<Neighbour>,
    pub links: BTreeMap<InterfaceName, LinkStatus>,
    /// Data interfaces by which the driver's own session comes in, as far as the switch tells; empty when that is a management
    /// port.
    pub management: BTreeSet<InterfaceName>,
}

/// How a plan is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    /// With [`Transaction::CommitTimer`]: the switch takes the change back after this long without [`Switch::confirm`].
    pub hold: Duration,
}

/// A plan in force and not yet confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Session, revision, ... by which the driver confirms or takes back.
    pub id: String,
    pub plan: Plan,
}

/// One switch. Drivers hold their connection settings and connect when asked; every call is bounded in time and size by them.
///
/// The life of a change: `read`, `plan`, `apply`, then the engine watches whether the switch still answers (`discover`) and still
/// hears its neighbours (`read`), then `confirm` or `roll_back`.
#[async_trait]
pub trait Switch: Send + Sync {
    fn name(&self) -> &DeviceName;

    fn capabilities(&self) -> Capabilities;

    /// Who answers, over a *fresh* connection: the proof that the management path stands. Refuses versions that the driver
    /// does not know.
    async fn discover(&self) -> Result<Identity>;

    async fn read(&self) -> Result<Observed>;

    /// What turns `actual` into `desired`. The default is right for every system whose `read` keeps the rules of
    /// [`SwitchState`].
    fn plan(&self, actual: &SwitchState, desired: &Desired) -> Plan {
        plan::plan(actual, desired, &self.capabilities())
    }

    /// Puts `plan` in force, in its order, in one transaction where the system has them. Errors: [`Cause::Interrupted`] where
    /// only a part went through; a transient one ([`Cause::is_transient`]) where it is not known whether it did (the engine then
    /// looks); any other where nothing is in force. It is never retried after the request that commits.
    ///
    /// [`Cause::Interrupted`]: crate::Cause::Interrupted
    /// [`Cause::is_transient`]: crate::Cause::is_transient
    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending>;

    /// Ends the commit timer and makes the change last over a restart of the switch.
    async fn confirm(&self, pending: &Pending) -> Result<()>;

    /// What a person has still to do at the switch for a change to outlast its restart, where [`Self::confirm`] cannot ask for that.
    fn to_last(&self) -> Option<String> {
        None
    }

    /// Takes back what `apply` did: by the switch's own means where it has them, else by the plan's inverse.
    /// May be asked again when its answer was lost.
    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        let options = ApplyOptions { hold: Duration::ZERO };
        let back = self.apply(&pending.plan.inverse(), options).await?;
        self.confirm(&back).await
    }

    /// Where the switch is not as wanted, configured or running.
    async fn verify(&self, desired: &Desired) -> Result<Vec<Finding>> {
        let observed = self.read().await?;
        let plan = self.plan(&observed.state, desired);
        Ok(verify::switch(&plan, &observed, desired))
    }

    async fn counters(&self) -> Result<Counters>;
}

/// Counters since the switch counts; the difference of two readings tells what happens now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub ports: BTreeMap<InterfaceName, PortCounters>,
}

impl Counters {
    /// What was counted since `earlier`. A counter that went back (restart, cleared) counts from zero; a port that was not there
    /// then says nothing yet.
    pub fn since(&self, earlier: &Self) -> Self {
        let known = self.ports.iter().filter_map(|(name, now)| Some((name, now, earlier.ports.get(name)?)));
        let ports = known.map(|(name, now, was)| (name.clone(), now.since(was)));
        Self { ports: ports.collect() }
    }
}

/// Zero where the system has no such counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_discards: u64,
    pub tx_discards: u64,
    pub fcs_errors: u64,
    pub fec_corrected: u64,
    pub fec_uncorrectable: u64,
    /// By priority and queue number.
    pub queues: BTreeMap<u8, QueueCounters>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounters {
    pub tx_packets: u64,
    pub dropped_packets: u64,
    pub ecn_marked_packets: u64,
    pub pfc_rx_frames: u64,
    pub pfc_tx_frames: u64,
    pub watchdog_storms: u64,
}

macro_rules! difference {
    ($now:ident - $was:ident: $type:ident { $($field:ident),* } $(, $rest:ident: $value:expr)?) => {
        $type {
            $($field: if $now.$field >= $was.$field { $now.$field - $was.$field } else { $now.$field },)*
            $($rest: $value)?
        }
    };
}

impl PortCounters {
    fn since(&self, was: &Self) -> Self {
        let none = QueueCounters::default();
        let queue = |(n, now): (&u8, &QueueCounters)| (*n, now.since(was.queues.get(n).unwrap_or(&none)));
        difference!(self - was: PortCounters {
            rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_discards, tx_discards, fcs_errors,
            fec_corrected, fec_uncorrectable
        }, queues: self.queues.iter().map(queue).collect())
    }
}

impl QueueCounters {
    fn since(&self, was: &Self) -> Self {
        difference!(self - was: QueueCounters {
            tx_packets, dropped_packets, ecn_marked_packets, pfc_rx_frames, pfc_tx_frames, watchdog_storms
        })
    }
}
