//! TCP and Unix sockets over io_uring.

use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

pub(crate) struct Listener {}
pub(crate) struct Stream {}
pub(crate) struct Detached {}

impl Listener {
    pub(crate) fn tcp(_addr: SocketAddr) -> io::Result<Listener> {
        todo!()
    }
    pub(crate) fn unix(_path: &Path) -> io::Result<Listener> {
        todo!()
    }
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        todo!()
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        todo!()
    }
}

impl Stream {
    pub(crate) async fn connect_tcp(_addr: SocketAddr) -> io::Result<Stream> {
        todo!()
    }
    pub(crate) async fn connect_unix(_path: &Path) -> io::Result<Stream> {
        todo!()
    }
    pub(crate) async fn read(&self, _buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        todo!()
    }
    pub(crate) async fn write_all(&self, _bufs: Vec<Bytes>) -> io::Result<()> {
        todo!()
    }
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        todo!()
    }
    pub(crate) fn shutdown(&self) {
        todo!()
    }
    pub(crate) fn detach(self) -> Detached {
        todo!()
    }
}

impl Detached {
    pub(crate) fn attach(self) -> Stream {
        todo!()
    }
}
