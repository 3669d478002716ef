//! System calls that no safe crate offers: device-mapper, loop, network and watchdog ioctls. The only unsafe of this crate.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The child begins with no signal blocked. Init blocks those that it reads from a descriptor, and std hands the mask on: a
/// program that was told to stop would never hear it.
pub(crate) fn unblock_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let clear = || nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec only pthread_sigmask is called, which is async-signal-safe.
    unsafe { command.pre_exec(clear) }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Calls of device-mapper (linux/dm-ioctl.h).
#[derive(Clone, Copy)]
pub(crate) enum DmCall {
    Create,
    TableLoad,
    Suspend,
}

/// Length of `struct dm_ioctl` (linux/dm-ioctl.h).
pub(crate) const DM_HEADER_BYTES: usize = 312;

/// A device-mapper call. `buffer` starts with a `struct dm_ioctl` whose `data_size` is set here.
pub(crate) fn dm_ioctl(control: &File, call: DmCall, buffer: &mut [u8]) -> io::Result<()> {
    assert!(buffer.len() >= DM_HEADER_BYTES && buffer.len() <= 16 * 1024);
    let data_size = (buffer.len() as u32).to_le_bytes();
    buffer[12..16].copy_from_slice(&data_size);
    let number: u64 = match call {
        DmCall::Create => 3,
        DmCall::Suspend => 6,
        DmCall::TableLoad => 9,
    };
    // _IOWR(0xfd, number, struct dm_ioctl)
    let request = (3 << 30) | ((DM_HEADER_BYTES as u64) << 16) | (0xfd << 8) | number;
    // SAFETY: the kernel reads and writes at most `data_size` bytes, which is the buffer's length.
    check(unsafe { libc::ioctl(control.as_raw_fd(), request as _, buffer.as_mut_ptr()) }).map(|_| ())
}

/// The number of a free loop device.
pub(crate) fn loop_get_free(control: &File) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: u64 = 0x4c82;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }).map(|n| n as u32)
}

/// Binds `backing` to the loop device.
pub(crate) fn loop_set_fd(device: &File, backing: &File) -> io::Result<()> {
    const LOOP_SET_FD: u64 = 0x4c00;
    // SAFETY: both descriptors are open for the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, backing.as_raw_fd()) }).map(|_| ())
}

/// Tells the kernel that a partition of `disk` has another length now (linux/blkpg.h).
pub(crate) fn resize_partition(disk: &File, number: u32, start_bytes: u64, len_bytes: u64) -> io::Result<()> {
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: libc::c_int,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Call {
        operation: libc::c_int,
        flags: libc::c_int,
        length: libc::c_int,
        data: *mut Partition,
    }
    const BLKPG: u64 = 0x1269;
    const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
    let mut partition = Partition {
        start: start_bytes as i64,
        length: len_bytes as i64,
        number: number as libc::c_int,
        names: [0; 128],
    };
    let length = size_of::<Partition>() as libc::c_int;
    let mut call = Call { operation: BLKPG_RESIZE_PARTITION, flags: 0, length, data: &raw mut partition };
    // SAFETY: the kernel reads one Call and, through it, one Partition; both outlive the call.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw mut call) }).map(|_| ())
}

/// Starts (`Some(seconds)`) and feeds (`None`) a hardware watchdog.
pub(crate) fn watchdog_set_timeout(device: &File, seconds: i32) -> io::Result<i32> {
    // _IOWR('W', 6, int)
    const WDIOC_SETTIMEOUT: u64 = (3 << 30) | (4 << 16) | (0x57 << 8) | 6;
    let mut value = seconds;
    // SAFETY: the argument is an int that outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &mut value) })?;
    Ok(value)
}

fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn in_sockaddr(address: std::net::Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain 16-byte structures, and the kernel reads the first as the second.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) }
}

/// Sets the interface up.
pub(crate) fn link_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = ifreq(name)?;
    // SAFETY: SIOCGIFFLAGS and SIOCSIFFLAGS read and write one ifreq.
    unsafe {
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request))?;
    }
    Ok(())
}

/// Sets the interface's IPv4 address and mask.
pub(crate) fn set_address(
    socket: BorrowedFd<'_>,
    name: &str,
    address: std::net::Ipv4Addr,
    mask: std::net::Ipv4Addr,
) -> io::Result<()> {
    let mut request = ifreq(name)?;
    // SAFETY: each call reads one ifreq.
    unsafe {
        request.ifr_ifru.ifru_addr = in_sockaddr(address);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &mut request))?;
        request.ifr_ifru.ifru_netmask = in_sockaddr(mask);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFNETMASK as _, &mut request))?;
    }
    Ok(())
}

/// Sets the interface's MTU.
pub(crate) fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = ifreq(name)?;
    request.ifr_ifru.ifru_mtu = i32::from(mtu);
    // SAFETY: reads one ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &mut request) }).map(|_| ())
}

/// Adds the default route by `gateway`.
pub(crate) fn add_default_route(socket: BorrowedFd<'_>, gateway: std::net::Ipv4Addr) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid rtentry.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = in_sockaddr(std::net::Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = in_sockaddr(std::net::Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = in_sockaddr(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: reads one rtentry.
    match check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &route) }) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(|_| ()),
    }
}
