//! Damage of every kind: repaired where redundancy allows, reported where it does not, never served.

use super::*;
use crate::planted::{self, Planted};
use basalt_reactor::random_u64;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Writes, closes; returns the model and where the columns of every segment lie: (drive, offset) of the unit.
fn filled(
    bench: &mut Bench,
    values: usize,
    blocks: usize,
) -> (Model, BTreeMap<SegmentId, Vec<(usize, u64)>>) {
    let shard = bench.shard();
    bench.run(move |pool| async move {
        let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
        let mut model = Model::replay(&store, &recovery);
        store.start().await.unwrap();
        for _ in 0..values {
            model.write(&store, Class::Data, blocks).await.unwrap();
        }
        store.close().await.unwrap();
        (model, units(&pool, &store))
    })
}
fn units(pool: &Pool, store: &ShardStore) -> BTreeMap<SegmentId, Vec<(usize, u64)>> {
    let accounts = store.inner.accounts.borrow();
    let units = accounts.segments.values().map(|s| {
        let members = s.entry.members.iter().map(|m| (m.drive.0 as usize, pool.au_offset(m.au)));
        (s.entry.id, members.collect())
    });
    units.collect()
}

/// Opens, replays, reads everything.
fn reread(bench: &mut Bench, model: &Model) -> StoreStats {
    let (shard, expected) = (bench.shard(), model.contents.clone());
    bench.run(move |pool| async move {
        let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
        let model = Model::replay(&store, &recovery);
        assert_eq!(model.contents, expected);
        store.start().await.unwrap();
        model.check(&store).await;
        let stats = store.stats();
        store.close().await.unwrap();
        stats
    })
}
fn with_fault<T>(fault: Planted, f: impl FnOnce() -> T) -> std::thread::Result<T> {
    planted::set(Some(fault));
    let result = catch_unwind(AssertUnwindSafe(f));
    planted::set(None);
    result
}

#[test]
fn rot_in_up_to_m_columns_is_repaired() {
    let mut bench = Bench::new(1, 6, "4+2");
    let (model, units) = filled(&mut bench, 12, 300);
    for columns in units.values() {
        for block in (0..512).step_by(3) {
            // Two columns of every codeword, checksum blocks (511) included.
            for column in [block / 3 % 6, (block / 3 + 1) % 6] {
                let (drive, offset) = columns[column as usize];
                bench.world.drives[drive].corrupt(offset + block * 4096);
            }
        }
    }
    let stats = reread(&mut bench, &model);
    assert!(stats.repaired_blocks > 300, "{stats:?}");
    // A third column: reported, not served.
    let value = model.contents.values().next().unwrap();
    let at = value.placed[0].at;
    for (drive, offset) in &units[&at.segment][..3] {
        bench.world.drives[*drive].poke(offset + at.block as u64 * 4096, &[0xee; 4096]);
    }
    let shard = bench.shard();
    let error = bench.run(move |pool| async move {
        let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
        let _ = Model::replay(&store, &recovery);
        store.start().await.unwrap();
        store.read(at, 1).await
    });
    assert!(matches!(error, Err(PoolError::Corrupt(_))), "{error:?}");
}

#[test]
fn ignoring_checksums_is_found() {
    let mut bench = Bench::new(2, 6, "4+2");
    let (model, units) = filled(&mut bench, 3, 100);
    for columns in units.values() {
        for (drive, offset) in &columns[..1] {
            (0..32).for_each(|b| bench.world.drives[*drive].corrupt(offset + b * 4096));
        }
    }
    assert!(with_fault(Planted::IgnoredChecksum, || reread(&mut bench, &model)).is_err());
}

