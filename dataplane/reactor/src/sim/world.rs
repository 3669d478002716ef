//! Clock, generator, event queue and scheduler of a simulated world.

use super::NodeId;
use super::net::Net;
use crate::context::{self, Reactor};
use crate::rng::Rng;
use crate::task::{Message, Shared};
use crate::{CoreId, WallTime};
use async_task::Runnable;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

/// Virtual cost of a task poll and of a clock reading. Small, but not 0: loops that wait for time to pass must end.
const POLL_NS: u64 = 200;
const CLOCK_READ_NS: u64 = 25;
/// 2030-01-01, so that nothing depends on the day of the run.
const WALL_EPOCH_SEC: i64 = 1_893_456_000;

pub(crate) struct World {
    pub(crate) now_ns: Cell<u64>,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) trace: Cell<u64>,
    pub(crate) net: RefCell<Net>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    next_seq: Cell<u64>,
    /// Reactors of the nodes that are up.
    live: RefCell<Vec<Rc<Reactor>>>,
    nodes: RefCell<Vec<Node>>,
    /// When the last message of a pair of reactors arrives: later ones must not overtake it.
    last_arrival: RefCell<BTreeMap<(u64, u64), u64>>,
    next_ordinal: Cell<u64>,
}

struct Node {
    up: bool,
    boots: u32,
}

enum Event {
    Timer(Waker),
    Message {
        to: Rc<Reactor>,
        message: Message,
    },
    /// Runs outside of any reactor.
    Deed(Deed),
}

type Deed = Box<dyn FnOnce(&Rc<World>)>;

/// The simulated side of a reactor.
pub(crate) struct Local {
    pub(crate) world: Rc<World>,
    pub(crate) node: NodeId,
    pub(crate) drain: Cell<bool>,
    /// Number of this reactor in its world, never used again.
    ordinal: u64,
    /// CLOCK_BOOTTIME starts elsewhere on every boot, so that comparing clocks of two nodes shows as a bug.
    clock_offset_ns: u64,
    /// The tasks of the current round, polled in random order.
    round: RefCell<VecDeque<Runnable>>,
}

pub(super) enum Step {
    Progress,
    /// No task is ready and nothing is going to happen before the limit.
    Stuck,
}

impl World {
    pub(super) fn new(seed: u64) -> Rc<World> {
        Rc::new(World {
            now_ns: Cell::new(1_000_000_000),
            rng: RefCell::new(Rng::new(seed)),
            trace: Cell::new(seed),
            net: RefCell::default(),
            events: RefCell::default(),
            next_seq: Cell::new(0),
            live: RefCell::default(),
            nodes: RefCell::default(),
            last_arrival: RefCell::default(),
            next_ordinal: Cell::new(0),
        })
    }

