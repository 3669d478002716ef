//! Benchmarks, each row beside a peer or the floor of the machine, measured in the same run.
//!
//! * [`row`]: what a row is, the table and `target/bench/NAME.json`; [`meter`]: rates, medians.
//! * [`engine`]: no network: codes, checksums, stripes, the file system in this process, a drive.
//! * [`nfs3`]: NFSv3 through libnfs ([`libnfs`]), Basalt beside nfs-ganesha ([`servers`]).
//! * [`nvme`]: the NVMe driver beside the kernel's in an emulated machine, and its instructions per read.
//! * [`kernel`]: NFSv4.2 with the kernel's client in User-Mode Linux, the same two servers.

mod engine;
mod kernel;
mod libnfs;
mod meter;
mod nfs3;
mod nvme;
mod row;
mod servers;

use clap::{Parser, ValueEnum};
use row::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Engine,
    Nfs3,
    Kernel,
    Nvme,
}

/// Measures Basalt beside its peers on this machine; prints a table and writes target/bench/NAME.json.
///
/// What a part needs and is not there (libnfs, nfs-ganesha, User-Mode Linux, fio) is named and left out.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', default_value = "engine,nfs3,kernel,nvme")]
    only: Vec<Suite>,
    /// Seconds per row
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Where drives and exports lie meanwhile; removed afterwards [default: work below the results]
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Where results go [default: bench beside the directory of this program]
    #[arg(long)]
    results: Option<PathBuf>,
    /// Only rows whose name contains one of these, separated by semicolons
    #[arg(long, value_delimiter = ';')]
    rows: Vec<String>,
}

/// What all parts share.
pub(crate) struct Environment {
    pub(crate) seconds: f64,
    pub(crate) work_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    rows: Vec<String>,
}

impl Environment {
    pub(crate) fn row_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
    /// For what is steady within a fraction of a second.
    pub(crate) fn short_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds / 10.0)
    }
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| row.contains(part))
    }
}

fn main() -> ExitCode {
    basalt_system::become_part_of_a_guest();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("basalt-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    if !(0.1..=600.0).contains(&arguments.seconds) {
        return Err(format!("{} s per row: choose 0.1 to 600", arguments.seconds));
    }
    let results = match &arguments.results {
        Some(dir) => dir.clone(),
        None => {
            let own = std::env::current_exe().map_err(|e| e.to_string())?;
            let target = own.parent().and_then(|dir| dir.parent()).ok_or("this program lies nowhere")?;
            target.join("bench")
        }
    };
    let make = |dir: &PathBuf| {
        std::fs::create_dir_all(dir)
            .and_then(|()| dir.canonicalize())
            .map_err(|e| format!("{}: {e}", dir.display()))
    };
    let results = make(&results)?;
    let work = arguments.work_dir.clone().unwrap_or_else(|| results.join("work"));
    let environment = Environment {
        seconds: arguments.seconds,
        work_dir: make(&work.join(std::process::id().to_string()))?,
        log_dir: make(&results.join("logs"))?,
        rows: arguments.rows.clone(),
    };
    let started = Instant::now();
    let mut outcome = Ok(());
    for suite in &arguments.only {
        let (name, part): (_, fn(&Environment, &mut Report)) = match suite {
            Suite::Engine => ("engine", engine::run),
            Suite::Nfs3 => ("nfs3", nfs3::run),
            Suite::Kernel => ("kernel", kernel::run),
            Suite::Nvme => ("nvme", nvme::run),
        };
        let mut report = Report::new(name);
        part(&environment, &mut report);
        outcome = outcome.and(report.finish(&results));
    }
    let _ = std::fs::remove_dir_all(&environment.work_dir);
    println!("{:.0} s in all; results in {}", started.elapsed().as_secs_f64(), results.display());
    outcome
}
