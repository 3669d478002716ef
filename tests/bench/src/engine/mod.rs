//! The engine without a network, by layers.

mod codec;
mod drive;
mod fs;
mod lanes;
mod stripes;

use crate::Environment;
use crate::row::Report;
use basalt_bdev::DriveRef;
use basalt_bdev::malloc::MallocDrive;
use basalt_pool::{Pool, PoolError, PoolSpec};

pub(crate) fn run(environment: &Environment, report: &mut Report) {
    codec::run(environment, report);
    stripes::run(environment, report);
    fs::run(environment, report);
    drive::run(environment, report);
}

/// A 4+2 pool on six drives in memory.
async fn pool_in_memory() -> Result<Pool, PoolError> {
    let drives: Vec<DriveRef> = (0..6).map(|n| MallocDrive::create(&format!("memory{n}"), 2 << 30)).collect();
    let spec = PoolSpec { name: "bench".into(), scheme: None, force: false };
    Pool::create(drives, &spec, |_, _| ()).await
}

/// One reactor: figures are for one core.
fn one_core() -> basalt_reactor::real::Config {
    basalt_reactor::real::Config { cores: 1, ..Default::default() }
}
