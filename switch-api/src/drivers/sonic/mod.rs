//! SONiC. Its whole configuration is rows of CONFIG_DB, so one driver reads and writes rows ([`tables`], [`read`], [`mod@write`]) and
//! has two ways to them: Redis itself ([`redis`]) and gNMI with the `sonic-db` origin ([`gnmi`]).
//!
//! A plan becomes the difference of two sets of rows, written in one transaction (MULTI/EXEC, one Set); a row that someone else
//! changed meanwhile is a conflict. What goes in only lasts over a restart of the switch once it has saved its configuration: by
//! `config save`, or by its gNMI server after each Set where `GNMI|gnmi` (earlier `TELEMETRY|gnmi`) has `save_on_set` true
//! (SONiC's design "Save on Set", SONiC pull request 1297). Neither way can ask for a save, so the plan and the result say so.

mod breakout;
mod gnmi;
mod observe;
mod pair;
mod qos;
mod read;
mod redis;
mod stream;
mod tables;
mod write;

use crate::connection::Connection;
use crate::desired::Desired;
use crate::error::{Cause, Result};
use crate::intent::DriverKind;
use crate::names::{DeviceName, InterfaceName};
use crate::plan::{self, Change, Plan};
use crate::state::{Kind, Object, SwitchState};
use crate::switch::{
    ApplyOptions, Capabilities, Counters, Identity, LinkStatus, Neighbour, Observed, Pending, Switch,
    Transaction,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tables::{Database, Difference, Row, Tables};
use tokio::time::{Instant, sleep};

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    match connection.kind {
        DriverKind::SonicRedis => Ok(Arc::new(Sonic::new(connection, redis::Redis))),
        _ => Ok(Arc::new(Sonic::new(connection, gnmi::Gnmi))),
    }
}

/// Tables of CONFIG_DB in which our objects live.
const CONFIG_TABLES: [&str; 24] = [
    "BREAKOUT_CFG",
    "DSCP_TO_TC_MAP",
    "INTERFACE",
    "LOOPBACK_INTERFACE",
    "MAP_PFC_PRIORITY_TO_QUEUE",
    "MCLAG_DOMAIN",
    "MCLAG_INTERFACE",
    "PFC_WD",
    "PORT",
    "PORTCHANNEL",
    "PORTCHANNEL_INTERFACE",
    "PORTCHANNEL_MEMBER",
    "PORT_QOS_MAP",
    "QUEUE",
    "SCHEDULER",
    "TC_TO_PRIORITY_GROUP_MAP",
    "TC_TO_QUEUE_MAP",
    "VLAN",
    "VLAN_INTERFACE",
    "VLAN_MEMBER",
    "WRED_PROFILE",
    "BUFFER_PG",
    "BUFFER_QUEUE",
    "CABLE_LENGTH",
];

/// Where the switch's own gNMI server is told to save after each Set.
const SAVING_TABLES: [&str; 2] = ["GNMI", "TELEMETRY"];
const SAVE: &str = "it lasts over a restart of the switch only after 'sudo config save -y' there";
const SAVE_ON_SET: &str = ", or once its gNMI server saves by itself: 'sudo sonic-db-cli CONFIG_DB hset \"GNMI|gnmi\" save_on_set true', and restart that";

/// How long a switch may take to give up ports that are split, and how often we look.
const PORTS_GONE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A way to the rows.
#[async_trait]
trait Store: Send + Sync {
    type Session: Session;
    /// Whether the switch can be told to save whatever comes this way.
    const SAVE_ON_SET: bool;

    async fn open(&self, connection: &Connection) -> Result<Self::Session>;
}

/// One connection.
#[async_trait]
trait Session: Send {
    /// All rows of `tables`.
    async fn tables(&mut self, database: Database, tables: &[&str]) -> Result<Tables>;

    /// Some rows of one table.
    async fn rows(&mut self, database: Database, table: &str, keys: &[&String]) -> Result<Tables>;

