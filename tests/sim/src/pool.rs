//! Family `pool`: the root log and shard stores by themselves, without a file system above. Each shard keeps a small
//! map of values in stripes, journalled; after each restart the map must be what some prefix of its history says, no
//! shorter than what was acknowledged, and every value must read back byte for byte.

use crate::client::Check;
use crate::coverage::Coverage;
use crate::media::{Media, Plan, check_stale};
use basalt_bdev::DriveRef;
use basalt_pool::inspect;
use basalt_pool::store::{Owner, Piece, Placed, ShardStore, StripeRecord};
use basalt_pool::{BlockAddr, Class, Lsn, Pool, PoolError, PoolSpec, SegmentId, ShardId};
use basalt_reactor::sim::{NodeId, Sim};
use basalt_reactor::{random_u64, sleep, timeout};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const PHASE_LIMIT: Duration = Duration::from_secs(600);
const BLOCK: usize = 4096;
const KEYS: u64 = 40;
/// A seed that has done less has shown nothing.
pub(crate) const OPERATIONS_MIN: u64 = 200;
/// On slow drives it takes more lives to get there.
pub(crate) const LIVES_MAX: u64 = 40;

/// One shard's values: which seed each was filled from and where it lies.
#[derive(Clone, Debug, Default, PartialEq)]
struct Map(BTreeMap<u64, Value>);

#[derive(Clone, Debug, PartialEq)]
struct Value {
    fill: u64,
    placed: Vec<Placed>,
}

/// What the shard was told, in journal order. Operation n made `states[n]` out of `states[n - 1]`.
struct History {
    shard: ShardId,
    states: Vec<Map>,
    acknowledged: usize,
}
type Shared = Rc<RefCell<History>>;

struct Open {
    store: Rc<ShardStore>,
    history: Shared,
    /// Operation number of the next record, as the journal has them.
    next: Cell<u64>,
}

/// A node that runs: its pool and its shards.
type Up = (Pool, Vec<Rc<Open>>);

struct World {
    sim: Sim,
    node: NodeId,
    media: Media,
    histories: Vec<Shared>,
    coverage: Rc<RefCell<Coverage>>,
    up: Rc<RefCell<Option<Up>>>,
    /// Root values acknowledged, and the one that was being written when the node crashed.
    meta: Rc<RefCell<(u64, u64)>>,
}

pub(crate) fn run(seed: u64) -> Result<(Coverage, u64), String> {
    let mut sim = Sim::new(seed);
    let plan = Plan::draw(&mut sim);
    let node = sim.add_node(1);
    let mut world = World {
        media: Media::new(&plan),
        sim,
        node,
        histories: Vec::new(),
        coverage: Rc::default(),
        up: Rc::default(),
        meta: Rc::default(),
    };
    world.create(&plan)?;
    let least = 3 + world.draw(3);
    for life in 0..LIVES_MAX {
        if life >= least && world.operations() >= OPERATIONS_MIN {
            break;
        }
        let idle = world.work()?;
        // Writers of the old owner would go on being answered: keeping them from that is the fence's part, which one
        // node has no need of.
        if idle && world.draw(2) == 0 {
            world.usurp()?;
        }
        world.crash();
        world.media.damage(&mut world.sim, &plan);
        world.start()?;
    }
    if world.draw(3) == 0 {
        world.break_promise()?;
    }
    let mut coverage = world.coverage.take();
    let operations = world.operations();
    coverage.add("operations", operations);
    world.media.counts_caches = true;
    world.media.count(&mut coverage);
    if operations < OPERATIONS_MIN {
        return Err(format!("only {operations} operations were done"));
    }
    Ok((coverage, world.sim.trace_hash()))
}

impl World {
    fn operations(&self) -> u64 {
        self.histories.iter().map(|h| h.borrow().states.len() as u64 - 1).sum()
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.sim.random_u64() % n
    }

