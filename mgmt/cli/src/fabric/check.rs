//! `basalt fabric check`: one sentence per place that is not as wanted.

use super::outcome::Outcome;
use super::{Scope, ask};
use crate::control::CliError;
use crate::output::{Output, colours, print_text};
use basalt_switch_api::engine::Options;
use basalt_switch_api::verify::mtu::{self, ping::Ping};
use basalt_switch_api::verify::{Finding, Severity};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Also read the counters twice, this many seconds apart, and judge what happened between
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Also send packets of full size between the nodes' addresses; COMMAND reaches a node, such as "ssh {node}" or "ip netns exec {node}"
    #[arg(long, value_name = "COMMAND")]
    probe_with: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    findings: Vec<Finding>,
}

pub(super) fn check(args: &Args, output: Output) -> Result<(), CliError> {
    let engine = args.scope.engine(Options::default())?;
    let between = args.seconds.map(Duration::from_secs);
    let probe_with = args.probe_with.as_deref().map(|through| Arc::new(Ping::through(through)));
    let parallel = args.scope.parallel.into();
    if probe_with.is_some() && mtu::probes(engine.fabric()).is_empty() {
        let next = "write nodes[].addresses, at least two in one subnet";
        return Err(CliError::Usage(format!(
            "--probe-with: no two nodes have addresses to send between; {next}"
        )));
    }
    let findings = ask(engine, |engine| async move {
        let mut findings = engine.check().await;
        if let Some(between) = between {
            findings.extend(engine.trend(between).await);
        }
        if let Some(prober) = probe_with {
            findings.extend(mtu::check(engine.fabric(), prober, parallel).await);
        }
        findings
    })?;
    let checked = Checked { findings };
    print_text(output, &checked, |checked| text(&checked.findings))?;
    Ok(Outcome::of_findings(&checked.findings)?)
}

pub(super) fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "as wanted\n".to_owned();
    }
    let coloured = colours(&std::io::stdout());
    let line = |finding: &Finding| match finding.severity {
        _ if !coloured => format!("{finding}\n"),
        Severity::Error => format!("\x1b[31m{finding}\x1b[0m\n"),
        Severity::Warning => format!("\x1b[33m{finding}\x1b[0m\n"),
        Severity::Note => format!("{finding}\n"),
    };
    findings.iter().map(line).collect()
}
