//! Byte streams: TCP and Unix sockets in the real world, simulated pipes in `sim`.

use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

pub struct Listener {}
pub struct Stream {}
/// A connection between cores: detached from one reactor, not yet attached to another.
pub struct DetachedStream {}

pub async fn listen(_addr: SocketAddr) -> io::Result<Listener> {
    todo!()
}
/// Mode 0600. A stale socket file is replaced; a live one is `AddrInUse`.
pub async fn listen_unix(_path: &Path) -> io::Result<Listener> {
    todo!()
}
pub async fn connect(_addr: SocketAddr) -> io::Result<Stream> {
    todo!()
}
pub async fn connect_unix(_path: &Path) -> io::Result<Stream> {
    todo!()
}

impl Listener {
    pub async fn accept(&self) -> io::Result<Stream> {
        todo!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
}

impl Stream {
    /// Appends what has arrived to `buf` (at most its spare capacity, which must not be 0); 0 = end of stream.
    /// Takes and returns the buffer because the kernel owns it meanwhile.
    pub async fn read(&self, _buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        todo!()
    }
    /// Gathers and writes all of `bufs` (any number; split into IOV_MAX internally). One write at a time per stream.
    pub async fn write_all(&self, _bufs: Vec<Bytes>) -> io::Result<()> {
        todo!()
    }
    /// `None` for Unix sockets.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        todo!()
    }
    pub fn shutdown(&self) {
        todo!()
    }
    pub fn detach(self) -> DetachedStream {
        todo!()
    }
}
impl DetachedStream {
    /// Attaches to the current reactor.
    pub fn attach(self) -> Stream {
        todo!()
    }
}
