//! The simulated world: one thread, virtual clock, seeded generator. Nodes of several reactors each, a network
//! with delay, loss of connections, and partitions. Same seed, same run, bit for bit.
//!
//! What the seed decides: which reactor runs next, which of its ready tasks, how long messages between cores and
//! bytes between nodes take, and every number that product code draws.

pub(crate) mod net;
mod world;

pub use net::NetFaults;
pub(crate) use world::{Local, World};

use crate::context;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use world::Step;

/// The driver's handle on a world. Dropping it crashes every node, so that nothing outlives the run.
pub struct Sim {
    world: Rc<World>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl Sim {
    pub fn new(seed: u64) -> Sim {
        Sim { world: World::new(seed) }
    }

    /// A node of `cores` reactors, reachable at 10.0.0.(id+1).
    pub fn add_node(&mut self, cores: u16) -> NodeId {
        self.world.add_node(cores)
    }

    /// Runs the world until the future (on core 0 of `node`) is done. Panics when nothing can make progress any more.
    pub fn block_on<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        node: NodeId,
        f: impl FnOnce() -> F,
    ) -> T {
        let output = Rc::new(RefCell::new(None));
        let slot = output.clone();
        self.start(node, f, move |v| *slot.borrow_mut() = Some(v));
        loop {
            if let Some(v) = output.borrow_mut().take() {
                return v;
            }
            if let Step::Stuck = self.world.step(u64::MAX) {
                panic!(
                    "deadlock at {} ns: no task is ready and no timer is set; {}",
                    self.now_ns(),
                    self.world.census()
                );
            }
        }
    }

    /// Starts a task on core 0 of `node` without waiting for it.
    pub fn spawn_on<F: Future<Output = ()> + 'static>(&mut self, node: NodeId, f: impl FnOnce() -> F) {
        self.start(node, f, |()| ());
    }

    fn start<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        node: NodeId,
        f: impl FnOnce() -> F,
        done: impl FnOnce(T) + 'static,
    ) {
        let reactor = self.world.core_0(node);
        let _in = context::enter(reactor.clone());
        let future = f();
        drop(reactor.spawn(async move { done(future.await) }));
    }

    /// Runs the world until `done` (looked at between task polls) or until `limit` of virtual time has passed; returns
    /// whether `done` held.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let end_ns = self.now_ns().saturating_add(limit_ns);
        loop {
            if done() {
                return true;
            }
            if self.now_ns() >= end_ns {
                return false;
            }
            if let Step::Stuck = self.world.step(end_ns) {
                self.world.now_ns.set(end_ns);
            }
        }
    }

    /// Kills a node between two task polls: all its tasks, timers, messages and connections are dropped at once.
    /// Drives are not the node's: they live in `basalt_bdev::sim` and get their own power cut.
    pub fn crash(&mut self, node: NodeId) {
        self.world.crash(node);
    }

    /// Fresh reactors for a crashed node.
    pub fn restart(&mut self, node: NodeId, cores: u16) {
        self.world.restart(node, cores);
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.world.is_up(node)
    }

    /// Asks a node to drain, as SIGTERM would.
    pub fn request_drain(&mut self, node: NodeId) {
        self.world.request_drain(node);
    }

    pub fn now_ns(&self) -> u64 {
        self.world.now_ns.get()
    }

    /// Draws from the world's generator (for the driver of the simulation).
    pub fn random_u64(&mut self) -> u64 {
        self.world.rng.borrow_mut().next_u64()
    }

    /// Rolling hash of every scheduling decision so far: two runs of a seed must agree on it.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace.get()
    }

    /// Tasks that live on a node: to check that nothing leaks.
    pub fn task_count(&self, node: NodeId) -> usize {
        self.world.task_count(node)
    }

    /// Replaces the network's delays and error rates, for bytes sent from now on.
    pub fn set_net_faults(&mut self, faults: NetFaults) {
        self.world.net.borrow_mut().faults = faults;
    }

    /// Nothing passes between the two any more. Bytes on the way are held; connections that wait too long are reset.
    pub fn partition(&mut self, a: NodeId, b: NodeId) {
        self.world.partition(a, b);
    }

    /// Ends the partition; what was held is delivered.
    pub fn heal(&mut self, a: NodeId, b: NodeId) {
        self.world.heal(a, b);
    }

    /// Resets every connection between the two (or within one, when they are the same).
    pub fn reset_connections(&mut self, a: NodeId, b: NodeId) {
        self.world.reset_connections(a, b);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // While unwinding, tasks may be in any state: leak them rather than abort on a second panic.
        if !std::thread::panicking() {
            self.world.crash_all();
        }
    }
}
