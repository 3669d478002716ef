//! Simulated drives: latency, visibility, power cuts, faults, repeatability.

use basalt_bdev::sim::{SimDrive, SimFaults};
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::sim::Sim;
use basalt_reactor::sync::join_all;
use basalt_reactor::{self as reactor, CoreId};
use bytes::Bytes;
use std::time::Duration;

const BLOCK: u64 = 4096;
const MS: Duration = Duration::from_millis(1);

fn fill(byte: u8, blocks: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![byte; blocks * BLOCK as usize])]
}

#[test]
fn what_was_written_is_read_from_any_core() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(2);
    let drive = SimDrive::new("d0", 1 << 30, true);
    let d = drive.clone();
    sim.block_on(n, || async move {
        let ch = d.drive().open().unwrap();
        let start = reactor::now();
        ch.write(8 * BLOCK, fill(7, 3), Durability::Cached).await.unwrap();
        assert!(start.elapsed() >= Duration::from_micros(20));
        let drive = d.drive();
        reactor::call_on(CoreId(1), move || async move {
            let ch = drive.open().unwrap();
            let got = ch.read(7 * BLOCK, 5 * BLOCK as usize).await.unwrap();
            let firsts: Vec<_> = got.chunks(4096).map(|b| (b[0], b[4095])).collect();
            assert_eq!(firsts, [(0, 0), (7, 7), (7, 7), (7, 7), (0, 0)]);
        })
        .await;
        for (offset, len) in [(1, 4096), (0, 100), (1 << 30, 4096), (u64::MAX - 4095, 4096), (0, 0)] {
            assert!(matches!(ch.read(offset, len).await, Err(BdevError::OutOfRange { .. })));
        }
        ch.write_zeroes(9 * BLOCK, BLOCK).await.unwrap();
        let (seven, nought) = (fill(7, 1)[0].clone(), fill(0, 1)[0].clone());
        assert!(ch.compare_and_write(8 * BLOCK, seven.clone(), nought.clone()).await.unwrap());
        assert!(!ch.compare_and_write(8 * BLOCK, seven, nought).await.unwrap());
    });
    assert_eq!(drive.peek(10 * BLOCK - 1, 2), [0, 7]);
    drive.poke(10 * BLOCK - 1, &[1, 2]);
    assert_eq!(drive.peek(10 * BLOCK - 2, 4), [0, 1, 2, 7]);
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_gambles_the_rest() {
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let n = sim.add_node(1);
        let drive = SimDrive::new("d0", 1 << 30, true);
        let d = drive.clone();
        sim.block_on(n, || async move {
            let ch = d.drive().open().unwrap();
            ch.write(0, fill(1, 1), Durability::Cached).await.unwrap();
            ch.flush().await.unwrap();
            ch.write(BLOCK, fill(2, 1), Durability::Durable).await.unwrap();
            ch.write(2 * BLOCK, fill(3, 1), Durability::Cached).await.unwrap();
            // In flight when the lights go out, though its caller has left.
            drop(reactor::spawn(async move { ch.write(16 * BLOCK, fill(4, 16), Durability::Durable).await }));
            reactor::sleep(Duration::from_micros(2)).await;
        });
        sim.crash(n);
        drive.power_cut();
        assert_eq!((drive.peek(0, 1)[0], drive.peek(BLOCK, 1)[0]), (1, 2));
        match drive.peek(2 * BLOCK, 1)[0] {
            3 => kept += 1,
            _ => dropped += 1,
        }
        let new = (16..32).filter(|b| drive.peek(b * BLOCK, 1)[0] == 4).count();
        torn += usize::from(new > 0 && new < 16);
        let before = drive.peek(0, 32 * BLOCK as usize);
        // Nothing of the dead node lands later.
        sim.restart(n, 1);
        sim.block_on(n, || reactor::sleep(100 * MS));
        assert_eq!(before, drive.peek(0, 32 * BLOCK as usize));
    }
    assert!(kept > 5 && dropped > 5 && torn > 20, "{kept} {dropped} {torn}");
}

#[test]
fn a_write_whose_caller_left_still_lands() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(1);
    let drive = SimDrive::new("d0", 1 << 20, false);
    let d = drive.clone();
    sim.block_on(n, || async move {
        let ch = d.drive().open().unwrap();
        let us = Duration::from_micros;
        assert!(reactor::timeout(us(1), ch.write(0, fill(1, 1), Durability::Cached)).await.is_none());
        assert_eq!(d.peek(0, 1), [0]);
        reactor::sleep(us(300)).await;
        assert_eq!(d.peek(0, 1), [1]);
    });
}

fn faulty_run(seed: u64) -> (u64, Vec<u8>, basalt_bdev::sim::SimDriveCounters) {
    let mut sim = Sim::new(seed);
    let n = sim.add_node(2);
    let drive = SimDrive::new("d0", 64 * BLOCK, true);
    drive.set_faults(SimFaults {
        read_error_ppm: 100_000,
        lost_write_ppm: 100_000,
        misdirected_write_ppm: 100_000,
        bit_rot_ppm: 100_000,
        slow_ppm: 10_000,
        slow_us: 10_000,
    });
    let d = drive.clone();
    sim.block_on(n, || async move {
        let ch = d.drive().open().unwrap();
        let writes = (0..200u64).map(|i| ch.write(i % 64 * BLOCK, fill(i as u8, 1), Durability::Cached));
        join_all(writes).await.into_iter().for_each(|r| r.unwrap());
        reactor::sleep(10_000 * MS).await;
        for i in 0..64 {
            let _ = ch.read(i * BLOCK, 4096).await;
        }
    });
    sim.crash(n);
    drive.power_cut();
    (sim.trace_hash(), drive.peek(0, 64 * 4096), drive.counters())
}

#[test]
fn faults_happen_are_counted_and_repeat() {
    let run = faulty_run(5);
    assert!(run == faulty_run(5));
    assert!(run.1 != faulty_run(6).1);
    let c = run.2;
    assert_eq!((c.writes, c.reads), (200, 64));
    assert!(c.read_errors > 0 && c.lost_writes > 5 && c.misdirected_writes > 5 && c.bit_rots > 5, "{c:?}");
    assert!(c.dropped_at_power_cut > 5);
}

#[test]
fn a_failed_drive_is_gone_until_revived() {
    let mut sim = Sim::new(5);
    let n = sim.add_node(1);
    let drive = SimDrive::new("d0", 64 * BLOCK, true);
    sim.block_on(n, || async move {
        let ch = drive.drive().open().unwrap();
        ch.write(0, fill(1, 1), Durability::Durable).await.unwrap();
        drive.fail();
        let gone = BdevError::Gone { drive: "d0".into() };
        assert_eq!(ch.read(0, 4096).await.unwrap_err(), gone);
        assert_eq!(ch.write(0, fill(2, 1), Durability::Durable).await.unwrap_err(), gone);
        assert_eq!(ch.flush().await.unwrap_err(), gone);
        assert!(drive.drive().open().is_err());
        drive.revive();
        assert_eq!(ch.read(0, 4096).await.unwrap()[0], 1);
        drive.corrupt(0);
        let bits: u32 = ch.read(0, 4096).await.unwrap().iter().map(|b| (b ^ 1).count_ones()).sum();
        assert_eq!(bits, 1);
    });
}
