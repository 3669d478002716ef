//! From rows to objects.

use super::companion;
use super::rows::{Row, Tables};
use crate::error::Cause;
use crate::intent::LagMode;
use crate::names::{InterfaceName, VlanId};
use crate::state::{Lag, LagMember, Mark, Owner, Port, SwitchState, Vlan, VlanMember};
use crate::switch::{Counters, LinkStatus, Observed, PortCounters};
use serde_json::Value;
use std::collections::BTreeMap;

/// The key of our marks in `external_ids`.
pub(super) const MARK: &str = "basalt";
/// With the VLAN's number behind it: the VLAN's name, at the bridge.
pub(super) const VLAN: &str = "basalt_vlan_";
/// Set at a port that was not in the bridge before: it leaves it again when it is given back.
pub(super) const ADDED: &str = "basalt_added";
/// Set at a port that is ours: its MTU before that, as `1500`, or `1400 requested` where someone had asked for it in `mtu_request`.
/// When the port is given back the MTU goes back to it (OVS would leave the running one), and once it runs the request goes too.
pub(super) const MTU_BEFORE: &str = "basalt_mtu_before";
/// Stands for "every VLAN": OVS's own default.
pub(super) const EVERY_VLAN: VlanId = VlanId(0);
/// The one VLAN of a closed port: reserved (IEEE 802.1Q, table 9-2), so no frame has it.
pub(super) const NO_VLAN: u64 = 4095;

/// Interfaces that stand for a physical port; the others are OVS's own, tunnels, or of virtual machines.
pub(super) fn is_physical(interface: &Row) -> bool {
    matches!(interface.text("type"), "" | "system" | "dpdk" | "afxdp" | "afxdp-nonpmd")
}

/// Whether a row of `Port` is a LAG: several interfaces, or one under another name.
pub(super) fn is_lag(port: &Row, interfaces: &[&Row]) -> bool {
    match interfaces {
        [only] => only.text("name") != port.text("name"),
        many => many.len() > 1,
    }
}

pub(super) fn observe(tables: &Tables, mark: &Mark) -> Result<Observed, Cause> {
    let bridge = tables.bridge(MARK)?;
    let mut observed = Observed::default();
    for (id, name) in vlan_names(bridge) {
        observed.state.insert_owned(Vlan { id, name: name.to_owned() }, mark.owner_by_name(name));
    }
    for port in tables.ports_of(bridge) {
        let interfaces = tables.interfaces_of(port);
        if interfaces.is_empty() || !interfaces.iter().all(|i| is_physical(i)) {
            continue;
        }
        let name = InterfaceName::from(port.text("name"));
        for interface in &interfaces {
            let own = InterfaceName::from(interface.text("name"));
            observed.links.insert(own.clone(), link(interface));
            if is_lag(port, &interfaces) {
                observed.state.insert(LagMember { port: own, lag: name.clone() });
            }
            physical(&mut observed.state, interface, mark);
        }
        if is_lag(port, &interfaces) {
            lag(&mut observed.state, port, mark);
        }
        for (vlan, tagged) in vlans(port) {
            observed.state.insert(VlanMember { vlan, interface: name.clone(), tagged });
        }
    }
    observed.neighbours = companion::neighbours(&tables.root);
    Ok(observed)
}

fn vlan_names(bridge: &Row) -> impl Iterator<Item = (VlanId, &str)> {
    bridge.entries("external_ids").filter_map(|(key, value)| {
        let id = key.strip_prefix(VLAN)?.parse().ok().filter(|id| (1..4095).contains(id))?;
        Some((VlanId(id), value.as_str()?))
    })
}

fn physical(state: &mut SwitchState, interface: &Row, mark: &Mark) {
    let (description, owner) = owner(interface, mark);
    let mtu = interface.number("mtu_request").or(interface.number("mtu"));
    let port = Port {
        name: interface.text("name").into(),
        description,
        // OVSDB says nothing about it; a port that is down all the same is a link that is down.
        enabled: true,
        speed_gbps: None,
        fec: None,
        mtu_bytes: mtu.and_then(|mtu| mtu.try_into().ok()),
    };
    state.insert_owned(port, owner);
}

