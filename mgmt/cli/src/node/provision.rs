//! `basalt node provision`: from bare metal to running, many at once.

use super::add::WantedArgs;
use super::outcome::{Ending, Outcome};
use super::watch::Watch;
use super::{Desk, Which, headings, read_file, show};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_inventory::Profile;
use basalt_provision::clock::SystemClock;
use basalt_provision::node::FirmwareWanted;
use basalt_provision::reach::{NoReach, Reach, TcpReach};
use basalt_provision::{Engine, Limits, Node, NodeName, Parts, State, Times};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Show all nodes with their steps, live
    #[arg(long)]
    watch: bool,
    /// Stop nodes whose hardware is not as this says (YAML)
    #[arg(long, short, env = "BASALT_PROFILE", value_name = "PATH")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    wanted: WantedArgs,
    /// Firmware that shall be at least at a version: COMPONENT=VERSION=FILE-OR-ADDRESS
    #[arg(long, value_name = "WANTED", value_parser = firmware)]
    firmware: Vec<FirmwareWanted>,
    /// Provision nodes anew that run
    #[arg(long)]
    again: bool,
    /// Servers that boot at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    boots: u16,
    /// Servers whose firmware is written at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    firmware_at_once: u16,
    /// Seconds that any step may take at most; by default 300 for questions to the BMC, 1800 for the boot, 900 until it serves, 3600
    /// for firmware
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86400), value_name = "SECONDS")]
    limit: Option<u64>,
    /// A data plane that answers is not looked for; only what nodes report to the boot service counts
    #[arg(long)]
    no_probe: bool,
}

fn firmware(text: &str) -> Result<FirmwareWanted, String> {
    let wrong = || format!("{text:?} is not COMPONENT=VERSION=FILE, such as BIOS=1.9.0=/srv/fw/bios.exe");
    let mut parts = text.splitn(3, '=');
    let mut part = || parts.next().filter(|p| !p.is_empty()).map(str::to_owned).ok_or_else(wrong);
    Ok(FirmwareWanted { component: part()?, version: part()?, file: part()? })
}

impl Args {
    fn times(&self, request: Duration) -> Times {
        let mut times = Times { call: request * 2, ..Times::default() };
        if let Some(limit) = self.limit.map(Duration::from_secs) {
            for time in [
                &mut times.inspect,
                &mut times.firmware,
                &mut times.set_boot,
                &mut times.reset,
                &mut times.boot,
                &mut times.serve,
                &mut times.call,
            ] {
                *time = limit.min(*time);
            }
        }
        times
    }
}

pub(super) async fn provision(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let profile = match &args.profile {
        Some(path) => {
            let text = read_file(path)?;
            Some(Profile::from_yaml(&text).map_err(|e| CliError::Usage(format!("{}: {e}", path.display())))?)
        }
        None => None,
    };
    if args.which.all && !args.wanted.wipe.is_empty() {
        return Err(CliError::Usage("name the node whose drive may be wiped; --all is too many".into()));
    }
    let nodes = desk.chosen(&args.which).await?;
    let list = desk.list();
    for node in &nodes {
        if args.again && node.state == State::Running {
            list.again(&node.name, "an operator asked for it anew").await?;
        }
        if !args.wanted.is_empty() || !args.firmware.is_empty() {
            list.change(&node.name, |node| {
                args.wanted.apply(&mut node.wanted);
                if !args.firmware.is_empty() {
                    node.wanted.firmware.clone_from(&args.firmware);
                }
            })
            .await?;
        }
    }
    let names: Vec<NodeName> = nodes.into_iter().map(|n| n.name).collect();
    let servers = Arc::new(desk.known_servers()?);
    let reach: Arc<dyn Reach> = if args.no_probe { Arc::new(NoReach) } else { Arc::new(TcpReach::default()) };
    let parts = Parts {
        store: desk.store.clone(),
        servers: servers.clone(),
        boot: desk.boot.clone(),
        reach,
        clock: Arc::new(SystemClock),
    };
    let limits = Limits {
        bmcs: desk.common.parallel.into(),
        boots: args.boots.into(),
        firmware: args.firmware_at_once.into(),
    };
    let watch = Arc::new(Watch::new(args.watch));
    let (seen, records) = (watch.clone(), desk.records.clone());
    let engine = Engine::new(parts, args.times(desk.limits().request), &limits)
        .with_profile(profile)
        .watched_by(move |node| seen.node(node))
        .kept_by(move |name, record| {
            let whole = records.with_view(name.as_str(), record.clone());
            if let Err(e) = whole.and_then(|whole| records.keep(name.as_str(), &whole)) {
                tracing::warn!("the inventory of {name} was not kept: {e}");
            }
        });
    let redraw = watch.clone().redraw();
    let mut term = signal(SignalKind::terminate()).map_err(super::failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(super::failed)?;
    let done = tokio::select! {
        done = engine.provision(&names) => Some(done),
        _ = term.recv() => None,
        _ = int.recv() => None,
    };
    redraw.abort();
    watch.end();
    servers.close().await;
    let Some(done) = done else {
        return Err(CliError::Failed(
            "interrupted; `basalt node provision` takes up where the nodes stand".into(),
        ));
    };
    let mut ended: Vec<Node> = Vec::new();
    let mut errors = Vec::new();
    for (name, result) in done {
        match result {
            Ok(node) => ended.push(node),
            Err(e) => errors.push(format!("{name}: {e}")),
        }
    }
    print(output, &ended, |nodes| {
        let mut rows = headings(["NODE", "STATE", "NOTE"]);
        rows.extend(nodes.iter().map(|n| vec![n.name.to_string(), n.state.to_string(), show::note(n)]));
        rows
    })?;
    for error in &errors {
        eprintln!("{error}");
    }
    let bad = ended.iter().filter(|n| n.state != State::Running).count() + errors.len();
    match bad {
        0 => Ok(()),
        bad => {
            let summary = format!("{bad} of {} nodes do not run; the reasons are above", names.len());
            Err(Outcome::new(Ending::Failed, summary).into())
        }
    }
}
