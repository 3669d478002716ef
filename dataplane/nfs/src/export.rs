//! What is exported to whom, and the tree of pseudo directories that joins the exports (RFC 8881, section 7.3).
//!
//! [`ExportTable`] is shared by all threads: the control plane changes it, each reactor keeps an attached view of it
//! and notices by a counter that there is a newer one.

use crate::auth::{Auth, Squash};
use crate::pseudo::PseudoTree;
use basalt_shard::vfs::{Context, Credentials, Ino, ReplayId, Vfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// More exports than this are refused: every reactor holds an attached file system for each.
pub const EXPORTS_MAX: usize = 1024;
const PATH_MAX: usize = 1024;
const COMPONENT_MAX: usize = 255;

/// An address or a network: `10.1.0.0/16`, `fd00::/8`, `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub network: IpAddr,
    pub prefix_bits: u8,
}

impl std::str::FromStr for Cidr {
    type Err = ExportError;
    fn from_str(s: &str) -> Result<Cidr, ExportError> {
        let bad = || ExportError::Client(s.to_owned());
        if s == "*" {
            return Ok(Cidr { network: IpAddr::from([0u8; 16]), prefix_bits: 0 });
        }
        let (address, bits) = match s.split_once('/') {
            Some((a, b)) => (a, Some(b.parse::<u8>().map_err(|_| bad())?)),
            None => (s, None),
        };
        let network: IpAddr = address.parse().map_err(|_| bad())?;
        let widest = if network.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.unwrap_or(widest);
        if prefix_bits > widest { Err(bad()) } else { Ok(Cidr { network, prefix_bits }) }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        fn high_bits(v: u128, width: u32, bits: u8) -> u128 {
            v.checked_shr(width - bits as u32).unwrap_or(0)
        }
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                high_bits(u32::from(n) as u128, 32, self.prefix_bits)
                    == high_bits(u32::from(a) as u128, 32, self.prefix_bits)
            }
            (IpAddr::V6(n), IpAddr::V6(a)) => {
                high_bits(n.into(), 128, self.prefix_bits) == high_bits(a.into(), 128, self.prefix_bits)
            }
            // `*` and `::/0` mean everybody.
            (IpAddr::V6(_), IpAddr::V4(_)) => self.prefix_bits == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// The settings of an export, as they are stored and listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSpec {
    /// Part of every file handle: never changed, never given to another export.
    pub id: u32,
    /// Absolute, without empty, `.` or `..` components.
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub squash: Squash,
    #[serde(default = "nobody")]
    pub anon_uid: u32,
    #[serde(default = "nobody")]
    pub anon_gid: u32,
    /// Addresses and networks that may use it; empty: everybody.
    #[serde(default)]
    pub clients: Vec<String>,
}

fn nobody() -> u32 {
    65534
}

impl ExportSpec {
    pub fn new(id: u32, path: &str) -> ExportSpec {
        ExportSpec {
            id,
            path: path.to_owned(),
            read_only: false,
            squash: Squash::Root,
            anon_uid: nobody(),
            anon_gid: nobody(),
            clients: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error(
        "'{0}' is no export path: give an absolute path without empty, '.' or '..' components, at most {PATH_MAX} bytes"
    )]
    Path(String),
    #[error("'{0}' is neither an address nor a network: write 192.0.2.7, 10.1.0.0/16 or fd00::/8")]
    Client(String),
    #[error("'{0}' is exported already: remove that export first or choose another path")]
    Exists(String),
    #[error("export id {0} is in use: choose another")]
    IdInUse(u32),
    #[error("'{new}' and the export '{old}' would lie inside each other: choose a path beside it")]
    Nested { new: String, old: String },
    #[error("there are {EXPORTS_MAX} exports already: remove one first")]
    TooMany,
    #[error("'{0}' is not exported: list the exports for what is")]
    NotFound(String),
}

/// Attaches the exported file system to the current reactor.
type Attach = Box<dyn Fn() -> Rc<dyn Vfs> + Send>;

pub(crate) struct Export {
    pub(crate) spec: ExportSpec,
    clients: Vec<Cidr>,
    attach: Mutex<Attach>,
}

impl Export {
    pub(crate) fn admits(&self, peer: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|c| c.contains(peer))
    }
}

