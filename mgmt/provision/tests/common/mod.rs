//! Servers, BMCs and a boot service in memory, under a clock that runs as fast as nothing happens. Whatever is done to them passes a
//! fuse, so that a test can kill the engine before and after each effect.
#![allow(dead_code, unreachable_pub)]

use async_trait::async_trait;
use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::event::{Event, Events, Step};
use basalt_boot::node::{Mac, NodeId};
use basalt_inventory::Record;
use basalt_inventory::record::{Contents, Drive, Nic, Port};
use basalt_provision::boot::BootDesk;
use basalt_provision::clock::Clock;
use basalt_provision::fault::{Fault, FaultKind};
use basalt_provision::node::{BmcAddress, Identity, Node, NodeName, Wanted};
use basalt_provision::reach::NoReach;
use basalt_provision::server::{BootSource, Power, Server, Servers, UpdateState};
use basalt_provision::store::{Claim, MemoryStore, NodeStore};
use basalt_provision::{Engine, Limits, Parts, Result, Times};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Blows at the n-th effect: whoever comes there stays there.
#[derive(Clone)]
pub struct Fuse {
    passed: Arc<AtomicUsize>,
    at: usize,
    blown: Arc<tokio::sync::Notify>,
}

impl Fuse {
    pub fn at(at: usize) -> Fuse {
        Fuse { passed: Arc::default(), at, blown: Arc::default() }
    }
    pub fn never() -> Fuse {
        Fuse::at(usize::MAX)
    }
    async fn pass(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 >= self.at {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }
    pub async fn blown(&self) {
        self.blown.notified().await;
    }
    pub fn count(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Copy)]
pub struct TestClock(pub Instant);
impl Clock for TestClock {
    fn now_s(&self) -> u64 {
        1_700_000_000 + self.0.elapsed().as_secs()
    }
}

pub struct FakeServer {
    pub identity: Identity,
    pub mac: Mac,
    pub power: Power,
    pub boot: BootSource,
    pub drives: Vec<Drive>,
    pub firmware: BTreeMap<String, String>,
    /// `inspect`, `set_boot`, `start_anew`: never answers.
    pub hangs_at: Option<&'static str>,
    /// Answers this to everything.
    pub fault: Option<FaultKind>,
    /// So many passing faults come first.
    pub hiccups: u32,
    /// The image's boot ends with this step.
    pub boot_ends: Option<Step>,
    pub boots: u32,
    pub writes: u32,
    /// Resets that came while the disk was being written.
    pub cut: u32,
    pub writing: bool,
    pub calls: u32,
    generation: u32,
}

#[derive(Default)]
pub struct Inner {
    pub servers: BTreeMap<String, FakeServer>,
    pub events: Vec<Event>,
    pub decisions: Vec<Decision>,
    pub busy: usize,
    pub most_busy: usize,
}

#[derive(Clone)]
pub struct World {
    pub inner: Arc<Mutex<Inner>>,
    pub clock: TestClock,
    pub store: MemoryStore,
}

pub fn name(n: usize) -> NodeName {
    NodeName::new(&format!("node-{n}")).unwrap()
}
fn url(n: usize) -> String {
    format!("https://10.0.0.{n}")
}

impl World {
    pub async fn new(servers: usize, wanted: &Wanted) -> World {
        let world =
            World { inner: Arc::default(), clock: TestClock(Instant::now()), store: MemoryStore::default() };
        for n in 0..servers {
            world.add_server(n);
            world.add_node(n, wanted).await;
        }
        world
    }

