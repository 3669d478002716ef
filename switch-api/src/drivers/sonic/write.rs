//! From changes to rows: what CONFIG_DB is to be once a plan is in force.

use super::read::{address_table, knows_port};
use super::tables::Tables;
use super::{breakout, pair, qos};
use crate::error::Cause;
use crate::intent::{Fec, LagMode};
use crate::plan::Change;
use crate::state::{Lag, Mark, Object, Port};
use std::collections::BTreeSet;

/// `before` with `changes` made.
pub(super) fn changed(before: &Tables, changes: &[Change], mark: &Mark) -> Result<Tables, Cause> {
    let mut tables = before.clone();
    let mut system_mac = pair::system_mac(before);
    for change in changes {
        let object = change.object();
        writable(&tables, change)?;
        if let (Object::Mclag(domain), false) = (object, matches!(change, Change::Delete { .. })) {
            system_mac = Some(domain.system_mac.clone());
        }
        match change {
            Change::Create { after } | Change::Update { after, .. } => {
                put(&mut tables, after, mark, system_mac.as_deref())?;
            }
            Change::Delete { before } => remove(&mut tables, before, mark)?,
        }
    }
    let ports: BTreeSet<String> =
        changes.iter().flat_map(|change| change.object().interfaces()).map(ToString::to_string).collect();
    qos::settle(&mut tables, mark, &ports);
    sound(before, &tables)?;
    Ok(tables)
}

/// What SONiC has no words for, and what would damage a key.
fn writable(tables: &Tables, change: &Change) -> Result<(), Cause> {
    let object = change.object();
    let key = change.key();
    if key.name.contains('|') || key.name.chars().any(char::is_control) {
        let reason = "a name must not contain '|' or control characters".to_owned();
        return Err(Cause::Settings { what: key.to_string(), reason });
    }
    match object {
        Object::Lag(Lag { mode: LagMode::Static, .. }) => {
            Err(Cause::Unsupported { what: format!("{key} without LACP") })
        }
        Object::Dcbx(_) => Err(Cause::Unsupported { what: "DCBX".to_owned() }),
        Object::MclagMember(member) if pair::number(member.lag.as_str()) != Some(member.id) => {
            let what = format!("{key} under the number {}, since it pairs LAGs by their names", member.id);
            Err(Cause::Unsupported { what })
        }
        Object::Address(address) if address_table(address.interface.as_str()).is_none() => {
            let reason = "SONiC's interfaces are called Ethernet0, PortChannel1, Vlan100 or Loopback0";
            Err(Cause::Rejected { path: key.to_string(), reason: reason.to_owned() })
        }
        _ if !matches!(change, Change::Delete { .. }) && !knows_port(tables, object) => {
            Err(Cause::Rejected { path: key.to_string(), reason: "there is no such port".to_owned() })
        }
        _ => Ok(()),
    }
}

fn put(tables: &mut Tables, object: &Object, mark: &Mark, system_mac: Option<&str>) -> Result<(), Cause> {
    match object {
        Object::Breakout(o) => breakout::put(tables, o.port.as_str(), o.lanes, o.speed_gbps)?,
        Object::Port(o) => put_port(tables, o),
        Object::Vlan(o) => {
            let key = format!("Vlan{}", o.id);
            tables.set("VLAN", &key, "vlanid", o.id);
            tables.set("VLAN", &key, "description", &o.name);
        }
        Object::Lag(o) => put_lag(tables, o),
        Object::LagMember(o) => {
            remove_membership(tables, o.port.as_str());
            route_no_more(tables, o.port.as_str());
            tables.row("PORTCHANNEL_MEMBER", &format!("{}|{}", o.lag, o.port));
        }
        Object::Mclag(o) => pair::put(tables, mark, o),
        Object::MclagMember(o) => pair::put_member(tables, o.lag.as_str(), system_mac),
        Object::VlanMember(o) => {
            route_no_more(tables, o.interface.as_str());
            let mode = if o.tagged { "tagged" } else { "untagged" };
            tables.set("VLAN_MEMBER", &format!("Vlan{}|{}", o.vlan, o.interface), "tagging_mode", mode);
        }
        Object::Address(o) => {
            if let Some(table) = address_table(o.interface.as_str()) {
                // The row of the interface itself makes it a routed one.
                tables.row(table, o.interface.as_str());
                tables.row(table, &format!("{}|{}", o.interface, o.address));
            }
        }
        Object::DscpClass(o) => qos::put_class(tables, o),
        Object::EcnProfile(o) => qos::put_profile(tables, o),
        Object::PortQos(o) => qos::put_port(tables, o),
        Object::PfcWatchdog(o) => qos::put_watchdog(tables, o),
        Object::Queue(o) => qos::put_queue(tables, mark, o),
        Object::Dcbx(_) => {}
    }
    Ok(())
}

