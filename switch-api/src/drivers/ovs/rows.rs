//! Rows of the database, and the values in their columns (RFC 7047, section 5.1).

use super::wire::{Session, nonsense};
use crate::error::{Cause, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One row, with its columns as they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) uuid: String,
    columns: Map<String, Value>,
}

impl Row {
    fn from(value: &Value) -> Option<Self> {
        let columns = value.as_object()?.clone();
        let uuid = uuid(columns.get("_uuid")?)?;
        Some(Self { uuid, columns })
    }

    /// The column as it came, for conditions.
    pub(super) fn raw(&self, column: &str) -> Value {
        self.columns.get(column).cloned().unwrap_or_else(empty_set)
    }

    fn items(&self, column: &str) -> &[Value] {
        match self.columns.get(column) {
            Some(Value::Array(pair)) if pair.first().and_then(Value::as_str) == Some("set") => {
                pair.get(1).and_then(Value::as_array).map_or(&[], Vec::as_slice)
            }
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    /// The text of a column that has at most one; empty when there is none.
    pub(super) fn text(&self, column: &str) -> &str {
        self.items(column).first().and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, column: &str) -> Option<u64> {
        self.items(column).first().and_then(Value::as_u64)
    }

    pub(super) fn numbers(&self, column: &str) -> Vec<u64> {
        self.items(column).iter().filter_map(Value::as_u64).collect()
    }

    pub(super) fn uuids(&self, column: &str) -> Vec<String> {
        match self.columns.get(column) {
            Some(one) if uuid(one).is_some() => uuid(one).into_iter().collect(),
            _ => self.items(column).iter().filter_map(uuid).collect(),
        }
    }

    pub(super) fn entry(&self, column: &str, key: &str) -> Option<&Value> {
        self.entries(column).find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    pub(super) fn text_entry(&self, column: &str, key: &str) -> &str {
        self.entry(column, key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn entries(&self, column: &str) -> impl Iterator<Item = (&str, &Value)> {
        let pairs = match self.columns.get(column) {
            Some(Value::Array(pair)) if pair.first().and_then(Value::as_str) == Some("map") => {
                pair.get(1).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
            }
            _ => &[],
        };
        pairs.iter().filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?)))
    }
}

fn uuid(value: &Value) -> Option<String> {
    let pair = value.as_array()?;
    (pair.first()?.as_str()? == "uuid").then(|| pair.get(1)?.as_str().map(str::to_owned))?
}

pub(super) fn empty_set() -> Value {
    json!(["set", []])
}

pub(super) fn set(items: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", items.into_iter().collect::<Vec<_>>()])
}

pub(super) fn by_uuid(uuid: &str) -> Value {
    json!([["_uuid", "==", ["uuid", uuid]]])
}

/// Changes one entry of a map column and no other.
pub(super) fn entry_mutations(column: &str, key: &str, value: Option<&str>) -> Vec<Value> {
    let mut mutations = vec![json!([column, "delete", ["set", [key]]])];
    mutations.extend(value.map(|value| json!([column, "insert", ["map", [[key, value]]]])));
    mutations
}

/// `next_cfg` and `cur_cfg` from the result of selecting both.
pub(super) fn configuration_numbers(result: Option<&Value>) -> (u64, u64) {
    let row = result.and_then(|r| r.get("rows")?.get(0));
    let number = |column: &str| row.and_then(|r| r.get(column)?.as_u64()).unwrap_or(0);
    (number("next_cfg"), number("cur_cfg"))
}

/// What is read of one switch, in one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// The one row of `Open_vSwitch`.
    pub(super) root: Row,
    pub(super) bridges: Vec<Row>,
    pub(super) ports: BTreeMap<String, Row>,
    pub(super) interfaces: BTreeMap<String, Row>,
}

const COLUMNS: [(&str, &[&str]); 4] = [
    ("Open_vSwitch", &["_uuid", "next_cfg", "cur_cfg", "ovs_version", "external_ids"]),
    ("Bridge", &["_uuid", "name", "datapath_type", "ports", "external_ids"]),
    (
        "Port",
        &[
            "_uuid",
            "name",
            "interfaces",
            "tag",
            "trunks",
            "vlan_mode",
            "bond_mode",
            "lacp",
            "other_config",
            "external_ids",
        ],
    ),
    (
        "Interface",
        &[
            "_uuid",
            "name",
            "type",
            "mtu",
            "mtu_request",
            "admin_state",
            "link_state",
            "link_speed",
            "error",
            "statistics",
            "external_ids",
        ],
    ),
];

impl Tables {
    pub(super) async fn read(session: &mut Session<'_>) -> Result<Self> {
        let select = |(table, columns): &(&str, &[&str])| json!({"op": "select", "table": table, "where": [], "columns": columns});
        let results = session.transact(COLUMNS.iter().map(select).collect()).await?;
        let mut rows = results.iter().map(|result| {
            let rows = result.get("rows").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            rows.iter().filter_map(Row::from).collect::<Vec<_>>()
        });
        let mut next = || rows.next().unwrap_or_default();
        let keyed = |rows: Vec<Row>| rows.into_iter().map(|row| (row.uuid.clone(), row)).collect();
        let root = next().into_iter().next().unwrap_or_default();
        Ok(Self { root, bridges: next(), ports: keyed(next()), interfaces: keyed(next()) })
    }

