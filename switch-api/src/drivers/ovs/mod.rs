//! Open vSwitch by OVSDB (RFC 7047): one transact is one transaction.
//!
//! | object | where it is in OVSDB |
//! |---|---|
//! | port | `Interface` of a bridge that is no tunnel, patch or tap: `mtu_request`; the mark in `external_ids:basalt` |
//! | VLAN | OVS has no table of them: its name in `external_ids:basalt_vlan_ID` of the bridge |
//! | VLAN member | `tag`, `trunks`, `vlan_mode` of the `Port` |
//! | LAG | a `Port` with several interfaces, or with the mark in its own `external_ids:basalt`; `lacp`, `bond_mode` |
//!
//! A port that carries every VLAN (OVS's own default) is read as a tagged member of VLAN 0, so that taking it into use shows as
//! taking that away. A port of ours without any VLAN trunks VLAN 4095, which no frame has: it is closed, and stays closed when it is
//! given back, as open it would join every VLAN there is.
//!
//! The rest of the lossless class has no counterpart: OVS maps no DSCP to queues without OpenFlow rules, and has neither PFC nor ECN
//! marking. LLDP and the commit timer come from the [`companion`] on the switch's host, which speaks OVSDB as well, so that a driver
//! needs this one connection and no shell on the switch.

pub mod companion;
mod read;
mod rows;
mod wire;
mod write;

use crate::connection::Connection;
use crate::desired::Desired;
use crate::error::{Cause, Result, WayBack};
use crate::names::DeviceName;
use crate::plan::Plan;
use crate::state::Kind;
use crate::switch::{ApplyOptions, Capabilities, Counters, Identity, Observed, Pending, Switch, Transaction};
use crate::verify::{self, Finding, FindingKind, Severity};
use async_trait::async_trait;
use companion::Held;
use rows::Tables;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use wire::Session;

/// What OVS has no notion of, or (queues) nothing that does what the intent means.
const UNSUPPORTED: [Kind; 10] = [
    Kind::Breakout,
    Kind::Mclag,
    Kind::MclagMember,
    Kind::Address,
    Kind::DscpClass,
    Kind::EcnProfile,
    Kind::PortQos,
    Kind::PfcWatchdog,
    Kind::Queue,
    Kind::Dcbx,
];

/// How often it is looked whether `ovs-vswitchd` has taken up what the database says.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    Ok(Arc::new(Ovs::new(connection)))
}

/// One bridge of one Open vSwitch.
pub struct Ovs {
    connection: Connection,
    /// Whether the companion was there at the last reading: with it there is a commit timer.
    companion: AtomicBool,
}

impl Ovs {
    pub fn new(connection: Connection) -> Self {
        Self { connection, companion: AtomicBool::new(false) }
    }

