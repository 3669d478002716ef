//! Events in files that grow at the end: `CRC-32C JSON`, a line each.

use super::table::lock;
use crate::error::{BootError, Result};
use crate::event::Event;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// About 5,000 events; 20,000 in all.
const MAX_FILE_BYTES: u64 = 1 << 20;
const OLD_FILES: usize = 3;

pub(super) struct EventLog {
    dir: PathBuf,
}

impl EventLog {
    pub(super) fn new(dir: &Path) -> EventLog {
        EventLog { dir: dir.to_owned() }
    }

    fn path(&self, age: usize) -> PathBuf {
        match age {
            0 => self.dir.join("events.log"),
            _ => self.dir.join(format!("events.log.{age}")),
        }
    }

    pub(super) fn append(&self, event: &Event) -> Result<()> {
        let path = self.path(0);
        let what = || BootError::io(format!("writing {}", path.display()));
        let _lock = lock(&self.dir)?;
        let json = serde_json::to_string(event)
            .map_err(|e| BootError::Damaged { path: path.display().to_string(), why: e.to_string() })?;
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path).map_err(what())?;
        let len = file.metadata().map_err(what())?.len();
        // A line that a crash cut short must not swallow this one.
        let mut line = String::new();
        if len > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(len - 1)).and_then(|_| file.read_exact(&mut last)).map_err(what())?;
            line.extend((last[0] != b'\n').then_some('\n'));
        }
        line.push_str(&format!("{:08x} {json}\n", crc(json.as_bytes())));
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data()).map_err(what())?;
        if len + line.len() as u64 > MAX_FILE_BYTES {
            for age in (0..OLD_FILES).rev() {
                match fs::rename(self.path(age), self.path(age + 1)) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(what()(e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Every event that is left, oldest first. Lines that fail their checksum are skipped.
    pub(super) fn read(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for age in (0..=OLD_FILES).rev() {
            let path = self.path(age);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(BootError::io(format!("reading {}", path.display()))(e)),
            };
            events.extend(bytes.split(|b| *b == b'\n').filter_map(parse));
        }
        Ok(events)
    }
}

fn parse(line: &[u8]) -> Option<Event> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc(json)).then(|| serde_json::from_slice(json).ok()).flatten()
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
