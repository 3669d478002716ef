//! A mounted file system: its slot map, and the routing of each operation to the reactor that owns the shard.

pub(crate) mod record;
mod serve;

use crate::ops::{ROOT, Shard, check};
use crate::vfs::*;
use basalt_pool::{Pool, PoolError, PoolRef, ShardId, Uuid};
use basalt_reactor::sync::{Notify, join_all};
use basalt_reactor::{CoreId, call_on};
use record::FsRecord;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const DEFAULT_SHARDS: u16 = 16;
/// The slot map is read at every mount and has to stay small.
const SHARDS_MAX: u16 = 4096;
const FS_NAME_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FsSpec {
    pub name: String,
    /// Number of shards, fixed for the life of the file system (default 16).
    pub shards: u16,
}

/// What all reactors know of a mounted file system.
pub(crate) struct Shared {
    /// Names this mount among all there ever were.
    incarnation: u128,
    pub(crate) uuid: Uuid,
    /// Entry i owns the inodes of slot i.
    pub(crate) shards: Vec<ShardId>,
    /// Where each slot's shard lives.
    cores: Vec<CoreId>,
    pub(crate) verifier: [u8; 8],
    /// No more requests of clients; what runs between shards goes on.
    closing: AtomicBool,
}

/// What one reactor has of a mounted file system. Kept alive by a task of that reactor until unmount.
struct Core {
    shared: Arc<Shared>,
    /// `None` only where a test stands in for the pool.
    pool: Option<Pool>,
    shards: RefCell<BTreeMap<u16, Rc<Shard>>>,
    stop: Notify,
}

thread_local! {
    /// By mount and core: the simulator runs many reactors on one thread. Weak, so that a reactor's end is the end of what it had.
    static CORES: RefCell<BTreeMap<(u128, CoreId), Weak<Core>>> = const { RefCell::new(BTreeMap::new()) };
}

fn core_here(incarnation: u128) -> Option<Rc<Core>> {
    let key = (incarnation, basalt_reactor::current_core());
    CORES.with_borrow(|cores| cores.get(&key).and_then(Weak::upgrade))
}

/// Whether some mount of this file system has the current reactor.
fn mounted_here(uuid: Uuid) -> bool {
    let here = basalt_reactor::current_core();
    CORES.with_borrow(|cores| {
        cores
            .iter()
            .filter(|((_, core), _)| *core == here)
            .filter_map(|(_, core)| core.upgrade())
            .any(|core| core.shared.uuid == uuid)
    })
}

/// Every mount has something on core 0.
async fn is_mounted(uuid: Uuid) -> bool {
    call_on(CoreId(0), move || async move { mounted_here(uuid) }).await
}

impl Shared {
    /// A new mount: slot i goes to core i modulo the cores there are.
    fn deal(uuid: Uuid, shards: Vec<ShardId>) -> Arc<Shared> {
        let cores = basalt_reactor::core_count() as usize;
        let mut incarnation = [0; 16];
        let mut verifier = [0; 8];
        basalt_reactor::fill_random(&mut incarnation);
        basalt_reactor::fill_random(&mut verifier);
        Arc::new(Shared {
            incarnation: u128::from_le_bytes(incarnation),
            uuid,
            cores: (0..shards.len()).map(|i| CoreId((i % cores) as u16)).collect(),
            shards,
            verifier,
            closing: AtomicBool::new(false),
        })
    }

    /// Runs `f` on the reactor that has the shard of `slot`. `Stale` for a slot that does not exist.
    pub(crate) async fn on<T, F, Fut>(self: &Arc<Self>, slot: u16, f: F) -> FsResult<T>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = FsResult<T>> + 'static,
    {
        let core = *self.cores.get(slot as usize).ok_or(FsError::Stale)?;
        let incarnation = self.incarnation;
        call_on(core, move || async move {
            let shard = core_here(incarnation).and_then(|c| c.shards.borrow().get(&slot).cloned());
            match shard {
                Some(shard) => f(shard).await,
                // Being unmounted.
                None => Err(FsError::Delay),
            }
        })
        .await
    }

    /// Does `f` at every shard, all at the same time.
    async fn everywhere<Fut>(
        self: &Arc<Self>,
        f: impl Fn(Rc<Shard>) -> Fut + Send + Copy + 'static,
    ) -> FsResult<()>
    where
        Fut: Future<Output = FsResult<()>> + 'static,
    {
        let all = (0..self.shards.len() as u16).map(|slot| self.on(slot, f));
        join_all(all).await.into_iter().collect()
    }
}

/// One reactor's handle; cheap to clone.
#[derive(Clone)]
pub struct FileSystem {
    shared: Arc<Shared>,
    /// `None` when attached after unmount.
    core: Option<Rc<Core>>,
}

/// Sendable; [`FileSystemRef::attach`] makes a handle on another reactor.
#[derive(Clone)]
pub struct FileSystemRef {
    shared: Arc<Shared>,
}
impl FileSystemRef {
    pub fn attach(&self) -> FileSystem {
        FileSystem { shared: self.shared.clone(), core: core_here(self.shared.incarnation) }
    }
}

