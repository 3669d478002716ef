//! The simulated world: one thread, virtual clock, seeded generator. Nodes of several reactors each, a network
//! with delay, loss of connections, and partitions. Same seed, same run, bit for bit.

use std::time::Duration;

pub struct Sim {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl Sim {
    pub fn new(_seed: u64) -> Sim {
        todo!()
    }
    /// A node of `cores` reactors, reachable at 10.0.0.(id+1).
    pub fn add_node(&mut self, _cores: u16) -> NodeId {
        todo!()
    }
    /// Runs the world until the future (on core 0 of `node`) is done. Panics when nothing can make progress any more.
    pub fn block_on<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        _node: NodeId,
        _f: impl FnOnce() -> F,
    ) -> T {
        todo!()
    }
    /// Starts a task on core 0 of `node` without waiting for it.
    pub fn spawn_on<F: Future<Output = ()> + 'static>(&mut self, _node: NodeId, _f: impl FnOnce() -> F) {
        todo!()
    }
    /// Runs the world until `done` (looked at between task polls) or until `limit` of virtual time has passed; returns
    /// whether `done` held.
    pub fn run_until(&mut self, _limit: Duration, _done: impl FnMut() -> bool) -> bool {
        todo!()
    }
    /// Kills a node between two task polls: all its tasks, timers, messages and connections are dropped at once.
    /// Drives are not the node's: they live in `basalt_bdev::sim` and get their own power cut.
    pub fn crash(&mut self, _node: NodeId) {
        todo!()
    }
    /// Fresh reactors for a crashed node.
    pub fn restart(&mut self, _node: NodeId, _cores: u16) {
        todo!()
    }
    pub fn now_ns(&self) -> u64 {
        todo!()
    }
    /// Draws from the world's generator (for the driver of the simulation).
    pub fn random_u64(&mut self) -> u64 {
        todo!()
    }
    /// Rolling hash of every scheduling decision so far: two runs of a seed must agree on it.
    pub fn trace_hash(&self) -> u64 {
        todo!()
    }
}
