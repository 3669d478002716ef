//! Drives nodes from state to state, each on its own: a server that hangs costs the others nothing.
//!
//! Before a server is asked to change anything, the list says so on disk; after a crash the same step is done again and looks first at
//! what was already done. Files are never written under a time limit, so that what is in memory is what is on disk.

mod boot_steps;
mod firmware;
mod inspect;
mod turn;

use crate::boot::BootDesk;
use crate::clock::Clock;
use crate::error::{ProvisionError, Result};
use crate::fault::Fault;
use crate::limits::{Held, Limits, Permits};
use crate::node::{Identity, Node, NodeName};
use crate::reach::Reach;
use crate::server::Servers;
use crate::state::{State, Times};
use crate::store::NodeStore;
use basalt_boot::event::Event;
use basalt_inventory::{Profile, Record};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinSet;
use turn::Turn;

/// What the engine works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn NodeStore>,
    pub servers: Arc<dyn Servers>,
    pub boot: BootDesk,
    pub reach: Arc<dyn Reach>,
    pub clock: Arc<dyn Clock>,
}

type Watcher = Arc<dyn Fn(&Node) + Send + Sync>;
type Keeper = Arc<dyn Fn(&NodeName, &Record) + Send + Sync>;
type Feed = watch::Receiver<Arc<Vec<Event>>>;

#[derive(Clone)]
pub struct Engine {
    parts: Parts,
    times: Times,
    permits: Permits,
    profile: Option<Arc<Profile>>,
    watcher: Option<Watcher>,
    keeper: Option<Keeper>,
    /// Who is in the list, so that one server with two names is seen.
    known: Arc<Mutex<BTreeMap<NodeName, Identity>>>,
}

/// Why a step ended without the next state.
enum Halt {
    /// The server's doing: the node fails, or tries again.
    Fault(Fault),
    /// The list cannot be written: work on this node stops where it is.
    List(ProvisionError),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt::Fault(fault)
    }
}
impl From<ProvisionError> for Halt {
    fn from(error: ProvisionError) -> Halt {
        Halt::List(error)
    }
}

/// The next state and why.
type Next = std::result::Result<(State, String), Halt>;

impl Engine {
    pub fn new(parts: Parts, times: Times, limits: &Limits) -> Engine {
        Engine {
            parts,
            times,
            permits: Permits::new(limits),
            profile: None,
            watcher: None,
            keeper: None,
            known: Arc::default(),
        }
    }

    /// Hardware that is not as `profile` says ends in failed, before anything is changed.
    pub fn with_profile(mut self, profile: Option<Profile>) -> Engine {
        self.profile = profile.map(Arc::new);
        self
    }

