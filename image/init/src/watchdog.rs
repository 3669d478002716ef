//! The watchdog device: a kernel or an init that hangs reboots the node.

use crate::console::say;
use crate::modules::Modules;
use crate::sys;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The supervisor's loop feeds it at least every second; a long I/O stall of the state partition must not trip it.
const TIMEOUT_S: i32 = 60;

pub(crate) struct Watchdog(Option<File>);

impl Watchdog {
    /// Opens the hardware's, or the kernel's software watchdog where there is none.
    pub(crate) fn start(modules: &mut Modules) -> Watchdog {
        let device = Path::new("/dev/watchdog");
        if !device.exists() {
            for name in ["iTCO_wdt", "sp5100_tco", "wdat_wdt", "i6300esb", "ipmi_watchdog", "softdog"] {
                modules.load(name);
                if device.exists() {
                    break;
                }
            }
        }
        let opened = OpenOptions::new().write(true).open(device).and_then(|file| {
            let seconds = sys::watchdog_set_timeout(&file, TIMEOUT_S)?;
            Ok((file, seconds))
        });
        match opened {
            Ok((file, seconds)) => {
                say(&format_args!("watchdog {}: reboots after a hang of {seconds} s", identity()));
                Watchdog(Some(file))
            }
            Err(e) => {
                say(&format_args!("no watchdog ({e}): a hang will not reboot this node"));
                Watchdog(None)
            }
        }
    }

    pub(crate) fn feed(&mut self) {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(b"1");
        }
    }
}

fn identity() -> String {
    let text = std::fs::read_to_string("/sys/class/watchdog/watchdog0/identity").unwrap_or_default();
    text.trim().to_owned()
}
