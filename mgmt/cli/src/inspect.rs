//! `basalt inspect`: what stands on drives, read without a data plane and without changing anything.

use crate::control::CliError;
use crate::output::{Output, Row, print, render};
use basalt_bdev::DriveRef;
use basalt_bdev::uring::UringDrive;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// The labels of drives
    Labels { drives: Vec<PathBuf> },
    /// The root log: drives, shards, segments
    Root { drives: Vec<PathBuf> },
}

pub(crate) fn run(verb: Verb, output: Output) -> Result<(), CliError> {
    let (Verb::Labels { drives } | Verb::Root { drives }) = &verb;
    if drives.is_empty() {
        return Err(CliError::Usage("name the drives to inspect, such as var/drives/*.img".to_owned()));
    }
    let drives = drives
        .iter()
        .map(|path| UringDrive::open(path).map_err(|e| CliError::Failed(e.to_string())))
        .collect::<Result<Vec<DriveRef>, CliError>>()?;
    let reactors = basalt_reactor::real::Config { cores: 1, pin: false, ..Default::default() };
    let found = basalt_reactor::real::run(reactors, move || async move {
        use basalt_pool::inspect;
        match verb {
            Verb::Labels { .. } => {
                let mut labels = Vec::new();
                for drive in drives {
                    labels.push(inspect::labels(drive).await);
                }
                value(Ok(labels))
            }
            Verb::Root { .. } => value(Ok(inspect::root(drives).await)),
        }
    })?;
    print(output, &found, |found| vec![vec![outline(found)]])
}

fn value<T: Serialize>(result: Result<T, basalt_pool::PoolError>) -> Result<Value, CliError> {
    let found = result.map_err(|e| CliError::Failed(e.to_string()))?;
    serde_json::to_value(found).map_err(|e| CliError::Failed(e.to_string()))
}

/// Lists of records become tables, single records become `name value` lines.
fn outline(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            render(&columns(items))
        }
        Value::Object(fields) => {
            let (lists, plain): (Vec<_>, Vec<_>) = fields
                .iter()
                .partition(|(_, v)| v.as_array().is_some_and(|a| a.iter().any(Value::is_object)));
            let rows: Vec<Row> = plain.iter().map(|(k, v)| vec![(*k).clone(), crate::fs::text(v)]).collect();
            let tables = lists.iter().map(|(k, v)| format!("\n{k}:\n{}", outline(v)));
            render(&rows) + &tables.collect::<String>()
        }
        Value::Array(items) => items.iter().map(|i| format!("{}\n", crate::fs::text(i))).collect(),
        other => crate::fs::text(other),
    }
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
