//! POSIX rename, whole.

use super::entry::{self, Entry};
use super::parts::{Part, open_dir};
use super::replay::{Step, Stored};
use super::view::{Seen, View};
use super::{ROOT, Shard, across, perm};
use crate::index::TxnResult;
use crate::vfs::*;
use bytes::Bytes;
use std::rc::Rc;

/// Directories nest no deeper than this for a move: the walk to the root is bounded.
const DEPTH_MAX: usize = 100_000;

#[derive(Clone, Debug)]
struct Rename {
    from_dir: Ino,
    from: Bytes,
    to_dir: Ino,
    to: Bytes,
}

/// One side as found: what the name stands for, and the directory's owner when that is sticky.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    entry: Option<Entry>,
    sticky: Option<u32>,
}

type Both = (DirChange, DirChange);

impl Shard {
    /// On the shard of `from_dir`.
    pub(crate) async fn rename(
        self: Rc<Self>,
        cx: Context,
        from_dir: Ino,
        from: Bytes,
        to_dir: Ino,
        to: Bytes,
    ) -> FsResult<Both> {
        entry::check_name(&from)?;
        entry::check_name(&to)?;
        let rename = Rename { from_dir, from, to_dir, to };
        across::persist(async || {
            let step =
                self.mutate(&cx, |v| self.rename_here(v, &cx.cred, &rename), |_| Stored::NOTHING).await?;
            match step {
                Step::Done(both) => Ok(both),
                Step::Replayed(_) => self.renamed_before(&rename).await,
                Step::Across(source) => {
                    let (shard, cx, rename) = (self.clone(), cx.clone(), rename.clone());
                    // Whole, even when the asker goes away meanwhile.
                    basalt_reactor::spawn(async move { shard.rename_across(cx, rename, source).await }).await
                }
            }
        })
        .await
    }

    async fn renamed_before(&self, r: &Rename) -> FsResult<Both> {
        Ok((self.dir_as_it_is(r.from_dir).await?, self.dir_as_it_is(r.to_dir).await?))
    }

    /// When everything is in this shard and no directory changes its parent; else what `from` stands for.
    fn rename_here(
        &self,
        v: &mut View<'_, '_>,
        cred: &Credentials,
        r: &Rename,
    ) -> TxnResult<Step<Both, Side>> {
        let source = self.side(v, cred, r.from_dir, &r.from)?;
        let moving = source.entry.ok_or(FsError::NotFound)?;
        if !self.is_here(r.to_dir) || !self.is_here(moving.ino) {
            return Ok(Step::Across(source));
        }
        if moving.kind == FileType::Directory && r.from_dir != r.to_dir {
            return Ok(Step::Across(source));
        }
        let target = self.side(v, cred, r.to_dir, &r.to)?;
        let Some(parts) = r.parts(source, target)? else {
            return Ok(Step::Done(r.both(v.seen())?));
        };
        if parts.iter().any(|p| p.slot() != self.slot) {
            return Ok(Step::Across(source));
        }
        Ok(Step::Done(r.both(&self.perform_here(v, cred, &parts)?)?))
    }

    fn side(&self, v: &mut View<'_, '_>, cred: &Credentials, dir: Ino, name: &[u8]) -> TxnResult<Side> {
        let inode = open_dir(v, dir, cred)?;
        Ok(Side { entry: entry::find(v, dir, inode.hash_seed, name)?, sticky: perm::sticky_owner(&inode) })
    }

    /// The target side, wherever it lives, with the directory's attributes.
    async fn look(&self, cx: &Context, dir: Ino, name: &Bytes) -> FsResult<(Side, DirChange)> {
        let (cred, name) = (cx.cred.clone(), name.clone());
        self.shared
            .on(dir.slot(), move |shard| async move {
                shard
                    .run(|v| {
                        let side = shard.side(v, &cred, dir, &name)?;
                        Ok((side, v.seen().dir(dir)?))
                    })
                    .await
            })
            .await
    }

    async fn rename_across(self: Rc<Self>, cx: Context, r: Rename, source: Side) -> FsResult<Both> {
        let reparents = source.entry.is_some_and(|e| e.kind == FileType::Directory) && r.from_dir != r.to_dir;
        if !reparents {
            return self.rename_looked_up(&cx, &r).await;
        }
        // One at a time in the whole file system: two such moves could each make the other's check untrue.
        self.shared.take_root_token().await?;
        let answer = self.rename_looked_up(&cx, &r).await;
        self.shared.give_root_token().await?;
        answer
    }

    async fn rename_looked_up(self: &Rc<Self>, cx: &Context, r: &Rename) -> FsResult<Both> {
        let (source, from_change) = self.look(cx, r.from_dir, &r.from).await?;
        let (target, to_change) = self.look(cx, r.to_dir, &r.to).await?;
        let moving = source.entry.ok_or(FsError::Delay)?;
        if moving.kind == FileType::Directory && r.from_dir != r.to_dir {
            self.refuse_descendant(moving.ino, r.to_dir).await?;
        }
        let Some(parts) = r.parts(source, target)? else {
            return Ok((from_change, to_change));
        };
        let seen = self.perform_across(cx, parts, Stored::NOTHING).await?;
        r.both(&seen)
    }

    /// `Invalid` when `dir` is `moving` or lies beneath it. Under the root token no parent changes meanwhile.
    async fn refuse_descendant(&self, moving: Ino, dir: Ino) -> FsResult<()> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if at == moving {
                return Err(FsError::Invalid);
            }
            if at == ROOT {
                return Ok(());
            }
            at = self.shared.parent(at).await?;
        }
        Err(FsError::Resource)
    }
}

impl Rename {
    fn both(&self, seen: &Seen) -> FsResult<Both> {
        Ok((seen.dir(self.from_dir)?, seen.dir(self.to_dir)?))
    }

    /// `None`: both names stand for the same inode, and nothing is to be done.
    fn parts(&self, source: Side, target: Side) -> FsResult<Option<Vec<Part>>> {
        let moving = source.entry.ok_or(FsError::NotFound)?;
        let replaced = target.entry;
        let is_dir = moving.kind == FileType::Directory;
        let mut parts = Vec::new();
        if let Some(old) = replaced {
            if old.ino == moving.ino {
                return Ok(None);
            }
            match (is_dir, old.kind == FileType::Directory) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) => parts.push(Part::RemoveDir { ino: old.ino, sticky: target.sticky }),
                (false, false) => parts.push(Part::Unlink { ino: old.ino, sticky: target.sticky }),
            }
        }
        let subdirs = is_dir as i32;
        parts.push(Part::Moved {
            ino: moving.ino,
            parent: (is_dir && self.from_dir != self.to_dir).then_some(self.to_dir),
            sticky: source.sticky,
        });
        parts.push(Part::Remove {
            dir: self.from_dir,
            name: self.from.clone(),
            expect: moving.ino,
            subdirs: -subdirs,
        });
        parts.push(Part::Insert {
            dir: self.to_dir,
            name: self.to.clone(),
            entry: moving,
            expect: replaced.map(|e| e.ino),
            subdirs: if replaced.is_some() { 0 } else { subdirs },
        });
        Ok(Some(parts))
    }
}