/// A whole unit, data and checksums, that belongs to another segment: what writes that were lost or went astray leave.
#[test]
fn a_consistent_unit_of_another_place_is_refused() {
    for fault in [None, Some(Planted::IgnoredChecksumAddress)] {
        let mut bench = Bench::new(3, 6, "4+2");
        // Segments that are full, so that their checksums are on media only.
        let (model, units) = filled(&mut bench, 60, 100);
        let full: Vec<_> = units.values().take(2).cloned().collect();
        let (from, to) = (full[0][1], full[1][1]);
        let bytes = bench.world.drives[from.0].peek(from.1, 2 << 20);
        bench.world.drives[to.0].poke(to.1, &bytes);
        // A checkpoint, so that rows known to be on media are not in memory after replay.
        match fault {
            None => assert!(reread_after_checkpoint(&mut bench, &model).repaired_blocks > 100),
            Some(fault) => {
                assert!(with_fault(fault, || reread_after_checkpoint(&mut bench, &model)).is_err());
            }
        }
    }
}
fn reread_after_checkpoint(bench: &mut Bench, model: &Model) -> StoreStats {
    let shard = bench.shard();
    bench.run(move |pool| async move {
        let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
        let model = Model::replay(&store, &recovery);
        // Without the rows that replay put in memory.
        for s in store.inner.accounts.borrow().segments.values().take(2) {
            s.state_mut().rows.clear();
        }
        store.start().await.unwrap();
        let lsn = model.checkpoint(&store);
        store.wait_durable(lsn).await.unwrap();
        store.close().await.unwrap();
    });
    reread(bench, model)
}

#[test]
fn skipped_flushes_and_early_replies_are_found() {
    for fault in [Planted::SkippedFlush, Planted::ReplyBeforeCommit] {
        let found = (10..16).any(|seed| {
            with_fault(fault, || {
                let mut bench = Bench::new(seed, 6, "4+2");
                let shard = bench.shard();
                let model = bench.run(move |pool| async move {
                    let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
                    store.start().await.unwrap();
                    let mut model = Model::default();
                    for _ in 0..5 {
                        let (lsn, _) = model.write(&store, Class::Data, 200).await.unwrap();
                        store.wait_durable(lsn).await.unwrap();
                    }
                    model
                });
                bench.power_cut();
                reread(&mut bench, &model)
            })
            .is_err()
        });
        assert!(found, "{fault:?}");
    }
}

#[test]
fn an_acknowledgement_of_one_mirror_is_found() {
    let run = |seed: u64| {
        let mut bench = Bench::new(seed, 6, "4+2");
        let shard = bench.shard();
        let (model, members) = bench.run(move |pool| async move {
            let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
            store.start().await.unwrap();
            let mut model = Model::default();
            let (lsn, _) = model.write(&store, Class::Data, 3).await.unwrap();
            store.wait_durable(lsn).await.unwrap();
            (model, store.inner.journal.active_members())
        });
        bench.power_cut();
        // Up to m drives may go.
        let gone = seed as usize % members.len();
        bench.world.drives[members[gone].0.0 as usize].fail();
        reread(&mut bench, &model);
    };
    (20..32).for_each(run);
    assert!((20..32).any(|seed| with_fault(Planted::AckOneMirror, || run(seed)).is_err()));
}

/// (drive, offset of the chunk, offsets of its blocks) of every member of the newest chunk.
type Blocks = Vec<(usize, u64, Vec<u64>)>;
fn journal_blocks(bench: &Bench, members: &[(usize, u64)], chunk_bytes: u64) -> Blocks {
    let find = |(drive, base): &(usize, u64)| {
        let bytes = bench.world.drives[*drive].peek(*base, chunk_bytes as usize);
        let starts = (0..chunk_bytes).step_by(4096).filter(|o| bytes[*o as usize..].starts_with(b"BSLTJBLK"));
        (*drive, *base, starts.collect())
    };
    members.iter().map(find).collect()
}
fn with_journal(seed: u64) -> (Bench, Blocks, u64) {
    let mut bench = Bench::new(seed, 6, "4+2");
    let shard = bench.shard();
    let (members, chunk_bytes, last) = bench.run(move |pool| async move {
        let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
        store.start().await.unwrap();
        for i in 0..40u64 {
            let lsn = store.append(&vec![i as u8; 3000 + i as usize * 50]);
            store.wait_durable(lsn).await.unwrap();
        }
        let last = store.last_lsn().0;
        store.close().await.unwrap();
        let members = store.inner.journal.active_members();
        let members: Vec<_> = members.iter().map(|(d, s)| (d.0 as usize, pool.chunk_offset(*s))).collect();
        (members, pool.geometry().chunk_bytes, last)
    });
    let blocks = journal_blocks(&bench, &members, chunk_bytes);
    (bench, blocks, last)
}
fn last_record(bench: &mut Bench) -> Result<u64> {
    let shard = bench.shard();
    bench.run(move |pool| async move {
        let (store, recovery) = ShardStore::open(&pool, shard).await?;
        store.close().await?;
        Ok(recovery.records.last().map_or(0, |r| r.0.0))
    })
}