    async fn session(&self) -> Result<Session<'_>> {
        Session::connect(&self.connection).await
    }

    fn fail(&self, cause: Cause) -> crate::SwitchError {
        cause.at(&self.connection.switch)
    }

    /// Whether the companion lives, and one reading of the tables.
    async fn look(&self, session: &mut Session<'_>) -> Result<(bool, Tables)> {
        let work = async {
            let alive = companion::is_alive(session).await?;
            self.companion.store(alive, Ordering::Relaxed);
            Ok((alive, Tables::read(session).await?))
        };
        self.connection.timed("read", work).await
    }

    async fn tables(&self) -> Result<Tables> {
        let read = || async { Ok(self.look(&mut self.session().await?).await?.1) };
        self.connection.retry.run(read).await
    }

    /// The transaction, durable on the switch's disk; the number under which `ovs-vswitchd` will say that it runs it.
    async fn commit(&self, session: &mut Session<'_>, mut operations: Vec<Value>) -> Result<u64> {
        operations.extend([
            json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}),
            configuration_numbers(),
            json!({"op": "comment", "comment": "Basalt fabric"}),
            json!({"op": "commit", "durable": true}),
        ]);
        let asked_at = operations.len() - 3;
        let results = self.connection.timed("transact", session.transact(operations)).await?;
        Ok(rows::configuration_numbers(results.get(asked_at)).0)
    }

    /// Whether `ovs-vswitchd` lives and runs what was committed; an error when the database does not answer.
    async fn taken_up(&self, session: &mut Session<'_>, wanted: u64) -> Result<bool> {
        let end = Instant::now() + self.connection.limits.request;
        loop {
            let question = session.transact(vec![configuration_numbers()]);
            let results = self.connection.timed("select", question).await?;
            if rows::configuration_numbers(results.first()).1 >= wanted {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Commits and waits until it runs.
    async fn put(&self, session: &mut Session<'_>, operations: Vec<Value>) -> Result<()> {
        let wanted = self.commit(session, operations).await?;
        if self.taken_up(session, wanted).await? {
            self.settle(session).await
        } else {
            Err(self.fail(self.idle_daemon()))
        }
    }

    /// Takes away the requests that only served to bring an MTU back. One that stays, as something broke off, is taken away with
    /// the next change.
    async fn settle(&self, session: &mut Session<'_>) -> Result<()> {
        let tables = self.connection.timed("read", Tables::read(session)).await?;
        let operations = write::settle(&tables);
        if operations.is_empty() {
            return Ok(());
        }
        let wanted = self.commit(session, operations).await?;
        self.taken_up(session, wanted).await.map(drop)
    }

    /// Operations that take `pending` back; none where that is done.
    async fn way_back(&self, session: &mut Session<'_>, pending: &Pending) -> Result<Option<Vec<Value>>> {
        let (_, tables) = self.look(session).await?;
        let held = companion::held(&tables.root).is_some_and(|held| held.id == pending.id);
        if !pending.id.is_empty() && !held {
            // The companion was faster, or an earlier request went through and only its answer was lost.
            return Ok(None);
        }
        let mut operations = if held { companion::release(&tables) } else { Vec::new() };
        let back = write::operations(&tables, &pending.plan.inverse(), &self.connection.mark, false);
        operations.extend(back.map_err(|cause| self.fail(cause))?);
        Ok(Some(operations))
    }

    /// Takes `pending` back in the database, without waiting for a daemon.
    async fn withdraw(&self, session: &mut Session<'_>, pending: &Pending) -> Result<()> {
        match self.way_back(session, pending).await? {
            Some(operations) => self.commit(session, operations).await.map(drop),
            None => Ok(()),
        }
    }

    fn idle_daemon(&self) -> Cause {
        let request = "take the change up, ovs-vswitchd".to_owned();
        Cause::TimedOut { request, after: self.connection.limits.request }
    }
}

/// No two alike, whoever makes them: the companion tells by it since when a change waits.
fn change_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), now.as_nanos())
}

fn configuration_numbers() -> Value {
    json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg", "cur_cfg"]})
}

#[async_trait]
impl Switch for Ovs {
    fn name(&self) -> &DeviceName {
        &self.connection.switch
    }

    fn capabilities(&self) -> Capabilities {
        let held = self.companion.load(Ordering::Relaxed);
        let transaction = if held { Transaction::CommitTimer } else { Transaction::Atomic };
        Capabilities { transaction, unsupported: BTreeSet::from(UNSUPPORTED) }
    }

    async fn discover(&self) -> Result<Identity> {
        let work = || async {
            let mut session = self.session().await?;
            let schema = session.call("get_schema", json!([wire::DATABASE])).await?;
            let version = schema.get("version").and_then(Value::as_str).unwrap_or_default();
            if !known(version) {
                let found = format!("the database schema {version}");
                let needed = "7.14 or a later 7 or 8 (Open vSwitch 2.6)".to_owned();
                return Err(self.fail(Cause::VersionMismatch { found, needed }));
            }
            let tables = Tables::read(&mut session).await?;
            let bridge = tables.bridge(read::MARK).map_err(|cause| self.fail(cause))?;
            let said = |key: &str| tables.root.text_entry("external_ids", key).to_owned();
            let os_version = match tables.root.text("ovs_version") {
                "" => format!("schema {version}"),
                known => known.to_owned(),
            };
            Ok(Identity {
                vendor: "Open vSwitch".to_owned(),
                model: format!("{} ({})", bridge.text("name"), datapath(bridge.text("datapath_type"))),
                serial: said("system-id"),
                os_version,
                host_name: said("hostname"),
            })
        };
        self.connection.retry.run(|| self.connection.timed("get_schema", work())).await
    }

