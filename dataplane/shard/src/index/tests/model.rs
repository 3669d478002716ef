//! Random operations by several tasks at once, with crashes, flushes and merges, against a `BTreeMap`.
//!
//! The model is brought up to date in the breath in which a transaction commits, so inside a transaction function whatever the
//! index says must equal the model. After a crash the model goes back to the last record that survived, which must not be
//! before anything that was answered.

use super::super::{Index, IndexStats, Inner, Stop, Tuning, Txn};
use super::memory::{Media, MemoryStore};
use crate::keys::{prefix_end, tag};
use crate::planted::{self, Planted};
use basalt_pool::Lsn;
use basalt_reactor::sim::Sim;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

type Write = (Bytes, Option<Bytes>);

pub(super) struct Model {
    /// Value and the record that put it.
    now: BTreeMap<Bytes, (Bytes, Lsn)>,
    /// Record of each key's last change, deletions too.
    changed: BTreeMap<Bytes, Lsn>,
    history: Vec<(Lsn, Vec<Write>)>,
    /// What an answer rests on.
    answered: Lsn,
}
impl Model {
    pub(super) fn new() -> Model {
        Model { now: BTreeMap::new(), changed: BTreeMap::new(), history: Vec::new(), answered: Lsn(0) }
    }
    fn apply(&mut self, lsn: Lsn, writes: Vec<Write>) {
        for (k, v) in &writes {
            match v {
                Some(v) => self.now.insert(k.clone(), (v.clone(), lsn)),
                None => self.now.remove(k),
            };
            self.changed.insert(k.clone(), lsn);
        }
        self.history.push((lsn, writes));
    }
    pub(super) fn crash(&mut self, last: Lsn) {
        assert!(
            self.answered <= last,
            "answered from record {}, which a crash took back to {last}",
            self.answered
        );
        let history = std::mem::replace(self, Model::new()).history;
        self.answered = last;
        for (lsn, writes) in history.into_iter().filter(|(lsn, _)| *lsn <= last) {
            self.apply(lsn, writes);
        }
    }
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.now.get(key).map(|(v, _)| v.clone())
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        let range = super::super::memtable::bounds(from, to);
        self.now.range::<[u8], _>(range).take(limit).map(|(k, (v, _))| (k.clone(), v.clone())).collect()
    }
    /// The newest change of any key of the range.
    fn seen(&self, from: &[u8], to: &[u8]) -> Lsn {
        let range = super::super::memtable::bounds(from, to);
        self.changed.range::<[u8], _>(range).map(|(_, lsn)| *lsn).max().unwrap_or(Lsn(0))
    }
}

pub(super) fn tiny() -> Tuning {
    Tuning {
        flush_journal_bytes: 3000,
        flush_memtable_bytes: 9000,
        runs: 2,
        max_runs: 5,
        data_block_bytes: 300,
        partition_blocks: 3,
        partition_keys: 1000,
        cache_bytes: 60_000,
        attempts: 10_000,
        room_wait: Duration::from_secs(5),
    }
}

fn random(n: u64) -> u64 {
    basalt_reactor::random_u64() % n
}
fn random_key() -> Vec<u8> {
    let tags = [tag::INODE, tag::DIRENT, tag::PAGE, tag::SHARD];
    let mut k = vec![tags[random(4) as usize]];
    k.extend_from_slice(&(random(60) as u16).to_be_bytes());
    k.extend(std::iter::repeat_n(b'x', random(3) as usize));
    k
}
fn random_value() -> Vec<u8> {
    let mut v = vec![random(256) as u8; random(if random(30) == 0 { 6000 } else { 60 }) as usize];
    v.extend_from_slice(&random(1 << 32).to_be_bytes());
    v
}

pub(super) struct World {
    pub(super) index: Rc<Index>,
    model: Rc<RefCell<Model>>,
    pub(super) ops: Cell<u64>,
}
thread_local! {
    static WORLD: RefCell<Option<(Rc<World>, Rc<MemoryStore>)>> = const { RefCell::new(None) };
}

