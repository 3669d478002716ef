//! `basalt node inspect`: the inventory of many servers at once; a slow BMC delays nobody.

use super::outcome::{Ending, Outcome, ending};
use super::{Desk, Which, headings};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_inventory::drift::Change;
use basalt_inventory::local::{NvmeCli, NvmeLogs, RecordedLogs};
use basalt_inventory::{Record, bytes_text, health, memory_text, merge};
use basalt_provision::fault::{Fault, FaultKind};
use basalt_provision::server::Server;
use basalt_provision::{Node, NodeName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Add what the node itself sees, from /sys and /proc under this directory (`/` on the node itself); for one node
    #[arg(long, value_name = "ROOT")]
    local: Option<PathBuf>,
    /// Who is at the other ends of its cables: the output of `lldpcli -f json0 show neighbors`
    #[arg(long, value_name = "PATH", requires = "local")]
    lldp: Option<PathBuf>,
    /// Seconds that one server may take
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    limit: u64,
}

#[derive(Serialize)]
struct Inspected {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    changes: Vec<String>,
}

pub(super) async fn inspect(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let nodes = desk.chosen(&args.which).await?;
    if args.local.is_some() && nodes.len() != 1 {
        return Err(CliError::Usage("--local is the view of one node: name it".into()));
    }
    let limit = Duration::from_secs(args.limit);
    let mut all: Vec<Inspected> = Vec::new();
    let mut worst: Option<Ending> = None;
    // In the order of their names, whoever answered first.
    for (name, read) in read_all(desk, &nodes, limit).await? {
        let read = match read {
            Ok(record) if args.local.is_some() => with_local(desk, args, &name, record)?,
            Ok(record) => Ok(with_view(desk, &name, record)?),
            Err(fault) => Err(fault),
        };
        let (record, error, changes) = match read {
            Ok(record) => {
                let changes = keep(desk, &name, &record)?;
                (Some(record), None, changes)
            }
            Err(fault) => {
                worst = worst.max(Some(ending(fault.kind)));
                (None, Some(fault.to_string()), Vec::new())
            }
        };
        let changes = changes.iter().map(Change::to_string).collect();
        all.push(Inspected { node: name.to_string(), record, error, changes });
    }
    print(output, &all, |all| {
        let mut rows =
            headings(["NODE", "MODEL", "SERIAL", "CPUS", "MEMORY", "DRIVES", "PORTS", "HEALTH", "CHANGED"]);
        for one in all {
            rows.push(match &one.record {
                Some(r) => row(&one.node, r, &one.changes),
                None => vec![one.node.clone(), format!("! {}", one.error.clone().unwrap_or_default())],
            });
        }
        rows
    })?;
    let failed = all.iter().filter(|one| one.error.is_some()).count();
    match worst {
        None => Ok(()),
        Some(ending) => {
            let summary =
                format!("{failed} of {} nodes could not be inspected; the reasons are above", all.len());
            Err(Outcome::new(ending, summary).into())
        }
    }
}

fn row(name: &str, r: &Record, changes: &[String]) -> Vec<String> {
    let bytes: u64 = r.drives.iter().fold(0, |sum, d| sum.saturating_add(d.bytes));
    vec![
        name.to_owned(),
        super::or_dash(&r.identity.model),
        super::or_dash(&r.identity.serial),
        r.processors_text(),
        memory_text(r.memory_bytes),
        format!("{} ({})", r.drives.len(), bytes_text(bytes)),
        r.macs().len().to_string(),
        health::roll_up(r).health.to_string(),
        match changes {
            [] => "-".into(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
        },
    ]
}

/// A record or a fault for each node.
pub(super) async fn read_all(
    desk: &Desk,
    nodes: &[Node],
    limit: Duration,
) -> Result<BTreeMap<NodeName, Result<Record, Fault>>, CliError> {
    let servers = Arc::new(desk.known_servers()?);
    let slots = Arc::new(Semaphore::new(desk.common.parallel.into()));
    let mut work = JoinSet::new();
    for node in nodes {
        let (node, servers, slots) = (node.clone(), servers.clone(), slots.clone());
        work.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let url = node.bmc.url.clone();
            let read = async {
                let opened = servers.open(&node.bmc, &node.identity).await?;
                if let Some(why) = node.identity.differs(&opened.identity) {
                    let cause = format!("the BMC at {url} answers for {why}; nothing was changed there");
                    return Err(Fault::new(FaultKind::OtherServer, cause));
                }
                opened.inspect().await
            };
            let late = || {
                Fault::new(FaultKind::TimedOut, format!("BMC {url} took longer than {} s", limit.as_secs()))
            };
            let read = tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(late()));
            (node.name, read)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(done) = work.join_next().await {
        let (name, read) = done.map_err(super::failed)?;
        all.insert(name, read);
    }
    servers.close().await;
    Ok(all)
}

/// The BMC's record and what the node sees now.
fn with_local(
    desk: &Desk,
    args: &Args,
    name: &NodeName,
    bmc: Record,
) -> Result<Result<Record, Fault>, CliError> {
    let Some(root) = &args.local else { return Ok(Ok(bmc)) };
    let logs: Box<dyn NvmeLogs> = match root == Path::new("/") {
        true => Box::new(NvmeCli),
        false => Box::new(RecordedLogs::new(root)),
    };
    let mut node = basalt_inventory::local::read(root, logs.as_ref(), bmc.taken_s);
    if let Some(path) = &args.lldp {
        let unreadable = |e: String| Fault::new(FaultKind::NotAsExpected, format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()));
        let read = text.and_then(|text| {
            basalt_inventory::local::net::neighbours(&mut node, &text).map_err(|e| unreadable(e.to_string()))
        });
        if let Err(fault) = read {
            return Ok(Err(fault));
        }
    }
    let merged = merge::merge(bmc, node.clone());
    if merged.is_ok() {
        desk.records.keep_view(name.as_str(), &node).map_err(super::failed)?;
    }
    Ok(merged.map_err(|e| Fault::new(FaultKind::OtherServer, e.to_string())))
}

/// What the node itself told before stays until it tells again.
pub(super) fn with_view(desk: &Desk, name: &NodeName, record: Record) -> Result<Record, CliError> {
    desk.records.with_view(name.as_str(), record).map_err(super::failed)
}

pub(super) fn keep(desk: &Desk, name: &NodeName, record: &Record) -> Result<Vec<Change>, CliError> {
    desk.records.keep(name.as_str(), record).map_err(super::failed)
}
