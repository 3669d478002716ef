//! The drives of a simulated node and what happens to them. Never more than the pool promises to survive: drives that
//! fail and drives whose media lie come out of one allowance of m.

use crate::coverage::Coverage;
use basalt_bdev::DriveRef;
use basalt_bdev::sim::{SimDrive, SimFaults};
use basalt_pool::{DriveState, MIN_DRIVE_BYTES, Pool, Scheme};
use basalt_reactor::sim::Sim;
use std::collections::BTreeSet;

/// What a seed has chosen.
pub(crate) struct Plan {
    pub(crate) scheme: Scheme,
    drives: usize,
    drive_bytes: u64,
    volatile_cache: bool,
    /// Now and then a request takes milliseconds, so that the members of a stripe or mirror set are far apart.
    slow_ppm: u32,
    /// So little space that the clients are to meet its end.
    pub(crate) small: bool,
}

impl Plan {
    pub(crate) fn draw(sim: &mut Sim) -> Plan {
        let schemes = [(4, 2, 6), (4, 2, 7), (2, 2, 5), (2, 1, 3), (1, 1, 3), (1, 2, 5), (3, 2, 6)];
        let (k, m, drives) = schemes[(sim.random_u64() % schemes.len() as u64) as usize];
        let small = sim.random_u64().is_multiple_of(8);
        Plan {
            scheme: Scheme { k, m },
            drives,
            drive_bytes: if small { MIN_DRIVE_BYTES } else { 1 << 30 },
            small,
            slow_ppm: if sim.random_u64().is_multiple_of(2) {
                (sim.random_u64() % 300_000) as u32
            } else {
                0
            },
            volatile_cache: sim.random_u64().is_multiple_of(2),
        }
    }
}

pub(crate) struct Media {
    drives: Vec<SimDrive>,
    gone: Vec<usize>,
    slow: SimFaults,
    /// Failed once, plugged in again since; what they hold is old.
    returned: u64,
    /// Left out of some import, so recorded out in the root log.
    absent: BTreeSet<usize>,
    /// Those of them that are plugged in again, by name: never to be trusted.
    stale: Vec<String>,
    /// Drives whose media lie.
    liars: Vec<usize>,
    /// How many more may fail or lie.
    allowance: usize,
    failed: u64,
    /// Whether losing nothing from the drives' caches would be a hole in this family.
    pub(crate) counts_caches: bool,
}

impl Media {
    pub(crate) fn new(plan: &Plan) -> Media {
        let slow = SimFaults { slow_ppm: plan.slow_ppm, slow_us: 2_000, ..Default::default() };
        let make = |n| {
            let drive = SimDrive::new(&format!("sim{n}"), plan.drive_bytes, plan.volatile_cache);
            drive.set_faults(slow.clone());
            drive
        };
        Media {
            drives: (0..plan.drives).map(make).collect(),
            gone: Vec::new(),
            slow,
            returned: 0,
            absent: BTreeSet::new(),
            stale: Vec::new(),
            liars: Vec::new(),
            // A full pool of the smallest drives that loses one as well may not open again before space is freed (README,
            // Not yet), so these seeds meet the one or the other.
            allowance: if plan.small { 0 } else { plan.scheme.m as usize },
            failed: 0,
            counts_caches: false,
        }
    }

    pub(crate) fn drives(&self) -> Vec<DriveRef> {
        self.drives.iter().map(SimDrive::drive).collect()
    }
    /// Without those that have failed.
    pub(crate) fn present(&mut self) -> Vec<DriveRef> {
        self.absent.extend(&self.gone);
        let present = self.drives.iter().enumerate().filter(|(n, _)| !self.gone.contains(n));
        present.map(|(_, d)| d.drive()).collect()
    }

    pub(crate) fn stale(&self) -> Vec<String> {
        self.stale.clone()
    }

