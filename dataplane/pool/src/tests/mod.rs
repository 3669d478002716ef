//! The root side in the simulated world.

mod crash;
mod formats;
mod host_full;
mod refusals;
mod round_trip;

use crate::*;
use basalt_bdev::DriveRef;
use basalt_bdev::sim::SimDrive;
use basalt_reactor::sim::{NodeId, Sim};

pub(crate) const MIB: u64 = 1 << 20;

/// A node with drives of 256 MiB.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) node: NodeId,
    pub(crate) drives: Vec<SimDrive>,
}

pub(crate) fn spec(scheme: Option<&str>) -> PoolSpec {
    PoolSpec { name: "tank".into(), scheme: scheme.map(|s| s.parse().unwrap()), force: false }
}

impl World {
    pub(crate) fn new(seed: u64, drives: usize) -> World {
        World::with_cores(seed, drives, 1)
    }
    pub(crate) fn with_cores(seed: u64, drives: usize, cores: u16) -> World {
        let mut sim = Sim::new(seed);
        let node = sim.add_node(cores);
        let drives = (0..drives).map(|n| SimDrive::new(&format!("d{n}"), 256 * MIB, true)).collect();
        World { sim, node, drives }
    }
    pub(crate) fn refs(&self, which: impl IntoIterator<Item = usize>) -> Vec<DriveRef> {
        which.into_iter().map(|n| self.drives[n].drive()).collect()
    }
    pub(crate) fn all(&self) -> Vec<DriveRef> {
        self.refs(0..self.drives.len())
    }
    /// Runs to the end on core 0.
    pub(crate) fn run<T: 'static, F: Future<Output = T> + 'static>(&mut self, f: impl FnOnce() -> F) -> T {
        self.sim.block_on(self.node, f)
    }
    pub(crate) fn create(&mut self, scheme: Option<&str>) {
        let (drives, spec) = (self.all(), spec(scheme));
        self.run(|| async move {
            let pool = Pool::create(drives, &spec, |_, _| ()).await.unwrap();
            pool.close().await.unwrap();
        });
    }
    /// Power cut of the whole node, drives and all.
    pub(crate) fn power_cut(&mut self) {
        self.sim.crash(self.node);
        self.drives.iter().for_each(SimDrive::power_cut);
        self.sim.restart(self.node, 1);
    }
}
