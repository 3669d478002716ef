//! The same model over a real pool on simulated drives: power cuts, a lost drive, and the accounts of live blocks.

use super::super::{Index, IndexStats};
use super::model::{Model, World, follow, tiny, work};
use basalt_bdev::DriveRef;
use basalt_bdev::sim::SimDrive;
use basalt_pool::{Pool, PoolSpec};
use basalt_reactor::sim::Sim;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const DRIVE_BYTES: u64 = 256 << 20;

thread_local! {
    static WORLD: RefCell<Option<(Rc<World>, Pool)>> = const { RefCell::new(None) };
}

/// In these tests only runs refer to blocks.
fn accounts_are_exact(index: &Index) {
    let in_runs: u64 = index.inner.state.borrow().runs.iter().map(|r| r.blocks).sum();
    assert_eq!(index.store().live_blocks(), in_runs, "blocks that live, blocks of runs");
}

fn simulate(seed: u64, lives: u64) -> IndexStats {
    let mut sim = Sim::new(seed);
    let node = sim.add_node(1);
    let drives: Vec<SimDrive> =
        (0..6).map(|n| SimDrive::new(&format!("d{n}"), DRIVE_BYTES, n % 2 == 0)).collect();
    let refs = || -> Vec<DriveRef> { drives.iter().map(SimDrive::drive).collect() };
    let all = refs();
    let shard = sim.block_on(node, || async move {
        let spec = PoolSpec { name: "tank".into(), scheme: Some("3+2".parse().unwrap()), force: false };
        let pool = Pool::create(all, &spec, |_, _| ()).await.unwrap();
        let shard = pool.create_shards(1).await.unwrap()[0];
        pool.close().await.unwrap();
        shard
    });
    let model = Rc::new(RefCell::new(Model::new()));
    let mut total = IndexStats::default();
    for life in 0..lives {
        let (all, model) = (refs(), model.clone());
        sim.spawn_on(node, move || async move {
            let pool = Pool::import(all).await.expect("imports");
            let index = Index::open_tuned(&pool, shard, tiny()).await.expect("opens");
            model.borrow_mut().crash(index.inner.recovered);
            accounts_are_exact(&index);
            let w = follow(index, &model).await;
            WORLD.set(Some((w.clone(), pool)));
            work(&w);
        });
        let ops = 50 + sim.random_u64() % 300;
        let mut fail = (life == lives / 2).then(|| sim.random_u64() % ops);
        let reached = sim.run_until(Duration::from_secs(600), || {
            let done = WORLD.with_borrow(|w| w.as_ref().map_or(0, |(w, _)| w.ops.get()));
            if fail.is_some_and(|at| done >= at) {
                fail = None;
                drives[(seed % 6) as usize].fail();
            }
            done >= ops
        });
        assert!(reached, "stuck");
        let (w, pool) = WORLD.take().expect("set by the task");
        let s = w.index.stats();
        total.flushes += s.flushes;
        total.merges += s.merges;
        sim.crash(node);
        drives.iter().for_each(SimDrive::power_cut);
        drop((w, pool));
        sim.restart(node, 1);
    }
    // Clean stop: the journal says everything, and nothing is leaked or freed early.
    let all = refs();
    sim.block_on(node, || async move {
        let pool = Pool::import(all).await.expect("imports");
        let index = Index::open_tuned(&pool, shard, tiny()).await.expect("opens");
        model.borrow_mut().crash(index.inner.recovered);
        let w = follow(index, &model).await;
        w.index.flush().await.expect("flushes");
        while w.index.inner.merge_step(true).await.expect("merges") {}
        accounts_are_exact(&w.index);
        w.index.close().await.expect("closes");
        drop(w);
        let index = Index::open_tuned(&pool, shard, tiny()).await.expect("opens");
        accounts_are_exact(&index);
        follow(index, &model).await;
    });
    total
}

#[test]
fn equals_the_model_on_a_real_pool() {
    let mut total = IndexStats::default();
    for seed in 0..40 {
        let s = simulate(seed, 5);
        total.flushes += s.flushes;
        total.merges += s.merges;
    }
    println!("{total:?}");
    assert!(total.flushes > 50 && total.merges > 20, "{total:?}");
}