    fn phase<F: Future<Output = Check> + 'static>(&mut self, what: &str, f: F) -> Check {
        let result: Rc<RefCell<Option<Check>>> = Rc::default();
        let (slot, looked) = (result.clone(), result.clone());
        self.sim.spawn_on(self.node, move || async move {
            let outcome = f.await;
            slot.replace(Some(outcome));
        });
        if !self.sim.run_until(PHASE_LIMIT, || looked.borrow().is_some()) {
            return Err(format!("{what}: hangs"));
        }
        result.take().unwrap_or(Ok(())).map_err(|e| format!("{what}: {e}"))
    }

    fn create(&mut self, plan: &Plan) -> Check {
        let (drives, scheme, up, coverage) =
            (self.media.drives(), plan.scheme, self.up.clone(), self.coverage.clone());
        let made: Rc<RefCell<Vec<Shared>>> = Rc::default();
        let histories = made.clone();
        self.phase("create", async move {
            let spec = PoolSpec { name: "pool".to_owned(), scheme: Some(scheme), force: false };
            let pool = Pool::create(drives, &spec, |_, _| {}).await.map_err(text)?;
            for shard in pool.create_shards(2).await.map_err(text)? {
                let history = History { shard, states: vec![Map::default()], acknowledged: 0 };
                histories.borrow_mut().push(Rc::new(RefCell::new(history)));
            }
            let made = histories.borrow().clone();
            let opened = open_all(&pool, &made, &coverage).await?;
            up.replace(Some((pool, opened)));
            Ok(())
        })?;
        self.histories = made.take();
        Ok(())
    }

    /// Returns whether all writers are done.
    fn work(&mut self) -> Result<bool, String> {
        let failed: Rc<RefCell<Option<String>>> = Rc::default();
        let running = Rc::new(Cell::new(0));
        let count = 30 + self.draw(40);
        let (pool, opened) = self.up.borrow().clone().expect("the node is up");
        let start = |sim: &mut Sim, task: std::pin::Pin<Box<dyn Future<Output = Check>>>| {
            let (failed, running) = (failed.clone(), running.clone());
            running.set(running.get() + 1);
            sim.spawn_on(self.node, move || async move {
                if let Err(e) = task.await {
                    failed.borrow_mut().get_or_insert(e);
                }
                running.set(running.get() - 1);
            });
        };
        for open in opened {
            for _ in 0..2 {
                start(&mut self.sim, Box::pin(writer(open.clone(), count)));
            }
        }
        start(&mut self.sim, Box::pin(root_writer(pool, self.meta.clone(), count / 4)));
        let done = {
            let (failed, running) = (failed.clone(), running.clone());
            move || failed.borrow().is_some() || running.get() == 0
        };
        for _ in 0..1 + self.draw(4) {
            let slice = Duration::from_micros(1000 + self.draw(40_000));
            self.sim.run_until(slice, done.clone());
            self.media.strike(&mut self.sim);
        }
        if self.draw(2) == 0 && !self.sim.run_until(PHASE_LIMIT, done) {
            return Err("writers hang".to_owned());
        }
        if running.get() > 0 {
            self.coverage.borrow_mut().add("crashed under load", 1);
        }
        failed.take().map_or(Ok(running.get() == 0), Err)
    }

    /// A new owner takes a shard over while the old one still runs: the old one must get nothing more from the root.
    fn usurp(&mut self) -> Check {
        let (pool, opened) = self.up.borrow().clone().expect("the node is up");
        let coverage = self.coverage.clone();
        self.phase("take-over", async move {
            let old = opened[0].clone();
            let (new, recovery) = ShardStore::open(&pool, old.store.shard()).await.map_err(text)?;
            drop(recovery);
            if new.epoch() <= old.store.epoch() {
                return Err(format!("epoch {} after {}", new.epoch(), old.store.epoch()));
            }
            // More than any segments it may still hold.
            for _ in 0..4096 {
                let data = vec![Bytes::from(vec![1; 64 * BLOCK])];
                let piece = Piece { owner: Owner { inode: 1, offset: 0 }, data };
                match old.store.write(Class::Data, vec![piece]).await {
                    Ok(_) => {}
                    Err(PoolError::Fenced { .. }) => {
                        coverage.borrow_mut().add("stale epoch refused", 1);
                        return Ok(());
                    }
                    Err(PoolError::NoSpace(_)) => return Ok(()),
                    Err(e) => return Err(format!("the old owner was told: {e}")),
                }
            }
            Err("a fenced owner goes on getting segments".to_owned())
        })
    }

    /// One act beyond what the pool survives: a journal block that is known to be committed is damaged on every mirror.
    /// What is lost must be reported, never passed over in silence.
    fn break_promise(&mut self) -> Check {
        let (pool, opened) = self.up.borrow().clone().expect("the node is up");
        let open = opened[0].clone();
        self.phase("last words", async move {
            checkpoint(&open).await?;
            for key in 0..8 {
                delete(&open, key % KEYS).await?;
            }
            Ok(())
        })?;
        let history = self.histories[0].clone();
        let shard = history.borrow().shard;
        self.crash();
        self.sim.restart(self.node, 1);
        let found = Rc::new(RefCell::new(None));
        let (slot, drives) = (found.clone(), self.media.present());
        self.phase("inspection", async move {
            slot.replace(Some(inspect::journal(drives, shard).await.map_err(text)?));
            Ok(())
        })?;
        let view = found.take().expect("the phase has ended");
        let newest = view.chunks.iter().find(|c| Some(&c.id) == view.chain.last());
        let Some((chunk, (block, _))) =
            newest.and_then(|c| Some((c, c.blocks.iter().zip(c.blocks.iter().skip(1)).next_back()?)))
        else {
            return Ok(());
        };
        tracing::info!(first_lsn = block.first_lsn, "a committed block is damaged on every mirror");
        for (drive, at) in &chunk.members {
            let at = pool.chunk_offset(*at) + u64::from(block.offset);
            self.media.overwrite(*drive as usize, at, &[0x5a; BLOCK]);
        }
        let (drives, coverage) = (self.media.present(), self.coverage.clone());
        self.phase("beyond the promise", async move {
            let pool = Pool::import(drives).await.map_err(text)?;
            match ShardStore::open(&pool, shard).await {
                Err(PoolError::Corrupt(_)) => {
                    coverage.borrow_mut().add("losses beyond the promise reported", 1);
                    Ok(())
                }
                Err(e) => Err(format!("a damaged journal is reported as: {e}")),
                Ok(_) => Err("a damaged journal opens as if nothing were missing".to_owned()),
            }
        })
    }

    fn crash(&mut self) {
        self.up.take();
        self.sim.crash(self.node);
        self.media.power_cut();
        self.coverage.borrow_mut().add("power cuts", 1);
    }

    fn start(&mut self) -> Check {
        let cores = 1 + self.draw(3) as u16;
        self.sim.restart(self.node, cores);
        let (drives, up, meta) = (self.media.present(), self.up.clone(), self.meta.clone());
        let stale = self.media.stale();
        let (histories, coverage) = (self.histories.clone(), self.coverage.clone());
        self.phase("start", async move {
            let (pool, opened) = start(drives, &histories, &coverage).await?;
            check_stale(&pool, &stale).await?;
            let found = pool.meta_get(b"sim/counter").await.map_err(text)?;
            let found = found.map_or(0, |v| u64::from_le_bytes(v.try_into().unwrap_or_default()));
            let (acknowledged, sent) = *meta.borrow();
            if found < acknowledged || found > sent {
                return Err(format!("root value {found}, acknowledged {acknowledged}, sent {sent}"));
            }
            meta.replace((found, sent.max(found)));
            up.replace(Some((pool, opened)));
            Ok(())
        })
    }
}

