//! The system calls that the harness and its guest need and the standard library lacks.
//!
//! Everything unsafe of this crate is in this file, one thin function per call.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn c_string(s: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(s.as_ref()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "NUL byte in a string"))
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(path.as_os_str().as_bytes())
}

/// The user the process acts as.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: both calls take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Puts the calling process into new namespaces; it must have one thread only.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: plain flags.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Asks for SIGKILL when the parent dies, so that no guest outlives its harness.
pub fn die_with_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Forks a single-threaded process. `None` in the child.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the caller has one thread, so the child's heap and locks are in order.
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// Waits for any child: its pid and its exit status (128 + signal if killed).
pub fn wait_any() -> io::Result<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let pid = check(unsafe { libc::waitpid(-1, &mut status, 0) })?;
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok((pid, code))
}

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// mount(2).
pub fn mount(source: &str, target: &Path, fstype: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target, fstype, data) =
        (c_string(source)?, c_path(target)?, c_string(fstype)?, c_string(data)?);
    // SAFETY: four NUL-terminated strings that live over the call.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

/// umount2(2).
pub fn umount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: a NUL-terminated string that lives over the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Loads a kernel module from an open file.
pub fn finit_module(file: &File, compressed: bool) -> io::Result<()> {
    let flags: libc::c_int = if compressed { 4 } else { 0 };
    // SAFETY: a valid descriptor, an empty parameter string, a flag word.
    let rc = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Flushes everything and switches the (virtual) machine off.
pub fn power_off() -> ! {
    // SAFETY: neither call touches memory of ours.
    unsafe {
        libc::sync();
        libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF);
    }
    loop {
        std::thread::park();
    }
}

/// sync(2).
pub fn sync() {
    // SAFETY: takes nothing.
    unsafe { libc::sync() }
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    body: [u8; 24],
}

impl InterfaceRequest {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; libc::IFNAMSIZ], body: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn address(name: &str, address: Ipv4Addr) -> Self {
        let mut request = Self::new(name);
        request.body[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        request.body[4..8].copy_from_slice(&address.octets());
        request
    }

    fn flags(name: &str, flags: i16) -> Self {
        let mut request = Self::new(name);
        request.body[..2].copy_from_slice(&flags.to_ne_bytes());
        request
    }

    fn call(&mut self, fd: RawFd, number: libc::c_ulong) -> io::Result<()> {
        // SAFETY: `self` has the layout and size of `struct ifreq`, and every request used here keeps within it.
        check(unsafe { libc::ioctl(fd, number as _, std::ptr::from_mut(self)) }).map(drop)
    }
}

/// Makes a tap device that stays after the descriptor is closed.
pub fn create_tap(name: &str) -> io::Result<()> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    InterfaceRequest::flags(name, flags).call(tun.as_raw_fd(), libc::TUNSETIFF as libc::c_ulong)?;
    // SAFETY: TUNSETPERSIST takes a number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as _, 1) }).map(drop)
}

/// Gives an interface an address with a /24 and brings it up.
pub fn configure_interface(name: &str, address: Ipv4Addr) -> io::Result<()> {
    let socket = control_socket()?;
    let fd = socket.as_raw_fd();
    InterfaceRequest::address(name, address).call(fd, libc::SIOCSIFADDR as libc::c_ulong)?;
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    if !address.is_loopback() {
        InterfaceRequest::address(name, mask).call(fd, libc::SIOCSIFNETMASK as libc::c_ulong)?;
    }
    InterfaceRequest::flags(name, (libc::IFF_UP | libc::IFF_RUNNING) as i16)
        .call(fd, libc::SIOCSIFFLAGS as libc::c_ulong)
}

