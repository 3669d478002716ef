//! Reboot and power-off, and what is done where nothing can go on.

use crate::console::say;
use nix::sys::reboot::{RebootMode, reboot};
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

/// How long a message that ends in a reboot stays on the screen.
const READING_TIME: Duration = Duration::from_secs(10);

/// Through the firmware: kexec would leave out the boot loader that counts tries.
pub(crate) fn restart() -> Result<Infallible, nix::errno::Errno> {
    nix::unistd::sync();
    reboot(RebootMode::RB_AUTOBOOT)
}

pub(crate) fn off() -> Result<Infallible, nix::errno::Errno> {
    nix::unistd::sync();
    reboot(RebootMode::RB_POWER_OFF)
}

/// Nothing can go on: the cause is on the console. The node reboots, so that the boot loader can try the other slot, or
/// the network can offer something better.
pub(crate) fn give_up() -> ExitCode {
    say(&format_args!("cannot go on; rebooting in {} s", READING_TIME.as_secs()));
    std::thread::sleep(READING_TIME);
    let Err(e) = restart();
    say(&format_args!("reboot: {e}"));
    ExitCode::FAILURE
}