/// Lets the model follow an index that was just opened, and checks that it holds what the model holds.
pub(super) async fn follow(index: Rc<Index>, model: &Rc<RefCell<Model>>) -> Rc<World> {
    let (weak, m) = (Rc::downgrade(&index), model.clone());
    index.set_pack_pages(Rc::new(move |pages| {
        let (weak, model): (Weak<Index>, _) = (weak.clone(), m.clone());
        Box::pin(async move {
            for some in pages.chunks(7) {
                basalt_reactor::sleep(Duration::from_micros(random(100))).await;
                let Some(index) = weak.upgrade() else { return Ok(()) };
                let mut writes = Vec::new();
                let done = index
                    .run_nowait(|txn| {
                        writes.clear();
                        for p in some.iter().filter(|p| index.page_lsn(&p.key) == Some(p.lsn)) {
                            let extent = [&[tag::EXTENT], &p.key[1..]].concat();
                            txn.put(extent.clone(), p.value.to_vec());
                            txn.delete(p.key.to_vec());
                            writes.push((extent.into(), Some(p.value.clone())));
                            writes.push((p.key.clone(), None));
                        }
                        Ok(())
                    })
                    .await?;
                if let Some(lsn) = done.lsn {
                    model.borrow_mut().apply(lsn, std::mem::take(&mut writes));
                }
            }
            Ok(())
        })
    }));
    let all = index.run(|txn| txn.scan(&[], &[], usize::MAX)).await.expect("nothing fails here");
    assert_eq!(all, model.borrow().scan(&[], &[], usize::MAX), "after a restart");
    Rc::new(World { index, model: model.clone(), ops: Cell::new(0) })
}

/// Operations by several tasks, for ever.
pub(super) fn work(w: &Rc<World>) {
    for _ in 0..4 {
        let w = w.clone();
        drop(basalt_reactor::spawn(async move {
            loop {
                operation(&w).await;
                basalt_reactor::sleep(Duration::from_micros(random(60))).await;
            }
        }));
    }
}

async fn operation(w: &World) {
    w.ops.set(w.ops.get() + 1);
    match random(10) {
        0..5 => {
            let keys: Vec<Vec<u8>> = (0..1 + random(4)).map(|_| random_key()).collect();
            let values: Vec<Option<Vec<u8>>> =
                keys.iter().map(|_| (random(3) > 0).then(random_value)).collect();
            let blind = random(2) == 0;
            let done = w.index.run_nowait(|txn| {
                for (k, v) in keys.iter().zip(&values) {
                    if !blind {
                        txn.get(k)?;
                    }
                    match v {
                        Some(v) => txn.put(k.clone(), v.clone()),
                        None => txn.delete(k.clone()),
                    }
                }
                for (k, v) in keys.iter().zip(&values).rev().take(1) {
                    assert_eq!(txn.get(k)?.as_deref(), v.as_deref(), "own write");
                }
                Ok(txn.lsn())
            });
            let done = done.await.expect("nothing fails here");
            assert_eq!(done.lsn, Some(done.value));
            let writes = keys.into_iter().zip(values);
            let writes = writes.map(|(k, v)| (k.into(), v.map(Bytes::from))).collect();
            w.model.borrow_mut().apply(done.value, writes);
            if random(4) > 0 {
                w.index.wait_durable(done.observed).await.unwrap();
                let mut m = w.model.borrow_mut();
                m.answered = m.answered.max(done.value);
            }
        }
        5..8 => {
            let newest = w.model.borrow().history.last().map(|(_, writes)| writes[0].0.to_vec());
            let key = newest.filter(|_| random(2) == 0).unwrap_or_else(random_key);
            let read = |txn: &mut Txn<'_>| {
                let got = txn.get(&key)?;
                let m = w.model.borrow();
                assert_eq!(got, m.get(&key), "get {key:?}");
                let seen = m.changed.get(&key[..]).copied().unwrap_or(Lsn(0));
                let page = w.index.page_lsn(&key);
                if key[0] == tag::PAGE {
                    assert_eq!(page, m.now.get(&key[..]).map(|(_, lsn)| *lsn), "record of page {key:?}");
                }
                Ok(seen)
            };
            let seen = w.index.run(read).await.expect("nothing fails here");
            let mut m = w.model.borrow_mut();
            m.answered = m.answered.max(seen);
        }
        _ => {
            let from = random_key();
            let to = match random(3) {
                0 => prefix_end(&from[..1]),
                1 => Vec::new(),
                _ => random_key(),
            };
            let limit = [1, 3, 50, 1000][random(4) as usize];
            let own: Option<(Vec<u8>, Option<Vec<u8>>)> =
                (random(4) == 0).then(|| (random_key(), (random(2) == 0).then(random_value)));
            let scan = |txn: &mut Txn<'_>| {
                if let Some((k, v)) = &own {
                    match v {
                        Some(v) => txn.put(k.clone(), v.clone()),
                        None => txn.delete(k.clone()),
                    }
                }
                let got = txn.scan(&from, &to, limit)?;
                if !to.is_empty() && from >= to {
                    assert!(got.is_empty());
                    return Err(Stop::Fs(crate::vfs::FsError::Invalid));
                }
                let m = w.model.borrow();
                match &own {
                    None => assert_eq!(got, m.scan(&from, &to, limit), "scan {from:?}..{to:?} by {limit}"),
                    Some((k, v)) => {
                        let mut all: BTreeMap<Bytes, Bytes> =
                            m.scan(&from, &to, usize::MAX).into_iter().collect();
                        all.remove(&k[..]);
                        if let Some(v) = v
                            && *k >= from
                            && (to.is_empty() || *k < to)
                        {
                            all.insert(k.clone().into(), v.clone().into());
                        }
                        assert_eq!(
                            got,
                            all.into_iter().take(limit).collect::<Vec<_>>(),
                            "scan with own write"
                        );
                        // Aborted: nothing of it must stay.
                        return Err(Stop::Fs(crate::vfs::FsError::Invalid));
                    }
                }
                Ok(if got.len() < limit { m.seen(&from, &to) } else { Lsn(0) })
            };
            if let Ok(seen) = w.index.run(scan).await {
                let mut m = w.model.borrow_mut();
                m.answered = m.answered.max(seen);
            }
        }
    }
}

