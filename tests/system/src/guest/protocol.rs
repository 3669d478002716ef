//! What the harness and the guest's agent say to each other: one JSON value per line.

use serde::{Deserialize, Serialize};

use crate::guest::bench::BenchPlan;
use crate::guest::chaos::ChaosPlan;
use crate::uml::NfsVersion;

/// A request to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the outcome.
    pub id: u64,
    /// What to do.
    pub operation: Operation,
}

/// What the agent can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Operation {
    /// Mount an export.
    Mount {
        /// Protocol version.
        version: NfsVersion,
        /// Path of the export.
        export: String,
        /// Directory in the guest, made if missing.
        target: String,
        /// More mount options, with a leading comma.
        extra: String,
        /// Port of the v3 MOUNT service.
        mount_port: u16,
    },
    /// Unmount.
    Unmount {
        /// Directory in the guest.
        target: String,
    },
    /// Forget clean pages, directory entries and inodes.
    DropCaches,
    /// Run `/bin/sh -ec SCRIPT`.
    Shell {
        /// The script.
        script: String,
    },
    /// The calls of POSIX one by one, in a directory.
    Posix {
        /// An empty directory on the mount.
        dir: String,
        /// What the mount speaks; locks are tried on v4 only.
        version: NfsVersion,
    },
    /// Many files in one directory.
    ManyFiles {
        /// The directory to make.
        dir: String,
        /// How many.
        count: u32,
    },
    /// Write a file of seeded bytes.
    WriteSeeded {
        /// The file.
        path: String,
        /// Length.
        len_bytes: u64,
        /// Seed of the content.
        seed: u64,
    },
    /// Read it back and compare.
    VerifySeeded {
        /// The file.
        path: String,
        /// Length it must have.
        len_bytes: u64,
        /// Seed of the content.
        seed: u64,
    },
    /// Write files until a write fails; the text is how many bytes went in, and the error's number.
    FillUp {
        /// The directory to fill.
        dir: String,
    },
    /// Small synchronous operations for some time, so that journals fill; the text is how many.
    Load {
        /// A directory on the mount.
        dir: String,
        /// For how long.
        seconds: u64,
    },
    /// statvfs: `used_bytes total_bytes`.
    FsSize {
        /// A path on the mount.
        path: String,
    },
    /// Random operations against a model.
    Chaos(ChaosPlan),
    /// One row of a benchmark; the text is a [`crate::guest::bench::BenchResult`] as JSON.
    Bench(BenchPlan),
    /// Switch the guest off.
    PowerOff,
}

/// The agent's answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which request.
    pub id: u64,
    /// Whether it went well.
    pub ok: bool,
    /// Output, or what went wrong.
    pub text: String,
}
