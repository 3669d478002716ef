//! A userspace NVMe driver: polled queues over VFIO, one pair per reactor, as a block device like any other.
//!
//! From the wire up:
//! * [`spec`]: registers, commands, identify structures and logs, as the specifications define them;
//! * [`format`](mod@format): which namespaces can be drives; [`pointer`](mod@pointer): PRP and SGL; [`dma`]: memory that controllers see;
//! * [`queue`]: a queue pair with its table of commands in flight; [`recovery`]: what is done about time-outs and
//!   misbehaviour. Both without I/O, driven alike by real controllers and by the one in memory (`mock`);
//! * [`transport`]: how a controller is reached, [`vfio`] the way there is;
//! * [`controller`]: bring-up, admin commands, supervision, reset, maintenance; `io`: an I/O queue on its reactor;
//! * [`drive`]: namespaces as `basalt_bdev` drives.

pub mod controller;
pub mod dma;
pub mod drive;
pub mod error;
pub mod format;
mod io;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
pub mod pointer;
pub mod queue;
pub mod recovery;
pub mod spec;
pub mod transport;
pub mod vfio;

pub use controller::{Controller, Timing};
pub use drive::NvmeDrive;
pub use error::NvmeError;
