//! NFS over TCP: version 3 with MOUNT, and versions 4.1 and 4.2, on one port, over any [`Vfs`](basalt_shard::vfs::Vfs).
//!
//! * [`server`]: start, stop, settings; what each reactor keeps. `conn`: one connection.
//! * [`export`]: what is exported to whom; `pseudo`: the directories that join the exports.
//! * [`store`]: where client and session records live.
//! * [`handle`]: file handles. [`auth`]: who calls, and squashing.
//! * `v3`: NFSv3 and MOUNT. [`v4`]: NFSv4.1 and 4.2.
//! * [`rpc`], [`xdr`]: the wire. [`stats`]: counters and latencies. [`planted`]: faults for the simulator to find.

pub mod auth;
mod conn;
pub mod export;
pub mod handle;
pub mod planted;
mod pseudo;
pub mod rpc;
pub mod server;
pub mod stats;
pub mod store;
mod v3;
pub mod v4;
pub mod xdr;

pub use auth::Squash;
pub use export::{Cidr, ExportError, ExportSpec, ExportTable};
pub use server::{Config, Server, StartError};
pub use stats::{OpStats, StatsSnapshot};
pub use store::{ClientStore, MemoryStore, StoreError};
