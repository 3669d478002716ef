//! From what EOS shows to objects. Whatever is not understood is left out: a switch may say anything.

use crate::drivers::http::{entries, number, text};
use crate::intent::{DcbxMode, Fec, LagMode, WatchdogAction};
use crate::names::{InterfaceName, VlanId};
use crate::state::{
    Address, Dcbx, DscpClass, EcnProfile, Key, Lag, LagMember, Mark, Mclag, MclagMember, Object, Owner,
    PfcWatchdog, Port, PortQos, Queue, Scheduling, SwitchState, Vlan, VlanMember,
};
use crate::switch::{Counters, Identity, LinkStatus, Neighbour};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A port's MTU without an `mtu` line: EOS User Manual, "mtu": 1500.
const USUAL_MTU_BYTES: u32 = 1500;

/// One section of the running configuration: its lines, and sections below.
struct Section<'a>(&'a Value);

impl<'a> Section<'a> {
    fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        entries(&self.0["cmds"])
    }

    fn has(&self, line: &str) -> bool {
        self.entries().any(|(l, _)| l == line)
    }

    /// What follows `words` on the line that begins with them.
    fn after(&self, words: &str) -> Option<&'a str> {
        self.all_after(words).next()
    }

    fn all_after<'w>(&self, words: &'w str) -> impl Iterator<Item = &'a str> + use<'a, 'w> {
        self.entries().filter_map(move |(line, _)| line.strip_prefix(words)?.strip_prefix(' '))
    }

    fn sections<'w>(&self, words: &'w str) -> impl Iterator<Item = (&'a str, Section<'a>)> + use<'a, 'w> {
        self.entries().filter_map(move |(line, below)| {
            Some((line.strip_prefix(words)?.strip_prefix(' ')?, Section(below)))
        })
    }
}

pub(super) fn identity(version: &Value, host: &Value) -> Option<Identity> {
    Some(Identity {
        vendor: "Arista".to_owned(),
        model: text(&version["modelName"])?,
        serial: text(&version["serialNumber"]).unwrap_or_default(),
        os_version: text(&version["version"])?,
        host_name: text(&host["hostname"]).unwrap_or_default(),
    })
}

/// The 7020, 7280, 7500 and 7800 (virtual output queues) say `tx-queue`, all others `uc-tx-queue`.
pub(super) fn queue_keyword(model: &str) -> &'static str {
    let voq = ["7020", "7280", "7500", "7800"].iter().any(|series| model.contains(series));
    if voq { "tx-queue" } else { "uc-tx-queue" }
}

/// Class of a DSCP without a `qos map` line: EOS User Manual, "Quality of Service", the default DSCP map.
fn usual_class(dscp: u8) -> u8 {
    match dscp >> 3 {
        0 => 1,
        1 => 0,
        class => class,
    }
}

