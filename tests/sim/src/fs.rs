//! Family `fs`: clients on a file system on a pool, through crashes, lost drives and damaged media.

use crate::client::{self, Check, Shared, State};
use crate::coverage::Coverage;
use crate::media::{Media, Plan, check_stale};
use crate::pool::{LIVES_MAX, OPERATIONS_MIN};
use basalt_bdev::DriveRef;
use basalt_pool::{Pool, PoolSpec};
use basalt_reactor::sim::{NodeId, Sim};
use basalt_shard::vfs::{Context, CreateHow, FsError, Ino, NodeKind, SetAttr, Stability, Vfs};
use basalt_shard::{FileSystem, FsSpec};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const CLIENTS: u8 = 3;
const FS: &str = "sim";
/// Longer than any phase takes in virtual time unless something hangs.
const PHASE_LIMIT: Duration = Duration::from_secs(600);

struct World {
    sim: Sim,
    node: NodeId,
    media: Media,
    clients: Vec<Shared>,
    coverage: Coverage,
    up: Rc<RefCell<Option<(Pool, FileSystem)>>>,
    /// The newest change attribute that somebody else has seen of each client's directory.
    observed: Observed,
}

type Observed = Rc<RefCell<BTreeMap<Ino, u64>>>;

/// Runs one seed; `Err` is a broken promise in words.
pub(crate) fn run(seed: u64) -> Result<(Coverage, u64), String> {
    let mut sim = Sim::new(seed);
    basalt_shard::small_memtables(sim.random_u64().is_multiple_of(2));
    let plan = Plan::draw(&mut sim);
    let cores = 1 + (sim.random_u64() % 3) as u16;
    let node = sim.add_node(cores);
    let media = Media::new(&plan);
    let mut world = World {
        sim,
        node,
        media,
        clients: Vec::new(),
        coverage: Coverage::default(),
        up: Rc::default(),
        observed: Rc::default(),
    };
    world.create(&plan)?;
    let least = 3 + world.draw(3);
    for life in 1..=LIVES_MAX {
        world.work()?;
        let last = life >= least && world.operations() >= OPERATIONS_MIN;
        if last || world.draw(4) == 0 {
            world.stop()?;
        } else {
            world.crash();
        }
        world.damage(&plan);
        world.start()?;
        if last {
            break;
        }
    }
    world.finish()?;
    let operations = world.operations();
    let retried: u64 = world.clients.iter().map(|c| c.borrow().retried).sum();
    let no_space: u64 = world.clients.iter().map(|c| c.borrow().no_space).sum();
    world.coverage.add("operations", operations);
    world.coverage.add("requests sent again after a crash", retried);
    world.coverage.add("no space answered", no_space);
    world.media.count(&mut world.coverage);
    if operations < OPERATIONS_MIN {
        return Err(format!("only {operations} operations were done"));
    }
    Ok((world.coverage, world.sim.trace_hash()))
}

impl World {
    fn operations(&self) -> u64 {
        self.clients.iter().map(|c| c.borrow().operations).sum()
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.sim.random_u64() % n
    }

