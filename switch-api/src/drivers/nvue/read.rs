//! From NVUE's trees to objects: `?rev=applied` says what is configured, `interface?rev=operational` which ports there are and how
//! they run. Whatever is not understood is left out.

use super::{BRIDGE, PEER_LINK};
use crate::drivers::http::{entries, number, text};
use crate::intent::{DcbxMode, Fec, LagMode, WatchdogAction};
use crate::names::{InterfaceName, VlanId};
use crate::state::{
    Address, Breakout, Dcbx, DscpClass, EcnProfile, Lag, LagMember, Mark, Mclag, MclagMember, Owner,
    PfcWatchdog, Port, PortQos, Queue, Scheduling, SwitchState, Vlan, VlanMember,
};
use crate::switch::{Counters, Identity, LinkStatus, Neighbour};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Cumulus Linux User Guide, "Switch Port Attributes": the MTU of a port without a setting.
const USUAL_MTU_BYTES: u32 = 9216;
/// "PFC watchdog": polls every 100 ms, three of them count.
const USUAL_POLL_MS: u32 = 100;

pub(super) fn identity(system: &Value, platform: &Value) -> Option<Identity> {
    let build = text(&system["build"])?;
    let version = build.rsplit(' ').next()?.to_owned();
    let first = |keys: &[&str]| keys.iter().find_map(|key| text(&platform[*key])).unwrap_or_default();
    Some(Identity {
        vendor: "NVIDIA".to_owned(),
        model: first(&["product-name", "system-model", "part-number"]),
        serial: first(&["serial-number", "system-mac"]),
        os_version: version,
        host_name: text(&system["hostname"]).unwrap_or_default(),
    })
}

/// `on` and `enabled`: NVUE 5.11 renamed one to the other.
fn on(value: &Value) -> bool {
    matches!(value.as_str(), Some("on" | "enable" | "enabled"))
}

fn is_port(name: &str, operational: &Value) -> bool {
    operational[name]["type"] == "swp" || name.starts_with("swp") && !name.contains('.')
}

pub(super) fn configured(applied: &Value, operational: &Value, mark: &Mark) -> SwitchState {
    let mut state = SwitchState::default();
    let interfaces = &applied["interface"];
    let mut vlans = BTreeSet::new();
    for (range, _) in entries(&applied["bridge"]["domain"][BRIDGE]["vlan"]) {
        vlans.extend(list(range));
    }
    vlans.remove(&1);
    for id in &vlans {
        state.insert_owned(Vlan { id: VlanId(*id), name: String::new() }, Owner::Free);
    }
    quality(applied, mark, &mut state);
    let names: BTreeSet<&str> =
        entries(operational).chain(entries(interfaces)).map(|(name, _)| name).collect();
    for name in names {
        let set = &interfaces[name];
        let description = text(&set["description"]).unwrap_or_default();
        let owner = mark.owner_by_description(&description);
        if set["type"] == "bond" || set["type"] == "peerlink" {
            let bond = &set["bond"];
            state.insert_owned(
                Lag {
                    name: name.into(),
                    description,
                    mode: if bond["mode"] == "static" { LagMode::Static } else { LagMode::Lacp },
                    fast: Some(bond["lacp-rate"] != "slow"),
                    min_links: None,
                    mtu_bytes: Some(mtu(set)),
                },
                owner,
            );
            for (port, _) in entries(&bond["member"]) {
                state.insert(LagMember { port: port.into(), lag: name.into() });
            }
            if let Some(id) = number(&bond["mlag"]["id"]).filter(|id| *id <= u64::from(u16::MAX)) {
                state.insert(MclagMember { lag: name.into(), id: id as u16 });
            }
        } else if is_port(name, operational) {
            port(name, set, &operational[name], description, owner, &mut state);
            port_quality(name, set, applied, &mut state);
        }
        switching(name, set, &vlans, &mut state);
        if !name.starts_with(&format!("{PEER_LINK}.")) && name != "eth0" {
            for (address, _) in entries(&set["ip"]["address"]).filter(|(address, _)| address.contains('/')) {
                state.insert(Address { interface: name.into(), address: address.to_owned() });
            }
        }
    }
    mclag(applied, mark, &mut state);
    state
}