pub(super) fn configured(running: &Value, interfaces: &Value, mark: &Mark) -> SwitchState {
    let all = Section(running);
    let mut state = SwitchState::default();
    let domain = mclag(&all, mark, &mut state);
    let vlans = vlans(&all, mark, domain, &mut state);
    classes(&all, mark, &mut state);
    let profiles = profiles(&all, mark, &mut state);
    let mut members: BTreeMap<String, Vec<(String, bool, bool)>> = BTreeMap::new();
    for (name, port) in all.sections("interface").filter(|(name, _)| is_port(name)) {
        let description = port.after("description").unwrap_or_default().to_owned();
        let owner = mark.owner_by_description(&description);
        let running_gbps = number(&interfaces["interfaces"][name]["bandwidth"]).map(|b| b / 1_000_000_000);
        let speed = port.after("speed").and_then(gbps).or(running_gbps.map(|g| g as u32));
        state.insert_owned(
            Port {
                name: name.into(),
                description,
                enabled: !port.has("shutdown"),
                speed_gbps: speed.filter(|gbps| *gbps > 0),
                fec: Some(fec(&port)),
                mtu_bytes: Some(mtu(&port)),
            },
            owner,
        );
        if let Some((lag, mode)) = port.after("channel-group").and_then(|rest| rest.split_once(" mode ")) {
            let lag = format!("Port-Channel{lag}");
            let fast = ["lacp timer fast", "lacp rate fast"].iter().any(|line| port.has(line));
            members.entry(lag.clone()).or_default().push((name.to_owned(), mode == "on", fast));
            state.insert(LagMember { port: name.into(), lag: lag.into() });
        }
        switching(name, &port, &vlans, domain, &mut state);
        quality(name, &port, &all, mark, &profiles, &mut state);
    }
    for (name, lag) in all.sections("interface").filter(|(name, _)| is_lag(name)) {
        let description = lag.after("description").unwrap_or_default().to_owned();
        let owner = mark.owner_by_description(&description);
        let ports = members.remove(name).unwrap_or_default();
        let min_links = lag.after("port-channel min-links").and_then(|n| n.parse().ok()).unwrap_or(1);
        state.insert_owned(
            Lag {
                name: name.into(),
                description,
                mode: if ports.iter().any(|(_, on, _)| *on) { LagMode::Static } else { LagMode::Lacp },
                fast: (!ports.is_empty()).then(|| ports.iter().all(|(_, _, fast)| *fast)),
                min_links: Some(min_links.max(1)),
                mtu_bytes: Some(mtu(&lag)),
            },
            owner,
        );
        if let Some(id) = lag.after("mlag").and_then(|id| id.parse().ok()) {
            state.insert(MclagMember { lag: name.into(), id });
        }
        switching(name, &lag, &vlans, domain, &mut state);
    }
    let others = all.sections("interface").filter(|(name, _)| !is_port(name) && !is_lag(name));
    let is_domain = |name: &str| domain.is_some_and(|vlan| name == format!("Vlan{vlan}"));
    for (name, other) in others.filter(|(name, _)| !name.starts_with("Management") && !is_domain(name)) {
        addresses(name, &other, &mut state);
    }
    state
}

fn is_port(name: &str) -> bool {
    name.starts_with("Ethernet") && !name.contains('.')
}

fn is_lag(name: &str) -> bool {
    name.starts_with("Port-Channel") && !name.contains('.')
}

/// `100gfull`, `forced 100gfull`, `100g-4`, `auto 25gfull`: the number before the g.
fn gbps(rest: &str) -> Option<u32> {
    let word = rest.split(' ').next_back()?;
    let (number, unit) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
    unit.starts_with('g').then(|| number.parse().ok())?
}

fn fec(port: &Section<'_>) -> Fec {
    match port.after("error-correction encoding") {
        Some(text) if text.starts_with("reed-solomon") => Fec::Rs,
        Some(text) if text.starts_with("fire-code") => Fec::Fc,
        _ if port.has("no error-correction encoding") => Fec::Off,
        _ => Fec::Auto,
    }
}

