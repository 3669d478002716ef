//! `basalt inspect`: what stands on drives, read without a data plane and without changing anything.

use crate::control::CliError;
use crate::output::{Output, Row, print, render};
use basalt_bdev::DriveRef;
use basalt_bdev::uring::UringDrive;
use basalt_pool::{SegmentId, ShardId, inspect};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// The labels of drives
    Labels { drives: Vec<PathBuf> },
    /// The root log: its copies, shards, and what it keeps for file systems and exports
    Root { drives: Vec<PathBuf> },
    /// The journal of one shard, block by block
    Journal {
        #[arg(long)]
        shard: u32,
        drives: Vec<PathBuf>,
    },
    /// All segments, or one with its columns and its footer
    Segments {
        /// This one
        #[arg(long)]
        id: Option<u64>,
        drives: Vec<PathBuf>,
    },
}

pub(crate) fn run(verb: Verb, output: Output) -> Result<(), CliError> {
    let (Verb::Labels { drives }
    | Verb::Root { drives }
    | Verb::Journal { drives, .. }
    | Verb::Segments { drives, .. }) = &verb;
    if drives.is_empty() {
        return Err(CliError::Usage("name the drives to inspect, such as var/drives/*.img".to_owned()));
    }
    let drives = drives
        .iter()
        .map(|path| UringDrive::open(path).map_err(|e| CliError::Failed(e.to_string())))
        .collect::<Result<Vec<DriveRef>, CliError>>()?;
    let reactors = basalt_reactor::real::Config { cores: 1, pin: false, ..Default::default() };
    let found = basalt_reactor::real::run(reactors, move || look(verb, drives))?;
    print(output, &found, |found| vec![vec![outline(found)]])
}

async fn look(verb: Verb, drives: Vec<DriveRef>) -> Result<Value, CliError> {
    match verb {
        Verb::Labels { .. } => {
            let mut labels = Vec::new();
            for drive in drives {
                labels.push(inspect::labels(drive).await);
            }
            value(Ok(labels))
        }
        Verb::Root { .. } => {
            let mut root = value(Ok(inspect::root(drives).await))?;
            // They have a command of their own, and a large pool has very many.
            root.as_object_mut().and_then(|fields| fields.remove("segments"));
            Ok(root)
        }
        Verb::Journal { shard, .. } => value(inspect::journal(drives, ShardId(shard)).await),
        Verb::Segments { id: Some(id), .. } => value(inspect::segment(drives, SegmentId(id)).await),
        Verb::Segments { id: None, .. } => value(Ok(inspect::root(drives).await.segments)),
    }
}

fn value<T: Serialize>(result: Result<T, basalt_pool::PoolError>) -> Result<Value, CliError> {
    let found = result.map_err(|e| CliError::Failed(e.to_string()))?;
    serde_json::to_value(found).map_err(|e| CliError::Failed(e.to_string()))
}

/// Lists of records become tables, records become `name value` lines, records in records a heading each.
fn outline(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            let flat: Vec<Value> = items.iter().map(flattened).collect();
            render(&columns(&flat))
        }
        Value::Object(fields) => {
            let nested =
                |v: &Value| v.is_object() || v.as_array().is_some_and(|a| a.iter().any(Value::is_object));
            let (lists, plain): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, v)| nested(v));
            let rows: Vec<Row> = plain.iter().map(|(k, v)| vec![(*k).clone(), crate::fs::text(v)]).collect();
            let tables = lists.iter().map(|(k, v)| format!("\n{k}:\n{}", outline(v)));
            render(&rows) + &tables.collect::<String>()
        }
        Value::Array(items) => items.iter().map(|i| format!("{}\n", crate::fs::text(i))).collect(),
        other => format!("{}\n", crate::fs::text(other)),
    }
}

/// The fields of records inside a record, next to its own.
fn flattened(item: &Value) -> Value {
    let mut flat = serde_json::Map::new();
    for (name, field) in item.as_object().into_iter().flatten() {
        match field {
            Value::Object(inner) => flat.extend(inner.clone()),
            _ => {
                flat.insert(name.clone(), field.clone());
            }
        }
    }
    Value::Object(flat)
}

fn columns(items: &[Value]) -> Vec<Row> {
    let mut names: Vec<&String> = Vec::new();
    for item in items {
        for (name, _) in item.as_object().into_iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let heading = names.iter().map(|n| n.to_uppercase().replace('_', " ")).collect();
    let cell = |item: &Value, name: &String| item.get(name).map_or(String::new(), crate::fs::text);
    let body = items.iter().map(|item| names.iter().map(|n| cell(item, n)).collect());
    std::iter::once(heading).chain(body).collect()
}
