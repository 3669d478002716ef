//! Opening and locking: what kind of thing a path is, how large, and who else has it.

use super::Kind;
use crate::{BLOCK_BYTES, BdevError, Result};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// linux/fs.h; libc has no names for them on every target.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
const BLKSSZGET: libc::c_ulong = 0x1268;

pub(super) struct Opened {
    pub(super) file: File,
    pub(super) kind: Kind,
    pub(super) size_bytes: u64,
    pub(super) block_bytes: u32,
    pub(super) volatile_cache: bool,
}

pub(super) fn open(path: &Path, name: &str) -> Result<Opened> {
    let failed = |cause: String| BdevError::Open { drive: name.to_owned(), cause };
    let meta = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    let kind = match meta.file_type() {
        t if t.is_file() => Kind::File,
        t if t.is_block_device() => Kind::BlockDevice,
        _ => return Err(failed("it is neither a file nor a block device".to_owned())),
    };
    let file = open_direct(path, kind, name).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => failed("it is mounted or in use by another program; free it first".to_owned()),
        _ => failed(e.to_string()),
    })?;
    if kind == Kind::File {
        lock(&file).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                failed("it is open as a drive already, here or in another process".to_owned())
            }
            _ => failed(format!("cannot lock it: {e}")),
        })?;
    }
    let (size, block_bytes) = match kind {
        // After locking: nobody of ours changes the size any more.
        Kind::File => (file.metadata().map(|m| m.len()), Ok(BLOCK_BYTES as u32)),
        Kind::BlockDevice => (device_size(&file), device_block(&file)),
    };
    let size_bytes = size.map_err(|e| failed(e.to_string()))? / BLOCK_BYTES * BLOCK_BYTES;
    let block_bytes = block_bytes.map_err(|e| failed(e.to_string()))?;
    if size_bytes == 0 {
        return Err(failed("it holds less than 4096 bytes".to_owned()));
    }
    if u64::from(block_bytes) > BLOCK_BYTES {
        return Err(failed(format!("its blocks of {block_bytes} bytes are larger than 4096; reformat it")));
    }
    let volatile_cache = kind == Kind::File || device_caches(meta.rdev());
    Ok(Opened { file, kind, size_bytes, block_bytes, volatile_cache })
}

fn open_direct(path: &Path, kind: Kind, name: &str) -> io::Result<File> {
    // O_EXCL without O_CREAT claims a block device (open(2)).
    let claim = if kind == Kind::BlockDevice { libc::O_EXCL } else { 0 };
    let open = |flags| File::options().read(true).write(true).custom_flags(claim | flags).open(path);
    match open(libc::O_DIRECT) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            tracing::warn!(
                drive = name,
                "its file system refuses O_DIRECT; reads and writes go through the page cache"
            );
            open(0)
        }
        other => other,
    }
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn device_size(file: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 writes a u64.
    match unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

fn device_block(file: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes an int.
    match unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET as _, &raw mut bytes) } {
        0 => Ok(bytes.unsigned_abs()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unknown counts as cached: a flush too many is only slow.
fn device_caches(rdev: u64) -> bool {
    let (major, minor) = (libc::major(rdev), libc::minor(rdev));
    let sys = format!("/sys/dev/block/{major}:{minor}");
    // A partition's queue is its disk's.
    let read = |tail| std::fs::read_to_string(format!("{sys}/{tail}"));
    let mode = read("queue/write_cache").or_else(|_| read("../queue/write_cache"));
    !mode.is_ok_and(|m| m.trim() == "write through")
}
