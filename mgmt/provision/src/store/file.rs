//! A file per node in one directory: `NAME.json`, replaced whole. `NAME.claim` is locked by whoever drives the node.

use super::memory::{may_add, may_put};
use super::{Claim, NodeStore};
use crate::error::{ProvisionError, Result};
use crate::node::{Node, NodeName};
use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
/// A node with a full history has about 100 kB.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    node: Node,
}

struct Lock(#[allow(dead_code, reason = "the lock lives as long as the open file")] File);
impl Claim for Lock {}

impl FileStore {
    /// Makes the directory if it is not there, readable by its owner alone.
    pub fn open(dir: &Path) -> Result<FileStore> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ProvisionError::io(format!("making {}", dir.display())))?;
        Ok(FileStore { dir: dir.to_owned() })
    }

    fn path(&self, name: &NodeName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    fn read(&self, name: &NodeName) -> Result<Option<Node>> {
        let path = self.path(name);
        let damaged = |why: String| ProvisionError::Damaged { path: path.display().to_string(), why };
        let bytes = match fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(damaged(format!("it has {} bytes", meta.len())));
            }
            _ => fs::read(&path).map_err(ProvisionError::io(format!("reading {}", path.display())))?,
        };
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if contents.format != FORMAT {
            return Err(damaged(format!("format {} is of a newer version", contents.format)));
        }
        if contents.node.name != *name {
            return Err(damaged(format!("it holds node {}", contents.node.name)));
        }
        Ok(Some(contents.node))
    }

    fn names(&self) -> Result<Vec<NodeName>> {
        let what = || ProvisionError::io(format!("reading {}", self.dir.display()));
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(what())? {
            let name = entry.map_err(what())?.file_name();
            let name =
                name.to_str().and_then(|n| n.strip_suffix(".json")).and_then(|n| NodeName::new(n).ok());
            names.extend(name);
        }
        names.sort();
        Ok(names)
    }

    fn write(&self, node: &Node) -> Result<()> {
        let path = self.path(&node.name);
        let mut text = serde_json::to_vec_pretty(&Contents { format: FORMAT, node: node.clone() })
            .map_err(|e| ProvisionError::Damaged { path: path.display().to_string(), why: e.to_string() })?;
        text.push(b'\n');
        replace(&path, &text).map_err(ProvisionError::io(format!("writing {}", path.display())))
    }

    /// One change of the list at a time, over all processes.
    fn locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _lock = self.lock("lock", FlockOperation::LockExclusive)?;
        work()
    }

    fn lock(&self, name: &str, how: FlockOperation) -> Result<File> {
        let path = self.dir.join(name);
        let what = format!("locking {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(ProvisionError::io(what.clone()))?;
        flock(&file, how).map_err(|e| ProvisionError::io(what)(e.into()))?;
        Ok(file)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FileStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|e| ProvisionError::Invalid(format!("a file operation ended early: {e}")))?
    }
}

#[async_trait]
impl NodeStore for FileStore {
    async fn all(&self) -> Result<Vec<Node>> {
        self.blocking(|store| {
            // A node may be forgotten between the two.
            let read = store.names()?.into_iter().filter_map(|name| store.read(&name).transpose());
            read.collect()
        })
        .await
    }

    async fn get(&self, name: &NodeName) -> Result<Option<Node>> {
        let name = name.clone();
        self.blocking(move |store| store.read(&name)).await
    }

    async fn add(&self, node: &mut Node) -> Result<()> {
        let mut added = node.clone();
        *node = self
            .blocking(move |store| {
                store.locked(|| {
                    may_add(store.read(&added.name)?.as_ref(), store.names()?.len(), &mut added)?;
                    store.write(&added)?;
                    Ok(added)
                })
            })
            .await?;
        Ok(())
    }

    async fn put(&self, node: &mut Node) -> Result<()> {
        let mut changed = node.clone();
        *node = self
            .blocking(move |store| {
                store.locked(|| {
                    may_put(store.read(&changed.name)?.as_ref(), &mut changed)?;
                    store.write(&changed)?;
                    Ok(changed)
                })
            })
            .await?;
        Ok(())
    }

    async fn forget(&self, name: &NodeName) -> Result<bool> {
        let name = name.clone();
        self.blocking(move |store| {
            store.locked(|| {
                let path = store.path(&name);
                let what = || ProvisionError::io(format!("removing {}", path.display()));
                match fs::remove_file(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
                    other => other.map_err(what())?,
                }
                File::open(&store.dir).and_then(|dir| dir.sync_all()).map_err(what())?;
                Ok(true)
            })
        })
        .await
    }

    async fn claim(&self, name: &NodeName) -> Result<Box<dyn Claim>> {
        let name = name.clone();
        self.blocking(move |store| {
            match store.lock(&format!("{name}.claim"), FlockOperation::NonBlockingLockExclusive) {
                Ok(file) => Ok(Box::new(Lock(file)) as Box<dyn Claim>),
                Err(ProvisionError::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                    Err(ProvisionError::Claimed(name))
                }
                Err(e) => Err(e),
            }
        })
        .await
    }
}

/// Old contents or new ones, whenever the power goes.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_added_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
