//! Client and session records of the NFS server live in the pool's root log, so that a restarted data plane knows its
//! clients and they notice nothing.

use async_trait::async_trait;
use basalt_nfs::{ClientStore, StoreError};
use basalt_pool::{Pool, PoolError, PoolRef};
use std::cell::RefCell;

/// One reactor's store; its pool handle is attached at the first use.
pub(crate) struct PoolClients {
    pool: PoolRef,
    attached: RefCell<Option<Pool>>,
}

impl PoolClients {
    pub(crate) fn new(pool: PoolRef) -> PoolClients {
        PoolClients { pool, attached: RefCell::default() }
    }

    async fn pool(&self) -> Result<Pool, StoreError> {
        if let Some(pool) = self.attached.borrow().clone() {
            return Ok(pool);
        }
        let pool = self.pool.attach().await.map_err(failed)?;
        self.attached.replace(Some(pool.clone()));
        Ok(pool)
    }
}

fn failed(e: PoolError) -> StoreError {
    StoreError(e.to_string())
}

#[async_trait(?Send)]
impl ClientStore for PoolClients {
    async fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        self.pool().await?.meta_write(changes).await.map_err(failed)
    }
    async fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.pool().await?.meta_scan(prefix).await.map_err(failed)
    }
}
