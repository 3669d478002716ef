//! TCP and Unix sockets over io_uring.

use super::ring::{Gather, Keep, start};
use crate::ring::{IOV_MAX, after};
use bytes::{Bytes, BytesMut};
use io_uring::opcode;
use io_uring::types::Fd;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(crate) struct Listener {
    fd: Rc<OwnedFd>,
    addr: SocketAddr,
    /// Removed when the listener goes.
    unix_path: Option<PathBuf>,
}

impl Listener {
    pub(crate) fn tcp(addr: SocketAddr) -> io::Result<Listener> {
        // Sets SO_REUSEADDR. Left in blocking mode: io_uring waits by itself.
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok(Listener { fd: Rc::new(listener.into()), addr, unix_path: None })
    }

    pub(crate) fn unix(path: &Path) -> io::Result<Listener> {
        match std::fs::symlink_metadata(path) {
            Ok(m) if !m.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(_) if somebody_listens(path)? => return Err(io::ErrorKind::AddrInUse.into()),
            _ => {}
        }
        // Bound under another name and moved into place, so that nobody can connect before the mode is set.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(name);
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        let in_place = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&fresh, path));
        if let Err(e) = in_place {
            let _ = std::fs::remove_file(&fresh);
            return Err(e);
        }
        let addr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Ok(Listener { fd: Rc::new(listener.into()), addr, unix_path: Some(path.to_owned()) })
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        loop {
            let entry =
                opcode::Accept::new(Fd(self.fd.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build();
            // SAFETY: the entry points to no memory; `Keep` holds the socket.
            let (result, _) = unsafe { start(entry, Keep::Accept(self.fd.clone())) }.await;
            match result {
                Ok(fd) => {
                    // SAFETY: the accepted connection's fd, owned by nobody else.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                    if self.unix_path.is_some() {
                        return Ok(Stream { fd: Rc::new(fd), peer: None });
                    }
                    match tune(fd) {
                        Ok((fd, peer)) => return Ok(Stream { fd: Rc::new(fd), peer: Some(peer) }),
                        // The peer has left already.
                        Err(_) => continue,
                    }
                }
                // accept(2): errors of a connection that died in the backlog are not the listener's.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.unix_path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tune(fd: OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let tcp = TcpStream::from(fd);
    tcp.set_nodelay(true)?;
    let peer = tcp.peer_addr()?;
    Ok((tcp.into(), peer))
}

fn socket(family: libc::c_int, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Copies `addr` to the start of a fresh sockaddr_storage.
fn storage_of<A: Copy>(addr: A) -> Vec<libc::sockaddr_storage> {
    const { assert!(size_of::<A>() <= size_of::<libc::sockaddr_storage>()) };
    // SAFETY: all-zero is a valid sockaddr_storage (AF_UNSPEC).
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: `A` is one of the sockaddr structs, which fit (asserted) and need no more alignment than the storage.
    unsafe { (&raw mut storage).cast::<A>().write(addr) };
    vec![storage]
}

type Address = (Vec<libc::sockaddr_storage>, libc::socklen_t);

fn inet_address(addr: SocketAddr) -> Address {
    match addr {
        SocketAddr::V4(a) => {
            let sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            (storage_of(sin), size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(a) => {
            let sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: a.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            (storage_of(sin6), size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

fn unix_address(path: &Path) -> io::Result<Address> {
    let bytes = path.as_os_str().as_bytes();
    let mut sun = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    // One byte is the terminating NUL.
    if bytes.is_empty() || bytes.len() >= sun.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: a socket's path has 1 to 107 bytes; choose a shorter one", path.display()),
        ));
    }
    for (to, from) in sun.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((storage_of(sun), size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Tells a live socket file from a stale one, without waiting.
fn somebody_listens(path: &Path) -> io::Result<bool> {
    let (addr, len) = unix_address(path)?;
    let fd = socket(libc::AF_UNIX, libc::SOCK_NONBLOCK)?;
    // SAFETY: `addr` holds an address of `len` bytes.
    let rc = unsafe { libc::connect(fd.as_raw_fd(), addr.as_ptr().cast(), len) };
    // EAGAIN: a full backlog, hence alive.
    Ok(rc == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN))
}

pub(crate) struct Stream {
    fd: Rc<OwnedFd>,
    peer: Option<SocketAddr>,
}

impl Stream {
    pub(crate) async fn connect_tcp(addr: SocketAddr) -> io::Result<Stream> {
        let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let fd = connect(socket(family, 0)?, inet_address(addr)).await?;
        let fd = Rc::try_unwrap(fd).map_or_else(|shared| shared.try_clone(), Ok)?;
        let (fd, peer) = tune(fd)?;
        Ok(Stream { fd: Rc::new(fd), peer: Some(peer) })
    }

    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Stream> {
        let fd = connect(socket(libc::AF_UNIX, 0)?, unix_address(path)?).await?;
        Ok(Stream { fd, peer: None })
    }

    pub(crate) async fn read(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let spare = buf.spare_capacity_mut();
        let len = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(self.fd.as_raw_fd()), spare.as_mut_ptr().cast(), len).build();
        // SAFETY: the entry points to the spare capacity of `buf`, heap memory that `Keep` owns and nobody else refers
        // to (BytesMut is unique); `Keep` holds the socket.
        let (result, keep) = unsafe { start(entry, Keep::Recv(self.fd.clone(), buf)) }.await;
        let Keep::Recv(_, mut buf) = keep else { unreachable!("a request gives back what it was given") };
        let result = result.map(|n| {
            // SAFETY: the kernel has written `n` bytes after the first `len()`, no more than the spare capacity.
            unsafe { buf.set_len(buf.len() + n as usize) };
            n as usize
        });
        (result, buf)
    }

    pub(crate) async fn write_all(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        let mut left = bufs;
        left.retain(|b| !b.is_empty());
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(IOV_MAX));
            // MSG_WAITALL makes short sends rare.
            let (sent, bytes) = self.send(left).await?;
            left = after(bytes, sent);
            left.extend(rest);
        }
        Ok(())
    }

    /// Returns how many bytes went, and the buffers.
    async fn send(&self, bytes: Vec<Bytes>) -> io::Result<(usize, Vec<Bytes>)> {
        let fd = Fd(self.fd.as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let mut gather = Gather::new(bytes);
        let entry = match &gather.bytes[..] {
            [one] => {
                let len = u32::try_from(one.len()).unwrap_or(u32::MAX);
                opcode::Send::new(fd, one.as_ptr(), len).flags(flags).build()
            }
            _ => opcode::SendMsg::new(fd, gather.message()).flags(flags as u32).build(),
        };
        // SAFETY: header, vectors and bytes are heap memory that `gather` owns (or static), and `Keep` holds the socket.
        let (result, keep) = unsafe { start(entry, Keep::Gather(Some(self.fd.clone()), gather)) }.await;
        let Keep::Gather(_, gather) = keep else { unreachable!("a request gives back what it was given") };
        Ok((result? as usize, gather.bytes))
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(crate) fn shutdown(&self) {
        // SAFETY: no pointers. An error means that the peer was faster.
        let _ = unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }

    pub(crate) fn detach(self) -> Detached {
        Detached { fd: Rc::try_unwrap(self.fd).or_else(|shared| shared.try_clone()), peer: self.peer }
    }
}

async fn connect(fd: OwnedFd, (addr, len): Address) -> io::Result<Rc<OwnedFd>> {
    let fd = Rc::new(fd);
    let entry = opcode::Connect::new(Fd(fd.as_raw_fd()), addr.as_ptr().cast(), len).build();
    // SAFETY: the address is heap memory that `Keep` owns, as it owns the socket.
    let (result, keep) = unsafe { start(entry, Keep::Connect(fd.clone(), addr)) }.await;
    drop(keep);
    result.map(|_| fd)
}

/// The fd, unless a cancelled request still held it and it could not be duplicated: then attaching gives a stream
/// whose every use fails.
pub(crate) struct Detached {
    fd: io::Result<OwnedFd>,
    peer: Option<SocketAddr>,
}

impl Detached {
    pub(crate) fn attach(self) -> Stream {
        let fd = self.fd.or_else(|_| socket(libc::AF_UNIX, 0)).expect("a file descriptor");
        Stream { fd: Rc::new(fd), peer: self.peer }
    }
}
