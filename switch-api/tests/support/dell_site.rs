//! A Dell switch for tests: RESTCONF (RFC 8040) over one tree, with media types, ETags, namespaces, list keys in paths, references
//! that must exist, and `ietf-restconf:errors`. Written from the RFC and the models, and knows nothing of the driver.
#![allow(dead_code, unreachable_pub)]

use super::web::{Answer, Seen, Site};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub struct DellSite {
    pub version: String,
    /// Members without their modules.
    pub tree: Value,
    pub startup: Value,
    pub tags: BTreeMap<String, u32>,
    /// Writes until one is refused.
    pub full_after: Option<usize>,
    /// PATCH bodies with their paths, for validation against the models.
    pub bodies: Vec<(String, Value)>,
}

/// Key of each list.
const KEYS: &[(&str, &str)] = &[
    ("address", "ip"),
    ("subinterface", "index"),
    ("dscp-map", "name"),
    ("dscp-map-entry", "dscp"),
    ("wred-profile", "name"),
    ("queue", "name"),
    ("scheduler-policy", "name"),
    ("scheduler", "sequence"),
    ("pfc-priority", "dot1p"),
    ("mclag-domain", "domain-id"),
    ("component", "name"),
    ("neighbor", "id"),
];

/// Module of members that are not of their parent's.
const MODULES: &[(&str, &str)] = &[
    ("ethernet", "openconfig-if-ethernet"),
    ("aggregation", "openconfig-if-aggregate"),
    ("aggregate-id", "openconfig-if-aggregate"),
    ("switched-vlan", "openconfig-vlan"),
    ("routed-vlan", "openconfig-vlan"),
    ("ipv4", "openconfig-if-ip"),
    ("ipv6", "openconfig-if-ip"),
    ("port-fec", "openconfig-if-ethernet-ext2"),
    ("fast-rate", "openconfig-interfaces-ext"),
    ("dscp-maps", "openconfig-qos-maps-ext"),
    ("interface-maps", "openconfig-qos-maps-ext"),
    ("wred-profiles", "openconfig-qos-ext"),
    ("pfc", "openconfig-qos-ext"),
    ("wred-profile", "openconfig-qos-ext"),
    ("scheduling-type", "openconfig-qos-ext"),
    ("weight", "openconfig-qos-ext"),
    ("software-module", "openconfig-platform-ext"),
];

fn key_of(list: &str, interfaces_of_qos: bool) -> &'static str {
    match list {
        "interface" if interfaces_of_qos => "interface-id",
        "interface" => "name",
        _ => KEYS.iter().find(|(name, _)| *name == list).map_or("name", |(_, key)| key),
    }
}