    pub(super) fn add_node(self: &Rc<Self>, cores: u16) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        let node = NodeId(u32::try_from(nodes.len()).expect("few nodes"));
        nodes.push(Node { up: false, boots: 0 });
        drop(nodes);
        self.restart(node, cores);
        node
    }

    pub(super) fn restart(self: &Rc<Self>, node: NodeId, cores: u16) {
        assert!(cores > 0, "a node has at least one core");
        {
            let mut nodes = self.nodes.borrow_mut();
            let n = &mut nodes[node.0 as usize];
            assert!(!n.up, "{node:?} is up: crash it first");
            n.up = true;
            n.boots += 1;
        }
        let clock_offset_ns = self.rng.borrow_mut().below(1 << 50);
        for core in 0..cores {
            let ordinal = self.next_ordinal.replace(self.next_ordinal.get() + 1);
            let local = Local {
                world: self.clone(),
                node,
                drain: Cell::new(false),
                ordinal,
                clock_offset_ns,
                round: RefCell::default(),
            };
            let reactor = Reactor::new(CoreId(core), cores, Shared::new(None), context::World::Sim(local));
            self.live.borrow_mut().push(reactor);
        }
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.nodes.borrow().get(node.0 as usize).is_some_and(|n| n.up)
    }

    fn reactors_of(&self, node: NodeId) -> Vec<Rc<Reactor>> {
        self.live.borrow().iter().filter(|r| r.local().node == node).cloned().collect()
    }

    pub(super) fn core_0(&self, node: NodeId) -> Rc<Reactor> {
        let found =
            self.live.borrow().iter().find(|r| r.local().node == node && r.core == CoreId(0)).cloned();
        found.unwrap_or_else(|| panic!("{node:?} is down"))
    }

    pub(super) fn task_count(&self, node: NodeId) -> usize {
        self.reactors_of(node).iter().map(|r| r.tasks.borrow().len()).sum()
    }

    pub(super) fn census(&self) -> String {
        let live = self.live.borrow();
        let each = live.iter().map(|r| {
            format!("node {} core {}: {} tasks wait", r.local().node.0, r.core.0, r.tasks.borrow().len())
        });
        each.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn request_drain(self: &Rc<Self>, node: NodeId) {
        for r in self.reactors_of(node) {
            r.local().drain.set(true);
            let _in = context::enter(r.clone());
            r.announce_drain();
        }
    }

    pub(super) fn crash(self: &Rc<Self>, node: NodeId) {
        let dying = self.reactors_of(node);
        if !self.is_up(node) {
            return;
        }
        self.mix(0xdead, u64::from(node.0));
        self.nodes.borrow_mut()[node.0 as usize].up = false;
        self.live.borrow_mut().retain(|r| r.local().node != node);
        // Messages between its cores die with it. Those that carry a ready task go to the task's own reactor, to be
        // dropped with the others.
        let mut doomed = Vec::new();
        {
            let mut events = self.events.borrow_mut();
            let is_doomed = |e: &Event| matches!(e, Event::Message { to, .. } if to.local().node == node);
            let keys: Vec<_> = events.iter().filter(|(_, e)| is_doomed(e)).map(|(k, _)| *k).collect();
            doomed.extend(keys.iter().filter_map(|k| events.remove(k)));
        }
        for event in doomed {
            let Event::Message { to, message } = event else { continue };
            let _in = context::enter(to.clone());
            match message {
                Message::Wake(runnable) => to.ready.borrow_mut().push_back(runnable),
                Message::Call(f) => drop(f),
            }
        }
        // Two passes: dropping the tasks of one core may wake or post to another.
        for r in &dying {
            let _in = context::enter(r.clone());
            let round = std::mem::take(&mut *r.local().round.borrow_mut());
            r.ready.borrow_mut().extend(round);
            r.drop_all_tasks();
        }
        self.net_crash(node);
        let ordinals: Vec<_> = dying.iter().map(|r| r.local().ordinal).collect();
        self.last_arrival
            .borrow_mut()
            .retain(|(from, to), _| !ordinals.contains(from) && !ordinals.contains(to));
    }

    pub(super) fn crash_all(self: &Rc<Self>) {
        let count = self.nodes.borrow().len();
        for node in 0..count {
            self.crash(NodeId(node as u32));
        }
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
        let net = self.net.take();
        drop(net);
    }

    /// Folds a decision into the trace.
    pub(super) fn mix(&self, kind: u64, what: u64) {
        let mut h = self.trace.get() ^ kind.rotate_left(48) ^ what ^ self.now_ns.get().rotate_left(20);
        h = h.wrapping_mul(0x9fb2_1c65_1e98_df25);
        h ^= h >> 32;
        self.trace.set(h);
    }

    fn add_event(&self, at_ns: u64, event: Event) -> u64 {
        let seq = self.next_seq.replace(self.next_seq.get() + 1);
        self.events.borrow_mut().insert((at_ns, seq), event);
        seq
    }

    pub(crate) fn add_timer(&self, deadline_ns: u64, waker: Waker) -> u64 {
        self.add_event(deadline_ns, Event::Timer(waker))
    }

    pub(crate) fn remove_timer(&self, deadline_ns: u64, seq: u64) -> Option<Waker> {
        match self.events.borrow_mut().remove(&(deadline_ns, seq)) {
            Some(Event::Timer(w)) => Some(w),
            _ => None,
        }
    }

    /// Has `deed` done at a time, outside of any reactor.
    pub(super) fn at(&self, at_ns: u64, deed: impl FnOnce(&Rc<World>) + 'static) {
        self.add_event(at_ns, Event::Deed(Box::new(deed)));
    }

    /// One poll of one task, or one leap to the next event not after `limit_ns`.
    pub(super) fn step(self: &Rc<Self>, limit_ns: u64) -> Step {
        self.fire_due_events();
        if let Some(reactor) = self.choose_reactor() {
            self.run_one_task(&reactor);
            self.now_ns.set(self.now_ns.get() + POLL_NS);
            return Step::Progress;
        }
        let reactors = self.live.borrow().clone();
        let mut found = false;
        for r in reactors {
            let _in = context::enter(r.clone());
            found |= r.run_pollers();
        }
        if found {
            self.now_ns.set(self.now_ns.get() + POLL_NS);
            return Step::Progress;
        }
        let next = self.events.borrow().keys().next().map(|k| k.0);
        match next {
            Some(at_ns) if at_ns <= limit_ns => {
                self.now_ns.set(at_ns.max(self.now_ns.get()));
                Step::Progress
            }
            _ => Step::Stuck,
        }
    }

    fn fire_due_events(self: &Rc<Self>) {
        loop {
            let due = {
                let mut events = self.events.borrow_mut();
                match events.first_entry() {
                    Some(e) if e.key().0 <= self.now_ns.get() => e.remove_entry(),
                    _ => return,
                }
            };
            self.mix(1, due.0.1);
            match due.1 {
                Event::Timer(waker) => waker.wake(),
                Event::Message { to, message } => {
                    let _in = context::enter(to.clone());
                    match message {
                        Message::Wake(runnable) => to.ready.borrow_mut().push_back(runnable),
                        Message::Call(f) => f(),
                    }
                }
                Event::Deed(deed) => deed(self),
            }
        }
    }

    fn choose_reactor(&self) -> Option<Rc<Reactor>> {
        let live = self.live.borrow();
        let with_work = || live.iter().filter(|r| r.has_ready_task());
        let count = with_work().count() as u64;
        let pick = match count {
            0 => return None,
            1 => 0,
            n => self.rng.borrow_mut().below(n),
        };
        with_work().nth(pick as usize).cloned()
    }

    fn run_one_task(&self, reactor: &Rc<Reactor>) {
        let local = reactor.local();
        let _in = context::enter(reactor.clone());
        let runnable = {
            let mut round = local.round.borrow_mut();
            if round.is_empty() {
                reactor.move_inbox_to_ready();
                std::mem::swap(&mut *round, &mut reactor.ready.borrow_mut());
            }
            let pick = match round.len() as u64 {
                1 => 0,
                n => self.rng.borrow_mut().below(n),
            };
            self.mix(2, (local.ordinal << 32) | pick);
            round.swap_remove_back(pick as usize).expect("a reactor with work has a task")
        };
        runnable.run();
    }

    /// Time for a message between two cores of a node: mostly a microsecond, sometimes a core is busy elsewhere.
    fn core_delay_ns(&self) -> u64 {
        let mut rng = self.rng.borrow_mut();
        if rng.below(64) == 0 { rng.between(5_000, 200_000) } else { rng.between(100, 3_000) }
    }
}