    /// Runs a task on the node and takes its word.
    fn phase<F: Future<Output = Check> + 'static>(&mut self, what: &str, f: impl FnOnce() -> F) -> Check {
        let result: Rc<RefCell<Option<Check>>> = Rc::default();
        let (slot, looked) = (result.clone(), result.clone());
        let future = f();
        self.sim.spawn_on(self.node, move || async move {
            let outcome = future.await;
            slot.replace(Some(outcome));
        });
        if !self.sim.run_until(PHASE_LIMIT, || looked.borrow().is_some()) {
            return Err(format!("{what}: hangs"));
        }
        result.take().unwrap_or(Ok(())).map_err(|e| format!("{what}: {e}"))
    }

    fn create(&mut self, plan: &Plan) -> Check {
        let (drives, up, scheme) = (self.media.drives(), self.up.clone(), plan.scheme);
        let states: Rc<RefCell<Vec<Shared>>> = Rc::default();
        let made = states.clone();
        // The journal areas of the smallest drives hold the chunks of few shards.
        let small = plan.small;
        let shards = if small { 1 } else { 1 + self.draw(5) } as u16;
        self.phase("create", move || async move {
            let spec = PoolSpec { name: "pool".to_owned(), scheme: Some(scheme), force: false };
            let pool = Pool::create(drives, &spec, |_, _| {}).await.map_err(|e| e.to_string())?;
            FileSystem::create(&pool, &FsSpec { name: FS.to_owned(), shards })
                .await
                .map_err(|e| e.to_string())?;
            let fs = FileSystem::mount(&pool.to_ref(), FS).await.map_err(|e| e.to_string())?;
            let vfs = fs.vfs();
            for number in 0..CLIENTS {
                let name = format!("client-{number}");
                let set = SetAttr { mode: Some(0o755), ..Default::default() };
                let root = vfs
                    .create(
                        &Context::root(),
                        vfs.root(),
                        name.as_bytes(),
                        NodeKind::Directory,
                        CreateHow::Guarded,
                        set,
                    )
                    .await
                    .map_err(|e| e.to_string())?;
                made.borrow_mut().push(Rc::new(RefCell::new(State::new(number, &root.attr))));
            }
            if small {
                fill(&*vfs).await?;
            }
            up.replace(Some((pool, fs)));
            Ok(())
        })?;
        self.clients = states.take();
        Ok(())
    }

    fn vfs(&self) -> Rc<dyn Vfs> {
        self.up.borrow().as_ref().expect("the node is up").1.vfs()
    }

    /// Clients at work; faults strike meanwhile. Returns when they are done or it is time to crash.
    fn work(&mut self) -> Check {
        let failed: Rc<RefCell<Option<String>>> = Rc::default();
        let running = Rc::new(Cell::new(self.clients.len()));
        let count = 60 + self.draw(60);
        for state in self.clients.clone() {
            let (vfs, failed, running) = (self.vfs(), failed.clone(), running.clone());
            self.sim.spawn_on(self.node, move || async move {
                if let Err(e) = client::run(vfs, state, count).await {
                    failed.borrow_mut().get_or_insert(e);
                }
                running.set(running.get() - 1);
            });
        }
        for state in &self.clients {
            let (vfs, observed, running) = (self.vfs(), self.observed.clone(), running.clone());
            let dir = state.borrow().model.node(crate::model::ROOT).ino;
            self.sim.spawn_on(self.node, move || async move {
                while running.get() > 0 {
                    if let Ok(attr) = vfs.getattr(dir, 0).await {
                        observed.borrow_mut().insert(dir, attr.change);
                    }
                    basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 200)).await;
                }
            });
        }
        let slices = 1 + self.draw(4);
        for _ in 0..slices {
            let slice = Duration::from_micros(1000 + self.draw(60_000));
            let (failed, running) = (failed.clone(), running.clone());
            self.sim.run_until(slice, move || failed.borrow().is_some() || running.get() == 0);
            self.media.strike(&mut self.sim);
        }
        let stop_early = self.draw(2) == 0;
        if !stop_early {
            let (failed, running) = (failed.clone(), running.clone());
            let done = move || failed.borrow().is_some() || running.get() == 0;
            if !self.sim.run_until(PHASE_LIMIT, done) {
                return Err("clients hang".to_owned());
            }
        }
        match failed.take() {
            Some(e) => Err(e),
            None if running.get() > 0 => {
                // They would go on while the node stops cleanly; so it never does.
                self.coverage.add("crashed under load", 1);
                self.crash();
                self.start()
            }
            None => Ok(()),
        }
    }

    /// Adds what the file system counted in this life.
    fn count(&mut self) -> Check {
        let (up, counted) = (self.up.clone(), Rc::new(RefCell::new(Coverage::default())));
        let coverage = counted.clone();
        self.phase("counters", move || async move {
            let fs = up.borrow().as_ref().map(|(_, fs)| fs.clone());
            if let Some(fs) = fs {
                fs.counters()
                    .await
                    .into_iter()
                    .for_each(|(what, count)| coverage.borrow_mut().add(what, count));
            }
            Ok(())
        })?;
        self.coverage.merge(&counted.borrow());
        Ok(())
    }

    fn crash(&mut self) {
        self.up.take();
        self.sim.crash(self.node);
        self.media.power_cut();
        self.coverage.add("power cuts", 1);
    }

    fn stop(&mut self) -> Check {
        self.count()?;
        let up = self.up.take();
        self.phase("clean stop", move || async move {
            match up {
                Some((pool, fs)) => {
                    // A full pool cannot take everything in; what was acknowledged is in the journals, as the next life
                    // shows.
                    let result = fs.unmount().await.map_err(|e| e.to_string());
                    let result =
                        result.or_else(|e| if e.contains("no space left") { Ok(()) } else { Err(e) });
                    drop((fs, pool));
                    result
                }
                None => Ok(()),
            }
        })?;
        self.sim.crash(self.node);
        self.coverage.add("clean stops", 1);
        Ok(())
    }

    fn damage(&mut self, plan: &Plan) {
        self.media.damage(&mut self.sim, plan);
    }

    /// The node comes back, with another number of cores as a rule; every client checks what it finds.
    fn start(&mut self) -> Check {
        let cores = 1 + self.draw(4) as u16;
        self.sim.restart(self.node, cores);
        let (drives, up, stale) = (self.media.present(), self.up.clone(), self.media.stale());
        let observed = self.observed.clone();
        self.phase("start", move || async move {
            let (pool, fs) = start(drives).await?;
            check_stale(&pool, &stale).await?;
            for (dir, change) in observed.take() {
                let attr = fs.vfs().getattr(dir, 0).await.map_err(|e| e.to_string())?;
                if attr.change < change {
                    return Err(format!(
                        "{dir:?} was seen at change {change} and is back at {}",
                        attr.change
                    ));
                }
            }
            up.replace(Some((pool, fs)));
            Ok(())
        })?;
        for state in self.clients.clone() {
            let vfs = self.vfs();
            self.phase("recovery", move || client::recover(vfs, state))?;
        }
        self.count()
    }

    fn finish(&mut self) -> Check {
        self.count()?;
        let up = self.up.clone();
        self.phase("final check", move || async move {
            let fs = up.borrow().as_ref().expect("the node is up").1.clone();
            let found = fs.check().await;
            if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
        })
    }
}

