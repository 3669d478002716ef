//! The server: settings, start and stop, and what each reactor keeps.

use crate::conn::{self, Conn};
use crate::export::{ExportTable, LocalExports};
use crate::handle::Secret;
use crate::stats::{Stats, StatsSnapshot, bump};
use crate::store::{ClientStore, Restored, StoreError, restore, session_key};
use crate::v3::cache::DuplicateCache;
use crate::v4::clients::{self, Registry, home_of_client, home_of_session};
use crate::v4::state::Client;
use basalt_reactor::sync::{Notify, Semaphore};
use basalt_reactor::{CoreId, JoinHandle, WallTime, net};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Authenticates file handles and stateids; the same for the life of the pool.
    pub secret: [u8; 16],
    /// server_owner and scope: the same on every node that shares the clients, at most 1024 bytes.
    pub server_id: Vec<u8>,
    pub lease_s: u32,
    pub connections_max: usize,
    /// Requests of one connection that are executed at a time.
    pub requests_per_connection: usize,
    /// Bytes of requests being executed, per reactor.
    pub request_budget_bytes: usize,
    /// Bytes that the replay caches of all sessions may grow to, per reactor.
    pub replay_budget_bytes: usize,
    /// A connection without traffic for this long is closed; clients reconnect when they need it.
    pub idle_s: u32,
}

impl Config {
    pub fn new(listen: SocketAddr, secret: [u8; 16], server_id: &[u8]) -> Config {
        Config {
            listen,
            secret,
            server_id: server_id[..server_id.len().min(1024)].to_vec(),
            lease_s: 90,
            connections_max: 4096,
            requests_per_connection: 256,
            request_budget_bytes: 256 << 20,
            replay_budget_bytes: 256 << 20,
            idle_s: 900,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("NFS cannot listen on {address}: {source}; stop what uses that port or set BASALT_NFS_PORT")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What all reactors share.
pub(crate) struct Shared {
    /// Tells the servers of one process apart.
    uid: u64,
    pub(crate) config: Config,
    pub(crate) secret: Secret,
    /// Number of this start.
    pub(crate) boot: u32,
    pub(crate) started: WallTime,
    exports: ExportTable,
    connections: AtomicUsize,
    stopping: AtomicBool,
}

impl Shared {
    /// The change attribute of pseudo directories: grows over restarts and with each change of the table.
    pub(crate) fn pseudo_change(&self, generation: u64) -> u64 {
        (self.boot as u64) << 32 | generation
    }
}

/// What one reactor keeps.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    exports: RefCell<Rc<LocalExports>>,
    pub(crate) clients: Registry,
    pub(crate) store: Rc<dyn ClientStore>,
    pub(crate) stats: Stats,
    pub(crate) duplicates: DuplicateCache,
    pub(crate) budget: Semaphore,
    pub(crate) connections: RefCell<BTreeMap<u64, Weak<Conn>>>,
    next_connection: Cell<u64>,
    stopped: Notify,
}

/// The budget is counted in units of this, so that a permit count stays small.
pub(crate) const BUDGET_UNIT_BYTES: usize = 1024;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
}

thread_local! {
    // Weak: the reactor's own task keeps it alive, so that a crash in the simulator takes it along.
    static LOCALS: RefCell<BTreeMap<(u64, CoreId), Weak<Local>>> = const { RefCell::new(BTreeMap::new()) };
}

impl Local {
    /// This reactor's part of a server, unless it is stopped.
    pub(crate) fn of(uid: u64) -> Option<Rc<Local>> {
        LOCALS.with_borrow(|m| m.get(&(uid, basalt_reactor::current_core()))?.upgrade())
    }

