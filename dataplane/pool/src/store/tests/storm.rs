//! Random work with crashes and lost drives: what was acknowledged is there, byte by byte, and the accounts are true.

use super::*;
use basalt_reactor::sync::join_all;
use basalt_reactor::{random_u64, sleep, timeout};
use std::time::Duration;

#[derive(Clone)]
enum Change {
    Put(u64, Value),
    Delete(u64),
}

/// What has been appended, in order, over all incarnations.
#[derive(Default)]
struct History {
    changes: Vec<(Lsn, Change)>,
    acknowledged: u64,
    /// Highest LSN ever seen: none may come twice.
    highest: u64,
    incarnations: u32,
    stats: Vec<Rc<RefCell<StoreStats>>>,
}
impl History {
    fn contents(&self) -> BTreeMap<u64, Value> {
        let mut contents = BTreeMap::new();
        for (_, change) in &self.changes {
            match change {
                Change::Put(key, value) => {
                    contents.insert(*key, value.clone());
                }
                Change::Delete(key) => {
                    contents.remove(key);
                }
            }
        }
        contents
    }
}

pub(super) fn live_blocks(store: &ShardStore) -> u64 {
    store.inner.accounts.borrow().segments.values().map(|s| s.state().live).sum()
}

async fn incarnation(pool: Pool, shard: ShardId, history: Rc<RefCell<History>>) {
    let (store, recovery) = ShardStore::open(&pool, shard).await.unwrap_or_else(|e| panic!("open: {e}"));
    let model = Model::replay(&store, &recovery);
    {
        let mut h = history.borrow_mut();
        let last =
            recovery.records.last().map_or(recovery.checkpoint_lsn, |r| r.0.max(recovery.checkpoint_lsn));
        assert!(
            last.0 >= h.acknowledged,
            "record {} was acknowledged, the journal ends at {last}",
            h.acknowledged
        );
        h.changes.retain(|(lsn, _)| *lsn <= last);
        assert_eq!(model.contents, h.contents());
        assert!(store.last_lsn().0 >= h.highest, "LSN {} comes again", h.highest);
        assert_eq!(live_blocks(&store), model.live_blocks());
        h.incarnations += 1;
        h.stats.push(store.inner.stats.clone());
    }
    store.start().await.unwrap_or_else(|e| panic!("start: {e}"));
    model.check(&store).await;
    let (store, model) = (Rc::new(store), Rc::new(RefCell::new(model)));
    for _ in 0..3 {
        spawn(work(store.clone(), model.clone(), history.clone()));
    }
    loop {
        sleep(Duration::from_millis(20 + random_u64() % 100)).await;
        let snapshot = model.borrow().clone();
        let pin = store.pin();
        snapshot.check_some(&store, snapshot.contents.len().saturating_sub(5)).await;
        drop(pin);
        assert_eq!(live_blocks(&store), model.borrow().live_blocks());
    }
}

async fn work(store: Rc<ShardStore>, model: Rc<RefCell<Model>>, history: Rc<RefCell<History>>) {
    loop {
        let appended = |lsn: Lsn, change: Change| {
            let mut h = history.borrow_mut();
            h.highest = h.highest.max(lsn.0);
            h.changes.push((lsn, change));
        };
        store.wait_room().await.unwrap_or_else(|e| panic!("room: {e}"));
        let lsn = match random_u64() % 16 {
            0..7 => {
                let seed = random_u64();
                let blocks = 1 + random_u64() % if random_u64().is_multiple_of(4) { 600 } else { 20 };
                match write_value(&store, Class::Data, seed, blocks as usize).await {
                    Ok(written) => {
                        let (lsn, key) = model.borrow_mut().put(&store, seed, written);
                        appended(lsn, Change::Put(key, model.borrow().contents[&key].clone()));
                        lsn
                    }
                    Err(PoolError::NoSpace(_)) => store.last_lsn(),
                    Err(e) => panic!("write: {e}"),
                }
            }
            7..13 => {
                let mut model = model.borrow_mut();
                match model.any_key() {
                    Some(key) if model.contents.len() > 6 => {
                        let lsn = model.delete(&store, key);
                        appended(lsn, Change::Delete(key));
                        lsn
                    }
                    _ => continue,
                }
            }
            13 => {
                let lsn = model.borrow().checkpoint(&store);
                let mut h = history.borrow_mut();
                h.highest = h.highest.max(lsn.0);
                lsn
            }
            _ => {
                sleep(Duration::from_micros(random_u64() % 3000)).await;
                continue;
            }
        };
        if random_u64().is_multiple_of(2) {
            store.wait_durable(lsn).await.unwrap_or_else(|e| panic!("journal: {e}"));
            let mut h = history.borrow_mut();
            h.acknowledged = h.acknowledged.max(lsn.0);
        }
    }
}

