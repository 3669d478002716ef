use super::*;
use crate::planted::Planted;
use std::cell::Cell;
use std::rc::Rc;

#[test]
fn what_was_created_is_imported() {
    let mut w = World::new(1, 6);
    let drives = w.all();
    let progress = Rc::new(Cell::new((0, 0)));
    let seen = progress.clone();
    let created = w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |done, all| seen.set((done, all))).await.unwrap();
        pool.meta_write(vec![
            (b"fs/a".to_vec(), Some(b"one".to_vec())),
            (b"fs/b".to_vec(), Some(b"two".to_vec())),
        ])
        .await
        .unwrap();
        pool.meta_write(vec![(b"fs/a".to_vec(), None)]).await.unwrap();
        let ids = pool.create_shards(2).await.unwrap();
        let grant = pool.grant_shard(ids[0]).await.unwrap();
        assert_eq!((grant.epoch, grant.chunks.len()), (Epoch(1), CHUNKS_PER_SHARD));
        assert!(grant.chunks.iter().all(|c| c.members.len() == 3));
        let segments = pool.grant_segments(ids[0], grant.epoch, Class::Data, 5).await.unwrap();
        assert_eq!(segments.len(), 5);
        pool.free_segments(ids[0], grant.epoch, vec![segments[1].id]).await.unwrap();
        pool.seal_segment(ids[0], grant.epoch, segments[2].id).await.unwrap();
        let status = pool.status().await.unwrap();
        assert_eq!(status.health, "healthy");
        assert_eq!(status.root_copies.len(), 5);
        (pool.uuid(), ids, segments, status)
    });
    assert_eq!(progress.get().0, progress.get().1);
    assert!(progress.get().1 > 0);
    w.power_cut();

    let drives = w.all();
    let (uuid, ids, segments, before) = created;
    w.run(|| async move {
        let found = discover(drives.clone()).await;
        assert_eq!((found.len(), found[0].uuid, found[0].drives.len()), (1, uuid, 6));
        let view = inspect::root(drives.clone()).await;
        assert_eq!((view.error, view.segments.len()), (None, 4));
        let pool = Pool::import(drives).await.unwrap();
        assert_eq!((pool.uuid(), pool.name(), pool.scheme()), (uuid, "tank".into(), Scheme { k: 4, m: 2 }));
        assert_eq!(pool.meta_scan(b"fs/").await.unwrap(), vec![(b"fs/b".to_vec(), b"two".to_vec())]);
        assert_eq!(pool.meta_get(b"fs/a").await.unwrap(), None);
        let status = pool.status().await.unwrap();
        assert_eq!(status.capacity.available_bytes, before.capacity.available_bytes);
        let grant = pool.grant_shard(ids[0]).await.unwrap();
        assert_eq!(grant.epoch, Epoch(2));
        let mut expect = segments.clone();
        expect.remove(1);
        expect.iter_mut().for_each(|s| s.state = SegmentState::Sealed);
        assert_eq!(grant.segments, expect);
        // Ids are not used again.
        let more = pool.grant_segments(ids[0], grant.epoch, Class::Meta, 1).await.unwrap();
        assert_eq!(more[0].id.0, segments[4].id.0 + 1);
        pool.destroy_shards(&ids).await.unwrap();
        let status = pool.status().await.unwrap();
        assert_eq!((status.segments.open, status.segments.sealed, status.journal_slots_used), (0, 0, 0));
    });
}

#[test]
fn other_reactors_ask_the_owner() {
    let mut w = World::with_cores(2, 3, 3);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        let there = pool.to_ref();
        let ids = basalt_reactor::call_on(basalt_reactor::CoreId(2), move || async move {
            let pool = there.attach().await.unwrap();
            pool.meta_write(vec![(b"k".to_vec(), Some(b"v".to_vec()))]).await.unwrap();
            let before = pool.drive_generation();
            assert!(pool.channel(DriveIndex(1)).is_some());
            pool.drive_out(DriveIndex(1), "pulled").await.unwrap();
            assert!(pool.channel(DriveIndex(1)).is_none());
            assert!(pool.drive_generation() > before);
            pool.create_shards(1).await.unwrap()
        })
        .await;
        assert!(pool.channel(DriveIndex(1)).is_none());
        assert_eq!(pool.meta_get(b"k").await.unwrap(), Some(b"v".to_vec()));
        assert_eq!(ids, vec![ShardId(1)]);
        pool.close().await.unwrap();
        assert!(matches!(pool.meta_get(b"k").await, Err(PoolError::Stopped(_))));
    });
}