    fn victim(&self, sim: &mut Sim) -> Option<usize> {
        let n = (sim.random_u64() % self.drives.len() as u64) as usize;
        (self.allowance > 0 && !self.gone.contains(&n) && !self.liars.contains(&n)).then_some(n)
    }

    /// Under load: sometimes a drive dies, or its media begin to lie.
    pub(crate) fn strike(&mut self, sim: &mut Sim) {
        match sim.random_u64() % 12 {
            0 => {
                if let Some(n) = self.victim(sim) {
                    tracing::info!("drive sim{n} fails");
                    self.drives[n].fail();
                    self.gone.push(n);
                    self.allowance -= 1;
                    self.failed += 1;
                }
            }
            1 => {
                if let Some(n) = self.victim(sim) {
                    tracing::info!("the media of drive sim{n} begin to lie");
                    self.liars.push(n);
                    self.allowance -= 1;
                    let mut ppm = || (sim.random_u64() % 20_000) as u32;
                    self.drives[n].set_faults(SimFaults {
                        lost_write_ppm: ppm(),
                        misdirected_write_ppm: ppm(),
                        bit_rot_ppm: ppm(),
                        ..self.slow.clone()
                    });
                }
            }
            _ => {}
        }
    }

    /// Between two lives of the node.
    pub(crate) fn damage(&mut self, sim: &mut Sim, plan: &Plan) {
        if !self.gone.is_empty() && sim.random_u64().is_multiple_of(3) {
            let n = self.gone.swap_remove((sim.random_u64() % self.gone.len() as u64) as usize);
            tracing::info!("drive sim{n} is plugged in again");
            self.drives[n].revive();
            // The allowance stays used: the pool must not take it for a member again.
            self.liars.push(n);
            self.returned += 1;
            if self.absent.contains(&n) {
                self.stale.push(self.drives[n].drive().info().name.clone());
            }
        }
        // What cuts the power may break a drive as well.
        if sim.random_u64().is_multiple_of(3)
            && let Some(n) = self.victim(sim)
        {
            tracing::info!("drive sim{n} does not come back");
            self.drives[n].fail();
            self.gone.push(n);
            self.allowance -= 1;
            self.failed += 1;
        }
        for n in self.liars.clone() {
            for _ in 0..sim.random_u64() % 20 {
                let block = sim.random_u64() % (plan.drive_bytes / 4096);
                self.drives[n].corrupt(block * 4096);
            }
        }
    }

    pub(crate) fn overwrite(&self, drive: usize, offset: u64, bytes: &[u8]) {
        self.drives[drive].poke(offset, bytes);
    }

    pub(crate) fn power_cut(&self) {
        tracing::info!("power cut");
        self.drives.iter().for_each(SimDrive::power_cut);
    }

    pub(crate) fn count(&self, coverage: &mut Coverage) {
        coverage.add("drives lost", self.failed);
        coverage.add("lost drives plugged in again", self.returned);
        for counters in self.drives.iter().map(SimDrive::counters) {
            coverage.add("torn writes", counters.torn_writes);
            coverage.add("lost writes", counters.lost_writes);
            coverage.add("misdirected writes", counters.misdirected_writes);
            coverage.add("bits rotten", counters.bit_rots);
            // The file system flushes before it journals, so that little is ever in a cache: no hole if nothing was.
            if self.counts_caches || counters.dropped_at_power_cut > 0 {
                coverage.add("cached writes dropped at power cut", counters.dropped_at_power_cut);
            }
        }
    }
}

/// A drive that was out while others were written stays out when it returns.
pub(crate) async fn check_stale(pool: &Pool, stale: &[String]) -> Result<(), String> {
    let status = pool.status().await.map_err(|e| e.to_string())?;
    match status.drives.iter().find(|d| d.state == DriveState::Live && stale.contains(&d.name)) {
        Some(drive) => Err(format!("drive {} was out and is trusted again, stale as it is", drive.name)),
        None => Ok(()),
    }
}
