//! The lossless class: DSCP and queue maps, PFC with its watchdog, marking, schedulers.
//!
//! | object | rows |
//! |---|---|
//! | DSCP class | a field of `DSCP_TO_TC_MAP\|map`, and three maps of the same name that carry the class to its queue and priority group |
//! | lossless class of port | `PORT_QOS_MAP\|port` |
//! | PFC watchdog | `PFC_WD\|port` and `pfcwd_sw_enable` of `PORT_QOS_MAP\|port`: it watches nothing without |
//! | ECN profile | `WRED_PROFILE\|name` |
//! | queue | `QUEUE\|port\|n`, and a `SCHEDULER` row of ours |

use super::tables::{Row, Tables};
use crate::intent::WatchdogAction;
use crate::state::{
    DscpClass, EcnProfile, Mark, Owner, PfcWatchdog, PortQos, Queue, Scheduling, SwitchState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Maps that every class needs besides the DSCP map, and the field by which a port is bound to them.
const COMPANIONS: [(&str, &str); 3] = [
    ("TC_TO_QUEUE_MAP", "tc_to_queue_map"),
    ("TC_TO_PRIORITY_GROUP_MAP", "tc_to_pg_map"),
    ("MAP_PFC_PRIORITY_TO_QUEUE", "pfc_to_queue_map"),
];
const CLASSES: std::ops::RangeInclusive<u8> = 0..=7;

/// SONiC up to 202012 wrote references as `[WRED_PROFILE|name]`.
fn reference(text: &str) -> &str {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.map_or(text, |t| t.rsplit_once('|').map_or(t, |(_, name)| name))
}

fn named<'a>(row: &'a Row, field: &str) -> &'a str {
    reference(row.get(field).map_or("", String::as_str))
}

/// `3,4`.
fn priorities(text: &str) -> BTreeSet<u8> {
    text.split(',').filter_map(|p| p.trim().parse().ok()).filter(|p| CLASSES.contains(p)).collect()
}

fn listed(priorities: &BTreeSet<u8>) -> String {
    priorities.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

/// `3` or `3-4`.
fn queues(text: &str) -> Option<std::ops::RangeInclusive<u8>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    // Ports have 8 to 20 queues.
    (first <= last && last < 64).then_some(first..=last)
}

pub(super) fn read(tables: &Tables, mark: &Mark, state: &mut SwitchState) {
    for (map, row) in tables.rows("DSCP_TO_TC_MAP") {
        let owner = mark.owner_by_name(map);
        for (dscp, class) in row {
            if let (Ok(dscp), Ok(traffic_class)) = (dscp.parse(), class.parse()) {
                state.insert_owned(DscpClass { map: map.to_owned(), dscp, traffic_class }, owner);
            }
        }
    }
    for (name, row) in tables.rows("WRED_PROFILE") {
        state.insert_owned(ecn_profile(name, row), mark.owner_by_name(name));
    }
    for (port, row) in tables.rows("PORT_QOS_MAP").filter(|(port, _)| *port != "global") {
        let pfc_priorities = priorities(row.get("pfc_enable").map_or("", String::as_str));
        let map = bound_map(tables, row, mark);
        state.insert(PortQos { port: port.into(), map, pfc_priorities });
    }
    for (port, row) in tables.rows("PFC_WD").filter(|(port, _)| *port != "GLOBAL") {
        if let Some(watchdog) = watchdog(tables, port, row) {
            state.insert(watchdog);
        }
    }
    for (port, range, row) in tables.pairs("QUEUE").filter(|(port, _, _)| *port != "CPU") {
        for queue in queues(range).into_iter().flatten() {
            state.insert(Queue {
                port: port.into(),
                queue,
                scheduling: Some(scheduling(tables, named(row, "scheduler"))),
                ecn_profile: Some(named(row, "wred_profile").to_owned()),
            });
        }
    }
}

/// The DSCP map, if the other maps belong to it; else words that no intent can want, so that the difference is seen.
fn bound_map(tables: &Tables, row: &Row, mark: &Mark) -> String {
    let map = named(row, "dscp_to_tc_map");
    if mark.owner_by_name(map) != Owner::Ours {
        return map.to_owned();
    }
    let whole = companions(tables, map);
    let differs = |(table, field): &(&str, &str)| {
        named(row, field) != map || tables.get(table, map) != whole.get(table)
    };
    match COMPANIONS.iter().find(|companion| differs(companion)) {
        Some((_, field)) => format!("{map} with another {field}"),
        None => map.to_owned(),
    }
}

