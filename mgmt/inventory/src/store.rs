//! Records and trends in files: the newest record of each node, and the one before that differed from it.

use crate::drift::{Change, drift};
use crate::record::{Record, Source};
use crate::wear::{Sample, Trend};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
/// A server with 4,096 PCI devices has a record of 2 MB.
const MAX_BYTES: u64 = 32 << 20;
/// Changes that are kept per node.
const MAX_CHANGES: usize = 500;
/// Drives that ever were in a node.
const MAX_DRIVES: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{path} is damaged ({why}); remove it, then inspect the node again")]
    Damaged { path: String, why: String },
    #[error("{0:?} is no name of a node")]
    Name(String),
}

/// What became of a node's hardware.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    pub changes: Vec<(u64, Change)>,
    /// By the drives' serial numbers.
    pub trends: BTreeMap<String, Trend>,
}

#[derive(Serialize, Deserialize)]
struct Contents<T> {
    format: u32,
    #[serde(flatten)]
    value: T,
}

#[derive(Clone, Debug)]
pub struct RecordStore {
    dir: PathBuf,
}

impl RecordStore {
    pub fn open(dir: &Path) -> Result<RecordStore, StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StoreError::Io { what: format!("making {}", dir.display()), source })?;
        Ok(RecordStore { dir: dir.to_owned() })
    }

    pub fn latest(&self, node: &str) -> Result<Option<Record>, StoreError> {
        self.read(&self.path(node, "record")?)
    }

    /// The newest record with what the node itself told last, where that came without it.
    pub fn with_view(&self, node: &str, record: Record) -> Result<Record, StoreError> {
        if record.sources.contains(&Source::Node) {
            return Ok(record);
        }
        let view: Option<Record> = self.read(&self.path(node, "view")?)?;
        Ok(match view {
            Some(view) => crate::merge::with_earlier(record, view),
            None => record,
        })
    }

    /// Keeps what the node itself told.
    pub fn keep_view(&self, node: &str, view: &Record) -> Result<(), StoreError> {
        self.write(&self.path(node, "view")?, view)
    }

    pub fn history(&self, node: &str) -> Result<History, StoreError> {
        Ok(self.read(&self.path(node, "history")?)?.unwrap_or_default())
    }

    /// Keeps a record; what changed since the last one is returned and remembered.
    pub fn keep(&self, node: &str, record: &Record) -> Result<Vec<Change>, StoreError> {
        let before = self.latest(node)?;
        let changes = before.map_or(Vec::new(), |before| drift(&before, record));
        let mut history = self.history(node)?;
        history.changes.extend(changes.iter().map(|c| (record.taken_s, c.clone())));
        let over = history.changes.len().saturating_sub(MAX_CHANGES);
        history.changes.drain(..over);
        for drive in record.drives.iter().filter(|d| !d.serial.is_empty()) {
            if let Some(smart) = &drive.smart
                && (history.trends.len() < MAX_DRIVES || history.trends.contains_key(&drive.serial))
            {
                let sample = Sample::of(record.taken_s, smart);
                history.trends.entry(drive.serial.clone()).or_default().add(sample);
            }
        }
        // The history first: a crash in between finds the same changes once more, and loses none.
        self.write(&self.path(node, "history")?, &history)?;
        self.write(&self.path(node, "record")?, record)?;
        Ok(changes)
    }

    pub fn forget(&self, node: &str) -> Result<(), StoreError> {
        for kind in ["record", "history", "view"] {
            let path = self.path(node, kind)?;
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::Io { what: format!("removing {}", path.display()), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, node: &str, kind: &str) -> Result<PathBuf, StoreError> {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if node.is_empty() || node.len() > 128 || node.starts_with('.') || !node.chars().all(safe) {
            return Err(StoreError::Name(node.into()));
        }
        Ok(self.dir.join(format!("{node}.{kind}.json")))
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
        let bytes = match fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(damaged(format!("it has {} bytes", meta.len())));
            }
            _ => fs::read(path)
                .map_err(|source| StoreError::Io { what: format!("reading {}", path.display()), source })?,
        };
        let contents: Contents<T> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match contents.format {
            FORMAT => Ok(Some(contents.value)),
            other => Err(damaged(format!("format {other} is of a newer version"))),
        }
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), StoreError> {
        let written = serde_json::to_vec(&Contents { format: FORMAT, value }).map_err(std::io::Error::other);
        let written = written.and_then(|bytes| replace(path, &bytes));
        written.map_err(|source| StoreError::Io { what: format!("writing {}", path.display()), source })
    }
}

/// Old contents or new ones, whenever the power goes.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