    /// All of `change` or nothing. [`Cause::Conflict`] where a row is no longer as in `base`.
    async fn commit(&mut self, change: &Difference, base: &Tables) -> Result<()>;

    async fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        Ok(observe::neighbours(&self.tables(Database::Appl, &["LLDP_ENTRY_TABLE"]).await?))
    }

    async fn links(&mut self) -> Result<BTreeMap<InterfaceName, LinkStatus>> {
        let appl = self.tables(Database::Appl, &["PORT_TABLE"]).await?;
        Ok(observe::links(&appl, &self.tables(Database::State, &["PORT_TABLE"]).await?))
    }
}

struct Sonic<S> {
    connection: Connection,
    store: S,
    /// The rows as they were before the last change: taking it back restores them exactly.
    undo: Mutex<Option<Undo>>,
    /// At the last reading the switch was told to save by itself what comes this way.
    saves: AtomicBool,
}

struct Undo {
    plan: Plan,
    touched: Difference,
    /// The touched rows alone.
    image: Tables,
}

impl<S: Store> Sonic<S> {
    fn new(connection: Connection, store: S) -> Self {
        Self { connection, store, undo: Mutex::default(), saves: AtomicBool::new(false) }
    }

    fn fail(&self, cause: Cause) -> crate::SwitchError {
        cause.at(&self.connection.switch)
    }

    async fn open(&self) -> Result<S::Session> {
        self.store.open(&self.connection).await
    }

    async fn config(&self, session: &mut S::Session) -> Result<Tables> {
        let work = async {
            let mut names: Vec<&str> = CONFIG_TABLES.to_vec();
            names.extend(breakout::DEPENDENT_TABLES.iter().filter(|name| !CONFIG_TABLES.contains(name)));
            names.extend(SAVING_TABLES);
            let tables = session.tables(Database::Config, &names).await?;
            let told = |table: &&str| tables.field(table, "gnmi", "save_on_set") == Some("true");
            self.saves.store(S::SAVE_ON_SET && SAVING_TABLES.iter().any(told), Ordering::Relaxed);
            Ok(tables)
        };
        self.connection.timed("read CONFIG_DB", work).await
    }

    async fn commit(&self, session: &mut S::Session, before: &Tables, after: &Tables) -> Result<()> {
        let difference = Difference::between(before, after);
        if difference.is_empty() {
            return Ok(());
        }
        self.connection.timed("write CONFIG_DB", session.commit(&difference, before)).await
    }

    /// Writes `after` over `before`: in one transaction, or in two where ports change their lanes.
    async fn write(&self, session: &mut S::Session, before: &Tables, after: &Tables) -> Result<()> {
        let Some((middle, ports)) = breakout::middle(before, after) else {
            return self.commit(session, before, after).await;
        };
        self.commit(session, before, &middle).await?;
        let rest = async {
            self.wait_until_gone(session, &ports).await?;
            let middle = self.config(session).await?;
            self.commit(session, &middle, after).await
        };
        rest.await.map_err(|error| {
            let reason = format!("the old ports were deleted and the new ones not made: {}", error.cause);
            self.fail(Cause::Interrupted { done: 0, total: ports.len(), reason })
        })
    }

