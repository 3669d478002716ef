//! From a plan to the operations of one transaction.
//!
//! What the switch shall be is foreseen as objects; every row that a change touches is then written whole from them. Each is
//! preceded by a `wait` for it to be as it was read, so that nothing of someone else's is overwritten.

use super::read::{ADDED, EVERY_VLAN, MARK, MTU_BEFORE, NO_VLAN, VLAN, is_lag, is_physical, observe};
use super::rows::{Row, Tables, by_uuid, empty_set, entry_mutations, set};
use crate::error::Cause;
use crate::intent::LagMode;
use crate::names::InterfaceName;
use crate::plan::{Change, Plan};
use crate::state::{Key, Lag, Mark, Object, SwitchState};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PORT_COLUMNS: [&str; 9] =
    ["name", "interfaces", "tag", "trunks", "vlan_mode", "bond_mode", "lacp", "other_config", "external_ids"];
/// Ends what [`MTU_BEFORE`] holds of an MTU that someone had asked for.
const REQUESTED: &str = " requested";
const INTERFACE_COLUMNS: [&str; 4] = ["name", "type", "mtu_request", "external_ids"];

/// `strict`: refuses unless everything is as the plan says it was before. Otherwise what is done already is passed over, for a way
/// back whose answer was lost.
pub(super) fn operations(
    tables: &Tables,
    plan: &Plan,
    mark: &Mark,
    strict: bool,
) -> Result<Vec<Value>, Cause> {
    let bridge = tables.bridge(MARK)?;
    let before = observe(tables, mark)?.state;
    if strict {
        plan.changes.iter().try_for_each(|change| still(&before, change))?;
    }
    let mut after = before.clone();
    plan.changes.iter().for_each(|change| after.change(change));
    let mut write =
        Write { tables, bridge, after: &after, operations: Vec::new(), new_interfaces: BTreeMap::new() };
    write.vlan_names(plan);
    write.ports(plan, &before);
    Ok(write.operations)
}

/// What is left to do once the daemon runs a change: at ports that were given back the MTU of before has been set by now, and nobody
/// requests it any more.
pub(super) fn settle(tables: &Tables) -> Vec<Value> {
    let given_back = tables.interfaces.values().filter(|row| {
        let has = |key: &str| !row.text_entry("external_ids", key).is_empty();
        has(MTU_BEFORE) && !has(MARK)
    });
    let mut operations = Vec::new();
    for row in given_back {
        let gone = entry_mutations("external_ids", MTU_BEFORE, None);
        operations.push(json!({"op": "update", "table": "Interface", "where": by_uuid(&row.uuid),
            "row": {"mtu_request": empty_set()}}));
        operations.push(
            json!({"op": "mutate", "table": "Interface", "where": by_uuid(&row.uuid), "mutations": gone}),
        );
    }
    operations
}

fn still(state: &SwitchState, change: &Change) -> Result<(), Cause> {
    let found = state.get(&change.key());
    let expected = match change {
        Change::Create { .. } => None,
        Change::Update { before, .. } | Change::Delete { before } => Some(before),
    };
    if found == expected {
        return Ok(());
    }
    Err(Cause::Conflict { reason: format!("{} is no longer as it was planned for", change.key()) })
}

struct Write<'a> {
    tables: &'a Tables,
    bridge: &'a Row,
    after: &'a SwitchState,
    operations: Vec<Value>,
    /// Names under which rows of this transaction refer to interfaces that it makes.
    new_interfaces: BTreeMap<InterfaceName, String>,
}

