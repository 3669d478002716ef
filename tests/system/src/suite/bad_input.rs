//! Starts that must fail, with words that help, and without a byte changed on any drive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::Hasher;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Fixture, Verdict};
use crate::server::{BasaltServer, FailedStart, Server, run_to_end};
use crate::sys;

/// A start that fails does so within this time.
const FAIL_LIMIT: Duration = Duration::from_secs(30);

/// A server with a pool and one small file, stopped.
fn prepared(fixture: &mut Fixture) -> Result<BasaltServer, String> {
    let mut server = fixture.new_basalt()?;
    server.set("BASALT_DRIVE_SIZE", "2GiB");
    server.start()?;
    server.stop()?;
    Ok(server)
}

/// Contents of all drives, as checksums.
fn fingerprints(server: &BasaltServer) -> Result<BTreeMap<PathBuf, u64>, String> {
    server.drives()?.into_iter().map(|path| fingerprint(&path).map(|sum| (path, sum))).collect()
}

fn fingerprint(path: &Path) -> Result<u64, String> {
    // Not cryptographic: it only has to notice an accident.
    let mut hasher = std::hash::DefaultHasher::new();
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    // Holes are skipped, but a chunk of zeros counts like a hole, so that making one of the other is no change.
    while let Some(data) = sys::seek_data_or_hole(&file, at, true).map_err(failed)? {
        at = data - data % buffer.len() as u64;
        let count = file.read_at(&mut buffer, at).map_err(failed)?;
        if buffer[..count].iter().any(|b| *b != 0) {
            hasher.write_u64(at);
            hasher.write(&buffer[..count]);
        }
        at += buffer.len() as u64;
    }
    hasher.write_u64(file.metadata().map_err(failed)?.len());
    Ok(hasher.finish())
}

/// Starts it, expects a failure that names one of the words, and no byte changed. The message comes back.
fn must_refuse(server: &mut BasaltServer, what: &str, words: &[&str]) -> Result<String, String> {
    let before = fingerprints(server)?;
    match server.attempt() {
        Ok(_) => Err(format!("{what}: it started")),
        Err(failed) => refused_properly(server, &before, what, words, &failed),
    }
}

fn refused_properly(
    server: &BasaltServer,
    before: &BTreeMap<PathBuf, u64>,
    what: &str,
    words: &[&str],
    failed: &FailedStart,
) -> Result<String, String> {
    let text = &failed.text;
    if failed.code.is_none_or(|code| code == 0) || text.contains("panicked") {
        return Err(format!("{what}: exit code {:?}\n{text}", failed.code));
    }
    if !words.iter().any(|w| text.to_lowercase().contains(w)) {
        return Err(format!("{what}: none of {words:?} in the message:\n{text}"));
    }
    let after = fingerprints(server)?;
    let changed: Vec<_> =
        before.iter().filter(|(path, sum)| after.get(*path) != Some(sum)).map(|(p, _)| p).collect();
    if !changed.is_empty() || after.len() != before.len() {
        return Err(format!(
            "{what}: changed drives {changed:?}, {} before, {} after\n{text}",
            before.len(),
            after.len()
        ));
    }
    Ok(last_line(text))
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().chars().take(200).collect()
}

/// Either is right: a refusal in words, or a start without the odd drive whose log or status names it; but
/// never a change to it.
fn refuses_or_goes_on(server: &mut BasaltServer, odd: &Path, what: &str, words: &[&str]) -> Verdict {
    let before = fingerprints(server)?;
    if let Err(failed) = server.attempt() {
        return refused_properly(server, &before, what, words, &failed);
    }
    let status = server.cli(&["pool", "status"])?;
    server.stop()?;
    if before.get(odd) != Some(&fingerprint(odd)?) {
        return Err(format!("{what}: {} was overwritten", odd.display()));
    }
    let log = fs::read_to_string(&server.log).map_err(|e| e.to_string())?;
    let name = odd.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let about: Vec<&str> = log.lines().chain(status.lines()).filter(|l| l.contains(&name)).collect();
    match about.iter().rev().find(|l| words.iter().any(|w| l.to_lowercase().contains(w))) {
        Some(line) => Ok(format!("it goes on: {}", line.chars().take(200).collect::<String>())),
        None => {
            Err(format!("{what}: log and status say none of {words:?} about {name}: {about:?}\n{status}"))
        }
    }
}

pub(super) fn second_start(fixture: &mut Fixture) -> Verdict {
    let mut server = fixture.new_basalt()?;
    server.start()?;
    let (code, text) = run_to_end(server.command(), FAIL_LIMIT)?;
    if code == 0 || !["running", "lock", "in use", "already"].iter().any(|w| text.to_lowercase().contains(w))
    {
        return Err(format!("exit code {code}\n{text}"));
    }
    if !server.is_alive() {
        return Err("the first one is gone".into());
    }
    server.cli(&["pool", "status"]).map_err(|e| format!("the first one serves no more: {e}"))?;
    Ok(last_line(&text))
}

pub(super) fn port_in_use(fixture: &mut Fixture) -> Verdict {
    let mut server = prepared(fixture)?;
    let _taken = TcpListener::bind(("127.0.0.1", server.port())).map_err(|e| e.to_string())?;
    must_refuse(&mut server, "port in use", &["in use", "address", "port"])
}

pub(super) fn truncated_drive(fixture: &mut Fixture) -> Verdict {
    let mut server = prepared(fixture)?;
    let drive = drive(&server, 1)?;
    let size = fs::metadata(&drive).map_err(|e| e.to_string())?.len();
    resize(&drive, size / 2)?;
    refuses_or_goes_on(
        &mut server,
        &drive,
        "a drive of half its size",
        &["truncated", "short", "small", "size"],
    )
}

