//! A switch in memory, with faults, for tests of what stands above the drivers.

use crate::error::{Cause, Result};
use crate::intent::Fabric;
use crate::names::{DeviceName, InterfaceName};
use crate::plan::Plan;
use crate::state::{Key, Kind, Object, SwitchState};
use crate::switch::{
    ApplyOptions, Capabilities, Counters, Identity, Neighbour, Observed, Pending, Switch, Transaction,
};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;

/// A clone is the same switch.
#[derive(Clone)]
pub struct Fake {
    name: DeviceName,
    transaction: Transaction,
    inner: Arc<Mutex<Inner>>,
}

/// What the test sees and sets.
#[derive(Default)]
pub struct Inner {
    pub observed: Observed,
    pub counters: Counters,
    /// It does not answer.
    pub dead: bool,
    /// It dies when this many changes of a plan are in force (a transaction: none or all, see `dies_after_commit`).
    pub dies_after: Option<usize>,
    /// A transactional switch takes the change, and dies before it says so.
    pub dies_after_commit: bool,
    /// Changing this object cuts the management path until it is changed back.
    pub path_hangs_on: Option<Key>,
    /// Changing this object loses the neighbours of the port.
    pub neighbours_hang_on: Option<(Key, InterfaceName)>,
    /// Plans that were applied, by their sizes.
    pub applied: Vec<usize>,
    pub confirmed: usize,
    pub rolled_back: usize,
    path_cut: bool,
    lost: Vec<Neighbour>,
    before: Option<(Observed, Instant)>,
}

impl Fake {
    pub fn new(name: &str, transaction: Transaction) -> Self {
        Self { name: name.into(), transaction, inner: Arc::default() }
    }

    /// A switch of `fabric` as it comes from the factory, with all its cables plugged as planned.
    pub fn cabled(fabric: &Fabric, name: &str, transaction: Transaction, ports: usize) -> Self {
        let fake = Self::new(name, transaction);
        let heard = fabric.links_of(&fake.name).map(|(near, far, _)| Neighbour {
            port: near.clone(),
            device: far.device.to_string(),
            device_port: far.port.to_string(),
            description: String::new(),
        });
        let mut inner = fake.inner();
        inner.observed.neighbours = heard.collect();
        inner.observed.state = factory_ports(ports);
        drop(inner);
        fake
    }

    /// Held only for the statement: a second call before the guard is gone waits for ever.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The commit timer runs out whether or not anyone asks.
        if inner.before.as_ref().is_some_and(|(_, until)| Instant::now() >= *until) {
            inner.restore();
        }
        inner
    }

    fn answering(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.inner();
        if inner.dead || inner.path_cut {
            let reason = "connection timed out".to_owned();
            return Err(Cause::Unreachable { endpoint: self.name.to_string(), reason }.at(&self.name));
        }
        Ok(inner)
    }
}

impl Inner {
    fn restore(&mut self) {
        if let Some((before, _)) = self.before.take() {
            self.observed = before;
            self.path_cut = false;
            self.lost.clear();
            self.rolled_back += 1;
        }
    }

    fn change(&mut self, change: &crate::plan::Change) {
        self.observed.state.change(change);
        if self.path_hangs_on.as_ref() == Some(&change.key()) {
            self.path_cut = !self.path_cut;
        }
        if let Some((key, port)) = &self.neighbours_hang_on
            && *key == change.key()
        {
            let here: Vec<Neighbour> = self.observed.neighbours.extract_if(.., |n| &n.port == port).collect();
            if here.is_empty() {
                self.observed.neighbours.append(&mut self.lost);
            } else {
                self.lost.extend(here);
            }
        }
    }
}

#[async_trait]
impl Switch for Fake {
    fn name(&self) -> &DeviceName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { transaction: self.transaction, unsupported: BTreeSet::from([Kind::Dcbx]) }
    }

    async fn discover(&self) -> Result<Identity> {
        drop(self.answering()?);
        Ok(Identity {
            vendor: "Basalt".into(),
            model: "memory".into(),
            serial: "0".into(),
            os_version: "1".into(),
            host_name: self.name.to_string(),
        })
    }

    async fn read(&self) -> Result<Observed> {
        Ok(self.answering()?.observed.clone())
    }

    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending> {
        let mut inner = self.answering()?;
        let total = plan.changes.len();
        let dies_after = inner.dies_after.take().filter(|n| *n < total);
        let gone = || Cause::Unreachable { endpoint: "memory".into(), reason: "connection reset".into() };
        if self.transaction == Transaction::CommitTimer {
            inner.before = Some((inner.observed.clone(), Instant::now() + options.hold));
        }
        if let Some(done) = dies_after {
            inner.dead = true;
            if self.transaction != Transaction::None {
                inner.before = None;
                return Err(gone().at(&self.name));
            }
            plan.changes[..done].iter().for_each(|change| inner.change(change));
            let reason = "the connection was reset".to_owned();
            return Err(Cause::Interrupted { done, total, reason }.at(&self.name));
        }
        plan.changes.iter().for_each(|change| inner.change(change));
        inner.applied.push(total);
        if std::mem::take(&mut inner.dies_after_commit) {
            inner.dead = true;
            return Err(gone().at(&self.name));
        }
        Ok(Pending { id: inner.applied.len().to_string(), plan: plan.clone() })
    }

    async fn confirm(&self, _: &Pending) -> Result<()> {
        let mut inner = self.answering()?;
        inner.before = None;
        inner.confirmed += 1;
        Ok(())
    }

    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        let mut inner = self.answering()?;
        if self.transaction == Transaction::CommitTimer {
            inner.restore();
        } else {
            pending.plan.inverse().changes.iter().for_each(|change| inner.change(change));
            inner.rolled_back += 1;
        }
        Ok(())
    }

    async fn counters(&self) -> Result<Counters> {
        Ok(self.answering()?.counters.clone())
    }
}

/// Ports as they come from the factory, named `Ethernet0`, `Ethernet4`, ...
pub fn factory_ports(count: usize) -> SwitchState {
    let port = |i: usize| crate::state::Port {
        name: format!("Ethernet{}", i * 4).into(),
        description: String::new(),
        enabled: true,
        speed_gbps: Some(100),
        fec: Some(crate::intent::Fec::Rs),
        mtu_bytes: Some(1500),
    };
    (0..count).map(port).map(Object::from).collect()
}
