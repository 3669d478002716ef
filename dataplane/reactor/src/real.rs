//! The real world: pinned threads over io_uring.

pub(crate) mod socket;

use crate::WallTime;
use crate::task::Shared;
use crate::timer::Timers;
use std::cell::RefCell;
use std::sync::Arc;

/// How a node's reactors run.
#[derive(Clone, Debug)]
pub struct Config {
    pub cores: u16,
    /// Pin thread `i` to CPU `i` of the allowed set.
    pub pin: bool,
    /// Keep polling this long after the last work before blocking in io_uring_enter.
    pub idle_spin_us: u32,
}

/// The real side of a reactor.
pub(crate) struct Local {
    pub(crate) node: Arc<Node>,
    pub(crate) timers: RefCell<Timers>,
}

/// What the reactors of a node share.
pub(crate) struct Node {
    pub(crate) cores: Vec<Arc<Shared>>,
}

impl Node {
    pub(crate) fn draining(&self) -> bool {
        todo!()
    }
}

pub(crate) fn now_ns() -> u64 {
    todo!()
}
pub(crate) fn wall_clock() -> WallTime {
    todo!()
}
pub(crate) fn fill_random(_out: &mut [u8]) {
    todo!()
}

/// Runs `main` on reactor 0 of a fresh node and blocks until it returns, then stops all reactors.
pub fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
    _config: Config,
    _main: impl FnOnce() -> F + Send + 'static,
) -> T {
    todo!()
}

/// Asks the running node to drain; async-signal-safe, callable from any thread.
pub fn request_drain() {
    todo!()
}
