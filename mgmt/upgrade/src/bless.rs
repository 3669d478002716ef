//! The health gate, blessing and going back. Only names on the ESP change, one sector each.

use crate::error::{Result, UpgradeError};
use crate::fat::Fat;
use crate::manifest::Version;
use crate::node::{Disk, ESP, ROOTS};
use crate::slots::{DIRECTORY, Name, State, drop_first, survey};
use crate::verity::RootId;
use serde::Serialize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One thing that must be right before a slot is blessed.
pub trait Check {
    fn name(&self) -> String;
    /// Ok, or why not (yet).
    fn probe(&mut self) -> std::result::Result<(), String>;
}

/// How long the gate waits for all checks to pass, and how long they must go on passing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub timeout: Duration,
    pub settle: Duration,
    pub every: Duration,
}

/// Ok once all checks passed for `settle` without a break; the last failure once `timeout` is over.
pub fn gate(
    checks: &mut [Box<dyn Check + '_>],
    patience: Patience,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let began = Instant::now();
    let mut good_since: Option<Instant> = None;
    let mut last = String::from("nothing was checked in time");
    loop {
        let failure =
            checks.iter_mut().find_map(|c| c.probe().err().map(|why| format!("{}: {why}", c.name())));
        match failure {
            None if good_since.get_or_insert_with(Instant::now).elapsed() >= patience.settle => return Ok(()),
            None => progress("all checks pass"),
            Some(why) => {
                good_since = None;
                progress(&why);
                last = why;
            }
        }
        if began.elapsed() >= patience.timeout {
            return Err(UpgradeError::Unhealthy(format!(
                "{last}; the slot is not blessed. A reboot tries it again while it has tries left, and then goes back by itself"
            )));
        }
        std::thread::sleep(patience.every);
    }
}

/// A program of `/usr/lib/basalt/health.d`: 0 is healthy. Killed when it takes longer than its limit.
pub struct ProgramCheck {
    path: std::path::PathBuf,
    limit: Duration,
}

impl ProgramCheck {
    /// All programs in a directory, by name; none if there is no such directory.
    pub fn all_in<'a>(directory: &Path, limit: Duration) -> Vec<Box<dyn Check + 'a>> {
        let mut paths: Vec<_> =
            std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        paths.into_iter().map(|path| Box::new(ProgramCheck { path, limit }) as Box<dyn Check + 'a>).collect()
    }
}

impl Check for ProgramCheck {
    fn name(&self) -> String {
        self.path.display().to_string()
    }
    fn probe(&mut self) -> std::result::Result<(), String> {
        let mut child = Command::new(&self.path).stdin(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let began = Instant::now();
        loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(status.to_string()),
                None if began.elapsed() >= self.limit => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("took longer than {} s", self.limit.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Takes the counter off the version that runs. True if it had one.
pub fn bless(disk: &Disk, running: &RootId) -> Result<bool> {
    let esp = disk.write(ESP)?;
    let mut fat = Fat::open(&*esp)?;
    fat.sweep(&drop_first)?;
    let slots = survey(&fat, disk, Some(running))?;
    let slot = slots.iter().find(|s| s.running).ok_or_else(|| {
        UpgradeError::Layout("the ESP has no kernel image for the version that runs; `basalt upgrade status` shows what is there".into())
    })?;
    if slot.name.counter.is_none() {
        return Ok(false);
    }
    let directory = fat.directory(DIRECTORY)?;
    fat.rename(directory, &slot.entry, &Name { counter: None, ..slot.name }.to_string())?;
    Ok(true)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RolledBack {
    /// A new version was waiting for its first boot; it is gone, and the one that runs stays.
    Cancelled { version: Version },
    /// The next boot takes the other slot.
    To { version: Version },
}

/// Goes back: cancels an upgrade that was not booted yet, else marks the version that runs bad, after looking whether the other slot
/// is whole.
pub fn roll_back(disk: &Disk, running: &RootId) -> Result<RolledBack> {
    let esp = disk.write(ESP)?;
    let mut fat = Fat::open(&*esp)?;
    fat.sweep(&drop_first)?;
    let slots = survey(&fat, disk, Some(running))?;
    let current = slots.iter().find(|s| s.running);
    let current = current.ok_or_else(|| {
        UpgradeError::Layout("the ESP has no kernel image for the version that runs".into())
    })?;
    let directory = fat.directory(DIRECTORY)?;
    if let Some(waiting) = slots.iter().find(|s| !s.running && s.name.state() == State::New) {
        fat.remove(&waiting.entry)?;
        return Ok(RolledBack::Cancelled { version: waiting.name.version });
    }
    let nothing = |why: &str| {
        UpgradeError::NoWayBack(format!(
            "there is nothing to go back to: {why}; install a version with `basalt upgrade install FILE`"
        ))
    };
    let other = slots.iter().find(|s| !s.running).ok_or_else(|| nothing("the other slot is empty"))?;
    let (Some(partition), Some(root)) = (other.partition, other.root()) else {
        return Err(nothing(&format!(
            "the root of version {} is not on the disk any more",
            other.name.version
        )));
    };
    if other.name.state() == State::Bad {
        return Err(nothing(&format!("version {} was found bad", other.name.version)));
    }
    if root.check(&*disk.read(ROOTS[partition])?).is_err() {
        return Err(nothing(&format!("the root of version {} is damaged", other.name.version)));
    }
    let bad = Name { counter: Some((0, current.name.counter.map_or(1, |c| c.1.max(1)))), ..current.name };
    fat.rename(directory, &current.entry, &bad.to_string())?;
    Ok(RolledBack::To { version: other.name.version })
}
