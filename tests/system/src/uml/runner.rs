//! The process that owns the guest's namespaces.
//!
//! It is this same executable, started again with a hidden first argument, so that it has one thread when it
//! enters its namespaces: a user namespace (no root needed), a network of its own with a tap for the guest, and
//! a process namespace, so that killing one process ends every process of the guest.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Command, Stdio};

use super::{CONTROL_PORT, GUEST_MOUNT_PORT, GUEST_NFS_PORT, HOST_ADDRESS};
use crate::sys;

/// First argument that turns this executable into the runner.
pub(crate) const RUNNER_ARGUMENT: &str = "__uml-runner";

/// Runs as the namespace process: `RUNNER_ARGUMENT FD PROGRAM ARGUMENTS…`.
pub(crate) fn main(arguments: &[OsString]) -> i32 {
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot start the guest: {error}");
            1
        }
    }
}

fn run(arguments: &[OsString]) -> io::Result<i32> {
    sys::die_with_parent();
    let [fd, program, rest @ ..] = arguments else {
        return Err(io::Error::other("the runner is started by the harness only"));
    };
    let fd: RawFd = fd.to_string_lossy().parse().map_err(io::Error::other)?;
    let harness = sys::inherited(fd);
    enter_namespaces()?;
    sys::configure_interface("lo", Ipv4Addr::LOCALHOST)?;
    sys::create_tap(super::TAP)
        .map_err(|e| io::Error::new(e.kind(), format!("no tap device ({e}); is /dev/net/tun there?")))?;
    sys::configure_interface(super::TAP, HOST_ADDRESS)?;
    let nfs = TcpListener::bind((HOST_ADDRESS, GUEST_NFS_PORT))?;
    let mount = TcpListener::bind((HOST_ADDRESS, GUEST_MOUNT_PORT))?;
    let control = TcpListener::bind((HOST_ADDRESS, CONTROL_PORT))?;
    sys::send_fds(harness.as_raw_fd(), &[nfs.as_raw_fd(), mount.as_raw_fd(), control.as_raw_fd()])?;
    drop((nfs, mount, control));

    // The child is process 1 of the new process namespace: it starts the kernel and reaps what is left behind.
    if sys::fork()?.is_some() {
        return loop {
            match sys::wait_any() {
                Ok((_, code)) => break Ok(code),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
    }
    sys::die_with_parent();
    let kernel = Command::new(program).args(rest).stdin(Stdio::null()).spawn()?;
    loop {
        match sys::wait_any() {
            Ok((pid, code)) if pid as u32 == kernel.id() => return Ok(code),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn enter_namespaces() -> io::Result<()> {
    let (uid, gid) = sys::effective_ids();
    match sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWPID) {
        Ok(()) => {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        }
        // Some containers forbid user namespaces but run us as root, who needs none.
        Err(_) if uid == 0 => sys::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWPID),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "this user may not make namespaces ({error}); try sysctl kernel.unprivileged_userns_clone=1"
            ),
        )),
    }
}
