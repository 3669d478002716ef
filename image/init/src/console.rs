//! What the operator sees: a line per step on the console, with seconds since kernel start.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Says `text` on the console. The image has no other terminal, so a failure to write has nobody to go to.
pub(crate) fn say(text: &dyn Display) {
    raw(&format!("basalt: [{:7.3}] {text}\n", uptime_s()));
}

/// A line as it stands, such as the data plane's ready line, whose grammar others parse.
pub(crate) fn raw(line: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(line.as_bytes());
    }
}

/// Seconds since the kernel started.
pub(crate) fn uptime_s() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0)
}
