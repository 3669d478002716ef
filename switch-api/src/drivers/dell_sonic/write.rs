//! From a plan to RESTCONF requests: each change to one or a few, in the plan's order.

use super::{INTERFACES, MCLAG, QOS};
use crate::drivers::http::Method;
use crate::error::Cause;
use crate::intent::{Fec, LagMode, WatchdogAction};
use crate::names::InterfaceName;
use crate::plan::{Change, Plan};
use crate::state::{Key, Kind, Lag, Mark, Object, Port, Scheduling, SwitchState};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One request; `root` is the resource whose tag it depends on.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) method: Method,
    pub(super) root: &'static str,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

/// Steps of each change.
pub(super) fn steps(before: &SwitchState, plan: &Plan, mark: &Mark) -> Result<Vec<Vec<Step>>, Cause> {
    let mut now = before.clone();
    let mut all = Vec::new();
    for change in &plan.changes {
        let mut after = now.clone();
        after.change(change);
        let mut write = Write { before: &now, after: &after, mark, steps: Vec::new() };
        write.change(change)?;
        all.push(write.steps);
        now = after;
    }
    Ok(all)
}

/// A list key in a path: everything but unreserved characters in percent (RFC 8040, section 3.5.3).
pub(super) fn key(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

struct Write<'a> {
    before: &'a SwitchState,
    after: &'a SwitchState,
    mark: &'a Mark,
    steps: Vec<Step>,
}

