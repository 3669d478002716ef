//! A Cumulus switch for tests: NVUE's revisions with apply, confirm in time and save, PATCH of the whole tree with `null`, and a
//! schema of what may stand where. Written from the Cumulus Linux User Guide ("NVUE API") and knows nothing of the driver.
#![allow(dead_code, unreachable_pub)]

use super::web::{Answer, Seen, Site};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Revision {
    pub tree: Value,
    pub state: String,
    pub issue: Value,
    polls: u32,
    confirm_s: u64,
}

pub struct NvueSite {
    pub build: String,
    pub ports: Vec<String>,
    pub applied: Value,
    pub startup: Value,
    pub revisions: BTreeMap<String, Revision>,
    pub pending: Option<(String, Value, Instant)>,
    pub neighbours: BTreeMap<String, Value>,
    /// State and message in which the next apply ends.
    pub fails: Option<(&'static str, &'static str)>,
    pub stats: Value,
}

/// Paths that exist; `*` is any name. The value: what the leaf must be.
const SCHEMA: &[(&str, &str)] = &[
    ("interface/*/type", "word"),
    ("interface/*/description", "word"),
    ("interface/*/vlan", "number"),
    ("interface/*/base-interface", "word"),
    ("interface/*/link/mtu", "number"),
    ("interface/*/link/speed", "speed"),
    ("interface/*/link/fec", "fec"),
    ("interface/*/link/auto-negotiate", "word"),
    ("interface/*/link/state/*", "presence"),
    ("interface/*/link/breakout/*", "presence"),
    ("interface/*/ip/address/*", "presence"),
    ("interface/*/lldp/dcbx-pfc-tlv", "word"),
    ("interface/*/lldp/dcbx-ets-config-tlv", "word"),
    ("interface/*/lldp/dcbx-ets-recomm-tlv", "word"),
    ("interface/*/bond/member/*", "presence"),
    ("interface/*/bond/mode", "word"),
    ("interface/*/bond/lacp-rate", "word"),
    ("interface/*/bond/mlag/enable", "word"),
    ("interface/*/bond/mlag/id", "number"),
    ("interface/*/bridge/domain/br_default/access", "number"),
    ("interface/*/bridge/domain/br_default/untagged", "any"),
    ("interface/*/bridge/domain/br_default/vlan/*", "presence"),
    ("interface/*/qos/mapping/profile", "word"),
    ("interface/*/qos/pfc/profile", "word"),
    ("interface/*/qos/egress-scheduler/profile", "word"),
    ("interface/*/qos/congestion-control/profile", "word"),
    ("interface/*/qos/pfc-watchdog/state", "word"),
    ("bridge/domain/br_default/vlan/*", "presence"),
    ("mlag/enable", "word"),
    ("mlag/mac-address", "word"),
    ("mlag/peer-ip", "word"),
    ("qos/mapping/*/trust", "word"),
    ("qos/mapping/*/dscp/*/switch-priority", "number"),
    ("qos/pfc/*/switch-priority/*", "presence"),
    ("qos/pfc/*/rx", "word"),
    ("qos/pfc/*/tx", "word"),
    ("qos/pfc-watchdog/polling-interval", "number"),
    ("qos/pfc-watchdog/robustness", "number"),
    ("qos/egress-scheduler/*/traffic-class/*/mode", "word"),
    ("qos/egress-scheduler/*/traffic-class/*/bw-percent", "number"),
    ("qos/congestion-control/*/traffic-class/*/min-threshold", "number"),
    ("qos/congestion-control/*/traffic-class/*/max-threshold", "number"),
    ("qos/congestion-control/*/traffic-class/*/probability", "number"),
    ("qos/congestion-control/*/traffic-class/*/ecn", "word"),
    ("qos/congestion-control/*/traffic-class/*/red", "word"),
];

impl NvueSite {
    pub fn factory(ports: &[&str]) -> Self {
        Self {
            build: "Cumulus Linux 5.9.2".into(),
            ports: ports.iter().map(|p| (*p).to_owned()).collect(),
            applied: json!({"interface": {"eth0": {"type": "eth", "ip": {"address": {"192.0.2.1/24": {}}}}}, "system": {"hostname": "leaf-1"}}),
            startup: json!({}),
            revisions: BTreeMap::new(),
            pending: None,
            neighbours: BTreeMap::new(),
            fails: None,
            stats: json!({}),
        }
    }

    pub fn expire(&mut self) {
        if let Some((_, _, until)) = &mut self.pending {
            *until = Instant::now();
        }
        self.tick();
    }

