//! Runs the whole-system tests: see `--help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use basalt_system::server::Binaries;
use basalt_system::suite::{self, Environment, Target};
use clap::{Parser, ValueEnum};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServerKind {
    Basalt,
    Ganesha,
}

/// Tests the data plane with the Linux kernel's own NFS client, in User-Mode Linux, without root.
///
/// Needs Debian's user-mode-linux and /dev/net/tun. Prints a line per test, and "N passed, N failed" at the end;
/// the exit code is 0 if none failed. Logs of servers and guests stay in the log directory.
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
    /// Run the tests
    Run(Box<Run>),
}

#[derive(clap::Args)]
struct Run {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
    /// The server to test; nfs-ganesha tests the tests, and needs root
    #[arg(long, value_enum, default_value = "basalt")]
    server: ServerKind,
    /// The data plane [default: basalt-dataplane beside this program]
    #[arg(long)]
    dataplane: Option<PathBuf>,
    /// The command line tool [default: basalt beside this program]
    #[arg(long)]
    cli: Option<PathBuf>,
    /// Where drives lie while a test runs; removed afterwards
    #[arg(long, default_value = "target/system/work")]
    work_dir: PathBuf,
    /// Where logs are kept
    #[arg(long, default_value = "target/system/logs")]
    log_dir: PathBuf,
    /// Seconds of random operations per NFS version
    #[arg(long, default_value_t = 120)]
    chaos_seconds: u64,
    /// Seed of the random operations [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Do not kill the server during random operations
    #[arg(long)]
    no_kill: bool,
}

fn main() -> ExitCode {
    basalt_system::become_part_of_a_guest();
    let arguments = match Arguments::parse().action {
        Action::Run(run) => run,
        Action::List => {
            suite::TESTS.iter().for_each(|test| println!("{}", test.name));
            return ExitCode::SUCCESS;
        }
    };
    match environment(&arguments) {
        Ok(environment) => {
            let started = Instant::now();
            let (passed, failed) = suite::run(&environment, &arguments.filters);
            let _ = std::fs::remove_dir_all(&environment.work_dir);
            println!("{passed} passed, {failed} failed in {:.0} s", started.elapsed().as_secs_f64());
            if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn environment(arguments: &Run) -> Result<Environment, String> {
    let target = match arguments.server {
        ServerKind::Ganesha => Target::Ganesha,
        ServerKind::Basalt => {
            let beside = Binaries::beside_this_one()?;
            Target::Basalt(Binaries {
                dataplane: arguments.dataplane.clone().unwrap_or(beside.dataplane),
                cli: arguments.cli.clone().unwrap_or(beside.cli),
            })
        }
    };
    let make = |dir: &PathBuf| {
        std::fs::create_dir_all(dir)
            .and_then(|()| dir.canonicalize())
            .map_err(|e| format!("{}: {e}", dir.display()))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    Ok(Environment {
        target,
        work_dir: make(&arguments.work_dir)?,
        log_dir: make(&arguments.log_dir)?,
        chaos_seconds: arguments.chaos_seconds,
        seed: arguments.seed.unwrap_or(now),
        kill: !arguments.no_kill,
    })
}
