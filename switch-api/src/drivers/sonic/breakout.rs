//! One port into several and back: `BREAKOUT_CFG|Ethernet0 {brkout_mode 4x25G}` with the PORT rows that follow from it.
//!
//! What `config interface breakout` does from the platform's tables is done here from the lanes: a port of lanes 1,2,3,4 split
//! into two is `Ethernet0` on 1,2 and `Ethernet2` on 3,4. Everything that hangs on the old ports goes with them.

use super::tables::{Row, Tables};
use crate::error::Cause;
use crate::state::{Breakout, Mark, Owner};
use std::collections::BTreeSet;

/// No port has more lanes; bounds what a switch may tell us.
const MAX_LANES: usize = 16;

/// Tables whose rows hang on a port that is named in their keys, besides those with objects of ours.
pub(super) const DEPENDENT_TABLES: [&str; 12] = [
    "BUFFER_PG",
    "BUFFER_PORT_EGRESS_PROFILE_LIST",
    "BUFFER_PORT_INGRESS_PROFILE_LIST",
    "BUFFER_QUEUE",
    "CABLE_LENGTH",
    "DEVICE_NEIGHBOR",
    "INTERFACE",
    "PFC_WD",
    "PORT_QOS_MAP",
    "PORT_STORM_CONTROL",
    "QUEUE",
    "SFLOW_SESSION",
];

/// `4x25G[10G]`: ways and Gb/s of each.
fn parse(mode: &str) -> Option<(u8, u32)> {
    let mode = mode.split('[').next()?;
    let (ways, speed) = mode.split_once('x')?;
    Some((ways.parse().ok()?, speed.trim_end_matches('G').parse().ok()?))
}

pub(super) fn read(tables: &Tables, mark: &Mark) -> Vec<(Breakout, Owner)> {
    let split = |(port, row): (&str, &Row)| {
        let (lanes, speed_gbps) = parse(row.get("brkout_mode")?).filter(|(ways, _)| *ways > 1)?;
        let owners: Vec<Owner> = group(tables, port, lanes)
            .iter()
            .filter_map(|name| tables.field("PORT", name, "description"))
            .map(|text| mark.owner_by_description(text))
            .collect();
        let owner = [Owner::Foreign, Owner::Ours].into_iter().find(|o| owners.contains(o));
        Some((Breakout { port: port.into(), lanes, speed_gbps }, owner.unwrap_or(Owner::Free)))
    };
    tables.rows("BREAKOUT_CFG").filter_map(split).collect()
}

fn number(port: &str) -> Option<usize> {
    port.strip_prefix("Ethernet")?.parse().ok()
}

fn lanes(row: &Row) -> Vec<&str> {
    let list = row.get("lanes").map_or("", String::as_str);
    list.split(',').map(str::trim).filter(|lane| !lane.is_empty()).take(MAX_LANES).collect()
}

/// The ports into which `port` is split now, `port` first. Their numbers lie within as many as it has lanes.
fn group(tables: &Tables, port: &str, ways: u8) -> Vec<String> {
    let Some(first) = number(port) else { return Vec::new() };
    let each = tables.get("PORT", port).map_or(0, |row| lanes(row).len());
    let numbers = first..first.saturating_add(each.saturating_mul(ways.into()).min(MAX_LANES));
    numbers.map(|n| format!("Ethernet{n}")).filter(|name| tables.get("PORT", name).is_some()).collect()
}

/// Splits `port` into `ways` of `speed_gbps`; one way makes it whole.
pub(super) fn put(tables: &mut Tables, port: &str, ways: u8, speed_gbps: u32) -> Result<(), Cause> {
    let rejected = |reason: String| Cause::Rejected { path: format!("breakout of {port}"), reason };
    let current = tables.field("BREAKOUT_CFG", port, "brkout_mode").and_then(parse).map_or(1, |(n, _)| n);
    let old = group(tables, port, current);
    let Some(parent) = old.first().and_then(|name| tables.get("PORT", name)).cloned() else {
        return Err(rejected("there is no such port".to_owned()));
    };
    let rows: Vec<Row> = old.iter().filter_map(|name| tables.get("PORT", name)).cloned().collect();
    let all: Vec<&str> = rows.iter().flat_map(lanes).collect();
    let ways = usize::from(ways.max(1));
    if !all.len().is_multiple_of(ways) || all.len() > MAX_LANES {
        return Err(rejected(format!("its {} lanes do not split into {ways}", all.len())));
    }
    let each = all.len() / ways;
    let base = number(port).unwrap_or_default();
    // An alias must be unique; the parent's own part ends before what an earlier split added.
    let alias =
        parent.get("alias").map(|a| if current > 1 { a.trim_end_matches("/1") } else { a }.to_owned());
    let before = tables.clone();
    remove_ports(tables, &old);
    for (i, own) in all.chunks(each.max(1)).enumerate() {
        let name = format!("Ethernet{}", base + i * each);
        let mut row = Row::new();
        let mut set = |field: &str, value: String| row.insert(field.to_owned(), value);
        set("lanes", own.join(","));
        set("speed", (u64::from(speed_gbps) * 1000).to_string());
        set("admin_status", "up".to_owned());
        set("subport", if ways == 1 { 0 } else { i + 1 }.to_string());
        if let Some(alias) = &alias {
            set("alias", if ways == 1 { alias.clone() } else { format!("{alias}/{}", i + 1) });
        }
        for kept in ["index", "mtu"] {
            if let Some(value) = parent.get(kept) {
                set(kept, value.clone());
            }
        }
        // Buffers are computed from the cable's length; the new ports have the old one's cable.
        for (list, lengths) in before.rows("CABLE_LENGTH") {
            if let Some(length) = lengths.get(port) {
                tables.set("CABLE_LENGTH", list, &name, length);
            }
        }
        *tables.row("PORT", &name) = row;
    }
    tables.set("BREAKOUT_CFG", port, "brkout_mode", format!("{ways}x{speed_gbps}G"));
    Ok(())
}

/// Takes `ports` out, and every row that names one of them.
fn remove_ports(tables: &mut Tables, ports: &[String]) {
    let is_gone = |name: &str| ports.iter().any(|port| port == name);
    let named: BTreeSet<String> = tables.iter().map(|(table, _, _)| table.to_owned()).collect();
    for table in named.iter().filter(|table| *table != "BREAKOUT_CFG") {
        tables.remove_where(table, |key, _| key.split('|').any(is_gone));
    }
    let lists: Vec<String> = tables.rows("CABLE_LENGTH").map(|(key, _)| key.to_owned()).collect();
    for list in lists {
        if let Some(row) = tables.row_if_there("CABLE_LENGTH", &list) {
            row.retain(|port, _| !is_gone(port));
        }
    }
}

/// Between `before` and `after` the ports that change their lanes must be gone from the switch: SONiC does not move a port that
/// is there (sonic-buildimage 10005, 12045). Returns the state in the middle and those ports; none where no port changes so.
pub(super) fn middle(before: &Tables, after: &Tables) -> Option<(Tables, Vec<String>)> {
    let moved: Vec<String> = before
        .rows("PORT")
        .filter(|(name, row)| after.get("PORT", name).is_none_or(|new| lanes(new) != lanes(row)))
        .map(|(name, _)| name.to_owned())
        .collect();
    let mut middle = before.clone();
    remove_ports(&mut middle, &moved);
    (!moved.is_empty()).then_some((middle, moved))
}
