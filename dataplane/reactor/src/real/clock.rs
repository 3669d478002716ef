//! What the kernel gives apart from I/O: clocks, randomness, CPUs, eventfds.

use crate::WallTime;
use std::cell::RefCell;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

fn clock_gettime(clock: libc::clockid_t) -> libc::timespec {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for the result.
    let rc = unsafe { libc::clock_gettime(clock, &mut ts) };
    assert_eq!(rc, 0, "these clocks exist on every Linux");
    ts
}

pub(crate) fn now_ns() -> u64 {
    let ts = clock_gettime(libc::CLOCK_BOOTTIME);
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

pub(crate) fn wall_clock() -> WallTime {
    let ts = clock_gettime(libc::CLOCK_REALTIME);
    WallTime { sec: ts.tv_sec, nsec: ts.tv_nsec as u32 }
}

/// getrandom(2) output not handed out yet: a system call per 8 bytes would cost more than most callers do.
struct Stock {
    bytes: [u8; 256],
    left: usize,
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { bytes: [0; 256], left: 0 }) };
}

pub(crate) fn fill_random(out: &mut [u8]) {
    STOCK.with_borrow_mut(|stock| {
        if out.len() > stock.bytes.len() {
            return getrandom(out);
        }
        if out.len() > stock.left {
            getrandom(&mut stock.bytes);
            stock.left = stock.bytes.len();
        }
        stock.left -= out.len();
        let given = &mut stock.bytes[stock.left..][..out.len()];
        out.copy_from_slice(given);
        given.fill(0);
    });
}

fn getrandom(mut out: &mut [u8]) {
    while !out.is_empty() {
        // SAFETY: `out` is a valid place for `out.len()` bytes.
        let n = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => out = &mut out[n..],
            Err(_) => {
                let e = io::Error::last_os_error();
                assert_eq!(e.kind(), io::ErrorKind::Interrupted, "getrandom: {e}");
            }
        }
    }
}

pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Async-signal-safe; does nothing with a negative fd.
pub(crate) fn ring_eventfd(fd: i32) {
    if fd < 0 {
        return;
    }
    let one = 1u64;
    // SAFETY: `one` is 8 readable bytes; errno belongs to this thread and is put back, as a signal handler must. A full
    // counter (EAGAIN) rings as well.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let _ = libc::write(fd, (&raw const one).cast(), 8);
        *errno = before;
    }
}

/// Resets the counter; whether it had counted anything.
pub(crate) fn drain_eventfd(fd: i32) -> bool {
    let mut count = 0u64;
    // SAFETY: `count` is 8 writable bytes. The fd is nonblocking; EAGAIN leaves nothing to reset.
    let n = unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
    n == 8
}

/// Pins the calling thread to the `n`-th CPU that it may use (counting round).
pub(super) fn pin_to_nth_cpu(n: usize) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `allowed` has the size given.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return warn_unpinned(n);
    }
    // SAFETY: the indices are below CPU_SETSIZE.
    let cpus: Vec<_> =
        (0..libc::CPU_SETSIZE as usize).filter(|&c| unsafe { libc::CPU_ISSET(c, &allowed) }).collect();
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the index is below CPU_SETSIZE; a running thread is allowed at least one CPU.
    unsafe { libc::CPU_SET(cpus[n % cpus.len()], &mut one) };
    // SAFETY: `one` has the size given.
    if unsafe { libc::sched_setaffinity(0, size, &one) } != 0 {
        warn_unpinned(n);
    }
}

fn warn_unpinned(n: usize) {
    let cause = io::Error::last_os_error();
    tracing::warn!(reactor = n, %cause, "cannot pin this reactor to a CPU; it runs unpinned");
}
