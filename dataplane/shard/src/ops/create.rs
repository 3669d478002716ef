//! New inodes and their names.

use super::entry::{self, Entry};
use super::parts::{Part, open_dir};
use super::perm;
use super::replay::{Step, Stored};
use super::view::View;
use super::{GENERATION, ROOT, Shard};
use crate::index::TxnResult;
use crate::inode::Inode;
use crate::vfs::*;
use bytes::Bytes;
use std::rc::Rc;

/// Everything about an inode to be made but its number.
#[derive(Clone, Debug)]
pub(crate) struct New {
    kind: NodeKind,
    mode: u32,
    uid: u32,
    gid: u32,
    set: SetAttr,
    verifier: [u8; 8],
    hash_seed: u64,
}

pub(crate) fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::Regular => FileType::Regular,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::BlockDevice(..) => FileType::BlockDevice,
        NodeKind::CharDevice(..) => FileType::CharDevice,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
    }
}

/// An inode as it is born, root's.
pub(crate) fn blank(
    v: &View<'_, '_>,
    ino: Ino,
    kind: FileType,
    mode: u32,
    parent: Ino,
    hash_seed: u64,
) -> Inode {
    let now = v.time();
    let dir = kind == FileType::Directory;
    let mut inode = Inode {
        ino,
        generation: GENERATION,
        kind,
        mode,
        nlink: if dir { 2 } else { 1 },
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        rdev: (0, 0),
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 0,
        parent: if dir { parent } else { Ino(0) },
        hash_seed: if dir { hash_seed } else { 0 },
        dir_layout: 0,
        entries: 0,
        project: 0,
        tenant: 0,
        scheme: 0,
        create_verifier: [0; 8],
        tail: Vec::new(),
    };
    v.touch(&mut inode);
    inode
}

impl New {
    /// Checks what the caller may give the new inode; the directory decides the group.
    fn plan(
        dir: &Inode,
        cred: &Credentials,
        kind: &NodeKind,
        set: &SetAttr,
        verifier: [u8; 8],
        hash_seed: u64,
    ) -> FsResult<New> {
        if let NodeKind::Symlink(target) = kind {
            if target.len() > SYMLINK_MAX {
                return Err(FsError::NameTooLong);
            }
            if target.is_empty() || target.contains(&0) {
                return Err(FsError::Invalid);
            }
        }
        if set.size.is_some_and(|s| s > FILE_SIZE_MAX) {
            return Err(FsError::FileTooBig);
        }
        let root = cred.uid == 0;
        let inherits = dir.mode & perm::SETGID != 0;
        let uid = set.uid.unwrap_or(cred.uid);
        let gid = set.gid.unwrap_or(if inherits { dir.gid } else { cred.gid });
        if !root && (uid != cred.uid || !(cred.in_group(gid) || inherits && gid == dir.gid)) {
            return Err(FsError::NotPermitted);
        }
        let mut mode = set.mode.unwrap_or(match kind {
            NodeKind::Directory => 0o755,
            _ => 0o644,
        }) & 0o7777;
        match kind {
            // As everywhere: nothing looks at it.
            NodeKind::Symlink(_) => mode = 0o777,
            NodeKind::Directory if inherits => mode |= perm::SETGID,
            _ if !root && !cred.in_group(gid) => mode &= !perm::SETGID,
            _ => {}
        }
        Ok(New { kind: kind.clone(), mode, uid, gid, set: *set, verifier, hash_seed })
    }

