//! The seeded simulator: whole pools and file systems with their clients, in one thread under a virtual clock, against
//! models in memory. A seed is a run, bit for bit; a failing one is printed with the command that replays it.

mod client;
mod coverage;
mod fs;
mod media;
mod model;
mod planted;
mod pool;

use clap::{Parser, Subcommand, ValueEnum};
use coverage::Coverage;
use planted::Planted;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Every seed that once failed stays here, with the reason.
const REGRESSIONS: &[(Family, u64, &str)] = &[
    (Family::Fs, 13664751952439803998, "a shard found no journal chunk to open with after a drive was lost"),
    (
        Family::Fs,
        14075222336202605145,
        "the model forgot that a write sent again meets what a crash has left",
    ),
];

#[derive(Parser)]
#[command(name = "basalt-sim", version, about = "Seeded simulation of pools and file systems")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Regression seeds, every planted fault, fresh seeds: five CPU minutes for each family
    Test {
        /// Only this one
        #[arg(long)]
        family: Option<Family>,
        /// Any text: the same gives the same fresh seeds, such as one commit wherever it is tested; else of now
        #[arg(long)]
        seeds_of: Option<String>,
        /// CPU time for each family
        #[arg(long, default_value_t = 5)]
        minutes: u64,
    },
    /// 20,000 fresh seeds of each family, and all that `test` does
    TestAll,
    /// Fresh seeds until stopped
    Soak,
    /// One seed, twice, comparing the two runs
    Run {
        #[arg(long)]
        family: Family,
        #[arg(long)]
        seed: u64,
        /// With this fault switched on
        #[arg(long)]
        planted: Option<Planted>,
        /// What the pool and the file system log, such as `info` or `basalt_pool=debug`
        #[arg(long)]
        log: Option<String>,
    },
    /// The planted faults by name
    Planted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    Pool,
    Fs,
}

impl Family {
    const ALL: [Family; 2] = [Family::Pool, Family::Fs];
    fn name(self) -> &'static str {
        match self {
            Family::Pool => "pool",
            Family::Fs => "fs",
        }
    }
}

/// What a seed came to: coverage and trace hash, or the broken promise.
type Outcome = Result<(Coverage, u64), String>;

fn run_seed(family: Family, seed: u64, fault: Option<Planted>) -> Outcome {
    planted::switch(fault);
    let outcome = catch_unwind(AssertUnwindSafe(|| match family {
        Family::Pool => pool::run(seed),
        Family::Fs => fs::run(seed),
    }));
    planted::switch(None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(format!("panic: {}", text.unwrap_or_else(|| "without a message".to_owned())))
    })
}

fn replay_command(family: Family, seed: u64, fault: Option<Planted>) -> String {
    let fault = fault.map_or(String::new(), |f| format!(" --planted {}", f.name()));
    format!("cargo run --release -p basalt-sim -- run --family {} --seed {seed}{fault}", family.name())
}

