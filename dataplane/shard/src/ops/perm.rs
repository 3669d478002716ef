//! POSIX permission rules, as pure functions over inode records.

use crate::inode::Inode;
use crate::vfs::*;

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXEC: u32 = 1;

pub(crate) const SETUID: u32 = 0o4000;
pub(crate) const SETGID: u32 = 0o2000;
pub(crate) const STICKY: u32 = 0o1000;
const GROUP_EXEC: u32 = 0o010;

/// Whether all of `want` (READ, WRITE, EXEC) are allowed.
pub(crate) fn allows(inode: &Inode, cred: &Credentials, want: u32) -> bool {
    if cred.uid == 0 {
        // Root may execute only what somebody may execute, and search everything.
        return want & EXEC == 0 || inode.kind == FileType::Directory || inode.mode & 0o111 != 0;
    }
    let class = if cred.uid == inode.uid {
        6
    } else if cred.in_group(inode.gid) {
        3
    } else {
        0
    };
    (inode.mode >> class) & want == want
}

pub(crate) fn require(inode: &Inode, cred: &Credentials, want: u32) -> FsResult<()> {
    if allows(inode, cred, want) { Ok(()) } else { Err(FsError::Access) }
}

pub(crate) fn require_dir(inode: &Inode) -> FsResult<()> {
    if inode.kind == FileType::Directory { Ok(()) } else { Err(FsError::NotDirectory) }
}

pub(crate) fn require_regular(inode: &Inode) -> FsResult<()> {
    match inode.kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(FsError::IsDirectory),
        FileType::Symlink => Err(FsError::IsSymlink),
        _ => Err(FsError::WrongType),
    }
}

/// Reading contents: the owner always (its open may predate a chmod), and whoever may execute (exec reads the file).
pub(crate) fn may_read(inode: &Inode, cred: &Credentials) -> FsResult<()> {
    if cred.uid == inode.uid || allows(inode, cred, READ) || allows(inode, cred, EXEC) {
        Ok(())
    } else {
        Err(FsError::Access)
    }
}

pub(crate) fn may_write(inode: &Inode, cred: &Credentials) -> FsResult<()> {
    if cred.uid == inode.uid || allows(inode, cred, WRITE) { Ok(()) } else { Err(FsError::Access) }
}

/// The owner of a directory that is sticky, else `None`.
pub(crate) fn sticky_owner(dir: &Inode) -> Option<u32> {
    (dir.mode & STICKY != 0).then_some(dir.uid)
}

/// In a sticky directory only the owner of the entry, of the directory, or root takes names away.
pub(crate) fn sticky_allows(sticky: Option<u32>, child: &Inode, cred: &Credentials) -> FsResult<()> {
    match sticky {
        Some(dir_uid) if cred.uid != 0 && cred.uid != child.uid && cred.uid != dir_uid => {
            Err(FsError::NotPermitted)
        }
        _ => Ok(()),
    }
}

/// Mode bits that a data change by an ordinary user takes away.
pub(crate) fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !SETUID;
    if mode & GROUP_EXEC != 0 { mode & !SETGID } else { mode }
}

pub(crate) fn carries_privileges(inode: &Inode) -> bool {
    inode.kind == FileType::Regular && without_privileges(inode.mode) != inode.mode
}

/// Checks and makes the changes of a SETATTR on the record, except for ctime and change.
pub(crate) fn apply_setattr(
    inode: &mut Inode,
    set: &SetAttr,
    cred: &Credentials,
    now: WallTime,
    opened_for_write: bool,
) -> FsResult<()> {
    let owner = cred.uid == 0 || cred.uid == inode.uid;
    if let Some(size) = set.size {
        match inode.kind {
            FileType::Regular => {}
            FileType::Directory => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Invalid),
        }
        if !opened_for_write {
            may_write(inode, cred)?;
        }
        if size > FILE_SIZE_MAX {
            return Err(FsError::FileTooBig);
        }
    }
    if set.mode.is_some() && !owner {
        return Err(FsError::NotPermitted);
    }
    if let Some(uid) = set.uid
        && cred.uid != 0
        && !(uid == inode.uid && owner)
    {
        return Err(FsError::NotPermitted);
    }
    if let Some(gid) = set.gid
        && cred.uid != 0
        && !(owner && (gid == inode.gid || cred.in_group(gid)))
    {
        return Err(FsError::NotPermitted);
    }
    for time in [set.atime, set.mtime].into_iter().flatten() {
        match time {
            SetTime::To(_) if !owner => return Err(FsError::NotPermitted),
            SetTime::Now if !owner && !allows(inode, cred, WRITE) => return Err(FsError::Access),
            _ => {}
        }
    }

    if let Some(size) = set.size {
        inode.size = size;
        inode.mtime = now;
        if cred.uid != 0 {
            inode.mode = without_privileges(inode.mode);
        }
    }
    if set.uid.is_some() || set.gid.is_some() {
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        if inode.kind != FileType::Directory {
            inode.mode = without_privileges(inode.mode);
        }
    }
    if let Some(mode) = set.mode {
        inode.mode = mode & 0o7777;
        if cred.uid != 0 && !cred.in_group(inode.gid) {
            inode.mode &= !SETGID;
        }
    }
    if let Some(t) = set.atime {
        inode.atime = resolve(t, now);
    }
    if let Some(t) = set.mtime {
        inode.mtime = resolve(t, now);
    }
    Ok(())
}

pub(crate) fn resolve(t: SetTime, now: WallTime) -> WallTime {
    match t {
        SetTime::Now => now,
        SetTime::To(t) => t,
    }
}

/// The subset of an ACCESS mask (RFC 8881, 18.1) that is allowed.
pub(crate) fn access_bits(inode: &Inode, cred: &Credentials, mask: u32) -> u32 {
    let dir = inode.kind == FileType::Directory;
    let mut got = 0;
    let mut grant = |bit: u32, want: u32| {
        if mask & bit != 0 && allows(inode, cred, want) {
            got |= bit;
        }
    };
    grant(ACCESS_READ, READ);
    grant(ACCESS_MODIFY, WRITE);
    grant(ACCESS_EXTEND, WRITE);
    if dir {
        grant(ACCESS_LOOKUP, EXEC);
        grant(ACCESS_DELETE, WRITE | EXEC);
    } else {
        grant(ACCESS_EXECUTE, EXEC);
    }
    got
}
