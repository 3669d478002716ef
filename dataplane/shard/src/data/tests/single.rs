//! One behaviour at a time.

use super::*;
use basalt_reactor::sim::Sim;
use std::time::Duration;

const F: Ino = Ino(5);
const PAGE: usize = PAGE_BYTES as usize;

fn in_world<Fut: Future<Output = ()> + 'static>(seed: u64, f: impl FnOnce(Shard) -> Fut + 'static) {
    let mut sim = Sim::new(seed);
    let node = sim.add_node(1);
    sim.block_on(node, || async {
        let shard = open(&Media::new());
        shard.create(F).await;
        f(shard).await;
    });
}

#[test]
fn unstable_data_is_seen_at_once_and_durable_after_commit() {
    in_world(1, |s| async move {
        let data = noise(3 * PAGE + 100);
        let r = s.write(F, 50, &data, Stability::Unstable).await.unwrap();
        assert_eq!((r.count, r.committed, r.verifier), (data.len() as u32, Stability::Unstable, [7; 8]));
        assert_eq!((r.before.size, r.after.size), (0, 50 + data.len() as u64));
        assert!(r.after.change > r.before.change);
        let overlay = s.data.overlay(F).expect("not in the record yet");
        assert_eq!((overlay.size, overlay.change), (r.after.size, r.after.change));
        assert_eq!(s.read(F, 50, data.len()).await.unwrap(), data);
        assert_eq!(s.read(F, 0, 50).await.unwrap(), vec![0; 50]);
        let appended = s.media.appended.get();
        let (before, after) = s.data.commit(F, 0, 0).await.unwrap();
        assert_eq!(before.change, after.change, "what a client sees does not change by becoming durable");
        assert_eq!(s.media.appended.get(), appended + 1);
        assert_eq!(s.data.overlay(F), None);
        assert_eq!(s.inode(F).await.blocks, 4);
        s.audit(F).await;
        let again = s.write(F, 0, &[1], Stability::Unstable).await.unwrap();
        assert!(again.after.change > after.change);
    });
}

#[test]
fn a_small_stable_write_is_one_record_and_no_stripe() {
    in_world(2, |s| async move {
        let (records, stripes) = (s.media.appended.get(), s.media.data_writes.get());
        let r = s.write(F, 0, &noise(PAGE), Stability::DataSync).await.unwrap();
        assert_eq!(r.committed, Stability::FileSync);
        assert_eq!(s.media.appended.get(), records + 1);
        assert_eq!(s.media.data_writes.get(), stripes);
        s.write(F, 0, &noise(4 * PAGE), Stability::FileSync).await.unwrap();
        assert_eq!(s.media.appended.get(), records + 2);
        assert_eq!(s.media.data_writes.get(), stripes + 1);
        s.audit(F).await;
    });
}

#[test]
fn full_stripes_leave_before_commit_and_the_rest_by_age() {
    in_world(3, |s| async move {
        let data = noise(40 * PAGE);
        s.write(F, 0, &data, Stability::Unstable).await.unwrap();
        basalt_reactor::sleep(Duration::from_millis(100)).await;
        // Two stripes of 16 pages.
        assert_eq!(s.inode(F).await.blocks, 32);
        assert!(s.data.overlay(F).is_some());
        basalt_reactor::sleep(Duration::from_millis(2000)).await;
        assert_eq!(s.inode(F).await.blocks, 40);
        assert_eq!(s.data.overlay(F), None);
        assert_eq!(s.read_all(F).await, data);
    });
}

#[test]
fn a_file_that_grows_again_shows_zeroes() {
    in_world(4, |s| async move {
        for stability in [Stability::Unstable, Stability::FileSync] {
            for pages in [1, 9] {
                s.write(F, 0, &noise(pages * PAGE), stability).await.unwrap();
                let cut = (pages - 1) * PAGE + 100;
                s.truncate(F, cut).await.unwrap();
                let kept = s.read_all(F).await;
                s.truncate(F, 12 * PAGE).await.unwrap();
                let all = s.read_all(F).await;
                assert_eq!(all[..cut], kept);
                assert!(all[cut..].iter().all(|b| *b == 0));
                s.data.commit(F, 0, 0).await.unwrap();
                s.audit(F).await;
            }
        }
    });
}

