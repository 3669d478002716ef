//! From rows of CONFIG_DB to objects.

use super::tables::{Row, Tables};
use super::{breakout, pair, qos};
use crate::intent::{Fec, LagMode};
use crate::names::{InterfaceName, VlanId};
use crate::state::{Address, Lag, LagMember, Mark, Object, Owner, Port, SwitchState, Vlan, VlanMember};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// MTU of a port or LAG that says none (sonic-port's and teammgrd's default).
const DEFAULT_MTU: u32 = 9100;

/// Tables with addresses, by what their names begin with.
pub(super) const ADDRESS_TABLES: [(&str, &str); 4] = [
    ("Ethernet", "INTERFACE"),
    ("PortChannel", "PORTCHANNEL_INTERFACE"),
    ("Vlan", "VLAN_INTERFACE"),
    ("Loopback", "LOOPBACK_INTERFACE"),
];

pub(super) fn address_table(interface: &str) -> Option<&'static str> {
    ADDRESS_TABLES.iter().find(|(prefix, _)| interface.starts_with(prefix)).map(|(_, table)| *table)
}

pub(super) fn vlan_id(name: &str) -> Option<VlanId> {
    name.strip_prefix("Vlan")?.parse().ok().filter(|id| (1..=4094).contains(id)).map(VlanId)
}

/// Everything that is configured and has a place in our grammar.
pub(super) fn state(tables: &Tables, mark: &Mark) -> SwitchState {
    let mut state = SwitchState::default();
    for (name, row) in tables.rows("PORT").filter(|(_, row)| is_front_panel(row)) {
        let port = port(name, row);
        let owner = mark.owner_by_description(&port.description);
        state.insert_owned(port, owner);
    }
    for (split, owner) in breakout::read(tables, mark) {
        state.insert_owned(split, owner);
    }
    lags(tables, mark, &mut state);
    vlans(tables, mark, &mut state);
    addresses(tables, mark, &mut state);
    pair::read(tables, mark, &mut state);
    qos::read(tables, mark, &mut state);
    state
}

/// Not a port between ASICs, to the CPU or for recirculation.
pub(super) fn is_front_panel(row: &Row) -> bool {
    row.get("role").is_none_or(|role| role == "Ext")
}

fn port(name: &str, row: &Row) -> Port {
    let text = |field: &str| row.get(field).map(String::as_str);
    Port {
        name: name.into(),
        description: text("description").unwrap_or_default().to_owned(),
        // sonic-port: down unless said.
        enabled: text("admin_status") == Some("up"),
        speed_gbps: text("speed").and_then(gigabits),
        fec: Some(text("fec").map_or(Fec::Off, fec)),
        mtu_bytes: Some(text("mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(DEFAULT_MTU)),
    }
}

/// SONiC counts megabits.
pub(super) fn gigabits(megabits: &str) -> Option<u32> {
    megabits.parse::<u32>().ok().filter(|mbps| mbps % 1000 == 0).map(|mbps| mbps / 1000)
}

pub(super) fn fec(word: &str) -> Fec {
    match word {
        "rs" => Fec::Rs,
        "fc" => Fec::Fc,
        "auto" => Fec::Auto,
        _ => Fec::Off,
    }
}

fn lags(tables: &Tables, mark: &Mark, state: &mut SwitchState) {
    for (name, row) in tables.rows("PORTCHANNEL") {
        let text = |field: &str| row.get(field).map(String::as_str);
        let lag = Lag {
            name: name.into(),
            description: text("description").unwrap_or_default().to_owned(),
            mode: if text("static") == Some("true") { LagMode::Static } else { LagMode::Lacp },
            fast: Some(text("fast_rate") == Some("true")),
            min_links: Some(text("min_links").and_then(|n| n.parse().ok()).unwrap_or(1)),
            mtu_bytes: Some(text("mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(DEFAULT_MTU)),
        };
        // A LAG does not come by itself: without a description it is someone's.
        let owner = match mark.owner_by_description(&lag.description) {
            Owner::Free => Owner::Foreign,
            other => other,
        };
        state.insert_owned(lag, owner);
    }
    for (lag, port, _) in tables.pairs("PORTCHANNEL_MEMBER") {
        state.insert(LagMember { port: port.into(), lag: lag.into() });
    }
}

fn vlans(tables: &Tables, mark: &Mark, state: &mut SwitchState) {
    let peer = pair::own_peer_vlan(tables, mark);
    for (name, row) in tables.rows("VLAN") {
        let Some(id) = vlan_id(name).filter(|id| Some(*id) != peer) else { continue };
        let name = row.get("description").cloned().unwrap_or_default();
        let owner = mark.owner_by_name(&name);
        state.insert_owned(Vlan { id, name }, owner);
    }
    for (vlan, interface, row) in tables.pairs("VLAN_MEMBER") {
        let Some(vlan) = vlan_id(vlan).filter(|id| Some(*id) != peer) else { continue };
        // `priority_tagged` sends priority tags and no VLAN: for us it is untagged.
        let tagged = row.get("tagging_mode").is_some_and(|mode| mode == "tagged");
        state.insert(VlanMember { vlan, interface: interface.into(), tagged });
    }
}

fn addresses(tables: &Tables, mark: &Mark, state: &mut SwitchState) {
    let peer = pair::own_peer_vlan(tables, mark).map(|id| format!("Vlan{id}"));
    for (_, table) in ADDRESS_TABLES {
        for (interface, address, _) in tables.pairs(table).filter(|(i, _, _)| Some(*i) != peer.as_deref()) {
            state.insert(Address { interface: interface.into(), address: address.to_owned() });
        }
    }
}

/// Data interfaces that carry the address by which the switch was reached.
pub(super) fn management(tables: &Tables, reached: &str) -> BTreeSet<InterfaceName> {
    let Ok(reached) = reached.parse::<IpAddr>() else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for (_, table) in ADDRESS_TABLES {
        for (interface, address, _) in tables.pairs(table) {
            let own = address.split('/').next().and_then(|text| text.parse::<IpAddr>().ok());
            if own != Some(reached) {
                continue;
            }
            found.insert(interface.into());
            // By whichever of its members: none of them may be cut.
            let members = tables.pairs("VLAN_MEMBER").filter(|(vlan, _, _)| *vlan == interface);
            found.extend(members.map(|(_, member, _)| member.into()));
        }
    }
    found
}

/// Whether `state` holds a port that `object` is about.
pub(super) fn knows_port(tables: &Tables, object: &Object) -> bool {
    match object {
        Object::Port(port) => tables.get("PORT", port.name.as_str()).is_some(),
        Object::LagMember(member) => tables.get("PORT", member.port.as_str()).is_some(),
        _ => true,
    }
}
