//! Byte streams: TCP and Unix sockets in the real world, simulated pipes in `sim`.

use crate::context::{self, World};
use crate::{real, sim};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

pub struct Listener(AnyListener);

enum AnyListener {
    Real(real::socket::Listener),
    Sim(sim::net::Listener),
}

pub struct Stream(AnyStream);

enum AnyStream {
    Real(real::socket::Stream),
    Sim(sim::net::Stream),
}

/// A connection between cores: detached from one reactor, not yet attached to another.
pub struct DetachedStream(AnyDetached);

enum AnyDetached {
    Real(real::socket::Detached),
    Sim(sim::net::Detached),
}

pub async fn listen(addr: SocketAddr) -> io::Result<Listener> {
    Ok(Listener(match &context::current().world {
        World::Real(_) => AnyListener::Real(real::socket::Listener::tcp(addr)?),
        World::Sim(w) => AnyListener::Sim(sim::net::Listener::tcp(w, addr)?),
    }))
}

/// Mode 0600. A stale socket file is replaced; a live one is `AddrInUse`.
pub async fn listen_unix(path: &Path) -> io::Result<Listener> {
    Ok(Listener(match &context::current().world {
        World::Real(_) => AnyListener::Real(real::socket::Listener::unix(path)?),
        World::Sim(w) => AnyListener::Sim(sim::net::Listener::unix(w, path)?),
    }))
}

pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    let reactor = context::current();
    Ok(Stream(match &reactor.world {
        World::Real(_) => AnyStream::Real(real::socket::Stream::connect_tcp(addr).await?),
        World::Sim(w) => AnyStream::Sim(sim::net::Stream::connect_tcp(w, addr).await?),
    }))
}

pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    let reactor = context::current();
    Ok(Stream(match &reactor.world {
        World::Real(_) => AnyStream::Real(real::socket::Stream::connect_unix(path).await?),
        World::Sim(w) => AnyStream::Sim(sim::net::Stream::connect_unix(w, path).await?),
    }))
}

impl Listener {
    /// A dropped accept may take one connection with it, which is closed.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(Stream(match &self.0 {
            AnyListener::Real(l) => AnyStream::Real(l.accept().await?),
            AnyListener::Sim(l) => AnyStream::Sim(l.accept().await?),
        }))
    }

    /// Unspecified (0.0.0.0:0) for Unix sockets.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            AnyListener::Real(l) => l.local_addr(),
            AnyListener::Sim(l) => l.local_addr(),
        }
    }
}

impl Stream {
    /// Appends what has arrived to `buf` (at most its spare capacity, which must not be 0); 0 = end of stream.
    /// Takes and returns the buffer because the kernel owns it meanwhile.
    ///
    /// A dropped read may have taken bytes off the stream: drop the stream too.
    pub async fn read(&self, buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        assert!(buf.capacity() > buf.len(), "a read needs spare capacity");
        match &self.0 {
            AnyStream::Real(s) => s.read(buf).await,
            AnyStream::Sim(s) => s.read(buf).await,
        }
    }

    /// Gathers and writes all of `bufs` (any number; split into IOV_MAX internally). One write at a time per stream.
    ///
    /// A dropped write may have sent a part: drop the stream too.
    pub async fn write_all(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        match &self.0 {
            AnyStream::Real(s) => s.write_all(bufs).await,
            AnyStream::Sim(s) => s.write_all(bufs).await,
        }
    }

    /// `None` for Unix sockets.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            AnyStream::Real(s) => s.peer_addr(),
            AnyStream::Sim(s) => s.peer_addr(),
        }
    }

    /// Both directions: reads of either side end, writes fail. What was written before still arrives.
    pub fn shutdown(&self) {
        match &self.0 {
            AnyStream::Real(s) => s.shutdown(),
            AnyStream::Sim(s) => s.shutdown(),
        }
    }

    /// No read or write may be in progress.
    pub fn detach(self) -> DetachedStream {
        DetachedStream(match self.0 {
            AnyStream::Real(s) => AnyDetached::Real(s.detach()),
            AnyStream::Sim(s) => AnyDetached::Sim(s.detach()),
        })
    }
}

impl DetachedStream {
    /// Attaches to the current reactor.
    pub fn attach(self) -> Stream {
        let reactor = context::current();
        Stream(match (self.0, &reactor.world) {
            (AnyDetached::Real(d), World::Real(_)) => AnyStream::Real(d.attach()),
            (AnyDetached::Sim(d), World::Sim(w)) => AnyStream::Sim(d.attach(w)),
            _ => panic!("a stream belongs to the world it was made in"),
        })
    }
}