#[test]
fn a_large_sparse_file_shrinks_in_slices() {
    in_world(5, |s| async move {
        for i in 0..1500 {
            s.write(F, i * 2 * PAGE, &noise(PAGE), Stability::Unstable).await.unwrap();
        }
        s.write(F, 1 << 45, &noise(10), Stability::Unstable).await.unwrap();
        s.data.commit(F, 0, 0).await.unwrap();
        assert_eq!(s.inode(F).await.blocks, 1501);
        s.audit(F).await;
        let (before, after) = s.truncate(F, 5 * PAGE + 7).await.unwrap();
        assert_eq!((before.size, after.size), ((1 << 45) + 10, 5 * PAGE as u64 + 7));
        assert_eq!(s.inode(F).await.blocks, 3);
        s.audit(F).await;
        s.truncate(F, 0).await.unwrap();
        assert_eq!(s.inode(F).await.blocks, 0);
    });
}

#[test]
fn seek_finds_data_and_holes() {
    in_world(6, |s| async move {
        let seek = async |offset: usize, what| s.data.seek(F, offset as u64, what).await.map(|o| o as usize);
        assert_eq!(seek(0, SeekWhat::Data).await, Err(FsError::NoMoreData));
        s.write(F, 3 * PAGE, &noise(5 * PAGE), Stability::FileSync).await.unwrap();
        s.write(F, 8 * PAGE, &noise(10), Stability::FileSync).await.unwrap();
        s.write(F, 20 * PAGE, &noise(10), Stability::Unstable).await.unwrap();
        assert_eq!(seek(0, SeekWhat::Hole).await, Ok(0));
        assert_eq!(seek(5, SeekWhat::Data).await, Ok(3 * PAGE));
        assert_eq!(seek(4 * PAGE + 5, SeekWhat::Data).await, Ok(4 * PAGE + 5));
        assert_eq!(seek(4 * PAGE, SeekWhat::Hole).await, Ok(9 * PAGE));
        assert_eq!(seek(9 * PAGE, SeekWhat::Data).await, Ok(20 * PAGE));
        assert_eq!(seek(20 * PAGE, SeekWhat::Hole).await, Ok(20 * PAGE + 10));
        assert_eq!(seek(20 * PAGE + 10, SeekWhat::Hole).await, Err(FsError::NoMoreData));
        for i in 0..3000 {
            s.write(F, i * PAGE, b"x", Stability::Unstable).await.unwrap();
        }
        assert_eq!(seek(0, SeekWhat::Hole).await, Ok(2999 * PAGE + 1));
    });
}

#[test]
fn punching_frees_pages_and_zeroes_edges() {
    in_world(7, |s| async move {
        let mut data = noise(12 * PAGE);
        s.write(F, 0, &data, Stability::FileSync).await.unwrap();
        let (from, to) = (PAGE + 50, 9 * PAGE + 70);
        s.data.deallocate(F, from as u64, (to - from) as u64, &any).await.unwrap();
        data[from..to].fill(0);
        assert_eq!(s.read_all(F).await, data);
        assert_eq!(s.inode(F).await.blocks, 5);
        s.audit(F).await;
        s.data.deallocate(F, 11 * PAGE as u64, 1 << 40, &any).await.unwrap();
        data[11 * PAGE..].fill(0);
        assert_eq!(s.read_all(F).await, data);
        assert_eq!(s.inode(F).await.blocks, 4);
        s.data.deallocate(F, 20, 30, &any).await.unwrap();
        data[20..50].fill(0);
        assert_eq!(s.read_all(F).await, data);
    });
}