impl Write<'_> {
    fn patch(&mut self, root: &'static str, below: &str, body: Value) {
        let path = format!("{root}{below}");
        self.steps.push(Step { method: Method::PATCH, root, path, body: Some(body) });
    }

    fn delete(&mut self, root: &'static str, below: &str) {
        let path = format!("{root}{below}");
        self.steps.push(Step { method: Method::DELETE, root, path, body: None });
    }

    fn interface(&mut self, name: &str, mut entry: Map<String, Value>) {
        entry.insert("name".to_owned(), json!(name));
        self.patch(INTERFACES, "", json!({INTERFACES: {"interface": [entry]}}));
    }

    fn change(&mut self, change: &Change) -> Result<(), Cause> {
        let says = |field: &str| change.says(field);
        let gone = matches!(change, Change::Delete { .. });
        match change.object() {
            Object::Breakout(_) | Object::Dcbx(_) => {
                let what = format!("{} over RESTCONF", change.object().kind().words());
                return Err(Cause::Unsupported { what });
            }
            Object::Port(port) if gone => {
                let below = format!("/interface={}", key(port.name.as_str()));
                self.delete(INTERFACES, &format!("{below}/config/description"));
                self.delete(INTERFACES, &format!("{below}/config/mtu"));
            }
            Object::Port(port) => self.port(port, says),
            Object::Vlan(vlan) => {
                let name = format!("Vlan{}", vlan.id);
                if gone {
                    self.delete(INTERFACES, &format!("/interface={name}"));
                } else {
                    let config = json!({"config": {"name": name, "description": vlan.name}});
                    self.interface(&name, object(config));
                }
            }
            Object::Lag(lag) if gone => {
                self.delete(INTERFACES, &format!("/interface={}", key(lag.name.as_str())));
            }
            Object::Lag(lag) => self.lag(lag, says),
            Object::LagMember(member) => {
                let port = member.port.as_str();
                if gone || matches!(change, Change::Update { .. }) {
                    let below = format!(
                        "/interface={}/openconfig-if-ethernet:ethernet/config/openconfig-if-aggregate:aggregate-id",
                        key(port)
                    );
                    self.delete(INTERFACES, &below);
                }
                if !gone {
                    let config = json!({"openconfig-if-ethernet:ethernet": {"config": {
                        "openconfig-if-aggregate:aggregate-id": member.lag.as_str()
                    }}});
                    self.interface(port, object(config));
                }
            }
            Object::Mclag(domain) if gone => {
                self.delete(MCLAG, &format!("/mclag-domains/mclag-domain={}", domain.domain_id));
            }
            Object::Mclag(domain) => {
                if let Some(Object::Mclag(had)) = self.before.get(&change.key())
                    && had.domain_id != domain.domain_id
                {
                    let below = format!("/mclag-domains/mclag-domain={}", had.domain_id);
                    self.delete(MCLAG, &below);
                }
                let config = json!({
                    "domain-id": domain.domain_id, "source-address": domain.local_address,
                    "peer-address": domain.peer_address, "peer-link": domain.peer_lag.as_str(),
                    "mclag-system-mac": domain.system_mac,
                });
                let body = json!({"mclag-domains": {"mclag-domain": [{"domain-id": domain.domain_id, "config": config}]}});
                self.patch(MCLAG, "", json!({MCLAG: body}));
            }
            Object::MclagMember(member) => {
                let lag = member.lag.as_str();
                if gone {
                    self.delete(MCLAG, &format!("/interfaces/interface={}", key(lag)));
                } else {
                    let domain = match self.after.get(&Key::new(Kind::Mclag, "domain")) {
                        Some(Object::Mclag(domain)) => domain.domain_id,
                        _ => {
                            return Err(Cause::Unsupported {
                                what: format!("{lag} over two switches without a pair"),
                            });
                        }
                    };
                    let entry = json!({"name": lag, "config": {"name": lag, "mclag-domain-id": domain}});
                    self.patch(MCLAG, "", json!({MCLAG: {"interfaces": {"interface": [entry]}}}));
                }
            }
            Object::VlanMember(member) => {
                let (interface, vlan) = (&member.interface, member.vlan.0);
                let kind = switched(interface);
                let below = format!(
                    "/interface={}/{kind}/openconfig-vlan:switched-vlan/config",
                    key(interface.as_str())
                );
                let leaf = |tagged: bool| match tagged {
                    true => format!("{below}/trunk-vlans={vlan}"),
                    false => format!("{below}/access-vlan"),
                };
                match self.before.get(&change.key()) {
                    Some(Object::VlanMember(had)) => self.delete(INTERFACES, &leaf(had.tagged)),
                    _ if gone => self.delete(INTERFACES, &leaf(member.tagged)),
                    _ => {}
                }
                if !gone {
                    let config = match member.tagged {
                        true => json!({"interface-mode": "TRUNK", "trunk-vlans": [vlan]}),
                        false => json!({"interface-mode": "ACCESS", "access-vlan": vlan}),
                    };
                    let entry = json!({kind: {"openconfig-vlan:switched-vlan": {"config": config}}});
                    self.interface(interface.as_str(), object(entry));
                }
            }
            Object::Address(address) => self.address(&address.interface, &address.address, gone)?,
            Object::DscpClass(class) => {
                let below = format!("/openconfig-qos-maps-ext:dscp-maps/dscp-map={}", key(&class.map));
                let left =
                    self.after.iter().any(|(_, o)| matches!(o, Object::DscpClass(c) if c.map == class.map));
                if gone && !left {
                    self.delete(QOS, &below);
                } else if gone {
                    self.delete(QOS, &format!("{below}/dscp-map-entries/dscp-map-entry={}", class.dscp));
                } else {
                    let group = class.traffic_class.to_string();
                    let entry =
                        json!({"dscp": class.dscp, "config": {"dscp": class.dscp, "fwd-group": group}});
                    let map = json!({"name": class.map, "config": {"name": class.map},
                        "dscp-map-entries": {"dscp-map-entry": [entry]}});
                    let maps = json!({"openconfig-qos-maps-ext:dscp-maps": {"dscp-map": [map]}});
                    self.patch(QOS, "/openconfig-qos-maps-ext:dscp-maps", maps);
                }
            }
            Object::EcnProfile(profile) => {
                let list = "/openconfig-qos-ext:wred-profiles";
                if gone {
                    self.delete(QOS, &format!("{list}/wred-profile={}", key(&profile.name)));
                } else {
                    let config = json!({
                        "name": profile.name, "ecn": "ECN_ALL", "wred-green-enable": true,
                        "green-min-threshold": profile.min_bytes.to_string(),
                        "green-max-threshold": profile.max_bytes.to_string(),
                        "green-drop-probability": profile.mark_percent.to_string(),
                    });
                    let entry = json!({"name": profile.name, "config": config});
                    self.patch(
                        QOS,
                        list,
                        json!({"openconfig-qos-ext:wred-profiles": {"wred-profile": [entry]}}),
                    );
                }
            }
            Object::PortQos(qos) => self.port_qos(&qos.port, &qos.map, &qos.pfc_priorities, gone),
            Object::PfcWatchdog(watchdog) => {
                let below = format!(
                    "/interfaces/interface={}/openconfig-qos-ext:pfc/watchdog/config",
                    key(watchdog.port.as_str())
                );
                if gone {
                    self.delete(QOS, &below);
                } else {
                    let action = match watchdog.action {
                        WatchdogAction::Drop => "DROP",
                        WatchdogAction::Forward => "FORWARD",
                        WatchdogAction::Alert => "ALERT",
                    };
                    let config = json!({"action": action, "detection-time": watchdog.detection_ms,
                        "restoration-time": watchdog.restoration_ms});
                    self.ensure_qos(&watchdog.port);
                    self.patch(QOS, &below, json!({"openconfig-qos-ext:config": config}));
                }
            }
            Object::Queue(queue) => self.queue(&queue.port, queue.queue, change),
        }
        Ok(())
    }

    fn port(&mut self, port: &Port, says: impl Fn(&str) -> bool) {
        let name = port.name.as_str();
        let (mut config, mut ethernet) = (Map::new(), Map::new());
        config.insert("name".to_owned(), json!(name));
        if says("description") {
            config.insert("description".to_owned(), json!(port.description));
        }
        if says("enabled") {
            config.insert("enabled".to_owned(), json!(port.enabled));
        }
        if let Some(mtu) = port.mtu_bytes.filter(|_| says("mtu_bytes")) {
            config.insert("mtu".to_owned(), json!(mtu));
        }
        if let Some(gbps) = port.speed_gbps.filter(|_| says("speed_gbps")) {
            ethernet.insert("port-speed".to_owned(), json!(format!("openconfig-if-ethernet:SPEED_{gbps}GB")));
        }
        if let Some(fec) = port.fec.filter(|_| says("fec")) {
            let word = match fec {
                Fec::Rs => "FEC_RS",
                Fec::Fc => "FEC_FC",
                Fec::Off => "FEC_DISABLED",
                Fec::Auto => "FEC_AUTO",
            };
            ethernet.insert("openconfig-if-ethernet-ext2:port-fec".to_owned(), json!(word));
        }
        let mut entry = object(json!({"config": config}));
        if !ethernet.is_empty() {
            entry.insert("openconfig-if-ethernet:ethernet".to_owned(), json!({"config": ethernet}));
        }
        self.interface(name, entry);
    }

    fn lag(&mut self, lag: &Lag, says: impl Fn(&str) -> bool) {
        let name = lag.name.as_str();
        let (mut config, mut aggregation) = (Map::new(), Map::new());
        config.insert("name".to_owned(), json!(name));
        if says("description") {
            config.insert("description".to_owned(), json!(lag.description));
        }
        if let Some(mtu) = lag.mtu_bytes.filter(|_| says("mtu_bytes")) {
            config.insert("mtu".to_owned(), json!(mtu));
        }
        if says("mode") {
            let kind = if lag.mode == LagMode::Static { "STATIC" } else { "LACP" };
            aggregation.insert("lag-type".to_owned(), json!(kind));
        }
        if let Some(links) = lag.min_links.filter(|_| says("min_links")) {
            aggregation.insert("min-links".to_owned(), json!(links));
        }
        if let Some(fast) = lag.fast.filter(|_| says("fast")) {
            aggregation.insert("openconfig-interfaces-ext:fast-rate".to_owned(), json!(fast));
        }
        let mut entry = object(json!({"config": config}));
        if !aggregation.is_empty() {
            entry.insert("openconfig-if-aggregate:aggregation".to_owned(), json!({"config": aggregation}));
        }
        self.interface(name, entry);
    }

    fn address(&mut self, interface: &InterfaceName, address: &str, gone: bool) -> Result<(), Cause> {
        let split = address.split_once('/').and_then(|(ip, prefix)| Some((ip, prefix.parse::<u8>().ok()?)));
        let Some((ip, prefix)) = split else {
            return Err(Cause::Unsupported { what: format!("the address '{address}'") });
        };
        let family = if ip.contains(':') { "openconfig-if-ip:ipv6" } else { "openconfig-if-ip:ipv4" };
        let vlan = interface.as_str().starts_with("Vlan");
        if gone {
            let place = if vlan { "openconfig-vlan:routed-vlan" } else { "subinterfaces/subinterface=0" };
            let interface = key(interface.as_str());
            self.delete(
                INTERFACES,
                &format!("/interface={interface}/{place}/{family}/addresses/address={}", key(ip)),
            );
            return Ok(());
        }
        let addresses =
            json!({"addresses": {"address": [{"ip": ip, "config": {"ip": ip, "prefix-length": prefix}}]}});
        let entry = if vlan {
            json!({"openconfig-vlan:routed-vlan": {family: addresses}})
        } else {
            json!({"subinterfaces": {"subinterface": [{"index": 0, "config": {"index": 0}, family: addresses}]}})
        };
        self.interface(interface.as_str(), object(entry));
        Ok(())
    }

    /// The list entry that the vendor's containers below it need.
    fn ensure_qos(&mut self, port: &InterfaceName) {
        let known = self.before.iter().any(|(_, object)| match object {
            Object::PortQos(o) => &o.port == port,
            Object::PfcWatchdog(o) => &o.port == port,
            Object::Queue(o) => &o.port == port && o.scheduling.is_some(),
            _ => false,
        });
        if !known {
            let port = port.as_str();
            let entry = json!({"interface-id": port, "config": {"interface-id": port}});
            self.patch(QOS, "", json!({QOS: {"interfaces": {"interface": [entry]}}}));
        }
    }

    fn port_qos(&mut self, port: &InterfaceName, map: &str, wanted: &BTreeSet<u8>, gone: bool) {
        let had = match self.before.get(&Key::new(Kind::PortQos, port)) {
            Some(Object::PortQos(before)) => before.pfc_priorities.clone(),
            _ => BTreeSet::new(),
        };
        let below = format!("/interfaces/interface={}", key(port.as_str()));
        let maps = format!("{below}/openconfig-qos-maps-ext:interface-maps/config");
        if gone {
            self.delete(QOS, &format!("{maps}/dscp-to-forwarding-group"));
        } else {
            self.ensure_qos(port);
            let config = json!({"openconfig-qos-maps-ext:config": {"dscp-to-forwarding-group": map}});
            self.patch(QOS, &maps, config);
        }
        let wanted = if gone { BTreeSet::new() } else { wanted.clone() };
        let entry = |p: &u8| json!({"dot1p": p, "config": {"dot1p": p, "enable": wanted.contains(p)}});
        let list: Vec<Value> = had.symmetric_difference(&wanted).map(entry).collect();
        if !list.is_empty() {
            let body = json!({"openconfig-qos-ext:pfc-priorities": {"pfc-priority": list}});
            self.patch(QOS, &format!("{below}/openconfig-qos-ext:pfc/pfc-priorities"), body);
        }
    }

    fn queue(&mut self, port: &InterfaceName, number: u8, change: &Change) {
        let name = format!("{port}:{number}");
        let (had, has) = (profile(self.before, &change.key()), profile(self.after, &change.key()));
        if let Some(profile) = has.as_ref().filter(|_| had != has) {
            let wred = json!({"config": {"openconfig-qos-ext:wred-profile": profile}});
            let entry = json!({"name": name, "config": {"name": name}, "wred": wred});
            self.patch(QOS, "", json!({QOS: {"queues": {"queue": [entry]}}}));
        } else if had != has {
            let below = format!("/queues/queue={}/wred/config/openconfig-qos-ext:wred-profile", key(&name));
            self.delete(QOS, &below);
        }
        let (before, after) = (turns(self.before, port), turns(self.after, port));
        if before == after {
            return;
        }
        let policy =
            format!("/interfaces/interface={}/output/scheduler-policy/config/name", key(port.as_str()));
        if let Some(name) = policy_name(self.mark, &after) {
            let schedulers: Vec<Value> = after.iter().map(|(queue, turn)| scheduler(*queue, turn)).collect();
            let entry =
                json!({"name": name, "config": {"name": name}, "schedulers": {"scheduler": schedulers}});
            self.patch(QOS, "", json!({QOS: {"scheduler-policies": {"scheduler-policy": [entry]}}}));
            let id = port.as_str();
            let entry = json!({"interface-id": id, "config": {"interface-id": id},
                "output": {"scheduler-policy": {"config": {"name": name}}}});
            self.patch(QOS, "", json!({QOS: {"interfaces": {"interface": [entry]}}}));
        } else {
            self.delete(QOS, &policy);
        }
        // The old policy goes with its last port.
        if let Some(old) = policy_name(self.mark, &before) {
            let used = self
                .after
                .ports()
                .any(|p| policy_name(self.mark, &turns(self.after, &p.name)).as_ref() == Some(&old));
            if !used {
                self.delete(QOS, &format!("/scheduler-policies/scheduler-policy={}", key(&old)));
            }
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Where the VLANs of a port or a LAG are.
fn switched(interface: &InterfaceName) -> &'static str {
    match interface.as_str().starts_with("PortChannel") {
        true => "openconfig-if-aggregate:aggregation",
        false => "openconfig-if-ethernet:ethernet",
    }
}

fn profile(state: &SwitchState, key: &Key) -> Option<String> {
    match state.get(key) {
        Some(Object::Queue(queue)) => queue.ecn_profile.clone(),
        _ => None,
    }
}

fn turns(state: &SwitchState, port: &InterfaceName) -> BTreeMap<u8, Scheduling> {
    let queues = state.iter().filter_map(|(_, object)| match object {
        Object::Queue(queue) if &queue.port == port => Some((queue.queue, queue.scheduling?)),
        _ => None,
    });
    queues.collect()
}

fn policy_name(mark: &Mark, turns: &BTreeMap<u8, Scheduling>) -> Option<String> {
    let word: String = turns
        .iter()
        .map(|(queue, turn)| match turn {
            Scheduling::Strict => format!("-{queue}s"),
            Scheduling::Weighted(percent) => format!("-{queue}w{percent}"),
        })
        .collect();
    (!turns.is_empty()).then(|| mark.name(&format!("q{word}")))
}

fn scheduler(queue: u8, turn: &Scheduling) -> Value {
    let mut config = object(json!({"sequence": queue}));
    match turn {
        Scheduling::Strict => drop(config.insert("priority".to_owned(), json!("STRICT"))),
        Scheduling::Weighted(percent) => {
            config.insert("openconfig-qos-ext:scheduling-type".to_owned(), json!("DWRR"));
            config.insert("openconfig-qos-ext:weight".to_owned(), json!(percent));
        }
    }
    json!({"sequence": queue, "config": config})
}
