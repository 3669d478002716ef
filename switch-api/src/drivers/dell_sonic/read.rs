//! From RESTCONF's trees to objects. Names of members may or may not carry their module (RFC 7951 wants it where it changes);
//! whatever is not understood is left out.

use super::{INTERFACES, MCLAG, QOS};
use crate::drivers::http::{number, text};
use crate::intent::{Fec, LagMode, WatchdogAction};
use crate::names::{InterfaceName, VlanId};
use crate::state::{
    Address, DscpClass, EcnProfile, Lag, LagMember, Mark, Mclag, MclagMember, PfcWatchdog, Port, PortQos,
    Queue, Scheduling, SwitchState, Vlan, VlanMember,
};
use crate::switch::{Counters, Identity, LinkStatus, Neighbour};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// MTU of a port without a setting: the default of SONiC's PORT table.
const USUAL_MTU_BYTES: u32 = 9100;

static NOTHING: Value = Value::Null;

/// The member at the end of `path`, whatever modules its steps are written with.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, step| {
        let members = value.as_object().into_iter().flatten();
        let bare = |name: &str| name.rsplit(':').next() == Some(step);
        members.into_iter().find(|(name, _)| bare(name)).map_or(&NOTHING, |(_, member)| member)
    })
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(value, path).as_array().into_iter().flatten()
}

fn small(value: &Value) -> Option<u8> {
    number(value).filter(|n| *n < 64).map(|n| n as u8)
}

pub(super) fn identity(eeprom: &Value, software: &Value, system: &Value) -> Option<Identity> {
    let first = |value: &Value| value.as_array().and_then(|list| list.first()).cloned().unwrap_or_default();
    let (eeprom, software) = (first(eeprom), first(software));
    let state = at(&eeprom, "state");
    Some(Identity {
        vendor: "Dell".to_owned(),
        model: text(at(state, "part-no")).or_else(|| text(at(state, "description"))).unwrap_or_default(),
        serial: text(at(state, "serial-no")).unwrap_or_default(),
        os_version: text(at(&software, "software-module/state/software-version"))?,
        host_name: text(at(system, "hostname")).unwrap_or_default(),
    })
}

pub(super) fn configured(trees: &BTreeMap<&'static str, Value>, mark: &Mark) -> SwitchState {
    let mut state = SwitchState::default();
    let tree = |name: &str| trees.get(name).unwrap_or(&NOTHING);
    for entry in list(tree(INTERFACES), "interface") {
        let Some(name) = entry["name"].as_str() else { continue };
        interface(name, entry, mark, &mut state);
    }
    quality(tree(QOS), mark, &mut state);
    mclag(tree(MCLAG), mark, &mut state);
    state
}

fn is_port(name: &str) -> bool {
    name.starts_with("Eth") && !name.contains('.')
}