#[test]
fn memory_stays_bounded() {
    in_world(8, |s| async move {
        for i in 0..1000 {
            s.write(F, i * 3 * PAGE, &noise(2 * PAGE), Stability::Unstable).await.unwrap();
            assert!(s.data.cache.dirty.get() <= 64 + 4);
            assert!(s.data.cache.resident.get() <= 256);
        }
        s.data.sync().await.unwrap();
        assert_eq!(s.data.cache.dirty.get(), 0);
        for i in 0..3000 {
            s.read(F, i * PAGE, PAGE).await.unwrap();
            assert!(s.data.cache.resident.get() <= 256);
        }
        s.audit(F).await;
    });
}

#[test]
fn a_full_pool_says_so_and_recovers_when_space_is_freed() {
    in_world(9, |s| async move {
        s.media.capacity.set(100);
        s.write(F, 0, &noise(90 * PAGE), Stability::FileSync).await.unwrap();
        let before = s.read_all(F).await;
        assert_eq!(
            s.write(F, 90 * PAGE, &noise(20 * PAGE), Stability::FileSync).await.err(),
            Some(FsError::NoSpace)
        );
        assert_eq!(s.read(F, 0, 90 * PAGE).await.unwrap(), before);
        // The tests' pool has 10 blocks left; a writer gets no further than that plus what gathers.
        let mut refused = 0;
        for i in 0..200 {
            if s.write(F, (200 + i) * PAGE, &noise(PAGE), Stability::Unstable).await.is_err() {
                refused += 1;
            }
            basalt_reactor::sleep(Duration::from_millis(10)).await;
        }
        assert!(refused > 50, "{refused}");
        assert!(s.data.commit(F, 0, 0).await.is_err());
        s.truncate(F, 10 * PAGE).await.unwrap();
        assert_eq!(s.read_all(F).await, before[..10 * PAGE]);
        s.write(F, 0, &noise(PAGE), Stability::Unstable).await.unwrap();
        s.data.commit(F, 0, 0).await.unwrap();
        s.audit(F).await;
        assert_eq!(s.data.cache.dirty.get(), 0);
    });
}

#[test]
fn a_pool_that_stops_is_an_error_not_a_hang() {
    in_world(10, |s| async move {
        s.media.broken.set(true);
        let mut refused = false;
        for i in 0..100 {
            refused |= s.write(F, i * 4 * PAGE, &noise(4 * PAGE), Stability::Unstable).await.is_err();
        }
        assert!(refused);
        assert!(s.data.commit(F, 0, 0).await.is_err());
        s.media.broken.set(false);
        s.data.commit(F, 0, 0).await.unwrap();
        s.audit(F).await;
    });
}

#[test]
fn deletion_goes_in_slices_and_frees_everything() {
    in_world(11, |s| async move {
        for i in 0..700 {
            s.write(F, i * 2 * PAGE, &noise(PAGE), Stability::Unstable).await.unwrap();
        }
        s.data.commit(F, 0, 0).await.unwrap();
        s.write(F, 0, &noise(PAGE), Stability::Unstable).await.unwrap();
        s.data.forget(F);
        assert_eq!((s.data.cache.dirty.get(), s.data.cache.resident.get()), (0, 0));
        let mut slices = 0;
        while !s.index.run(|txn| s.data.delete_slice(txn, F)).await.unwrap() {
            slices += 1;
        }
        assert!(slices >= 1);
        assert_eq!(s.media.live(), 0);
    });
}

#[test]
fn reads_in_order_are_fetched_ahead() {
    in_world(12, |s| async move {
        let data = noise(128 * PAGE);
        s.write(F, 0, &data, Stability::FileSync).await.unwrap();
        s.data.drop_pages(&s.data.file(F), 0, u64::MAX);
        for at in (0..128 * PAGE).step_by(8 * PAGE) {
            assert_eq!(s.read(F, at, 8 * PAGE).await.unwrap(), data[at..at + 8 * PAGE]);
        }
        assert_eq!(s.data.prefetches.get(), 0);
        assert_eq!(s.data.cache.resident.get(), 128);
    });
}