/// The components of an export path.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, ExportError> {
    let bad = || ExportError::Path(path.to_owned());
    let rest = path.strip_prefix('/').ok_or_else(bad)?;
    if path.len() > PATH_MAX {
        return Err(bad());
    }
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let good =
        |c: &&str| !c.is_empty() && *c != "." && *c != ".." && c.len() <= COMPONENT_MAX && !c.contains('\0');
    if parts.iter().all(good) { Ok(parts) } else { Err(bad()) }
}

struct Snapshot {
    exports: BTreeMap<u32, Arc<Export>>,
    tree: Arc<PseudoTree>,
}

struct Table {
    generation: AtomicU64,
    current: Mutex<Snapshot>,
}

/// The exports of a server; clones share one table.
#[derive(Clone)]
pub struct ExportTable {
    table: Arc<Table>,
}

impl Default for ExportTable {
    fn default() -> Self {
        let current = Snapshot { exports: BTreeMap::new(), tree: Arc::new(PseudoTree::build(&[])) };
        ExportTable { table: Arc::new(Table { generation: AtomicU64::new(1), current: Mutex::new(current) }) }
    }
}

impl ExportTable {
    pub fn new() -> ExportTable {
        ExportTable::default()
    }

    /// Adds an export. `attach` is called once on each reactor that serves it.
    pub fn add(
        &self,
        spec: ExportSpec,
        attach: impl Fn() -> Rc<dyn Vfs> + Send + 'static,
    ) -> Result<(), ExportError> {
        let new_parts = components(&spec.path)?;
        let clients = spec.clients.iter().map(|c| c.parse()).collect::<Result<Vec<Cidr>, _>>()?;
        let mut current = self.lock();
        if current.exports.len() >= EXPORTS_MAX {
            return Err(ExportError::TooMany);
        }
        if current.exports.contains_key(&spec.id) {
            return Err(ExportError::IdInUse(spec.id));
        }
        for e in current.exports.values() {
            let old_parts = components(&e.spec.path)?;
            if old_parts == new_parts {
                return Err(ExportError::Exists(spec.path));
            }
            if old_parts.starts_with(&new_parts) || new_parts.starts_with(&old_parts) {
                return Err(ExportError::Nested { new: spec.path.clone(), old: e.spec.path.clone() });
            }
        }
        let export = Export { spec, clients, attach: Mutex::new(Box::new(attach)) };
        current.exports.insert(export.spec.id, Arc::new(export));
        self.publish(&mut current);
        Ok(())
    }

    /// Removes the export of this path. Its handles become stale; call `Server::settle` to know that no reactor still
    /// holds its file system.
    pub fn remove(&self, path: &str) -> Result<ExportSpec, ExportError> {
        let mut current = self.lock();
        let id = current.exports.values().find(|e| e.spec.path == path).map(|e| e.spec.id);
        let Some(old) = id.and_then(|id| current.exports.remove(&id)) else {
            return Err(ExportError::NotFound(path.to_owned()));
        };
        self.publish(&mut current);
        Ok(old.spec.clone())
    }

