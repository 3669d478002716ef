//! How soon the data plane answers again.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::{Fixture, Verdict};
use crate::guest::protocol::Operation;
use crate::server::{BasaltServer, Server};
use crate::uml::NfsVersion;
use crate::wire::Client;

/// The promise: after kill -9, with a full journal, whatever the pool's size.
const FIRST_REPLY: Duration = Duration::from_secs(2);
const LOAD_SECONDS: u64 = 15;

/// From the start of the process to the first reply that read the file system: GETATTR of the export's root.
fn first_reply(server: &mut BasaltServer, root: &[u8]) -> Result<Duration, String> {
    let started = Instant::now();
    let port = server.port();
    let root = root.to_vec();
    let asking = thread::spawn(move || -> io::Result<Duration> {
        let mut last = io::Error::other("never tried");
        while started.elapsed() < Duration::from_secs(60) {
            match Client::connect(port).and_then(|mut c| c.getattr(&root)) {
                Ok(0) => return Ok(started.elapsed()),
                Ok(status) => last = io::Error::other(format!("GETATTR gives {status}")),
                Err(error) => last = error,
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(last)
    });
    server.start()?;
    asking.join().map_err(|_| "the asking thread panicked".to_owned())?.map_err(|e| format!("no reply: {e}"))
}

fn root_handle(server: &BasaltServer) -> Result<Vec<u8>, String> {
    let mut client = Client::connect(server.mount_port()).map_err(|e| e.to_string())?;
    client.mount(&server.export()).map_err(|e| e.to_string())?.map_err(|s| format!("MNT: status {s}"))
}

fn killed_under_load(fixture: &mut Fixture) -> Verdict {
    let dir = fixture.directory(NfsVersion::V42, "load")?;
    let root = root_handle(fixture.basalt()?)?;
    let mut report = Vec::new();
    let mut worst = Duration::ZERO;
    for round in 0..3 {
        let load = Operation::Load { dir: format!("{dir}/{round}"), seconds: LOAD_SECONDS };
        let count = fixture.guest()?.call(load, Duration::from_secs(LOAD_SECONDS + 60))?;
        let server = fixture.basalt()?;
        server.kill();
        let took = first_reply(server, &root)?;
        worst = worst.max(took);
        report.push(format!("{:.2} s after {count} operations", took.as_secs_f64()));
    }
    let seen = fixture.guest()?.shell(&format!("cat {dir}/*/* | wc -c"), Duration::from_secs(120))?;
    let text = format!("{}; {} bytes there", report.join(", "), seen.trim());
    if worst < FIRST_REPLY { Ok(text) } else { Err(format!("too slow: {text}")) }
}

pub(super) fn full_journal(fixture: &mut Fixture) -> Verdict {
    killed_under_load(fixture)
}

/// The same with a pool of more than a terabyte: nothing in the start may depend on its size.
pub(super) fn big_pool(fixture: &mut Fixture) -> Verdict {
    let mut server = fixture.new_basalt()?;
    server.set("BASALT_DRIVE_SIZE", "200GiB");
    server.start()?;
    fixture.use_server(server);
    killed_under_load(fixture)
}

/// SIGTERM drains: exit code 0, and the next start has everything.
pub(super) fn clean_stop(fixture: &mut Fixture) -> Verdict {
    let dir = fixture.directory(NfsVersion::V42, "stop")?;
    fixture.guest()?.shell(&format!("echo before > {dir}/f; sync"), Duration::from_secs(30))?;
    let server = fixture.basalt()?;
    let code = server.stop()?;
    if code != 0 {
        return Err(format!("exit code {code} after SIGTERM"));
    }
    server.start()?;
    let limit = Duration::from_secs(60);
    let text = fixture.guest()?.shell(&format!("echo 3 > /proc/sys/vm/drop_caches; cat {dir}/f"), limit)?;
    if text == "before\n" { Ok(String::new()) } else { Err(format!("read back {text:?}")) }
}