    pub fn add_server(&self, n: usize) {
        let identity = Identity {
            manufacturer: "Maker".into(),
            model: "Model".into(),
            serial: format!("SER{n}"),
            uuid: None,
        };
        let drive = Drive { serial: format!("D{n}"), contents: Contents::Blank, ..Drive::default() };
        let server = FakeServer {
            identity,
            mac: Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]),
            power: Power::Off,
            boot: BootSource::Normal,
            drives: vec![drive],
            firmware: BTreeMap::from([("BIOS".to_owned(), "1.0".to_owned())]),
            hangs_at: None,
            fault: None,
            hiccups: 0,
            boot_ends: None,
            boots: 0,
            writes: 0,
            cut: 0,
            writing: false,
            calls: 0,
            generation: 0,
        };
        self.inner().servers.insert(url(n), server);
    }

    pub async fn add_node(&self, n: usize, wanted: &Wanted) {
        let bmc = BmcAddress { url: url(n), credential: "default".into(), certificate_sha256: None };
        let identity =
            Identity { manufacturer: "Maker".into(), serial: format!("SER{n}"), ..Identity::default() };
        let mut node = Node::new(name(n), bmc, identity, wanted.clone(), self.clock.now_s());
        self.store.add(&mut node).await.unwrap();
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn with<T>(&self, n: usize, change: impl FnOnce(&mut FakeServer) -> T) -> T {
        change(self.inner().servers.get_mut(&url(n)).unwrap())
    }

    pub async fn node(&self, n: usize) -> Node {
        self.store.get(&name(n)).await.unwrap().unwrap()
    }

    pub fn engine(&self, fuse: &Fuse, limits: &Limits) -> Engine {
        let hands = Hands { world: self.clone(), fuse: fuse.clone() };
        let parts = Parts {
            store: Arc::new(FusedStore { store: self.store.clone(), fuse: fuse.clone() }),
            servers: Arc::new(hands.clone()),
            boot: BootDesk { decisions: Arc::new(hands.clone()), events: Arc::new(hands) },
            reach: Arc::new(NoReach),
            clock: Arc::new(self.clock),
        };
        Engine::new(parts, Times::default(), limits)
    }

    pub async fn provision(&self, nodes: usize) -> BTreeMap<NodeName, Result<Node>> {
        let names: Vec<NodeName> = (0..nodes).map(name).collect();
        self.engine(&Fuse::never(), &Limits::default()).provision(&names).await
    }

    fn event(&self, mac: Mac, step: Step, detail: &str) {
        let event = Event::new(self.clock.now_s(), mac.into(), step, detail);
        self.inner().events.push(event);
    }

    fn decided(&self, mac: Mac) -> Action {
        let id = NodeId::from(mac);
        let inner = self.inner();
        inner.decisions.iter().find(|d| d.node.is(&id)).map_or(Action::Quarantine, |d| d.action)
    }

    /// A server that was switched on: firmware, boot service, image.
    async fn boot(self, url: String, generation: u32) {
        let alive = |world: &World| world.inner().servers[&url].generation == generation;
        sleep(Duration::from_secs(40)).await;
        if !alive(&self) {
            return;
        }
        let (mac, network, ends) = {
            let mut inner = self.inner();
            let server = inner.servers.get_mut(&url).unwrap();
            let network = match server.boot {
                BootSource::Network { always, .. } => {
                    if !always {
                        server.boot = BootSource::Normal;
                    }
                    true
                }
                BootSource::Normal => false,
            };
            (server.mac, network, server.boot_ends)
        };
        let action = if network { self.decided(mac) } else { Action::Local };
        let steps: &[Step] = match action {
            Action::Quarantine => &[Step::Asked, Step::Ignored],
            Action::Local if self.inner().servers[&url].writes > 0 => &[Step::Ready],
            Action::Local => &[],
            Action::Diskless => &[
                Step::Asked,
                Step::Leased,
                Step::Script,
                Step::Fetching,
                Step::Fetched,
                Step::Plan,
                Step::Ready,
            ],
            Action::Install => &[
                Step::Asked,
                Step::Leased,
                Step::Fetching,
                Step::Fetched,
                Step::Plan,
                Step::Installing,
                Step::Installed,
            ],
        };
        for step in steps {
            sleep(Duration::from_secs(5)).await;
            if !alive(&self) {
                return;
            }
            let mut inner = self.inner();
            let server = inner.servers.get_mut(&url).unwrap();
            match step {
                Step::Installing => server.writing = true,
                Step::Installed => {
                    server.writing = false;
                    server.writes += 1;
                }
                _ => {}
            }
            drop(inner);
            self.event(mac, *step, if *step == Step::Leased { "10.9.0.1" } else { "" });
            if Some(*step) == ends {
                return;
            }
        }
        if action == Action::Install {
            // It restarts by itself.
            Box::pin(self.boot(url, generation)).await;
        }
    }
}

/// The engine's hands in the world.
#[derive(Clone)]
pub struct Hands {
    world: World,
    fuse: Fuse,
}

struct Hand {
    hands: Hands,
    url: String,
    identity: Identity,
}

impl Hands {
    /// Before and after each effect: a place to die.
    async fn does<T>(
        &self,
        url: &str,
        what: &'static str,
        effect: impl FnOnce(&mut FakeServer) -> T,
    ) -> std::result::Result<T, Fault> {
        self.fuse.pass().await;
        {
            let mut inner = self.world.inner();
            inner.busy += 1;
            inner.most_busy = inner.most_busy.max(inner.busy);
        }
        sleep(Duration::from_millis(200)).await;
        let result = {
            let mut inner = self.world.inner();
            inner.busy -= 1;
            let server = inner.servers.get_mut(url).expect("a server that is not in the list was touched");
            server.calls += 1;
            if server.hangs_at == Some(what) {
                None
            } else if let Some(kind) = server.fault {
                Some(Err(Fault::new(kind, "as the test wants it")))
            } else if server.hiccups > 0 {
                server.hiccups -= 1;
                Some(Err(Fault::new(FaultKind::Busy, "try later")))
            } else {
                Some(Ok(effect(server)))
            }
        };
        let Some(result) = result else { return std::future::pending().await };
        self.fuse.pass().await;
        result
    }
}

#[async_trait]
impl Servers for Hands {
    async fn connect(&self, node: &Node) -> std::result::Result<Box<dyn Server>, Fault> {
        let url = node.bmc.url.clone();
        let identity = self.does(&url, "connect", |s| s.identity.clone()).await?;
        Ok(Box::new(Hand { hands: self.clone(), url, identity }))
    }
}