    pub(crate) fn inode(&self, v: &View<'_, '_>, ino: Ino, parent: Ino) -> Inode {
        let mut inode = blank(v, ino, file_type(&self.kind), self.mode, parent, self.hash_seed);
        inode.uid = self.uid;
        inode.gid = self.gid;
        inode.create_verifier = self.verifier;
        match &self.kind {
            NodeKind::Regular => inode.size = self.set.size.unwrap_or(0),
            NodeKind::Symlink(target) => {
                inode.size = target.len() as u64;
                inode.tail = target.to_vec();
            }
            NodeKind::BlockDevice(major, minor) | NodeKind::CharDevice(major, minor) => {
                inode.rdev = (*major, *minor);
            }
            NodeKind::Directory | NodeKind::Fifo | NodeKind::Socket => {}
        }
        let now = v.time();
        if let Some(t) = self.set.atime {
            inode.atime = perm::resolve(t, now);
        }
        if let Some(t) = self.set.mtime {
            inode.mtime = perm::resolve(t, now);
        }
        inode
    }
}

/// Where an attempt leads that this shard cannot end alone.
enum Elsewhere {
    /// The name is there; its inode decides.
    Found(Entry, DirChange),
    /// A directory to be made by this shard.
    MakeDir(u16, New),
}

/// The verifier as kept: all zeroes in an inode mean that there is none.
fn kept(verifier: [u8; 8]) -> [u8; 8] {
    if verifier == [0; 8] { *b"\0zeroes\0" } else { verifier }
}

impl Shard {
    /// Which shard a new subdirectory goes to: the first two levels spread, deeper ones stay with their parent.
    fn place_dir(&self, parent: &Inode, name: &[u8]) -> u16 {
        if parent.ino == ROOT || parent.parent == ROOT {
            let hash = entry::name_hash(parent.hash_seed ^ parent.ino.0, name);
            (hash % self.shared.shards.len() as u64) as u16
        } else {
            self.slot
        }
    }

    pub(crate) async fn create(
        self: Rc<Self>,
        cx: Context,
        dir: Ino,
        name: Bytes,
        kind: NodeKind,
        how: CreateHow,
        set: SetAttr,
    ) -> FsResult<Created> {
        entry::check_name(&name)?;
        let how = if kind == NodeKind::Regular { how } else { CreateHow::Guarded };
        let verifier = match how {
            CreateHow::Exclusive(v) => kept(v),
            _ => [0; 8],
        };
        let hash_seed = basalt_reactor::random_u64();
        let step = self
            .mutate(
                &cx,
                |v| {
                    let parent = v.dir(dir)?;
                    perm::require(&parent, &cx.cred, perm::EXEC)?;
                    v.watch_dir(&parent);
                    if let Some(found) = entry::find(v, dir, parent.hash_seed, &name)? {
                        if how == CreateHow::Guarded {
                            return Err(FsError::Exists.into());
                        }
                        return Ok(Step::Across(Elsewhere::Found(found, v.seen().dir(dir)?)));
                    }
                    perm::require(&parent, &cx.cred, perm::WRITE)?;
                    let new = New::plan(&parent, &cx.cred, &kind, &set, verifier, hash_seed)?;
                    let is_dir = kind == NodeKind::Directory;
                    if is_dir {
                        let slot = self.place_dir(&parent, &name);
                        if slot != self.slot {
                            return Ok(Step::Across(Elsewhere::MakeDir(slot, new)));
                        }
                    }
                    let ino = v.allocate_ino()?;
                    let inode = new.inode(v, ino, dir);
                    self.name(v, &cx.cred, dir, &name, &inode)?;
                    v.put_inode(&inode);
                    Ok(Step::Done(Created {
                        attr: self.attr(&inode),
                        created: true,
                        dir: v.seen().dir(dir)?,
                    }))
                },
                |c| Stored::of(c.attr.ino),
            )
            .await?;
        match step {
            Step::Done(created) => Ok(created),
            Step::Replayed(stored) => self.created_before(dir, stored).await,
            Step::Across(Elsewhere::Found(found, dir)) => self.open_existing(cx, found, how, set, dir).await,
            Step::Across(Elsewhere::MakeDir(slot, new)) => {
                let shard = self.clone();
                // Whole, even when the asker goes away meanwhile.
                basalt_reactor::spawn(async move { shard.make_dir_elsewhere(cx, dir, name, slot, new).await })
                    .await
            }
        }
    }

