//! Network, mount and process namespaces of its own, and their first process.

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// How far in this process is.
const INSIDE: &str = "BASALT_SERVER_TESTS_INSIDE";

/// Starts this program again inside; `None` there. Whatever still runs when it ends, goes with the namespaces.
pub(crate) fn enter() -> Option<ExitCode> {
    match std::env::var(INSIDE).as_deref() {
        Ok("tests") => None,
        Ok(_) => Some(first_process()),
        Err(_) => Some(outside()),
    }
}

fn again() -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program does not find itself: {e}"))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    Ok(command)
}

fn outside() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("basalt-server-tests: libvirt and network namespaces need root");
        return ExitCode::FAILURE;
    }
    let Ok(me) = std::env::current_exe() else { return ExitCode::FAILURE };
    // Debian keeps daemons out of a user's search path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.args(["--propagation", "private"]).arg(me).args(std::env::args_os().skip(1));
    inside.env("PATH", path).env(INSIDE, "first");
    eprintln!("unshare: {}", inside.exec());
    ExitCode::FAILURE
}

/// QEMU is nobody's child once libvirt has started it: somebody has to collect it when it ends, or libvirt takes it to be running.
fn first_process() -> ExitCode {
    let child = match again().and_then(|mut c| c.env(INSIDE, "tests").spawn().map_err(|e| e.to_string())) {
        Ok(child) => child,
        Err(message) => {
            eprintln!("basalt-server-tests: {message}");
            return ExitCode::FAILURE;
        }
    };
    let tests = Pid::from_raw(child.id() as i32);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == tests => {
                return ExitCode::from(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == tests => {
                return ExitCode::from(if signal == Signal::SIGINT { 130 } else { 1 });
            }
            Err(nix::Error::ECHILD) => return ExitCode::FAILURE,
            _ => {}
        }
    }
}