fn remove(tables: &mut Tables, object: &Object, mark: &Mark) -> Result<(), Cause> {
    match object {
        Object::Breakout(o) => {
            let whole = o.speed_gbps.saturating_mul(o.lanes.into());
            breakout::put(tables, o.port.as_str(), 1, whole)?;
        }
        // A port stays; its mark goes, and with it our claim.
        Object::Port(o) => {
            if let Some(row) = tables.row_if_there("PORT", o.name.as_str()) {
                row.remove("description");
            }
        }
        Object::Vlan(o) => {
            let name = format!("Vlan{}", o.id);
            unroute(tables, &name);
            tables.remove("VLAN", &name);
        }
        Object::Lag(o) => {
            unroute(tables, o.name.as_str());
            tables.remove("PORTCHANNEL", o.name.as_str());
        }
        Object::LagMember(o) => remove_membership(tables, o.port.as_str()),
        Object::Mclag(_) => pair::remove(tables, mark),
        Object::MclagMember(o) => pair::remove_member(tables, o.lag.as_str()),
        Object::VlanMember(o) => {
            tables.remove("VLAN_MEMBER", &format!("Vlan{}|{}", o.vlan, o.interface));
        }
        Object::Address(o) => {
            if let Some(table) = address_table(o.interface.as_str()) {
                tables.remove(table, &format!("{}|{}", o.interface, o.address));
                unroute(tables, o.interface.as_str());
            }
        }
        Object::DscpClass(o) => qos::remove_class(tables, o),
        Object::EcnProfile(o) => {
            tables.remove("WRED_PROFILE", &o.name);
        }
        Object::PortQos(o) => {
            tables.remove("PORT_QOS_MAP", o.port.as_str());
        }
        Object::PfcWatchdog(o) => {
            tables.remove("PFC_WD", o.port.as_str());
        }
        Object::Queue(o) => qos::remove_queue(tables, o),
        Object::Dcbx(_) => {}
    }
    Ok(())
}

fn put_port(tables: &mut Tables, port: &Port) {
    let row = tables.row("PORT", port.name.as_str());
    let mut set = |field: &str, value: Option<String>| match value {
        Some(value) if value.is_empty() => {
            row.remove(field);
        }
        Some(value) => {
            row.insert(field.to_owned(), value);
        }
        None => {}
    };
    set("description", Some(port.description.clone()));
    set("admin_status", Some(if port.enabled { "up" } else { "down" }.to_owned()));
    set("speed", port.speed_gbps.map(|gbps| (u64::from(gbps) * 1000).to_string()));
    let fec = |fec: Fec| match fec {
        Fec::Rs => "rs",
        Fec::Fc => "fc",
        Fec::Off => "none",
        Fec::Auto => "auto",
    };
    set("fec", port.fec.map(|f| fec(f).to_owned()));
    set("mtu", port.mtu_bytes.map(|mtu| mtu.to_string()));
}