/// Runs of lives, each ended by a crash; what happened, to be compared between two runs of one seed.
fn simulate(seed: u64, lives: u64) -> (u64, IndexStats) {
    let mut sim = Sim::new(seed);
    let node = sim.add_node(1);
    let media = Rc::new(RefCell::new(Media::default()));
    let model = Rc::new(RefCell::new(Model::new()));
    let mut total = IndexStats::default();
    for _ in 0..lives {
        let (md, ml) = (media.clone(), model.clone());
        sim.spawn_on(node, move || async move {
            let (store, recovery) = MemoryStore::open(&md);
            let inner =
                Inner::restore(store.clone(), recovery, tiny()).expect("what was written can be read");
            inner.start_background();
            let w = follow(Rc::new(Index { inner, shard_store: None }), &ml).await;
            WORLD.set(Some((w.clone(), store)));
            work(&w);
        });
        let ops = 50 + sim.random_u64() % 400;
        let reached = sim.run_until(Duration::from_secs(60), || {
            WORLD.with_borrow(|w| w.as_ref().is_some_and(|(w, _)| w.ops.get() >= ops))
        });
        assert!(reached, "stuck");
        let (w, store) = WORLD.take().expect("set by the task");
        let s = w.index.stats();
        total.flushes += s.flushes;
        total.merges += s.merges;
        total.cache_hits += s.cache_hits;
        total.cache_misses += s.cache_misses;
        sim.crash(node);
        let last = store.cut(|unsure| sim.random_u64() % (unsure + 1));
        drop(w);
        model.borrow_mut().crash(last);
        sim.restart(node, 1);
    }
    (sim.trace_hash(), total)
}

#[test]
fn equals_the_model_through_crashes() {
    let mut total = IndexStats::default();
    for seed in 0..25 {
        let (_, s) = simulate(seed, 8);
        total.flushes += s.flushes;
        total.merges += s.merges;
        total.cache_hits += s.cache_hits;
        total.cache_misses += s.cache_misses;
    }
    println!("{total:?}");
    assert!(total.flushes > 500 && total.merges > 200, "{total:?}");
    assert!(total.cache_hits > 1000 && total.cache_misses > 1000, "{total:?}");
}

#[test]
fn a_seed_repeats_itself() {
    assert_eq!(simulate(4242, 5), simulate(4242, 5));
}

/// The model must notice each planted fault: otherwise it proves nothing.
#[test]
fn planted_faults_are_found() {
    for fault in [Planted::ReplyBeforeObserved, Planted::DroppedTombstone, Planted::CheckpointTooEarly] {
        planted::set(Some(fault));
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let found = (0..40).find(|seed| catch_unwind(AssertUnwindSafe(|| simulate(*seed, 8))).is_err());
        std::panic::set_hook(quiet);
        planted::set(None);
        WORLD.take();
        println!("{fault:?}: found by seed {found:?}");
        assert!(found.is_some(), "{fault:?} was not found");
    }
}
