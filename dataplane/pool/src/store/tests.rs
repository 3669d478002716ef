//! A shard's store on the real root and simulated drives, compared with a model byte by byte.

mod faults;
mod model;
mod storm;

use super::*;
use crate::tests::World;
use model::*;

#[test]
fn records_and_blocks_survive_a_power_cut() {
    for seed in 0..5 {
        let mut world = Bench::new(seed, 6, "4+2");
        let shard = world.shard();
        let lsn = world.run(move |pool| async move {
            let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
            assert!(recovery.checkpoint.is_none() && recovery.records.is_empty());
            store.start().await.unwrap();
            let mut model = Model::default();
            for i in 0..20 {
                model.write(&store, Class::Data, 1 + i * 7).await.unwrap();
            }
            store.wait_durable(store.last_lsn()).await.unwrap();
            model.check(&store).await;
            (store.last_lsn(), model.contents)
        });
        let (lsn, contents) = lsn;
        world.power_cut();
        world.run(move |pool| async move {
            let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap();
            assert_eq!(recovery.records.last().map(|r| r.0), Some(lsn));
            let model = Model::replay(&store, &recovery);
            assert_eq!(model.contents, contents);
            store.start().await.unwrap();
            model.check(&store).await;
            assert!(store.last_lsn().0 > lsn.0 + 1000);
            store.close().await.unwrap();
        });
    }
}

#[test]
fn inspection_shows_what_an_open_would_find() {
    let mut bench = Bench::new(9, 6, "4+2");
    let shard = bench.shard();
    let (live, last) = bench.run(move |pool| async move {
        let (store, _) = ShardStore::open(&pool, shard).await.unwrap();
        store.start().await.unwrap();
        let mut model = Model::default();
        for _ in 0..6 {
            model.write(&store, Class::Data, 700).await.unwrap();
        }
        let lsn = model.checkpoint(&store);
        store.wait_durable(lsn).await.unwrap();
        model.write(&store, Class::Data, 1).await.unwrap();
        basalt_reactor::sleep(std::time::Duration::from_secs(1)).await;
        store.close().await.unwrap();
        pool.close().await.unwrap();
        (model.contents.values().flat_map(|v| v.placed.clone()).collect::<Vec<_>>(), lsn)
    });
    let (first, all) = (live[0].at.segment, bench.world.all());
    bench.world.run(move || async move {
        let journal = crate::inspect::journal(all.clone(), shard).await.unwrap();
        assert_eq!(journal.error, None);
        assert_eq!((journal.checkpoint_lsn, journal.replay_records), (Some(last.0), 1));
        assert_eq!(journal.last_lsn, last.0 + 1);
        assert!(!journal.chain.is_empty());
        assert!(crate::inspect::journal(all.clone(), ShardId(99)).await.is_err());
        let segment = crate::inspect::segment(all, first).await.unwrap();
        assert!(segment.columns.iter().all(|c| c.checksum_rows == segment.rows && c.bad_blocks == 0));
        let footer: u64 = segment.footer.expect("it is full").iter().map(|e| e.blocks as u64).sum();
        let placed = live.iter().filter(|p| p.at.segment == first).map(|p| p.blocks as u64).sum::<u64>();
        assert_eq!(footer, placed);
    });
}
