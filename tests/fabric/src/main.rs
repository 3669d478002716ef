//! The fabric against real software: Open vSwitch (userspace datapath) and lldpd in network namespaces, with traffic between nodes.

mod one_switch;
mod probe;
mod process;
mod rack;
mod world;

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Tests the fabric driver and engine against Open vSwitch and lldpd, in namespaces of its own.
///
/// Needs root (or sudo, or user namespaces with newuidmap and sub-ids); Debian's openvswitch-switch, lldpd and ethtool; no kernel module.
/// Prints a line per test; the exit code is 0 if none failed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Print the names of the tests
    List,
    /// Run the tests with one switch, or those whose names contain one of the filters
    Run {
        filters: Vec<String>,
        /// Those with three switches too
        #[arg(long)]
        rack: bool,
        /// Seed of the moments at which things die [default: from the clock]
        #[arg(long)]
        seed: Option<u64>,
        /// Where logs are kept
        #[arg(long, default_value = "target/fabric/logs")]
        log_dir: PathBuf,
    },
}

pub(crate) type Outcome = Result<(), String>;

/// What a test is given.
pub(crate) struct Context {
    pub(crate) world: world::World,
    pub(crate) seed: u64,
}

type Test = (&'static str, bool, fn(&Context) -> Outcome);

const TESTS: [Test; 3] = [
    ("switch/life", false, one_switch::life),
    ("switch/management path", false, one_switch::management_path),
    ("rack/three switches", true, rack::three_switches),
];

/// Set in the process that is inside the namespaces.
const INSIDE: &str = "BASALT_FABRIC_TESTS_INSIDE";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.action {
        Action::List => {
            TESTS.iter().for_each(|(name, ..)| println!("{name}"));
            ExitCode::SUCCESS
        }
        Action::Run { filters, rack, seed, log_dir } => {
            if std::env::var_os(INSIDE).is_none() {
                return enter();
            }
            let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let seed = seed.unwrap_or(clock.map_or(1, |now| now.as_secs()));
            let chosen = |name: &str, of_rack: bool| match filters.as_slice() {
                [] => rack || !of_rack,
                some => some.iter().any(|filter| name.contains(filter.as_str())),
            };
            let chosen: Vec<&Test> =
                TESTS.iter().filter(|(name, of_rack, _)| chosen(name, *of_rack)).collect();
            run(&chosen, seed, &log_dir)
        }
    }
}

/// Starts this program again in network, mount and process namespaces of its own: nothing on the host is touched, and whatever is
/// still running at the end goes with the namespaces.
fn enter() -> ExitCode {
    let own =
        ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    // lldpd gives up its rights to a user of its own, so one mapped user is not enough.
    let ways: [&[&str]; 3] =
        [&["unshare"], &["unshare", "--map-root-user", "--map-auto"], &["sudo", "-n", "-E", "unshare"]];
    let works = |way: &&&[&str]| {
        let mut probe = Command::new(way[0]);
        probe.args(&way[1..]).args(own).arg("true").stderr(std::process::Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        eprintln!("namespaces can be made neither as this user nor in a user namespace: run it as root");
        return ExitCode::FAILURE;
    };
    let Ok(program) = std::env::current_exe() else {
        eprintln!("this program does not find itself");
        return ExitCode::FAILURE;
    };
    // Debian keeps daemons out of a user's search path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut inside = Command::new(way[0]);
    inside.args(&way[1..]).args(own).args(["env", &format!("PATH={path}"), &format!("{INSIDE}=1")]);
    inside.arg(program).args(std::env::args_os().skip(1));
    eprintln!("{}: {}", way[0], inside.exec());
    ExitCode::FAILURE
}

fn run(tests: &[&Test], seed: u64, log_dir: &std::path::Path) -> ExitCode {
    if let Err(reason) = world::World::prepare() {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    println!("seed {seed}");
    let (mut passed, mut failed) = (0, 0);
    for (name, _, test) in tests {
        let begin = Instant::now();
        let logs = log_dir.join(name.replace(['/', ' '], "-"));
        let outcome = world::World::new(&logs).and_then(|world| {
            let context = Context { world, seed };
            let outcome = test(&context);
            context.world.end();
            outcome
        });
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok      {name} ({seconds:.1} s)");
            }
            Err(reason) => {
                failed += 1;
                println!(
                    "FAILED  {name} ({seconds:.1} s)\n        {reason}\n        logs: {}",
                    logs.display()
                );
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