pub(super) fn foreign_drive(fixture: &mut Fixture) -> Verdict {
    let other = prepared(fixture)?;
    let mut server = prepared(fixture)?;
    let drive = drive(&server, 1)?;
    copy(&self::drive(&other, 1)?, &drive)?;
    refuses_or_goes_on(&mut server, &drive, "a drive of another pool", &["pool", "foreign"])
}

pub(super) fn duplicate_drive(fixture: &mut Fixture) -> Verdict {
    let mut server = prepared(fixture)?;
    let (first, second) = (drive(&server, 0)?, drive(&server, 1)?);
    copy(&first, &second)?;
    refuses_or_goes_on(
        &mut server,
        &second,
        "a copy of another drive",
        &["duplicate", "twice", "copy", "same"],
    )
}

pub(super) fn drive_with_a_file_system(fixture: &mut Fixture) -> Verdict {
    let mut server = prepared(fixture)?;
    let drive = drive(&server, 1)?;
    let size = fs::metadata(&drive).map_err(|e| e.to_string())?.len();
    File::create(&drive).and_then(|f| f.set_len(size)).map_err(|e| e.to_string())?;
    let mut mkfs = Command::new("/sbin/mkfs.ext4");
    mkfs.arg("-qF").arg(&drive);
    let (code, text) = run_to_end(mkfs, FAIL_LIMIT)?;
    if code != 0 {
        return Err(format!("mkfs.ext4: {text}"));
    }
    refuses_or_goes_on(
        &mut server,
        &drive,
        "a drive with ext4 on it",
        &["ext4", "file system", "holds", "label"],
    )
}

/// Three of six drives gone at 4+2: it refuses, and comes back whole when they do.
pub(super) fn too_many_lost(fixture: &mut Fixture) -> Verdict {
    let mut server = prepared(fixture)?;
    let drives = server.drives()?;
    let aside = server.dir().join("aside");
    fs::create_dir(&aside).map_err(|e| e.to_string())?;
    let moves: Vec<_> =
        drives[..4].iter().map(|d| (d.clone(), aside.join(d.file_name().unwrap_or_default()))).collect();
    for (from, to) in &moves {
        fs::rename(from, to).map_err(|e| e.to_string())?;
    }
    let said = must_refuse(&mut server, "two drives of six", &["drive"])?;
    if server.drives()?.len() != drives.len() - moves.len() {
        return Err("it made new drives in place of the missing ones".into());
    }
    for (from, to) in &moves {
        fs::rename(to, from).map_err(|e| e.to_string())?;
    }
    server.start().map_err(|e| format!("with all drives back: {e}"))?;
    server.stop()?;
    Ok(said)
}

/// A first start with a scheme that six drives cannot keep makes no pool; the next one without it does.
pub(super) fn impossible_schemes(fixture: &mut Fixture) -> Verdict {
    let mut server = fixture.new_basalt()?;
    server.set("BASALT_DRIVE_SIZE", "2GiB");
    let mut said = Vec::new();
    for scheme in ["8+2", "0+2", "4+300", "nonsense"] {
        server.set("BASALT_SCHEME", scheme);
        match server.attempt() {
            Ok(_) => return Err(format!("{scheme} was accepted")),
            Err(failed) if failed.code.is_some_and(|c| c != 0) && failed.text.contains(scheme) => {
                said.push(last_line(&failed.text));
            }
            Err(failed) => return Err(format!("{scheme}: {failed:?}")),
        }
    }
    server.set("BASALT_SCHEME", "");
    server.start()?;
    server.stop()?;
    Ok(said.join("; "))
}

/// Drives with room for fewer journals get fewer shards; drives that are too small are refused before one is made.
pub(super) fn small_drives(fixture: &mut Fixture) -> Verdict {
    let mut said = Vec::new();
    for (size, shards) in [("512MiB", 8), ("256MiB", 4)] {
        let mut server = fixture.new_basalt()?;
        server.set("BASALT_DRIVE_SIZE", "255MiB");
        match server.attempt() {
            Ok(_) => return Err("drives of 255 MiB were accepted".into()),
            Err(failed) if failed.text.contains("256 MiB") => said.push(last_line(&failed.text)),
            Err(failed) => return Err(format!("drives of 255 MiB: {failed:?}")),
        }
        if server.drives().is_ok_and(|made| !made.is_empty()) {
            return Err("a start that was refused left drives behind".into());
        }
        server.set("BASALT_DRIVE_SIZE", size);
        server.start()?;
        let listed = server.cli(&["--output", "json", "fs", "list"])?;
        server.stop()?;
        let listed: serde_json::Value = serde_json::from_str(&listed).map_err(|e| e.to_string())?;
        if listed[0]["shards"] != shards {
            return Err(format!("drives of {size}: not {shards} shards: {listed}"));
        }
    }
    Ok(said.swap_remove(0))
}

fn drive(server: &BasaltServer, index: usize) -> Result<PathBuf, String> {
    server.drives()?.get(index).cloned().ok_or_else(|| format!("no drive {index}"))
}

fn resize(path: &Path, len_bytes: u64) -> Result<(), String> {
    File::options().write(true).open(path).and_then(|f| f.set_len(len_bytes)).map_err(|e| e.to_string())
}

/// Copies a drive file, keeping it sparse.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let mut cp = Command::new("cp");
    cp.arg("--sparse=always").arg(from).arg(to);
    let (code, text) = run_to_end(cp, FAIL_LIMIT)?;
    if code == 0 { Ok(()) } else { Err(text) }
}
