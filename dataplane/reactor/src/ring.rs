//! File I/O on the current reactor's io_uring; real world only (`Unsupported` in the simulator).

use crate::buf::DmaBuf;
use bytes::Bytes;
use std::io;
use std::os::fd::RawFd;

/// Reads up to `buf.len()` bytes. The fd must stay open until this returns.
pub async fn read_at(_fd: RawFd, _buf: DmaBuf, _offset: u64) -> (io::Result<usize>, DmaBuf) {
    todo!()
}
/// Writes all of `bufs`; with `dsync`, durable (RWF_DSYNC) when it returns.
pub async fn write_at(_fd: RawFd, _bufs: Vec<Bytes>, _offset: u64, _dsync: bool) -> io::Result<()> {
    todo!()
}
pub async fn fdatasync(_fd: RawFd) -> io::Result<()> {
    todo!()
}
/// `mode` as in fallocate(2).
pub async fn fallocate(_fd: RawFd, _mode: i32, _offset: u64, _len: u64) -> io::Result<()> {
    todo!()
}