fn interface(name: &str, entry: &Value, mark: &Mark, state: &mut SwitchState) {
    let config = at(entry, "config");
    let description = text(at(config, "description")).unwrap_or_default();
    let mtu = number(at(config, "mtu")).map_or(USUAL_MTU_BYTES, |mtu| mtu.min(65_535) as u32);
    let (ethernet, aggregation) = (at(entry, "ethernet"), at(entry, "aggregation"));
    if let Some(id) = name.strip_prefix("Vlan").and_then(|id| id.parse().ok()) {
        let owner = mark.owner_by_name(&description);
        state.insert_owned(Vlan { id: VlanId(id), name: description }, owner);
    } else if name.starts_with("PortChannel") {
        let owner = mark.owner_by_description(&description);
        let set = at(aggregation, "config");
        let lag = Lag {
            name: name.into(),
            description,
            mode: if set["lag-type"] == "STATIC" { LagMode::Static } else { LagMode::Lacp },
            fast: Some(at(set, "fast-rate") == true),
            min_links: Some(number(&set["min-links"]).map_or(1, |n| n.clamp(1, 999) as u16)),
            mtu_bytes: Some(mtu),
        };
        state.insert_owned(lag, owner);
        switched(name, at(aggregation, "switched-vlan"), state);
    } else if is_port(name) {
        let owner = mark.owner_by_description(&description);
        let set = at(ethernet, "config");
        let port = Port {
            name: name.into(),
            description,
            enabled: at(config, "enabled") != false,
            speed_gbps: at(set, "port-speed").as_str().and_then(gbps),
            fec: Some(match at(set, "port-fec").as_str().unwrap_or_default().rsplit(':').next() {
                Some("FEC_RS") => Fec::Rs,
                Some("FEC_FC") => Fec::Fc,
                Some("FEC_DISABLED") => Fec::Off,
                _ => Fec::Auto,
            }),
            mtu_bytes: Some(mtu),
        };
        state.insert_owned(port, owner);
        if let Some(lag) = at(set, "aggregate-id").as_str() {
            state.insert(LagMember { port: name.into(), lag: lag.into() });
        }
        switched(name, at(ethernet, "switched-vlan"), state);
    } else if !name.starts_with("Loopback") {
        return;
    }
    let subinterfaces =
        list(entry, "subinterfaces/subinterface").filter(|sub| number(&sub["index"]) == Some(0));
    for place in subinterfaces.chain([at(entry, "routed-vlan")]) {
        for family in ["ipv4", "ipv6"] {
            for address in list(place, &format!("{family}/addresses/address")) {
                let set = at(address, "config");
                let (Some(ip), Some(prefix)) = (text(&address["ip"]), number(&set["prefix-length"])) else {
                    continue;
                };
                state.insert(Address { interface: name.into(), address: format!("{ip}/{prefix}") });
            }
        }
    }
}

/// `openconfig-if-ethernet:SPEED_100GB`.
fn gbps(word: &str) -> Option<u32> {
    word.rsplit("SPEED_").next()?.strip_suffix("GB")?.parse().ok()
}

fn switched(name: &str, vlans: &Value, state: &mut SwitchState) {
    let config = at(vlans, "config");
    let mut member = |vlan: u16, tagged: bool| {
        if (1..=4094).contains(&vlan) {
            state.insert(VlanMember { vlan: VlanId(vlan), interface: name.into(), tagged });
        }
    };
    for tagged in list(config, "trunk-vlans") {
        // A number, or a range as "10..20".
        let word = text(tagged).unwrap_or_default();
        let (from, to) = word.split_once("..").unwrap_or((&word, &word));
        let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) else { continue };
        (from..=to.min(4094)).for_each(|vlan| member(vlan, true));
    }
    for leaf in ["native-vlan", "access-vlan"] {
        if let Some(vlan) = number(at(config, leaf)).and_then(|vlan| u16::try_from(vlan).ok()) {
            member(vlan, false);
        }
    }
}

fn quality(qos: &Value, mark: &Mark, state: &mut SwitchState) {
    for map in list(qos, "dscp-maps/dscp-map") {
        let Some(name) = map["name"].as_str() else { continue };
        for entry in list(map, "dscp-map-entries/dscp-map-entry") {
            let class = small(at(entry, "config/fwd-group")).filter(|class| *class < 8);
            let (Some(dscp), Some(traffic_class)) = (small(&entry["dscp"]), class) else { continue };
            let class = DscpClass { map: name.to_owned(), dscp, traffic_class };
            state.insert_owned(class, mark.owner_by_name(name));
        }
    }
    for profile in list(qos, "wred-profiles/wred-profile") {
        let set = at(profile, "config");
        let of = |leaf: &str| number(at(set, leaf));
        let (Some(name), Some(min_bytes), Some(max_bytes)) =
            (profile["name"].as_str(), of("green-min-threshold"), of("green-max-threshold"))
        else {
            continue;
        };
        let mark_percent = of("green-drop-probability").map_or(100, |p| p.min(100) as u8);
        let object = EcnProfile { name: name.to_owned(), min_bytes, max_bytes, mark_percent };
        state.insert_owned(object, mark.owner_by_name(name));
    }
    let policies: BTreeMap<&str, &Value> = list(qos, "scheduler-policies/scheduler-policy")
        .filter_map(|policy| Some((policy["name"].as_str()?, policy)))
        .collect();
    let mut queues: BTreeMap<(String, u8), Queue> = BTreeMap::new();
    for port in list(qos, "interfaces/interface") {
        let Some(name) = port["interface-id"].as_str() else { continue };
        port_quality(name, port, state);
        let policy = at(port, "output/scheduler-policy/config/name").as_str();
        for turn in policy
            .and_then(|name| policies.get(name))
            .into_iter()
            .flat_map(|p| list(p, "schedulers/scheduler"))
        {
            let Some(queue) = small(&turn["sequence"]) else { continue };
            let set = at(turn, "config");
            let strict = at(set, "priority") == "STRICT" || at(set, "scheduling-type") == "STRICT";
            let share = number(at(set, "weight")).unwrap_or_default().min(100) as u8;
            let scheduling = if strict { Scheduling::Strict } else { Scheduling::Weighted(share) };
            queue_of(&mut queues, name, queue).scheduling = Some(scheduling);
        }
    }
    for queue in list(qos, "queues/queue") {
        let parts = queue["name"].as_str().and_then(|name| name.rsplit_once(':'));
        let Some((port, Ok(number))) = parts.map(|(port, n)| (port, n.parse::<u8>())) else { continue };
        if let Some(profile) = at(queue, "wred/config/wred-profile").as_str() {
            queue_of(&mut queues, port, number).ecn_profile = Some(profile.to_owned());
        }
    }
    queues.into_values().for_each(|queue| state.insert(queue));
}