#[async_trait]
impl Server for Hand {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    async fn inspect(&self) -> std::result::Result<Record, Fault> {
        self.hands
            .does(&self.url, "inspect", |s| {
                let mut record = Record { drives: s.drives.clone(), ..Record::default() };
                record.identity.serial.clone_from(&s.identity.serial);
                let port = Port { mac: s.mac.to_string(), ..Port::default() };
                record.nics.push(Nic { ports: vec![port], ..Nic::default() });
                record
            })
            .await
    }
    async fn power(&self) -> std::result::Result<Power, Fault> {
        self.hands.does(&self.url, "power", |s| s.power).await
    }
    async fn start_anew(&self) -> std::result::Result<(), Fault> {
        self.hands
            .does(&self.url, "start_anew", |s| {
                s.power = Power::On;
                s.boots += 1;
                s.generation += 1;
                s.cut += u32::from(std::mem::take(&mut s.writing));
                let (world, url, generation) = (self.hands.world.clone(), self.url.clone(), s.generation);
                tokio::spawn(world.boot(url, generation));
            })
            .await
    }
    async fn set_boot(&self, source: &BootSource) -> std::result::Result<(), Fault> {
        self.hands.does(&self.url, "set_boot", |s| s.boot = source.clone()).await
    }
    async fn boots_from(&self, source: &BootSource) -> std::result::Result<bool, Fault> {
        self.hands.does(&self.url, "boots_from", |s| s.boot == *source).await
    }
    async fn firmware_version(&self, component: &str) -> std::result::Result<Option<String>, Fault> {
        self.hands.does(&self.url, "firmware_version", |s| s.firmware.get(component).cloned()).await
    }
    async fn begin_update(&self, component: &str, file: &str) -> std::result::Result<String, Fault> {
        let (component, file) = (component.to_owned(), file.to_owned());
        self.hands
            .does(&self.url, "begin_update", |s| {
                let updates = s.firmware.entry("updates".into()).or_insert_with(|| "0".into());
                *updates = (updates.parse::<u32>().unwrap() + 1).to_string();
                s.firmware.insert(component, file);
                "task/1".to_owned()
            })
            .await
    }
    async fn update_state(&self, _task: &str) -> std::result::Result<UpdateState, Fault> {
        self.hands.does(&self.url, "update_state", |_| UpdateState::Done).await
    }
}

#[async_trait]
impl Decisions for Hands {
    async fn decide(&self, decision: Decision) -> basalt_boot::Result<()> {
        self.fuse.pass().await;
        {
            let mut inner = self.world.inner();
            inner.decisions.retain(|d| !d.node.is(&decision.node));
            inner.decisions.push(decision);
        }
        self.fuse.pass().await;
        Ok(())
    }
    async fn forget(&self, node: &NodeId) -> basalt_boot::Result<bool> {
        let mut inner = self.world.inner();
        let before = inner.decisions.len();
        inner.decisions.retain(|d| !d.node.is(node));
        Ok(inner.decisions.len() < before)
    }
    async fn for_node(&self, node: &NodeId) -> basalt_boot::Result<Option<Decision>> {
        Ok(self.world.inner().decisions.iter().find(|d| d.node.is(node)).cloned())
    }
    async fn installed(&self, node: &NodeId, now_s: u64) -> basalt_boot::Result<usize> {
        let mut inner = self.world.inner();
        let mine = inner.decisions.iter_mut().filter(|d| d.node.is(node));
        Ok(mine.filter_map(|d| d.once_installed(now_s).map(|next| *d = next)).count())
    }
    async fn all(&self) -> basalt_boot::Result<Vec<Decision>> {
        Ok(self.world.inner().decisions.clone())
    }
}

#[async_trait]
impl Events for Hands {
    async fn record(&self, event: Event) -> basalt_boot::Result<()> {
        self.world.inner().events.push(event);
        Ok(())
    }
    async fn recent(&self, _node: Option<&NodeId>, _limit: usize) -> basalt_boot::Result<Vec<Event>> {
        Ok(self.world.inner().events.clone())
    }
}

struct FusedStore {
    store: MemoryStore,
    fuse: Fuse,
}

#[async_trait]
impl NodeStore for FusedStore {
    async fn all(&self) -> Result<Vec<Node>> {
        self.store.all().await
    }
    async fn get(&self, name: &NodeName) -> Result<Option<Node>> {
        self.store.get(name).await
    }
    async fn add(&self, node: &mut Node) -> Result<()> {
        self.store.add(node).await
    }
    async fn put(&self, node: &mut Node) -> Result<()> {
        self.fuse.pass().await;
        self.store.put(node).await?;
        self.fuse.pass().await;
        Ok(())
    }
    async fn forget(&self, name: &NodeName) -> Result<bool> {
        self.store.forget(name).await
    }
    async fn claim(&self, name: &NodeName) -> Result<Box<dyn Claim>> {
        self.store.claim(name).await
    }
}
