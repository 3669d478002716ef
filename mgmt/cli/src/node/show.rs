//! `basalt node list` and `show`: from the list and the kept records; no BMC is asked.

use super::{Desk, ago, headings, or_dash};
use crate::control::CliError;
use crate::output::{Output, Row, print, print_text, render};
use basalt_inventory::health::{RollUp, roll_up};
use basalt_inventory::{Record, bytes_text, memory_text};
use basalt_provision::{Node, NodeName, NodeStore, State};
use basalt_upgrade::time::rfc3339;
use serde::Serialize;

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    node: Node,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<RollUp>,
}

pub(super) async fn list(desk: &Desk, removed: bool, output: Output) -> Result<(), CliError> {
    let mut all = Vec::new();
    for node in desk.store.all().await? {
        if removed || node.state != State::Removed {
            let health = record(desk, &node.name)?.map(|r| roll_up(&r));
            all.push(Listed { node, health });
        }
    }
    let now_s = basalt_boot::now_s();
    print(output, &all, |all| {
        let mut rows = headings(["NODE", "STATE", "FOR", "HEALTH", "MODEL", "SERIAL", "BMC", "NOTE"]);
        rows.extend(all.iter().map(|one| {
            let n = &one.node;
            vec![
                n.name.to_string(),
                n.state.to_string(),
                ago(now_s.saturating_sub(n.since_s)),
                one.health.as_ref().map_or("-".into(), |h| h.health.to_string()),
                or_dash(&n.identity.model),
                or_dash(&n.identity.serial),
                n.bmc.url.clone(),
                note(n),
            ]
        }));
        rows
    })
}

/// Why it failed, or what it is at.
pub(super) fn note(node: &Node) -> String {
    match &node.failure {
        Some(failure) => format!("{}; {}", failure.cause, failure.next()),
        None if node.state.is_rest() => String::new(),
        None if node.work.begun_s == 0 => "not begun".into(),
        None if node.work.note.is_empty() => node.state.work().to_owned(),
        None => format!("{}: {}", node.state.work(), node.work.note),
    }
}

fn record(desk: &Desk, name: &NodeName) -> Result<Option<Record>, CliError> {
    desk.records.latest(name.as_str()).map_err(super::failed)
}

#[derive(Serialize)]
struct Shown {
    node: Node,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<RollUp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
}

pub(super) async fn show(
    desk: &Desk,
    name: &NodeName,
    history: bool,
    output: Output,
) -> Result<(), CliError> {
    let stored = desk.store.get(name).await?;
    let node = stored.ok_or_else(|| basalt_provision::ProvisionError::NoSuchNode(name.clone()))?;
    let record = record(desk, name)?;
    let shown = Shown { health: record.as_ref().map(roll_up), node, record };
    print_text(output, &shown, |shown| text(shown, history))
}

fn text(shown: &Shown, history: bool) -> String {
    let n = &shown.node;
    let mut rows: Vec<Row> = Vec::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    line("node", n.name.to_string());
    line("state", format!("{} since {}", n.state, rfc3339(n.since_s)));
    line("note", note(n));
    line("bmc", n.bmc.url.clone());
    line("server", format!("{} {}", n.identity.manufacturer, n.identity.model).trim().to_owned());
    line("serial", n.identity.serial.clone());
    line("uuid", n.identity.uuid.map_or_else(String::new, |u| u.to_string()));
    line("boots by", n.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    line("wanted", wanted(n));
    if let Some(health) = &shown.health {
        line("health", health.health.to_string());
        for cause in &health.causes {
            line("", format!("{}: {}: {}; {}", cause.health, cause.part, cause.cause, cause.next));
        }
    }
    if let Some(r) = &shown.record {
        line("seen", rfc3339(r.taken_s));
        line("bios", r.bios_version.clone());
        line("bmc firmware", r.bmc.as_ref().map_or_else(String::new, |b| b.firmware.clone()));
        line("processors", r.processors_text());
        line("memory", memory_text(r.memory_bytes));
        line("rack", place(&r.location));
        for unread in &r.unread {
            line("not read", format!("{}: {}", unread.part, unread.why));
        }
    }
    let mut text = render(&rows);
    if let Some(r) = &shown.record {
        for table in [drives(r), ports(r)] {
            if table.len() > 1 {
                text.push('\n');
                text.push_str(&render(&table));
            }
        }
    }
    if history {
        let mut table = headings(["AT", "STATE", "CAUSE"]);
        table.extend(n.history.iter().map(|s| vec![rfc3339(s.at_s), s.state.to_string(), s.cause.clone()]));
        text.push('\n');
        text.push_str(&render(&table));
    }
    text
}

fn wanted(n: &Node) -> String {
    let version = n.wanted.version.as_deref().unwrap_or("the newest image");
    let drive = n.wanted.install_drive.as_deref().map_or(String::new(), |d| format!(" on {d}"));
    format!("{} {version}{drive}", n.wanted.action.name())
}

fn place(location: &basalt_inventory::record::Location) -> String {
    let rack = basalt_inventory::domain::rack(location).unwrap_or_default();
    let unit = location.unit.map_or(String::new(), |u| format!(" unit {u}"));
    let feeds = match location.power_feeds.as_slice() {
        [] => String::new(),
        feeds => format!(", feeds {}", feeds.join(" ")),
    };
    format!("{rack}{unit}{feeds}")
}

fn drives(r: &Record) -> Vec<Row> {
    let mut rows =
        headings(["DRIVE", "SLOT", "MODEL", "SIZE", "FIRMWARE", "WORN", "HEALTH", "DEVICE", "HOLDS"]);
    rows.extend(r.drives.iter().map(|d| {
        use basalt_inventory::record::Contents;
        vec![
            or_dash(&d.serial),
            or_dash(&d.slot),
            or_dash(&d.model),
            bytes_text(d.bytes),
            or_dash(&d.firmware),
            d.used_percent.map_or("-".into(), |u| format!("{u} %")),
            d.health.map_or("-".into(), |h| h.to_string()),
            or_dash(&d.device),
            match &d.contents {
                Contents::Unknown => "-".into(),
                Contents::Blank => "nothing".into(),
                Contents::Holds(what) => what.clone(),
            },
        ]
    }));
    rows
}

fn ports(r: &Record) -> Vec<Row> {
    let mut rows = headings(["PORT", "MAC", "ADAPTER", "LINK", "SPEED", "FIRMWARE", "RDMA", "CABLE"]);
    for nic in &r.nics {
        rows.extend(nic.ports.iter().map(|p| {
            vec![
                or_dash(if p.interface.is_empty() { &p.name } else { &p.interface }),
                or_dash(&p.mac),
                or_dash(if nic.model.is_empty() { &nic.name } else { &nic.model }),
                p.link_up.map_or("-".into(), |up| if up { "up".into() } else { "down".into() }),
                p.speed_mbps.filter(|s| *s > 0).map_or("-".into(), |s| format!("{s} Mb/s")),
                or_dash(&nic.firmware),
                or_dash(&p.rdma),
                or_dash(&p.neighbour),
            ]
        }));
    }
    rows
}