impl Write<'_> {
    fn vlan_names(&mut self, plan: &Plan) {
        let mut mutations = Vec::new();
        for change in &plan.changes {
            if let Object::Vlan(vlan) = change.object() {
                let gone = matches!(change, Change::Delete { .. });
                let name = (!gone).then_some(vlan.name.as_str());
                mutations.extend(entry_mutations("external_ids", &format!("{VLAN}{}", vlan.id), name));
            }
        }
        self.mutate("Bridge", &self.bridge.uuid.clone(), mutations);
    }

    fn ports(&mut self, plan: &Plan, before: &SwitchState) {
        let rows: Vec<(&Row, Vec<&Row>)> = self
            .tables
            .ports_of(self.bridge)
            .into_iter()
            .map(|port| (port, self.tables.interfaces_of(port)))
            .filter(|(_, interfaces)| interfaces.iter().all(|i| is_physical(i)))
            .collect();
        let mut named: BTreeSet<&InterfaceName> = BTreeSet::new();
        for change in &plan.changes {
            named.extend(change.object().interfaces());
            if let Change::Update { before, .. } = change {
                named.extend(before.interfaces());
            }
        }
        // A row is written whole, so all that is in it, was in it, or will be, is written with it.
        let members = [before, self.after].map(members_of);
        let mut lags: BTreeSet<&InterfaceName> = BTreeSet::new();
        for (port, lag) in members.iter().flatten() {
            if named.contains(port) || named.contains(lag) {
                lags.insert(lag);
            }
        }
        let mut ports: BTreeSet<&InterfaceName> =
            members.iter().flatten().filter(|(_, lag)| lags.contains(lag)).map(|(port, _)| *port).collect();
        ports.extend(named.iter().filter(|name| [before, self.after].iter().any(|s| s.port(name).is_some())));

        let interfaces: BTreeMap<InterfaceName, &Row> =
            rows.iter().flat_map(|(_, i)| i).map(|row| (row.text("name").into(), *row)).collect();
        let mut leaving = BTreeSet::new();
        for port in &ports {
            if self.interface(port, interfaces.get(*port).copied()) {
                leaving.insert(*port);
            }
        }
        let mut bundles: BTreeMap<&InterfaceName, Vec<&InterfaceName>> = BTreeMap::new();
        let lag_of: BTreeMap<&InterfaceName, &InterfaceName> = members[1].iter().copied().collect();
        for port in ports.iter().filter(|port| !leaving.contains(*port)) {
            bundles.entry(lag_of.get(port).copied().unwrap_or(port)).or_default().push(port);
        }
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (row, interfaces) in &rows {
            let touched = interfaces.iter().any(|i| ports.contains(&InterfaceName::from(i.text("name"))));
            if touched && !bundles.contains_key(&InterfaceName::from(row.text("name"))) {
                self.wait("Port", row, &PORT_COLUMNS);
                went.push(json!(["uuid", row.uuid]));
            }
        }
        for (name, members) in bundles {
            let row = rows.iter().find(|(row, _)| row.text("name") == name.as_str());
            let references =
                members.iter().filter_map(|m| self.reference(m, &interfaces)).collect::<Vec<_>>();
            came.extend(self.bundle(name, row, references));
        }
        let mut mutations = Vec::new();
        if !went.is_empty() {
            mutations.push(json!(["ports", "delete", set(went)]));
        }
        if !came.is_empty() {
            mutations.push(json!(["ports", "insert", set(came)]));
        }
        self.mutate("Bridge", &self.bridge.uuid.clone(), mutations);
    }

    /// Writes what hangs on the port itself; whether it leaves the bridge.
    fn interface(&mut self, name: &InterfaceName, row: Option<&Row>) -> bool {
        let Some(port) = self.after.port(name) else { return true };
        let ours = !port.description.is_empty();
        let Some(row) = row else {
            if !ours {
                return true;
            }
            let reference = format!("interface_{}", self.new_interfaces.len());
            let ids = json!(["map", [[MARK, port.description], [ADDED, "true"]]]);
            let mtu = port.mtu_bytes.map_or_else(empty_set, Value::from);
            self.operations.push(json!({"op": "insert", "table": "Interface", "uuid-name": reference,
                "row": {"name": name, "mtu_request": mtu, "external_ids": ids}}));
            self.new_interfaces.insert(name.clone(), reference);
            return false;
        };
        self.wait("Interface", row, &INTERFACE_COLUMNS);
        if !ours && row.text_entry("external_ids", ADDED) == "true" {
            return true;
        }
        let marked = !row.text_entry("external_ids", MARK).is_empty();
        if ours || marked {
            let before = row.text_entry("external_ids", MTU_BEFORE);
            let requested = before.strip_suffix(REQUESTED);
            let back = requested.unwrap_or(before).parse::<u64>().ok();
            let mtu = if ours { port.mtu_bytes.map(u64::from) } else { back };
            let mtu = mtu.map_or_else(empty_set, Value::from);
            self.operations.push(json!({"op": "update", "table": "Interface", "where": by_uuid(&row.uuid),
                "row": {"mtu_request": mtu}}));
            let mark = ours.then_some(port.description.as_str());
            let mut mutations = entry_mutations("external_ids", MARK, mark);
            if ours && !marked {
                let found = match (row.number("mtu_request"), row.number("mtu")) {
                    (Some(request), _) => Some(format!("{request}{REQUESTED}")),
                    (None, running) => running.map(|mtu| mtu.to_string()),
                };
                mutations.extend(entry_mutations("external_ids", MTU_BEFORE, found.as_deref()));
            } else if !ours && (requested.is_some() || back.is_none()) {
                // Otherwise the request stands until it runs; see [`settle`].
                mutations.extend(entry_mutations("external_ids", MTU_BEFORE, None));
            }
            self.mutate("Interface", &row.uuid, mutations);
        }
        false
    }

    fn reference(&self, name: &InterfaceName, rows: &BTreeMap<InterfaceName, &Row>) -> Option<Value> {
        let made = self.new_interfaces.get(name).map(|reference| json!(["named-uuid", reference]));
        made.or_else(|| rows.get(name).map(|row| json!(["uuid", row.uuid])))
    }

    /// Writes the row of `Port`; a reference to it when it is new.
    fn bundle(
        &mut self,
        name: &InterfaceName,
        row: Option<&(&Row, Vec<&Row>)>,
        interfaces: Vec<Value>,
    ) -> Option<Value> {
        if interfaces.is_empty() {
            return None;
        }
        let mut columns = self.vlan_columns(name);
        columns.insert("interfaces".to_owned(), set(interfaces));
        let lag = match self.after.get(&Key::lag(name)) {
            Some(Object::Lag(lag)) => Some(lag.clone()),
            _ => None,
        };
        let (lacp, bond_mode) = match lag.as_ref().map(|lag| lag.mode) {
            None => (empty_set(), empty_set()),
            Some(LagMode::Lacp) => (json!("active"), json!("balance-tcp")),
            // balance-tcp needs LACP (ovs-vswitchd.conf.db(5)); this one needs nothing from the far end.
            Some(LagMode::Static) => (json!("off"), json!("balance-slb")),
        };
        columns.insert("lacp".to_owned(), lacp);
        columns.insert("bond_mode".to_owned(), bond_mode);
        let fast = lag.as_ref().is_some_and(|lag| lag.fast == Some(true));
        let mark = lag.as_ref().map(|lag: &Lag| lag.description.as_str()).filter(|text| !text.is_empty());
        let Some((row, old)) = row else {
            let reference = format!("port_{}", self.operations.len());
            columns.insert("name".to_owned(), json!(name));
            if fast {
                columns.insert("other_config".to_owned(), json!(["map", [["lacp-time", "fast"]]]));
            }
            if let Some(mark) = mark {
                columns.insert("external_ids".to_owned(), json!(["map", [[MARK, mark]]]));
            }
            self.operations
                .push(json!({"op": "insert", "table": "Port", "uuid-name": reference, "row": columns}));
            return Some(json!(["named-uuid", reference]));
        };
        self.wait("Port", row, &PORT_COLUMNS);
        self.operations
            .push(json!({"op": "update", "table": "Port", "where": by_uuid(&row.uuid), "row": columns}));
        if lag.is_some() || is_lag(row, old) {
            let mut mutations = entry_mutations("other_config", "lacp-time", fast.then_some("fast"));
            mutations.extend(entry_mutations("external_ids", MARK, mark));
            self.mutate("Port", &row.uuid, mutations);
        }
        None
    }

    fn vlan_columns(&self, name: &InterfaceName) -> serde_json::Map<String, Value> {
        let members: Vec<(u16, bool)> = self
            .after
            .iter()
            .filter_map(|(_, object)| match object {
                Object::VlanMember(member) if &member.interface == name => {
                    Some((member.vlan.0, member.tagged))
                }
                _ => None,
            })
            .collect();
        let every = members.contains(&(EVERY_VLAN.0, true));
        let untagged = members.iter().find(|(vlan, tagged)| !tagged && *vlan != EVERY_VLAN.0).map(|m| m.0);
        let mut trunks: Vec<u64> =
            members.iter().filter(|(vlan, _)| Some(*vlan) != untagged).map(|m| m.0.into()).collect();
        if every {
            trunks.clear();
        } else if trunks.is_empty() && untagged.is_none() {
            trunks.push(NO_VLAN);
        }
        let mode = match untagged {
            None if every => empty_set(),
            None => json!("trunk"),
            Some(_) if trunks.is_empty() && !every => json!("access"),
            Some(_) => json!("native-untagged"),
        };
        let mut columns = serde_json::Map::new();
        columns.insert("tag".to_owned(), untagged.map_or_else(empty_set, Value::from));
        columns.insert("trunks".to_owned(), set(trunks.into_iter().map(Value::from)));
        columns.insert("vlan_mode".to_owned(), mode);
        columns
    }

    fn wait(&mut self, table: &str, row: &Row, columns: &[&str]) {
        let values: serde_json::Map<String, Value> =
            columns.iter().map(|column| ((*column).to_owned(), row.raw(column))).collect();
        let wait = json!({"op": "wait", "timeout": 0, "table": table, "where": by_uuid(&row.uuid),
            "columns": columns, "until": "==", "rows": [values]});
        // Before any change of this transaction, as a wait sees those too.
        self.operations.insert(0, wait);
    }

    fn mutate(&mut self, table: &str, uuid: &str, mutations: Vec<Value>) {
        if !mutations.is_empty() {
            self.operations.push(
                json!({"op": "mutate", "table": table, "where": by_uuid(uuid), "mutations": mutations}),
            );
        }
    }
}

/// (port, LAG) of a state; a member of a LAG that is not there is a port of its own.
fn members_of(state: &SwitchState) -> Vec<(&InterfaceName, &InterfaceName)> {
    let members = state.iter().filter_map(|(_, object)| match object {
        Object::LagMember(member) if state.contains(&Key::lag(&member.lag)) => {
            Some((&member.port, &member.lag))
        }
        _ => None,
    });
    members.collect()
}
