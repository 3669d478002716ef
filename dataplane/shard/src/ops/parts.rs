//! What one shard does for an operation on names: the same parts whether the operation stays within one shard, and are
//! then simply carried out, or spans several, and are then prepared first.
//!
//! Parts carry what the coordinator found when it looked (`expect`). When that no longer holds the answer is
//! `Delay`, and the coordinator looks again.

use super::view::{Seen, View};
use super::{Shard, entry, perm};
use crate::index::TxnResult;
use crate::inode::Inode;
use crate::keys::{self, tag};
use crate::planted::{self, Planted};
use crate::vfs::*;
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// `expect`: the inode whose name this replaces.
    Insert {
        dir: Ino,
        name: Bytes,
        entry: entry::Entry,
        expect: Option<Ino>,
        /// Change of the number of subdirectories, and so of links.
        subdirs: i32,
    },
    Remove {
        dir: Ino,
        name: Bytes,
        expect: Ino,
        subdirs: i32,
    },
    /// One more name for a file.
    Link {
        ino: Ino,
    },
    /// One name less for something that is not a directory.
    Unlink {
        ino: Ino,
        sticky: Option<u32>,
    },
    /// A directory that must be empty goes.
    RemoveDir {
        ino: Ino,
        sticky: Option<u32>,
    },
    /// A name of this inode moved; a directory may have got another parent.
    Moved {
        ino: Ino,
        parent: Option<Ino>,
        sticky: Option<u32>,
    },
}

impl Part {
    /// The directory whose entries this changes.
    pub(crate) fn dir(&self) -> Option<Ino> {
        match self {
            Part::Insert { dir, .. } | Part::Remove { dir, .. } => Some(*dir),
            _ => None,
        }
    }
    pub(crate) fn slot(&self) -> u16 {
        match self {
            Part::Insert { dir, .. } | Part::Remove { dir, .. } => dir.slot(),
            Part::Link { ino }
            | Part::Unlink { ino, .. }
            | Part::RemoveDir { ino, .. }
            | Part::Moved { ino, .. } => ino.slot(),
        }
    }
}

/// Parts by the shard they belong to, in their order.
pub(crate) fn by_slot(parts: Vec<Part>) -> BTreeMap<u16, Vec<Part>> {
    let mut slots: BTreeMap<u16, Vec<Part>> = BTreeMap::new();
    for part in parts {
        slots.entry(part.slot()).or_default().push(part);
    }
    slots
}

impl Shard {
    /// Checks and does all of `parts`, which must be this shard's.
    pub(crate) fn perform(&self, v: &mut View<'_, '_>, cred: &Credentials, parts: &[Part]) -> TxnResult<()> {
        for part in parts {
            match part {
                Part::Insert { dir, name, entry, expect, subdirs } => {
                    let mut inode = open_dir(v, *dir, cred)?;
                    let hash = entry::name_hash(inode.hash_seed, name);
                    let found = entry::find(v, *dir, inode.hash_seed, name)?;
                    if found.map(|e| e.ino) != *expect {
                        return Err(FsError::Delay.into());
                    }
                    if found.is_none() {
                        let bucket = keys::ino_u64_key(tag::DIRENT, *dir, hash);
                        let taken = v.scan(&bucket, &keys::prefix_end(&bucket), 2)?;
                        if taken.iter().any(|(k, _)| v.still_there(k)) {
                            return Err(FsError::NoSpace.into());
                        }
                        inode.entries += 1;
                    }
                    v.put(keys::dirent(*dir, hash, name), entry.encode());
                    changed(v, &mut inode, *subdirs);
                }
                Part::Remove { dir, name, expect, subdirs } => {
                    let mut inode = open_dir(v, *dir, cred)?;
                    if entry::find(v, *dir, inode.hash_seed, name)?.map(|e| e.ino) != Some(*expect) {
                        return Err(FsError::Delay.into());
                    }
                    v.delete(keys::dirent(*dir, entry::name_hash(inode.hash_seed, name), name));
                    inode.entries = inode.entries.saturating_sub(1);
                    changed(v, &mut inode, *subdirs);
                }
                Part::Link { ino } => {
                    let mut inode = v.live(*ino)?;
                    if inode.kind == FileType::Directory {
                        return Err(FsError::NotPermitted.into());
                    }
                    if inode.nlink == 0 {
                        return Err(FsError::NotFound.into());
                    }
                    if inode.nlink >= LINK_MAX {
                        return Err(FsError::TooManyLinks.into());
                    }
                    if !planted::is(Planted::LinkCountSkipped) {
                        inode.nlink += 1;
                    }
                    v.touch(&mut inode);
                    v.put_inode(&inode);
                }
                Part::Unlink { ino, sticky } => {
                    let mut inode = v.inode(*ino)?.ok_or(FsError::Delay)?;
                    if inode.kind == FileType::Directory || inode.nlink == 0 {
                        return Err(FsError::Delay.into());
                    }
                    perm::sticky_allows(*sticky, &inode, cred)?;
                    inode.nlink -= 1;
                    v.touch(&mut inode);
                    if inode.nlink > 0 {
                        v.put_inode(&inode);
                    } else {
                        self.orphan(v, &inode);
                    }
                }
                Part::RemoveDir { ino, sticky } => {
                    let inode = v.inode(*ino)?.ok_or(FsError::Delay)?;
                    if inode.kind != FileType::Directory {
                        return Err(FsError::Delay.into());
                    }
                    perm::sticky_allows(*sticky, &inode, cred)?;
                    if inode.entries > 0 {
                        return Err(FsError::NotEmpty.into());
                    }
                    v.delete(keys::inode(*ino));
                    self.drop_intent(v, *ino);
                }
                Part::Moved { ino, parent, sticky } => {
                    let mut inode = v.inode(*ino)?.ok_or(FsError::Delay)?;
                    perm::sticky_allows(*sticky, &inode, cred)?;
                    if let Some(parent) = parent {
                        // `..` of the directory changes, which is a write to it.
                        perm::require(&inode, cred, perm::WRITE)?;
                        inode.parent = *parent;
                    }
                    v.touch(&mut inode);
                    v.put_inode(&inode);
                    self.drop_intent(v, *ino);
                }
            }
        }
        Ok(())
    }

    /// Parts that are all of this shard, at once.
    pub(crate) fn perform_here(
        &self,
        v: &mut View<'_, '_>,
        cred: &Credentials,
        parts: &[Part],
    ) -> TxnResult<Seen> {
        self.perform(v, cred, parts)?;
        Ok(v.seen().clone())
    }
}

/// A directory in which names may be changed.
pub(crate) fn open_dir(v: &mut View<'_, '_>, dir: Ino, cred: &Credentials) -> TxnResult<Inode> {
    let inode = v.dir(dir)?;
    perm::require(&inode, cred, perm::WRITE | perm::EXEC)?;
    v.watch_dir(&inode);
    Ok(inode)
}

fn changed(v: &mut View<'_, '_>, dir: &mut Inode, subdirs: i32) {
    dir.nlink = dir.nlink.saturating_add_signed(subdirs);
    dir.mtime = v.time();
    v.touch(dir);
    v.put_inode(dir);
}
