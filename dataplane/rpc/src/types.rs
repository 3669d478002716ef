//! Parameters of the `basalt_*` methods, shared by the data plane and its clients.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolCreate {
    pub name: String,
    /// Paths of files or block devices; empty: the drives of the configuration.
    #[serde(default)]
    pub drives: Vec<String>,
    /// `k+m`; the catalogue picks when absent.
    #[serde(default)]
    pub scheme: Option<String>,
    /// Overwrite what the drives hold.
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drives {
    #[serde(default)]
    pub drives: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOut {
    /// Index in the pool, or the drive's name.
    pub drive: String,
    #[serde(default)]
    pub cause: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsCreate {
    pub name: String,
    #[serde(default = "default_shards")]
    pub shards: u16,
}
/// Of a new file system.
pub const DEFAULT_SHARDS: u16 = 16;
fn default_shards() -> u16 {
    DEFAULT_SHARDS
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Squash {
    #[default]
    None,
    Root,
    All,
}

/// An export as it stands in the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Where clients mount it: absolute, at most 8 components.
    pub path: String,
    pub fs: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub squash: Squash,
    #[serde(default = "nobody")]
    pub anon_uid: u32,
    #[serde(default = "nobody")]
    pub anon_gid: u32,
    /// Addresses or networks in CIDR notation; empty: every client that can reach the listen address.
    #[serde(default)]
    pub clients: Vec<String>,
}
fn nobody() -> u32 {
    65534
}

/// Work under way, for progress bars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub what: String,
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// Counters since the data plane started; rates are the caller's to make from two looks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Top {
    pub uptime_ms: u64,
    pub operations: Vec<OpCounters>,
    pub drives: Vec<DriveCounters>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpCounters {
    /// Protocol and operation, such as `v4 WRITE`.
    pub name: String,
    pub count: u64,
    pub errors: u64,
    pub bytes: u64,
    pub total_us: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DriveCounters {
    pub name: String,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
}