fn port(name: &str, set: &Value, now: &Value, description: String, owner: Owner, state: &mut SwitchState) {
    let link = &set["link"];
    if let Some((split, _)) = entries(&link["breakout"]).find(|(split, _)| split.contains('x')) {
        let (lanes, speed) = split.split_once('x').unwrap_or((split, ""));
        let lanes = lanes.parse().unwrap_or_default();
        let speed_gbps = gbps(speed).unwrap_or_default();
        state.insert_owned(Breakout { port: name.into(), lanes, speed_gbps }, Owner::Free);
    }
    let speed = link["speed"].as_str().filter(|s| *s != "auto").or(now["link"]["speed"].as_str());
    state.insert_owned(
        Port {
            name: name.into(),
            description,
            enabled: link["state"].get("down").is_none() && link["state"] != "down",
            speed_gbps: speed.and_then(gbps),
            fec: Some(match link["fec"].as_str() {
                Some("rs") => Fec::Rs,
                Some("baser") => Fec::Fc,
                Some("off") => Fec::Off,
                _ => Fec::Auto,
            }),
            mtu_bytes: Some(mtu(set)),
        },
        owner,
    );
}

fn mtu(set: &Value) -> u32 {
    number(&set["link"]["mtu"]).map_or(USUAL_MTU_BYTES, |mtu| mtu.min(u64::from(u32::MAX)) as u32)
}

fn gbps(text: &str) -> Option<u32> {
    text.strip_suffix('G')?.parse().ok()
}

/// `10,20-22`: at most the 4094 there are.
fn list(text: &str) -> BTreeSet<u16> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u16>(), to.trim().parse::<u16>()) else { continue };
        numbers.extend(from.max(1)..=to.min(4094));
    }
    numbers
}

fn switching(name: &str, set: &Value, vlans: &BTreeSet<u16>, state: &mut SwitchState) {
    let Some(domain) = set["bridge"]["domain"].get(BRIDGE) else { return };
    let mut member = |vlan: u16, tagged: bool| {
        state.insert(VlanMember { vlan: VlanId(vlan), interface: name.into(), tagged });
    };
    let id = |key: &str| number(&domain[key]).and_then(|id| u16::try_from(id).ok());
    if let Some(vlan) = id("access") {
        return member(vlan, false);
    }
    let untagged = id("untagged").filter(|id| *id != 1);
    let mut carried: BTreeSet<u16> = entries(&domain["vlan"]).flat_map(|(range, _)| list(range)).collect();
    // A bridge port without a list carries what the bridge has.
    if domain["vlan"].as_object().is_none_or(serde_json::Map::is_empty) {
        carried = vlans.clone();
    }
    carried.remove(&1);
    if let Some(vlan) = untagged {
        carried.remove(&vlan);
        member(vlan, false);
    }
    carried.into_iter().for_each(|vlan| member(vlan, true));
}

fn mclag(applied: &Value, mark: &Mark, state: &mut SwitchState) {
    let mlag = &applied["mlag"];
    if !on(&mlag["enable"]) && !on(&mlag["state"]) {
        return;
    }
    let interfaces = &applied["interface"];
    let sub = entries(interfaces).find(|(name, _)| name.starts_with(&format!("{PEER_LINK}.")));
    let vlan = sub.and_then(|(name, _)| name.split_once('.')?.1.parse().ok()).unwrap_or(4094);
    let address = sub.and_then(|(_, set)| entries(&set["ip"]["address"]).next()).map_or("", |(a, _)| a);
    let (local, prefix) = address.split_once('/').unwrap_or((address, ""));
    let description = text(&interfaces[PEER_LINK]["description"]).unwrap_or_default();
    let domain = Mclag {
        domain_id: 0,
        local_address: local.to_owned(),
        peer_address: text(&mlag["peer-ip"]).unwrap_or_default(),
        prefix_length: prefix.parse().unwrap_or_default(),
        peer_lag: PEER_LINK.into(),
        peer_vlan: VlanId(vlan),
        system_mac: text(&mlag["mac-address"]).unwrap_or_default().to_lowercase(),
    };
    state.insert_owned(domain, mark.owner_by_description(&description));
}