    /// The bridge that is the switch: the only one, or the one that says so.
    pub(super) fn bridge(&self, fabric_key: &str) -> std::result::Result<&Row, Cause> {
        let chosen = self.bridges.iter().find(|b| b.text_entry("external_ids", fabric_key) == "fabric");
        match (chosen, self.bridges.as_slice()) {
            (Some(bridge), _) | (None, [bridge]) => Ok(bridge),
            (None, []) => Err(nonsense(
                "select Bridge",
                "there is no bridge; make one with 'ovs-vsctl add-br br0' and add its ports",
            )),
            (None, many) => {
                let names: Vec<&str> = many.iter().map(|b| b.text("name")).collect();
                let reason = format!(
                    "there are the bridges {}; choose one with 'ovs-vsctl set bridge NAME external_ids:{fabric_key}=fabric'",
                    names.join(", ")
                );
                Err(Cause::Rejected { path: "choosing a bridge".to_owned(), reason })
            }
        }
    }

    pub(super) fn interfaces_of(&self, port: &Row) -> Vec<&Row> {
        port.uuids("interfaces").iter().filter_map(|uuid| self.interfaces.get(uuid)).collect()
    }

    pub(super) fn ports_of(&self, bridge: &Row) -> Vec<&Row> {
        bridge.uuids("ports").iter().filter_map(|uuid| self.ports.get(uuid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_all_their_forms() {
        let row = Row::from(&json!({
            "_uuid": ["uuid", "u1"], "tag": 5, "none": ["set", []], "trunks": ["set", [1, 2]],
            "interfaces": ["uuid", "u2"], "ports": ["set", [["uuid", "u3"], ["uuid", "u4"]]],
            "external_ids": ["map", [["a", "b"]]], "statistics": ["map", [["rx_bytes", 7]]],
        }))
        .unwrap();
        assert_eq!((row.number("tag"), row.number("none"), row.number("absent")), (Some(5), None, None));
        assert_eq!(row.numbers("trunks"), [1, 2]);
        assert_eq!(
            (row.uuids("interfaces"), row.uuids("ports")),
            (vec!["u2".into()], vec!["u3".into(), "u4".into()])
        );
        assert_eq!((row.text_entry("external_ids", "a"), row.text_entry("external_ids", "b")), ("b", ""));
        assert_eq!(row.entry("statistics", "rx_bytes").and_then(Value::as_u64), Some(7));
        assert!(row.uuids("none").is_empty() && row.entries("tag").next().is_none());
        assert!(Row::from(&json!({"tag": 5})).is_none());
    }
}
