//! The companion: a small program on the host of each Open vSwitch (`basalt-ovs-companion`).
//!
//! OVS speaks LLDP only for Auto Attach (IEEE 802.1Qcj): whom it hears is not in OVSDB. And a transaction is for good: when it cuts
//! the way to the switch, nobody can take it back from outside. The companion fills both gaps through the database itself:
//!
//! * It writes what lldpd hears to `external_ids:basalt_lldp`. Whether it still lives, and what stands there is true, is told by
//!   a lock of its connection (RFC 7047, 4.1.8), which ends with it: no clocks are compared.
//! * A change comes with `external_ids:basalt_pending`: the way back, and for how long to wait for the confirmation, which is the
//!   removal of that entry. When the time is over the companion goes back. The entry is part of the same transaction as the change,
//!   so it survives whatever dies in between.

use super::Ovs;
use super::rows::{Row, Tables, by_uuid, entry_mutations};
use super::wire::Session;
use crate::connection::Connection;
use crate::error::{Cause, Result};
use crate::plan::Plan;
use crate::switch::Neighbour;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const LOCK: &str = "basalt_companion";
const LLDP: &str = "basalt_lldp";
const PENDING: &str = "basalt_pending";
/// A switch has 576 ports at most; what one neighbour says is cut to what OVSDB and people can bear.
const MAX_NEIGHBOURS: usize = 2048;
const MAX_TEXT: usize = 256;

/// A change that waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) hold_ms: u64,
    /// The way back.
    pub(super) inverse: Plan,
}

/// Whether the companion's connection holds its lock. Asking for it means holding it for a moment when it does not.
pub(super) async fn is_alive(session: &mut Session<'_>) -> Result<bool> {
    let answer = session.call("lock", json!([LOCK])).await?;
    let got_it = answer.get("locked").and_then(Value::as_bool).unwrap_or(false);
    session.call("unlock", json!([LOCK])).await?;
    Ok(!got_it)
}

/// What the companion wrote; the reader has to know that it lives.
pub(super) fn neighbours(root: &Row) -> Vec<Neighbour> {
    serde_json::from_str(root.text_entry("external_ids", LLDP)).unwrap_or_default()
}

pub(super) fn held(root: &Row) -> Option<Held> {
    serde_json::from_str(root.text_entry("external_ids", PENDING)).ok()
}

/// Operations that leave `pending` for the companion.
pub(super) fn hold(tables: &Tables, pending: &Held) -> Vec<Value> {
    let text = json!(pending).to_string();
    let mutations = entry_mutations("external_ids", PENDING, Some(&text));
    vec![
        json!({"op": "mutate", "table": "Open_vSwitch", "where": by_uuid(&tables.root.uuid), "mutations": mutations}),
    ]
}

/// Operations that end the hold that is there, provided that it still is.
pub(super) fn release(tables: &Tables) -> Vec<Value> {
    let text = tables.root.text_entry("external_ids", PENDING);
    let with_it = json!([
        ["_uuid", "==", ["uuid", tables.root.uuid]],
        ["external_ids", "includes", ["map", [[PENDING, text]]]]
    ]);
    let gone = entry_mutations("external_ids", PENDING, None);
    vec![
        json!({"op": "wait", "timeout": 0, "table": "Open_vSwitch", "where": with_it, "columns": ["next_cfg"],
            "until": "!=", "rows": []}),
        json!({"op": "mutate", "table": "Open_vSwitch", "where": by_uuid(&tables.root.uuid), "mutations": gone}),
    ]
}

/// How the program runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// To the database on the same host.
    pub connection: Connection,
    /// lldpd's control socket, where it is not the usual one.
    pub lldpd_socket: Option<PathBuf>,
    pub every: Duration,
}

/// Runs until the process is ended. What goes wrong is logged and tried again.
pub async fn run(settings: &Settings) {
    let mut said = String::new();
    // Beyond one connection: a database that comes and goes does not make a change wait longer.
    let mut waiting = None;
    loop {
        if let Err(error) = serve(settings, &mut waiting).await {
            // Once, not every second.
            if said != error.to_string() {
                said = error.to_string();
                tracing::warn!(%error, "the database does not answer; trying again");
            }
        }
        sleep(settings.every).await;
    }
}