fn quality(applied: &Value, mark: &Mark, state: &mut SwitchState) {
    let qos = &applied["qos"];
    for (map, profile) in entries(&qos["mapping"]) {
        for (points, to) in entries(&profile["dscp"]) {
            let Some(traffic_class) = small(&to["switch-priority"]) else { continue };
            for dscp in list(points).into_iter().filter(|dscp| *dscp < 64) {
                let class = DscpClass { map: map.to_owned(), dscp: dscp as u8, traffic_class };
                state.insert_owned(class, mark.owner_by_name(map));
            }
        }
    }
    for (name, profile) in entries(&qos["congestion-control"]) {
        for (_, set) in entries(&profile["traffic-class"]).filter(|(_, set)| set["ecn"] != "disable") {
            let (Some(min_bytes), Some(max_bytes)) =
                (number(&set["min-threshold"]), number(&set["max-threshold"]))
            else {
                continue;
            };
            let mark_percent = number(&set["probability"]).map_or(100, |p| p.min(100) as u8);
            let object = EcnProfile { name: name.to_owned(), min_bytes, max_bytes, mark_percent };
            state.insert_owned(object, mark.owner_by_name(name));
        }
    }
}

fn small(value: &Value) -> Option<u8> {
    number(value).filter(|n| *n < 8).map(|n| n as u8)
}

/// Numbers of classes as keys: `3`, `2,6`, `0-5`.
fn classes(value: &Value) -> impl Iterator<Item = (u8, &Value)> {
    entries(value).flat_map(|(range, below)| {
        let numbers: Vec<u8> = (0..8).filter(|n| covers(range, *n)).collect();
        numbers.into_iter().map(move |n| (n, below))
    })
}

fn covers(range: &str, number: u8) -> bool {
    range.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u8>(), to.parse::<u8>()), (Ok(from), Ok(to)) if (from..=to).contains(&number))
    })
}

fn port_quality(name: &str, set: &Value, applied: &Value, state: &mut SwitchState) {
    let (port, own, all) = (InterfaceName::from(name), &set["qos"], &applied["qos"]);
    let profile = |kind: &str| own[kind]["profile"].as_str();
    let lossless = profile("pfc").map(|name| &all["pfc"][name]["switch-priority"]);
    let pfc_priorities: BTreeSet<u8> =
        lossless.into_iter().flat_map(classes).map(|(priority, _)| priority).collect();
    if profile("mapping").is_some() || !pfc_priorities.is_empty() {
        let map = profile("mapping").unwrap_or("default-global").to_owned();
        state.insert(PortQos { port: port.clone(), map, pfc_priorities });
    }
    if on(&own["pfc-watchdog"]["state"]) {
        let global = &all["pfc-watchdog"];
        let poll = number(&global["polling-interval"]).unwrap_or(u64::from(USUAL_POLL_MS));
        let ms = poll.saturating_mul(number(&global["robustness"]).unwrap_or(3)).min(600_000) as u32;
        let action = WatchdogAction::Drop;
        state.insert(PfcWatchdog { port: port.clone(), action, detection_ms: ms, restoration_ms: ms });
    }
    if on(&set["lldp"]["dcbx-pfc-tlv"]) {
        state.insert(Dcbx { port: port.clone(), mode: DcbxMode::Ieee });
    }
    let mut queues: BTreeMap<u8, Queue> = BTreeMap::new();
    let blank = |queue: u8| Queue { port: port.clone(), queue, scheduling: None, ecn_profile: None };
    if let Some(scheduler) = profile("egress-scheduler") {
        for (queue, turn) in classes(&all["egress-scheduler"][scheduler]["traffic-class"]) {
            let share = number(&turn["bw-percent"]).unwrap_or_default().min(100) as u8;
            let scheduling =
                if turn["mode"] == "strict" { Scheduling::Strict } else { Scheduling::Weighted(share) };
            queues.entry(queue).or_insert_with(|| blank(queue)).scheduling = Some(scheduling);
        }
    }
    if let Some(profile) = profile("congestion-control") {
        for (queue, _) in classes(&all["congestion-control"][profile]["traffic-class"]) {
            queues.entry(queue).or_insert_with(|| blank(queue)).ecn_profile = Some(profile.to_owned());
        }
    }
    queues.into_values().for_each(|queue| state.insert(queue));
}