/// As listed by `basalt fs list`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FsInfo {
    pub name: String,
    /// UUID in the usual form.
    pub id: String,
    pub shards: u16,
    pub mounted: bool,
}

fn refused<T>(text: String) -> Result<T, PoolError> {
    Err(PoolError::Refused(text))
}

async fn read_record(pool: &Pool, name: &str) -> Result<FsRecord, PoolError> {
    let Some(bytes) = pool.meta_get(&record::key(name)).await? else {
        return refused(format!("there is no file system {name:?}; `basalt fs list` names those there are"));
    };
    match FsRecord::decode(&bytes) {
        Some(record) if record.root_ino == ROOT.0 => Ok(record),
        _ => refused(format!("file system {name:?} was made by a newer version; use that one")),
    }
}

impl FileSystem {
    /// Writes the file system's record (root log key `fs/NAME`), and its shards. The first mount makes the root directory.
    pub async fn create(pool: &Pool, spec: &FsSpec) -> Result<(), PoolError> {
        let name = &spec.name;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > FS_NAME_MAX || !name.bytes().all(plain) || name.starts_with('.') {
            return refused(format!(
                "{name:?} is no name for a file system; use 1 to {FS_NAME_MAX} letters, digits, '-', '_' or '.', not beginning with '.'"
            ));
        }
        if spec.shards == 0 || spec.shards > SHARDS_MAX {
            return refused(format!("{} shards; use 1 to {SHARDS_MAX}", spec.shards));
        }
        if pool.meta_get(&record::key(name)).await?.is_some() {
            return refused(format!("there is a file system {name:?} already; choose another name"));
        }
        let mut uuid = [0; 16];
        basalt_reactor::fill_random(&mut uuid);
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let slots = pool.create_shards(spec.shards).await?;
        let record = FsRecord { uuid: Uuid(uuid), root_ino: ROOT.0, slots };
        let written = pool.meta_write(vec![(record::key(name), Some(record.encode()))]).await;
        if written.is_err()
            && let Err(error) = pool.destroy_shards(&record.slots).await
        {
            tracing::warn!(name, %error, "shards of a file system that could not be made are left over");
        }
        written
    }

    pub async fn list(pool: &Pool) -> Result<Vec<FsInfo>, PoolError> {
        let mut list = Vec::new();
        for (key, value) in pool.meta_scan(record::PREFIX).await? {
            let name = String::from_utf8_lossy(&key[record::PREFIX.len()..]).into_owned();
            let Some(record) = FsRecord::decode(&value) else {
                return refused(format!("file system {name:?} was made by a newer version; use that one"));
            };
            list.push(FsInfo {
                name,
                id: record.uuid.to_string(),
                shards: record.slots.len() as u16,
                mounted: is_mounted(record.uuid).await,
            });
        }
        Ok(list)
    }

    /// Deals the shards to the reactors present, opens them all in parallel and finishes transactions a crash cut.
    pub async fn mount(pool: &PoolRef, name: &str) -> Result<FileSystem, PoolError> {
        let record = read_record(&pool.attach().await?, name).await?;
        if is_mounted(record.uuid).await {
            return refused(format!("file system {name:?} is mounted already"));
        }
        let cores = basalt_reactor::core_count();
        let shared = Shared::deal(record.uuid, record.slots);
        let fs = FileSystem { shared, core: None };
        let opened = fs.open_everywhere(pool, cores).await;
        if let Err(error) = opened {
            fs.leave_cores(cores).await;
            return Err(error);
        }
        let core = core_here(fs.shared.incarnation);
        Ok(FileSystem { core, ..fs })
    }

    async fn open_everywhere(&self, pool: &PoolRef, cores: u16) -> Result<(), PoolError> {
        let entered = (0..cores).map(|core| {
            let (shared, pool) = (self.shared.clone(), pool.clone());
            call_on(CoreId(core), move || async move {
                let pool = pool.attach().await?;
                enter_core(shared, Some(pool));
                Ok(())
            })
        });
        join_all(entered).await.into_iter().collect::<Result<(), PoolError>>()?;
        let opened = self.shared.cores.iter().enumerate().map(|(slot, core)| {
            let shared = self.shared.clone();
            call_on(*core, move || open_shard(shared, slot as u16))
        });
        join_all(opened).await.into_iter().collect::<Result<(), _>>()?;
        self.recover().await.map_err(|error| cannot("what a crash cut could not be finished".into(), error))
    }

    /// In this order everywhere: first whatever was prepared is decided, then decisions may be forgotten.
    async fn recover(&self) -> FsResult<()> {
        self.shared.everywhere(|shard| async move { shard.recover().await }).await?;
        self.shared.everywhere(|shard| async move { shard.start().await }).await
    }

    /// Flushes everything and closes the shards. Operations still running get `Delay`.
    pub async fn unmount(&self) -> Result<(), PoolError> {
        self.shared.closing.store(true, Ordering::Relaxed);
        // All shards come to rest before the first of them stops.
        let rested = self.shared.everywhere(|shard| async move { shard.rest().await }).await;
        let closed = self.shared.everywhere(|shard| async move { shard.close().await }).await;
        self.leave_cores(basalt_reactor::core_count()).await;
        rested.and(closed).map_err(|error| {
            PoolError::Stopped(format!(
                "not everything could be flushed: {error}; what was acknowledged is in the journals"
            ))
        })
    }