    fn tick(&mut self) {
        if self.pending.as_ref().is_some_and(|(_, _, until)| Instant::now() >= *until) {
            let (id, before, _) = self.pending.take().unwrap();
            self.applied = before;
            self.revisions.get_mut(&id).unwrap().state = "inactive".into();
        }
    }

    fn operational(&self) -> Value {
        let mut all = Map::new();
        for port in &self.ports {
            let set = &self.applied["interface"][port];
            let up = set["link"]["state"].get("down").is_none();
            let speed = set["link"]["speed"].as_str().unwrap_or("100G");
            let mtu = set["link"]["mtu"].as_u64().unwrap_or(9216);
            let mut now = json!({"type": "swp", "link": {
                "oper-status": if up { "up" } else { "down" }, "speed": speed, "mtu": mtu,
                "stats": {"in-bytes": 1000, "out-bytes": 2000, "in-pkts": 10, "out-pkts": 20, "in-errors": 1, "in-drops": 2, "out-drops": 3, "out-errors": 0},
            }});
            if let Some(neighbour) = self.neighbours.get(port) {
                now["lldp"]["neighbor"] = neighbour.clone();
            }
            if let Some(more) = self.stats.get(port) {
                now["counters"] = more.clone();
            }
            all.insert(port.clone(), now);
        }
        all.insert("eth0".into(), json!({"type": "eth"}));
        Value::Object(all)
    }

