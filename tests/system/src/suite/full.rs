//! No space left: in the pool, and on the disk beneath sparse drives.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Fixture, Verdict};
use crate::guest::protocol::Operation;
use crate::server::{Server, run_to_end};
use crate::uml::NfsVersion;

const LIMIT: Duration = Duration::from_secs(240);

/// Writes until an error: how many bytes, and which error.
fn fill(fixture: &mut Fixture, dir: &str) -> Result<(u64, i32), String> {
    let text = fixture.guest()?.call(Operation::FillUp { dir: format!("{dir}/fill") }, LIMIT)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    match (words.next(), words.next()) {
        (Some(Ok(written)), Some(Ok(errno))) => Ok((written, errno as i32)),
        _ => Err(format!("the guest said {text:?}")),
    }
}

/// A full pool says ENOSPC, lets files be removed, and takes writes again after that; nothing written is lost.
pub(super) fn pool(fixture: &mut Fixture) -> Verdict {
    let mut server = fixture.new_basalt()?;
    server.set("BASALT_DRIVE_SIZE", "1GiB");
    server.start()?;
    fixture.use_server(server);
    let dir = fixture.directory(NfsVersion::V42, "full")?;
    let guest = fixture.guest()?;
    guest
        .call(Operation::WriteSeeded { path: format!("{dir}/kept"), len_bytes: 20 << 20, seed: 8 }, LIMIT)?;
    let (written, errno) = fill(fixture, &dir)?;
    if errno != libc::ENOSPC {
        return Err(format!(
            "the client got error {errno}, not \"no space left\", after {} MiB",
            written >> 20
        ));
    }
    let guest = fixture.guest()?;
    // Everything but writing still works.
    guest.shell(&format!("ls -l {dir}/fill > /dev/null; cat {dir}/fill/fill-0 | cksum; df {dir}"), LIMIT)?;
    let server = fixture.basalt()?;
    server.kill();
    server.start().map_err(|e| format!("start with a full pool: {e}"))?;
    let guest = fixture.guest()?;
    guest.shell(&format!("rm -r {dir}/fill"), LIMIT).map_err(|e| format!("remove in a full pool: {e}"))?;
    guest
        .call(Operation::WriteSeeded { path: format!("{dir}/again"), len_bytes: 50 << 20, seed: 9 }, LIMIT)?;
    guest.drop_caches()?;
    guest.call(
        Operation::VerifySeeded { path: format!("{dir}/again"), len_bytes: 50 << 20, seed: 9 },
        LIMIT,
    )?;
    guest
        .call(Operation::VerifySeeded { path: format!("{dir}/kept"), len_bytes: 20 << 20, seed: 8 }, LIMIT)?;
    Ok(format!("full after {} MiB", written >> 20))
}

/// The disk beneath the sparse drive files runs full: an error to the client, and nothing lost once there is room.
pub(super) fn host_disk(fixture: &mut Fixture) -> Verdict {
    let mut server = fixture.new_basalt()?;
    let disk = SmallDisk::new(server.dir())?;
    server.set("BASALT_DRIVE_SIZE", "1GiB");
    server.start_through(&disk.enter());
    server.start().map_err(|e| format!("start on a small disk: {e}"))?;
    fixture.use_server(server);
    let dir = fixture.directory(NfsVersion::V42, "full")?;
    let guest = fixture.guest()?;
    guest
        .call(Operation::WriteSeeded { path: format!("{dir}/kept"), len_bytes: 20 << 20, seed: 8 }, LIMIT)?;
    let (written, errno) = fill(fixture, &dir)?;
    if errno != libc::ENOSPC && errno != libc::EIO {
        return Err(format!("the client got error {errno} after {} MiB", written >> 20));
    }
    disk.enlarge()?;
    let server = fixture.basalt()?;
    let survived = server.is_alive();
    server.kill();
    server.start().map_err(|e| format!("start after there is room again: {e}"))?;
    let guest = fixture.guest()?;
    guest.drop_caches()?;
    guest
        .call(Operation::VerifySeeded { path: format!("{dir}/kept"), len_bytes: 20 << 20, seed: 8 }, LIMIT)?;
    guest.shell(&format!("rm -r {dir}/fill"), LIMIT)?;
    guest
        .call(Operation::WriteSeeded { path: format!("{dir}/again"), len_bytes: 20 << 20, seed: 9 }, LIMIT)?;
    let state = if survived { "the data plane went on" } else { "the data plane had ended" };
    Ok(format!("error {errno} after {} MiB; {state}", written >> 20))
}

/// A small memory file system over a directory, in a mount namespace that a sleeping process keeps alive.
struct SmallDisk {
    holder: Child,
    pid: String,
    dir: String,
}

impl SmallDisk {
    fn new(dir: &Path) -> Result<Self, String> {
        let dir = dir.display().to_string();
        let script = format!("mount -t tmpfs -o size=1500m none '{dir}' && echo ready && exec sleep 1000000");
        let mut holder = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut line).map_err(|e| e.to_string())?;
        let pid = holder.id().to_string();
        let disk = Self { holder, pid, dir };
        if line.trim() == "ready" {
            Ok(disk)
        } else {
            Err("cannot mount a small tmpfs in a user namespace".into())
        }
    }

    fn enter(&self) -> [&str; 7] {
        ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &self.pid, "--"]
    }

    fn enlarge(&self) -> Result<(), String> {
        let enter = self.enter();
        let mut command = Command::new(enter[0]);
        command.args(&enter[1..]).args(["mount", "-o", "remount,size=4g", &self.dir]);
        let (code, text) = run_to_end(command, LIMIT)?;
        if code == 0 { Ok(()) } else { Err(format!("enlarge the small disk: {text}")) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