    /// Told of each node whenever something of it changed.
    pub fn watched_by(mut self, watcher: impl Fn(&Node) + Send + Sync + 'static) -> Engine {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// Given each inventory that was read.
    pub fn kept_by(mut self, keeper: impl Fn(&NodeName, &Record) + Send + Sync + 'static) -> Engine {
        self.keeper = Some(Arc::new(keeper));
        self
    }

    /// Brings these nodes as far as they get. Failed ones are tried again, those at work are taken up where they stand, running ones
    /// are left alone.
    pub async fn provision(&self, names: &[NodeName]) -> BTreeMap<NodeName, Result<Node>> {
        let failed =
            |name: &NodeName, e: &ProvisionError| (name.clone(), Err(ProvisionError::Invalid(e.to_string())));
        match self.parts.store.all().await {
            Ok(all) => {
                let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *known = all
                    .into_iter()
                    .filter(|n| n.state != State::Removed)
                    .map(|n| (n.name, n.identity))
                    .collect();
            }
            Err(e) => return names.iter().map(|name| failed(name, &e)).collect(),
        }
        let (feeder, feed) = watch::channel(Arc::new(Vec::new()));
        let mut feeding = JoinSet::new();
        let engine = self.clone();
        feeding.spawn(async move { engine.feed(feeder).await });
        // Dropping the set ends all work at once, wherever it stands.
        let mut work = JoinSet::new();
        for name in names {
            let (engine, name, feed) = (self.clone(), name.clone(), feed.clone());
            work.spawn(async move {
                let done = engine.drive(&name, feed).await;
                (name, done)
            });
        }
        let mut done = BTreeMap::new();
        while let Some(one) = work.join_next().await {
            if let Ok((name, result)) = one {
                done.insert(name, result);
            }
        }
        for name in names {
            let ended = || {
                Err(ProvisionError::Invalid(format!("the work on node {name} ended early; this is a bug")))
            };
            done.entry(name.clone()).or_insert_with(ended);
        }
        done
    }

    /// Reads the boot service's events once for all nodes.
    async fn feed(&self, feeder: watch::Sender<Arc<Vec<Event>>>) {
        let mut last: Option<Event> = None;
        loop {
            match self.parts.boot.events.recent(None, crate::boot::MAX_EVENTS).await {
                Ok(events) if events.last() == last.as_ref() && last.is_some() => {}
                Ok(events) => {
                    last = events.last().cloned();
                    feeder.send_replace(Arc::new(events));
                }
                Err(e) => tracing::warn!("events of the boot service: {e}"),
            }
            tokio::time::sleep(self.times.poll).await;
        }
    }

    async fn drive(&self, name: &NodeName, feed: Feed) -> Result<Node> {
        let _claim = self.parts.store.claim(name).await?;
        let node = self.parts.store.get(name).await?;
        let mut node = node.ok_or_else(|| ProvisionError::NoSuchNode(name.clone()))?;
        match node.state {
            State::Removed => {
                return Err(ProvisionError::Invalid(format!("node {name} was removed; add it again first")));
            }
            State::Failed => {
                node.retry(self.now_s())?;
                self.save(&mut node).await?;
            }
            _ => self.tell(&node),
        }
        let mut held = Held::default();
        while !node.state.is_rest() {
            self.permits.for_state(node.state, &mut held).await;
            let next = match node.begin(self.now_s()) {
                Ok(()) => {
                    self.save(&mut node).await?;
                    self.work(&mut node, &feed).await
                }
                Err(fault) => Err(Halt::Fault(fault)),
            };
            match next {
                Ok((state, cause)) => node.become_state(state, &cause, self.now_s())?,
                Err(Halt::Fault(fault)) => node.fail(&fault, self.now_s())?,
                Err(Halt::List(error)) => return Err(error),
            }
            self.save(&mut node).await?;
        }
        Ok(node)
    }

    /// The work of the node's state, again after passing faults, until its time is over.
    async fn work(&self, node: &mut Node, feed: &Feed) -> Next {
        let limit = self.times.limit(node.state).unwrap_or_default();
        let turn = Turn::new(&node.bmc.url, limit, self.times.call);
        let mut pause = self.times.pause;
        let mut tries = 0u32;
        loop {
            tries += 1;
            let fault = match self.attempt(node, &turn, feed).await {
                Err(Halt::Fault(fault)) => fault,
                other => return other,
            };
            if !fault.kind.passes() {
                return Err(fault.into());
            }
            if turn.left() <= pause {
                let text = turn::minutes(limit);
                let cause = format!("{}; tried {tries} times in {text}", fault.cause);
                return Err(Fault::new(fault.kind, cause).into());
            }
            node.work.note = crate::node::clipped(&fault.cause);
            self.save(node).await?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.times.pause * 16);
        }
    }

    async fn attempt(&self, node: &mut Node, turn: &Turn, feed: &Feed) -> Next {
        match node.state {
            State::Discovered => self.inspect(node, turn).await,
            State::Inspected => self.update_firmware(node, turn).await,
            State::Firmware => self.set_boot(node, turn).await,
            State::BootSet => self.reset(node, turn, feed).await,
            State::Booting => self.watch_boot(node, turn, feed).await,
            State::Installed => self.start_installed(node, turn, feed).await,
            State::Diskless => self.watch_until_ready(node, turn, feed).await,
            rest @ (State::Running | State::Failed | State::Removed) => Ok((rest, String::new())),
        }
    }

    fn now_s(&self) -> u64 {
        self.parts.clock.now_s()
    }

    async fn save(&self, node: &mut Node) -> Result<()> {
        self.parts.store.put(node).await?;
        self.tell(node);
        Ok(())
    }

    fn tell(&self, node: &Node) {
        if let Some(watcher) = &self.watcher {
            watcher(node);
        }
    }

    /// Shows what is going on now; written where it differs.
    async fn note(&self, node: &mut Node, text: &str) -> Result<()> {
        let text = crate::node::clipped(text);
        if node.work.note != text {
            node.work.note = text;
            self.save(node).await?;
        }
        Ok(())
    }
}
