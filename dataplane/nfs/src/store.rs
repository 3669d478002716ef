//! Where client and session records live, so that a restarted server knows its clients (architecture, section 8).

use crate::v4::records::{ClientRecord, SessionRecord};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A small ordered map that survives restarts; the daemon puts it into the pool's root log.
#[async_trait(?Send)]
pub trait ClientStore {
    /// All changes or none, durable on return; `None` deletes.
    async fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError>;
    /// Every record whose key starts with `prefix`.
    async fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client records: {0}")]
pub struct StoreError(pub String);

const CLIENT_PREFIX: &[u8] = b"nfs/client/";
const SESSION_PREFIX: &[u8] = b"nfs/session/";
const BOOT_KEY: &[u8] = b"nfs/boot";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
pub(crate) fn client_key(id: u64) -> Vec<u8> {
    [CLIENT_PREFIX, hex(&id.to_be_bytes()).as_bytes()].concat()
}
pub(crate) fn session_key(id: &[u8; 16]) -> Vec<u8> {
    [SESSION_PREFIX, hex(id).as_bytes()].concat()
}

/// What an earlier incarnation left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restored {
    /// This start's number; counts up for ever.
    pub(crate) boot: u32,
    pub(crate) clients: Vec<ClientRecord>,
    pub(crate) sessions: Vec<SessionRecord>,
}

/// Counts this start and reads all records.
pub(crate) async fn restore(store: &dyn ClientStore) -> Result<Restored, StoreError> {
    let mut boot = 0;
    for (key, value) in store.scan(BOOT_KEY).await? {
        if key == BOOT_KEY {
            let bytes: [u8; 4] =
                value[..].try_into().map_err(|_| StoreError("the boot counter is damaged".into()))?;
            boot = u32::from_le_bytes(bytes);
        }
    }
    let boot = boot.wrapping_add(1);
    store.write(vec![(BOOT_KEY.to_vec(), Some(boot.to_le_bytes().to_vec()))]).await?;
    let mut out = Restored { boot, ..Restored::default() };
    for (key, value) in store.scan(CLIENT_PREFIX).await? {
        match ClientRecord::decode(&value) {
            Some(c) => out.clients.push(c),
            None => {
                tracing::error!(key = %String::from_utf8_lossy(&key), "client record is damaged; that client must mount again")
            }
        }
    }
    for (key, value) in store.scan(SESSION_PREFIX).await? {
        match SessionRecord::decode(&value) {
            Some(s) => out.sessions.push(s),
            None => {
                tracing::error!(key = %String::from_utf8_lossy(&key), "session record is damaged; its client makes a new one")
            }
        }
    }
    Ok(out)
}

/// Records in memory: they survive the server but not the process.
#[derive(Clone, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

#[async_trait(?Send)]
impl ClientStore for MemoryStore {
    async fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(v) => records.insert(key, v),
                None => records.remove(&key),
            };
        }
        Ok(())
    }
    async fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let from = records.range(prefix.to_vec()..);
        Ok(from.take_while(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