#[test]
fn fewer_drives_make_narrower_segments_until_writes_stop() {
    let mut w = World::new(3, 6);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        let id = pool.create_shards(1).await.unwrap()[0];
        let epoch = pool.grant_shard(id).await.unwrap().epoch;
        for (n, scheme, health) in [
            (0, "3+2", "degraded, no spare"),
            (1, "2+2", "degraded, no spare"),
            (2, "1+2", "degraded, no spare"),
        ] {
            pool.drive_out(DriveIndex(n), "test").await.unwrap();
            let status = pool.status().await.unwrap();
            assert_eq!(status.health, health);
            assert_eq!(status.effective_scheme, Some(scheme.parse().unwrap()));
            let segments = pool.grant_segments(id, epoch, Class::Data, 1).await.unwrap();
            assert_eq!(segments[0].scheme, scheme.parse().unwrap());
            assert!(segments[0].members.iter().all(|m| m.drive > DriveIndex(n)));
            let chunk = pool.grant_chunk(id, epoch, ChunkWanted::Ahead).await.unwrap();
            assert!(chunk.members.iter().all(|(d, _)| *d > DriveIndex(n)));
            // Nothing but these lies on more drives than remain.
            pool.free_segments(id, epoch, vec![segments[0].id]).await.unwrap();
        }
        pool.drive_out(DriveIndex(3), "test").await.unwrap();
        assert!(pool.status().await.unwrap().health.starts_with("writes stopped"));
        let refused = pool.grant_segments(id, epoch, Class::Meta, 1).await;
        assert!(matches!(refused, Err(PoolError::Stopped(_))), "{refused:?}");
        // The root itself goes on: what is there can be read.
        pool.grant_shard(id).await.unwrap();
    });
}

#[test]
fn a_full_pool_keeps_a_reserve_for_metadata() {
    let mut w = World::new(4, 3);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        let id = pool.create_shards(1).await.unwrap()[0];
        let epoch = pool.grant_shard(id).await.unwrap().epoch;
        let mut granted = Vec::new();
        let full = loop {
            match pool.grant_segments(id, epoch, Class::Data, 64).await {
                Ok(some) => granted.extend(some),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, PoolError::NoSpace(_)), "{full}");
        assert_eq!(pool.capacity().await.unwrap().available_bytes, 0);
        let reserve = pool.grant_segments(id, epoch, Class::Meta, 64).await.unwrap();
        assert!(reserve.len() >= 2);
        let none = pool.grant_segments(id, epoch, Class::Meta, 1).await;
        assert!(matches!(none, Err(PoolError::NoSpace(_))));
        // No unit is granted twice, members of a segment are distinct drives, and the space is used up evenly.
        let mut units: Vec<AuRef> = granted.iter().chain(&reserve).flat_map(|s| s.members.clone()).collect();
        let all = units.len();
        units.sort_by_key(|a| (a.drive, a.au));
        units.dedup();
        assert_eq!(units.len(), all);
        assert_eq!(
            pool.status().await.unwrap().drives.iter().map(|d| d.aus_used as usize).sum::<usize>(),
            all
        );
        pool.free_segments(id, epoch, granted.iter().map(|s| s.id).collect()).await.unwrap();
        assert!(pool.grant_segments(id, epoch, Class::Data, 1).await.is_ok());
    });
}