    /// A port that is deleted and made anew too quickly keeps its old lanes.
    async fn wait_until_gone(&self, session: &mut S::Session, ports: &[String]) -> Result<()> {
        let keys: Vec<&String> = ports.iter().collect();
        let begin = Instant::now();
        loop {
            let mut left = BTreeSet::new();
            for database in [Database::Appl, Database::State] {
                let look = session.rows(database, "PORT_TABLE", &keys);
                let found = self.connection.timed("read PORT_TABLE", look).await?;
                left.extend(found.rows("PORT_TABLE").map(|(name, _)| name.to_owned()));
            }
            let Some(port) = left.first() else { return Ok(()) };
            if begin.elapsed() > PORTS_GONE_WITHIN {
                let request = format!("delete {port}");
                return Err(self.fail(Cause::TimedOut { request, after: PORTS_GONE_WITHIN }));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn remember(&self, plan: &Plan, before: &Tables, after: &Tables) {
        let touched = Difference::between(before, after);
        let image = touched.restored(&Tables::default(), before);
        let undo = Undo { plan: plan.clone(), touched, image };
        *self.undo.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(undo);
    }

    /// `current` with the rows of the last change as they were, if that change was `plan`.
    fn remembered(&self, plan: &Plan, current: &Tables) -> Option<Tables> {
        let undo = self.undo.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let undo = undo.as_ref().filter(|undo| undo.plan == *plan)?;
        Some(undo.touched.restored(current, &undo.image))
    }

    fn changed(&self, before: &Tables, plan: &Plan) -> Result<Tables> {
        write::changed(before, &plan.changes, &self.connection.mark).map_err(|cause| self.fail(cause))
    }

    async fn identity(&self) -> Result<Identity> {
        let mut session = self.open().await?;
        let work = async {
            let names = ["DEVICE_METADATA", "VERSIONS"];
            let config = session.tables(Database::Config, &names).await?;
            let eeprom = session.tables(Database::State, &["EEPROM_INFO"]).await?;
            Ok((config, eeprom))
        };
        let (config, eeprom) = self.connection.timed("read DEVICE_METADATA", work).await?;
        identity(&config, &eeprom).map_err(|cause| self.fail(cause))
    }

    async fn observe(&self) -> Result<Observed> {
        let mut session = self.open().await?;
        let config = self.config(&mut session).await?;
        let neighbours = self.connection.timed("read LLDP neighbours", session.neighbours()).await?;
        let links = self.connection.timed("read link states", session.links()).await?;
        Ok(Observed {
            state: read::state(&config, &self.connection.mark),
            neighbours,
            links,
            management: read::management(&config, &self.connection.address),
        })
    }

    async fn count(&self) -> Result<Counters> {
        let mut session = self.open().await?;
        let work = async {
            let maps =
                session.tables(Database::Counters, &[observe::PORT_NAMES, observe::QUEUE_NAMES]).await?;
            let empty = Row::new();
            // A map is one row without a key of its own.
            let ports = maps.get(observe::PORT_NAMES, "").unwrap_or(&empty);
            let queues = maps.get(observe::QUEUE_NAMES, "").unwrap_or(&empty);
            let oids: Vec<&String> = ports.values().chain(queues.values()).collect();
            let rows = session.rows(Database::Counters, "COUNTERS", &oids).await?;
            Ok(observe::counters(ports, queues, &rows))
        };
        self.connection.timed("read counters", work).await
    }
}

/// `version_4_0_3`, or by release `version_202305_01`. The rows have the form that we write since 202012.
fn identity(config: &Tables, eeprom: &Tables) -> Result<Identity, Cause> {
    let Some(metadata) = config.get("DEVICE_METADATA", "localhost") else {
        let reason = "it has no DEVICE_METADATA".to_owned();
        return Err(Cause::BadReply { request: "DEVICE_METADATA".into(), reason, expected: "SONiC" });
    };
    let version = config.field("VERSIONS", "DATABASE", "VERSION").unwrap_or("version_unknown");
    let first = version.trim_start_matches("version_").split('_').next().and_then(|n| n.parse::<u32>().ok());
    if !first.is_some_and(|n| (2..100).contains(&n) || n >= 202_012) {
        let needed = "SONiC 202012 or newer (CONFIG_DB version_2_0_0)".to_owned();
        return Err(Cause::VersionMismatch { found: format!("CONFIG_DB {version}"), needed });
    }
    // ONIE's TlvInfo codes.
    let tlv = |code: &str| eeprom.field("EEPROM_INFO", code, "Value").map(|text| text.trim().to_owned());
    let text = |field: &str| metadata.get(field).cloned().unwrap_or_default();
    Ok(Identity {
        vendor: tlv("0x2d").or_else(|| tlv("0x2b")).unwrap_or_else(|| "SONiC".to_owned()),
        model: tlv("0x21").unwrap_or_else(|| text("hwsku")),
        serial: tlv("0x23").unwrap_or_else(|| text("mac")),
        os_version: format!("SONiC ({version})"),
        host_name: text("hostname"),
    })
}

/// Whether the plan was made from what is there now.
fn still_as_planned(state: &SwitchState, plan: &Plan) -> Result<(), Cause> {
    let moved = plan.changes.iter().find(|change| match change {
        Change::Update { before, .. } => {
            state.get(&before.key()).is_none_or(|now| !now.differences(before).is_empty())
        }
        Change::Create { .. } | Change::Delete { .. } => false,
    });
    match moved {
        Some(change) => Err(Cause::Conflict { reason: format!("{} is not as it was", change.key()) }),
        None => Ok(()),
    }
}

#[async_trait]
impl<S: Store> Switch for Sonic<S> {
    fn name(&self) -> &DeviceName {
        &self.connection.switch
    }

    fn capabilities(&self) -> Capabilities {
        // SONiC has lldpd, without the DCBX that would tell neighbours about classes.
        Capabilities { transaction: Transaction::Atomic, unsupported: BTreeSet::from([Kind::Dcbx]) }
    }

    async fn discover(&self) -> Result<Identity> {
        self.connection.retry.run(|| self.identity()).await
    }

    async fn read(&self) -> Result<Observed> {
        self.connection.retry.run(|| self.observe()).await
    }

    /// The system MAC is a setting of the LAGs that span the pair: while there is none, there is nothing to set.
    fn plan(&self, actual: &SwitchState, desired: &Desired) -> Plan {
        let mut plan = plan::plan(actual, desired, &self.capabilities());
        let spanning = desired.state.iter().any(|(key, _)| key.kind == Kind::MclagMember);
        let mac_alone = |change: &Change| {
            matches!(change, Change::Update { after: Object::Mclag(_), fields, .. }
                if fields.iter().all(|f| f.field == "system_mac"))
        };
        if !spanning {
            plan.changes.retain(|change| !mac_alone(change));
        }
        if !plan.changes.is_empty() {
            plan.notes.extend(self.to_last());
        }
        plan
    }

    async fn apply(&self, plan: &Plan, _: ApplyOptions) -> Result<Pending> {
        let mut session = self.connection.retry.run(|| self.open()).await?;
        let before = self.config(&mut session).await?;
        let state = read::state(&before, &self.connection.mark);
        still_as_planned(&state, plan).map_err(|cause| self.fail(cause))?;
        let after = self.changed(&before, plan)?;
        self.remember(plan, &before, &after);
        self.write(&mut session, &before, &after).await?;
        Ok(Pending { id: plan.changes.len().to_string(), plan: plan.clone() })
    }

    async fn confirm(&self, pending: &Pending) -> Result<()> {
        let mut undo = self.undo.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if undo.as_ref().is_some_and(|undo| undo.plan == pending.plan) {
            *undo = None;
        }
        Ok(())
    }

    fn to_last(&self) -> Option<String> {
        let way = if S::SAVE_ON_SET { SAVE_ON_SET } else { "" };
        (!self.saves.load(Ordering::Relaxed)).then(|| format!("{SAVE}{way}"))
    }

    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        let mut session = self.open().await?;
        let current = self.config(&mut session).await?;
        let back = match self.remembered(&pending.plan, &current) {
            Some(tables) => tables,
            None => self.changed(&current, &pending.plan.inverse())?,
        };
        self.write(&mut session, &current, &back).await
    }

    async fn counters(&self) -> Result<Counters> {
        self.connection.retry.run(|| self.count()).await
    }
}