fn main() -> ExitCode {
    // A panic inside a seed is a finding, reported with its seed; the trace of a replay has the backtrace.
    if !matches!(Args::parse().verb, Verb::Run { .. }) {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let ok = match Args::parse().verb {
        Verb::Test { family, seeds_of, minutes } => {
            let base = seeds_of.map_or_else(base_of_now, |text| base_of(&text));
            let limit = Limit::Time(Duration::from_secs(60 * minutes));
            Family::ALL.map(|f| family.is_some_and(|only| only != f) || test(f, base, limit)) == [true, true]
        }
        Verb::TestAll => Family::ALL.map(|f| test(f, base_of_now(), Limit::Seeds(20_000))) == [true, true],
        Verb::Soak => {
            let limit = Limit::Time(Duration::from_secs(600));
            Family::ALL.into_iter().cycle().all(|f| fresh(f, base_of_now(), limit))
        }
        Verb::Run { family, seed, planted, log } => {
            if let Some(filter) = log {
                let filter = tracing_subscriber::EnvFilter::new(filter);
                tracing_subscriber::fmt()
                    .with_env_filter(filter)
                    .without_time()
                    .with_writer(std::io::stderr)
                    .init();
            }
            replay(family, seed, planted)
        }
        Verb::Planted => {
            Planted::all().for_each(|f| println!("{} ({})", f.name(), f.family().name()));
            true
        }
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Clone, Copy)]
enum Limit {
    /// CPU time, spread over the threads.
    Time(Duration),
    Seeds(u64),
}

fn replay(family: Family, seed: u64, fault: Option<Planted>) -> bool {
    let first = run_seed(family, seed, fault);
    let second = run_seed(family, seed, fault);
    match (&first, &second) {
        (Ok((coverage, hash)), Ok((_, again))) => {
            println!("family {} seed {seed}: ok, trace {hash:016x}", family.name());
            coverage.0.iter().for_each(|(what, count)| println!("  {count:>10}  {what}"));
            if hash != again {
                println!("NOT REPEATABLE: the second run's trace is {again:016x}");
            }
            hash == again
        }
        (Err(e), Err(again)) => {
            println!("family {} seed {seed}: FAILED: {e}", family.name());
            if e != again {
                println!("NOT REPEATABLE: the second run failed with: {again}");
            }
            false
        }
        (first, second) => {
            let word = |o: &Outcome| o.as_ref().map(|_| "passed").map_err(|e| e.clone());
            println!("NOT REPEATABLE: first {:?}, then {:?}", word(first), word(second));
            false
        }
    }
}

fn test(family: Family, base: u64, limit: Limit) -> bool {
    let started = Instant::now();
    let mut ok = true;
    for (_, seed, why) in REGRESSIONS.iter().filter(|r| r.0 == family) {
        if let Err(e) = run_seed(family, *seed, None) {
            println!("family {}: REGRESSION of seed {seed} ({why}): {e}", family.name());
            println!("  replay: {}", replay_command(family, *seed, None));
            ok = false;
        }
    }
    for fault in Planted::all().filter(|f| f.family() == family) {
        ok &= find(family, fault);
    }
    let limit = match limit {
        Limit::Time(budget) => {
            let used = started.elapsed() * threads() as u32;
            Limit::Time(budget.saturating_sub(used).max(budget / 5))
        }
        seeds => seeds,
    };
    ok & fresh(family, base, limit)
}

/// Seeds that a planted fault may take to be found.
const PLANTED_SEEDS: u64 = 300;

/// A planted fault must be found, and its seed must be clean without it.
fn find(family: Family, fault: Planted) -> bool {
    let started = Instant::now();
    let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let tried = in_parallel(Limit::Seeds(PLANTED_SEEDS), |n| {
        let seed = 1_000_000 + n;
        if let Err(e) = run_seed(family, seed, Some(fault)) {
            let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
            // The lowest, whichever thread was faster.
            if found.as_ref().is_none_or(|f| seed < f.0) {
                *found = Some((seed, e));
            }
            return false;
        }
        true
    });
    let took_s = started.elapsed().as_secs_f64();
    match found.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some((seed, e)) => match run_seed(family, seed, None) {
            Ok(_) => {
                let line: String = e.chars().take(160).collect();
                println!(
                    "planted {}: found by seed {seed} ({tried} tried, {took_s:.1} s): {line}",
                    fault.name()
                );
                true
            }
            Err(e) => {
                println!("planted {}: seed {seed} fails without it too: {e}", fault.name());
                println!("  replay: {}", replay_command(family, seed, None));
                false
            }
        },
        None => {
            println!("planted {}: NOT FOUND in {tried} seeds ({took_s:.1} s)", fault.name());
            false
        }
    }
}

/// The first of seeds that nobody has run: 2^24 of them have room before another base's.
fn base_of_now() -> u64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    now >> 8 << 24
}

/// FNV-1a: the same on every machine and with every compiler.
fn base_of(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash << 24
}

fn fresh(family: Family, base: u64, limit: Limit) -> bool {
    let started = Instant::now();
    let total = Mutex::new(Coverage::default());
    let failures = Mutex::new(Vec::new());
    let ran = in_parallel(limit, |n| {
        let seed = base + n;
        let outcome = run_seed(family, seed, None);
        // Now and then the whole run again: repeatability is a promise too.
        let outcome = match outcome {
            Ok((coverage, hash)) if n % 50 == 0 => match run_seed(family, seed, None) {
                Ok((_, again)) if again == hash => Ok((coverage, hash)),
                other => Err(format!("not repeatable: {:?}", other.map(|o| o.1))),
            },
            other => other,
        };
        match outcome {
            Ok((coverage, _)) => total.lock().unwrap_or_else(|e| e.into_inner()).merge(&coverage),
            Err(e) => failures.lock().unwrap_or_else(|e| e.into_inner()).push((seed, e)),
        }
        failures.lock().unwrap_or_else(|e| e.into_inner()).len() < 5
    });
    let total = total.into_inner().unwrap_or_else(|e| e.into_inner());
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("family {}: {ran} fresh seeds in {:.0} s", family.name(), started.elapsed().as_secs_f64());
    total.0.iter().for_each(|(what, count)| println!("  {count:>12}  {what}"));
    for (seed, e) in &failures {
        println!("family {} seed {seed}: FAILED: {e}", family.name());
        println!("  replay: {}", replay_command(family, *seed, None));
    }
    let holes = total.holes();
    if !holes.is_empty() {
        println!("family {}: never happened: {}", family.name(), holes.join(", "));
    }
    failures.is_empty() && holes.is_empty()
}

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(16)
}

/// Calls `f` with 0, 1, 2, ... on all CPUs until the limit, or until it says false; returns how many were run.
fn in_parallel(limit: Limit, f: impl Fn(u64) -> bool + Sync) -> u64 {
    let next = AtomicU64::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let threads = threads();
    let started = Instant::now();
    let over = |n: u64| match limit {
        Limit::Time(budget) => started.elapsed() * threads as u32 >= budget,
        Limit::Seeds(count) => n >= count,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if over(n) {
                        next.fetch_sub(1, Ordering::Relaxed);
                        break;
                    }
                    if !f(n) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    next.into_inner()
}
