//! Random 4 KiB reads of a file or block device, one reactor:
//! `cargo run --release -p basalt-bdev --example reads -- PATH [DEPTH] [SECONDS]`.

use basalt_bdev::Durability;
use basalt_bdev::uring::UringDrive;
use basalt_reactor::real::{Config, run};
use basalt_reactor::sync::join_all;
use basalt_reactor::{self as reactor, buf};
use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = std::path::PathBuf::from(args.next().expect("usage: reads PATH [DEPTH] [SECONDS]"));
    let depth: u64 = args.next().map_or(32, |a| a.parse().expect("a number"));
    let seconds: u64 = args.next().map_or(3, |a| a.parse().expect("a number"));
    run(Config { idle_spin_us: 50, ..Config::default() }, move || async move {
        let drive =
            if path.exists() { UringDrive::open(&path) } else { UringDrive::create_file(&path, 256 << 20) };
        let drive = drive.expect("a drive");
        let ch = drive.open().expect("a channel");
        let size = drive.info().size_bytes;
        let first = ch.read(0, 4096).await.expect("a read");
        if first.iter().all(|&b| b == 0) && size <= 1 << 30 {
            let mut chunk = buf::DmaBuf::new(1 << 20);
            chunk.fill(1);
            let chunk = chunk.freeze();
            for i in 0..size >> 20 {
                ch.write(i << 20, vec![chunk.clone()], Durability::Cached).await.expect("a write");
            }
            ch.flush().await.expect("a flush");
        }
        let start = reactor::now();
        let each = (0..depth).map(|i| {
            let ch = ch.clone();
            reactor::spawn(async move {
                let mut at = i;
                let mut done = 0u64;
                while start.elapsed() < Duration::from_secs(seconds) {
                    at = at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let offset = (at >> 16) % (size / 4096) * 4096;
                    ch.read(offset, 4096).await.expect("a read");
                    done += 1;
                }
                done
            })
        });
        let reads: u64 = join_all(each).await.iter().sum();
        println!("{} reads/s at depth {depth}", reads / seconds);
    });
}
