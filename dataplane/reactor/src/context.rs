//! The current reactor: the one whose task is being polled on this thread.
//!
//! Real reactors enter once per thread. The simulator enters around each poll, so that one thread hosts many.

use crate::poll::Source;
use crate::slab::Slab;
use crate::sync::Notify;
use crate::task::{Message, Shared};
use crate::{CoreId, WallTime, real, sim};
use async_task::Runnable;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

pub(crate) struct Reactor {
    pub(crate) core: CoreId,
    pub(crate) core_count: u16,
    pub(crate) shared: Arc<Shared>,
    /// Tasks to poll.
    pub(crate) ready: RefCell<VecDeque<Runnable>>,
    /// A waker per living task, to find them all when the reactor stops.
    pub(crate) tasks: RefCell<Slab<Waker>>,
    pub(crate) pollers: RefCell<Vec<Poller>>,
    pub(crate) sources: RefCell<Vec<Source>>,
    pub(crate) drain: Notify,
    pub(crate) drain_announced: Cell<bool>,
    pub(crate) world: World,
}

pub(crate) struct Poller {
    #[allow(dead_code, reason = "read in a debugger")]
    pub(crate) name: &'static str,
    pub(crate) poll: Box<dyn FnMut() -> bool>,
}

#[allow(clippy::large_enum_variant, reason = "one per reactor, and never moved")]
pub(crate) enum World {
    Real(real::Local),
    Sim(sim::Local),
}

impl Reactor {
    pub(crate) fn new(core: CoreId, core_count: u16, shared: Arc<Shared>, world: World) -> Rc<Reactor> {
        Rc::new(Reactor {
            core,
            core_count,
            shared,
            ready: RefCell::default(),
            tasks: RefCell::default(),
            pollers: RefCell::default(),
            sources: RefCell::default(),
            drain: Notify::new(),
            drain_announced: Cell::new(false),
            world,
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        match &self.world {
            World::Real(_) => real::now_ns(),
            World::Sim(w) => w.read_clock_ns(),
        }
    }

    pub(crate) fn wall_clock(&self) -> WallTime {
        match &self.world {
            World::Real(_) => real::wall_clock(),
            World::Sim(w) => w.wall_clock(),
        }
    }

    pub(crate) fn fill_random(&self, out: &mut [u8]) {
        match &self.world {
            World::Real(_) => real::fill_random(out),
            World::Sim(w) => w.world.rng.borrow_mut().fill(out),
        }
    }

    /// The clock that timers run on.
    pub(crate) fn timer_clock_ns(&self) -> u64 {
        match &self.world {
            World::Real(_) => real::now_ns(),
            World::Sim(w) => w.world.now_ns.get(),
        }
    }

    pub(crate) fn add_timer(&self, deadline_ns: u64, waker: Waker) -> u64 {
        match &self.world {
            World::Real(w) => w.timers.borrow_mut().insert(deadline_ns, waker),
            World::Sim(w) => w.world.add_timer(deadline_ns, waker),
        }
    }

    /// `None` when the timer has fired.
    pub(crate) fn remove_timer(&self, deadline_ns: u64, seq: u64) -> Option<Waker> {
        match &self.world {
            World::Real(w) => w.timers.borrow_mut().remove(deadline_ns, seq),
            World::Sim(w) => w.world.remove_timer(deadline_ns, seq),
        }
    }

    /// Hands a message to a core of this node.
    pub(crate) fn send(&self, to: CoreId, message: Message) {
        assert!(to.0 < self.core_count, "core {} of a node with {}", to.0, self.core_count);
        match &self.world {
            World::Real(w) => w.node.cores[usize::from(to.0)].deliver(message),
            World::Sim(w) => w.send(self, to, message),
        }
    }

    pub(crate) fn draining(&self) -> bool {
        match &self.world {
            World::Real(w) => w.node.draining(),
            World::Sim(w) => w.drain.get(),
        }
    }

    pub(crate) fn announce_drain(&self) {
        if !self.drain_announced.replace(true) {
            self.drain.notify_all();
        }
    }

    /// Looks for work in every source and poller once.
    pub(crate) fn run_pollers(&self) -> bool {
        let found = self.poll_sources();
        if self.pollers.borrow().is_empty() {
            return found;
        }
        // Out of the cell while they run: a poller may register another.
        let mut pollers = std::mem::take(&mut *self.pollers.borrow_mut());
        let mut found = found;
        for p in &mut pollers {
            found |= (p.poll)();
        }
        let mut cell = self.pollers.borrow_mut();
        pollers.append(&mut cell);
        *cell = pollers;
        found
    }
}

pub(crate) struct Entered {
    before: Option<Rc<Reactor>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        let left = CURRENT.with(|c| c.replace(before));
        drop(left);
    }
}

pub(crate) fn enter(reactor: Rc<Reactor>) -> Entered {
    Entered { before: CURRENT.with(|c| c.replace(Some(reactor))) }
}

/// `None` outside of reactors and while the thread ends.
pub(crate) fn try_current() -> Option<Rc<Reactor>> {
    CURRENT.try_with(|c| c.borrow().clone()).ok().flatten()
}

#[track_caller]
pub(crate) fn current() -> Rc<Reactor> {
    try_current().expect("called outside of a reactor: use real::run or sim::Sim")
}