fn mtu(section: &Section<'_>) -> u32 {
    section.after("mtu").and_then(|n| n.parse().ok()).unwrap_or(USUAL_MTU_BYTES)
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

/// This switch's half of a pair; the VLAN that the two speak over belongs to it and is no VLAN of its own.
fn mclag(all: &Section<'_>, mark: &Mark, state: &mut SwitchState) -> Option<u16> {
    let below = all.entries().find(|(line, _)| *line == "mlag configuration")?.1;
    let domain = Section(below);
    let vlan: u16 = domain.after("local-interface")?.strip_prefix("Vlan")?.parse().ok()?;
    let own_interface = format!("Vlan{vlan}");
    let own = all.sections("interface").find(|(name, _)| *name == own_interface);
    let address = own.and_then(|(_, section)| section.after("ip address")).unwrap_or_default();
    let (local, prefix) = address.split_once('/').unwrap_or((address, ""));
    let name = domain.after("domain-id").unwrap_or_default();
    let object = Mclag {
        domain_id: name.rsplit('_').next().and_then(|id| id.parse().ok()).unwrap_or_default(),
        local_address: local.to_owned(),
        peer_address: domain.after("peer-address").unwrap_or_default().to_owned(),
        prefix_length: prefix.parse().unwrap_or_default(),
        peer_lag: domain.after("peer-link").unwrap_or_default().into(),
        peer_vlan: VlanId(vlan),
        system_mac: String::new(),
    };
    state.insert_owned(object, mark.owner_by_name(name));
    Some(vlan)
}

fn vlans(all: &Section<'_>, mark: &Mark, domain: Option<u16>, state: &mut SwitchState) -> BTreeSet<u16> {
    let mut ids = BTreeSet::new();
    for (text, vlan) in all.sections("vlan") {
        let name = vlan.after("name").unwrap_or_default();
        for id in list(text).into_iter().filter(|id| *id != 1 && Some(*id) != domain) {
            ids.insert(id);
            let vlan = Vlan { id: VlanId(id), name: name.to_owned() };
            state.insert_owned(vlan, mark.owner_by_name(name));
        }
    }
    ids
}

/// VLANs or addresses of a port or LAG.
fn switching(
    name: &str,
    section: &Section<'_>,
    vlans: &BTreeSet<u16>,
    domain: Option<u16>,
    state: &mut SwitchState,
) {
    if section.has("no switchport") {
        return addresses(name, section, state);
    }
    let mut member = |vlan: u16, tagged: bool| {
        if Some(vlan) != domain {
            state.insert(VlanMember { vlan: VlanId(vlan), interface: name.into(), tagged });
        }
    };
    let number =
        |words: &str| section.after(words).and_then(|id| id.parse::<u16>().ok()).filter(|id| *id != 1);
    if section.after("switchport mode") != Some("trunk") {
        if let Some(vlan) = number("switchport access vlan") {
            member(vlan, false);
        }
        return;
    }
    let native = number("switchport trunk native vlan");
    let allowed = match section.after("switchport trunk allowed vlan") {
        Some("none") => BTreeSet::new(),
        Some(text) => list(text),
        // A trunk without a list carries every VLAN that there is.
        None => vlans.clone(),
    };
    allowed.iter().filter(|vlan| **vlan != 1).for_each(|vlan| member(*vlan, native != Some(*vlan)));
}

fn addresses(name: &str, section: &Section<'_>, state: &mut SwitchState) {
    for text in section.all_after("ip address").chain(section.all_after("ipv6 address")) {
        let address = text.trim_end_matches(" secondary");
        if address.contains('/') && !address.contains(' ') {
            state.insert(Address { interface: name.into(), address: address.to_owned() });
        }
    }
}

fn classes(all: &Section<'_>, mark: &Mark, state: &mut SwitchState) {
    let mut map: BTreeMap<u8, u8> = (0..64).map(|dscp| (dscp, usual_class(dscp))).collect();
    for rest in all.all_after("qos map dscp") {
        let Some((points, class)) = rest.split_once(" to traffic-class ") else { continue };
        let Some(class) = class.split(' ').next().and_then(|c| c.parse().ok()) else { continue };
        for dscp in points.split([' ', ',']).filter_map(|d| d.parse::<u8>().ok()).filter(|d| *d < 64) {
            map.insert(dscp, class);
        }
    }
    for (dscp, traffic_class) in map {
        state.insert_owned(DscpClass { map: mark.name("roce"), dscp, traffic_class }, Owner::Free);
    }
}

/// Profiles with marking thresholds, and the queues they are for.
fn profiles(all: &Section<'_>, mark: &Mark, state: &mut SwitchState) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for (name, profile) in all.sections("qos profile") {
        let mut queues = Vec::new();
        for (queue, below) in profile.sections("uc-tx-queue").chain(profile.sections("tx-queue")) {
            let thresholds = below.after("random-detect ecn").and_then(thresholds);
            let (Some((min_bytes, max_bytes, mark_percent)), Ok(queue)) = (thresholds, queue.parse()) else {
                continue;
            };
            queues.push(queue);
            let object = EcnProfile { name: name.to_owned(), min_bytes, max_bytes, mark_percent };
            state.insert_owned(object, mark.owner_by_name(name));
        }
        found.insert(name.to_owned(), queues);
    }
    found
}

/// `minimum-threshold 500000 bytes maximum-threshold 1500000 bytes max-mark-probability 20`.
fn thresholds(rest: &str) -> Option<(u64, u64, u8)> {
    let words: Vec<&str> = rest.split(' ').collect();
    let after = |word: &str| words.iter().position(|w| *w == word).map(|at| &words[at + 1..]);
    let bytes = |word: &str| {
        let rest = after(word)?;
        let number: u64 = rest.first()?.parse().ok()?;
        match *rest.get(1)? {
            "bytes" => Some(number),
            "kbytes" => number.checked_mul(1000),
            "mbytes" => number.checked_mul(1_000_000),
            _ => None,
        }
    };
    let percent = after("max-mark-probability").and_then(|rest| rest.first()?.parse().ok()).unwrap_or(100);
    Some((bytes("minimum-threshold")?, bytes("maximum-threshold")?, percent))
}