struct Refusal(u16, &'static str, String);

impl DellSite {
    pub fn factory(ports: &[&str]) -> Self {
        let interface: Vec<Value> = ports
            .iter()
            .map(|name| {
                json!({"name": name, "config": {"name": name, "enabled": true, "mtu": 9100},
                    "state": {"name": name, "oper-status": "UP", "mtu": 9100,
                        "counters": {"in-octets": "1000", "out-octets": "2000", "in-errors": "1", "in-pkts": "10", "out-pkts": "20"}},
                    "ethernet": {"config": {"port-speed": "openconfig-if-ethernet:SPEED_100GB"},
                        "state": {"port-speed": "openconfig-if-ethernet:SPEED_100GB"}}})
            })
            .collect();
        Self {
            version: "4.2.0-Enterprise_Premium".into(),
            tree: json!({
                "interfaces": {"interface": interface},
                "qos": {}, "mclag": {},
                "lldp": {"interfaces": {"interface": []}},
                "system": {"state": {"hostname": "leaf-1"}},
                "components": {"component": [
                    {"name": "System Eeprom", "state": {"part-no": "S5232F-ON", "serial-no": "CN0001"}},
                ]},
            }),
            startup: Value::Null,
            tags: BTreeMap::new(),
            full_after: None,
            bodies: Vec::new(),
        }
    }

    fn tag(&self, root: &str) -> String {
        format!("\"{}\"", self.tags.get(root).copied().unwrap_or_default())
    }

    fn touch(&mut self, root: &str) {
        *self.tags.entry(root.to_owned()).or_default() += 1;
    }

    /// As another client would.
    pub fn meddle(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.tree);
        self.touch("interfaces");
        self.touch("qos");
    }

    pub fn interface(&self, name: &str) -> &Value {
        let list = self.tree["interfaces"]["interface"].as_array().unwrap();
        list.iter().find(|i| i["name"] == name).unwrap_or(&Value::Null)
    }

    fn write(&mut self, request: &Seen, steps: &[Step]) -> Result<(), Refusal> {
        if self.full_after == Some(0) {
            return Err(Refusal(500, "resource-denied", "CONFIG_DB is full".into()));
        }
        let mut tree = self.tree.clone();
        let in_qos = steps[0].name == "qos";
        if request.method == "DELETE" {
            delete(&mut tree, steps, in_qos)?;
        } else {
            let last = steps.last().unwrap();
            let body = request.body.as_object().filter(|map| map.len() == 1);
            let Some((name, value)) = body.and_then(|map| map.iter().next()) else {
                return Err(Refusal(400, "malformed-message", "one top-level member expected".into()));
            };
            let (module, bare) = name.split_once(':').unwrap_or(("", name));
            if bare != last.name || module.is_empty() {
                return Err(Refusal(400, "unknown-element", format!("{name} is not {}", last.name)));
            }
            let value = stripped(value, steps[0].module)?;
            let target = enter(&mut tree, steps, in_qos)?;
            merge(target, &value, &last.name, in_qos)?;
        }
        references(&tree)?;
        self.tree = tree;
        if let Some(left) = &mut self.full_after {
            *left -= 1;
        }
        Ok(())
    }

    fn component(&self, name: &str) -> Option<Value> {
        if name == "SoftwareModule" {
            return Some(
                json!({"name": name, "openconfig-platform-ext:software-module": {"state": {"software-version": self.version}}}),
            );
        }
        let list = self.tree["components"]["component"].as_array()?;
        list.iter().find(|c| c["name"] == name).cloned()
    }
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    module: &'static str,
    key: Option<String>,
}

fn parse(path: &str) -> Vec<Step> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let hex: String =
                    [rest.next().unwrap() as char, rest.next().unwrap() as char].iter().collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    path.split('/')
        .map(|step| {
            let (name, key) =
                step.split_once('=').map_or((step, None), |(name, key)| (name, Some(decoded(key))));
            let bare = name.rsplit(':').next().unwrap().to_owned();
            let module = MODULES.iter().find(|(n, _)| *n == bare).map_or("", |(_, m)| m);
            Step { name: bare, module, key }
        })
        .collect()
}

/// Without modules, which must be those of the models.
fn stripped(value: &Value, _: &str) -> Result<Value, Refusal> {
    match value {
        Value::Object(map) => {
            let mut bare = Map::new();
            for (name, below) in map {
                let (module, last) = name.split_once(':').unwrap_or(("", name));
                let expected = MODULES.iter().find(|(n, _)| *n == last).map(|(_, module)| *module);
                let fine = match expected {
                    // The list has the name of its leafref.
                    Some(_) if last == "wred-profile" && below.is_array() => module.is_empty(),
                    Some(expected) => module == expected,
                    None => module.is_empty(),
                };
                if !fine {
                    return Err(Refusal(400, "unknown-namespace", format!("{name} is of {expected:?}")));
                }
                bare.insert(last.to_owned(), stripped(below, "")?);
            }
            Ok(bare.into())
        }
        Value::Array(list) => {
            list.iter().map(|v| stripped(v, "")).collect::<Result<_, _>>().map(Value::Array)
        }
        leaf => Ok(leaf.clone()),
    }
}

fn same(entry: &Value, key: &str, value: &str) -> bool {
    entry[key] == value || entry[key].as_u64().is_some_and(|n| n.to_string() == value)
}

fn enter<'a>(tree: &'a mut Value, steps: &[Step], in_qos: bool) -> Result<&'a mut Value, Refusal> {
    let mut at = tree;
    for step in steps {
        at = &mut at[step.name.as_str()];
        if let Some(value) = &step.key {
            let key = key_of(&step.name, in_qos);
            let list = at.as_array_mut();
            let found = list.and_then(|list| list.iter_mut().find(|entry| same(entry, key, value)));
            at = found.ok_or_else(|| Refusal(404, "invalid-value", format!("no {} {value}", step.name)))?;
        }
    }
    Ok(at)
}