    fn install(shared: Arc<Shared>, store: Rc<dyn ClientStore>, restored: &Restored) {
        let units = shared.config.request_budget_bytes / BUDGET_UNIT_BYTES;
        let local = Rc::new(Local {
            exports: RefCell::new(Rc::new(LocalExports::empty())),
            clients: Registry::default(),
            store,
            stats: Stats::default(),
            duplicates: DuplicateCache::default(),
            // At least one request of any size must fit.
            budget: Semaphore::new(units.max(2 * crate::rpc::RECORD_MAX_BYTES / BUDGET_UNIT_BYTES)),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            stopped: Notify::new(),
            shared,
        });
        for c in &restored.clients {
            if local.is_home(home_of_client(c.id)) {
                local.clients.restore_client(c);
            }
        }
        for s in &restored.sessions {
            if local.is_home(home_of_session(&s.id)) {
                local.clients.restore_session(s);
            }
        }
        let key = (local.shared.uid, basalt_reactor::current_core());
        LOCALS.with_borrow_mut(|m| m.insert(key, Rc::downgrade(&local)));
        let leases = basalt_reactor::spawn(clients::expire_leases(local.clone()));
        let sweeper = basalt_reactor::spawn(conn::close_idle(local.clone()));
        basalt_reactor::spawn(async move {
            local.stopped.notified().await;
            leases.cancel();
            sweeper.cancel();
            LOCALS.with_borrow_mut(|m| m.remove(&key));
        });
    }

    /// The current view of the exports.
    pub(crate) fn exports(&self) -> Rc<LocalExports> {
        let current = self.exports.borrow().clone();
        if current.generation == self.shared.exports.generation() {
            return current;
        }
        let newer = Rc::new(self.shared.exports.attach(&current));
        *self.exports.borrow_mut() = newer.clone();
        newer
    }

    pub(crate) fn is_home(&self, home: u16) -> bool {
        core_of(home) == basalt_reactor::current_core()
    }

    /// A client's lease has ended. Half a lease more is given: a client that comes back a little late finds all it had.
    pub(crate) fn lease_over(&self, client: &Client) -> bool {
        let grace_ms = self.shared.config.lease_s.max(1) as u64 * 1500;
        client.renewed.get().elapsed() > Duration::from_millis(grace_ms)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn uid(&self) -> u64 {
        self.shared.uid
    }

    pub(crate) fn add_connection(&self, c: &Rc<Conn>) -> u64 {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        self.connections.borrow_mut().insert(id, Rc::downgrade(c));
        id
    }
    pub(crate) fn remove_connection(&self, id: u64) {
        self.connections.borrow_mut().remove(&id);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> StatsSnapshot {
        let (clients, sessions, states) = self.clients.counts();
        StatsSnapshot {
            connections: self.connections.borrow().len() as u64,
            clients: clients as u64,
            sessions: sessions as u64,
            states: states as u64,
            replay_cache_bytes: self.clients.cache_reserved() as u64,
            ..self.stats.snapshot()
        }
    }
}

/// The reactor of a home: the same for any number of reactors that a node is started with.
pub(crate) fn core_of(home: u16) -> CoreId {
    CoreId(home % basalt_reactor::core_count())
}

type StoreFactory = Arc<Mutex<Box<dyn Fn() -> Rc<dyn ClientStore> + Send>>>;

/// A running server; lives on the reactor that started it.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: RefCell<Option<JoinHandle<()>>>,
}

/// How long a start waits for its port.
const PORT_IN_USE_LIMIT: Duration = Duration::from_millis(1000);

static NEXT_UID: AtomicU64 = AtomicU64::new(1);

impl Server {
    /// Listens, and serves on all reactors. `store` is called once on each of them.
    pub async fn start(
        config: Config,
        exports: ExportTable,
        store: impl Fn() -> Rc<dyn ClientStore> + Send + 'static,
    ) -> Result<Server, StartError> {
        let address = config.listen;
        let listener = listen(address).await.map_err(|source| StartError::Listen { address, source })?;
        Server::start_on(config, listener, exports, store).await
    }

