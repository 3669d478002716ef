//! The pseudo file system: read-only directories that lead from the root to every export.
//!
//! Ids come from the path alone, so handles survive restarts and changes of the table.

use crate::export::{Export, components};
use basalt_shard::vfs::{Attr, FileType, Ino, WallTime};
use siphasher::sip::SipHasher24;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const ROOT_ID: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Directory(u64),
    Export(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct PseudoDir {
    pub(crate) parent: u64,
    pub(crate) children: BTreeMap<String, Child>,
}

/// All pseudo directories by id.
pub(crate) struct PseudoTree {
    dirs: BTreeMap<u64, PseudoDir>,
    /// Export id -> the directory it hangs in, and the id that stands for its mount point.
    places: BTreeMap<u32, (u64, u64)>,
    /// Set when `/` itself is exported.
    root_export: Option<u32>,
}

/// Position-independent id of a path below the root.
fn path_id(path: &str) -> u64 {
    let id = SipHasher24::new_with_keys(0x6261_7361_6c74, 0x7073_6575_646f).hash(path.as_bytes()) >> 1;
    id.max(ROOT_ID + 1)
}

impl PseudoTree {
    pub(crate) fn build(exports: &[Arc<Export>]) -> PseudoTree {
        let root = PseudoDir { parent: ROOT_ID, children: BTreeMap::new() };
        let mut tree = PseudoTree {
            dirs: BTreeMap::from([(ROOT_ID, root)]),
            places: BTreeMap::new(),
            root_export: None,
        };
        for export in exports {
            let Ok(parts) = components(&export.spec.path) else { continue };
            let Some((last, dirs)) = parts.split_last() else {
                tree.root_export = Some(export.spec.id);
                tree.places.insert(export.spec.id, (ROOT_ID, ROOT_ID));
                continue;
            };
            let mut at = ROOT_ID;
            let mut path = String::new();
            for part in dirs {
                path.push('/');
                path.push_str(part);
                let id = path_id(&path);
                tree.dirs.entry(id).or_insert_with(|| PseudoDir { parent: at, children: BTreeMap::new() });
                tree.child(at, part, Child::Directory(id));
                at = id;
            }
            tree.child(at, last, Child::Export(export.spec.id));
            tree.places.insert(export.spec.id, (at, path_id(&export.spec.path)));
        }
        tree
    }

    fn child(&mut self, dir: u64, name: &str, child: Child) {
        if let Some(d) = self.dirs.get_mut(&dir) {
            d.children.insert(name.to_owned(), child);
        }
    }

    pub(crate) fn dir(&self, id: u64) -> Option<&PseudoDir> {
        self.dirs.get(&id)
    }
    pub(crate) fn root_export(&self) -> Option<u32> {
        self.root_export
    }
    /// The pseudo directory above an export's root.
    pub(crate) fn above(&self, export: u32) -> Option<u64> {
        self.places.get(&export).map(|p| p.0)
    }
    /// What GETATTR calls mounted_on_fileid at an export's root (RFC 8881, section 5.8.2.23).
    pub(crate) fn mount_point_id(&self, export: u32) -> Option<u64> {
        self.places.get(&export).map(|p| p.1)
    }
    /// READDIR's cookie of a child: above the reserved ones, from its name alone.
    pub(crate) fn cookie(name: &str) -> u64 {
        path_id(name).max(3)
    }
    /// `generation` moves with the table, so it can be the change attribute.
    pub(crate) fn attr(&self, id: u64, change: u64, time: WallTime) -> Option<Attr> {
        let dir = self.dirs.get(&id)?;
        let subdirectories = dir.children.len() as u32;
        Some(Attr {
            ino: Ino(id),
            generation: 1,
            kind: FileType::Directory,
            mode: 0o555,
            nlink: 2 + subdirectories,
            uid: 0,
            gid: 0,
            size: 4096,
            used: 4096,
            rdev: (0, 0),
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            change,
        })
    }
}