    async fn read(&self) -> Result<Observed> {
        self.observe(&self.tables().await?)
    }

    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending> {
        let mut session = self.session().await?;
        let (timed, tables) = self.look(&mut session).await?;
        if let Some(other) = companion::held(&tables.root) {
            let held_by = format!("change {} that is not confirmed yet", other.id);
            return Err(self.fail(Cause::Locked { held_by }));
        }
        let mark = &self.connection.mark;
        let mut operations =
            write::operations(&tables, plan, mark, true).map_err(|cause| self.fail(cause))?;
        // Without a hold there is nothing to end, and no name for it.
        let mut id = String::new();
        if timed {
            id = change_id();
            let hold_ms = options.hold.as_millis().try_into().unwrap_or(u64::MAX);
            operations
                .extend(companion::hold(&tables, &Held { id: id.clone(), hold_ms, inverse: plan.inverse() }));
        }
        let wanted = self.commit(&mut session, operations).await?;
        match self.taken_up(&mut session, wanted).await {
            Ok(true) => match self.settle(&mut session).await {
                Err(error) if !timed => return Err(error),
                _ => {}
            },
            // It stands in the database and runs nowhere: nobody can say whether it is a good one, so it does not stay.
            Ok(false) => {
                let pending = Pending { id, plan: plan.clone() };
                let Err(error) = self.withdraw(&mut session, &pending).await else {
                    let after = self.connection.limits.request.as_secs();
                    let reason = format!(
                        "ovs-vswitchd has not taken it up within {after} s, and it was taken back in the database; is ovs-vswitchd running?"
                    );
                    return Err(self.fail(Cause::Rejected { path: "the change".to_owned(), reason }));
                };
                tracing::warn!(%error, "a change that does not run could not be taken back");
                let back =
                    if timed { WayBack::LeftToSwitch { after: options.hold } } else { WayBack::NotDone };
                return Err(self.fail(Cause::LostManagementPath { back }));
            }
            // The change is in force and may have cut our way: whoever watches finds out, and the companion goes back.
            Err(error) if timed => tracing::debug!(%error, "silence after the change"),
            Err(error) => return Err(error),
        }
        Ok(Pending { id, plan: plan.clone() })
    }

    async fn confirm(&self, pending: &Pending) -> Result<()> {
        if pending.id.is_empty() {
            return Ok(());
        }
        let mut session = self.session().await?;
        let (_, tables) = self.look(&mut session).await?;
        if companion::held(&tables.root).is_none_or(|held| held.id != pending.id) {
            let reason = "the switch took the change back before it was confirmed".to_owned();
            return Err(self.fail(Cause::Conflict { reason }));
        }
        let wanted = self.commit(&mut session, companion::release(&tables)).await?;
        // With that it is confirmed. Whether the daemon still runs what the database says is `verify`'s to tell.
        if let Err(error) = self.taken_up(&mut session, wanted).await {
            tracing::debug!(%error, "silence after the confirmation");
        }
        Ok(())
    }

    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        let mut session = self.session().await?;
        match self.way_back(&mut session, pending).await? {
            Some(operations) => self.put(&mut session, operations).await,
            None => Ok(()),
        }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<Finding>> {
        let tables = self.tables().await?;
        let observed = self.observe(&tables)?;
        let plan = self.plan(&observed.state, desired);
        let mut findings = verify::switch(&plan, &observed, desired);
        let say = |severity, text: String| {
            Finding::new(severity, FindingKind::NoAnswer, &self.connection.switch, text)
        };
        let (wanted, running) = (tables.root.number("next_cfg"), tables.root.number("cur_cfg"));
        if running < wanted {
            let text = "ovs-vswitchd has not taken up what the database says; is it running?".to_owned();
            findings.push(say(Severity::Error, text));
        }
        if let Some(held) = companion::held(&tables.root) {
            let seconds = held.hold_ms.div_ceil(1000);
            let text = format!(
                "change {} is in force and not confirmed, so it is taken back within {seconds} s; apply again after that",
                held.id
            );
            let name = &self.connection.switch;
            findings.push(Finding::new(Severity::Warning, FindingKind::Drift, name, text));
        }
        if !self.companion.load(Ordering::Relaxed) {
            let text = "basalt-ovs-companion does not run there: no LLDP, and no way back when the management path is cut".to_owned();
            findings.push(say(Severity::Warning, text));
        }
        let broken = tables.interfaces.values().filter(|i| !i.text("error").is_empty());
        for interface in broken.filter(|i| desired.cabling.contains_key(i.text("name"))) {
            let text = format!("Open vSwitch cannot use it: {}", interface.text("error"));
            let finding = Finding::new(Severity::Error, FindingKind::LinkDown, &self.connection.switch, text);
            findings.push(finding.at(&interface.text("name").into()));
        }
        Ok(findings)
    }

    async fn counters(&self) -> Result<Counters> {
        Ok(read::counters(&self.tables().await?))
    }
}

impl Ovs {
    fn observe(&self, tables: &Tables) -> Result<Observed> {
        let mut observed = read::observe(tables, &self.connection.mark).map_err(|cause| self.fail(cause))?;
        if !self.companion.load(Ordering::Relaxed) {
            observed.neighbours.clear();
        }
        Ok(observed)
    }
}

/// `mtu_request` came with schema 7.14.0 (Open vSwitch 2.6).
fn known(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    major == 7 && minor >= 14 || major == 8
}

fn datapath(name: &str) -> &str {
    if name == "netdev" { "userspace datapath" } else { "kernel datapath" }
}