pub(super) fn neighbours(operational: &Value) -> Vec<Neighbour> {
    let mut heard = Vec::new();
    for (port, now) in entries(operational) {
        for (name, far) in entries(&now["lldp"]["neighbor"]) {
            let device = text(&far["chassis"]["system-name"]).filter(|name| !name.is_empty());
            heard.push(Neighbour {
                port: port.into(),
                device: device.unwrap_or_else(|| name.to_owned()),
                device_port: text(&far["port"]["name"]).unwrap_or_default(),
                description: text(&far["port"]["description"]).unwrap_or_default(),
            });
        }
    }
    heard
}

pub(super) fn links(operational: &Value) -> BTreeMap<InterfaceName, LinkStatus> {
    let status = |now: &Value| {
        let link = &now["link"];
        LinkStatus {
            up: link["oper-status"] == "up" || link["state"].get("up").is_some(),
            speed_gbps: link["speed"].as_str().and_then(gbps),
            mtu_bytes: number(&link["mtu"]).and_then(|mtu| u32::try_from(mtu).ok()),
            fec: None,
        }
    };
    let ports = entries(operational).filter(|(name, _)| is_port(name, operational));
    ports.map(|(name, now)| (name.into(), status(now))).collect()
}

pub(super) fn counters(operational: &Value) -> Counters {
    let mut counters = Counters::default();
    for (name, now) in entries(operational).filter(|(name, _)| is_port(name, operational)) {
        let stats = &now["link"]["stats"];
        let of = |key: &str| number(&stats[key]).unwrap_or_default();
        let port = counters.ports.entry(name.into()).or_default();
        (port.rx_bytes, port.tx_bytes) = (of("in-bytes"), of("out-bytes"));
        (port.rx_packets, port.tx_packets) = (of("in-pkts"), of("out-pkts"));
        (port.rx_errors, port.tx_errors) = (of("in-errors"), of("out-errors"));
        (port.rx_discards, port.tx_discards) = (of("in-drops"), of("out-drops"));
        let qos = &now["counters"]["qos"];
        for (priority, frames) in classes(&qos["pfc-stats"]["switch-priority"]) {
            let queue = port.queues.entry(priority).or_default();
            queue.pfc_rx_frames = number(&frames["rx-pause-frames"]).unwrap_or_default();
            queue.pfc_tx_frames = number(&frames["tx-pause-frames"]).unwrap_or_default();
        }
        for (class, count) in classes(&qos["egress-queue-stats"]["traffic-class"]) {
            let queue = port.queues.entry(class).or_default();
            queue.tx_packets = number(&count["tx-frames"]).unwrap_or_default();
            queue.dropped_packets = number(&count["tx-uc-buffer-discards"]).unwrap_or_default();
            queue.ecn_marked_packets = number(&count["tx-ecn-marked-frames"]).unwrap_or_default();
        }
        for (class, watched) in classes(&now["qos"]["pfc-watchdog"]["status"]) {
            port.queues.entry(class).or_default().watchdog_storms =
                number(&watched["deadlock-count"]).unwrap_or_default();
        }
    }
    counters
}