/// What the three maps beside the DSCP map `map` have to say. Classes without loss have a priority group of their own; all others
/// share the first, since only that one has buffers (sonic-buildimage, files/build_templates/qos_config.j2).
fn companions(tables: &Tables, map: &str) -> BTreeMap<&'static str, Row> {
    let bound = tables.rows("PORT_QOS_MAP").filter(|(_, row)| named(row, "dscp_to_tc_map") == map);
    let lossless: BTreeSet<u8> =
        bound.flat_map(|(_, row)| priorities(row.get("pfc_enable").map_or("", String::as_str))).collect();
    let same: Row = CLASSES.map(|class| (class.to_string(), class.to_string())).collect();
    let group = |class: u8| if lossless.contains(&class) { class } else { 0 };
    let groups: Row = CLASSES.map(|class| (class.to_string(), group(class).to_string())).collect();
    [
        ("TC_TO_QUEUE_MAP", same.clone()),
        ("TC_TO_PRIORITY_GROUP_MAP", groups),
        ("MAP_PFC_PRIORITY_TO_QUEUE", same),
    ]
    .into()
}

fn ecn_profile(name: &str, row: &Row) -> EcnProfile {
    let number = |field: &str, default: u64| row.get(field).and_then(|n| n.parse().ok()).unwrap_or(default);
    let marks = row.get("ecn").is_some_and(|ecn| matches!(&ecn[..], "ecn_all" | "ecn_green"));
    let percent = u8::try_from(number("green_drop_probability", 100)).unwrap_or(100);
    EcnProfile {
        name: name.to_owned(),
        min_bytes: number("green_min_threshold", 0),
        max_bytes: number("green_max_threshold", 0),
        // It drops and does not mark.
        mark_percent: if marks { percent } else { 0 },
    }
}

/// None where it is configured and watches no priority that can be paused.
fn watchdog(tables: &Tables, port: &str, row: &Row) -> Option<PfcWatchdog> {
    let watched = |field: &str| priorities(tables.field("PORT_QOS_MAP", port, field).unwrap_or_default());
    (watched("pfcwd_sw_enable") == watched("pfc_enable")).then_some(())?;
    let ms = |field: &str| row.get(field).and_then(|n| n.parse().ok()).unwrap_or(0);
    let action = match row.get("action").map(String::as_str) {
        Some("forward") => WatchdogAction::Forward,
        Some("alert") => WatchdogAction::Alert,
        _ => WatchdogAction::Drop,
    };
    Some(PfcWatchdog {
        port: port.into(),
        action,
        detection_ms: ms("detection_time"),
        restoration_ms: ms("restoration_time"),
    })
}

/// A queue without one has weight 1 (sonic-scheduler's defaults).
fn scheduling(tables: &Tables, scheduler: &str) -> Scheduling {
    let row = tables.get("SCHEDULER", scheduler);
    let text = |field: &str| row.and_then(|row| row.get(field)).map(String::as_str);
    match text("type") {
        Some("STRICT") => Scheduling::Strict,
        _ => Scheduling::Weighted(text("weight").and_then(|w| w.parse().ok()).unwrap_or(1)),
    }
}

pub(super) fn put_class(tables: &mut Tables, class: &DscpClass) {
    tables.set("DSCP_TO_TC_MAP", &class.map, &class.dscp.to_string(), class.traffic_class);
}

pub(super) fn remove_class(tables: &mut Tables, class: &DscpClass) {
    let Some(row) = tables.row_if_there("DSCP_TO_TC_MAP", &class.map) else { return };
    row.remove(&class.dscp.to_string());
    if row.is_empty() {
        tables.remove("DSCP_TO_TC_MAP", &class.map);
    }
}

pub(super) fn put_profile(tables: &mut Tables, profile: &EcnProfile) {
    // RoCE comes in green; the other colours are set alike so that no drop profile of the vendor's applies to them.
    for colour in ["green", "yellow", "red"] {
        let mut set = |field: String, value: String| tables.set("WRED_PROFILE", &profile.name, &field, value);
        set(format!("wred_{colour}_enable"), "true".to_owned());
        set(format!("{colour}_min_threshold"), profile.min_bytes.to_string());
        set(format!("{colour}_max_threshold"), profile.max_bytes.to_string());
        set(format!("{colour}_drop_probability"), profile.mark_percent.to_string());
    }
    let ecn = if profile.mark_percent == 0 { "ecn_none" } else { "ecn_all" };
    tables.set("WRED_PROFILE", &profile.name, "ecn", ecn);
}