fn delete(tree: &mut Value, steps: &[Step], in_qos: bool) -> Result<(), Refusal> {
    let missing = || Refusal(404, "data-missing", "Resource not found".into());
    let (last, above) = steps.split_last().unwrap();
    let parent = enter(tree, above, in_qos)?;
    let Some(map) = parent.as_object_mut() else { return Err(missing()) };
    let Some(value) = &last.key else {
        return map.remove(&last.name).map(drop).ok_or_else(missing);
    };
    let Some(list) = map.get_mut(&last.name).and_then(Value::as_array_mut) else { return Err(missing()) };
    let before = list.len();
    let key = key_of(&last.name, in_qos);
    list.retain(|entry| {
        !(same(entry, key, value) || entry.as_u64().is_some_and(|n| n.to_string() == *value))
    });
    let fewer = list.len() < before;
    if list.is_empty() {
        map.remove(&last.name);
    }
    if fewer { Ok(()) } else { Err(missing()) }
}

fn merge(into: &mut Value, from: &Value, name: &str, in_qos: bool) -> Result<(), Refusal> {
    match from {
        Value::Object(map) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (name, value) in map {
                merge(&mut into[name.as_str()], value, name, in_qos)?;
            }
        }
        Value::Array(entries) => {
            if !into.is_array() {
                *into = json!([]);
            }
            let list = into.as_array_mut().unwrap();
            for entry in entries {
                if !entry.is_object() {
                    // A leaf-list.
                    if !list.contains(entry) {
                        list.push(entry.clone());
                    }
                    continue;
                }
                let key = key_of(name, in_qos);
                if entry[key].is_null() {
                    return Err(Refusal(400, "missing-element", format!("{name} without {key}")));
                }
                if !entry["config"][key].is_null() && entry["config"][key] != entry[key] {
                    return Err(Refusal(400, "invalid-value", format!("{name}: {key} differs in config")));
                }
                match list.iter().position(|e| e[key] == entry[key]) {
                    Some(at) => merge(&mut list[at], entry, name, in_qos)?,
                    None => list.push(entry.clone()),
                }
            }
        }
        leaf => *into = leaf.clone(),
    }
    Ok(())
}

