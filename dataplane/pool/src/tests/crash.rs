//! The root under power cuts and lost drives, against a model of what was acknowledged.

use super::*;
use crate::planted::Planted;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const WRITERS: u32 = 4;
const ROUNDS: usize = 8;

/// What the pool has promised so far.
#[derive(Default)]
struct Model {
    uuid: Option<Uuid>,
    /// Per writer: last value acknowledged, last value asked for.
    acked: BTreeMap<u32, u64>,
    asked: BTreeMap<u32, u64>,
    shard: Option<ShardId>,
    epoch: u64,
    segments: BTreeMap<SegmentId, SegmentEntry>,
    /// Asked to be freed, not acknowledged.
    doubtful: BTreeSet<SegmentId>,
    ids: BTreeSet<SegmentId>,
    out: BTreeSet<DriveIndex>,
    wrong: Option<String>,
    imports: u32,
}

type Shared = Rc<RefCell<Model>>;

async fn check(pool: &Pool, model: &Shared) -> std::result::Result<(), String> {
    let say = |e: PoolError| e.to_string();
    if Some(pool.uuid()) != model.borrow().uuid {
        return Err("another pool".into());
    }
    for n in 0..WRITERS {
        let value = pool.meta_get(format!("w{n}").as_bytes()).await.map_err(say)?;
        let value = value.map_or(0, |v| u64::from_le_bytes(v[..8].try_into().unwrap()));
        let m = model.borrow();
        let (low, high) = (m.acked.get(&n).copied().unwrap_or(0), m.asked.get(&n).copied().unwrap_or(0));
        if !(low..=high).contains(&value) {
            return Err(format!("writer {n}: {value} is not in {low}..={high}"));
        }
    }
    let status = pool.status().await.map_err(say)?;
    for d in &model.borrow().out {
        if status.drives[d.0 as usize].state == DriveState::Live {
            return Err(format!("drive {d} was out and is trusted again"));
        }
    }
    let Some(shard) = model.borrow().shard else { return Ok(()) };
    let grant = pool.grant_shard(shard).await.map_err(say)?;
    let mut m = model.borrow_mut();
    if grant.epoch.0 <= m.epoch {
        return Err(format!("epoch {} after {}", grant.epoch, m.epoch));
    }
    m.epoch = grant.epoch.0;
    if grant.chunks.len() != CHUNKS_PER_SHARD {
        return Err(format!("{} chunks", grant.chunks.len()));
    }
    let found: BTreeMap<SegmentId, SegmentEntry> = grant.segments.into_iter().map(|s| (s.id, s)).collect();
    for (id, s) in &m.segments {
        match found.get(id) {
            None if m.doubtful.contains(id) => {}
            Some(f) if f.members == s.members && f.scheme == s.scheme && f.state == SegmentState::Sealed => {}
            other => return Err(format!("segment {id} was granted as {s:?} and is {other:?}")),
        }
    }
    // Grants that were not acknowledged may be there.
    m.segments = found;
    m.doubtful.clear();
    let ids: Vec<SegmentId> = m.segments.keys().copied().collect();
    m.ids.extend(ids);
    Ok(())
}

async fn write(pool: Pool, model: Shared, n: u32) {
    loop {
        let value = {
            let mut m = model.borrow_mut();
            let asked = m.asked.entry(n).or_insert(0);
            *asked += 1;
            *asked
        };
        let change = vec![(
            format!("w{n}").into_bytes(),
            Some([value.to_le_bytes().to_vec(), vec![n as u8; 3000]].concat()),
        )];
        if pool.meta_write(change).await.is_err() {
            return;
        }
        model.borrow_mut().acked.insert(n, value);
        basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 300)).await;
    }
}

async fn segments(pool: Pool, model: Shared) {
    let (shard, epoch) = {
        let m = model.borrow();
        match m.shard {
            Some(s) => (s, Epoch(m.epoch)),
            None => return,
        }
    };
    loop {
        let Ok(granted) = pool.grant_segments(shard, epoch, Class::Data, 3).await else { return };
        let free: Vec<SegmentId> = {
            let mut m = model.borrow_mut();
            for s in granted {
                if !m.ids.insert(s.id) {
                    m.wrong = Some(format!("segment id {} is used again", s.id));
                }
                m.segments.insert(s.id, s);
            }
            let free: Vec<SegmentId> =
                m.segments.keys().copied().take(m.segments.len().saturating_sub(6)).collect();
            m.doubtful.extend(&free);
            free
        };
        if pool.free_segments(shard, epoch, free.clone()).await.is_err() {
            return;
        }
        {
            let mut m = model.borrow_mut();
            for id in free {
                m.doubtful.remove(&id);
                m.segments.remove(&id);
            }
        }
        basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 500)).await;
    }
}

