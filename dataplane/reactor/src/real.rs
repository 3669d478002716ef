//! The real world: pinned threads over io_uring.

mod clock;
mod eventloop;
pub(crate) mod ring;
pub(crate) mod socket;

pub(crate) use clock::{drain_eventfd, eventfd, fill_random, now_ns, ring_eventfd, wall_clock};

use crate::CoreId;
use crate::context::{self, Reactor, World};
use crate::task::{Bell, Shared};
use crate::timer::Timers;
use ring::Ring;
use std::any::Any;
use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How a node's reactors run.
#[derive(Clone, Debug)]
pub struct Config {
    pub cores: u16,
    /// Pin thread `i` to CPU `i` of the allowed set.
    pub pin: bool,
    /// Keep polling this long after the last work before blocking in io_uring_enter.
    pub idle_spin_us: u32,
}

impl Default for Config {
    /// One reactor that spins for little more than the cost of going to sleep and waking up (some 10 µs).
    fn default() -> Self {
        Config { cores: 1, pin: false, idle_spin_us: 20 }
    }
}

/// The real side of a reactor.
pub(crate) struct Local {
    pub(crate) node: Arc<Node>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) ring: Ring,
}

/// What the reactors of a node share.
pub(crate) struct Node {
    pub(crate) cores: Vec<Arc<Shared>>,
    stop: AtomicBool,
    /// Value of `DRAIN_REQUESTS` when the node started.
    drains_before: u64,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Node {
    pub(crate) fn draining(&self) -> bool {
        DRAIN_REQUESTS.load(Ordering::Acquire) != self.drains_before
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn request_stop(&self) {
        // SeqCst, as it must not pass the look at who is asleep.
        self.stop.store(true, Ordering::SeqCst);
        for core in &self.cores {
            core.wake_if_asleep();
        }
    }
}

/// Requests since the process started. Each node compares with what it found, so that one run's drain is not the next's.
static DRAIN_REQUESTS: AtomicU64 = AtomicU64::new(0);
/// An eventfd that every ring of the process watches; never closed, so a signal handler may write to it at any time.
static DRAIN_EVENT: AtomicI32 = AtomicI32::new(-1);

/// Asks the running node to drain; async-signal-safe, callable from any thread. With several nodes in one process
/// (tests) it reaches all of them.
pub fn request_drain() {
    DRAIN_REQUESTS.fetch_add(1, Ordering::AcqRel);
    clock::ring_eventfd(DRAIN_EVENT.load(Ordering::Acquire));
}

fn drain_event() -> i32 {
    static CREATING: Mutex<()> = Mutex::new(());
    let _one = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    if DRAIN_EVENT.load(Ordering::Acquire) < 0 {
        let fd = clock::eventfd().expect("an eventfd for drain requests (raise the limit of open files)");
        DRAIN_EVENT.store(std::os::fd::IntoRawFd::into_raw_fd(fd), Ordering::Release);
    }
    DRAIN_EVENT.load(Ordering::Acquire)
}

/// Runs `main` on reactor 0 of a fresh node and blocks until it returns, then stops all reactors: what still runs is
/// dropped. A panic on any reactor stops the node and goes on here.
pub fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
    config: Config,
    main: impl FnOnce() -> F + Send + 'static,
) -> T {
    assert!(config.cores > 0, "a node has at least one core");
    let events: Vec<Arc<OwnedFd>> = (0..config.cores)
        .map(|_| Arc::new(clock::eventfd().expect("an eventfd per reactor (raise the limit of open files)")))
        .collect();
    let cores = events.iter().map(|event| {
        let event = event.clone();
        let bell: Bell = Box::new(move || clock::ring_eventfd(event.as_raw_fd()));
        Shared::new(Some(bell))
    });
    let node = Arc::new(Node {
        cores: cores.collect(),
        stop: AtomicBool::new(false),
        drains_before: DRAIN_REQUESTS.load(Ordering::Acquire),
        panic: Mutex::default(),
    });
    let drain_fd = drain_event();
    let output = Arc::new(Mutex::new(None));
    let mut main = Some(Main { main, output: output.clone(), node: node.clone() });
    let mut threads = Vec::new();
    for (i, event) in events.into_iter().enumerate() {
        let (node, config) = (node.clone(), config.clone());
        let main = if i == 0 { main.take() } else { None };
        let body = move || {
            reactor_thread(i as u16, &config, &node, &event, drain_fd, |r| {
                if let Some(m) = main {
                    m.start(r);
                }
            })
        };
        let thread = std::thread::Builder::new().name(format!("reactor-{i}")).spawn(body);
        threads.push(thread.expect("a thread per reactor (raise the limit of processes)"));
    }
    for t in threads {
        // Panics are caught inside and kept in the node.
        let _ = t.join();
    }
    if let Some(panic) = node.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
        resume_unwind(panic);
    }
    let output = output.lock().unwrap_or_else(PoisonError::into_inner).take();
    output.expect("the node stops only when main has returned or a reactor has panicked")
}

/// The future that the node lives for.
struct Main<T, M> {
    main: M,
    output: Arc<Mutex<Option<T>>>,
    node: Arc<Node>,
}

impl<T: Send + 'static, F: Future<Output = T> + 'static, M: FnOnce() -> F> Main<T, M> {
    fn start(self, reactor: &Rc<Reactor>) {
        let future = (self.main)();
        let (output, node) = (self.output, self.node);
        drop(reactor.spawn(async move {
            let v = future.await;
            *output.lock().unwrap_or_else(PoisonError::into_inner) = Some(v);
            node.request_stop();
        }));
    }
}

fn reactor_thread(
    core: u16,
    config: &Config,
    node: &Arc<Node>,
    event: &OwnedFd,
    drain_fd: i32,
    start: impl FnOnce(&Rc<Reactor>),
) {
    let body = AssertUnwindSafe(|| {
        if config.pin {
            clock::pin_to_nth_cpu(usize::from(core));
        }
        let ring = Ring::new(event.as_raw_fd(), drain_fd).unwrap_or_else(|e| {
            panic!("no io_uring ({e}): Basalt needs Linux 6.1 with io_uring allowed (kernel.io_uring_disabled=0) and, on older kernels, locked memory")
        });
        let local = Local { node: node.clone(), timers: RefCell::default(), ring };
        let shared = node.cores[usize::from(core)].clone();
        // Forgotten on a panic, not dropped: tasks may be in any state, and the kernel may still write into buffers.
        let reactor =
            std::mem::ManuallyDrop::new(Reactor::new(CoreId(core), config.cores, shared, World::Real(local)));
        let entered = std::mem::ManuallyDrop::new(context::enter((*reactor).clone()));
        start(&reactor);
        reactor.run_until_stopped(config.idle_spin_us);
        reactor.drop_all_tasks();
        reactor.finish_ring();
        drop(std::mem::ManuallyDrop::into_inner(entered));
        drop(std::mem::ManuallyDrop::into_inner(reactor));
    });
    if let Err(panic) = catch_unwind(body) {
        node.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        node.request_stop();
    }
}

impl Reactor {
    pub(crate) fn real(&self) -> &Local {
        match &self.world {
            World::Real(l) => l,
            World::Sim(_) => unreachable!("asked of a simulated reactor"),
        }
    }
}
