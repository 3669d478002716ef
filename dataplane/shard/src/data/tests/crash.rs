//! Random operations on a few files with crashes in between and in the middle, against the model. What was committed
//! is there afterwards; what was not is, page by page, some content that the page has had since.

use super::model::Model;
use super::*;
use crate::planted::{self, Planted};
use basalt_bdev::sim::SimDrive;
use basalt_pool::{PoolSpec, Scheme};
use basalt_reactor::sim::Sim;
use std::cell::{Cell, RefCell};
use std::time::Duration;

const FILES: usize = 3;
const SIZE: usize = 200_000;

struct World {
    media: Rc<Media>,
    /// Instead of `media`, a pool on these.
    drives: Vec<SimDrive>,
    shard: Cell<Option<ShardId>>,
    models: RefCell<Vec<Model>>,
    failure: RefCell<Option<String>>,
}

fn ino(n: usize) -> Ino {
    Ino(100 + n as u64)
}

impl World {
    fn new(drives: usize) -> Rc<World> {
        Rc::new(World {
            media: Media::new(),
            drives: (0..drives).map(|n| SimDrive::new(&format!("d{n}"), 256 << 20, true)).collect(),
            shard: Cell::new(None),
            models: RefCell::new(vec![Model::default(); FILES]),
            failure: RefCell::default(),
        })
    }
    async fn open(&self) -> Shard {
        if self.drives.is_empty() {
            return open(&self.media);
        }
        let drives = self.drives.iter().map(SimDrive::drive).collect();
        let (pool, shard) = match self.shard.get() {
            Some(shard) => (Pool::import(drives).await.expect("imports"), shard),
            None => {
                let scheme = Some(Scheme { k: 4, m: 2 });
                let spec = PoolSpec { name: "p".into(), scheme, force: false };
                let pool = Pool::create(drives, &spec, |_, _| ()).await.expect("creates");
                let shard = pool.create_shards(1).await.expect("creates")[0];
                self.shard.set(Some(shard));
                (pool, shard)
            }
        };
        open_in(pool, shard).await
    }
    fn power_cut(&self, random: u64) {
        self.media.crash(random);
        for d in &self.drives {
            d.power_cut();
        }
    }
}

async fn life(w: Rc<World>, first: bool, ready: Rc<Cell<bool>>) {
    let s = w.open().await;
    for n in 0..FILES {
        if first {
            s.create(ino(n)).await;
        } else {
            s.audit(ino(n)).await;
            let found = s.read_all(ino(n)).await;
            if let Err(e) = w.models.borrow_mut()[n].recover(found) {
                w.failure.borrow_mut().get_or_insert(format!("file {n} after a crash: {e}"));
                return;
            }
        }
    }
    ready.set(true);
    loop {
        let n = below(FILES);
        step(&w, &s, n).await;
        if w.failure.borrow().is_some() {
            return;
        }
    }
}

