//! Whether a node's data plane answers.

use async_trait::async_trait;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;

#[async_trait]
pub trait Reach: Send + Sync {
    async fn serves(&self, address: IpAddr) -> bool;
}

/// A TCP connection to one of its ports comes about.
#[derive(Clone, Debug)]
pub struct TcpReach {
    pub ports: Vec<u16>,
    pub patience: Duration,
}

impl Default for TcpReach {
    fn default() -> Self {
        // NFS and NVMe/TCP of the data plane (docs/operations.md).
        TcpReach { ports: vec![20490, 4420], patience: Duration::from_secs(2) }
    }
}

#[async_trait]
impl Reach for TcpReach {
    async fn serves(&self, address: IpAddr) -> bool {
        for port in &self.ports {
            let connected = tokio::time::timeout(self.patience, TcpStream::connect((address, *port))).await;
            if matches!(connected, Ok(Ok(_))) {
                return true;
            }
        }
        false
    }
}

/// For sites where nodes are not reachable from here: only what they report counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReach;

#[async_trait]
impl Reach for NoReach {
    async fn serves(&self, _address: IpAddr) -> bool {
        false
    }
}
