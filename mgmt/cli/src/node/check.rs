//! `basalt node check`: expected against seen, what changed, what is wrong, what is about to fail.

use super::outcome::{Ending, Outcome};
use super::{Desk, Which, inspect, read_file};
use crate::control::CliError;
use crate::output::{Output, print_text};
use basalt_inventory::domain::{Map, doubts};
use basalt_inventory::health::{Cause, roll_up};
use basalt_inventory::{Health, Profile, Record, check, wear};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// What is expected (YAML)
    #[arg(long, short, env = "BASALT_PROFILE", value_name = "PATH")]
    profile: Option<PathBuf>,
    /// Where nodes stand, for BMCs that do not know it (YAML)
    #[arg(long, env = "BASALT_LOCATIONS", value_name = "PATH")]
    locations: Option<PathBuf>,
    /// Ask the BMCs first; else the last inventory counts
    #[arg(long)]
    fresh: bool,
}

#[derive(Serialize, Default)]
struct Checked {
    nodes: BTreeMap<String, OfNode>,
    /// Where nodes stand, and what that means.
    places: Vec<String>,
}

#[derive(Serialize, Default)]
struct OfNode {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    differences: Vec<String>,
    health: Option<Health>,
    causes: Vec<Cause>,
    /// Since the inventory before.
    changes: Vec<String>,
}

impl OfNode {
    fn is_well(&self) -> bool {
        self.error.is_none() && self.differences.is_empty() && self.health.unwrap_or_default() == Health::Ok
    }
}

pub(super) async fn check(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let bad = |path: &PathBuf, e: &dyn std::fmt::Display| CliError::Usage(format!("{}: {e}", path.display()));
    let profile = match &args.profile {
        Some(path) => Some(Profile::from_yaml(&read_file(path)?).map_err(|e| bad(path, &e))?),
        None => None,
    };
    let map = match &args.locations {
        Some(path) => Some(Map::from_yaml(&read_file(path)?).map_err(|e| bad(path, &e))?),
        None => None,
    };
    let nodes = desk.chosen(&args.which).await?;
    let mut checked = Checked::default();
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    let fresh = if args.fresh {
        Some(inspect::read_all(desk, &nodes, Duration::from_secs(300)).await?)
    } else {
        None
    };
    for node in &nodes {
        let name = node.name.to_string();
        let of_node = checked.nodes.entry(name.clone()).or_default();
        let record = match fresh.as_ref().and_then(|all| all.get(&node.name)) {
            Some(Err(fault)) => {
                of_node.error = Some(fault.to_string());
                continue;
            }
            Some(Ok(record)) => {
                let record = inspect::with_view(desk, &node.name, record.clone())?;
                of_node.changes =
                    inspect::keep(desk, &node.name, &record)?.iter().map(ToString::to_string).collect();
                record
            }
            None => match desk.records.latest(&name).map_err(super::failed)? {
                Some(record) => record,
                None => {
                    of_node.error =
                        Some("it was never inspected; use `basalt node inspect`, or --fresh".into());
                    continue;
                }
            },
        };
        let mut record = record;
        if let Some(map) = &map {
            map.place(&name, &mut record);
        }
        if let Some(profile) = &profile {
            of_node.differences = check::check(profile, &record).iter().map(ToString::to_string).collect();
        }
        let history = desk.records.history(&name).map_err(super::failed)?;
        let rolled = roll_up(&record);
        of_node.causes = rolled.causes;
        for drive in &record.drives {
            if let Some(trend) = history.trends.get(&drive.serial) {
                of_node.causes.extend(wear::trend_causes(drive, trend));
            }
        }
        of_node.health = of_node.causes.iter().map(|c| c.health).max().or(Some(rolled.health));
        if !args.fresh {
            let last = history.changes.iter().filter(|(at_s, _)| *at_s == record.taken_s);
            of_node.changes = last.map(|(_, change)| change.to_string()).collect();
        }
        records.insert(name, record);
    }
    if map.is_some() || records.values().any(|r| !r.location.rack.is_empty()) {
        checked.places = doubts(records.iter().map(|(name, r)| (name.as_str(), &r.location)));
    }
    print_text(output, &checked, text)?;
    let bad = checked.nodes.values().filter(|n| !n.is_well()).count();
    let silent = checked.nodes.values().any(|n| n.error.is_some());
    match bad {
        0 => Ok(()),
        bad => {
            let ending = if silent { Ending::NoAnswer } else { Ending::Differs };
            let summary = format!("{bad} of {} nodes are not as they should be", checked.nodes.len());
            Err(Outcome::new(ending, summary).into())
        }
    }
}

fn text(checked: &Checked) -> String {
    let mut text = String::new();
    for (name, node) in &checked.nodes {
        if node.is_well() && node.changes.is_empty() {
            text.push_str(&format!("{name}: as expected\n"));
            continue;
        }
        text.push_str(&format!("{name}:\n"));
        let lines = node.error.iter().map(|e| format!("! {e}"));
        let lines = lines.chain(node.differences.iter().map(|d| format!("- {d}")));
        let causes = node.causes.iter().map(|c| format!("{}: {}: {}; {}", c.health, c.part, c.cause, c.next));
        let lines = lines.chain(causes).chain(node.changes.iter().map(|c| format!("changed: {c}")));
        text.extend(lines.map(|line| format!("  {line}\n")));
    }
    text.extend(checked.places.iter().map(|doubt| format!("place: {doubt}\n")));
    text
}
