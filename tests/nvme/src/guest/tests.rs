//! The tests, in order; later ones find drives as earlier ones left them.

use super::test;
use super::vm::{BLOCK, address, attach, cut_slot_power, on_reactors, own_seconds, pattern, timing, words};
use crate::protocol::{Line, Want};
use crate::runner::SIGNATURE;
use basalt_bdev::{Bdev, BdevError, Durability};
use basalt_nvme::NvmeDrive;
use basalt_nvme::vfio;
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::{self as reactor, CoreId};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const MAIN: &str = "0000:00:04.0";
const GUARD: &str = "0000:00:05.0";
const SLOW: &str = "0000:00:06.0";
const PORT: &str = "0000:00:07.0";
const PLUG: &str = "0000:01:00.0";
const MIB: u64 = 1 << 20;

type Outcome = Result<(), String>;

pub(super) fn run(filter: &str) {
    test("bring-up", filter, || on_reactors(1, bring_up));
    test("write and verify, two namespaces, two reactors", filter, || on_reactors(2, write_and_verify));
    test("every kind of request", filter, || on_reactors(1, every_request));
    test("asleep while it waits, woken by interrupts", filter, || on_reactors(1, asleep));
    test("protection information", filter, || on_reactors(1, protection));
    test("injected errors", filter, || on_reactors(1, injected_errors));
    test("health and formats of 512 and 4096", filter, || on_reactors(1, maintenance));
    test("reset under load", filter, || on_reactors(2, reset_under_load));
    test("asked back, and inserted again", filter, || on_reactors(1, asked_back));
    test("pulled out under load", filter, || on_reactors(1, pulled_out));
    test("given back to the kernel", filter, given_back);
}

