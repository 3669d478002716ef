//! Two switches as one: MCLAG_DOMAIN, MCLAG_INTERFACE, and the VLAN over which the two speak.
//!
//! The domain has no description, so its peer VLAN carries the mark. The system MAC that both send in LACP is a setting of each
//! LAG (`PORTCHANNEL|…|system_mac`, "for MC-LAG deployments that require peer devices to advertise a shared LACP system ID").

use super::read::vlan_id;
use super::tables::Tables;
use crate::names::VlanId;
use crate::state::{Mark, Mclag, MclagMember, Owner, SwitchState};

const PEER: &str = "peer";

/// The VLAN whose interface has the domain's own address, and the prefix length.
fn peer_vlan(tables: &Tables) -> Option<(VlanId, u8)> {
    let (_, domain) = tables.rows("MCLAG_DOMAIN").next()?;
    let own = domain.get("source_ip")?;
    tables.pairs("VLAN_INTERFACE").find_map(|(vlan, address, _)| {
        let (ip, length) = address.split_once('/')?;
        (ip == own).then_some(())?;
        Some((vlan_id(vlan)?, length.parse().ok()?))
    })
}

/// The peer VLAN, where we made it: then it belongs to the domain and is no VLAN of its own.
pub(super) fn own_peer_vlan(tables: &Tables, mark: &Mark) -> Option<VlanId> {
    let (id, _) = peer_vlan(tables)?;
    let name = tables.field("VLAN", &format!("Vlan{id}"), "description")?;
    (name == mark.name(PEER)).then_some(id)
}

pub(super) fn read(tables: &Tables, mark: &Mark, state: &mut SwitchState) {
    let Some((domain_id, row)) = tables.rows("MCLAG_DOMAIN").next() else { return };
    let Ok(domain_id) = domain_id.parse() else { return };
    let text = |field: &str| row.get(field).cloned().unwrap_or_default();
    let (peer_vlan, prefix_length) = peer_vlan(tables).unwrap_or((VlanId(0), 0));
    let domain = Mclag {
        domain_id,
        local_address: text("source_ip"),
        peer_address: text("peer_ip"),
        prefix_length,
        peer_lag: text("peer_link").into(),
        peer_vlan,
        system_mac: system_mac(tables).unwrap_or_default(),
    };
    let owner = if own_peer_vlan(tables, mark).is_some() { Owner::Ours } else { Owner::Foreign };
    state.insert_owned(domain, owner);
    for (_, lag, _) in tables.pairs("MCLAG_INTERFACE") {
        if let Some(id) = number(lag) {
            state.insert(MclagMember { lag: lag.into(), id });
        }
    }
}

/// What all LAGs of the domain send; none where they disagree, or where there are none.
pub(super) fn system_mac(tables: &Tables) -> Option<String> {
    let mut all = tables
        .pairs("MCLAG_INTERFACE")
        .map(|(_, lag, _)| tables.field("PORTCHANNEL", lag, "system_mac").map(str::to_lowercase));
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// SONiC pairs LAGs by name: the number is in it.
pub(super) fn number(lag: &str) -> Option<u16> {
    lag.strip_prefix("PortChannel")?.parse().ok()
}

pub(super) fn put(tables: &mut Tables, mark: &Mark, new: &Mclag) {
    let members: Vec<String> = tables.pairs("MCLAG_INTERFACE").map(|(_, lag, _)| lag.to_owned()).collect();
    remove(tables, mark);
    let domain = new.domain_id.to_string();
    tables.set("MCLAG_DOMAIN", &domain, "source_ip", &new.local_address);
    tables.set("MCLAG_DOMAIN", &domain, "peer_ip", &new.peer_address);
    tables.set("MCLAG_DOMAIN", &domain, "peer_link", &new.peer_lag);
    let vlan = format!("Vlan{}", new.peer_vlan);
    tables.set("VLAN", &vlan, "vlanid", new.peer_vlan);
    tables.set("VLAN", &vlan, "description", mark.name(PEER));
    tables.set("VLAN_MEMBER", &format!("{vlan}|{}", new.peer_lag), "tagging_mode", "tagged");
    tables.row("VLAN_INTERFACE", &vlan);
    tables.row("VLAN_INTERFACE", &format!("{vlan}|{}/{}", new.local_address, new.prefix_length));
    for lag in members {
        put_member(tables, &lag, Some(&new.system_mac));
    }
}

/// The domain, its members' rows, and the peer VLAN where that is ours.
pub(super) fn remove(tables: &mut Tables, mark: &Mark) {
    let peer = own_peer_vlan(tables, mark).map(|id| format!("Vlan{id}"));
    if let Some(peer) = &peer {
        let of_peer = |key: &str| key.split('|').next() == Some(peer);
        for table in ["VLAN_MEMBER", "VLAN_INTERFACE", "VLAN"] {
            tables.remove_where(table, |key, _| of_peer(key));
        }
    }
    let members: Vec<String> = tables.pairs("MCLAG_INTERFACE").map(|(_, lag, _)| lag.to_owned()).collect();
    members.iter().for_each(|lag| remove_member(tables, lag));
    tables.remove_where("MCLAG_DOMAIN", |_, _| true);
}

pub(super) fn put_member(tables: &mut Tables, lag: &str, system_mac: Option<&str>) {
    let Some(domain) = tables.rows("MCLAG_DOMAIN").next().map(|(id, _)| id.to_owned()) else { return };
    tables.set("MCLAG_INTERFACE", &format!("{domain}|{lag}"), "if_type", "PortChannel");
    if let (Some(mac), Some(row)) = (system_mac, tables.row_if_there("PORTCHANNEL", lag)) {
        row.insert("system_mac".to_owned(), mac.to_owned());
    }
}

pub(super) fn remove_member(tables: &mut Tables, lag: &str) {
    tables.remove_where("MCLAG_INTERFACE", |key, _| key.split_once('|').is_some_and(|(_, l)| l == lag));
    if let Some(row) = tables.row_if_there("PORTCHANNEL", lag) {
        row.remove("system_mac");
    }
}
