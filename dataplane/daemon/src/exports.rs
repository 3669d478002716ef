//! The NFS server and its table of exports.
//!
//! An export record of the pool is what the operator said plus the number that its file handles carry, which is never given to
//! another export.

use crate::clients::PoolClients;
use crate::config::Config;
use crate::drives::Opened;
use basalt_nfs::{ClientStore, ExportSpec, ExportTable, Server};
use basalt_pool::Pool;
use basalt_reactor::net::Listener;
use basalt_rpc::RpcError;
use basalt_rpc::types::{DriveCounters, Export, OpCounters, Squash, Top};
use basalt_shard::FileSystem;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const PREFIX: &[u8] = b"export/";
const NEXT_ID: &[u8] = b"nfs/next-export";
const HANDLE_KEY: &[u8] = b"nfs/handle-key";

/// As stored under `export/PATH`.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    id: u32,
    export: Export,
}

pub(crate) struct Exports {
    lease_s: u32,
    table: ExportTable,
    offered: RefCell<BTreeMap<String, Export>>,
    listener: RefCell<Option<Listener>>,
    server: RefCell<Option<Rc<Server>>>,
}

impl Exports {
    pub(crate) fn new(config: &Config, listener: Listener) -> Exports {
        Exports {
            lease_s: config.nfs_lease_s,
            table: ExportTable::new(),
            offered: RefCell::default(),
            listener: RefCell::new(Some(listener)),
            server: RefCell::default(),
        }
    }

    pub(crate) fn list(&self) -> Vec<Export> {
        self.offered.borrow().values().cloned().collect()
    }

    /// Offers what the pool's records say and starts to serve; clients that knock earlier wait in the listener's queue.
    pub(crate) async fn start(
        &self,
        pool: &Pool,
        mounted: &RefCell<BTreeMap<String, FileSystem>>,
    ) -> Result<(), RpcError> {
        let records = pool.meta_scan(PREFIX).await.map_err(crate::node::refused)?;
        for (key, value) in records {
            let Ok(record) = serde_json::from_slice::<Record>(&value) else {
                tracing::error!(
                    "record {} of the pool cannot be read; that export is not offered",
                    String::from_utf8_lossy(&key)
                );
                continue;
            };
            // A node's first start has offered its export when it made it.
            if self.offered.borrow().contains_key(&record.export.path) {
                continue;
            }
            let fs = mounted.borrow().get(&record.export.fs).cloned();
            match fs {
                Some(fs) => self.offer(record, &fs)?,
                None => tracing::error!("export {}: no file system {}", record.export.path, record.export.fs),
            }
        }
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let mut config =
            basalt_nfs::Config::new(listener.local_addr(), handle_key(pool).await?, &pool.uuid().0);
        config.lease_s = self.lease_s;
        let pool = pool.to_ref();
        let clients = move || -> Rc<dyn ClientStore> { Rc::new(PoolClients::new(pool.clone())) };
        let server = Server::start_on(config, listener, self.table.clone(), clients)
            .await
            .map_err(|e| RpcError::refused(format!("the NFS server does not start: {e}")))?;
        self.server.replace(Some(Rc::new(server)));
        Ok(())
    }

    /// Whether this pool has had an export at any time.
    pub(crate) async fn any_ever(pool: &Pool) -> Result<bool, RpcError> {
        Ok(pool.meta_get(NEXT_ID).await.map_err(crate::node::refused)?.is_some())
    }

    pub(crate) async fn create(&self, pool: &Pool, export: Export, fs: &FileSystem) -> Result<(), RpcError> {
        let next = pool.meta_get(NEXT_ID).await.map_err(crate::node::refused)?;
        let id = next.and_then(|v| v.try_into().ok()).map_or(1, u32::from_le_bytes);
        let record = Record { id, export };
        let path = record.export.path.clone();
        let value = serde_json::to_vec(&record).map_err(|e| RpcError::refused(e.to_string()))?;
        // The table refuses bad paths, bad networks and overlaps: only what it takes is recorded.
        self.offer(record, fs)?;
        let changes =
            vec![(key(&path), Some(value)), (NEXT_ID.to_vec(), Some((id + 1).to_le_bytes().to_vec()))];
        if let Err(e) = pool.meta_write(changes).await {
            self.withdraw(&path).await;
            return Err(crate::node::refused(e));
        }
        Ok(())
    }

    fn offer(&self, record: Record, fs: &FileSystem) -> Result<(), RpcError> {
        let Record { id, export } = record;
        let spec = ExportSpec {
            id,
            path: export.path.clone(),
            read_only: export.read_only,
            squash: match export.squash {
                Squash::None => basalt_nfs::Squash::None,
                Squash::Root => basalt_nfs::Squash::Root,
                Squash::All => basalt_nfs::Squash::All,
            },
            anon_uid: export.anon_uid,
            anon_gid: export.anon_gid,
            clients: export.clients.clone(),
        };
        let fs = fs.to_ref();
        self.table.add(spec, move || fs.attach().vfs()).map_err(|e| RpcError::refused(e.to_string()))?;
        self.offered.borrow_mut().insert(export.path.clone(), export);
        Ok(())
    }

    pub(crate) async fn delete(&self, pool: &Pool, path: &str) -> Result<(), RpcError> {
        if !self.offered.borrow().contains_key(path) {
            return Err(RpcError::not_found(format!("no export {path}; `basalt export list` names them")));
        }
        pool.meta_write(vec![(key(path), None)]).await.map_err(crate::node::refused)?;
        self.withdraw(path).await;
        Ok(())
    }

    async fn withdraw(&self, path: &str) {
        self.offered.borrow_mut().remove(path);
        if self.table.remove(path).is_err() {
            return;
        }
        let server = self.server.borrow().clone();
        if let Some(server) = server {
            server.settle().await;
        }
    }

    pub(crate) async fn stop(&self) {
        let server = self.server.take();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    pub(crate) async fn top(&self, started: basalt_reactor::Instant, drives: &[Opened]) -> Top {
        let server = self.server.borrow().clone();
        let operations = match server {
            None => Vec::new(),
            Some(server) => server
                .stats()
                .await
                .ops
                .into_iter()
                .map(|(name, op)| OpCounters {
                    name,
                    count: op.calls,
                    errors: op.errors,
                    bytes: 0,
                    total_us: op.total_us,
                })
                .collect(),
        };
        let drives = drives
            .iter()
            .map(|opened| {
                let counts = opened.counters.get();
                DriveCounters {
                    name: opened.drive.info().name.clone(),
                    reads: counts.reads,
                    read_bytes: counts.read_bytes,
                    writes: counts.writes,
                    written_bytes: counts.written_bytes,
                }
            })
            .collect();
        Top { uptime_ms: started.elapsed().as_millis() as u64, operations, drives }
    }
}

fn key(path: &str) -> Vec<u8> {
    [PREFIX, path.as_bytes()].concat()
}

/// The secret that authenticates file handles: made once for a pool, so that handles outlive restarts and imports.
async fn handle_key(pool: &Pool) -> Result<[u8; 16], RpcError> {
    let stored = pool.meta_get(HANDLE_KEY).await.map_err(crate::node::refused)?;
    if let Some(key) = stored.and_then(|k| k.try_into().ok()) {
        return Ok(key);
    }
    let mut key = [0; 16];
    basalt_reactor::fill_random(&mut key);
    pool.meta_write(vec![(HANDLE_KEY.to_vec(), Some(key.to_vec()))]).await.map_err(crate::node::refused)?;
    Ok(key)
}
