//! The real world: pinned threads over io_uring.

/// How a node's reactors run.
#[derive(Clone, Debug)]
pub struct Config {
    pub cores: u16,
    /// Pin thread `i` to CPU `i` of the allowed set.
    pub pin: bool,
    /// Keep polling this long after the last work before blocking in io_uring_enter.
    pub idle_spin_us: u32,
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
