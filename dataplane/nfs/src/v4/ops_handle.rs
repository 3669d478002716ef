//! Operations on file handles: where the compound stands, and what is known of the object there.

use super::attrs::{self, Bitmap, Source};
use super::compound::{Compound, Node, Object, component};
use super::types::{OpResult, Status};
use crate::export::{LocalExport, LocalExports};
use crate::handle::Handle;
use crate::pseudo::{Child, ROOT_ID};
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::*;
use std::rc::Rc;

const FH_MAX: usize = 128;
const ACCESS_OF_4_2: u32 = 0x1c0;
const ACCESS_ALL: u32 = 0x3f;
const AUTH_SYS: u32 = 1;

/// Finds what a handle names; the caller's right to the export is checked by [`Compound::admitted`].
pub(crate) fn resolve(exports: &LocalExports, handle: Handle) -> OpResult<Node> {
    match handle {
        Handle::Pseudo { id } => exports.tree.dir(id).map(|_| Node::Pseudo(id)).ok_or(Status::STALE),
        Handle::Object { export, fsid, snapshot: 0, ino, generation } => {
            let export = exports.by_id.get(&export).filter(|e| e.fsid == fsid).ok_or(Status::STALE)?;
            Ok(Node::Object(Object { export: export.clone(), ino, generation }))
        }
        Handle::Object { .. } => Err(Status::STALE),
    }
}