/// Takes all space but a little with one file outside the clients' trees.
async fn fill(vfs: &dyn Vfs) -> Check {
    const STEP: usize = 1 << 20;
    let cx = Context::root();
    let text = |e: FsError| format!("filling: {e}");
    let set = SetAttr { mode: Some(0o600), ..Default::default() };
    let made = vfs
        .create(&cx, vfs.root(), b"filler", NodeKind::Regular, CreateHow::Guarded, set)
        .await
        .map_err(text)?;
    let ino = made.attr.ino;
    let data = Bytes::from(vec![0xf1; STEP]);
    let mut size = 0;
    loop {
        match vfs.write(&cx, ino, size, vec![data.clone()], Stability::FileSync, true).await {
            Ok(_) => size += STEP as u64,
            Err(FsError::NoSpace) => break,
            Err(e) => return Err(text(e)),
        }
    }
    let set = SetAttr { size: Some(size.saturating_sub(24 << 20)), ..Default::default() };
    vfs.setattr(&cx, ino, set, None, true).await.map(|_| ()).map_err(text)
}

async fn start(drives: Vec<DriveRef>) -> Result<(Pool, FileSystem), String> {
    let pool = Pool::import(drives).await.map_err(|e| e.to_string())?;
    let fs = FileSystem::mount(&pool.to_ref(), FS).await.map_err(|e| e.to_string())?;
    Ok((pool, fs))
}