/// Switches generic receive offload on; large reads stall in a User-Mode Linux guest without it.
pub fn enable_gro(name: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_SGRO: u32 = 0x2c;
    let socket = control_socket()?;
    let mut value: [u32; 2] = [ETHTOOL_SGRO, 1];
    let mut request = InterfaceRequest::new(name);
    let pointer = std::ptr::from_mut(&mut value) as usize;
    request.body[..8].copy_from_slice(&pointer.to_ne_bytes());
    request.call(socket.as_raw_fd(), SIOCETHTOOL)
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the new descriptor is owned from here on.
    unsafe {
        let fd = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// How many descriptors travel in one message at most.
const MAX_PASSED: usize = 4;

/// Sends descriptors over a Unix socket.
pub fn send_fds(socket: RawFd, fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= MAX_PASSED);
    let mut byte = 0u8;
    let mut control = [0u64; 8];
    let mut part = libc::iovec { iov_base: std::ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    let bytes = std::mem::size_of_val(fds);
    // SAFETY: `control` is aligned and larger than CMSG_SPACE of four descriptors; all pointers outlive the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(bytes as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), bytes);
        if libc::sendmsg(socket, &message, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receives descriptors from a Unix socket; an error if the other side closed it.
pub fn receive_fds(socket: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut byte = 0u8;
    let mut control = [0u64; 8];
    let mut part = libc::iovec { iov_base: std::ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    let mut fds = Vec::new();
    // SAFETY: as in `send_fds`; the kernel made the descriptors for this process, which owns them from here on.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let got = libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC);
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&message);
        if got == 0 || header.is_null() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the namespace process ended"));
        }
        let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
        for index in 0..count.min(MAX_PASSED) {
            let fd = libc::CMSG_DATA(header).cast::<RawFd>().add(index).read_unaligned();
            fds.push(OwnedFd::from_raw_fd(fd));
        }
    }
    Ok(fds)
}

/// Lets a descriptor live through exec.
pub fn keep_over_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Takes over a descriptor inherited under a known number.
pub fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the parent passed this number on the command line for this process alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes closing this socket send a reset, as a dying host would.
pub fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` has the type and the size that SO_LINGER wants.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// Sizes of a file system, in bytes and in inodes.
#[derive(Debug, Clone, Copy)]
pub struct FsSize {
    /// Size of the file system.
    pub total_bytes: u64,
    /// Bytes not used.
    pub free_bytes: u64,
    /// Bytes an ordinary user may still use.
    pub available_bytes: u64,
    /// Inodes in all.
    pub inodes: u64,
}

/// statvfs(3).
pub fn fs_size(path: &Path) -> io::Result<FsSize> {
    let path = c_path(path)?;
    // SAFETY: a NUL-terminated path and a zeroed structure of the right type.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &mut stat))?;
        Ok(FsSize {
            total_bytes: stat.f_blocks * stat.f_frsize,
            free_bytes: stat.f_bfree * stat.f_frsize,
            available_bytes: stat.f_bavail * stat.f_frsize,
            inodes: stat.f_files,
        })
    }
}

/// Where a seek for data or for a hole lands; `None` at the end.
pub fn seek_data_or_hole(file: &File, offset: u64, data: bool) -> io::Result<Option<u64>> {
    let whence = if data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
    // SAFETY: plain numbers.
    let at = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) };
    if at < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) };
    }
    Ok(Some(at as u64))
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) }).map(drop)
}

/// mkfifo, mknod for devices and sockets.
pub fn mknod(path: &Path, mode: libc::mode_t, device: libc::dev_t) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a NUL-terminated path.
    check(unsafe { libc::mknod(path.as_ptr(), mode, device) }).map(drop)
}

/// utimensat(2) with nanoseconds, following no symlink.
pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) -> io::Result<()> {
    let path = c_path(path)?;
    let times = [
        libc::timespec { tv_sec: atime.0, tv_nsec: atime.1 },
        libc::timespec { tv_sec: mtime.0, tv_nsec: mtime.1 },
    ];
    // SAFETY: a NUL-terminated path and two time values.
    check(unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
    .map(drop)
}

/// renameat2(2).
pub fn rename_with_flags(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    // SAFETY: two NUL-terminated paths.
    let rc = unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// flock(2).
pub fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: a valid descriptor and a flag word.
    check(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// A record lock that belongs to the open file (`F_OFD_SETLK`), without waiting.
pub fn record_lock(file: &File, kind: libc::c_int, start: u64, len: u64) -> io::Result<()> {
    // SAFETY: a zeroed flock structure, filled in; valid descriptor.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as _;
        lock.l_whence = libc::SEEK_SET as _;
        lock.l_start = start as i64;
        lock.l_len = len as i64;
        check(libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock)).map(drop)
    }
}

/// A shared writable mapping of a whole file.
pub struct Mapping {
    address: *mut u8,
    len_bytes: usize,
}

impl Mapping {
    /// Maps the first `len_bytes` of the file.
    pub fn new(file: &File, len_bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: address.cast(), len_bytes })
    }

    /// Stores bytes into the mapping.
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len_bytes);
        // SAFETY: the range was just checked against the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.add(offset), bytes.len()) }
    }

    /// msync(MS_SYNC).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping's own address and length.
        check(unsafe { libc::msync(self.address.cast(), self.len_bytes, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping's own address and length, not used after this.
        unsafe { libc::munmap(self.address.cast(), self.len_bytes) };
    }
}

/// Sets an environment variable; for a process with one thread.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: called by the guest's init before it starts a thread.
    unsafe { std::env::set_var(name, value) }
}

/// close(2) with its result, which the standard library throws away.
pub fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was owned and is used no more.
    check(unsafe { libc::close(file.into_raw_fd()) }).map(drop)
}

/// Makes the modes given to open and mkdir the modes that files get.
pub fn clear_umask() {
    // SAFETY: a plain number; cannot fail.
    unsafe { libc::umask(0) };
}

/// Runs file calls as another user, on this thread alone.
pub fn as_user<T>(uid: u32, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // The raw calls act on one thread; the C library's wrappers would change all of them.
    // SAFETY: plain numbers.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, uid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
    let result = call();
    // SAFETY: as above.
    unsafe {
        libc::syscall(libc::SYS_setfsuid, 0);
        libc::syscall(libc::SYS_setfsgid, 0);
    }
    result
}

/// setxattr(2).
pub fn set_xattr(path: &Path, name: &CString, value: &[u8]) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: NUL-terminated strings and a buffer with its length.
    check(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
        .map(drop)
}

/// getxattr(2), up to 4 KiB.
pub fn get_xattr(path: &Path, name: &CString) -> io::Result<Vec<u8>> {
    let path = c_path(path)?;
    let mut value = vec![0u8; 4096];
    // SAFETY: NUL-terminated strings and a buffer with its length.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(len as usize);
    Ok(value)
}