    /// What nued checks of a whole configuration when it is applied.
    fn invalid(&self, tree: &Value) -> Option<String> {
        let known =
            |path: &str, name: &Value| tree["qos"][path].get(name.as_str().unwrap_or_default()).is_some();
        for (name, set) in tree["interface"].as_object().into_iter().flatten() {
            for kind in ["mapping", "pfc", "egress-scheduler", "congestion-control"] {
                let profile = &set["qos"][kind]["profile"];
                if !profile.is_null() && !known(kind, profile) {
                    return Some(format!("{kind} profile {profile} of {name} does not exist"));
                }
            }
            if set["link"]["mtu"].as_u64().is_some_and(|mtu| !(552..=9216).contains(&mtu)) {
                return Some(format!("{name}: MTU must be between 552 and 9216"));
            }
            let domain = &set["bridge"]["domain"]["br_default"];
            if !domain["access"].is_null() && !domain["vlan"].is_null() {
                return Some(format!("{name}: access and vlan exclude each other"));
            }
            for member in set["bond"]["member"].as_object().into_iter().flatten().map(|(name, _)| name) {
                if !self.ports.contains(member) {
                    return Some(format!("{member} is no port"));
                }
            }
        }
        None
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn unknown(path: &mut Vec<String>, value: &Value) -> Option<String> {
    let fits = |pattern: &str, whole: bool| {
        let parts: Vec<&str> = pattern.split('/').collect();
        (!whole || parts.len() == path.len())
            && parts.len() >= path.len()
            && parts.iter().zip(path.iter()).all(|(p, s)| *p == "*" || p == s)
    };
    if !path.is_empty() && !SCHEMA.iter().any(|(pattern, _)| fits(pattern, false)) {
        return Some(format!("'{}' does not match any of the schema", path.join(".")));
    }
    match value {
        Value::Null => None,
        Value::Object(map) => map.iter().find_map(|(key, below)| {
            path.push(key.clone());
            let found = unknown(path, below);
            path.pop();
            found
        }),
        leaf => {
            let Some((_, kind)) = SCHEMA.iter().find(|(pattern, _)| fits(pattern, true)) else {
                return Some(format!("'{}' is no leaf", path.join(".")));
            };
            let fine = match *kind {
                "number" => leaf.is_u64(),
                "speed" => ["10G", "25G", "40G", "50G", "100G", "200G", "400G", "800G", "auto"]
                    .contains(&leaf.as_str().unwrap_or("")),
                "fec" => ["rs", "baser", "off", "auto"].contains(&leaf.as_str().unwrap_or("")),
                "word" => leaf.is_string(),
                "any" => true,
                _ => false,
            };
            (!fine).then(|| format!("{leaf} is not valid for '{}'", path.join(".")))
        }
    }
}

fn problem(status: u16, title: &str, detail: &str) -> Answer {
    Answer::json(status, json!({"status": status, "title": title, "type": "about:blank", "detail": detail}))
}

impl Site for NvueSite {
    fn answer(&mut self, request: &Seen) -> Answer {
        self.tick();
        let Some(path) = request.path.strip_prefix("/nvue_v1/") else {
            return problem(404, "Not Found", "The requested URL was not found on the server.");
        };
        if request.method == "PATCH" && request.content_type != "application/json" {
            return problem(415, "Unsupported Media Type", "application/json");
        }
        match (request.method.as_str(), path) {
            ("GET", "system?rev=operational") => {
                Answer::json(200, json!({"hostname": "leaf-1", "build": self.build, "uptime": "1 day"}))
            }
            ("GET", "platform?rev=operational") => Answer::json(
                200,
                json!({"product-name": "MSN4600C", "serial-number": "MT0001", "manufacturer": "Mellanox"}),
            ),
            ("GET", "?rev=applied") => Answer::json(200, self.applied.clone()),
            ("GET", "interface?rev=operational") => Answer::json(200, self.operational()),
            ("POST", "revision") => {
                let id = (self.revisions.len() + 1).to_string();
                let revision = Revision {
                    tree: self.applied.clone(),
                    state: "pending".into(),
                    issue: json!({}),
                    polls: 0,
                    confirm_s: 0,
                };
                self.revisions.insert(id.clone(), revision);
                Answer::json(
                    200,
                    json!({id: {"state": "pending", "transition": {"issue": {}, "progress": ""}}}),
                )
            }
            ("PATCH", root) if root.starts_with("?rev=") => {
                let Some(revision) = self.revisions.get_mut(&root[5..]) else {
                    return problem(404, "Not Found", "Revision not found");
                };
                if revision.state != "pending" {
                    return problem(400, "Bad Request", "Revision is not editable");
                }
                if let Some(reason) = unknown(&mut Vec::new(), &request.body) {
                    return problem(400, "Bad Request", &reason);
                }
                merge(&mut revision.tree, &request.body);
                Answer::json(200, json!({}))
            }
            ("PATCH", "revision/applied") => {
                assert_eq!(request.body["state"], "save");
                self.startup = self.applied.clone();
                Answer::json(200, json!({"state": "save", "transition": {"issue": {}, "progress": ""}}))
            }
            ("PATCH", path) if path.starts_with("revision/") => {
                let id = path["revision/".len()..].to_owned();
                let busy = self.pending.is_some();
                let Some(revision) = self.revisions.get_mut(&id) else {
                    return problem(404, "Not Found", "Revision not found");
                };
                match request.body["state"].as_str() {
                    Some("apply") if revision.state == "pending" => {
                        if busy {
                            return problem(409, "Conflict", "another revision waits to be confirmed");
                        }
                        let yes = request.body["auto-prompt"]["ays"] == "ays_yes";
                        revision.state = if yes { "readying" } else { "ays" }.into();
                        revision.confirm_s = request.body["state-controls"]["confirm"].as_u64().unwrap_or(0);
                    }
                    Some("confirm_yes") if revision.state == "confirm" => {
                        revision.state = "applied".into();
                        self.pending = None;
                    }
                    Some("confirm_no") if revision.state == "confirm" => {
                        revision.state = "inactive".into();
                        self.applied = self.pending.take().unwrap().1;
                    }
                    _ => return problem(400, "Bad Request", "no such transition"),
                }
                let state = self.revisions[&id].state.clone();
                Answer::json(200, json!({"state": state, "transition": {"issue": {}, "progress": ""}}))
            }
            ("GET", path) if path.starts_with("revision/") => {
                let id = path["revision/".len()..].to_owned();
                let fails = self.fails;
                let Some(revision) = self.revisions.get_mut(&id) else {
                    return problem(404, "Not Found", "Revision not found");
                };
                if revision.state == "readying" {
                    revision.polls += 1;
                    if revision.polls > 1 {
                        let tree = revision.tree.clone();
                        let confirm_s = revision.confirm_s;
                        let bad = fails.map(|(s, m)| (s, m.to_owned()));
                        let bad = bad.or_else(|| self.invalid(&tree).map(|m| ("invalid", m)));
                        let revision = self.revisions.get_mut(&id).unwrap();
                        if let Some((state, message)) = bad {
                            revision.state = state.into();
                            revision.issue = json!({"0": {"code": "config_invalid", "severity": "error", "message": message}});
                        } else {
                            let before = std::mem::replace(&mut self.applied, tree);
                            revision.state = if confirm_s > 0 { "confirm" } else { "applied" }.into();
                            if confirm_s > 0 {
                                self.pending = Some((
                                    id.clone(),
                                    before,
                                    Instant::now() + Duration::from_secs(confirm_s),
                                ));
                            }
                        }
                    }
                }
                let revision = &self.revisions[&id];
                let transition = json!({"issue": revision.issue, "progress": revision.state});
                Answer::json(200, json!({"state": revision.state, "transition": transition}))
            }
            _ => problem(404, "Not Found", "The requested URL was not found on the server."),
        }
    }
}