fn text(e: PoolError) -> String {
    e.to_string()
}

async fn start(
    drives: Vec<DriveRef>,
    histories: &[Shared],
    coverage: &Rc<RefCell<Coverage>>,
) -> Result<(Pool, Vec<Rc<Open>>), String> {
    let pool = Pool::import(drives).await.map_err(text)?;
    let opened = open_all(&pool, histories, coverage).await?;
    Ok((pool, opened))
}

async fn open_all(
    pool: &Pool,
    histories: &[Shared],
    coverage: &Rc<RefCell<Coverage>>,
) -> Result<Vec<Rc<Open>>, String> {
    let mut opened = Vec::new();
    for history in histories {
        let shard = history.borrow().shard;
        let open = recover(pool, history).await.map_err(|e| format!("shard {shard}: {e}"))?;
        coverage.borrow_mut().add("shards recovered", 1);
        opened.push(Rc::new(open));
    }
    Ok(opened)
}

// Records: operation number, then a value put (with its stripes) or deleted. A checkpoint is the whole map.

fn encode_placed(out: &mut Vec<u8>, placed: &[Placed]) {
    out.extend((placed.len() as u32).to_le_bytes());
    for p in placed {
        out.extend(p.at.segment.0.to_le_bytes());
        out.push(p.at.column);
        out.extend(p.at.block.to_le_bytes());
        out.extend(p.blocks.to_le_bytes());
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or("a record is cut short")?;
    *input = rest;
    Ok(*head)
}
fn take_u64(input: &mut &[u8]) -> Result<u64, String> {
    Ok(u64::from_le_bytes(take(input)?))
}
fn take_u32(input: &mut &[u8]) -> Result<u32, String> {
    Ok(u32::from_le_bytes(take(input)?))
}
fn decode_placed(input: &mut &[u8]) -> Result<Vec<Placed>, String> {
    (0..take_u32(input)?)
        .map(|_| {
            let at = BlockAddr {
                segment: SegmentId(take_u64(input)?),
                column: take::<1>(input)?[0],
                block: take_u32(input)?,
            };
            Ok(Placed { at, blocks: take_u32(input)? })
        })
        .collect()
}

fn encode_map(number: u64, map: &Map) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    for (key, value) in &map.0 {
        out.extend(key.to_le_bytes());
        out.extend(value.fill.to_le_bytes());
        encode_placed(&mut out, &value.placed);
    }
    out
}
fn decode_map(mut input: &[u8]) -> Result<(u64, Map), String> {
    let number = take_u64(&mut input)?;
    let mut map = Map::default();
    while !input.is_empty() {
        let key = take_u64(&mut input)?;
        let fill = take_u64(&mut input)?;
        map.0.insert(key, Value { fill, placed: decode_placed(&mut input)? });
    }
    Ok((number, map))
}