#[test]
fn journal_chunks_are_spread_and_traded() {
    let mut w = World::new(5, 6);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        let slots = pool.status().await.unwrap().journal_slots;
        let refused = pool.create_shards(slots as u16).await;
        assert!(matches!(refused, Err(PoolError::NoSpace(_))));
        assert_eq!(pool.status().await.unwrap().journal_slots_used, 0);
        // Six drives with eight slots each: 2 shards could be given 4 chunks and one more on the four drives that two
        // losses leave, a third shard only 2 on five drives.
        let ids = pool.create_shards(2).await.unwrap();
        assert_eq!(pool.status().await.unwrap().journal_slots_used, 2 * CHUNKS_PER_SHARD as u64 * 3);
        pool.create_shards(1).await.unwrap();
        assert_eq!(pool.status().await.unwrap().journal_slots_used, (2 * CHUNKS_PER_SHARD as u64 + 2) * 3);
        let grant = pool.grant_shard(ids[0]).await.unwrap();
        let old = &grant.chunks[0];
        let new = pool.grant_chunk(ids[0], grant.epoch, ChunkWanted::InPlaceOf(old.id)).await.unwrap();
        assert!(new.id > old.id);
        let other = pool.grant_shard(ids[1]).await.unwrap();
        let refused = pool.grant_chunk(ids[0], grant.epoch, ChunkWanted::InPlaceOf(other.chunks[0].id)).await;
        assert!(matches!(refused, Err(PoolError::Refused(_))));
    });
}

#[test]
fn a_fenced_owner_is_refused() {
    let run = || {
        let mut w = World::new(6, 3);
        let drives = w.all();
        w.run(|| async move {
            let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
            let id = pool.create_shards(1).await.unwrap()[0];
            let old = pool.grant_shard(id).await.unwrap();
            let new = pool.grant_shard(id).await.unwrap();
            assert_eq!(new.epoch.0, old.epoch.0 + 1);
            pool.grant_segments(id, new.epoch, Class::Data, 1).await.unwrap();
            matches!(
                pool.grant_segments(id, old.epoch, Class::Data, 1).await,
                Err(PoolError::Fenced { ours: Epoch(1), theirs: Epoch(2), .. })
            )
        })
    };
    assert!(run());
    planted::set(Some(Planted::StaleEpochAccepted));
    assert!(!run());
    planted::set(None);
}

#[test]
fn a_long_log_goes_from_area_to_area() {
    let mut w = World::new(7, 3);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        // 18 MiB areas, 60 KiB a round.
        for n in 0..900u32 {
            let value = vec![n as u8; 60_000];
            pool.meta_write(vec![(format!("k{}", n % 40).into_bytes(), Some(value))]).await.unwrap();
        }
    });
    w.power_cut();
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::import(drives).await.unwrap();
        for n in 860..900u32 {
            let value = pool.meta_get(format!("k{}", n % 40).as_bytes()).await.unwrap();
            assert_eq!(value, Some(vec![n as u8; 60_000]));
        }
    });
}

#[test]
fn the_key_value_area_is_bounded() {
    let mut w = World::new(8, 1);
    let drives = w.all();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        assert_eq!(pool.scheme(), Scheme { k: 1, m: 0 });
        let big = vec![7; MAX_META_VALUE_BYTES];
        assert!(matches!(pool.meta_write(vec![(vec![], None)]).await, Err(PoolError::Refused(_))));
        let too_big = vec![(b"k".to_vec(), Some(vec![0; MAX_META_VALUE_BYTES + 1]))];
        assert!(matches!(pool.meta_write(too_big).await, Err(PoolError::Refused(_))));
        let mut n = 0u32;
        let full = loop {
            let change = vec![(n.to_le_bytes().to_vec(), Some(big.clone()))];
            if let Err(error) = pool.meta_write(change).await {
                break error;
            }
            n += 1;
        };
        assert!(matches!(full, PoolError::NoSpace(_)), "{full}");
        assert!(n >= 254, "{n}");
        pool.meta_write(vec![(0u32.to_le_bytes().to_vec(), None)]).await.unwrap();
        pool.meta_write(vec![(n.to_le_bytes().to_vec(), Some(big.clone()))]).await.unwrap();
    });
}
