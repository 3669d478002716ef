//! `basalt fabric`: the switches of the storage network against `fabric.yaml`. Speaks to the switches itself; needs neither data plane
//! nor agent. Exit codes 20 to 23 are in `outcome.rs` and `docs/operations/fabric.md`.

mod apply;
mod check;
mod generate;
mod outcome;
mod plan;
mod progress;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use outcome::Outcome;

use crate::control::CliError;
use crate::output::{Output, print_text};
use basalt_switch_api::DeviceName;
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::intent::{Fabric, IntentError, schema};
use progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// What `apply` would change, in its order; changes nothing
    Plan(plan::Args),
    /// Make the switches as wanted: shows the plan, asks, and applies that plan alone
    Apply(apply::Args),
    /// Where the fabric is not as wanted: settings, links, cables, largest frames, counters
    Check(check::Args),
    /// Settings as they are (-) and as wanted (+)
    Diff {
        #[command(flatten)]
        scope: Scope,
    },
    /// Counters of ports and queues
    Counters(show::CountersArgs),
    /// The switches as they are, or as wanted
    Show(show::ShowArgs),
    /// Draft fabric.yaml from inventory and LLDP; what a person still has to say goes to standard error
    Generate(generate::Args),
    /// Print the JSON Schema of fabric.yaml
    Schema,
}

/// Which switches.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// What the fabric shall be
    #[arg(long, short, env = "BASALT_FABRIC", default_value = "fabric.yaml", value_name = "PATH")]
    file: PathBuf,
    /// These switches alone
    #[arg(long, value_name = "SWITCH", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    /// Switches spoken to at the same time
    #[arg(long, default_value_t = Options::default().parallel as u16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
}

impl Scope {
    fn engine(&self, options: Options) -> Result<Engine, CliError> {
        let fabric = read(&self.file)?;
        let only: Vec<DeviceName> = self.only.iter().map(|name| name.as_str().into()).collect();
        if let Some(stranger) = only.iter().find(|name| fabric.switch(name).is_none()) {
            let known: Vec<&str> = fabric.switches.iter().map(|s| s.name.as_str()).collect();
            let (file, known) = (self.file.display(), known.join(", "));
            return Err(CliError::Usage(format!("{file} has no switch '{stranger}'; it has {known}")));
        }
        let options = Options { parallel: self.parallel.into(), ..options };
        let engine = Engine::connect(fabric, options);
        Ok(if only.is_empty() { engine } else { engine.only(&only) })
    }
}

pub(crate) fn run(verb: Verb, output: Output) -> Result<(), CliError> {
    match verb {
        Verb::Plan(args) => plan::plan(&args, output),
        Verb::Apply(args) => apply::apply(&args, output),
        Verb::Check(args) => check::check(&args, output),
        Verb::Diff { scope } => plan::diff(&scope, output),
        Verb::Counters(args) => show::counters(&args, output),
        Verb::Show(args) => show::show(&args, output),
        Verb::Generate(args) => generate::generate(&args, output),
        Verb::Schema => {
            let output = if output == Output::Table { Output::Json } else { output };
            print_text(output, &schema(), |_| String::new())
        }
    }
}

/// Problems come one per line as `file:line: field: cause; next step`, which editors can follow.
fn read(path: &Path) -> Result<Fabric, CliError> {
    Fabric::read(path).map_err(|error| match error {
        IntentError::Invalid(problems) => {
            let many = match problems.len() {
                1 => "1 problem".to_owned(),
                n => format!("{n} problems"),
            };
            let file = path.display();
            let lines = problems.iter().map(|problem| {
                let place = problem.line.map_or(format!("{file}"), |line| format!("{file}:{line}"));
                let field = if problem.field.is_empty() { "" } else { ": " };
                format!("\n  {place}: {}{field}{}; {}", problem.field, problem.cause, problem.next)
            });
            CliError::Usage(format!("{many} in {file}{}", lines.collect::<String>()))
        }
        unreadable => CliError::Usage(unreadable.to_string()),
    })
}

/// The runtime lives for this one command: nothing else in the program is asynchronous.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Failed(format!("no event loop: {e}")))?;
    Ok(runtime.block_on(work))
}

/// Runs what only reads, with a line on the terminal that says who is still to answer.
fn ask<T, Fut: Future<Output = T>>(engine: Engine, work: impl FnOnce(Engine) -> Fut) -> Result<T, CliError> {
    let progress = Arc::new(Progress::of_questions(engine.names().count()));
    let engine = progress.watch(engine);
    let result = block_on(work(engine));
    progress.clear();
    result
}

/// `1 switch`, `2 switches`.
fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}