/// Ports of virtual machines carry `iface-id` (openvswitch, "Integration Guide for Centralized Control"): never ours to take.
fn owner(row: &Row, mark: &Mark) -> (String, Owner) {
    let of_others = ["description", "iface-id"].map(|key| row.text_entry("external_ids", key));
    match row.text_entry("external_ids", MARK) {
        "" => match of_others.into_iter().find(|text| !text.is_empty()) {
            Some(text) => (text.to_owned(), Owner::Foreign),
            None => (String::new(), Owner::Free),
        },
        marked => (marked.to_owned(), mark.owner_by_description(marked)),
    }
}

fn lag(state: &mut SwitchState, port: &Row, mark: &Mark) {
    let (description, owner) = owner(port, mark);
    let lacp = matches!(port.text("lacp"), "active" | "passive");
    let lag = Lag {
        name: port.text("name").into(),
        description,
        mode: if lacp { LagMode::Lacp } else { LagMode::Static },
        fast: lacp.then(|| port.text_entry("other_config", "lacp-time") == "fast"),
        min_links: None,
        mtu_bytes: None,
    };
    // Nobody bonds ports by accident: without any mark it is someone's.
    let owner = if owner == Owner::Free { Owner::Foreign } else { owner };
    state.insert_owned(lag, owner);
}

/// Memberships of a port, with a tag or without; see the module's words about VLAN 0 and 4095.
fn vlans(port: &Row) -> Vec<(VlanId, bool)> {
    let tag = port.number("tag");
    let trunks = port.numbers("trunks");
    let number = |n: u64| u16::try_from(n).ok().map(VlanId);
    let mut members: BTreeMap<VlanId, bool> = BTreeMap::new();
    let mode = match port.text("vlan_mode") {
        "" if tag.is_some() => "access",
        "" => "trunk",
        other => other,
    };
    match mode {
        "access" => {}
        _ if trunks.is_empty() => {
            members.insert(EVERY_VLAN, true);
        }
        _ => {
            let real = trunks.into_iter().filter(|n| *n != NO_VLAN).filter_map(number);
            members.extend(real.map(|vlan| (vlan, vlan != EVERY_VLAN)));
        }
    }
    if let Some(tag) = tag.and_then(number)
        && matches!(mode, "access" | "native-untagged" | "native-tagged")
    {
        members.insert(tag, mode == "native-tagged");
    }
    members.into_iter().collect()
}

fn link(interface: &Row) -> LinkStatus {
    let up = interface.text("admin_state") == "up" && interface.text("link_state") == "up";
    let gbps = interface.number("link_speed").map(|bps| bps / 1_000_000_000).filter(|gbps| *gbps > 0);
    LinkStatus {
        up,
        speed_gbps: gbps.and_then(|gbps| gbps.try_into().ok()),
        mtu_bytes: interface.number("mtu").and_then(|mtu| mtu.try_into().ok()),
        fec: None,
    }
}

pub(super) fn counters(tables: &Tables) -> Counters {
    let physical = tables.interfaces.values().filter(|interface| is_physical(interface));
    let ports = physical.map(|interface| {
        let count =
            |key: &str| interface.entry("statistics", key).and_then(Value::as_u64).unwrap_or_default();
        let counters = PortCounters {
            rx_bytes: count("rx_bytes"),
            tx_bytes: count("tx_bytes"),
            rx_packets: count("rx_packets"),
            tx_packets: count("tx_packets"),
            rx_errors: count("rx_errors"),
            tx_errors: count("tx_errors"),
            rx_discards: count("rx_dropped"),
            tx_discards: count("tx_dropped"),
            fcs_errors: count("rx_crc_err"),
            ..PortCounters::default()
        };
        (InterfaceName::from(interface.text("name")), counters)
    });
    Counters { ports: ports.collect() }
}