    async fn leave_cores(&self, cores: u16) {
        let incarnation = self.shared.incarnation;
        join_all((0..cores).map(|core| {
            call_on(CoreId(core), move || async move {
                if let Some(core) = core_here(incarnation) {
                    for shard in core.shards.take().into_values() {
                        shard.stop();
                    }
                    core.stop.notify_all();
                }
                CORES.with_borrow_mut(|cores| cores.remove(&(incarnation, basalt_reactor::current_core())));
            })
        }))
        .await;
    }

    /// Refused while mounted.
    pub async fn destroy(pool: &Pool, name: &str) -> Result<(), PoolError> {
        let record = read_record(pool, name).await?;
        if is_mounted(record.uuid).await {
            return refused(format!("file system {name:?} is mounted; unmount it first"));
        }
        // In this order a cut leaves a record with which it can be done again, never shards without one.
        pool.destroy_shards(&record.slots).await?;
        pool.meta_write(vec![(record::key(name), None)]).await
    }

    pub fn to_ref(&self) -> FileSystemRef {
        FileSystemRef { shared: self.shared.clone() }
    }
    /// The object protocols talk to.
    pub fn vfs(&self) -> Rc<dyn Vfs> {
        Rc::new(self.clone())
    }

    /// Walks everything and returns what does not hold together; empty when all is well. No operation may be running.
    pub async fn check(&self) -> Vec<String> {
        check::check(&self.shared).await
    }

    /// What has happened in all shards since they were opened, by name.
    pub async fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for slot in 0..self.shared.shards.len() as u16 {
            let one = self.shared.on(slot, |shard| async move { Ok(shard.totals()) }).await;
            for (name, count) in one.unwrap_or_default() {
                *all.entry(name).or_default() += count;
            }
        }
        all
    }

    async fn on<T, F, Fut>(&self, ino: Ino, f: F) -> FsResult<T>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = FsResult<T>> + 'static,
    {
        if self.shared.closing.load(Ordering::Relaxed) {
            return Err(FsError::Delay);
        }
        self.shared.on(ino.slot(), f).await
    }
}

/// The pool's own words are in the log by now; here is what they were about.
fn cannot(what: String, error: FsError) -> PoolError {
    match error {
        FsError::NoSpace => PoolError::NoSpace(what),
        FsError::Delay => PoolError::Stopped(format!("{what}; the log says why")),
        error => PoolError::Corrupt(format!("{what}: {error}; the log says more")),
    }
}

fn enter_core(shared: Arc<Shared>, pool: Option<Pool>) {
    let key = (shared.incarnation, basalt_reactor::current_core());
    let core = Rc::new(Core { shared, pool, shards: RefCell::default(), stop: Notify::new() });
    CORES.with_borrow_mut(|cores| {
        cores.retain(|_, core| core.strong_count() > 0);
        cores.insert(key, Rc::downgrade(&core));
    });
    let stop = core.stop.notified();
    drop(basalt_reactor::spawn(async move {
        stop.await;
        drop(core);
    }));
}

async fn open_shard(shared: Arc<Shared>, slot: u16) -> Result<(), PoolError> {
    let id = shared.shards[slot as usize];
    let core = core_here(shared.incarnation);
    let Some((core, pool)) = core.as_ref().and_then(|core| Some((core, core.pool.as_ref()?))) else {
        return Err(PoolError::Stopped("unmounted while mounting".into()));
    };
    match Shard::open(pool, shared, slot).await {
        Ok(shard) => {
            core.shards.borrow_mut().insert(slot, shard);
            Ok(())
        }
        Err(error) => Err(cannot(format!("shard {id} could not be opened"), error)),
    }
}

#[cfg(test)]
impl FileSystem {
    /// Over shards that `open` makes, on the cores there are.
    pub(crate) async fn mount_over<Fut>(
        uuid: Uuid,
        slots: u16,
        open: impl Fn(Arc<Shared>, u16) -> Fut + Send + Copy + 'static,
    ) -> FsResult<FileSystem>
    where
        Fut: Future<Output = FsResult<Rc<Shard>>> + 'static,
    {
        let fs =
            FileSystem { shared: Shared::deal(uuid, (0..slots as u32).map(ShardId).collect()), core: None };
        for core in 0..basalt_reactor::core_count() {
            let shared = fs.shared.clone();
            call_on(CoreId(core), move || async move { enter_core(shared, None) }).await;
        }
        for slot in 0..slots {
            let shared = fs.shared.clone();
            call_on(fs.shared.cores[slot as usize], move || async move {
                let shard = open(shared.clone(), slot).await?;
                let core = core_here(shared.incarnation).ok_or(FsError::Delay)?;
                core.shards.borrow_mut().insert(slot, shard);
                Ok::<_, FsError>(())
            })
            .await?;
        }
        fs.recover().await?;
        Ok(fs)
    }
}