fn queue_of<'a>(queues: &'a mut BTreeMap<(String, u8), Queue>, port: &str, queue: u8) -> &'a mut Queue {
    queues.entry((port.to_owned(), queue)).or_insert_with(|| Queue {
        port: port.into(),
        queue,
        scheduling: None,
        ecn_profile: None,
    })
}

fn port_quality(name: &str, entry: &Value, state: &mut SwitchState) {
    let map = text(at(entry, "interface-maps/config/dscp-to-forwarding-group"));
    let enabled = list(entry, "pfc/pfc-priorities/pfc-priority").filter(|p| at(p, "config/enable") == true);
    let pfc_priorities: BTreeSet<u8> =
        enabled.filter_map(|p| small(&p["dot1p"])).filter(|p| *p < 8).collect();
    if map.is_some() || !pfc_priorities.is_empty() {
        state.insert(PortQos { port: name.into(), map: map.unwrap_or_default(), pfc_priorities });
    }
    let watchdog = at(entry, "pfc/watchdog/config");
    if let Some(detection) = number(at(watchdog, "detection-time")) {
        let ms = |value: u64| value.min(u64::from(u32::MAX)) as u32;
        state.insert(PfcWatchdog {
            port: name.into(),
            action: match at(watchdog, "action").as_str() {
                Some("FORWARD") => WatchdogAction::Forward,
                Some("ALERT") => WatchdogAction::Alert,
                _ => WatchdogAction::Drop,
            },
            detection_ms: ms(detection),
            restoration_ms: ms(number(at(watchdog, "restoration-time")).unwrap_or_default()),
        });
    }
}

fn mclag(tree: &Value, mark: &Mark, state: &mut SwitchState) {
    let mut ids = BTreeSet::new();
    for domain in list(tree, "mclag-domains/mclag-domain").take(1) {
        let set = at(domain, "config");
        let word = |leaf: &str| text(at(set, leaf)).unwrap_or_default();
        let peer_lag = InterfaceName::from(word("peer-link"));
        let owner = state.owner(&crate::state::Key::lag(&peer_lag));
        let domain_id =
            number(&domain["domain-id"]).and_then(|id| u16::try_from(id).ok()).unwrap_or_default();
        ids.insert(u64::from(domain_id));
        let object = Mclag {
            domain_id,
            local_address: word("source-address"),
            peer_address: word("peer-address"),
            prefix_length: 0,
            peer_lag,
            peer_vlan: VlanId(0),
            system_mac: word("mclag-system-mac").to_lowercase(),
        };
        let _ = mark;
        state.insert_owned(object, owner);
    }
    for member in list(tree, "interfaces/interface") {
        let domain = number(at(member, "config/mclag-domain-id"));
        let Some(name) = member["name"].as_str().filter(|_| domain.is_some_and(|d| ids.contains(&d))) else {
            continue;
        };
        // Both halves carry the LAG's own name here; its number is that of the whole.
        let Ok(id) = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse() else { continue };
        state.insert(MclagMember { lag: name.into(), id });
    }
}

