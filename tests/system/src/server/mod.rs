//! What is tested: something that serves NFS and can be killed.

mod basalt;
mod ganesha;

use std::time::Duration;

pub use basalt::{BasaltServer, Binaries, FailedStart, run_to_end};
pub use ganesha::GaneshaServer;

/// A server that the tests start and kill.
pub trait Server {
    /// Starts it and waits until it serves; how long that took.
    fn start(&mut self) -> Result<Duration, String>;
    /// Ends it as a crash would: SIGKILL, no warning.
    fn kill(&mut self);
    /// Its loopback port for NFS.
    fn port(&self) -> u16;
    /// Its loopback port for the v3 MOUNT protocol.
    fn mount_port(&self) -> u16;
    /// Path of the export the tests use.
    fn export(&self) -> String;
    /// Our own server, for what only that can do.
    fn as_basalt(&mut self) -> Option<&mut BasaltServer> {
        None
    }
}

/// A port that nothing listens on now.
pub fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| e.to_string())?;
    listener.local_addr().map(|a| a.port()).map_err(|e| e.to_string())
}
