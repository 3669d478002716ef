//! This driver beside the kernel's, through io_uring, on the same emulated drive in the same guest.

use super::vm::{BLOCK, address, attach, busy_seconds, on_reactors};
use crate::protocol::{Figure, Line};
use basalt_bdev::uring::UringDrive;
use basalt_bdev::{Bdev, DriveRef};
use basalt_nvme::vfio;
use basalt_reactor as reactor;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const DRIVE: &str = "0000:00:04.0";

struct Rate {
    iops: f64,
    /// CPU seconds of the whole guest per second, interrupts included.
    cpu: f64,
}

pub(super) fn run(seconds: u64) -> Result<(), String> {
    let time = Duration::from_secs(seconds);
    for depth in [32, 128] {
        vfio::release(address(DRIVE))?;
        let disk = Path::new("/dev/nvme0n1");
        for _ in 0..200 {
            if disk.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let kernel = on_reactors(1, move || async move {
            let drive = UringDrive::open(disk).map_err(|e| e.to_string())?;
            measure(drive, depth, time).await
        })?;
        let ours = on_reactors(1, move || async move {
            let (_controller, drives) = attach(DRIVE).await?;
            measure(drives[0].clone(), depth, time).await
        })?;
        Line::Figure(Figure {
            metric: format!("4 KiB random reads, emulated drive, {depth} in flight"),
            ours_iops: ours.iops,
            ours_cpu_s_per_s: ours.cpu,
            kernel_iops: kernel.iops,
            kernel_cpu_s_per_s: kernel.cpu,
        })
        .print();
    }
    Ok(())
}

async fn measure(drive: DriveRef, depth: u64, time: Duration) -> Result<Rate, String> {
    let channel = drive.open().map_err(|e| e.to_string())?;
    let blocks = drive.info().size_bytes / BLOCK as u64;
    drop(drive);
    let done = Rc::new(Cell::new(0u64));
    let stop = Rc::new(Cell::new(false));
    let lanes: Vec<_> = (0..depth)
        .map(|lane| reactor::spawn(reads(channel.clone(), lane, blocks, done.clone(), stop.clone())))
        .collect();
    // Warm first.
    reactor::sleep(time / 5).await;
    let (before, busy, started) = (done.get(), busy_seconds(), reactor::now());
    reactor::sleep(time).await;
    let seconds = started.elapsed().as_secs_f64();
    let (count, busy) = (done.get() - before, busy_seconds() - busy);
    stop.set(true);
    for lane in lanes {
        lane.await?;
    }
    Ok(Rate { iops: count as f64 / seconds, cpu: busy / seconds })
}

async fn reads(
    channel: Rc<dyn Bdev>,
    lane: u64,
    blocks: u64,
    done: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
) -> Result<(), String> {
    let mut x = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !stop.get() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        channel.read(x % blocks * BLOCK as u64, BLOCK).await.map_err(|e| e.to_string())?;
        done.set(done.get() + 1);
    }
    Ok(())
}
