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
