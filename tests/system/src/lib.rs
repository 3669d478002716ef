//! Whole-system tests: a real data plane, and the Linux kernel's own NFS client in User-Mode Linux, without root.
//!
//! * [`uml`] boots a guest and talks to it; [`guest`] is what runs inside.
//! * [`server`] starts and kills what is tested: our data plane, or nfs-ganesha to test the tests.
//! * [`suite`] holds the tests; [`demo`] is the demonstration of `make run`.
//! * [`wire`] is a small ONC RPC and NFSv3 client for what no kernel client would send.

pub mod demo;
pub mod guest;
pub mod rng;
pub mod server;
pub mod suite;
pub mod sys;
pub mod uml;
pub mod wire;

use std::ffi::OsString;

/// Must be called first by every binary of this crate: the same executable is also the process that owns the
/// guest's namespaces, and the guest's init.
pub fn become_part_of_a_guest() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|a| a.to_str()) {
        Some(guest::GUEST_ARGUMENT) => guest::main(),
        Some(uml::runner::RUNNER_ARGUMENT) => std::process::exit(uml::runner::main(&arguments[2..])),
        _ => {}
    }
}
