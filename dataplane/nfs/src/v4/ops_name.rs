//! Operations on names: CREATE, REMOVE, RENAME, LINK, READLINK, READDIR, and SETATTR.

use super::attrs::{self, Bitmap};
use super::compound::{Compound, Node, Object, component};
use super::stateid::Stateid;
use super::types::{OpResult, Status};
use crate::export::LocalExports;
use crate::pseudo::{Child, PseudoTree};
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::*;

/// Entries asked of the file system at a time.
const READDIR_BATCH_MAX: usize = 512;
/// An entry4 without name and attributes: follows, cookie, name length, empty bitmap, empty attrlist.
const ENTRY_MIN_BYTES: usize = 24;
/// cookieverf, end of list, eof.
const READDIR_OVERHEAD_BYTES: usize = 16;

/// change_info4.
pub(crate) fn change_info(w: &mut Writer, d: &DirChange) {
    w.bool(d.atomic);
    w.u64(d.before.change);
    w.u64(d.after.change);
}

impl Compound<'_> {
    pub(crate) async fn op_create(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        // createtype4
        let kind = match r.u32()? {
            2 => NodeKind::Directory,
            3 => NodeKind::BlockDevice(r.u32()?, r.u32()?),
            4 => NodeKind::CharDevice(r.u32()?, r.u32()?),
            5 => NodeKind::Symlink(r.opaque(64 << 10)?),
            6 => NodeKind::Socket,
            7 => NodeKind::Fifo,
            _ => return Err(Status::BADTYPE),
        };
        if let NodeKind::Symlink(target) = &kind {
            if target.is_empty() {
                return Err(Status::INVAL);
            }
            if target.len() > SYMLINK_MAX {
                return Err(Status::NAMETOOLONG);
            }
        }
        let name = component(r)?;
        let (mut set, bits) = attrs::decode_settable(r, self.minor)?;
        // The size of what is no regular file cannot be set.
        if set.size.take().is_some() {
            return Err(Status::INVAL);
        }
        let dir = self.object(Status::ROFS)?;
        dir.writable()?;
        let made = dir.vfs().create(&self.once(&dir), dir.ino, &name, kind, CreateHow::Guarded, set).await;
        let made = match made {
            Ok(m) => m,
            Err(e) => return Err(self.not_a_directory(&dir, e).await),
        };
        change_info(w, &made.dir);
        bits.encode(w);
        self.become_object(&dir.export, made.attr);
        Ok(())
    }

    pub(crate) async fn op_remove(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let name = component(r)?;
        let dir = self.object(Status::ROFS)?;
        dir.writable()?;
        match dir.vfs().remove(&self.once(&dir), dir.ino, &name, None).await {
            Ok(d) => {
                change_info(w, &d);
                self.fresh = Some(d.after);
                Ok(())
            }
            Err(e) => Err(self.not_a_directory(&dir, e).await),
        }
    }

    pub(crate) async fn op_rename(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let (old, new) = (component(r)?, component(r)?);
        let (from, to) = self.saved_and_current()?;
        match to.vfs().rename(&self.once(&to), from.ino, &old, to.ino, &new).await {
            Ok((source, target)) => {
                change_info(w, &source);
                change_info(w, &target);
                self.fresh = Some(target.after);
                Ok(())
            }
            Err(e) => Err(self.not_a_directory(&to, e).await),
        }
    }

    pub(crate) async fn op_link(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let name = component(r)?;
        let (source, dir) = self.saved_and_current()?;
        match dir.vfs().link(&self.once(&dir), source.ino, dir.ino, &name).await {
            Ok((_, d)) => {
                change_info(w, &d);
                self.fresh = Some(d.after);
                Ok(())
            }
            Err(e) => Err(self.not_a_directory(&dir, e).await),
        }
    }

    pub(crate) async fn op_readlink(&mut self, w: &mut Writer) -> OpResult {
        let o = self.object(Status::WRONG_TYPE)?;
        match o.vfs().readlink(&self.context(&o), o.ino).await {
            Ok((target, attr)) => {
                w.opaque(&target);
                self.fresh = Some(attr);
                Ok(())
            }
            Err(FsError::Invalid) => Err(Status::WRONG_TYPE),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) async fn op_setattr(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let id = Stateid::decode(r)?;
        let (set, bits) = attrs::decode_settable(r, self.minor)?;
        let o = self.object(Status::ROFS)?;
        o.writable()?;
        // The stateid matters only where data changes (section 18.30.3).
        let opened = if set.size.is_some() { self.io_stateid(id, &o, true).await?.checked } else { false };
        let (_, attr) = o.vfs().setattr(&self.once(&o), o.ino, set, None, opened).await?;
        bits.encode(w);
        self.fresh = Some(attr);
        Ok(())
    }

    pub(crate) async fn op_readdir(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let cookie = r.u64()?;
        let verifier: [u8; 8] = r.fixed()?;
        let _dircount = r.u32()?;
        let maxcount = r.u32()? as usize;
        let want = Bitmap::decode(r)?;
        attrs::readable(&want)?;
        if cookie == 1 || cookie == 2 {
            return Err(Status::BAD_COOKIE); // reserved for "." and "..", which are not listed
        }
        // Cookies hold for ever, so the verifier is always 0.
        if verifier != [0; 8] {
            return Err(Status::NOT_SAME);
        }
        let room = maxcount.min(self.room);
        if room < READDIR_OVERHEAD_BYTES + ENTRY_MIN_BYTES {
            return Err(Status::TOOSMALL);
        }
        let mut list = EntryList { w: Writer::new(), room: room - READDIR_OVERHEAD_BYTES, any: false };
        let eof = match self.node()?.clone() {
            Node::Pseudo(id) => self.list_pseudo(id, cookie, &want, &mut list).await?,
            Node::Object(o) => self.list_directory(&o, cookie, &want, &mut list).await?,
        };
        if !list.any && !eof {
            return Err(Status::TOOSMALL);
        }
        w.u64(0);
        w.append(list.w);
        w.bool(false);
        w.bool(eof);
        Ok(())
    }

    async fn list_directory(
        &mut self,
        dir: &Object,
        from: u64,
        want: &Bitmap,
        list: &mut EntryList,
    ) -> OpResult<bool> {
        let cx = self.context(dir);
        let want_attrs = attrs::needs_inode(want);
        let stat = if attrs::needs_statfs(want) { Some(dir.vfs().statfs().await?) } else { None };
        let mut cookie = from;
        loop {
            let guess = list.room_left() / if want_attrs { 150 } else { 48 };
            let batch = guess.clamp(8, READDIR_BATCH_MAX);
            let page = match dir.vfs().readdir(&cx, dir.ino, cookie, batch, want_attrs).await {
                Ok(p) => p,
                Err(e) => return Err(self.not_a_directory(dir, e).await),
            };
            self.fresh = Some(page.dir);
            if page.entries.is_empty() {
                return Ok(true);
            }
            for e in &page.entries {
                let bare;
                let attr = match (&e.attr, want_attrs) {
                    (Some(a), _) => a,
                    (None, false) => {
                        bare = bare_attr(e);
                        &bare
                    }
                    (None, true) => {
                        // The inode went away or cannot be read (section 18.23.3).
                        if attrs::wants_rdattr_error(want) {
                            let fits =
                                list.push(e.cookie, &e.name, |w| attrs::encode_rdattr_error(w, Status::IO));
                            if !fits {
                                return Ok(false);
                            }
                        }
                        cookie = e.cookie;
                        continue;
                    }
                };
                let object =
                    Object { export: dir.export.clone(), ino: attr.ino, generation: attr.generation };
                let node = Node::Object(object);
                let handle = self.handle_of(&node);
                let mut source = self.source_without_stat(&node, attr, &handle);
                source.stat = stat;
                if !list.push(e.cookie, &e.name, |w| attrs::encode(w, want, &source)) {
                    return Ok(false);
                }
                cookie = e.cookie;
            }
            if page.eof {
                return Ok(true);
            }
        }
    }

    async fn list_pseudo(&self, id: u64, from: u64, want: &Bitmap, list: &mut EntryList) -> OpResult<bool> {
        let exports = self.local.exports();
        for (cookie, name, child) in pseudo_children(&exports, id)? {
            if cookie <= from {
                continue;
            }
            let node = match child {
                Child::Directory(id) => Node::Pseudo(id),
                Child::Export(export) => match exports.by_id.get(&export) {
                    // What the caller may not use it is not shown either.
                    Some(e) if self.admitted(e).is_ok() => {
                        Node::Object(Object { export: e.clone(), ino: e.root, generation: 0 })
                    }
                    _ => continue,
                },
            };
            let attr = self.attr_of(&node).await?;
            let node = match node {
                Node::Object(o) => Node::Object(Object::of(&o.export, &attr)),
                pseudo => pseudo,
            };
            let handle = self.handle_of(&node);
            let mut source = self.source_without_stat(&node, &attr, &handle);
            if let (Node::Object(o), true) = (&node, attrs::needs_statfs(want)) {
                source.stat = Some(self.stat_of(&o.export).await?);
            }
            if !list.push(cookie, name.as_bytes(), |w| attrs::encode(w, want, &source)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The children of a pseudo directory in the order of their cookies.
fn pseudo_children(exports: &LocalExports, id: u64) -> OpResult<Vec<(u64, String, Child)>> {
    let dir = exports.tree.dir(id).ok_or(Status::STALE)?;
    let mut all: Vec<_> =
        dir.children.iter().map(|(n, c)| (PseudoTree::cookie(n), n.clone(), c.clone())).collect();
    all.sort_by_key(|c| c.0);
    Ok(all)
}

/// What the directory entry alone says of its inode.
fn bare_attr(e: &DirEntry) -> Attr {
    let t = WallTime::default();
    Attr {
        ino: e.ino,
        generation: 0,
        kind: e.kind,
        mode: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        used: 0,
        rdev: (0, 0),
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        change: 0,
    }
}

/// READDIR's list, cut where the client's count or the reply's limit ends.
struct EntryList {
    w: Writer,
    room: usize,
    any: bool,
}

impl EntryList {
    fn room_left(&self) -> usize {
        self.room.saturating_sub(self.w.len())
    }
    /// False, and nothing added, when it does not fit.
    fn push(&mut self, cookie: u64, name: &[u8], attrs: impl FnOnce(&mut Writer)) -> bool {
        let at = self.w.len();
        self.w.bool(true);
        self.w.u64(cookie);
        self.w.opaque(name);
        attrs(&mut self.w);
        if self.w.len() > self.room {
            self.w.truncate(at);
            return false;
        }
        self.any = true;
        true
    }
}