fn content(fill: u64, blocks: usize) -> Vec<u8> {
    let word = |i: usize| fill.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i as u64).to_le_bytes();
    (0..blocks * BLOCK / 8).flat_map(word).collect()
}
fn blocks(placed: &[Placed]) -> usize {
    placed.iter().map(|p| p.blocks as usize).sum()
}

/// Opens a shard, replays it, and compares what it finds with its history.
async fn recover(pool: &Pool, history: &Shared) -> Result<Open, String> {
    let shard = history.borrow().shard;
    let (store, recovery) = ShardStore::open(pool, shard).await.map_err(text)?;
    let (mut number, mut map) = match &recovery.checkpoint {
        Some(payload) => decode_map(payload)?,
        None => (0, Map::default()),
    };
    let mut last = recovery.checkpoint_lsn;
    for (lsn, record) in &recovery.records {
        if *lsn <= last && last != recovery.checkpoint_lsn {
            return Err(format!("record {lsn} after record {last}"));
        }
        last = *lsn;
        let found = replay(&store, *lsn, record, &mut map)?;
        if found != number + 1 {
            return Err(format!("operation {found} follows operation {number} in the journal"));
        }
        number = found;
    }
    store.start().await.map_err(text)?;
    {
        let mut history = history.borrow_mut();
        let number = number as usize;
        if number < history.acknowledged {
            return Err(format!("{number} operations found, {} were acknowledged", history.acknowledged));
        }
        let expect =
            history.states.get(number).ok_or_else(|| format!("operation {number} was never sent"))?;
        if *expect != map {
            return Err(format!("the map after operation {number} differs"));
        }
        // What was not acknowledged and is not there never happened.
        history.states.truncate(number + 1);
        history.acknowledged = number;
    }
    let open = Open { store: Rc::new(store), history: history.clone(), next: Cell::new(number + 1) };
    for (key, value) in &map.0 {
        verify(&open.store, value).await.map_err(|e| format!("value {key}: {e}"))?;
    }
    Ok(open)
}

/// Returns the record's operation number.
fn replay(store: &ShardStore, lsn: Lsn, mut input: &[u8], map: &mut Map) -> Result<u64, String> {
    let number = take_u64(&mut input)?;
    let key = take_u64(&mut input)?;
    let put = take::<1>(&mut input)?[0] == 1;
    let old = if put {
        let fill = take_u64(&mut input)?;
        let placed = decode_placed(&mut input)?;
        for _ in 0..take_u32(&mut input)? {
            let stripe = StripeRecord::decode(&mut input).ok_or("a stripe record is malformed")?;
            store.apply_stripe(lsn, &stripe);
        }
        map.0.insert(key, Value { fill, placed })
    } else {
        map.0.remove(&key)
    };
    for p in old.iter().flat_map(|v| &v.placed) {
        store.apply_dead(lsn, p.at, p.blocks);
    }
    Ok(number)
}

