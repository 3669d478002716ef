//! From a plan to one tree for PATCH: what is said stands as it shall be, what goes is `null`. Things that several objects say
//! together (a port's VLANs, its profiles) are written whole, from the state that the plan leads to.

use super::{BRIDGE, PEER_LINK};
use crate::drivers::http::entries;
use crate::error::Cause;
use crate::intent::{DcbxMode, Fec, LagMode};
use crate::names::InterfaceName;
use crate::plan::{Change, Plan};
use crate::state::{Key, Kind, Lag, Mark, Mclag, Object, Port, Scheduling, SwitchState};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn tree(before: &SwitchState, plan: &Plan, mark: &Mark, applied: &Value) -> Result<Value, Cause> {
    let mut after = before.clone();
    plan.changes.iter().for_each(|change| after.change(change));
    let mut write = Write { before, after: &after, mark, tree: Value::Null };
    let (mut switched, mut profiled) = (BTreeSet::new(), BTreeSet::new());
    let mut profiles: BTreeSet<String> = BTreeSet::new();
    for change in &plan.changes {
        write.change(change)?;
        match change.object() {
            Object::VlanMember(member) => drop(switched.insert(member.interface.clone())),
            Object::PortQos(qos) => drop(profiled.insert(qos.port.clone())),
            Object::Queue(queue) => {
                profiled.insert(queue.port.clone());
                let key = change.key();
                profiles.extend([before, &after].into_iter().filter_map(|state| match state.get(&key) {
                    Some(Object::Queue(queue)) => queue.ecn_profile.clone(),
                    _ => None,
                }));
            }
            Object::EcnProfile(profile) => drop(profiles.insert(profile.name.clone())),
            _ => {}
        }
    }
    switched.iter().try_for_each(|interface| write.switching(interface))?;
    profiles.iter().for_each(|profile| write.thresholds(profile));
    profiled.iter().try_for_each(|port| write.profiles(port))?;
    write.unused(applied, &profiled);
    Ok(if write.tree.is_null() { json!({}) } else { write.tree })
}

struct Write<'a> {
    before: &'a SwitchState,
    after: &'a SwitchState,
    mark: &'a Mark,
    tree: Value,
}