    pub fn list(&self) -> Vec<ExportSpec> {
        self.lock().exports.values().map(|e| e.spec.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Snapshot> {
        self.table.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, current: &mut Snapshot) {
        let all: Vec<Arc<Export>> = current.exports.values().cloned().collect();
        current.tree = Arc::new(PseudoTree::build(&all));
        self.table.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.table.generation.load(Ordering::Acquire)
    }

    /// This reactor's view, made from its previous one.
    pub(crate) fn attach(&self, old: &LocalExports) -> LocalExports {
        let current = self.lock();
        let by_id = current
            .exports
            .iter()
            .map(|(id, export)| {
                let kept = old.by_id.get(id).filter(|l| Arc::ptr_eq(&l.export, export)).cloned();
                (*id, kept.unwrap_or_else(|| Rc::new(LocalExport::attach(export.clone()))))
            })
            .collect();
        LocalExports { generation: self.generation(), by_id, tree: current.tree.clone() }
    }
}

/// One reactor's view of the table.
pub(crate) struct LocalExports {
    pub(crate) generation: u64,
    pub(crate) by_id: BTreeMap<u32, Rc<LocalExport>>,
    pub(crate) tree: Arc<PseudoTree>,
}

impl LocalExports {
    pub(crate) fn empty() -> LocalExports {
        LocalExports { generation: 0, by_id: BTreeMap::new(), tree: Arc::new(PseudoTree::build(&[])) }
    }
}

/// An export with its file system attached to this reactor.
pub(crate) struct LocalExport {
    pub(crate) export: Arc<Export>,
    pub(crate) vfs: Rc<dyn Vfs>,
    pub(crate) fsid: [u8; 16],
    pub(crate) root: Ino,
}

impl LocalExport {
    fn attach(export: Arc<Export>) -> LocalExport {
        let vfs = export.attach.lock().unwrap_or_else(PoisonError::into_inner)();
        LocalExport { fsid: vfs.fsid(), root: vfs.root(), vfs, export }
    }
    pub(crate) fn id(&self) -> u32 {
        self.export.spec.id
    }
    pub(crate) fn read_only(&self) -> bool {
        self.export.spec.read_only
    }
    /// Two exports of one file system are two file systems to the client, as their handles differ.
    pub(crate) fn fsid4(&self) -> (u64, u64) {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| self.fsid[at + i]));
        // Major 0 is the pseudo file system's.
        (half(0).max(1), half(8) ^ self.id() as u64)
    }
    pub(crate) fn fsid3(&self) -> u64 {
        let (major, minor) = self.fsid4();
        major ^ minor.rotate_left(32)
    }
    pub(crate) fn credentials(&self, auth: &Auth) -> Credentials {
        let spec = &self.export.spec;
        auth.credentials(spec.squash, spec.anon_uid, spec.anon_gid)
    }
    pub(crate) fn context(&self, auth: &Auth, replay: Option<ReplayId>) -> Context {
        Context { cred: self.credentials(auth), replay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Rc<dyn Vfs> {
        unreachable!("not attached in these tests")
    }

    #[test]
    fn networks() {
        let c: Cidr = "10.1.0.0/16".parse().unwrap();
        assert!(c.contains("10.1.255.3".parse().unwrap()));
        assert!(c.contains("::ffff:10.1.255.3".parse().unwrap()));
        assert!(!c.contains("10.2.0.1".parse().unwrap()));
        assert!("*".parse::<Cidr>().unwrap().contains("10.2.0.1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("10.2.0.1".parse().unwrap()));
        assert!("fd00::/8".parse::<Cidr>().unwrap().contains("fd12::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "host", "fd00::/129", "10.0.0.0/"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_and_nesting() {
        let t = ExportTable::new();
        t.add(ExportSpec::new(1, "/data"), never).unwrap();
        t.add(ExportSpec::new(2, "/a/b"), never).unwrap();
        assert!(matches!(t.add(ExportSpec::new(3, "/data/x"), never), Err(ExportError::Nested { .. })));
        assert!(matches!(t.add(ExportSpec::new(3, "/a"), never), Err(ExportError::Nested { .. })));
        assert!(matches!(t.add(ExportSpec::new(3, "/"), never), Err(ExportError::Nested { .. })));
        assert!(matches!(t.add(ExportSpec::new(3, "/data"), never), Err(ExportError::Exists(_))));
        assert!(matches!(t.add(ExportSpec::new(2, "/c"), never), Err(ExportError::IdInUse(2))));
        for bad in ["data", "", "/a//b", "/a/", "/./a", "/a/.."] {
            assert!(matches!(t.add(ExportSpec::new(9, bad), never), Err(ExportError::Path(_))), "{bad}");
        }
        t.add(ExportSpec::new(4, "/database"), never).unwrap();
        assert_eq!(t.remove("/data").unwrap().id, 1);
        assert!(t.remove("/data").is_err());
        assert_eq!(t.list().len(), 2);
    }
}
