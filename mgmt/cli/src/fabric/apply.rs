//! `basalt fabric apply`: the plan is shown, agreed to, and carried out; nothing else is.
//!
//! The first Ctrl-C (or SIGTERM, or the end of the terminal) begins no further switch and takes back what is not confirmed; the second
//! leaves at once and says what stands.

use super::outcome::{Ending, Outcome};
use super::plan::{Planned, painted};
use super::progress::{Progress, say};
use super::{Scope, ask, block_on, count};
use crate::control::CliError;
use crate::output::{Output, print_text};
use basalt_switch_api::DeviceName;
use basalt_switch_api::engine::{Applied, Engine, Options, PerSwitch};
use basalt_switch_api::plan::Plan;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Carry out the plan that `plan --save` wrote, or nothing if the switches have changed since
    #[arg(long, value_name = "PATH", conflicts_with = "dry_run")]
    plan: Option<PathBuf>,
    /// Seconds a changed switch must stay reachable, with its neighbours, before the change is confirmed
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().settle.as_secs(), value_parser = clap::value_parser!(u64).range(1..=600))]
    settle: u64,
    /// Seconds it may take until it is reachable again; after that the change is taken back
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().grace.as_secs(), value_parser = clap::value_parser!(u64).range(1..=600))]
    grace: u64,
}

pub(super) fn apply(args: &Args, output: Output) -> Result<(), CliError> {
    let options = Options {
        settle: Duration::from_secs(args.settle),
        grace: Duration::from_secs(args.grace),
        ..Options::default()
    };
    let engine = args.scope.engine(options)?;
    let planned = match &args.plan {
        Some(path) => Planned::load(path, &engine)?,
        None => ask(engine.clone(), |engine| async move { Planned::ask(&engine).await })?,
    };
    if let Err(outcome) = may_begin(&planned, args.dry_run) {
        print_text(output, &planned, |planned| painted(&planned.text()))?;
        return Ok(outcome?);
    }
    if output == Output::Table {
        print_text(output, &planned, |planned| painted(&planned.text()))?;
    } else {
        say(&planned.text());
    }
    if !args.yes {
        agreed(&planned)?;
    }
    let progress = Arc::new(Progress::of_changes(planned.order.iter().map(Vec::len).sum()));
    let engine = progress.watch(engine);
    let results = block_on(carry_out(&engine, &planned.plans, &progress, options))??;
    let report = Report::new(results);
    print_text(output, &report, Report::text)?;
    Ok(report.outcome()?)
}

/// Err with the command's end where there is nothing to do, or where it must not be begun. A fabric is not changed while one of its
/// switches is silent or in other hands: whether a node keeps its other way is then not known.
pub(super) fn may_begin(planned: &Planned, dry_run: bool) -> Result<(), Result<(), Outcome>> {
    if !planned.errors.is_empty() || planned.refusals() > 0 {
        let silent = !planned.errors.is_empty();
        let next = if silent { "; name the others with --only to go on without it" } else { "" };
        return Err(planned
            .outcome()
            .map_err(|o| Outcome::new(o.ending, format!("{o}; nothing was changed{next}"))));
    }
    if dry_run || planned.changes() == 0 { Err(planned.outcome()) } else { Ok(()) }
}

fn agreed(planned: &Planned) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        let next = "look at the plan and say --yes";
        return Err(CliError::Usage(format!("nobody is there to agree to {}; {next}", planned.size())));
    }
    say(&format!("Apply {}? [y/N] ", planned.size()));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Outcome::new(Ending::Differs, "nothing was changed").into())
}

async fn carry_out(
    engine: &Engine,
    plans: &BTreeMap<DeviceName, Plan>,
    progress: &Progress,
    options: Options,
) -> Result<PerSwitch<Applied>, CliError> {
    let mut signals = Signals::listen().map_err(|e| CliError::Failed(format!("no signals: {e}")))?;
    let stop = engine.stop();
    let mut work = pin!(engine.apply(plans));
    loop {
        tokio::select! {
            results = &mut work => return Ok(results),
            () = signals.next() => {
                if stop.is_requested() {
                    return Err(Outcome::new(Ending::Interrupted, what_stands(&progress.open(), options)).into());
                }
                stop.request();
                say("stopping: no further switch is begun, what is not confirmed is taken back; once more leaves at once\n");
            }
        }
    }
}

/// After leaving at once.
fn what_stands(open: &[DeviceName], options: Options) -> String {
    if open.is_empty() {
        return "left; no change is open, `basalt fabric diff` shows what is still to do".to_owned();
    }
    let names = open.iter().map(DeviceName::as_str).collect::<Vec<_>>().join(", ");
    format!(
        "left with a change on {names} that is not confirmed: switches with a commit timer (EOS, Cumulus) take it back within {} s, \
         on others it stands; `basalt fabric diff --only {}` shows which",
        options.hold().as_secs(),
        open.iter().map(DeviceName::as_str).collect::<Vec<_>>().join(","),
    )
}

/// What asks a program to end.
struct Signals([Option<Signal>; 3]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self([Some(signal(SignalKind::interrupt())?), Some(signal(SignalKind::terminate())?), hangup]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            () = one(interrupt) => {}
            () = one(terminate) => {}
            () = one(hangup) => {}
        }
    }
}

async fn one(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Who started this under `nohup` wants it to go on.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// What became of each switch.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    switches: BTreeMap<DeviceName, Switch>,
    #[serde(skip)]
    results: PerSwitch<Applied>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Switch {
    Applied(Applied),
    Failed { error: String },
}

impl Report {
    pub(super) fn new(results: PerSwitch<Applied>) -> Self {
        let switches = results.iter().map(|(name, result)| {
            let said = match result {
                Ok(applied) => Switch::Applied(applied.clone()),
                Err(error) => Switch::Failed { error: error.cause.to_string() },
            };
            (name.clone(), said)
        });
        Self { switches: switches.collect(), results }
    }

    pub(super) fn text(&self) -> String {
        let line = |(name, switch): (&DeviceName, &Switch)| match switch {
            Switch::Applied(applied) => {
                let rest: String = applied.findings.iter().map(|f| format!("  {f}\n")).collect();
                let to_do = applied.to_do.iter().map(|text| format!("  {text}\n"));
                let changes = count(applied.changes, "change", "changes");
                format!("{name}: {changes} in force\n{rest}{}", to_do.collect::<String>())
            }
            Switch::Failed { error } => format!("{name}: {error}\n"),
        };
        self.switches.iter().map(line).collect()
    }

    pub(super) fn outcome(&self) -> Result<(), Outcome> {
        let left: usize = self.results.values().flatten().map(|applied| applied.findings.len()).sum();
        let done = match left {
            0 => Ok(()),
            n => {
                let found = count(n, "finding", "findings");
                Err(Outcome::new(Ending::Differs, format!("all changes are in force, with {found}")))
            }
        };
        Outcome::of_answers(&self.results, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_at_once_says_what_stands() {
        let text = what_stands(&["leaf-1".into(), "leaf-3".into()], Options::default());
        assert!(
            text.contains("leaf-1, leaf-3") && text.contains("80 s") && text.contains("--only leaf-1,leaf-3")
        );
        assert!(what_stands(&[], Options::default()).contains("no change is open"));
    }
}