async fn live(drives: Vec<DriveRef>, model: Shared) {
    let pool = match Pool::import(drives).await {
        Ok(pool) => pool,
        Err(error) => {
            model.borrow_mut().wrong = Some(format!("import: {error}"));
            return;
        }
    };
    if let Err(why) = check(&pool, &model).await {
        // A drive that fails meanwhile does not stop the root within the promise, so every error is one.
        model.borrow_mut().wrong.get_or_insert(why);
        return;
    }
    model.borrow_mut().imports += 1;
    for n in 0..WRITERS {
        drop(basalt_reactor::spawn(write(pool.clone(), model.clone(), n)));
    }
    drop(basalt_reactor::spawn(segments(pool.clone(), model.clone())));
    loop {
        basalt_reactor::sleep(Duration::from_micros(200)).await;
        let Ok(status) = pool.status().await else { return };
        // Recorded durably: a change made after it is durable as well.
        if pool.meta_get(b"none").await.is_ok() {
            let out = status.drives.iter().filter(|d| d.state == DriveState::Out).map(|d| d.index);
            model.borrow_mut().out.extend(out);
        }
    }
}

/// One seed: rounds of import, load, perhaps a drive lost or back, and a power cut at a random moment.
fn run_seed(seed: u64, count: usize, may_fail: usize) -> std::result::Result<u32, String> {
    let mut w = World::new(seed, count);
    let model: Shared = Rc::default();
    let drives = w.all();
    let m = model.clone();
    w.run(|| async move {
        let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
        let shard = pool.create_shards(1).await.unwrap()[0];
        let mut m = m.borrow_mut();
        (m.uuid, m.shard) = (Some(pool.uuid()), Some(shard));
    });
    let mut failed: Vec<usize> = Vec::new();
    for round in 0..=ROUNDS {
        w.power_cut();
        // Drives that failed once come and go.
        let absent: BTreeSet<usize> =
            failed.iter().copied().filter(|_| w.sim.random_u64().is_multiple_of(2)).collect();
        for &d in &failed {
            w.drives[d].revive();
        }
        let present = w.refs((0..count).filter(|n| !absent.contains(n)));
        let m = model.clone();
        w.sim.spawn_on(w.node, || live(present, m));
        // Short ones cut the import itself.
        let limit = Duration::from_micros([500, 3_000, 30_000, 60_000][(w.sim.random_u64() % 4) as usize]);
        let first = Duration::from_nanos(w.sim.random_u64() % limit.as_nanos() as u64);
        let m = model.clone();
        w.sim.run_until(first, || m.borrow().wrong.is_some());
        if failed.len() < may_fail && w.sim.random_u64().is_multiple_of(3) {
            let d = (w.sim.random_u64() % count as u64) as usize;
            w.drives[d].fail();
            failed.push(d);
            failed.sort();
            failed.dedup();
        }
        let m = model.clone();
        let rest = if round == ROUNDS { Duration::from_millis(500) } else { limit - first };
        w.sim.run_until(rest, || m.borrow().wrong.is_some());
        if let Some(why) = &model.borrow().wrong {
            return Err(format!("seed {seed}, {count} drives, round {round}: {why}"));
        }
    }
    let imports = model.borrow().imports;
    Ok(imports)
}

#[test]
fn nothing_acknowledged_is_lost() {
    let mut imports = 0;
    for seed in 0..seeds() {
        imports += run_seed(seed, 5, 2).unwrap();
        imports += run_seed(seed, 3, 1).unwrap();
        imports += run_seed(seed, 7, 2).unwrap();
    }
    // The load must really have run.
    assert!(imports as u64 > 3 * seeds(), "{imports}");
}

#[test]
fn an_acknowledgement_by_a_minority_is_found() {
    planted::set(Some(Planted::RootMinorityAck));
    let found = (0..40).find_map(|seed| run_seed(seed, 5, 2).err());
    planted::set(None);
    assert!(found.is_some());
}

#[test]
fn trust_in_a_returned_drive_is_found() {
    planted::set(Some(Planted::ReturnedDriveTrusted));
    let found = (0..40).find_map(|seed| run_seed(seed, 5, 2).err());
    planted::set(None);
    assert!(found.is_some_and(|why| why.contains("trusted again")));
}

#[test]
fn a_creation_cut_short_says_so() {
    let mut cut_short = 0;
    for seed in 0..20 {
        let mut w = World::new(seed, 3);
        let drives = w.all();
        let done = Rc::new(RefCell::new(false));
        let d = done.clone();
        w.sim.spawn_on(w.node, || async move {
            Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
            *d.borrow_mut() = true;
        });
        let limit = Duration::from_nanos(w.sim.random_u64() % 8_000_000 + 1000);
        w.sim.run_until(limit, || *done.borrow());
        w.power_cut();
        let drives = w.all();
        let result = w.run(|| async move {
            let result = Pool::import(drives.clone()).await.map(|_| ()).map_err(|e| e.to_string());
            let mut again = spec(None);
            again.force = true;
            Pool::create(drives, &again, |_, _| ()).await.unwrap();
            result
        });
        match result {
            Ok(()) => {}
            Err(why) => {
                assert!(!*done.borrow(), "{why}");
                assert!(why.contains("no pool was found") || why.contains("cut short"), "{why}");
                cut_short += 1;
            }
        }
    }
    assert!(cut_short > 3, "{cut_short}");
}

/// More of them by BASALT_POOL_SEEDS.
fn seeds() -> u64 {
    std::env::var("BASALT_POOL_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6)
}
