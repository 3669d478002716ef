//! Listing directories, in the order of the name hash.

use super::Shard;
use super::entry::{self, COOKIE_MAX, COOKIE_MIN, Entry};
use super::perm;
use crate::keys::{self, tag};
use crate::vfs::*;
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most entries of one answer.
const ENTRIES_MAX: usize = 4096;
/// Inodes read in one transaction: cold ones each run it again, so not too many.
const ATTRS_AT_ONCE: usize = 64;

impl Shard {
    pub(crate) async fn readdir(
        &self,
        cred: &Credentials,
        dir: Ino,
        cookie: u64,
        max_entries: usize,
        want_attrs: bool,
    ) -> FsResult<ReadDir> {
        if cookie > COOKIE_MAX {
            return Err(FsError::BadCookie);
        }
        let max = max_entries.clamp(1, ENTRIES_MAX);
        // 1 and 2 are the places of `.` and `..`, which callers add.
        let after = if cookie < COOKIE_MIN { 0 } else { cookie };
        let from = keys::ino_u64_key(tag::DIRENT, dir, after + 1);
        let end = keys::prefix_end(&keys::ino_key(tag::DIRENT, dir));
        let (dir_attr, found) = self
            .run(|v| {
                let inode = v.dir(dir)?;
                perm::require(&inode, cred, perm::READ)?;
                Ok((self.attr(&inode), v.scan(&from, &end, max + 1)?))
            })
            .await?;
        let eof = found.len() <= max;
        let mut entries = Vec::with_capacity(found.len().min(max));
        for (key, value) in found.iter().take(max) {
            let (_, cookie, name) = entry::split_key(key).ok_or(FsError::Io)?;
            let Entry { ino, kind } = Entry::decode(value)?;
            entries.push(DirEntry { name: Bytes::copy_from_slice(name), ino, kind, cookie, attr: None });
        }
        if want_attrs {
            self.fill_attrs(&mut entries).await?;
        }
        Ok(ReadDir { entries, eof, dir: dir_attr })
    }

    /// Each shard is asked once, all at the same time. An inode that has gone meanwhile stays without attributes.
    async fn fill_attrs(&self, entries: &mut [DirEntry]) -> FsResult<()> {
        let mut by_slot: BTreeMap<u16, Vec<Ino>> = BTreeMap::new();
        for e in entries.iter() {
            by_slot.entry(e.ino.slot()).or_default().push(e.ino);
        }
        let answers = join_all(by_slot.into_iter().map(|(slot, inos)| {
            self.shared.on(slot, move |shard| async move { shard.attrs_of(&inos).await })
        }))
        .await;
        let mut attrs = BTreeMap::new();
        for answer in answers {
            attrs.extend(answer?.into_iter().map(|a| (a.ino, a)));
        }
        for e in entries {
            // Hard links: more than one entry may name the same inode.
            e.attr = attrs.get(&e.ino).cloned();
        }
        Ok(())
    }

    async fn attrs_of(&self, inos: &[Ino]) -> FsResult<Vec<Attr>> {
        let mut attrs = Vec::with_capacity(inos.len());
        for some in inos.chunks(ATTRS_AT_ONCE) {
            let found = self
                .run(|v| {
                    let mut found = Vec::with_capacity(some.len());
                    for ino in some {
                        if let Some(inode) = v.inode(*ino)? {
                            found.push(self.attr(&inode));
                        }
                    }
                    Ok(found)
                })
                .await?;
            attrs.extend(found);
        }
        Ok(attrs)
    }
}
