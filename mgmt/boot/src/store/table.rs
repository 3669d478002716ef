//! A small table in one JSON file, replaced whole at every change.

use crate::error::{BootError, Result};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const MAX_BYTES: u64 = 64 << 20;

pub(super) struct Table<T> {
    dir: PathBuf,
    name: &'static str,
    rows: PhantomData<T>,
}

#[derive(Serialize, Deserialize)]
struct Contents<T> {
    format: u32,
    rows: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    pub(super) fn new(dir: &Path, name: &'static str) -> Table<T> {
        Table { dir: dir.to_owned(), name, rows: PhantomData }
    }

    /// All rows; none if there is no file yet. Needs no lock: the file is replaced in one step.
    pub(super) fn read(&self) -> Result<Vec<T>> {
        let path = self.dir.join(self.name);
        let damaged = |why: String| BootError::Damaged { path: path.display().to_string(), why };
        let bytes = match fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(damaged(format!("it has {} bytes", meta.len())));
            }
            _ => fs::read(&path).map_err(BootError::io(format!("reading {}", path.display())))?,
        };
        let contents: Contents<T> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match contents.format {
            FORMAT => Ok(contents.rows),
            other => Err(damaged(format!("format {other} is of a newer version"))),
        }
    }

    /// Changes the rows; durable when it returns. An error from `change` leaves the file as it was.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Vec<T>) -> Result<R>) -> Result<R> {
        let _lock = lock(&self.dir)?;
        let mut contents = Contents { format: FORMAT, rows: self.read()? };
        let answer = change(&mut contents.rows)?;
        let path = self.dir.join(self.name);
        let mut text = serde_json::to_vec_pretty(&contents)
            .map_err(|e| BootError::Damaged { path: path.display().to_string(), why: e.to_string() })?;
        text.push(b'\n');
        replace(&path, &text, 0o600).map_err(BootError::io(format!("writing {}", path.display())))?;
        Ok(answer)
    }
}

/// Held until the file is dropped; the kernel frees it when a process dies.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let what = format!("locking {}", path.display());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(BootError::io(what.clone()))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|e| BootError::io(what)(e.into()))?;
    Ok(file)
}

/// Old contents or new ones, whenever the power goes.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
