//! What runs, as OpenConfig says it: openconfig-lldp, openconfig-interfaces with openconfig-if-ethernet.

use crate::intent::Fec;
use crate::names::InterfaceName;
use crate::switch::{LinkStatus, Neighbour};
use serde_json::Value;
use std::collections::BTreeMap;

/// A member by its local name, with or without the module before it (RFC 7951, section 4).
fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    const NULL: &Value = &Value::Null;
    let Some(map) = value.as_object() else { return NULL };
    let local = |full: &str| full.rsplit(':').next() == Some(name);
    map.iter().find(|(key, _)| local(key)).map_or(NULL, |(_, value)| value)
}

fn at<'a>(value: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().fold(value, |value, name| member(value, name))
}

fn list<'a>(value: &'a Value, names: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    at(value, names).as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().map(str::trim).unwrap_or_default().to_owned()
}

/// The name of an identity without its module.
fn identity(value: &Value) -> &str {
    value.as_str().and_then(|text| text.rsplit(':').next()).unwrap_or_default()
}

/// `interfaces` of `lldp`, whether the container itself is named or not.
pub(super) fn neighbours(json: &Value) -> Vec<Neighbour> {
    let inner = member(json, "interfaces");
    let interfaces = if inner.is_null() { json } else { inner };
    let mut found = Vec::new();
    for interface in list(interfaces, &["interface"]) {
        let port = text(member(interface, "name"));
        for neighbour in list(interface, &["neighbors", "neighbor"]).filter(|_| port.starts_with("Ethernet"))
        {
            let state = member(neighbour, "state");
            let said = |name: &str| text(member(state, name));
            let description = said("port-description");
            let is_mac = identity(member(state, "port-id-type")) == "MAC_ADDRESS";
            let id = said("port-id");
            let no_name = id.is_empty() || is_mac && !description.is_empty();
            let name = said("system-name");
            found.push(Neighbour {
                port: port.as_str().into(),
                device: if name.is_empty() { said("chassis-id") } else { name },
                device_port: if no_name { description.clone() } else { id },
                description,
            });
        }
    }
    found
}

pub(super) fn links(json: &Value) -> BTreeMap<InterfaceName, LinkStatus> {
    let inner = member(json, "interfaces");
    let interfaces = if inner.is_null() { json } else { inner };
    let ports = list(interfaces, &["interface"]).filter_map(|interface| {
        let name = text(member(interface, "name"));
        name.starts_with("Ethernet").then(|| (name.into(), link(interface)))
    });
    ports.collect()
}

fn link(interface: &Value) -> LinkStatus {
    let state = member(interface, "state");
    let ethernet = at(interface, &["ethernet", "state"]);
    let speed = identity(member(ethernet, "port-speed"));
    let fec = match identity(member(ethernet, "fec-mode")) {
        "FEC_FC" => Some(Fec::Fc),
        "FEC_DISABLED" => Some(Fec::Off),
        "FEC_AUTO" => Some(Fec::Auto),
        rs if rs.starts_with("FEC_RS") => Some(Fec::Rs),
        _ => None,
    };
    LinkStatus {
        up: identity(member(state, "oper-status")) == "UP",
        speed_gbps: speed.strip_prefix("SPEED_").and_then(|s| s.strip_suffix("GB")?.parse().ok()),
        mtu_bytes: member(state, "mtu").as_u64().and_then(|mtu| mtu.try_into().ok()),
        fec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_json() -> impl Strategy<Value = Value> {
        const NAMES: [&str; 8] =
            ["interfaces", "interface", "state", "name", "neighbors", "neighbor", "mtu", "port-speed"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[A-Z:_0-9]{0,12}".prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 64, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), inner, 0..4)
                    .prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn arbitrary_json_never_panics(json in any_json()) {
            neighbours(&json);
            links(&json);
        }
    }
}