/// One connection's life.
async fn serve(settings: &Settings, waiting: &mut Option<(String, Instant)>) -> Result<()> {
    let connection = &settings.connection;
    let mut session = Session::connect(connection).await?;
    session.call("lock", json!([LOCK])).await?;
    let driver = Ovs::new(connection.clone());
    loop {
        let tables = connection.timed("read", Tables::read(&mut session)).await?;
        // Hearing nothing is written down too: what was heard before is not true any more.
        let heard = heard(settings).await.unwrap_or_else(|reason| {
            tracing::warn!(reason, "lldpd does not answer");
            Vec::new()
        });
        if neighbours(&tables.root) != heard {
            let mutations = entry_mutations("external_ids", LLDP, Some(&json!(heard).to_string()));
            let write = json!({"op": "mutate", "table": "Open_vSwitch", "where": by_uuid(&tables.root.uuid), "mutations": mutations});
            connection.timed("transact", session.transact(vec![write])).await?;
        }
        let pending = held(&tables.root);
        if pending.is_none() {
            *waiting = None;
        }
        if let Some(held) = pending {
            let since = match waiting.as_ref() {
                Some((id, since)) if *id == held.id => *since,
                _ => Instant::now(),
            };
            *waiting = Some((held.id.clone(), since));
            if since.elapsed() >= Duration::from_millis(held.hold_ms) {
                tracing::warn!(id = held.id, "a change was not confirmed in time and is taken back");
                match driver.take_back(&held).await {
                    Err(error) if !matches!(error.cause, Cause::Conflict { .. }) => return Err(error),
                    _ => {}
                }
            }
        }
        sleep(settings.every).await;
    }
}

/// What lldpd hears.
async fn heard(settings: &Settings) -> std::result::Result<Vec<Neighbour>, String> {
    let mut command = Command::new("lldpcli");
    if let Some(socket) = &settings.lldpd_socket {
        command.arg("-u").arg(socket);
    }
    command.args(["-f", "json0", "show", "neighbors"]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(5), command.output()).await;
    let output = output.map_err(|_| "lldpcli did not end within 5 s".to_owned())?;
    let output = output.map_err(|e| format!("lldpcli: {e}"))?;
    if !output.status.success() {
        return Err(format!("lldpcli: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    parse(&output.stdout)
}

/// `json0` is the form in which every level is a list, whether it has one entry or several (lldpcli(8)).
fn parse(output: &[u8]) -> std::result::Result<Vec<Neighbour>, String> {
    let all: Value = serde_json::from_slice(output).map_err(|e| format!("lldpcli: {e}"))?;
    let list = |value: &Value, key: &str| -> Vec<Value> {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |value: &Value, path: [&str; 2]| -> String {
        let entry = value.get(path[0]).and_then(|v| v.get(0)?.get(path[1])?.as_str());
        entry.unwrap_or_default().chars().take(MAX_TEXT).collect()
    };
    let interfaces = list(&all, "lldp").into_iter().flat_map(|lldp| list(&lldp, "interface"));
    let neighbours = interfaces.filter_map(|interface| {
        let chassis = list(&interface, "chassis").into_iter().next().unwrap_or_default();
        let port = list(&interface, "port").into_iter().next().unwrap_or_default();
        let name = text(&chassis, ["name", "value"]);
        Some(Neighbour {
            port: interface.get("name")?.as_str()?.into(),
            device: if name.is_empty() { text(&chassis, ["id", "value"]) } else { name },
            device_port: text(&port, ["id", "value"]),
            description: text(&port, ["descr", "value"]),
        })
    });
    let mut neighbours: Vec<Neighbour> = neighbours.take(MAX_NEIGHBOURS).collect();
    neighbours.sort();
    Ok(neighbours)
}

impl Ovs {
    /// Goes the way back and ends the hold, in one transaction; a conflict when it was confirmed meanwhile.
    async fn take_back(&self, held: &Held) -> Result<()> {
        let mut session = self.session().await?;
        let tables = self.connection.timed("read", Tables::read(&mut session)).await?;
        if self::held(&tables.root).as_ref() != Some(held) {
            return Err(self.fail(Cause::Conflict { reason: "it was confirmed meanwhile".to_owned() }));
        }
        // The mark of whoever made the change stands in its objects; ours here serves only to read.
        let back = super::write::operations(&tables, &held.inverse, &self.connection.mark, false);
        let mut operations = release(&tables);
        operations.extend(back.map_err(|cause| self.fail(cause))?);
        self.put(&mut session, operations).await
    }
}
