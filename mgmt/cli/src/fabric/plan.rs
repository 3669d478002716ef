//! `basalt fabric plan` and `diff`: what differs, as changes in order, or as settings side by side.

use super::outcome::{Ending, Outcome};
use super::{Scope, ask, count};
use crate::control::CliError;
use crate::output::{Output, colours, print_text};
use basalt_switch_api::DeviceName;
use basalt_switch_api::engine::{Engine, Options, PerSwitch, waves};
use basalt_switch_api::plan::{Change, Plan};
use basalt_switch_api::state::Object;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Also write the plan to this file, for `apply --plan`
    #[arg(long, value_name = "PATH")]
    save: Option<PathBuf>,
}

pub(super) fn plan(args: &Args, output: Output) -> Result<(), CliError> {
    let engine = args.scope.engine(Options::default())?;
    let report = ask(engine, |engine| async move { Planned::ask(&engine).await })?;
    if let Some(path) = &args.save {
        report.save(path)?;
    }
    print_text(output, &report, |report| painted(&report.text()))?;
    Ok(report.outcome()?)
}

pub(super) fn diff(scope: &Scope, output: Output) -> Result<(), CliError> {
    let engine = scope.engine(Options::default())?;
    let report = ask(engine, |engine| async move { Planned::ask(&engine).await })?;
    print_text(output, &report, |report| painted(&report.side_by_side()))?;
    Ok(report.outcome()?)
}

/// The plans of all switches, and why some have none. What `plan --save` writes is this as well.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) fabric: String,
    /// Switches of one line are changed at the same time.
    pub(super) order: Vec<Vec<DeviceName>>,
    pub(super) plans: BTreeMap<DeviceName, Plan>,
    #[serde(default)]
    pub(super) errors: BTreeMap<DeviceName, String>,
    #[serde(skip)]
    answers: PerSwitch<()>,
}

impl Planned {
    pub(super) async fn ask(engine: &Engine) -> Self {
        let mut planned = Self {
            fabric: engine.fabric().name.clone(),
            order: Vec::new(),
            plans: BTreeMap::new(),
            errors: BTreeMap::new(),
            answers: PerSwitch::new(),
        };
        for (name, answer) in engine.plan().await {
            planned.answers.insert(name.clone(), answer.as_ref().map(|_| ()).map_err(Clone::clone));
            match answer {
                Ok(plan) => drop(planned.plans.insert(name, plan)),
                Err(error) => drop(planned.errors.insert(name, error.cause.to_string())),
            }
        }
        planned.reorder(engine);
        planned
    }

    pub(super) fn load(path: &Path, engine: &Engine) -> Result<Self, CliError> {
        let wrong = |reason: String| {
            let next = "give a file that `basalt fabric plan --save` wrote";
            CliError::Usage(format!("{}: {reason}; {next}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut saved: Self = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let fabric = &engine.fabric().name;
        if &saved.fabric != fabric {
            return Err(wrong(format!("it is for fabric '{}', and this is '{fabric}'", saved.fabric)));
        }
        let asked: Vec<&DeviceName> = engine.names().collect();
        saved.plans.retain(|name, _| asked.contains(&name));
        saved.errors.retain(|name, _| asked.contains(&name));
        saved.reorder(engine);
        Ok(saved)
    }

    fn save(&self, path: &Path) -> Result<(), CliError> {
        let failed = |reason: String| CliError::Failed(format!("{}: {reason}", path.display()));
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|e| failed(e.to_string()))
    }

    fn reorder(&mut self, engine: &Engine) {
        let changed = self.plans.iter().filter(|(_, plan)| !plan.changes.is_empty());
        let changed: Vec<DeviceName> = changed.map(|(name, _)| name.clone()).collect();
        self.order = waves(engine.fabric(), &changed);
    }

    pub(super) fn changes(&self) -> usize {
        self.plans.values().map(|plan| plan.changes.len()).sum()
    }

    pub(super) fn refusals(&self) -> usize {
        self.plans.values().map(|plan| plan.refusals.len()).sum()
    }

    /// `12 changes on 3 switches`.
    pub(super) fn size(&self) -> String {
        let switches = self.plans.values().filter(|plan| !plan.changes.is_empty()).count();
        let (changes, switches) =
            (count(self.changes(), "change", "changes"), count(switches, "switch", "switches"));
        format!("{changes} on {switches}")
    }

    pub(super) fn outcome(&self) -> Result<(), Outcome> {
        let done = match (self.refusals(), self.changes()) {
            // Saved as they were: the reasons are there, the answers are not.
            _ if self.answers.is_empty() && !self.errors.is_empty() => {
                let silent = count(self.errors.len(), "switch has", "switches have");
                Err(Outcome::new(Ending::NoAnswer, format!("{silent} no plan")))
            }
            (0, 0) => Ok(()),
            (0, _) => Err(Outcome::new(Ending::Differs, self.size())),
            (n, _) => {
                let objects = count(n, "object is", "objects are");
                let what = format!("{objects} someone else's (marked ! above); {}", self.size());
                Err(Outcome::new(Ending::Refused, what))
            }
        };
        Outcome::of_answers(&self.answers, done)
    }

    /// Every plan, and the order of the waves where there is more than one.
    pub(super) fn text(&self) -> String {
        let mut text: String = self.plans.values().map(Plan::to_string).collect();
        text.push_str(&self.errors_text());
        if self.order.len() > 1 {
            let waves = self
                .order
                .iter()
                .map(|wave| wave.iter().map(DeviceName::as_str).collect::<Vec<_>>().join(" and "));
            text.push_str(&format!("order: {}\n", waves.collect::<Vec<_>>().join(", then ")));
        }
        text
    }

    fn errors_text(&self) -> String {
        self.errors.iter().map(|(name, error)| format!("{name}:\n  ! {error}\n")).collect()
    }

    /// Like `diff -u`: what is, and what is wanted.
    pub(super) fn side_by_side(&self) -> String {
        let mut text = String::new();
        for (name, plan) in self.plans.iter().filter(|(_, plan)| !plan.is_empty()) {
            text.push_str(&format!("--- {name} as it is\n+++ {name} as wanted\n"));
            for change in &plan.changes {
                text.push_str(&format!("@@ {} @@\n", change.key()));
                let lines = |sign, object: &Object| {
                    let fields = object.fields().into_iter();
                    fields.map(|(field, value)| format!("{sign}{field} {value}\n")).collect::<String>()
                };
                match change {
                    Change::Create { after } => text.push_str(&lines('+', after)),
                    Change::Delete { before } => text.push_str(&lines('-', before)),
                    Change::Update { fields, .. } => fields.iter().for_each(|f| {
                        text.push_str(&format!("-{0} {1}\n+{0} {2}\n", f.field, f.before, f.after));
                    }),
                }
            }
            plan.refusals.iter().for_each(|r| text.push_str(&format!("! {}\n", r.cause())));
        }
        text + &self.errors_text()
    }
}

/// Green, red and yellow by the sign at the beginning of a line, on terminals whose owner wants colour.
pub(super) fn painted(text: &str) -> String {
    if !colours(&std::io::stdout()) {
        return text.to_owned();
    }
    let paint = |line: &str| match line.trim_start().bytes().next() {
        Some(b'+') => format!("\x1b[32m{line}\x1b[0m\n"),
        Some(b'-' | b'!') => format!("\x1b[31m{line}\x1b[0m\n"),
        Some(b'~') => format!("\x1b[33m{line}\x1b[0m\n"),
        Some(b'@' | b'#') => format!("\x1b[36m{line}\x1b[0m\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(paint).collect()
}