async fn verify(store: &ShardStore, value: &Value) -> Check {
    let expect = content(value.fill, blocks(&value.placed));
    let mut at = 0;
    for p in &value.placed {
        let found = store.read(p.at, p.blocks).await.map_err(text)?;
        let len = p.blocks as usize * BLOCK;
        if found.len() != len || found[..] != expect[at..at + len] {
            return Err(format!("{} blocks at {:?} read back as something else", p.blocks, p.at));
        }
        at += len;
    }
    Ok(())
}

async fn writer(open: Rc<Open>, count: u64) -> Check {
    for _ in 0..count {
        let key = random_u64() % KEYS;
        match random_u64() % 10 {
            0..=5 => put(&open, key).await?,
            6 => delete(&open, key).await?,
            7 => {
                let value = open.history.borrow().states.last().and_then(|m| m.0.get(&key).cloned());
                let _pin = open.store.pin();
                if let Some(value) = value {
                    verify(&open.store, &value).await.map_err(|e| format!("value {key}: {e}"))?;
                }
            }
            8 => checkpoint(&open).await?,
            _ => sleep(Duration::from_micros(random_u64() % 800)).await,
        }
    }
    Ok(())
}

async fn put(open: &Open, key: u64) -> Check {
    let store = &open.store;
    let fill = random_u64();
    let count = 1 + (random_u64() % if random_u64().is_multiple_of(4) { 300 } else { 12 }) as usize;
    let data = Bytes::from(content(fill, count));
    let cut = (random_u64() as usize % count) * BLOCK;
    let piece =
        Piece { owner: Owner { inode: key, offset: 0 }, data: vec![data.slice(..cut), data.slice(cut..)] };
    let written = match store.write(Class::Data, vec![piece]).await {
        Ok(written) => written,
        Err(PoolError::NoSpace(_)) => return delete(open, key).await,
        Err(e) => return Err(text(e)),
    };
    make_room(open).await?;
    let placed = written.placed.into_iter().next().unwrap_or_default();
    let mut record = open.next.get().to_le_bytes().to_vec();
    record.extend(key.to_le_bytes());
    record.push(1);
    record.extend(fill.to_le_bytes());
    encode_placed(&mut record, &placed);
    record.extend((written.stripes.len() as u32).to_le_bytes());
    written.stripes.iter().for_each(|s| s.encode(&mut record));
    finish(open, record).await
}

async fn delete(open: &Open, key: u64) -> Check {
    make_room(open).await?;
    let mut record = open.next.get().to_le_bytes().to_vec();
    record.extend(key.to_le_bytes());
    record.push(0);
    finish(open, record).await
}

/// What makes room in a full journal is a checkpoint, and there is nobody else to take one.
async fn make_room(open: &Open) -> Check {
    while timeout(Duration::ZERO, open.store.wait_room()).await.transpose().map_err(text)?.is_none() {
        checkpoint(open).await?;
    }
    Ok(())
}

/// Appends and applies in one breath, then waits for the acknowledgement.
async fn finish(open: &Open, record: Vec<u8>) -> Check {
    let number = open.next.get();
    open.next.set(number + 1);
    let lsn = open.store.append(&record);
    let mut map = open.history.borrow().states.last().cloned().unwrap_or_default();
    replay(&open.store, lsn, &record, &mut map)?;
    open.history.borrow_mut().states.push(map);
    open.store.wait_durable(lsn).await.map_err(text)?;
    let mut history = open.history.borrow_mut();
    history.acknowledged = history.acknowledged.max(number as usize);
    Ok(())
}

async fn checkpoint(open: &Open) -> Check {
    let payload = {
        let history = open.history.borrow();
        let map = history.states.last().expect("the first state is always there");
        encode_map(open.next.get() - 1, map)
    };
    let lsn = open.store.checkpoint(&payload, Lsn(open.store.last_lsn().0 + 1));
    open.store.wait_durable(lsn).await.map_err(text)
}

async fn root_writer(pool: Pool, meta: Rc<RefCell<(u64, u64)>>, count: u64) -> Check {
    for _ in 0..count {
        let next = meta.borrow().1 + 1;
        meta.borrow_mut().1 = next;
        let change = (b"sim/counter".to_vec(), Some(next.to_le_bytes().to_vec()));
        pool.meta_write(vec![change]).await.map_err(text)?;
        meta.borrow_mut().0 = next;
        sleep(Duration::from_micros(random_u64() % 3000)).await;
    }
    Ok(())
}