#[test]
fn a_damaged_block_below_the_committed_lsn_is_reported_not_cut() {
    for middle in [true, false] {
        let (mut bench, blocks, last) = with_journal(40);
        // One mirror is enough.
        for (drive, base, starts) in &blocks[1..] {
            bench.world.drives[*drive].corrupt(base + starts[20]);
        }
        assert_eq!(last_record(&mut bench).unwrap(), last);
        let (mut bench, blocks, last) = with_journal(41);
        for (drive, base, starts) in &blocks {
            let at = if middle { starts[20] } else { *starts.last().unwrap() };
            bench.world.drives[*drive].poke(base + at, &[0x5a; 4096]);
        }
        if middle {
            let error = last_record(&mut bench);
            assert!(matches!(error, Err(PoolError::Corrupt(_))), "{error:?}");
            let cut = with_fault(Planted::TailCutsCommitted, || last_record(&mut bench).unwrap());
            assert!(cut.unwrap() < last, "the fault must lose something");
        } else {
            // Nothing says that the last block was committed: it is a tail.
            assert_eq!(last_record(&mut bench).unwrap(), last - 1);
        }
    }
}

#[test]
fn recovery_survives_any_bytes() {
    for seed in 50..74 {
        let (mut bench, blocks, last) = with_journal(seed);
        let mut rng = seed;
        let mut next = |n: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % n
        };
        let mirrors = 1 + next(3) as usize;
        for (drive, base, starts) in blocks.iter().take(mirrors) {
            for _ in 0..1 + next(6) {
                let at = base + starts[next(starts.len() as u64) as usize] + next(600);
                let junk: Vec<u8> = (0..1 + next(40)).map(|_| next(256) as u8).collect();
                bench.world.drives[*drive].poke(at, &junk);
            }
        }
        match last_record(&mut bench) {
            Ok(found) if mirrors < 3 => assert_eq!(found, last, "seed {seed}"),
            Ok(found) => assert!(found <= last),
            Err(PoolError::Corrupt(_)) if mirrors == 3 => {}
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
}

/// A reader pins what it reads: deletes and new writes must leave it alone.
#[test]
fn freeing_segments_that_are_still_read_is_found() {
    let run = || {
        let mut bench = Bench::new(8, 6, "4+2");
        let shard = bench.shard();
        bench.run(move |pool| async move {
            let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
            store.start().await.unwrap();
            let mut model = Model::default();
            for _ in 0..12 {
                model.write(&store, Class::Data, 1000).await.unwrap();
            }
            let (read, pin) = (model.clone(), store.pin());
            for key in 1..=12 {
                model.delete(&store, key);
            }
            store.wait_durable(store.last_lsn()).await.unwrap();
            for _ in 0..6 {
                model.write(&store, Class::Data, 1000).await.unwrap();
            }
            read.check(&store).await;
            drop(pin);
            basalt_reactor::sleep(std::time::Duration::from_secs(1)).await;
            assert!(store.stats().segments_freed >= 4, "{:?}", store.stats());
            model.check(&store).await;
        });
    };
    run();
    assert!(with_fault(Planted::ReusedSegmentEarly, run).is_err());
}

#[test]
fn a_full_pool_says_so_and_takes_writes_again_after_deletes() {
    let mut bench = Bench::new(5, 6, "4+2");
    let shard = bench.shard();
    bench.run(move |pool| async move {
        let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
        store.start().await.unwrap();
        let mut model = Model::default();
        let full = loop {
            match model.write(&store, Class::Data, 1500).await {
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert!(matches!(full, PoolError::NoSpace(_)), "{full}");
        // Metadata may use the reserve.
        model.write(&store, Class::Meta, 10).await.unwrap();
        let keys: Vec<u64> = model.contents.keys().copied().collect();
        for key in &keys[..keys.len() - 3] {
            model.delete(&store, *key);
        }
        // No checkpoint, no wait: the write itself brings the space back.
        model.write(&store, Class::Data, 1500).await.unwrap();
        model.check(&store).await;
        store.close().await.unwrap();
    });
}

#[test]
fn a_full_journal_makes_callers_wait_for_a_checkpoint() {
    let mut bench = Bench::new(6, 6, "4+2");
    let shard = bench.shard();
    bench.run(move |pool| async move {
        let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
        let store = Rc::new(store);
        store.start().await.unwrap();
        let (writer, done) = (store.clone(), Rc::new(Cell::new(0)));
        let count = done.clone();
        spawn(async move {
            for i in 0..200 {
                writer.wait_room().await.unwrap();
                let lsn = writer.append(&[7; 200_000]);
                writer.wait_durable(lsn).await.unwrap();
                count.set(i + 1);
            }
        });
        basalt_reactor::sleep(std::time::Duration::from_secs(20)).await;
        let stuck = done.get();
        assert!(stuck < 200, "the journal has no bound");
        assert!(store.checkpoint_due());
        assert!(store.replay_bytes() >= stuck * 200_000);
        while done.get() < 200 {
            let lsn = store.checkpoint(b"c", Lsn(store.last_lsn().0 + 1));
            store.wait_durable(lsn).await.unwrap();
            basalt_reactor::sleep(std::time::Duration::from_millis(50)).await;
        }
        let lsn = store.checkpoint(b"c", Lsn(store.last_lsn().0 + 1));
        store.wait_durable(lsn).await.unwrap();
        assert!(store.replay_bytes() < 1 << 20);
        assert!(store.stats().chunks_recycled > 0);
    });
}

#[test]
fn a_slow_member_is_left_behind() {
    let mut bench = Bench::new(7, 8, "4+2");
    let shard = bench.shard();
    let drives = bench.world.drives.clone();
    bench.run(move |pool| async move {
        let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
        store.start().await.unwrap();
        let slow = store.inner.journal.active_members()[0].0;
        drives[slow.0 as usize].set_faults(basalt_bdev::sim::SimFaults {
            slow_ppm: 1_000_000,
            slow_us: 30_000_000,
            ..Default::default()
        });
        let before = basalt_reactor::now();
        let lsn = store.append(b"urgent");
        store.wait_durable(lsn).await.unwrap();
        assert!(before.elapsed() < std::time::Duration::from_secs(5), "{:?}", before.elapsed());
        assert_eq!(store.stats().chunk_slow, 1);
        drives[slow.0 as usize].set_faults(Default::default());
    });
    assert_eq!(last_record(&mut bench).map(|lsn| lsn > 0).ok(), Some(true));
}

/// Lost, misdirected and rotten writes on one drive at a time, while it runs.
#[test]
fn silent_faults_of_one_drive_are_never_served() {
    let mut repaired = 0;
    for seed in 80..84 {
        let mut bench = Bench::new(seed, 6, "4+2");
        let shard = bench.shard();
        let drives = bench.world.drives.clone();
        repaired += bench.run(move |pool| async move {
            let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
            store.start().await.unwrap();
            let victim = (random_u64() % 6) as usize;
            let mut model = Model::default();
            for i in 0..120 {
                let odd = basalt_bdev::sim::SimFaults {
                    lost_write_ppm: 200_000,
                    bit_rot_ppm: 300_000,
                    ..Default::default()
                };
                drives[victim].set_faults(if i % 2 == 0 { odd } else { Default::default() });
                model.write(&store, Class::Data, 1 + (random_u64() % 200) as usize).await.unwrap();
                if i % 7 == 0
                    && let Some(key) = model.any_key()
                {
                    model.delete(&store, key);
                }
            }
            drives[victim].set_faults(Default::default());
            // Bits flip some time after they were written.
            basalt_reactor::sleep(std::time::Duration::from_secs(300)).await;
            model.check(&store).await;
            store.stats().repaired_blocks
        });
    }
    assert!(repaired > 0);
}