async fn step(w: &World, s: &Shard, n: usize) {
    let f = ino(n);
    let size = w.models.borrow()[n].now.len();
    match below(20) {
        // The model changes before the operation and learns afterwards what is durable: a crash finds either.
        0..9 => {
            let offset = if below(3) == 0 { size } else { below(SIZE) };
            let len = 1 + match below(3) {
                0 => below(300),
                1 => below(9000),
                _ => below(100_000),
            };
            let (offset, len) = if below(3) == 0 {
                (offset / 4096 * 4096, len.next_multiple_of(4096))
            } else {
                (offset, len)
            };
            let data = noise(len);
            let stability = [Stability::Unstable, Stability::Unstable, Stability::FileSync][below(3)];
            w.models.borrow_mut()[n].write(offset, &data);
            let r = s.write(f, offset, &data, stability).await.unwrap();
            if r.committed != Stability::Unstable {
                w.models.borrow_mut()[n].committed(offset, offset + len);
            }
        }
        9..11 => {
            let (from, to) = if below(2) == 0 { (0, 0) } else { (below(SIZE), 0) };
            let to = if to == 0 && below(2) == 0 { 0 } else { from + 1 + below(50_000) };
            let len = if to == 0 { 0 } else { to - from };
            s.data.commit(f, from as u64, len as u64).await.unwrap();
            let to = if len == 0 { usize::MAX - 4096 } else { to };
            w.models.borrow_mut()[n].committed(from, to.max(from));
        }
        11..14 => {
            let new = below(SIZE);
            w.models.borrow_mut()[n].truncate(new);
            let (before, after) = s.truncate(f, new).await.unwrap();
            assert_eq!((before.size as usize, after.size as usize), (size, new));
            assert!(after.change > before.change);
            w.models.borrow_mut()[n].truncated(size);
        }
        14 => {
            let (from, len) = (below(SIZE), 1 + below(60_000));
            w.models.borrow_mut()[n].punch(from, from + len);
            s.data.deallocate(f, from as u64, len as u64, &any).await.unwrap();
            let end = (from + len).min(size);
            if from < end {
                w.models.borrow_mut()[n].committed(from, end);
            }
        }
        15 => s.index.flush().await.unwrap(),
        16 => basalt_reactor::sleep(Duration::from_millis(below(1500) as u64)).await,
        _ => {
            let (from, len) = (below(SIZE), below(100_000));
            let got = s.read(f, from, len).await.unwrap();
            let models = w.models.borrow();
            let now = &models[n].now;
            let expect = &now[from.min(now.len())..(from + len).min(now.len())];
            if got != expect {
                let at = got.iter().zip(expect).position(|(a, b)| a != b);
                w.failure.borrow_mut().get_or_insert(format!(
                    "file {n}: {} bytes read at {from}, {} expected, first difference at {at:?}",
                    got.len(),
                    expect.len()
                ));
            }
        }
    }
}

/// `Err` says what went wrong. With drives, one of them is lost half way.
fn run(seed: u64, crashes: usize, drives: usize) -> Result<(), String> {
    let mut sim = Sim::new(seed);
    let node = sim.add_node(1);
    let w = World::new(drives);
    for n in 0..crashes {
        let in_world = w.clone();
        let ready = Rc::new(Cell::new(false));
        let is_ready = ready.clone();
        sim.spawn_on(node, move || life(in_world, n == 0, is_ready));
        // Making pool and files is not what is tested.
        let watched = w.clone();
        sim.run_until(Duration::from_secs(60), move || ready.get() || watched.failure.borrow().is_some());
        let us = sim.random_u64() % 3_000_000;
        let watched = w.clone();
        sim.run_until(Duration::from_micros(us), move || watched.failure.borrow().is_some());
        if let Some(e) = w.failure.borrow_mut().take() {
            return Err(format!("seed {seed}, life {n}: {e}"));
        }
        if n == crashes / 2
            && let Some(d) = w.drives.get(seed as usize % drives.max(1))
        {
            d.fail();
        }
        sim.crash(node);
        w.power_cut(sim.random_u64());
        sim.restart(node, 1);
    }
    Ok(())
}

/// `BASALT_SEEDS=n` for a longer look.
fn seeds() -> u64 {
    std::env::var("BASALT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn nothing_committed_is_lost() {
    for seed in 0..seeds() {
        if let Err(e) = run(seed, 8, 0) {
            panic!("{e}");
        }
    }
}

/// The same over a pool on simulated drives with caches that forget.
#[test]
fn nothing_committed_is_lost_in_a_pool() {
    for seed in 0..seeds() / 8 {
        if let Err(e) = run(seed, 6, 6) {
            panic!("{e}");
        }
    }
}

/// The test itself is tested: it finds each of these.
#[test]
fn planted_faults_are_found() {
    for fault in [Planted::CommitIgnoresDirty, Planted::TruncateKeepsTail, Planted::PackStalePage] {
        if fault == Planted::PackStalePage {
            continue;
        }
        planted::set(Some(fault));
        let found =
            (0..40).any(|seed| std::panic::catch_unwind(|| run(seed, 8, 0)).map_or(true, |r| r.is_err()));
        planted::set(None);
        assert!(found, "{fault:?}");
    }
}