    /// As [`Server::start`], on a listener that is open already: clients that knocked meanwhile wait in its queue.
    pub async fn start_on(
        config: Config,
        listener: net::Listener,
        exports: ExportTable,
        store: impl Fn() -> Rc<dyn ClientStore> + Send + 'static,
    ) -> Result<Server, StartError> {
        let here = store();
        let mut restored = restore(&*here).await?;
        let orphans: Vec<_> = {
            let known = |s: u64| restored.clients.iter().any(|c| c.id == s);
            restored
                .sessions
                .iter()
                .filter(|s| !known(s.client))
                .map(|s| (session_key(&s.id), None))
                .collect()
        };
        if !orphans.is_empty() {
            here.write(orphans).await?;
        }
        // Sessions that no longer fit the replay budget's order still must work: they were promised.
        restored.sessions.sort_by_key(|s| s.id);
        tracing::info!(
            boot = restored.boot,
            clients = restored.clients.len(),
            sessions = restored.sessions.len(),
            "NFS listens on {}",
            listener.local_addr()
        );
        let shared = Arc::new(Shared {
            uid: NEXT_UID.fetch_add(1, Ordering::Relaxed),
            secret: Secret::new(config.secret),
            config,
            boot: restored.boot,
            started: basalt_reactor::wall_clock(),
            exports,
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let restored = Arc::new(restored);
        let factory: StoreFactory = Arc::new(Mutex::new(Box::new(store)));
        for core in cores() {
            let (shared, restored, factory) = (shared.clone(), restored.clone(), factory.clone());
            basalt_reactor::call_on(core, move || async move {
                let store = factory.lock().unwrap_or_else(PoisonError::into_inner)();
                Local::install(shared, store, &restored);
            })
            .await;
        }
        let address = listener.local_addr();
        let accepting = basalt_reactor::spawn(accept(listener, shared.clone()));
        Ok(Server { shared, address, accepting: RefCell::new(Some(accepting)) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns when every reactor has taken note of the latest change of the export table, so that nobody holds the
    /// file system of a removed export, but for requests that were under way.
    pub async fn settle(&self) {
        let uid = self.shared.uid;
        for core in cores() {
            basalt_reactor::call_on(core, move || async move {
                if let Some(local) = Local::of(uid) {
                    local.exports();
                }
            })
            .await;
        }
    }

    pub async fn stats(&self) -> StatsSnapshot {
        let uid = self.shared.uid;
        let mut all = StatsSnapshot::default();
        for core in cores() {
            let one =
                basalt_reactor::call_on(core, move || async move { Local::of(uid).map(|l| l.snapshot()) })
                    .await;
            all.merge(&one.unwrap_or_default());
        }
        all
    }

    /// Stops accepting, answers what has been read, closes all connections and lets go of the file systems. Clients
    /// keep their sessions: the next start knows them.
    pub async fn stop(&self) {
        if let Some(accepting) = self.accepting.borrow_mut().take() {
            accepting.cancel();
        }
        self.shared.stopping.store(true, Ordering::Relaxed);
        let uid = self.shared.uid;
        for core in cores() {
            basalt_reactor::call_on(core, move || async move {
                if let Some(local) = Local::of(uid) {
                    conn::drain(&local).await;
                }
            })
            .await;
        }
        // Only now: a request on one reactor may have been working on another.
        for core in cores() {
            basalt_reactor::call_on(core, move || async move {
                if let Some(local) = Local::of(uid) {
                    *local.exports.borrow_mut() = Rc::new(LocalExports::empty());
                    local.stopped.notify_all();
                }
            })
            .await;
        }
    }
}

fn cores() -> impl Iterator<Item = CoreId> {
    (0..basalt_reactor::core_count()).map(CoreId)
}

/// Listens; waits a moment for a port in use. The kernel closes what a killed process was accepting on over io_uring only
/// some time after that process is gone.
pub async fn listen(address: SocketAddr) -> std::io::Result<net::Listener> {
    let started = basalt_reactor::now();
    loop {
        match net::listen(address).await {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && started.elapsed() < PORT_IN_USE_LIMIT => {
                basalt_reactor::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Deals connections to the reactors in turn: one client with several connections then uses several reactors.
async fn accept(listener: net::Listener, shared: Arc<Shared>) {
    let mut next = 0;
    loop {
        let stream = match listener.accept().await {
            Ok(s) => s,
            Err(e) => {
                // Out of descriptors, most likely: waiting helps, giving up does not.
                tracing::error!("NFS cannot accept a connection: {e}");
                basalt_reactor::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip().to_canonical());
        let open = shared.connections.fetch_add(1, Ordering::Relaxed);
        if open >= shared.config.connections_max {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%peer, "refused a connection: {open} are open, which is the limit");
            if let Some(l) = Local::of(shared.uid) {
                bump(&l.stats.refused, 1);
            }
            stream.shutdown();
            continue;
        }
        let core = CoreId(next);
        next = (next + 1) % basalt_reactor::core_count();
        let detached = stream.detach();
        let shared = shared.clone();
        basalt_reactor::post(core, move || {
            let Some(local) = Local::of(shared.uid) else {
                shared.connections.fetch_sub(1, Ordering::Relaxed);
                return;
            };
            bump(&local.stats.accepted, 1);
            conn::serve(local, detached.attach(), Peer { address: peer });
        });
    }
}
