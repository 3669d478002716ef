//! The engine without a network, by layers.

mod codec;
mod drive;
mod fs;
mod lanes;
mod stripes;

use crate::Environment;
use crate::row::Report;
use basalt_bdev::malloc::MallocDrive;
use basalt_bdev::{DriveRef, Durability};
use basalt_pool::{Pool, PoolError, PoolSpec};
use bytes::Bytes;

pub(crate) fn run(environment: &Environment, report: &mut Report) {
    codec::run(environment, report);
    stripes::run(environment, report);
    fs::run(environment, report);
    drive::run(environment, report);
}

const DRIVE_BYTES: u64 = 512 << 20;

/// A 4+2 pool on six drives in memory. Every byte of them was written before, so that no row pays for the pages.
async fn pool_in_memory() -> Result<Pool, PoolError> {
    let drives: Vec<DriveRef> =
        (0..6).map(|n| MallocDrive::create(&format!("memory{n}"), DRIVE_BYTES)).collect();
    let chunk = Bytes::from(vec![0xa5; 1 << 20]);
    for drive in &drives {
        let channel = drive.open()?;
        for offset in (0..DRIVE_BYTES).step_by(chunk.len()) {
            channel.write(offset, vec![chunk.clone()], Durability::Cached).await?;
        }
    }
    let spec = PoolSpec { name: "bench".into(), scheme: None, force: true };
    Pool::create(drives, &spec, |_, _| ()).await
}

/// One reactor: figures are for one core.
fn one_core() -> basalt_reactor::real::Config {
    basalt_reactor::real::Config { cores: 1, ..Default::default() }
}
