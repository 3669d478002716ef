//! `basalt fabric show` and `counters`: switches as they are, without judging.

use super::outcome::Outcome;
use super::{Scope, ask};
use crate::control::CliError;
use crate::output::{Output, Row, print_text, render};
use basalt_switch_api::engine::{Engine, Options, PerSwitch, Shown};
use basalt_switch_api::plan::Change;
use basalt_switch_api::state::{Object, SwitchState};
use basalt_switch_api::{Counters, DeviceName, Observed, PortCounters, QueueCounters};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    scope: Scope,
    /// What each switch shall be, by the file alone: no switch is asked
    #[arg(long)]
    wanted: bool,
}

#[derive(clap::Args)]
pub(crate) struct CountersArgs {
    #[command(flatten)]
    scope: Scope,
    /// Count what happens in this many seconds, instead of all since the switch counts
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
}

/// Answers, and why some have none.
#[derive(Serialize)]
struct Answers<T> {
    switches: BTreeMap<DeviceName, T>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<DeviceName, String>,
}

impl<T> Answers<T> {
    fn text(&self, one: impl Fn(&DeviceName, &T) -> String) -> String {
        let answers: Vec<String> = self.switches.iter().map(|(name, answer)| one(name, answer)).collect();
        let errors: String = self.errors.iter().map(|(name, error)| format!("{name}: {error}\n")).collect();
        answers.join("\n") + &errors
    }
}

fn told<T: Serialize + Clone>(
    answers: &PerSwitch<T>,
    output: Output,
    one: impl Fn(&DeviceName, &T) -> String,
) -> Result<(), CliError> {
    let mut all = Answers { switches: BTreeMap::new(), errors: BTreeMap::new() };
    for (name, answer) in answers {
        match answer {
            Ok(answer) => drop(all.switches.insert(name.clone(), answer.clone())),
            Err(error) => drop(all.errors.insert(name.clone(), error.cause.to_string())),
        }
    }
    print_text(output, &all, |all| all.text(one))?;
    Ok(Outcome::of_answers(answers, Ok(()))?)
}

pub(super) fn show(args: &ShowArgs, output: Output) -> Result<(), CliError> {
    let engine = args.scope.engine(Options::default())?;
    if args.wanted {
        return told(&wanted(&engine), output, wanted_text);
    }
    let shown = ask(engine, |engine| async move { engine.show().await })?;
    told(&shown, output, shown_text)
}

fn wanted(engine: &Engine) -> PerSwitch<SwitchState> {
    let state = |name: &DeviceName| engine.desired(name).map(|desired| desired.state);
    engine.names().map(|name| (name.clone(), state(name))).collect()
}

fn wanted_text(name: &DeviceName, state: &SwitchState) -> String {
    // As a plan would make it, without its sign.
    let lines = state.iter().map(|(_, object)| Change::Create { after: object.clone() }.to_string());
    format!("{name}:\n{}", lines.map(|line| format!("  {}\n", &line[2..])).collect::<String>())
}

pub(super) fn shown_text(name: &DeviceName, shown: &Shown) -> String {
    let who = &shown.identity;
    let head = format!("{name}: {} {}, {}, serial {}\n", who.vendor, who.model, who.os_version, who.serial);
    let heading = ["PORT", "LINK", "GB/S", "MTU", "VLANS", "NEIGHBOUR", "DESCRIPTION"].map(String::from);
    let rows = shown.observed.state.ports().map(|port| {
        let link = shown.observed.links.get(&port.name);
        let running = link.filter(|link| link.up);
        let or_dash = |value: Option<u32>| value.map_or("-".to_owned(), |v| v.to_string());
        vec![
            port.name.to_string(),
            match (port.enabled, link) {
                (false, _) => "off",
                (true, None) => "-",
                (true, Some(link)) if link.up => "up",
                (true, Some(_)) => "down",
            }
            .to_owned(),
            or_dash(running.and_then(|l| l.speed_gbps).or(port.speed_gbps)),
            or_dash(running.and_then(|l| l.mtu_bytes).or(port.mtu_bytes)),
            vlans(&shown.observed, &port.name),
            neighbour(&shown.observed, &port.name),
            port.description.clone(),
        ]
    });
    head + &render(&std::iter::once(heading.to_vec()).chain(rows).collect::<Vec<Row>>())
}

/// `100,200t`: t for tagged.
fn vlans(observed: &Observed, port: &basalt_switch_api::InterfaceName) -> String {
    let members = observed.state.iter().filter_map(|(_, object)| match object {
        Object::VlanMember(m) if &m.interface == port => {
            Some(format!("{}{}", m.vlan, if m.tagged { "t" } else { "" }))
        }
        _ => None,
    });
    members.collect::<Vec<_>>().join(",")
}

fn neighbour(observed: &Observed, port: &basalt_switch_api::InterfaceName) -> String {
    let heard = observed.neighbours.iter().filter(|n| &n.port == port);
    heard.map(|n| format!("{}/{}", n.device, n.device_port)).collect::<Vec<_>>().join(" ")
}

pub(super) fn counters(args: &CountersArgs, output: Output) -> Result<(), CliError> {
    let engine = args.scope.engine(Options::default())?;
    let between = args.seconds.map(Duration::from_secs);
    let counters = ask(engine, |engine| async move {
        match between {
            Some(between) => engine.counters_during(between).await,
            None => engine.counters().await,
        }
    })?;
    told(&counters, output, counters_text)
}

pub(super) fn counters_text(name: &DeviceName, counters: &Counters) -> String {
    let heading = [
        "PORT",
        "RX BYTES",
        "TX BYTES",
        "ERRORS",
        "DISCARDS",
        "FEC FIXED",
        "FEC LOST",
        "PFC RX",
        "PFC TX",
        "ECN",
        "STORMS",
    ]
    .map(String::from);
    let rows = counters.ports.iter().map(|(port, c)| {
        let of_queues = |f: fn(&QueueCounters) -> u64| c.queues.values().map(f).sum::<u64>();
        let numbers = [
            c.rx_bytes,
            c.tx_bytes,
            errors(c),
            c.rx_discards + c.tx_discards,
            c.fec_corrected,
            c.fec_uncorrectable,
            of_queues(|q| q.pfc_rx_frames),
            of_queues(|q| q.pfc_tx_frames),
            of_queues(|q| q.ecn_marked_packets),
            of_queues(|q| q.watchdog_storms),
        ];
        std::iter::once(port.to_string()).chain(numbers.map(|n| n.to_string())).collect()
    });
    format!("{name}:\n{}", render(&std::iter::once(heading.to_vec()).chain(rows).collect::<Vec<Row>>()))
}

/// FCS errors are receive errors too; the larger of the two counts what either knows.
fn errors(c: &PortCounters) -> u64 {
    c.rx_errors.max(c.fcs_errors) + c.tx_errors
}