impl Write<'_> {
    /// Sets the leaf or subtree at `path`.
    fn set(&mut self, path: &[&str], value: Value) {
        let mut at = &mut self.tree;
        for step in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[*step];
        }
        *at = value;
    }

    fn change(&mut self, change: &Change) -> Result<(), Cause> {
        let says = |field: &str| change.says(field);
        let gone = matches!(change, Change::Delete { .. });
        match change.object() {
            Object::Breakout(split) => {
                let port = split.port.as_str();
                let had = match self.before.get(&change.key()) {
                    Some(Object::Breakout(had)) => Some(had.lanes),
                    _ => None,
                };
                let entry = |lanes: u8| format!("{lanes}x");
                if gone {
                    self.set(&["interface", port, "link", "breakout"], Value::Null);
                } else {
                    // Two ways to split it cannot stand side by side.
                    if let Some(lanes) = had.filter(|lanes| *lanes != split.lanes) {
                        self.set(&["interface", port, "link", "breakout", &entry(lanes)], Value::Null);
                    }
                    self.set(&["interface", port, "link", "breakout", &entry(split.lanes)], json!({}));
                }
            }
            Object::Port(port) if gone => {
                self.set(&["interface", port.name.as_str(), "description"], Value::Null);
                for leaf in ["mtu", "speed", "fec", "auto-negotiate"] {
                    self.set(&["interface", port.name.as_str(), "link", leaf], Value::Null);
                }
            }
            Object::Port(port) => self.port(port, says),
            Object::Vlan(vlan) => {
                let value = if gone { Value::Null } else { json!({}) };
                self.set(&["bridge", "domain", BRIDGE, "vlan", &vlan.id.to_string()], value);
            }
            Object::Lag(lag) if gone => self.set(&["interface", lag.name.as_str()], Value::Null),
            Object::Lag(lag) => self.lag(lag, says),
            Object::LagMember(member) => {
                // A LAG that goes takes its members' entries along; a port that moves has one under either.
                if let Some(Object::LagMember(had)) = self.before.get(&member_key(&member.port))
                    && self.after.contains(&Key::lag(&had.lag))
                {
                    let path = ["interface", had.lag.as_str(), "bond", "member", member.port.as_str()];
                    self.set(&path, Value::Null);
                }
                if !gone {
                    self.set(
                        &["interface", member.lag.as_str(), "bond", "member", member.port.as_str()],
                        json!({}),
                    );
                }
            }
            Object::Mclag(domain) => self.mclag(domain, gone),
            Object::MclagMember(member) => {
                if self.after.contains(&Key::lag(&member.lag)) {
                    let value = if gone { Value::Null } else { json!({"enable": "on", "id": member.id}) };
                    self.set(&["interface", member.lag.as_str(), "bond", "mlag"], value);
                }
            }
            // Written together.
            Object::VlanMember(_) | Object::PortQos(_) | Object::Queue(_) | Object::EcnProfile(_) => {}
            Object::Address(address) => {
                let value = if gone { Value::Null } else { json!({}) };
                let interface = address.interface.as_str();
                let is_lag = self.before.contains(&Key::lag(&address.interface));
                if !is_lag || self.after.contains(&Key::lag(&address.interface)) {
                    self.set(&["interface", interface, "ip", "address", &address.address], value);
                }
                if let Some(vlan) = interface.strip_prefix("vlan").filter(|_| !gone) {
                    self.set(&["interface", interface, "type"], json!("svi"));
                    self.set(
                        &["interface", interface, "vlan"],
                        json!(vlan.parse::<u16>().unwrap_or_default()),
                    );
                }
            }
            Object::DscpClass(class) => {
                let value = if gone { Value::Null } else { json!({"switch-priority": class.traffic_class}) };
                let still =
                    self.after.iter().any(|(_, o)| matches!(o, Object::DscpClass(c) if c.map == class.map));
                if still {
                    self.set(&["qos", "mapping", &class.map, "trust"], json!("l3"));
                    self.set(&["qos", "mapping", &class.map, "dscp", &class.dscp.to_string()], value);
                } else {
                    self.set(&["qos", "mapping", &class.map], Value::Null);
                }
            }
            Object::PfcWatchdog(watchdog) => {
                let state = if gone { Value::Null } else { json!({"state": "enable"}) };
                self.set(&["interface", watchdog.port.as_str(), "qos", "pfc-watchdog"], state);
                if !gone {
                    let poll = (watchdog.detection_ms / 3).max(1);
                    self.set(&["qos", "pfc-watchdog"], json!({"polling-interval": poll, "robustness": 3}));
                }
            }
            Object::Dcbx(dcbx) => {
                if dcbx.mode == DcbxMode::Cee && !gone {
                    return Err(Cause::Unsupported { what: "DCBX in the form of CEE".into() });
                }
                let value = if gone || dcbx.mode == DcbxMode::Off { Value::Null } else { json!("on") };
                for tlv in ["dcbx-pfc-tlv", "dcbx-ets-config-tlv", "dcbx-ets-recomm-tlv"] {
                    self.set(&["interface", dcbx.port.as_str(), "lldp", tlv], value.clone());
                }
            }
        }
        Ok(())
    }

    fn port(&mut self, port: &Port, says: impl Fn(&str) -> bool) {
        let name = port.name.as_str();
        self.set(&["interface", name, "type"], json!("swp"));
        if says("description") {
            self.set(&["interface", name, "description"], said(&port.description));
        }
        if says("enabled") {
            let (state, other) = if port.enabled { ("up", "down") } else { ("down", "up") };
            self.set(&["interface", name, "link", "state"], json!({state: {}, other: null}));
        }
        if let Some(gbps) = port.speed_gbps.filter(|_| says("speed_gbps")) {
            self.set(&["interface", name, "link", "speed"], json!(format!("{gbps}G")));
        }
        if let Some(fec) = port.fec.filter(|_| says("fec")) {
            let word = match fec {
                Fec::Rs => "rs",
                Fec::Fc => "baser",
                Fec::Off => "off",
                Fec::Auto => "auto",
            };
            self.set(&["interface", name, "link", "fec"], json!(word));
        }
        if let Some(mtu) = port.mtu_bytes.filter(|_| says("mtu_bytes")) {
            self.set(&["interface", name, "link", "mtu"], json!(mtu));
        }
    }

    fn lag(&mut self, lag: &Lag, says: impl Fn(&str) -> bool) {
        let name = lag.name.as_str();
        let kind = if name == PEER_LINK { "peerlink" } else { "bond" };
        self.set(&["interface", name, "type"], json!(kind));
        if says("description") {
            self.set(&["interface", name, "description"], said(&lag.description));
        }
        if let Some(mtu) = lag.mtu_bytes.filter(|_| says("mtu_bytes")) {
            self.set(&["interface", name, "link", "mtu"], json!(mtu));
        }
        if says("mode") {
            let mode = if lag.mode == LagMode::Static { "static" } else { "lacp" };
            self.set(&["interface", name, "bond", "mode"], json!(mode));
        }
        if let Some(fast) = lag.fast.filter(|_| says("fast")) {
            self.set(&["interface", name, "bond", "lacp-rate"], json!(if fast { "fast" } else { "slow" }));
        }
    }

    fn mclag(&mut self, domain: &Mclag, gone: bool) {
        let sub = format!("{PEER_LINK}.{}", domain.peer_vlan);
        if gone {
            self.set(&["mlag"], Value::Null);
            return self.set(&["interface", &sub], Value::Null);
        }
        let address = format!("{}/{}", domain.local_address, domain.prefix_length);
        if let Some(Object::Mclag(had)) = self.before.get(&Key::new(Kind::Mclag, "domain")) {
            if had.peer_vlan != domain.peer_vlan {
                self.set(&["interface", &format!("{PEER_LINK}.{}", had.peer_vlan)], Value::Null);
            }
            let old = format!("{}/{}", had.local_address, had.prefix_length);
            if old != address && had.peer_vlan == domain.peer_vlan {
                self.set(&["interface", &sub, "ip", "address", &old], Value::Null);
            }
        }
        self.set(&["interface", &sub, "type"], json!("sub"));
        self.set(&["interface", &sub, "base-interface"], json!(PEER_LINK));
        self.set(&["interface", &sub, "vlan"], json!(domain.peer_vlan.0));
        self.set(&["interface", &sub, "ip", "address", &address], json!({}));
        self.set(
            &["mlag"],
            json!({"enable": "on", "mac-address": domain.system_mac, "peer-ip": domain.peer_address}),
        );
    }

    fn switching(&mut self, interface: &InterfaceName) -> Result<(), Cause> {
        if self.before.contains(&Key::lag(interface)) && !self.after.contains(&Key::lag(interface)) {
            return Ok(());
        }
        let (mut untagged, mut tagged, mut had) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (state, now) in [(self.before, false), (self.after, true)] {
            for (_, object) in state.iter() {
                match object {
                    Object::VlanMember(m) if &m.interface == interface && !now => drop(had.insert(m.vlan.0)),
                    Object::VlanMember(m) if &m.interface == interface && m.tagged => {
                        tagged.insert(m.vlan.0);
                    }
                    Object::VlanMember(m) if &m.interface == interface => untagged.push(m.vlan.0),
                    _ => {}
                }
            }
        }
        if untagged.len() > 1 {
            return Err(Cause::Unsupported { what: format!("two untagged VLANs on {interface}") });
        }
        let untagged = untagged.first().copied();
        let value = if untagged.is_none() && tagged.is_empty() {
            Value::Null
        } else if tagged.is_empty() {
            json!({"access": untagged, "untagged": null, "vlan": null})
        } else {
            let mut vlans: Map<String, Value> = tagged.iter().map(|v| (v.to_string(), json!({}))).collect();
            vlans.extend(had.iter().filter(|v| !tagged.contains(v)).map(|v| (v.to_string(), Value::Null)));
            let untagged = untagged.map_or(json!("none"), |vlan| json!(vlan));
            json!({"access": null, "untagged": untagged, "vlan": vlans})
        };
        let path = ["interface", interface.as_str(), "bridge", "domain", BRIDGE];
        self.set(&path, value);
        Ok(())
    }

    /// Thresholds in every traffic class whose queue names the profile.
    fn thresholds(&mut self, name: &str) {
        let users = |state: &SwitchState| -> BTreeSet<u8> {
            let queues = state.iter().filter_map(|(_, object)| match object {
                Object::Queue(queue) if queue.ecn_profile.as_deref() == Some(name) => Some(queue.queue),
                _ => None,
            });
            queues.collect()
        };
        let path = ["qos", "congestion-control", name];
        let Some(Object::EcnProfile(profile)) = self.after.get(&Key::new(Kind::EcnProfile, name)) else {
            return self.set(&path, Value::Null);
        };
        let set = json!({
            "min-threshold": profile.min_bytes, "max-threshold": profile.max_bytes,
            "probability": profile.mark_percent, "ecn": "enable", "red": "disable",
        });
        let (had, uses) = (users(self.before), users(self.after));
        let classes: Map<String, Value> = uses
            .union(&had)
            .map(|class| (class.to_string(), if uses.contains(class) { set.clone() } else { Value::Null }))
            .collect();
        self.set(&["qos", "congestion-control", name, "traffic-class"], classes.into());
    }

    /// Which profiles the port uses, and those of ours that say no more than a list of numbers.
    fn profiles(&mut self, port: &InterfaceName) -> Result<(), Cause> {
        let Wanted { mapping, pfc, scheduler, ecn } = self.wanted(port);
        if ecn.len() > 1 {
            return Err(Cause::Unsupported { what: format!("two ECN profiles on {port}") });
        }
        if let Some((name, priorities)) = &pfc {
            let priorities: Map<String, Value> =
                priorities.iter().map(|p| (p.to_string(), json!({}))).collect();
            let body = json!({"switch-priority": priorities, "rx": "enable", "tx": "enable"});
            self.set(&["qos", "pfc", name], body);
        }
        if let Some((name, turns)) = &scheduler {
            let classes: Map<String, Value> = turns
                .iter()
                .map(|(class, turn)| {
                    let turn = match turn {
                        Scheduling::Strict => json!({"mode": "strict"}),
                        Scheduling::Weighted(percent) => json!({"mode": "dwrr", "bw-percent": percent}),
                    };
                    (class.to_string(), turn)
                })
                .collect();
            self.set(&["qos", "egress-scheduler", name], json!({"traffic-class": classes}));
        }
        let uses = [
            ("mapping", mapping),
            ("pfc", pfc.map(|(name, _)| name)),
            ("egress-scheduler", scheduler.map(|(name, _)| name)),
            ("congestion-control", ecn.into_iter().next()),
        ];
        for (kind, name) in uses {
            let value = name.map_or(Value::Null, |name| json!({"profile": name}));
            self.set(&["interface", port.as_str(), "qos", kind], value);
        }
        Ok(())
    }

    fn wanted(&self, port: &InterfaceName) -> Wanted {
        let mut wanted = Wanted::default();
        let mut turns = BTreeMap::new();
        for (_, object) in self.after.iter() {
            match object {
                Object::PortQos(qos) if &qos.port == port => {
                    wanted.mapping = Some(qos.map.clone());
                    let word: String = qos.pfc_priorities.iter().map(u8::to_string).collect();
                    wanted.pfc = (!word.is_empty())
                        .then(|| (self.mark.name(&format!("pfc{word}")), qos.pfc_priorities.clone()));
                }
                Object::Queue(queue) if &queue.port == port => {
                    turns.extend(queue.scheduling.map(|turn| (queue.queue, turn)));
                    wanted.ecn.extend(queue.ecn_profile.clone());
                }
                _ => {}
            }
        }
        let word: String = turns
            .iter()
            .map(|(class, turn)| match turn {
                Scheduling::Strict => format!("-{class}s"),
                Scheduling::Weighted(percent) => format!("-{class}w{percent}"),
            })
            .collect();
        wanted.scheduler = (!turns.is_empty()).then(|| (self.mark.name(&format!("q{word}")), turns));
        wanted
    }

    /// Profiles of ours that no port uses any more.
    fn unused(&mut self, applied: &Value, profiled: &BTreeSet<InterfaceName>) {
        for kind in ["pfc", "egress-scheduler"] {
            let mut used = BTreeSet::new();
            for port in self.after.ports() {
                if profiled.contains(&port.name) {
                    let wanted = self.wanted(&port.name);
                    let name = if kind == "pfc" {
                        wanted.pfc.map(|(name, _)| name)
                    } else {
                        wanted.scheduler.map(|(name, _)| name)
                    };
                    used.extend(name);
                } else {
                    let name = &applied["interface"][port.name.as_str()]["qos"][kind]["profile"];
                    used.extend(name.as_str().map(str::to_owned));
                }
            }
            for (name, _) in entries(&applied["qos"][kind]) {
                if self.mark.owner_by_name(name) == crate::state::Owner::Ours && !used.contains(name) {
                    self.set(&["qos", kind, name], Value::Null);
                }
            }
        }
    }
}

#[derive(Default)]
struct Wanted {
    mapping: Option<String>,
    pfc: Option<(String, BTreeSet<u8>)>,
    scheduler: Option<(String, BTreeMap<u8, Scheduling>)>,
    ecn: BTreeSet<String>,
}

fn member_key(port: &InterfaceName) -> Key {
    Key::new(Kind::LagMember, port)
}

fn said(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}
