//! `basalt-dataplane`: one process that owns the drives, the pool, the file systems and their NFS server.
//!
//! Start-up, in the order in which things can go wrong without harm: settings, directory lock, listening sockets, drives,
//! pool, file systems, exports, ready line. It runs until SIGINT or SIGTERM, then flushes and stops.

mod clients;
mod config;
mod drives;
mod exports;
mod lock;
mod methods;
mod node;
mod supervise;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "basalt-dataplane",
    version,
    about = "The data plane of a Basalt storage node",
    after_help = "Settings come from $BASALT_DIR/basalt.toml and the environment: BASALT_DIR (./var), BASALT_LISTEN (127.0.0.1), \
BASALT_NFS_PORT (20490), BASALT_NFS_LEASE_S (90), BASALT_CORES, BASALT_DRIVES (6), BASALT_DRIVE_SIZE (2GiB), BASALT_DRIVE_DIR, \
BASALT_SCHEME (k+m), BASALT_LOG (info)."
)]
struct Args {}

fn main() -> ExitCode {
    Args::parse();
    let config = match config::Config::load(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(e) => return fail(&e),
    };
    if let Err(e) = supervise::start_logging(&config.log) {
        return fail(&format_args!("log filter '{}': {e}", config.log));
    }
    let _lock = match lock::acquire(&config.run_dir()) {
        Ok(lock) => lock,
        Err(e) => return fail(&e),
    };
    if let Err(e) = supervise::drain_on_signals() {
        return fail(&format_args!("signal handlers: {e}"));
    }
    let reactors =
        basalt_reactor::real::Config { cores: config.core_count(), pin: true, ..Default::default() };
    match basalt_reactor::real::run(reactors, move || node::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("basalt-dataplane: {message}");
    ExitCode::FAILURE
}
