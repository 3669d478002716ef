//! PID 1 of the appliance image, one static program for both stages.
//!
//! Stage 1 runs from the initrd: it finds the root that its boot image was signed for, puts dm-verity over it and
//! executes itself there. Stage 2 brings the node up and supervises its programs until power-off. There is no shell in
//! the image, so whatever goes wrong is said on the console, with its cause.

mod block;
mod boot;
mod cmdline;
mod console;
mod devmapper;
mod dhcp;
mod disks;
mod drives;
mod http;
mod install;
mod log;
mod modules;
mod net;
mod node;
mod power;
mod programs;
mod root;
mod secret;
mod services;
mod slots;
mod state;
mod supervise;
mod sys;
mod verity;
mod watchdog;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("basalt-init {} is started by the kernel, as process 1", env!("CARGO_PKG_VERSION"));
        return ExitCode::from(2);
    }
    let in_root = std::env::args().nth(1).as_deref() == Some("stage2");
    let result = if in_root { node::run() } else { root::run() };
    // Neither stage returns but with an error.
    if let Err(cause) = result {
        console::say(&cause);
        // It has until the reboot to be told.
        boot::failed(&cause);
    }
    power::give_up()
}
