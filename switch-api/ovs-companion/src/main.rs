//! `basalt-ovs-companion`: on the host of each Open vSwitch of the fabric, beside `ovs-vswitchd` and `lldpd`.

use basalt_switch_api::connection::{Connection, Limits};
use basalt_switch_api::drivers::ovs::companion::{Settings, run};
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::retry::RetryPolicy;
use basalt_switch_api::state::Mark;
use basalt_switch_api::tls::Trust;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Tells Basalt's fabric driver, through Open vSwitch's own database, what lldpd hears, and takes back changes that are not
/// confirmed in time.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The database's socket.
    #[arg(long, default_value = "/run/openvswitch/db.sock")]
    database: PathBuf,
    /// lldpd's control socket, where it is not lldpcli's usual one.
    #[arg(long)]
    lldpd_socket: Option<PathBuf>,
    /// How often lldpd and the database are looked at, in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    every_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let connection = Connection {
        switch: "companion".into(),
        kind: DriverKind::Ovs,
        address: format!("unix:{}", arguments.database.display()),
        port: 0,
        user: String::new(),
        secret: Default::default(),
        trust: Trust::Plaintext,
        identity: None,
        limits: Limits::default(),
        retry: RetryPolicy::ONCE,
        // It marks nothing of its own.
        mark: Mark::new("companion"),
    };
    let every = Duration::from_millis(arguments.every_ms);
    let settings = Settings { connection, lldpd_socket: arguments.lldpd_socket, every };
    let mut ended = signal(SignalKind::terminate())?;
    tokio::select! {
        () = run(&settings) => {}
        _ = ended.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}
