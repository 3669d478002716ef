//! Lines of the guest on its serial port. Everything else there is the kernel's console.

use serde::{Deserialize, Serialize};

const MARK: &str = "@basalt ";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Line {
    /// Init runs.
    Up,
    Passed {
        test: String,
        ms: u64,
    },
    Failed {
        test: String,
        why: String,
    },
    /// The guest waits until the host has done this; it sees the effect by itself.
    Want(Want),
    Figure(Figure),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Want {
    /// The drive in the hot-plug slot is asked back (attention button).
    Remove,
    /// ... and put in again.
    Insert,
    /// The slow drive does one request per second from now on.
    Slow,
    Fast,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) metric: String,
    pub(crate) ours_iops: f64,
    pub(crate) ours_cpu_s_per_s: f64,
    pub(crate) kernel_iops: f64,
    pub(crate) kernel_cpu_s_per_s: f64,
}

impl Line {
    pub(crate) fn print(&self) {
        // One write, so that the kernel's lines do not come between; a line break first ends theirs.
        println!("\n{MARK}{}", serde_json::to_string(self).unwrap_or_default());
    }

    pub(crate) fn parse(text: &str) -> Option<Line> {
        let (_, json) = text.split_once(MARK)?;
        serde_json::from_str(json.trim()).ok()
    }
}