impl Compound<'_> {
    pub(crate) fn op_putfh(&mut self, r: &mut Reader) -> OpResult {
        let bytes = r.opaque(FH_MAX)?;
        let handle = Handle::decode(&bytes, &self.local.shared.secret).map_err(|_| Status::BADHANDLE)?;
        let node = resolve(&self.local.exports(), handle)?;
        if let Node::Object(o) = &node {
            self.admitted(&o.export)?;
        }
        self.current = Some(node);
        self.stateid = None;
        Ok(())
    }

    pub(crate) fn op_putrootfh(&mut self) -> OpResult {
        let exports = self.local.exports();
        let export = exports.tree.root_export().and_then(|id| exports.by_id.get(&id));
        self.current = Some(match export {
            Some(e) => {
                self.admitted(e)?;
                Node::Object(Object { export: e.clone(), ino: e.root, generation: 0 })
            }
            None => Node::Pseudo(ROOT_ID),
        });
        self.stateid = None;
        Ok(())
    }

    pub(crate) fn op_getfh(&self, w: &mut Writer) -> OpResult {
        w.opaque(&self.handle_of(self.node()?));
        Ok(())
    }

    pub(crate) fn handle_of(&self, node: &Node) -> [u8; crate::handle::HANDLE_BYTES] {
        let handle = match node {
            Node::Pseudo(id) => Handle::Pseudo { id: *id },
            Node::Object(o) => o.handle(),
        };
        handle.encode(&self.local.shared.secret)
    }

    pub(crate) fn op_savefh(&mut self) -> OpResult {
        self.saved = Some(self.node()?.clone());
        self.saved_stateid = self.stateid;
        Ok(())
    }

    pub(crate) fn op_restorefh(&mut self) -> OpResult {
        let saved = self.saved.clone().ok_or(Status::NOFILEHANDLE)?;
        self.current = Some(saved);
        self.stateid = self.saved_stateid;
        Ok(())
    }

    pub(crate) async fn op_lookup(&mut self, r: &mut Reader) -> OpResult {
        let name = component(r)?;
        self.lookup_in_current(&name).await
    }

    pub(crate) async fn lookup_in_current(&mut self, name: &[u8]) -> OpResult {
        match self.node()?.clone() {
            Node::Pseudo(id) => {
                let exports = self.local.exports();
                let dir = exports.tree.dir(id).ok_or(Status::STALE)?;
                let text = std::str::from_utf8(name).map_err(|_| Status::NOENT)?;
                match dir.children.get(text).ok_or(Status::NOENT)? {
                    Child::Directory(id) => self.current = Some(Node::Pseudo(*id)),
                    Child::Export(id) => {
                        let export = exports.by_id.get(id).ok_or(Status::NOENT)?;
                        self.admitted(export)?;
                        let attr = export.vfs.getattr(export.root, 0).await?;
                        self.become_object(export, attr);
                    }
                }
                self.stateid = None;
                Ok(())
            }
            Node::Object(o) => match o.vfs().lookup(&self.context(&o), o.ino, name).await {
                Ok((attr, _dir)) => {
                    self.become_object(&o.export, attr);
                    Ok(())
                }
                Err(e) => Err(self.not_a_directory(&o, e).await),
            },
        }
    }

    /// A symbolic link where a directory is wanted has its own error (section 18.13.3).
    pub(crate) async fn not_a_directory(&self, o: &Object, e: FsError) -> Status {
        if e != FsError::NotDirectory {
            return e.into();
        }
        match o.vfs().getattr(o.ino, o.generation).await {
            Ok(a) if a.kind == FileType::Symlink => Status::SYMLINK,
            _ => Status::NOTDIR,
        }
    }

    pub(crate) async fn op_lookupp(&mut self) -> OpResult {
        match self.node()?.clone() {
            Node::Pseudo(ROOT_ID) => Err(Status::NOENT),
            Node::Pseudo(id) => {
                let exports = self.local.exports();
                let parent = exports.tree.dir(id).ok_or(Status::STALE)?.parent;
                self.current = Some(Node::Pseudo(parent));
                self.stateid = None;
                Ok(())
            }
            Node::Object(o) if o.is_export_root() => {
                let exports = self.local.exports();
                if exports.tree.root_export() == Some(o.export.id()) {
                    return Err(Status::NOENT);
                }
                let above = exports.tree.above(o.export.id()).ok_or(Status::STALE)?;
                self.current = Some(Node::Pseudo(above));
                self.stateid = None;
                Ok(())
            }
            Node::Object(o) => match o.vfs().lookup_parent(&self.context(&o), o.ino).await {
                Ok(attr) => {
                    self.become_object(&o.export, attr);
                    Ok(())
                }
                Err(e) => Err(self.not_a_directory(&o, e).await),
            },
        }
    }

    pub(crate) async fn op_access(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let asked = r.u32()?;
        if asked & !(ACCESS_ALL | if self.minor >= 2 { ACCESS_OF_4_2 } else { 0 }) != 0 {
            return Err(Status::INVAL);
        }
        let (supported, allowed) = match self.node()?.clone() {
            Node::Pseudo(_) => (asked & ACCESS_ALL, asked & (ACCESS_READ | ACCESS_LOOKUP | ACCESS_EXECUTE)),
            Node::Object(o) => {
                let (mut allowed, attr) =
                    o.vfs().access(&self.context(&o), o.ino, asked & ACCESS_ALL).await?;
                if o.export.read_only() {
                    allowed &= !(ACCESS_MODIFY | ACCESS_EXTEND | ACCESS_DELETE);
                }
                self.fresh = Some(attr);
                (asked & ACCESS_ALL, allowed & asked)
            }
        };
        w.u32(supported);
        w.u32(allowed);
        Ok(())
    }

    pub(crate) async fn op_getattr(
        &mut self,
        fresh: Option<Attr>,
        r: &mut Reader,
        w: &mut Writer,
    ) -> OpResult {
        let want = Bitmap::decode(r)?;
        attrs::readable(&want)?;
        let node = self.node()?.clone();
        let attr = match (fresh, &node) {
            (Some(a), Node::Object(_)) => a,
            _ => self.attr_of(&node).await?,
        };
        let handle = self.handle_of(&node);
        let source = self.source(&node, &attr, &handle, &want).await?;
        attrs::encode(w, &want, &source);
        self.fresh = Some(attr);
        Ok(())
    }

    pub(crate) async fn attr_of(&self, node: &Node) -> OpResult<Attr> {
        match node {
            Node::Pseudo(id) => self.pseudo_attr(*id),
            Node::Object(o) => Ok(o.vfs().getattr(o.ino, o.generation).await?),
        }
    }

    pub(crate) fn pseudo_attr(&self, id: u64) -> OpResult<Attr> {
        let exports = self.local.exports();
        let change = self.local.shared.pseudo_change(exports.generation);
        exports.tree.attr(id, change, self.local.shared.started).ok_or(Status::STALE)
    }

    async fn source<'s>(
        &self,
        node: &Node,
        attr: &'s Attr,
        handle: &'s [u8],
        want: &Bitmap,
    ) -> OpResult<Source<'s>> {
        let mut source = self.source_without_stat(node, attr, handle);
        if let (Node::Object(o), true) = (node, attrs::needs_statfs(want)) {
            source.stat = Some(o.vfs().statfs().await?);
        }
        Ok(source)
    }

    pub(crate) fn source_without_stat<'s>(
        &self,
        node: &Node,
        attr: &'s Attr,
        handle: &'s [u8],
    ) -> Source<'s> {
        let (fsid, mounted_on) = match node {
            Node::Pseudo(_) => ((0, 0), attr.ino.0),
            Node::Object(o) if o.is_export_root() => (
                o.export.fsid4(),
                self.local.exports().tree.mount_point_id(o.export.id()).unwrap_or(attr.ino.0),
            ),
            Node::Object(o) => (o.export.fsid4(), attr.ino.0),
        };
        Source {
            attr,
            handle,
            fsid,
            mounted_on,
            lease_s: self.local.shared.config.lease_s,
            stat: None,
            minor: self.minor,
        }
    }

    pub(crate) async fn stat_of(&self, export: &LocalExport) -> OpResult<FsStat> {
        Ok(export.vfs.statfs().await?)
    }

    pub(crate) async fn op_verify(&mut self, r: &mut Reader, want_same: bool) -> OpResult {
        let (want, values) = attrs::decode_raw(r)?;
        attrs::comparable(&want, self.minor)?;
        let node = self.node()?.clone();
        let attr = self.attr_of(&node).await?;
        let handle = self.handle_of(&node);
        let source = self.source(&node, &attr, &handle, &want).await?;
        let same = attrs::encoded_values(&want, &source)? == values;
        match (same, want_same) {
            (true, true) | (false, false) => Ok(()),
            (true, false) => Err(Status::SAME),
            (false, true) => Err(Status::NOT_SAME),
        }
    }

    pub(crate) async fn op_secinfo(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let name = component(r)?;
        self.lookup_in_current(&name).await?;
        self.answer_secinfo(w);
        Ok(())
    }

    pub(crate) async fn op_secinfo_no_name(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        match r.u32()? {
            0 => drop(self.node()?),
            1 => self.op_lookupp().await?,
            _ => return Err(Status::BADXDR),
        }
        self.answer_secinfo(w);
        Ok(())
    }

    /// The current file handle is used up (section 2.6.3.1.1.8).
    fn answer_secinfo(&mut self, w: &mut Writer) {
        w.u32(1);
        w.u32(AUTH_SYS);
        self.current = None;
        self.fresh = None;
        self.stateid = None;
    }

    /// The two objects of LINK and RENAME: in one file system that may be written.
    pub(crate) fn saved_and_current(&self) -> OpResult<(Object, Object)> {
        let saved = self.saved.as_ref().ok_or(Status::NOFILEHANDLE)?;
        match (saved, self.node()?) {
            (Node::Object(s), Node::Object(c)) => {
                if !Rc::ptr_eq(&s.export, &c.export) {
                    return Err(Status::XDEV);
                }
                c.writable()?;
                Ok((s.clone(), c.clone()))
            }
            (Node::Pseudo(_), Node::Pseudo(_)) => Err(Status::ROFS),
            _ => Err(Status::XDEV),
        }
    }
}
