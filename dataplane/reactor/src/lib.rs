//! One executor per core, and the only door to time, randomness, disk and network.
//!
//! Everything here acts on *the current reactor*: the one polling the running task. Product code never names a
//! world; it calls [`now`], [`sleep`], [`spawn`], [`net::listen`], and the same code runs on pinned threads over
//! io_uring or, in [`sim`], on one thread under a virtual clock and a seeded generator.
//!
//! Tasks are `!Send` and never migrate. Cores talk by [`post`] and [`call_on`].

pub mod buf;
mod context;
pub mod event;
pub mod net;
mod poll;
pub mod real;
pub mod ring;
pub mod rng;
pub mod sim;
mod slab;
pub mod sync;
mod task;
mod timer;

pub use poll::{BeforeSleep, PollRegistration, PollSource, register_poll_source};
pub use task::JoinHandle;
pub use timer::{Sleep, sleep, timeout, yield_now};

use std::future::Future;
use std::time::Duration;
use task::Message;

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

/// In the simulator each reading costs a few virtual nanoseconds, so that a loop until a deadline ends.
pub fn now() -> Instant {
    Instant(context::current().now_ns())
}

pub fn wall_clock() -> WallTime {
    context::current().wall_clock()
}

/// Cryptographically strong in the real world, seeded in the simulator.
pub fn fill_random(out: &mut [u8]) {
    context::current().fill_random(out);
}

/// As [`fill_random`].
pub fn random_u64() -> u64 {
    let mut b = [0; 8];
    fill_random(&mut b);
    u64::from_le_bytes(b)
}

/// Starts a task on the current reactor.
pub fn spawn<F: Future + 'static>(f: F) -> JoinHandle<F::Output>
where
    F::Output: 'static,
{
    context::current().spawn(f)
}

pub fn current_core() -> CoreId {
    context::current().core
}

/// Whether the calling code runs on a reactor at all.
pub fn on_reactor() -> bool {
    context::try_current().is_some()
}

/// Reactors of this node.
pub fn core_count() -> u16 {
    context::current().core_count
}

/// Runs `f` on `core` soon; messages from one core to another keep their order.
pub fn post(core: CoreId, f: impl FnOnce() + Send + 'static) {
    context::current().send(core, Message::Call(Box::new(f)));
}

/// Runs the future that `f` makes on `core` and returns its output; inline when `core` is the current one.
///
/// When the caller is dropped the work on the other core goes on to its end.
pub async fn call_on<T, F, Fut>(core: CoreId, f: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    if core == current_core() {
        return f().await;
    }
    let (tx, rx) = sync::oneshot::channel();
    post(core, move || drop(spawn(async move { tx.send(f().await) })));
    match rx.await {
        Some(v) => v,
        // The other core dropped the work: the node is stopping, and so will this task be.
        None => std::future::pending().await,
    }
}

/// Work that is looked for rather than signalled: returns whether it found any.
pub fn register_poller(name: &'static str, poll: impl FnMut() -> bool + 'static) {
    context::current().pollers.borrow_mut().push(context::Poller { name, poll: Box::new(poll) });
}

/// True once the node has been asked to stop; long loops look at it, servers stop accepting.
pub fn draining() -> bool {
    context::current().draining()
}

/// Resolves when the node has been asked to stop.
pub async fn drain_requested() {
    let reactor = context::current();
    let notified = reactor.drain.notified();
    if !reactor.draining() {
        drop(reactor);
        notified.await;
    }
}

/// Asks the node of the current reactor to drain. From outside of reactors: [`real::request_drain`].
pub fn begin_drain() {
    match &context::current().world {
        context::World::Real(_) => real::request_drain(),
        context::World::Sim(w) => w.begin_drain(),
    }
}

/// Object-safe async without allocation in the caller's signature.
pub type LocalBoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;