    async fn created_before(&self, dir: Ino, stored: Stored) -> FsResult<Created> {
        let attr = self.shared.getattr(stored.ino).await?;
        Ok(Created { attr, created: stored.created, dir: self.dir_as_it_is(dir).await? })
    }

    fn name(
        &self,
        v: &mut View<'_, '_>,
        cred: &Credentials,
        dir: Ino,
        name: &Bytes,
        inode: &Inode,
    ) -> TxnResult<()> {
        let insert = Part::Insert {
            dir,
            name: name.clone(),
            entry: Entry { ino: inode.ino, kind: inode.kind },
            expect: None,
            subdirs: (inode.kind == FileType::Directory) as i32,
        };
        self.perform(v, cred, &[insert])
    }

    async fn open_existing(
        &self,
        cx: Context,
        found: Entry,
        how: CreateHow,
        set: SetAttr,
        dir: DirChange,
    ) -> FsResult<Created> {
        let ino = found.ino;
        let attr = match how {
            CreateHow::Guarded => return Err(FsError::Exists),
            CreateHow::Exclusive(verifier) => {
                let verifier = kept(verifier);
                self.shared
                    .on(ino.slot(), move |shard| async move {
                        let same = |inode: &Inode| {
                            inode.kind == FileType::Regular && inode.create_verifier == verifier
                        };
                        shard
                            .run(|v| {
                                let inode = v.live(ino)?;
                                if same(&inode) {
                                    Ok(shard.attr(&inode))
                                } else {
                                    Err(FsError::Exists.into())
                                }
                            })
                            .await
                    })
                    .await?
            }
            CreateHow::Unchecked => {
                match found.kind {
                    FileType::Regular => {}
                    FileType::Directory => return Err(FsError::IsDirectory),
                    FileType::Symlink => return Err(FsError::IsSymlink),
                    _ => return Err(FsError::WrongType),
                }
                match set.size {
                    None => self.shared.getattr(ino).await?,
                    Some(size) => {
                        let set = SetAttr { size: Some(size), ..SetAttr::default() };
                        let cx = Context { replay: None, ..cx };
                        self.shared
                            .on(ino.slot(), move |shard| async move {
                                shard.setattr(cx, ino, set, None, false).await
                            })
                            .await?
                            .1
                    }
                }
            }
        };
        Ok(Created { attr, created: false, dir })
    }

    /// The inode first, with an intent that a crash leaves for the next start to settle; then the name.
    async fn make_dir_elsewhere(
        self: Rc<Self>,
        cx: Context,
        dir: Ino,
        name: Bytes,
        slot: u16,
        new: New,
    ) -> FsResult<Created> {
        let attr = {
            let name = name.clone();
            self.shared
                .on(slot, move |shard| async move { shard.make_nameless_dir(dir, name, new).await })
                .await?
        };
        let ino = attr.ino;
        let entry = Entry { ino, kind: FileType::Directory };
        let named = self
            .mutate::<_, ()>(
                &cx,
                |v| {
                    let parent = open_dir(v, dir, &cx.cred)?;
                    if entry::find(v, dir, parent.hash_seed, &name)?.is_some() {
                        return Err(FsError::Exists.into());
                    }
                    let insert = Part::Insert { dir, name: name.clone(), entry, expect: None, subdirs: 1 };
                    self.perform(v, &cx.cred, &[insert])?;
                    Ok(Step::Done(v.seen().dir(dir)?))
                },
                |_| Stored::of(ino),
            )
            .await;
        match &named {
            Ok(Step::Done(_)) => self.settle_intent_behind(ino, true),
            // The journal failed: whether the name is there only its next reader can tell, by the intent.
            Err(FsError::Io) => {}
            _ => self.settle_intent_behind(ino, false),
        }
        match named? {
            Step::Done(change) => Ok(Created { attr, created: true, dir: change }),
            Step::Replayed(stored) => self.created_before(dir, stored).await,
            Step::Across(()) => Err(FsError::Io),
        }
    }
}