/// Runs one seed; returns how often the shard was opened and the counters of all incarnations together.
fn storm(seed: u64, drives: usize, scheme: &str, losses: usize) -> (u32, StoreStats) {
    let mut bench = Bench::new(seed, drives, scheme);
    let (shard, history) = (bench.shard(), Rc::new(RefCell::new(History::default())));
    let mut lost = 0;
    for _ in 0..5 {
        let all = bench.world.all();
        let (node, h) = (bench.world.node, history.clone());
        bench.world.sim.spawn_on(node, move || async move {
            let pool = Pool::import(all).await.unwrap_or_else(|e| panic!("import: {e}"));
            incarnation(pool, shard, h).await;
        });
        let run_for = Duration::from_millis(20 + bench.world.sim.random_u64() % 150);
        let lose = lost < losses && bench.world.sim.random_u64().is_multiple_of(2);
        bench.world.sim.run_until(run_for, || false);
        if lose {
            // Among those that still live.
            let which = (bench.world.sim.random_u64() as usize % drives / losses) * losses + lost;
            bench.world.drives[which % drives].fail();
            lost += 1;
            bench.world.sim.run_until(run_for, || false);
        }
        bench.power_cut();
    }
    let h = history.borrow();
    let mut total = StoreStats::default();
    for s in &h.stats {
        let s = s.borrow();
        total.segments_freed += s.segments_freed;
        total.degraded_reads += s.degraded_reads;
        total.chunks_recycled += s.chunks_recycled;
        total.repaired_blocks += s.repaired_blocks;
        total.chunk_failures += s.chunk_failures;
        total.stripes_rewritten += s.stripes_rewritten;
    }
    (h.incarnations, total)
}

#[test]
fn acknowledged_records_survive_crashes() {
    for seed in 0..5 {
        let (incarnations, stats) = storm(seed, 6, "4+2", 0);
        assert!(incarnations >= 3, "seed {seed}: {incarnations} incarnations");
        assert_eq!(stats.repaired_blocks, 0, "seed {seed}: {stats:?}");
        assert!(stats.segments_freed > 0, "seed {seed}: {stats:?}");
    }
}

#[test]
fn acknowledged_records_survive_crashes_and_lost_drives() {
    let (mut degraded, mut chunk_failures, mut rewritten) = (0, 0, 0);
    for seed in 100..108 {
        let (incarnations, stats) = storm(seed, 8, "4+2", 2);
        assert!(incarnations >= 3, "seed {seed}: {incarnations} incarnations");
        degraded += stats.degraded_reads;
        chunk_failures += stats.chunk_failures;
        rewritten += stats.stripes_rewritten;
    }
    assert!(degraded > 0 && chunk_failures > 0 && rewritten > 0, "{degraded} {chunk_failures} {rewritten}");
}

/// With as many drives as columns, a lost one leaves a narrower scheme.
#[test]
fn a_pool_without_spares_goes_on_narrower() {
    for seed in 200..203 {
        let (incarnations, _) = storm(seed, 6, "4+2", 2);
        assert!(incarnations >= 3, "seed {seed}: {incarnations} incarnations");
    }
}

/// Clients that keep journals full, on drives so small that the root has no chunks to spare: whenever there is no room,
/// what was appended still becomes durable, and so does the checkpoint that makes room.
#[test]
fn journals_that_cannot_grow_are_emptied_by_checkpoints() {
    const SHARDS: u16 = 3;
    let mut bench = Bench::new(33, 6, "4+2");
    bench.run(|pool| async move {
        let mut shards = vec![];
        for id in pool.create_shards(SHARDS).await.unwrap() {
            let (store, _) = ShardStore::open(&pool, id).await.unwrap();
            store.start().await.unwrap();
            shards.push(store);
        }
        join_all(shards.iter().map(|store| async move {
            let mut waits = 0;
            for n in 0..400 {
                let room = timeout(Duration::ZERO, store.wait_room()).await;
                if room.is_none() {
                    waits += 1;
                    let upto = store.last_lsn();
                    within(store.wait_durable(upto)).await;
                    let checkpoint = store.checkpoint(b"", Lsn(upto.0 + 1));
                    within(store.wait_durable(checkpoint)).await;
                    within(store.wait_room()).await;
                }
                let len = if random_u64().is_multiple_of(10) { MAX_RECORD_BYTES } else { 60_000 };
                store.append(&vec![n as u8; len]);
                // Some arrive together, as from many clients.
                if n % 7 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            assert!(waits > 3, "the journal was never full");
        }))
        .await;
    });

    async fn within(f: impl Future<Output = Result<()>>) {
        timeout(Duration::from_secs(60), f).await.expect("stuck").unwrap();
    }
}

/// Every start takes a chunk before any checkpoint gives one back, so a node that crashes at each start must not use its
/// journals up; with a drive lost, and with the journals full to begin with.
#[test]
fn shards_open_however_often_they_crash_before_a_checkpoint() {
    for (lost, shards) in [(0, 3), (1, 2), (2, 1)] {
        let mut bench = Bench::new(40 + lost as u64, 6, "4+2");
        let mut shards = bench.run(move |pool| async move {
            let mut opened = vec![];
            for id in pool.create_shards(shards).await.unwrap() {
                let (store, _) = ShardStore::open(&pool, id).await.unwrap();
                store.start().await.unwrap();
                let mut last = Lsn(0);
                while timeout(Duration::ZERO, store.wait_room()).await.is_some() {
                    last = store.append(&[1; 50_000]);
                    store.wait_durable(last).await.unwrap();
                }
                opened.push((id, last));
            }
            opened
        });
        for drive in 0..lost {
            bench.world.drives[drive].fail();
        }
        for _ in 0..20 {
            bench.power_cut();
            let before = shards.clone();
            shards = bench.run(|pool| async move {
                let mut after = vec![];
                for (id, last) in before {
                    let (store, recovery) = ShardStore::open(&pool, id).await.unwrap();
                    assert_eq!(recovery.records.last().unwrap().0, last);
                    store.start().await.unwrap();
                    let last = store.append(b"one more");
                    store.wait_durable(last).await.unwrap();
                    after.push((id, last));
                }
                after
            });
        }
    }
}