fn put_lag(tables: &mut Tables, lag: &Lag) {
    let name = lag.name.as_str();
    if tables.get("PORTCHANNEL", name).is_none() {
        tables.set("PORTCHANNEL", name, "admin_status", "up");
        // The key follows from the number, so that the two halves of a pair send the same one.
        tables.set("PORTCHANNEL", name, "lacp_key", "auto");
    }
    let row = tables.row("PORTCHANNEL", name);
    if lag.description.is_empty() {
        row.remove("description");
    } else {
        row.insert("description".to_owned(), lag.description.clone());
    }
    let said = [
        ("fast_rate", lag.fast.map(|fast| fast.to_string())),
        ("min_links", lag.min_links.map(|n| n.to_string())),
        ("mtu", lag.mtu_bytes.map(|mtu| mtu.to_string())),
    ];
    row.extend(said.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
}

fn remove_membership(tables: &mut Tables, port: &str) {
    tables.remove_where("PORTCHANNEL_MEMBER", |key, _| key.split_once('|').is_some_and(|(_, p)| p == port));
}

/// An interface whose addresses are all gone and that says nothing else is no routed one any more.
fn unroute(tables: &mut Tables, interface: &str) {
    let Some(table) = address_table(interface) else { return };
    let addressed = tables.pairs(table).any(|(name, _, _)| name == interface);
    let bare = tables.get(table, interface).is_some_and(|row| row.is_empty());
    if bare && !addressed {
        tables.remove(table, interface);
    }
}

/// sonic-vlan and teammgrd refuse members that are routed interfaces: `INTERFACE|Ethernet0` is left over from the factory.
fn route_no_more(tables: &mut Tables, interface: &str) {
    unroute(tables, interface);
}

/// Refuses what SONiC's models refuse and Redis does not: rows that name what is gone, and a watchdog quicker than its clock.
fn sound(before: &Tables, after: &Tables) -> Result<(), Cause> {
    let dangling = |tables: &Tables| -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        let mut check = |row: String, table: &str, key: &str| {
            if !key.is_empty() && tables.get(table, key).is_none() {
                found.insert((row, key.to_owned()));
            }
        };
        for (vlan, interface, _) in tables.pairs("VLAN_MEMBER") {
            check(format!("VLAN_MEMBER|{vlan}|{interface}"), "VLAN", vlan);
        }
        for (lag, port, _) in tables.pairs("PORTCHANNEL_MEMBER") {
            check(format!("PORTCHANNEL_MEMBER|{lag}|{port}"), "PORTCHANNEL", lag);
        }
        for (table, field, target) in [
            ("QUEUE", "wred_profile", "WRED_PROFILE"),
            ("QUEUE", "scheduler", "SCHEDULER"),
            ("PORT_QOS_MAP", "dscp_to_tc_map", "DSCP_TO_TC_MAP"),
        ] {
            for (key, row) in tables.rows(table) {
                let name = row.get(field).map_or("", String::as_str);
                if !name.starts_with('[') {
                    check(format!("{table}|{key}"), target, name);
                }
            }
        }
        found
    };
    let known = dangling(before);
    if let Some((row, name)) = dangling(after).into_iter().find(|found| !known.contains(found)) {
        return Err(Cause::Rejected { path: row, reason: format!("it names {name}, which would be gone") });
    }
    let clock = after.field("PFC_WD", "GLOBAL", "POLL_INTERVAL").and_then(|ms| ms.parse::<u32>().ok());
    for (port, row) in after.rows("PFC_WD").filter(|(port, row)| before.get("PFC_WD", port) != Some(row)) {
        for field in ["detection_time", "restoration_time"] {
            let ms = row.get(field).and_then(|ms| ms.parse::<u32>().ok());
            if let Some((ms, clock)) = ms.zip(clock).filter(|(ms, clock)| ms < clock) {
                let reason = format!("{field} {ms} ms is below the switch's POLL_INTERVAL of {clock} ms");
                return Err(Cause::Rejected { path: format!("PFC_WD|{port}"), reason });
            }
        }
    }
    Ok(())
}
