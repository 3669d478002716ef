//! NFSv4.2 with the kernel's own client, in User-Mode Linux: Basalt and nfs-ganesha, row by row in turn, each with a
//! guest of its own. The guest has one virtual CPU, which is the limit of many rows.

use crate::Environment;
use crate::row::{Durable, NOTHING, Report};
use crate::servers::{PEER, Servers};
use basalt_system::guest::bench::{BenchKind, BenchPlan, BenchResult};
use basalt_system::guest::protocol::Operation;
use basalt_system::server::Server;
use basalt_system::uml::{Guest, GuestConfig, NfsVersion, kernel_path};
use std::time::Duration;

const LARGE_BYTES: u64 = 128 << 20;
const FILES: u64 = 200_000;
const MOUNT: &str = "/mnt/bench";

const NAMES: Durable = Durable {
    ours: "the change, in the journal on three drives",
    peer: "nothing; ext4 commits its journal every 5 s",
};
const SYNCED: Durable = Durable {
    ours: "the data and its name, on drives with their redundancy",
    peer: "the data and its name, on the one disk (fsync, fdatasync)",
};

const ROWS: &[(BenchKind, &str, &str, Durable)] = &[
    (BenchKind::Create, "create", "op/s", NAMES),
    (BenchKind::Stat, "stat, not cached", "op/s", NOTHING),
    (BenchKind::Unlink, "unlink", "op/s", NAMES),
    (BenchKind::WriteSmall, "16 KiB file create, write, fsync, close", "op/s", SYNCED),
    (BenchKind::ReadSmall, "16 KiB file open, read, close, not cached", "op/s", NOTHING),
    (BenchKind::WriteLarge, "1 MiB writes, fsync at the end", "MB/s", SYNCED),
    (BenchKind::ReadLarge, "1 MiB reads, not cached", "MB/s", NOTHING),
    (BenchKind::ReadRandom, "4 KiB random reads, O_DIRECT", "op/s", NOTHING),
];

pub(crate) fn run(environment: &Environment, report: &mut Report) {
    if kernel_path().is_none() {
        return report.skipped("kernel", "no User-Mode Linux (apt-get install user-mode-linux)");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return report.skipped("kernel", "/dev/net/tun is not there");
    }
    let servers = match Servers::start(environment, report, "kernel") {
        Ok(servers) => servers,
        Err(why) => return report.failed("kernel", &why),
    };
    let mut ours = match boot(environment, &servers.ours, "kernel-basalt") {
        Ok(guest) => guest,
        Err(why) => return report.failed("kernel", &why),
    };
    let mut peer = servers.peer.as_ref().and_then(|server| {
        boot(environment, server, "kernel-ganesha").map_err(|why| report.failed(PEER, &why)).ok()
    });
    for threads in [1, 32] {
        for &(kind, name, unit, durable) in ROWS {
            let name = format!("v4.2 {name}, {threads} in flight");
            if !environment.wants(&name) {
                continue;
            }
            let plan = BenchPlan {
                dir: format!("{MOUNT}/threads{threads}"),
                kind,
                threads,
                milliseconds: environment.row_time().as_millis() as u64,
                limit: if unit == "MB/s" { LARGE_BYTES } else { FILES },
            };
            let peer_value = peer.as_mut().map(|guest| measure(guest, &plan, unit));
            let value = match measure(&mut ours, &plan, unit) {
                Ok(value) => value,
                Err(error) => {
                    report.failed(&name, &error);
                    continue;
                }
            };
            let peer_value = match peer_value {
                Some(Err(error)) => {
                    report.failed(&format!("{name}: {PEER}"), &error);
                    None
                }
                Some(Ok(value)) => Some((PEER, value)),
                None => None,
            };
            report.row(&name, unit, value, peer_value, durable);
        }
    }
}

fn boot(environment: &Environment, server: &dyn Server, name: &str) -> Result<Guest, String> {
    let config = GuestConfig {
        server_port: server.port(),
        mount_port: server.mount_port(),
        log_dir: environment.log_dir.clone(),
        name: name.into(),
    };
    let mut guest = Guest::boot(&config).map_err(|e| format!("boot a guest: {e}"))?;
    guest.mount(NfsVersion::V42, &server.export(), MOUNT)?;
    Ok(guest)
}

fn measure(guest: &mut Guest, plan: &BenchPlan, unit: &str) -> Result<f64, String> {
    // A row bounded by bytes has no bound of time.
    let limit = Duration::from_millis(plan.milliseconds) + Duration::from_secs(60);
    let text = guest.call(Operation::Bench(plan.clone()), limit)?;
    let result: BenchResult = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    let done = if unit == "MB/s" { result.bytes as f64 / 1e6 } else { result.operations as f64 };
    Ok(done / result.seconds)
}