/// What must be there for what refers to it, and ranges.
fn references(tree: &Value) -> Result<(), Refusal> {
    let empty = Vec::new();
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let interfaces = tree["interfaces"]["interface"].as_array().unwrap_or(&empty);
    let exists = |name: &str| interfaces.iter().any(|i| i["name"] == name);
    let no = |what: String| Err(Refusal(400, "invalid-value", what));
    for interface in interfaces {
        let name = interface["name"].as_str().unwrap_or_default();
        if !["Ethernet", "PortChannel", "Vlan", "Loopback"].iter().any(|k| name.starts_with(k)) {
            return no(format!("{name} is no interface"));
        }
        if interface["config"]["mtu"].as_u64().is_some_and(|mtu| !(1312..=9216).contains(&mtu)) {
            return no(format!("Invalid MTU of {name}, range 1312..9216"));
        }
        let lag = &interface["ethernet"]["config"]["aggregate-id"];
        if lag.as_str().is_some_and(|lag| !exists(lag)) {
            return no(format!("{lag} does not exist"));
        }
        for place in ["ethernet", "aggregation"] {
            let config = &interface[place]["switched-vlan"]["config"];
            for vlan in
                list(&config["trunk-vlans"]).iter().chain([&config["access-vlan"]]).filter_map(Value::as_u64)
            {
                if !exists(&format!("Vlan{vlan}")) {
                    return no(format!("Vlan{vlan} of {name} does not exist"));
                }
                if lag.is_string() {
                    return no(format!("{name} is member of {lag} and cannot be in a VLAN"));
                }
            }
        }
    }
    let qos = &tree["qos"];
    let named =
        |list: &Value, name: &Value| list.as_array().unwrap_or(&empty).iter().any(|e| e["name"] == *name);
    for interface in list(&qos["interfaces"]["interface"]) {
        let id = interface["interface-id"].as_str().unwrap_or_default();
        if !exists(id) {
            return no(format!("{id} does not exist"));
        }
        let map = &interface["interface-maps"]["config"]["dscp-to-forwarding-group"];
        if !map.is_null() && !named(&qos["dscp-maps"]["dscp-map"], map) {
            return no(format!("DSCP map {map} does not exist"));
        }
        let policy = &interface["output"]["scheduler-policy"]["config"]["name"];
        if !policy.is_null() && !named(&qos["scheduler-policies"]["scheduler-policy"], policy) {
            return no(format!("scheduler policy {policy} does not exist or is in use"));
        }
    }
    for queue in list(&qos["queues"]["queue"]) {
        let profile = &queue["wred"]["config"]["wred-profile"];
        if !profile.is_null() && !named(&qos["wred-profiles"]["wred-profile"], profile) {
            return no(format!("WRED profile {profile} does not exist or is in use"));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let name = |name: &String, below: &Value| match MODULES.iter().find(|(n, _)| n == name) {
                Some((_, module)) if !(name == "wred-profile" && below.is_array()) => {
                    format!("{module}:{name}")
                }
                _ => name.clone(),
            };
            map.iter().map(|(n, v)| (name(n, v), shown(v))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(shown).collect(),
        leaf => leaf.clone(),
    }
}

fn refused(Refusal(status, tag, message): Refusal) -> Answer {
    let kind = if status == 412 { "protocol" } else { "application" };
    let error = json!({"error-type": kind, "error-tag": tag, "error-message": message});
    Answer::json(status, json!({"ietf-restconf:errors": {"error": [error]}}))
}

impl Site for DellSite {
    fn answer(&mut self, request: &Seen) -> Answer {
        if request.path == "/restconf/operations/sonic-config-mgmt:copy" && request.method == "POST" {
            let input = &request.body["sonic-config-mgmt:input"];
            assert_eq!(
                (&input["source"], &input["destination"]),
                (&json!("running-configuration"), &json!("startup-configuration"))
            );
            self.startup = self.tree.clone();
            return Answer::json(
                200,
                json!({"sonic-config-mgmt:output": {"status": 0, "status-detail": "SUCCESS."}}),
            );
        }
        let Some(path) = request.path.strip_prefix("/restconf/data/") else { return Answer::empty(404) };
        let steps = parse(path);
        let root = steps[0].name.clone();
        if request.method == "GET" {
            if let Some(name) = steps.get(1).and_then(|s| s.key.clone()).filter(|_| root == "components") {
                return match self.component(&name) {
                    Some(found) => Answer::json(200, json!({"openconfig-platform:component": [found]})),
                    None => refused(Refusal(404, "invalid-value", "Resource not found".into())),
                };
            }
            let mut tree = self.tree.clone();
            let found = match enter(&mut tree, &steps, false) {
                Ok(found) if !found.is_null() => shown(found),
                _ => return refused(Refusal(404, "invalid-value", "Resource not found".into())),
            };
            let name = path.split('/').next_back().unwrap();
            let module = path.split(':').next().unwrap();
            let name = if name.contains(':') { name.to_owned() } else { format!("{module}:{name}") };
            let mut answer = Answer::json(200, json!({name: found}));
            answer.headers.push(("etag", self.tag(&root)));
            return answer;
        }
        if request.method == "PATCH" && request.content_type != "application/yang-data+json" {
            return refused(Refusal(415, "invalid-value", "Unsupported Media Type".into()));
        }
        if request.if_match.as_ref().is_some_and(|tag| *tag != self.tag(&root)) {
            return refused(Refusal(412, "operation-failed", "the entity tag does not match".into()));
        }
        if request.method == "PATCH" {
            self.bodies.push((path.to_owned(), request.body.clone()));
        }
        match self.write(request, &steps) {
            Ok(()) => {
                self.touch(&root);
                let mut answer = Answer::empty(204);
                answer.headers.push(("etag", self.tag(&root)));
                answer
            }
            Err(refusal) => refused(refusal),
        }
    }
}