impl Reactor {
    pub(super) fn local(&self) -> &Local {
        match &self.world {
            context::World::Sim(l) => l,
            context::World::Real(_) => unreachable!("a simulated world has simulated reactors only"),
        }
    }

    fn has_ready_task(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.local().round.borrow().is_empty()
            || self.shared.has_messages()
    }

    /// Tasks woken from outside of any reactor: by timers, the network, or the driver.
    fn move_inbox_to_ready(&self) {
        let mut messages = Vec::new();
        self.shared.take_messages(&mut messages);
        for m in messages {
            match m {
                Message::Wake(r) => self.ready.borrow_mut().push_back(r),
                Message::Call(_) => unreachable!("calls travel as events"),
            }
        }
    }
}

impl Local {
    pub(crate) fn read_clock_ns(&self) -> u64 {
        let now = self.world.now_ns.get() + CLOCK_READ_NS;
        self.world.now_ns.set(now);
        now + self.clock_offset_ns
    }

    pub(crate) fn wall_clock(&self) -> WallTime {
        let now = self.world.now_ns.get() + CLOCK_READ_NS;
        self.world.now_ns.set(now);
        WallTime { sec: WALL_EPOCH_SEC + (now / 1_000_000_000) as i64, nsec: (now % 1_000_000_000) as u32 }
    }

    pub(crate) fn begin_drain(&self) {
        // Outside of the poll that asks, as a signal would be.
        let node = self.node;
        self.world.at(self.world.now_ns.get(), move |w| w.request_drain(node));
    }

    pub(crate) fn send(&self, from: &Reactor, to: CoreId, message: Message) {
        let target =
            self.world.live.borrow().iter().find(|r| r.local().node == self.node && r.core == to).cloned();
        match target {
            Some(to) => self.send_to(from, to, message),
            // This node is being crashed: the message dies here.
            None => drop(message),
        }
    }

    /// A task of another reactor was woken from this one.
    pub(crate) fn wake_elsewhere(&self, from: &Reactor, to: &Arc<Shared>, runnable: Runnable) {
        let target = self.world.live.borrow().iter().find(|r| Arc::ptr_eq(&r.shared, to)).cloned();
        match target {
            Some(target) if target.local().node == self.node => {
                self.send_to(from, target, Message::Wake(runnable))
            }
            // Shared by the test's own means (or of a node that is being crashed): not a message between cores.
            _ => to.deliver(Message::Wake(runnable)),
        }
    }

    fn send_to(&self, from: &Reactor, to: Rc<Reactor>, message: Message) {
        let world = &self.world;
        let mut at_ns = world.now_ns.get() + world.core_delay_ns();
        {
            let mut last = world.last_arrival.borrow_mut();
            let last = last.entry((from.local().ordinal, to.local().ordinal)).or_default();
            // Equal times are delivered in the order of sending.
            at_ns = at_ns.max(*last);
            *last = at_ns;
        }
        world.add_event(at_ns, Event::Message { to, message });
    }
}
