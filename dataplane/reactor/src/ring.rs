//! File I/O on the current reactor's io_uring; real world only (`Unsupported` in the simulator).
//!
//! A dropped future leaves the request to the kernel: it may or may not happen. Its memory stays until it has.

use crate::buf::DmaBuf;
use crate::context::{self, World};
use crate::real::ring::{Gather, Keep, start};
use bytes::{Buf, Bytes};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use std::io;
use std::os::fd::RawFd;

/// Most pieces of one gathering write (UIO_MAXIOV).
pub const IOV_MAX: usize = 1024;

impl Gather {
    pub(crate) fn new(bytes: Vec<Bytes>) -> Gather {
        let iovec = |b: &Bytes| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() };
        // A single piece goes without vectors.
        let iovecs = if bytes.len() > 1 { bytes.iter().map(iovec).collect() } else { Vec::new() };
        Gather { bytes, iovecs, header: Vec::new() }
    }

    /// A message header over the vectors.
    pub(crate) fn message(&mut self) -> *const libc::msghdr {
        // SAFETY: all-zero is a valid msghdr: no name, no vectors, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.iovecs.as_mut_ptr();
        header.msg_iovlen = self.iovecs.len() as _;
        self.header = vec![header];
        self.header.as_ptr()
    }
}

fn available() -> io::Result<()> {
    match context::current().world {
        World::Real(_) => Ok(()),
        World::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Reads up to `buf.len()` bytes. The fd must stay open until this returns.
pub async fn read_at(fd: RawFd, mut buf: DmaBuf, offset: u64) -> (io::Result<usize>, DmaBuf) {
    if let Err(e) = available() {
        return (Err(e), buf);
    }
    let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    let at = buf.as_mut_ptr();
    let entry = if context::current().real().ring.registered(at, buf.len()) {
        opcode::ReadFixed::new(Fd(fd), at, len, 0).offset(offset).build()
    } else {
        opcode::Read::new(Fd(fd), at, len).offset(offset).build()
    };
    // SAFETY: the entry points to the buffer's memory, which `Keep` owns; the caller keeps the fd open.
    let (result, keep) = unsafe { start(entry, Keep::Dma(buf)) }.await;
    let Keep::Dma(buf) = keep else { unreachable!("a request gives back what it was given") };
    (result.map(|n| n as usize), buf)
}

/// Writes all of `bufs`; with `dsync`, durable (RWF_DSYNC) when it returns. The fd must stay open until then.
pub async fn write_at(fd: RawFd, bufs: Vec<Bytes>, offset: u64, dsync: bool) -> io::Result<()> {
    available()?;
    let flags = if dsync { libc::RWF_DSYNC } else { 0 };
    let mut left = bufs;
    left.retain(|b| !b.is_empty());
    let mut offset = offset;
    while !left.is_empty() {
        let rest = left.split_off(left.len().min(IOV_MAX));
        let gather = Gather::new(left);
        let entry = write_entry(fd, &gather, offset, flags);
        // SAFETY: vectors and bytes are heap memory that `Keep` owns (or static); the caller keeps the fd open.
        let (result, keep) = unsafe { start(entry, Keep::Gather(None, gather)) }.await;
        let Keep::Gather(_, Gather { bytes, .. }) = keep else {
            unreachable!("a request gives back what it was given")
        };
        let n = result? as usize;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += n as u64;
        left = after(bytes, n);
        left.extend(rest);
    }
    Ok(())
}

fn write_entry(fd: RawFd, gather: &Gather, offset: u64, flags: i32) -> squeue::Entry {
    match &gather.bytes[..] {
        [one] => {
            let len = u32::try_from(one.len()).unwrap_or(u32::MAX);
            if context::current().real().ring.registered(one.as_ptr(), one.len()) {
                opcode::WriteFixed::new(Fd(fd), one.as_ptr(), len, 0).offset(offset).rw_flags(flags).build()
            } else {
                opcode::Write::new(Fd(fd), one.as_ptr(), len).offset(offset).rw_flags(flags).build()
            }
        }
        _ => {
            let count = gather.iovecs.len() as u32;
            opcode::Writev::new(Fd(fd), gather.iovecs.as_ptr(), count).offset(offset).rw_flags(flags).build()
        }
    }
}

/// What is left of `bytes` when the first `n` are done.
pub(crate) fn after(mut bytes: Vec<Bytes>, mut n: usize) -> Vec<Bytes> {
    let mut whole = 0;
    for b in &bytes {
        if b.len() > n {
            break;
        }
        n -= b.len();
        whole += 1;
    }
    bytes.drain(..whole);
    if let Some(first) = bytes.first_mut() {
        first.advance(n);
    }
    bytes
}

pub async fn fdatasync(fd: RawFd) -> io::Result<()> {
    available()?;
    let entry = opcode::Fsync::new(Fd(fd)).flags(FsyncFlags::DATASYNC).build();
    // SAFETY: the entry points to no memory; the caller keeps the fd open.
    let (result, _) = unsafe { start(entry, Keep::Nothing) }.await;
    result.map(drop)
}

/// `mode` as in fallocate(2).
pub async fn fallocate(fd: RawFd, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    available()?;
    let entry = opcode::Fallocate::new(Fd(fd), len).offset(offset).mode(mode).build();
    // SAFETY: the entry points to no memory; the caller keeps the fd open.
    let (result, _) = unsafe { start(entry, Keep::Nothing) }.await;
    result.map(drop)
}