pub(super) fn put_port(tables: &mut Tables, port: &PortQos) {
    let key = port.port.as_str();
    tables.set("PORT_QOS_MAP", key, "pfc_enable", listed(&port.pfc_priorities));
    // As `bound_map` says where a binding was broken: there is nothing to go back to.
    let map = port.map.split(' ').next().unwrap_or_default();
    let fields = COMPANIONS.iter().map(|(_, field)| *field).chain(["dscp_to_tc_map"]);
    for field in fields {
        if map.is_empty() {
            tables.row("PORT_QOS_MAP", key).remove(field);
        } else {
            tables.set("PORT_QOS_MAP", key, field, map);
        }
    }
}

pub(super) fn put_watchdog(tables: &mut Tables, watchdog: &PfcWatchdog) {
    let action = match watchdog.action {
        WatchdogAction::Drop => "drop",
        WatchdogAction::Forward => "forward",
        WatchdogAction::Alert => "alert",
    };
    let port = watchdog.port.as_str();
    tables.set("PFC_WD", port, "action", action);
    tables.set("PFC_WD", port, "detection_time", watchdog.detection_ms);
    tables.set("PFC_WD", port, "restoration_time", watchdog.restoration_ms);
}

/// A range of queues in one row becomes one row for each, so that one of them can be changed.
fn single(tables: &mut Tables, port: &str, queue: u8) {
    let holds = |range: &str| range.contains('-') && queues(range).is_some_and(|r| r.contains(&queue));
    let found = tables.pairs("QUEUE").find(|(p, range, _)| *p == port && holds(range));
    let Some((range, row)) = found.map(|(_, range, row)| (range.to_owned(), row.clone())) else { return };
    tables.remove("QUEUE", &format!("{port}|{range}"));
    for n in queues(&range).into_iter().flatten() {
        *tables.row("QUEUE", &format!("{port}|{n}")) = row.clone();
    }
}

pub(super) fn put_queue(tables: &mut Tables, mark: &Mark, queue: &Queue) {
    let port = queue.port.as_str();
    single(tables, port, queue.queue);
    let key = format!("{port}|{}", queue.queue);
    tables.row("QUEUE", &key);
    if let Some(scheduling) = queue.scheduling {
        let name = match scheduling {
            Scheduling::Strict => mark.name("strict"),
            Scheduling::Weighted(weight) => mark.name(&format!("dwrr{weight}")),
        };
        match scheduling {
            Scheduling::Strict => tables.set("SCHEDULER", &name, "type", "STRICT"),
            Scheduling::Weighted(weight) => {
                tables.set("SCHEDULER", &name, "type", "DWRR");
                tables.set("SCHEDULER", &name, "weight", weight);
            }
        }
        tables.set("QUEUE", &key, "scheduler", name);
    }
    match queue.ecn_profile.as_deref() {
        None => {}
        Some("") => {
            tables.row("QUEUE", &key).remove("wred_profile");
        }
        Some(profile) => tables.set("QUEUE", &key, "wred_profile", profile),
    }
}

pub(super) fn remove_queue(tables: &mut Tables, queue: &Queue) {
    single(tables, queue.port.as_str(), queue.queue);
    tables.remove("QUEUE", &format!("{}|{}", queue.port, queue.queue));
}

/// What follows from the rest: companions of our DSCP maps, schedulers in use, watched priorities of `ports`.
pub(super) fn settle(tables: &mut Tables, mark: &Mark, ports: &BTreeSet<String>) {
    for port in ports {
        let watched = tables.get("PFC_WD", port).is_some();
        let lossless = tables.field("PORT_QOS_MAP", port, "pfc_enable").map(str::to_owned);
        let Some(row) = tables.row_if_there("PORT_QOS_MAP", port) else { continue };
        match lossless.filter(|list| watched && !list.is_empty()) {
            Some(list) => row.insert("pfcwd_sw_enable".to_owned(), list),
            None => row.remove("pfcwd_sw_enable"),
        };
    }
    let ours = |name: &str| mark.owner_by_name(name) == Owner::Ours;
    let maps: BTreeSet<String> =
        tables.rows("DSCP_TO_TC_MAP").map(|(name, _)| name.to_owned()).filter(|name| ours(name)).collect();
    for (table, _) in COMPANIONS {
        tables.remove_where(table, |name, _| ours(name) && !maps.contains(name));
    }
    for map in &maps {
        for (table, row) in companions(tables, map) {
            *tables.row(table, map) = row;
        }
    }
    let used: BTreeSet<String> =
        tables.rows("QUEUE").map(|(_, row)| named(row, "scheduler").to_owned()).collect();
    tables.remove_where("SCHEDULER", |name, _| ours(name) && !used.contains(name));
}