fn quality(
    name: &str,
    port: &Section<'_>,
    all: &Section<'_>,
    mark: &Mark,
    profiles: &BTreeMap<String, Vec<u8>>,
    state: &mut SwitchState,
) {
    let name = InterfaceName::from(name);
    let on = port.has("priority-flow-control on");
    let lossless = port.all_after("priority-flow-control priority");
    let priorities: BTreeSet<u8> =
        lossless.filter_map(|rest| rest.strip_suffix(" no-drop")?.parse().ok()).collect();
    if on || port.has("qos trust dscp") || !priorities.is_empty() {
        let pfc_priorities = if on { priorities } else { BTreeSet::new() };
        state.insert(PortQos { port: name.clone(), map: mark.name("roce"), pfc_priorities });
    }
    if port.has("priority-flow-control pause watchdog") {
        state.insert(watchdog(&name, port, all));
    }
    if let Some(mode) = port.after("dcbx mode") {
        let mode = match mode {
            "ieee" => DcbxMode::Ieee,
            "cee" => DcbxMode::Cee,
            _ => DcbxMode::Off,
        };
        state.insert(Dcbx { port: name.clone(), mode });
    }
    let mut queues: BTreeMap<u8, Queue> = BTreeMap::new();
    let queue = |number: u8| Queue {
        port: name.clone(),
        queue: number,
        scheduling: Some(Scheduling::Strict),
        ecn_profile: None,
    };
    for (number, below) in port.sections("uc-tx-queue").chain(port.sections("tx-queue")) {
        let Ok(number) = number.parse() else { continue };
        let percent = below.after("bandwidth percent").and_then(|p| p.parse().ok());
        // A queue without priority and without a share is one that gets what is left.
        if below.has("no priority") {
            queues.entry(number).or_insert_with(|| queue(number)).scheduling =
                Some(Scheduling::Weighted(percent.unwrap_or_default()));
        }
    }
    if let Some(profile) = port.after("service-profile") {
        for number in profiles.get(profile).into_iter().flatten() {
            queues.entry(*number).or_insert_with(|| queue(*number)).ecn_profile = Some(profile.to_owned());
        }
    }
    queues.into_values().for_each(|queue| state.insert(queue));
}

/// The port's own times, else those of the whole switch.
fn watchdog(name: &InterfaceName, port: &Section<'_>, all: &Section<'_>) -> PfcWatchdog {
    let words: Vec<&str> = port
        .after("priority-flow-control pause watchdog port timer")
        .unwrap_or_default()
        .split(' ')
        .collect();
    let own = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1).copied());
    let usual = |word: &str| all.after(&format!("priority-flow-control pause watchdog default {word}"));
    let ms = |word: &str| {
        let seconds = own(word).or_else(|| usual(word)?.split(' ').next())?.parse::<f64>().ok()?;
        Some((seconds * 1000.0).round() as u32)
    };
    let action = port
        .after("priority-flow-control pause watchdog port action")
        .or_else(|| all.after("priority-flow-control pause watchdog action"));
    PfcWatchdog {
        port: name.clone(),
        action: if action == Some("notify-only") { WatchdogAction::Alert } else { WatchdogAction::Drop },
        detection_ms: ms("timeout").unwrap_or_default(),
        restoration_ms: ms("recovery-time").unwrap_or_default(),
    }
}

pub(super) fn neighbours(shown: &Value) -> Vec<Neighbour> {
    let mut heard = Vec::new();
    for (port, at) in entries(&shown["lldpNeighbors"]) {
        for neighbour in at["lldpNeighborInfo"].as_array().into_iter().flatten() {
            let far = &neighbour["neighborInterfaceInfo"];
            let device = text(&neighbour["systemName"]).filter(|name| !name.is_empty());
            // Older versions quote the id.
            let id = text(&far["interfaceId_v2"]).or_else(|| text(&far["interfaceId"])).unwrap_or_default();
            heard.push(Neighbour {
                port: port.into(),
                device: device.or_else(|| text(&neighbour["chassisId"])).unwrap_or_default(),
                device_port: id.trim_matches('"').to_owned(),
                description: text(&far["interfaceDescription"]).unwrap_or_default(),
            });
        }
    }
    heard
}

