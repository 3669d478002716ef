//! The procedures but those that list directories.

use super::types::{self, Fail, OpResult, Status};
use super::{Request, handle_bytes};
use crate::auth::Auth;
use crate::export::LocalExport;
use crate::handle::Handle;
use crate::rpc::IO_MAX_BYTES;
use crate::stats::bump;
use crate::v4::compound::{Node, Object};
use crate::v4::stable_how;
use crate::xdr::{Malformed, Reader, Writer, pieces_len};
use basalt_shard::vfs::*;
use std::rc::Rc;

/// LINK, SYMLINK, HOMOGENEOUS, CANSETTIME.
const FSF_PROPERTIES: u32 = 0x1b;
const DIRECTORY_READ_BYTES: u32 = 64 << 10;

impl Request<'_> {
    /// The status, and the whole body that starts with it. An error only when the arguments cannot be read.
    pub(super) async fn execute(&self, procedure: u32, mut r: Reader) -> Result<(Status, Writer), Malformed> {
        let r = &mut r;
        let mut w = Writer::new();
        w.u32(0);
        let outcome = match procedure {
            1 => self.getattr(r, &mut w).await,
            2 => self.setattr(r, &mut w).await,
            3 => self.lookup(r, &mut w).await,
            4 => self.access(r, &mut w).await,
            5 => self.readlink(r, &mut w).await,
            6 => self.read(r, &mut w).await,
            7 => self.write(r, &mut w).await,
            8 => self.create(r, &mut w).await,
            9 => self.mkdir(r, &mut w).await,
            10 => self.symlink(r, &mut w).await,
            11 => self.mknod(r, &mut w).await,
            12 => self.remove(r, &mut w, false).await,
            13 => self.remove(r, &mut w, true).await,
            14 => self.rename(r, &mut w).await,
            15 => self.link(r, &mut w).await,
            16 => self.readdir(r, &mut w).await,
            17 => self.readdirplus(r, &mut w).await,
            18 => self.fsstat(r, &mut w).await,
            19 => self.fsinfo(r, &mut w).await,
            20 => self.pathconf(r, &mut w).await,
            _ => self.commit(r, &mut w).await,
        };
        match outcome {
            Ok(()) => Ok((Status::OK, w)),
            Err(Fail::Garbage) => Err(Malformed),
            Err(Fail::Status(s)) => {
                let mut w = Writer::new();
                w.u32(s.0);
                // Every *resfail: post_op_attr and wcc_data, all absent.
                let absent = match procedure {
                    1 => 0,
                    3..=6 | 16..=20 => 1,
                    14 => 4,
                    15 => 3,
                    _ => 2,
                };
                for _ in 0..absent {
                    w.bool(false);
                }
                Ok((s, w))
            }
        }
    }

    pub(super) fn object(&self, r: &mut Reader) -> OpResult<Object> {
        let bytes = handle_bytes(r)?;
        let handle = Handle::decode(&bytes, &self.local.shared.secret).map_err(|_| Status::BADHANDLE)?;
        match crate::v4::resolve(&self.local.exports(), handle) {
            Ok(Node::Object(o)) if o.export.export.admits(self.peer.address) => Ok(o),
            Ok(Node::Object(_)) => Err(Status::ACCES.into()),
            // Pseudo directories are NFSv4's.
            Ok(Node::Pseudo(_)) | Err(_) => Err(Status::STALE.into()),
        }
    }

    pub(super) fn writable(&self, r: &mut Reader) -> OpResult<Object> {
        let o = self.object(r)?;
        if o.export.read_only() { Err(Status::ROFS.into()) } else { Ok(o) }
    }

    pub(super) fn context(&self, export: &LocalExport) -> Context {
        export.context(self.auth, None)
    }
    fn once(&self, export: &LocalExport) -> Context {
        export.context(self.auth, self.replay)
    }

    pub(super) fn handle(&self, export: &Rc<LocalExport>, a: &Attr) -> [u8; crate::handle::HANDLE_BYTES] {
        Object::of(export, a).handle().encode(&self.local.shared.secret)
    }

    async fn getattr(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let a = o.vfs().getattr(o.ino, o.generation).await?;
        types::fattr(w, &o.export, &a);
        Ok(())
    }

    async fn setattr(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let set = types::sattr(r)?;
        let guard = types::guard(r)?;
        if o.export.read_only() {
            return Err(Status::ROFS.into());
        }
        let (before, after) = o.vfs().setattr(&self.once(&o.export), o.ino, set, guard, false).await?;
        types::wcc(w, &o.export, Some(&before), &after);
        Ok(())
    }

    async fn lookup(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.object(r)?;
        let name = types::any_name(r)?;
        let cx = self.context(&dir.export);
        let (attr, dir_attr) = match &name[..] {
            b"." => {
                let a = dir.vfs().getattr(dir.ino, dir.generation).await?;
                (a.clone(), a)
            }
            b".." => {
                let parent = dir.vfs().lookup_parent(&cx, dir.ino).await?;
                (parent, dir.vfs().getattr(dir.ino, dir.generation).await?)
            }
            name => dir.vfs().lookup(&cx, dir.ino, name).await?,
        };
        w.opaque(&self.handle(&dir.export, &attr));
        types::post_op(w, &dir.export, &attr);
        types::post_op(w, &dir.export, &dir_attr);
        Ok(())
    }

    async fn access(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let asked = r.u32()? & 0x3f;
        let (mut allowed, a) = o.vfs().access(&self.context(&o.export), o.ino, asked).await?;
        if o.export.read_only() {
            allowed &= !(ACCESS_MODIFY | ACCESS_EXTEND | ACCESS_DELETE);
        }
        types::post_op(w, &o.export, &a);
        w.u32(allowed & asked);
        Ok(())
    }

    async fn readlink(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let (target, a) = o.vfs().readlink(&self.context(&o.export), o.ino).await?;
        types::post_op(w, &o.export, &a);
        w.opaque(&target);
        Ok(())
    }

    async fn read(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let (offset, count) = (r.u64()?, r.u32()?);
        let cx = self.context(&o.export);
        let reply = o.vfs().read(&cx, o.ino, offset, count.min(IO_MAX_BYTES), false).await?;
        let len = pieces_len(&reply.data);
        bump(&self.local.stats.bytes_read, len as u64);
        types::post_op(w, &o.export, &reply.attr);
        w.u32(len as u32);
        w.bool(reply.eof);
        w.opaque_pieces(reply.data);
        Ok(())
    }

    async fn write(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.writable(r)?;
        let (offset, count) = (r.u64()?, r.u32()?);
        let stability = match r.u32()? {
            0 => Stability::Unstable,
            1 => Stability::DataSync,
            2 => Stability::FileSync,
            _ => return Err(Fail::Garbage),
        };
        let data = r.opaque(crate::rpc::RECORD_MAX_BYTES)?;
        let len = (count as usize).min(data.len()).min(IO_MAX_BYTES as usize);
        let data = data.slice(..len);
        if offset.checked_add(len as u64).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(Status::FBIG.into());
        }
        let cx = self.context(&o.export);
        let reply = o.vfs().write(&cx, o.ino, offset, vec![data], stability, false).await?;
        bump(&self.local.stats.bytes_written, reply.count as u64);
        types::wcc(w, &o.export, Some(&reply.before), &reply.after);
        w.u32(reply.count);
        w.u32(stable_how(reply.committed));
        w.fixed(&reply.verifier);
        Ok(())
    }

    fn made(&self, w: &mut Writer, export: &Rc<LocalExport>, made: &Created) {
        w.bool(true);
        w.opaque(&self.handle(export, &made.attr));
        types::post_op(w, export, &made.attr);
        types::dir_wcc(w, export, &made.dir);
    }

    async fn create(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        let (how, set) = match r.u32()? {
            0 => (CreateHow::Unchecked, types::sattr(r)?),
            1 => (CreateHow::Guarded, types::sattr(r)?),
            2 => (CreateHow::Exclusive(r.fixed()?), SetAttr::default()),
            _ => return Err(Fail::Garbage),
        };
        let cx = self.once(&dir.export);
        let made = dir.vfs().create(&cx, dir.ino, &name, NodeKind::Regular, how, set).await?;
        if made.attr.kind != FileType::Regular {
            return Err(Status::EXIST.into());
        }
        self.made(w, &dir.export, &made);
        Ok(())
    }

    async fn make(
        &self,
        w: &mut Writer,
        dir: &Object,
        name: &[u8],
        kind: NodeKind,
        mut set: SetAttr,
    ) -> OpResult {
        set.size = None;
        let cx = self.once(&dir.export);
        let made = dir.vfs().create(&cx, dir.ino, name, kind, CreateHow::Guarded, set).await?;
        self.made(w, &dir.export, &made);
        Ok(())
    }

    async fn mkdir(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        let set = types::sattr(r)?;
        self.make(w, &dir, &name, NodeKind::Directory, set).await
    }

    async fn symlink(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        let set = types::sattr(r)?;
        let target = r.opaque(64 << 10)?;
        if target.is_empty() {
            return Err(Status::INVAL.into());
        }
        if target.len() > SYMLINK_MAX {
            return Err(Status::NAMETOOLONG.into());
        }
        self.make(w, &dir, &name, NodeKind::Symlink(target), set).await
    }

    async fn mknod(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        let (kind, set) = match r.u32()? {
            device @ (3 | 4) => {
                let set = types::sattr(r)?;
                let (major, minor) = (r.u32()?, r.u32()?);
                let block = device == 3;
                (
                    if block {
                        NodeKind::BlockDevice(major, minor)
                    } else {
                        NodeKind::CharDevice(major, minor)
                    },
                    set,
                )
            }
            6 => (NodeKind::Socket, types::sattr(r)?),
            7 => (NodeKind::Fifo, types::sattr(r)?),
            1 | 2 | 5 => return Err(Status::BADTYPE.into()),
            _ => return Err(Fail::Garbage),
        };
        self.make(w, &dir, &name, kind, set).await
    }

    async fn remove(&self, r: &mut Reader, w: &mut Writer, directory: bool) -> OpResult {
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        let d = dir.vfs().remove(&self.once(&dir.export), dir.ino, &name, Some(directory)).await?;
        types::dir_wcc(w, &dir.export, &d);
        Ok(())
    }

    async fn rename(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let from = self.writable(r)?;
        let old = types::name(r)?;
        let to = self.writable(r)?;
        let new = types::name(r)?;
        if !Rc::ptr_eq(&from.export, &to.export) {
            return Err(Status::XDEV.into());
        }
        let (source, target) = to.vfs().rename(&self.once(&to.export), from.ino, &old, to.ino, &new).await?;
        types::dir_wcc(w, &to.export, &source);
        types::dir_wcc(w, &to.export, &target);
        Ok(())
    }

    async fn link(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let source = self.writable(r)?;
        let dir = self.writable(r)?;
        let name = types::name(r)?;
        if !Rc::ptr_eq(&source.export, &dir.export) {
            return Err(Status::XDEV.into());
        }
        let (a, d) = dir.vfs().link(&self.once(&dir.export), source.ino, dir.ino, &name).await?;
        types::post_op(w, &dir.export, &a);
        types::dir_wcc(w, &dir.export, &d);
        Ok(())
    }

    async fn fsstat(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let s = o.vfs().statfs().await?;
        let a = o.vfs().getattr(o.ino, o.generation).await?;
        types::post_op(w, &o.export, &a);
        for v in [s.total_bytes, s.free_bytes, s.available_bytes, s.total_files, s.free_files, s.free_files] {
            w.u64(v);
        }
        w.u32(0);
        Ok(())
    }

    async fn fsinfo(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        if *self.auth == Auth::None && !o.is_export_root() {
            return Err(Status::ACCES.into());
        }
        let a = o.vfs().getattr(o.ino, o.generation).await?;
        types::post_op(w, &o.export, &a);
        for v in [IO_MAX_BYTES, IO_MAX_BYTES, 4096, IO_MAX_BYTES, IO_MAX_BYTES, 4096, DIRECTORY_READ_BYTES] {
            w.u32(v);
        }
        w.u64(FILE_SIZE_MAX);
        w.u32(0);
        w.u32(1); // times are kept to the nanosecond
        w.u32(FSF_PROPERTIES);
        Ok(())
    }

    async fn pathconf(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.object(r)?;
        let a = o.vfs().getattr(o.ino, o.generation).await?;
        types::post_op(w, &o.export, &a);
        w.u32(LINK_MAX);
        w.u32(NAME_MAX as u32);
        w.bool(true); // no_trunc
        w.bool(true); // chown_restricted
        w.bool(false); // case_insensitive
        w.bool(true); // case_preserving
        Ok(())
    }

    async fn commit(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let o = self.writable(r)?;
        let (offset, count) = (r.u64()?, r.u32()?);
        let (verifier, before, after) =
            o.vfs().commit(&self.context(&o.export), o.ino, offset, count as u64).await?;
        types::wcc(w, &o.export, Some(&before), &after);
        w.fixed(&verifier);
        Ok(())
    }
}