fn bdev(e: BdevError) -> String {
    e.to_string()
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

async fn bring_up() -> Outcome {
    let (controller, drives) = attach(MAIN).await?;
    ensure(controller.serial() == "MAIN", || controller.serial())?;
    let found: Vec<_> = drives.iter().map(|d| d.info().clone()).collect();
    let seen: Vec<_> = found.iter().map(|i| (i.name.as_str(), i.block_bytes, i.size_bytes)).collect();
    let wanted = [("0000:00:04.0n1", 4096, 64 * MIB), ("0000:00:04.0n2", 512, 32 * MIB)];
    ensure(seen == wanted, || format!("{seen:?}"))?;
    ensure(found.iter().all(|i| i.backend == "nvme" && i.volatile_cache), || format!("{found:?}"))?;
    // The third is zoned.
    let refusal = NvmeDrive::open_all(&controller, Some(3)).await.err().map(words).unwrap_or_default();
    ensure(refusal.contains("zoned (ZNS)"), || format!("the zoned namespace: {refusal:?}"))?;
    let first = drives[0].open().map_err(bdev)?;
    let mut block = DmaBuf::zeroed(BLOCK);
    block[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
    first.write(0, vec![block.freeze()], Durability::Durable).await.map_err(bdev)
}

async fn write_and_verify() -> Outcome {
    let (_controller, drives) = attach(MAIN).await?;
    let tasks: Vec<_> = (0..2u16)
        .map(|core| {
            let drives = drives.clone();
            reactor::spawn(reactor::call_on(CoreId(core), move || async move {
                let channels: Result<Vec<_>, _> = drives.iter().map(|d| d.open()).collect();
                let channels = channels.map_err(bdev)?;
                for (n, channel) in channels.iter().enumerate() {
                    fill_and_check(channel, u64::from(core), n as u64).await?;
                }
                Ok::<(), String>(())
            }))
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Each reactor has its half; requests of one page to 2 MiB, sixteen at a time.
async fn fill_and_check(channel: &Rc<dyn Bdev>, core: u64, namespace: u64) -> Outcome {
    const SIZES: [usize; 6] = [4096, 8192, 20480, 131_072, 1 << 20, 2 << 20];
    let base = MIB + core * 14 * MIB;
    let mut places = Vec::new();
    let mut at = base;
    for i in 0.. {
        let len = SIZES[i % SIZES.len()];
        if at + len as u64 > base + 14 * MIB {
            break;
        }
        places.push((at, len));
        at += len as u64;
    }
    for batch in places.chunks(16) {
        let writes = batch.iter().map(|&(at, len)| {
            let channel = channel.clone();
            reactor::spawn(async move {
                let data = pattern(at ^ namespace << 40, len);
                // In pieces, so that PRP lists have several of them.
                let half = (len / 2).next_multiple_of(BLOCK).min(len);
                let pieces = vec![data.slice(..half), data.slice(half..)];
                channel.write(at, pieces, Durability::Cached).await
            })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.map_err(bdev)?;
        }
    }
    channel.flush().await.map_err(bdev)?;
    for &(at, len) in &places {
        let found = channel.read(at, len).await.map_err(bdev)?;
        ensure(found[..] == pattern(at ^ namespace << 40, len)[..], || {
            format!("{len} bytes at {at} differ")
        })?;
    }
    Ok(())
}

async fn every_request() -> Outcome {
    let (_controller, drives) = attach(MAIN).await?;
    for drive in &drives {
        let channel = drive.open().map_err(bdev)?;
        let ones = pattern(77, BLOCK);
        channel.write(MIB, vec![pattern(1, 64 * BLOCK)], Durability::Durable).await.map_err(bdev)?;
        channel.write_zeroes(MIB, 16 * BLOCK as u64).await.map_err(bdev)?;
        let zeroed = channel.read(MIB, 17 * BLOCK).await.map_err(bdev)?;
        ensure(zeroed[..16 * BLOCK].iter().all(|&b| b == 0), || "write-zeroes left something".into())?;
        ensure(zeroed[16 * BLOCK..] == pattern(1, 64 * BLOCK)[16 * BLOCK..17 * BLOCK], || {
            "write-zeroes took too much".into()
        })?;
        channel.unmap(MIB, 64 * BLOCK as u64).await.map_err(bdev)?;
        let expect = channel.read(MIB, BLOCK).await.map_err(bdev)?.freeze();
        let swapped = channel.compare_and_write(MIB, expect, ones.clone()).await.map_err(bdev)?;
        ensure(swapped, || "compare-and-write refused what was there".into())?;
        let stale =
            channel.compare_and_write(MIB, pattern(78, BLOCK), pattern(79, BLOCK)).await.map_err(bdev)?;
        ensure(!stale, || "compare-and-write took what was not there".into())?;
        ensure(channel.read(MIB, BLOCK).await.map_err(bdev)?[..] == ones[..], || {
            "the block is another".into()
        })?;
        // Memory that is not mapped for the controller, and crooked.
        let heap = bytes::Bytes::from(vec![0x5a; 300 * BLOCK + 1]).slice(1..);
        channel.write(2 * MIB, vec![heap.clone()], Durability::Cached).await.map_err(bdev)?;
        ensure(channel.read(2 * MIB, heap.len()).await.map_err(bdev)?[..] == heap[..], || {
            "copied writes differ".into()
        })?;
        let beyond = channel.read(drive.info().size_bytes, BLOCK).await;
        ensure(matches!(beyond, Err(BdevError::OutOfRange { .. })), || "read beyond the end".into())?;
    }
    Ok(())
}

async fn asleep() -> Outcome {
    let (_controller, drives) = attach(MAIN).await?;
    let channel = drives[0].open().map_err(bdev)?;
    // One request now and then: the rest of the time nothing may run.
    let busy = own_seconds();
    let started = reactor::now();
    for i in 0..40u64 {
        let before = reactor::now();
        channel.read(i * BLOCK as u64, BLOCK).await.map_err(bdev)?;
        let took = before.elapsed();
        ensure(took < Duration::from_millis(500), || format!("a read took {took:?}"))?;
        reactor::sleep(Duration::from_millis(50)).await;
    }
    let share = (own_seconds() - busy) / started.elapsed().as_secs_f64();
    ensure(share < 0.25, || format!("{:.0} % of a CPU while nearly idle", share * 100.0))
}

async fn protection() -> Outcome {
    let (_controller, drives) = attach(GUARD).await?;
    let channel = drives[0].open().map_err(bdev)?;
    for (i, len) in [BLOCK, 5 * BLOCK, 1 << 20].into_iter().enumerate() {
        let at = i as u64 * 2 * MIB;
        channel.write(at, vec![pattern(at, len)], Durability::Durable).await.map_err(bdev)?;
        ensure(channel.read(at, len).await.map_err(bdev)?[..] == pattern(at, len)[..], || {
            format!("{len} bytes differ")
        })?;
    }
    Ok(())
}

async fn injected_errors() -> Outcome {
    let (_controller, drives) = attach(GUARD).await?;
    let channel = drives[0].open().map_err(bdev)?;
    let read = channel.read(16 * MIB, BLOCK).await;
    ensure(matches!(read, Err(BdevError::Unreadable { .. })), || {
        format!("a bad read: {:?}", read.map(drop))
    })?;
    let write = channel.write(20 * MIB, vec![pattern(1, BLOCK)], Durability::Cached).await;
    ensure(matches!(write, Err(BdevError::Io { .. })), || format!("a bad write: {write:?}"))?;
    // And beside it all is well.
    channel.write(24 * MIB, vec![pattern(1, BLOCK)], Durability::Cached).await.map_err(bdev)
}

async fn maintenance() -> Outcome {
    let (controller, drives) = attach(MAIN).await?;
    let health = controller.health().await.map_err(words)?;
    ensure((0..100).contains(&health.temperature_c), || format!("{health:?}"))?;
    ensure(health.warnings.is_empty(), || format!("{health:?}"))?;
    let in_use = controller.format(2, 0, 0, false).await.err().map(words).unwrap_or_default();
    ensure(in_use.contains("in use"), || format!("a format of an open drive: {in_use:?}"))?;
    drop(drives);
    let namespaces = controller.namespaces().await.map_err(words)?;
    let second = namespaces.iter().find(|n| n.nsid == 2).ok_or("namespace 2 is missing")?;
    let index = |shift: u8| {
        let fits = |f: &&(usize, basalt_nvme::spec::identify::LbaFormat)| {
            f.1.data_shift == shift && f.1.metadata_bytes == 0
        };
        let all: Vec<_> = second.identity.formats.iter().copied().enumerate().collect();
        all.iter().find(fits).map(|f| f.0 as u8)
    };
    let (small, large) = (index(9).ok_or("no format of 512")?, index(12).ok_or("no format of 4096")?);
    for (format, block_bytes) in [(large, 4096), (small, 512)] {
        controller.format(2, format, 0, true).await.map_err(words)?;
        let drives = NvmeDrive::open_all(&controller, Some(2)).await.map_err(words)?;
        ensure(drives[0].info().block_bytes == block_bytes, || format!("{:?}", drives[0].info()))?;
        let channel = drives[0].open().map_err(bdev)?;
        channel.write(MIB, vec![pattern(9, 3 * BLOCK)], Durability::Durable).await.map_err(bdev)?;
        ensure(channel.read(MIB, 3 * BLOCK).await.map_err(bdev)?[..] == pattern(9, 3 * BLOCK)[..], || {
            "differs".into()
        })?;
    }
    let unsupported = controller.update_firmware(&[0; 4096], 1).await;
    ensure(unsupported.is_err(), || "this controller takes no firmware".into())
}

async fn reset_under_load() -> Outcome {
    let (_controller, drives) = attach(SLOW).await?;
    let tasks: Vec<_> = (0..2u16)
        .map(|core| {
            let drive = drives[0].clone();
            reactor::spawn(reactor::call_on(CoreId(core), move || async move {
                let channel = drive.open().map_err(bdev)?;
                let errors = Rc::new(Cell::new(0u32));
                let lanes: Vec<_> = (0..8u64)
                    .map(|lane| {
                        let (channel, errors) = (channel.clone(), errors.clone());
                        reactor::spawn(load(channel, u64::from(core) * 8 + lane, errors))
                    })
                    .collect();
                for lane in lanes {
                    lane.await?;
                }
                Ok::<u32, String>(errors.get())
            }))
        })
        .collect();
    reactor::sleep(Duration::from_millis(500)).await;
    Line::Want(Want::Slow).print();
    // Time-out, abort (which this controller does not carry out), reset.
    reactor::sleep(timing().command + timing().abort + Duration::from_secs(2)).await;
    Line::Want(Want::Fast).print();
    let mut errors = 0;
    for task in tasks {
        errors += task.await?;
    }
    // What hung was sent again after the reset.
    ensure(errors == 0, || format!("{errors} requests failed"))
}

/// Writes and reads back one block after the other for ten seconds. A request may fail when it was tried too often; what
/// succeeded must be there.
async fn load(channel: Rc<dyn Bdev>, lane: u64, errors: Rc<Cell<u32>>) -> Outcome {
    let started = reactor::now();
    let mut i = 0;
    while started.elapsed() < Duration::from_secs(10) {
        let at = (lane * 256 + i % 256) * BLOCK as u64;
        let data = pattern(lane << 32 | i, BLOCK);
        i += 1;
        if let Err(e) = channel.write(at, vec![data.clone()], Durability::Cached).await {
            tracing::info!("{e}");
            errors.set(errors.get() + 1);
            continue;
        }
        match channel.read(at, BLOCK).await {
            Ok(found) if found[..] != data[..] => {
                return Err(format!("lane {lane}: block at {at} is not what was written"));
            }
            Ok(_) => {}
            Err(e) => {
                tracing::info!("{e}");
                errors.set(errors.get() + 1);
            }
        }
    }
    ensure(i > 20, || format!("lane {lane}: only {i} rounds"))
}

async fn presence(present: bool) -> Outcome {
    for _ in 0..300 {
        if address(PLUG).present() == present {
            return Ok(());
        }
        reactor::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("the device is still {}", if present { "away" } else { "there" }))
}

async fn asked_back() -> Outcome {
    {
        let (_controller, drives) = attach(PLUG).await?;
        let channel = drives[0].open().map_err(bdev)?;
        channel.write(MIB, vec![pattern(5, 1 << 20)], Durability::Durable).await.map_err(bdev)?;
        Line::Want(Want::Remove).print();
        let error = until_error(&channel).await?;
        ensure(matches!(error, BdevError::Gone { .. }), || error.to_string())?;
        // The driver has let go by itself: the kernel can remove it although the drive is still open here.
        presence(false).await?;
        ensure(matches!(channel.flush().await, Err(BdevError::Gone { .. })), || "a flush of nothing".into())?;
    }
    Line::Want(Want::Insert).print();
    presence(true).await?;
    let (_controller, drives) = attach(PLUG).await?;
    let channel = drives[0].open().map_err(bdev)?;
    ensure(channel.read(MIB, 1 << 20).await.map_err(bdev)?[..] == pattern(5, 1 << 20)[..], || {
        "what was written is gone".into()
    })
}

async fn until_error(channel: &Rc<dyn Bdev>) -> Result<BdevError, String> {
    let started = reactor::now();
    while started.elapsed() < Duration::from_secs(30) {
        if let Err(e) = channel.read(0, BLOCK).await {
            return Ok(e);
        }
        reactor::sleep(Duration::from_millis(2)).await;
    }
    Err("reads went on for 30 s".to_owned())
}

async fn pulled_out() -> Outcome {
    let (controller, drives) = attach(PLUG).await?;
    let channel = drives[0].open().map_err(bdev)?;
    let lanes: Vec<_> = (0..8)
        .map(|_| {
            let channel = channel.clone();
            reactor::spawn(async move { until_error(&channel).await })
        })
        .collect();
    reactor::sleep(Duration::from_millis(300)).await;
    let started = reactor::now();
    cut_slot_power(PORT).map_err(|e| e.to_string())?;
    for lane in lanes {
        let error = lane.await?;
        ensure(matches!(error, BdevError::Gone { .. }), || error.to_string())?;
    }
    let took = started.elapsed();
    ensure(took < Duration::from_secs(2), || format!("noticed after {took:?}"))?;
    // The kernel itself forgets it only after a minute of trying to reset it.
    ensure(controller.health().await.is_err(), || "a drive that is away has no health".into())
}

fn given_back() -> Outcome {
    vfio::release(address(MAIN))?;
    for _ in 0..100 {
        if std::path::Path::new("/dev/nvme0n1").exists() || std::path::Path::new("/dev/nvme1n1").exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("the kernel's driver did not take it".to_owned())
}
