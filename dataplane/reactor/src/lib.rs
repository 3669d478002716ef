//! One executor per core, and the only door to time, randomness, disk and network.
//!
//! Everything here acts on *the current reactor*: the one polling the running task. Product code never names a
//! world; it calls [`now`], [`sleep`], [`spawn`], [`net::listen`], and the same code runs on pinned threads over
//! io_uring or, in [`sim`], on one thread under a virtual clock and a seeded generator.
//!
//! Tasks are `!Send` and never migrate. Cores talk by [`post`] and [`call_on`].

pub mod buf;
pub mod net;
pub mod real;
pub mod ring;
pub mod sim;
pub mod sync;

use std::future::Future;
use std::time::Duration;

/// Index of a reactor within its node, 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// Nanoseconds on CLOCK_BOOTTIME (virtual nanoseconds in the simulator). Never compared across nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    pub fn elapsed(self) -> Duration {
        now().since(self)
    }
    /// Zero when `earlier` is in the future.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time, for file times only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WallTime {
    pub sec: i64,
    pub nsec: u32,
}

pub fn now() -> Instant {
    todo!()
}
pub fn wall_clock() -> WallTime {
    todo!()
}
/// Cryptographically strong in the real world, seeded in the simulator.
pub fn fill_random(_out: &mut [u8]) {
    todo!()
}
pub fn random_u64() -> u64 {
    todo!()
}

pub async fn sleep(_d: Duration) {
    todo!()
}
/// Lets every other ready task of this reactor run once.
pub async fn yield_now() {
    todo!()
}
/// `None` when `d` passed first; the future is dropped then.
pub async fn timeout<F: Future>(_d: Duration, _f: F) -> Option<F::Output> {
    todo!()
}

/// A task of this reactor. Dropping the handle detaches the task; awaiting it yields its output.
pub struct JoinHandle<T> {
    _p: std::marker::PhantomData<T>,
}
impl<T> JoinHandle<T> {
    /// Drops the task at its next suspension point.
    pub fn cancel(self) {
        todo!()
    }
}
impl<T> Future for JoinHandle<T> {
    type Output = T;
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        todo!()
    }
}

pub fn spawn<F: Future + 'static>(_f: F) -> JoinHandle<F::Output> {
    todo!()
}

pub fn current_core() -> CoreId {
    todo!()
}
/// Reactors of this node.
pub fn core_count() -> u16 {
    todo!()
}
/// Runs `f` on `core` soon; messages from one core to another keep their order.
pub fn post(_core: CoreId, _f: impl FnOnce() + Send + 'static) {
    todo!()
}
/// Runs the future that `f` makes on `core` and returns its output; inline when `core` is the current one.
pub async fn call_on<T, F, Fut>(_core: CoreId, _f: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    todo!()
}

/// Work that is looked for rather than signalled: returns whether it found any.
pub fn register_poller(_name: &'static str, _poll: impl FnMut() -> bool + 'static) {
    todo!()
}
/// True once the node has been asked to stop; long loops look at it, servers stop accepting.
pub fn draining() -> bool {
    todo!()
}
/// Resolves when the node has been asked to stop.
pub async fn drain_requested() {
    todo!()
}

/// Object-safe async without allocation in the caller's signature.
pub type LocalBoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;