pub(super) fn neighbours(interfaces: &Value) -> Vec<Neighbour> {
    let mut heard = Vec::new();
    for port in list(interfaces, "interface") {
        let Some(name) = port["name"].as_str() else { continue };
        for neighbour in list(port, "neighbors/neighbor") {
            let far = at(neighbour, "state");
            let word = |leaf: &str| text(at(far, leaf)).filter(|word| !word.is_empty());
            let Some(device) = word("system-name").or_else(|| word("chassis-id")) else { continue };
            heard.push(Neighbour {
                port: name.into(),
                device,
                device_port: word("port-id").unwrap_or_default(),
                description: word("port-description").unwrap_or_default(),
            });
        }
    }
    heard
}

pub(super) fn links(interfaces: &Value) -> BTreeMap<InterfaceName, LinkStatus> {
    let ports = list(interfaces, "interface").filter_map(|entry| Some((entry["name"].as_str()?, entry)));
    let status = |entry: &Value| LinkStatus {
        up: at(entry, "state/oper-status") == "UP",
        speed_gbps: at(entry, "ethernet/state/port-speed").as_str().and_then(gbps),
        mtu_bytes: number(at(entry, "state/mtu")).and_then(|mtu| u32::try_from(mtu).ok()),
        fec: None,
    };
    ports.filter(|(name, _)| is_port(name)).map(|(name, entry)| (name.into(), status(entry))).collect()
}

pub(super) fn counters(interfaces: &Value, qos: &Value) -> Counters {
    let mut counters = Counters::default();
    for entry in list(interfaces, "interface") {
        let Some(name) = entry["name"].as_str().filter(|name| is_port(name)) else { continue };
        let of = |leaf: &str| number(at(entry, &format!("state/counters/{leaf}"))).unwrap_or_default();
        let port = counters.ports.entry(name.into()).or_default();
        (port.rx_bytes, port.tx_bytes) = (of("in-octets"), of("out-octets"));
        (port.rx_packets, port.tx_packets) = (of("in-pkts"), of("out-pkts"));
        (port.rx_errors, port.tx_errors) = (of("in-errors"), of("out-errors"));
        (port.rx_discards, port.tx_discards) = (of("in-discards"), of("out-discards"));
        port.fcs_errors = of("in-fcs-errors");
    }
    for entry in list(qos, "interfaces/interface") {
        let name = entry["interface-id"].as_str().unwrap_or_default();
        let Some(port) = counters.ports.get_mut(name) else { continue };
        for priority in list(entry, "pfc/pfc-priorities/pfc-priority") {
            let Some(queue) = small(&priority["dot1p"]).filter(|p| *p < 8) else { continue };
            let of =
                |leaf: &str| number(at(priority, &format!("state/statistics/{leaf}"))).unwrap_or_default();
            let queue = port.queues.entry(queue).or_default();
            (queue.pfc_rx_frames, queue.pfc_tx_frames) = (of("pause-frames-rx"), of("pause-frames-tx"));
        }
        for found in list(entry, "pfc/pfc-queue/pfc-queue") {
            let Some(queue) = small(at(found, "queue")).filter(|q| *q < 8) else { continue };
            port.queues.entry(queue).or_default().watchdog_storms =
                number(at(found, "statistics/storm-detected")).unwrap_or_default();
        }
        for found in list(entry, "output/queues/queue") {
            let parts = found["name"].as_str().and_then(|name| name.rsplit_once(':'));
            let Some(queue) = parts.and_then(|(_, n)| n.parse().ok()).filter(|q: &u8| *q < 8) else {
                continue;
            };
            let of = |leaf: &str| number(at(found, &format!("state/{leaf}"))).unwrap_or_default();
            let queue = port.queues.entry(queue).or_default();
            (queue.tx_packets, queue.dropped_packets) = (of("transmit-pkts"), of("dropped-pkts"));
            queue.ecn_marked_packets = of("ecn-marked-pkts");
        }
    }
    counters
}
