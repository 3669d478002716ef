//! Numbers and common structures of NFSv3 (RFC 1813, section 2).

use crate::export::LocalExport;
use crate::v4::types::ftype4;
use crate::xdr::{Malformed, Reader, Writer, XdrResult};
use basalt_shard::vfs::*;

/// nfsstat3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u32);

impl Status {
    pub(crate) const OK: Status = Status(0);
    pub(crate) const ACCES: Status = Status(13);
    pub(crate) const EXIST: Status = Status(17);
    pub(crate) const XDEV: Status = Status(18);
    pub(crate) const INVAL: Status = Status(22);
    pub(crate) const FBIG: Status = Status(27);
    pub(crate) const ROFS: Status = Status(30);
    pub(crate) const NAMETOOLONG: Status = Status(63);
    pub(crate) const STALE: Status = Status(70);
    pub(crate) const BADHANDLE: Status = Status(10001);
    pub(crate) const BAD_COOKIE: Status = Status(10003);
    pub(crate) const TOOSMALL: Status = Status(10005);
    pub(crate) const BADTYPE: Status = Status(10007);
}

impl From<FsError> for Status {
    fn from(e: FsError) -> Status {
        Status(match e {
            FsError::NotPermitted => 1,
            FsError::NotFound => 2,
            FsError::Io => 5,
            // "No more data" is an answer that no v3 procedure can give.
            FsError::NoMoreData => 6,
            FsError::Access | FsError::ShareDenied => 13,
            FsError::Exists => 17,
            FsError::NotDirectory => 20,
            FsError::IsDirectory => 21,
            FsError::Invalid | FsError::WrongType | FsError::IsSymlink => 22,
            FsError::FileTooBig => 27,
            FsError::NoSpace => 28,
            FsError::ReadOnly => 30,
            FsError::TooManyLinks => 31,
            FsError::NameTooLong => 63,
            FsError::NotEmpty => 66,
            FsError::Stale => 70,
            FsError::NotSync => 10002,
            FsError::BadCookie => 10003,
            FsError::NotSupported => 10004,
            FsError::Resource => 10006,
            FsError::Delay => 10008, // JUKEBOX
        })
    }
}

/// Why a procedure has no results: its arguments cannot be read, or it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    Garbage,
    Status(Status),
}
impl From<Malformed> for Fail {
    fn from(_: Malformed) -> Fail {
        Fail::Garbage
    }
}
impl From<FsError> for Fail {
    fn from(e: FsError) -> Fail {
        Fail::Status(e.into())
    }
}
impl From<Status> for Fail {
    fn from(s: Status) -> Fail {
        Fail::Status(s)
    }
}
pub(crate) type OpResult<T = ()> = Result<T, Fail>;

fn time(w: &mut Writer, t: WallTime) {
    w.u32(t.sec.clamp(0, u32::MAX as i64) as u32);
    w.u32(t.nsec);
}

/// fattr3.
pub(crate) fn fattr(w: &mut Writer, export: &LocalExport, a: &Attr) {
    w.u32(ftype4(a.kind)); // ftype3 has the same numbers
    w.u32(a.mode & 0o7777);
    w.u32(a.nlink);
    w.u32(a.uid);
    w.u32(a.gid);
    w.u64(a.size);
    w.u64(a.used);
    w.u32(a.rdev.0);
    w.u32(a.rdev.1);
    w.u64(export.fsid3());
    w.u64(a.ino.0);
    time(w, a.atime);
    time(w, a.mtime);
    time(w, a.ctime);
}

/// post_op_attr, present.
pub(crate) fn post_op(w: &mut Writer, export: &LocalExport, a: &Attr) {
    w.bool(true);
    fattr(w, export, a);
}

/// wcc_data.
pub(crate) fn wcc(w: &mut Writer, export: &LocalExport, before: Option<&PreAttr>, after: &Attr) {
    match before {
        Some(b) => {
            w.bool(true);
            w.u64(b.size);
            time(w, b.mtime);
            time(w, b.ctime);
        }
        None => w.bool(false),
    }
    post_op(w, export, after);
}

pub(crate) fn dir_wcc(w: &mut Writer, export: &LocalExport, d: &DirChange) {
    wcc(w, export, d.atomic.then_some(&d.before), &d.after);
}

/// sattr3.
pub(crate) fn sattr(r: &mut Reader) -> OpResult<SetAttr> {
    fn optional(r: &mut Reader) -> XdrResult<Option<u32>> {
        Ok(if r.bool()? { Some(r.u32()?) } else { None })
    }
    fn settime(r: &mut Reader) -> OpResult<Option<SetTime>> {
        match r.u32()? {
            0 => Ok(None),
            1 => Ok(Some(SetTime::Now)),
            2 => {
                let t = WallTime { sec: r.u32()? as i64, nsec: r.u32()? };
                if t.nsec < 1_000_000_000 { Ok(Some(SetTime::To(t))) } else { Err(Status::INVAL.into()) }
            }
            _ => Err(Fail::Garbage),
        }
    }
    let mode = optional(r)?.map(|m| m & 0o7777);
    let (uid, gid) = (optional(r)?, optional(r)?);
    let size = if r.bool()? { Some(r.u64()?) } else { None };
    let (atime, mtime) = (settime(r)?, settime(r)?);
    if size.is_some_and(|s| s > FILE_SIZE_MAX) {
        return Err(Status::FBIG.into());
    }
    Ok(SetAttr { mode, uid, gid, size, atime, mtime })
}

/// nfstime3, as the guard of SETATTR.
pub(crate) fn guard(r: &mut Reader) -> XdrResult<Option<WallTime>> {
    Ok(if r.bool()? { Some(WallTime { sec: r.u32()? as i64, nsec: r.u32()? }) } else { None })
}

/// filename3 of something to be made or removed.
pub(crate) fn name(r: &mut Reader) -> OpResult<bytes::Bytes> {
    let name = any_name(r)?;
    if &name[..] == b"." || &name[..] == b".." { Err(Status::INVAL.into()) } else { Ok(name) }
}

/// filename3, `.` and `..` included.
pub(crate) fn any_name(r: &mut Reader) -> OpResult<bytes::Bytes> {
    let name = r.opaque(64 << 10)?;
    if name.len() > NAME_MAX {
        return Err(Status::NAMETOOLONG.into());
    }
    if name.is_empty() || name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Status::INVAL.into());
    }
    Ok(name)
}
