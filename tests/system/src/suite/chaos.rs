//! Random operations while the server is killed over and over and a drive is lost.

use std::fs;
use std::time::{Duration, Instant};

use super::{Fixture, Verdict};
use crate::guest::chaos::ChaosPlan;
use crate::guest::protocol::Operation;
use crate::server::Server;
use crate::uml::NfsVersion;

/// How often the data plane is killed.
const KILL_EVERY: Duration = Duration::from_secs(20);
const THREADS: u32 = 4;

/// What happens to the drive that is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Its file is gone at the next start.
    Removed,
    /// The operator takes it out while the data plane runs.
    TakenOut,
}

pub(super) fn run(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let (seconds, seed, kill) =
        (fixture.environment.chaos_seconds, fixture.environment.seed, fixture.environment.kill);
    let dir = fixture.mount(version)?;
    let other = if version == NfsVersion::V3 { NfsVersion::V42 } else { NfsVersion::V3 };
    let verify = fixture.mount(other)?;
    let loss = if version == NfsVersion::V3 { Loss::TakenOut } else { Loss::Removed };
    let (server, guest) = fixture.both()?;
    let id = guest.start(Operation::Chaos(ChaosPlan {
        dir: format!("{dir}/chaos"),
        verify_dir: Some(format!("{verify}/chaos")),
        seed,
        seconds,
        threads: THREADS,
        locks: version != NfsVersion::V3,
    }))?;
    let started = Instant::now();
    let (mut kills, mut slowest, mut lost) = (0u32, Duration::ZERO, None);
    let outcome = loop {
        if let Some(outcome) = guest.poll(id, KILL_EVERY)? {
            break outcome;
        }
        if started.elapsed() > Duration::from_secs(seconds + 300) {
            return Err(format!("the operations hang; {kills} kills; seed {seed}"));
        }
        // When the time is over the last operations and the last comparison are left in peace: a kernel that has been cut
        // off many times waits longer and longer before it connects again.
        if !kill || started.elapsed().as_secs() >= seconds {
            continue;
        }
        server.kill();
        kills += 1;
        // The drive goes once, in the middle, so that there is a time before and a time after it.
        let now = lost.is_none() && started.elapsed().as_secs() * 2 > seconds;
        if now && matches!(loss, Loss::Removed) {
            lost = lose_drive(server, loss)?;
        }
        slowest = slowest.max(server.start().map_err(|e| format!("start after kill {kills}: {e}"))?);
        if now && matches!(loss, Loss::TakenOut) {
            lost = lose_drive(server, loss)?;
        }
    };
    let text = outcome.map_err(|e| format!("seed {seed}, after {kills} kills, drive lost: {lost:?}\n{e}"))?;
    Ok(format!(
        "{text}; {kills} kills, slowest start {:.2} s, drive lost: {}; seed {seed}",
        slowest.as_secs_f64(),
        lost.unwrap_or_else(|| "none".into())
    ))
}

/// Loses one drive; its description.
fn lose_drive(server: &mut dyn Server, loss: Loss) -> Result<Option<String>, String> {
    let Some(basalt) = server.as_basalt() else { return Ok(None) };
    match loss {
        Loss::Removed => {
            let drives = basalt.drives()?;
            let drive = drives.get(2).ok_or("there are fewer than three drives")?;
            fs::remove_file(drive).map_err(|e| format!("{}: {e}", drive.display()))?;
            Ok(Some(format!("{} removed", drive.file_name().unwrap_or_default().to_string_lossy())))
        }
        Loss::TakenOut => {
            basalt.cli(&["pool", "drive-out", "4", "--cause", "test"])?;
            Ok(Some("drive 4 taken out".into()))
        }
    }
}