pub(super) fn links(shown: &Value) -> BTreeMap<InterfaceName, LinkStatus> {
    let ports = entries(&shown["interfaces"]).filter(|(name, _)| is_port(name));
    let status = |port: &Value| LinkStatus {
        up: port["lineProtocolStatus"] == "up",
        speed_gbps: number(&port["bandwidth"]).map(|b| (b / 1_000_000_000) as u32),
        // A switched port shows the MTU of the chip, not the one that was set.
        mtu_bytes: (port["forwardingModel"] == "routed")
            .then(|| number(&port["mtu"]).map(|m| m as u32))
            .flatten(),
        fec: None,
    };
    ports.map(|(name, port)| (name.into(), status(port))).collect()
}

pub(super) fn counters(shown: &Value) -> Counters {
    let mut counters = Counters::default();
    for (name, port) in entries(&shown["interfaces"]).filter(|(name, _)| is_port(name)) {
        let count = &port["interfaceCounters"];
        let of = |key: &str| number(&count[key]).unwrap_or_default();
        let sum = |way: &str| {
            let kinds = ["UcastPkts", "MulticastPkts", "BroadcastPkts"];
            kinds.iter().fold(0_u64, |sum, kind| sum.saturating_add(of(&format!("{way}{kind}"))))
        };
        let found = counters.ports.entry(name.into()).or_default();
        found.rx_bytes = of("inOctets");
        found.tx_bytes = of("outOctets");
        found.rx_packets = sum("in");
        found.tx_packets = sum("out");
        found.rx_errors = of("totalInErrors");
        found.tx_errors = of("totalOutErrors");
        found.rx_discards = of("inDiscards");
        found.tx_discards = of("outDiscards");
        found.fcs_errors = number(&count["inputErrorsDetail"]["fcsErrors"]).unwrap_or_default();
    }
    counters
}

/// Adds what is counted; whether any of the names that we know was there.
type Add = fn(&Value, &mut Counters) -> bool;

/// Commands for what a platform may or may not count by queue.
pub(super) const QUEUE_COUNTERS: [(&str, Add); 3] = [
    ("show priority-flow-control counters detail", pauses),
    ("show priority-flow-control counters watchdog", storms),
    ("show qos interfaces ecn counters queue", marks),
];

fn pauses(shown: &Value, counters: &mut Counters) -> bool {
    let mut known = false;
    for (port, found) in entries(&shown["interfaceCounters"]) {
        let Some(port) = counters.ports.get_mut(port) else { continue };
        for (priority, frames) in entries(&found["priorities"]) {
            let Some(priority) = priority_number(priority) else { continue };
            let queue = port.queues.entry(priority).or_default();
            queue.pfc_rx_frames = number(&frames["rxFrames"]).unwrap_or_default();
            queue.pfc_tx_frames = number(&frames["txFrames"]).unwrap_or_default();
            known |= number(&frames["rxFrames"]).is_some();
        }
    }
    known
}

fn storms(shown: &Value, counters: &mut Counters) -> bool {
    let mut known = false;
    for (port, found) in entries(&shown["interfaces"]) {
        let Some(port) = counters.ports.get_mut(port) else { continue };
        for (queue, events) in entries(&found["txQueues"]) {
            let Some(number_of_queue) = priority_number(queue) else { continue };
            port.queues.entry(number_of_queue).or_default().watchdog_storms =
                number(&events["stuckCount"]).unwrap_or_default();
            known |= number(&events["stuckCount"]).is_some();
        }
    }
    known
}

fn marks(shown: &Value, counters: &mut Counters) -> bool {
    let mut known = false;
    for (port, found) in entries(&shown["intfQueueCounters"]) {
        let Some(port) = counters.ports.get_mut(port) else { continue };
        for (queue, count) in entries(&found["queueCounters"]) {
            let Some(number_of_queue) = priority_number(queue) else { continue };
            port.queues.entry(number_of_queue).or_default().ecn_marked_packets =
                number(&count["count"]).unwrap_or_default();
            known |= number(&count["count"]).is_some();
        }
    }
    known
}

/// `3` or `UC3`.
fn priority_number(text: &str) -> Option<u8> {
    text.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok().filter(|n| *n < 8)
}

/// The LAG that a port is in.
pub(super) fn lag_of<'a>(state: &'a SwitchState, port: &InterfaceName) -> Option<&'a InterfaceName> {
    match state.get(&Key::new(crate::state::Kind::LagMember, port)) {
        Some(Object::LagMember(member)) => Some(&member.lag),
        _ => None,
    }
}
