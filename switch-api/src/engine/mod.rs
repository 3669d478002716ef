//! Many switches at once: planned and checked in parallel, changed in an order that never takes both ways to a node, watched, and
//! taken back when the change cut something.

mod guard;
mod order;
mod progress;

pub use order::waves;
pub use progress::{Step, Stop};

use crate::connection::Connection;
use crate::desired::{Desired, desired};
use crate::drivers;
use crate::error::{Cause, Result, SwitchError};
use crate::intent::Fabric;
use crate::names::DeviceName;
use crate::plan::Plan;
use crate::switch::{Counters, Identity, Observed, Switch};
use crate::verify::{Finding, FindingKind, Severity, trend};
use progress::Watcher;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// An answer, or why not, for each switch.
pub type PerSwitch<T> = BTreeMap<DeviceName, Result<T>>;

/// How carefully, how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Switches spoken to at the same time: bounds memory and open connections.
    pub parallel: usize,
    /// A changed switch must answer and hear its neighbours for this long without a break before the change is confirmed.
    pub settle: Duration,
    /// Within this time from the change it must begin to. Links that flap on a change of speed or FEC come back within it.
    pub grace: Duration,
    /// Pause between two looks at a changed switch.
    pub look_every: Duration,
    /// Pause between one wave of switches and the next.
    pub between_waves: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: 16,
            settle: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            look_every: Duration::from_secs(1),
            between_waves: Duration::from_secs(5),
        }
    }
}

impl Options {
    /// Commit timer of switches that have one: longer than the engine ever watches, so that it only runs out when the engine
    /// itself, or the way to the switch, is gone.
    pub fn hold(&self) -> Duration {
        (self.grace + self.settle) * 2
    }
}

/// What became of one switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    pub changes: usize,
    /// What is still not as wanted, though the change went through.
    pub findings: Vec<Finding>,
    /// What has still to be done by hand for the change to last ([`Switch::to_last`]).
    #[serde(default)]
    pub to_do: Option<String>,
}

/// Everything about one switch, for `show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub identity: Identity,
    pub observed: Observed,
}

/// The fabric and its switches.
#[derive(Clone)]
pub struct Engine {
    fabric: Arc<Fabric>,
    switches: BTreeMap<DeviceName, Result<Arc<dyn Switch>>>,
    options: Options,
    watcher: Watcher,
    stop: Stop,
}

impl Engine {
    /// With the drivers that the intent names. A switch whose settings are wrong fails alone.
    pub fn connect(fabric: Fabric, options: Options) -> Self {
        let switches = fabric.switches.iter();
        let connected =
            switches.map(|s| (s.name.clone(), Connection::of(&fabric, s).and_then(drivers::connect)));
        let switches = connected.collect();
        Self::made(fabric, switches, options)
    }

    /// With drivers made elsewhere.
    pub fn new(
        fabric: Fabric,
        switches: impl IntoIterator<Item = Arc<dyn Switch>>,
        options: Options,
    ) -> Self {
        let switches = switches.into_iter().map(|s| (s.name().clone(), Ok(s))).collect();
        Self::made(fabric, switches, options)
    }

    fn made(
        fabric: Fabric,
        switches: BTreeMap<DeviceName, Result<Arc<dyn Switch>>>,
        options: Options,
    ) -> Self {
        let (watcher, stop) = (Watcher::default(), Stop::default());
        Self { fabric: Arc::new(fabric), switches, options, watcher, stop }
    }

    /// The same, with `call` told of every step; it must not block.
    pub fn watched_by(mut self, call: impl Fn(&DeviceName, Step) + Send + Sync + 'static) -> Self {
        self.watcher = Watcher::new(call);
        self
    }

    /// By this an apply under way can be asked to end early.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The same for these switches alone (`--only`); names that are not in the fabric are left out.
    pub fn only(&self, names: &[DeviceName]) -> Self {
        let mut few = self.clone();
        few.switches.retain(|name, _| names.contains(name));
        few
    }

    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The switches that are spoken to.
    pub fn names(&self) -> impl Iterator<Item = &DeviceName> {
        self.switches.keys()
    }

    /// What would be changed. This is also the dry run, and `diff`.
    pub async fn plan(&self) -> PerSwitch<Plan> {
        self.each(|switch, desired| async move {
            let observed = switch.read().await?;
            Ok(switch.plan(&observed.state, &desired))
        })
        .await
    }

    /// Carries out plans that were shown before. A switch that meanwhile asks for other changes is left ([`Cause::Conflict`]).
    /// After the first failure no further wave begins: the switches left out say [`Cause::Skipped`].
    pub async fn apply(&self, shown: &BTreeMap<DeviceName, Plan>) -> PerSwitch<Applied> {
        let wanted: Vec<DeviceName> =
            shown.iter().filter(|(_, plan)| !plan.is_empty()).map(|(name, _)| name.clone()).collect();
        let mut results = PerSwitch::new();
        let mut failed: Option<DeviceName> = None;
        for (i, wave) in waves(&self.fabric, &wanted).into_iter().enumerate() {
            if i > 0 && failed.is_none() {
                self.stop.sleep(self.options.between_waves).await;
            }
            let left_out = match &failed {
                _ if self.stop.is_requested() => Some(Cause::NotBegun),
                Some(other) => Some(Cause::Skipped { other: other.clone() }),
                None => None,
            };
            if let Some(cause) = left_out {
                results.extend(wave.into_iter().map(|name| (name.clone(), Err(cause.clone().at(&name)))));
                continue;
            }
            let (options, watcher, stop) = (self.options, self.watcher.clone(), self.stop.clone());
            let plans: Arc<BTreeMap<DeviceName, Plan>> =
                Arc::new(wave.iter().filter_map(|n| Some((n.clone(), shown.get(n)?.clone()))).collect());
            let done = self
                .only(&wave)
                .each(move |switch, desired| {
                    let (plans, watcher, stop) = (Arc::clone(&plans), watcher.clone(), stop.clone());
                    async move {
                        let Some(plan) = plans.get(switch.name()) else {
                            let reason = "no plan was shown for it".to_owned();
                            return Err(Cause::Conflict { reason }.at(switch.name()));
                        };
                        let care = guard::Care { options, watcher, stop };
                        guard::apply(&*switch, &desired, plan, &care).await
                    }
                })
                .await;
            failed = done.iter().find(|(_, result)| result.is_err()).map(|(name, _)| name.clone());
            results.extend(done);
        }
        results
    }

    /// Where the fabric is not as wanted: drift, running links, cabling, and switches that do not answer.
    pub async fn check(&self) -> Vec<Finding> {
        let answers = self.each(|switch, desired| async move { switch.verify(&desired).await }).await;
        let mut findings: Vec<Finding> = answers
            .into_iter()
            .flat_map(|(name, answer)| {
                answer.unwrap_or_else(|error| {
                    vec![Finding::new(Severity::Error, FindingKind::NoAnswer, &name, error.cause.to_string())]
                })
            })
            .collect();
        findings.sort_by(|a, b| (&a.device, &a.port, b.severity).cmp(&(&b.device, &b.port, a.severity)));
        findings
    }

    pub async fn counters(&self) -> PerSwitch<Counters> {
        self.each(|switch, _| async move { switch.counters().await }).await
    }

    /// What is counted in the time `between` two readings.
    pub async fn counters_during(&self, between: Duration) -> PerSwitch<Counters> {
        let mut earlier = self.counters().await;
        tokio::time::sleep(between).await;
        let later = self.counters().await.into_iter();
        let since = |(name, later): (DeviceName, Result<Counters>)| {
            let counted = match (earlier.remove(&name), later) {
                (Some(Ok(earlier)), Ok(later)) => Ok(later.since(&earlier)),
                (Some(Err(error)), _) | (_, Err(error)) => Err(error),
                (None, Ok(later)) => Ok(later),
            };
            (name, counted)
        };
        later.map(since).collect()
    }

    /// Links that err, classes that lose or pause, as seen in the time `between` two readings. Switches that do not answer are
    /// left to [`Self::check`].
    pub async fn trend(&self, between: Duration) -> Vec<Finding> {
        let counted = self.counters_during(between).await.into_iter();
        let judged = counted
            .filter_map(|(name, counted)| Some(trend(&self.desired(&name).ok()?, &counted.ok()?, between)));
        judged.flatten().collect()
    }

    pub async fn show(&self) -> PerSwitch<Shown> {
        self.each(|switch, _| async move {
            Ok(Shown { identity: switch.discover().await?, observed: switch.read().await? })
        })
        .await
    }

    /// What each switch of the intent shall be.
    pub fn desired(&self, name: &DeviceName) -> Result<Desired> {
        match self.fabric.switch(name) {
            Some(switch) => Ok(desired(&self.fabric, switch)),
            None => {
                let (what, reason) = (format!("switch {name}"), "is not in the fabric".to_owned());
                Err(Cause::Settings { what, reason }.at(name))
            }
        }
    }

    async fn each<T, F, Fut>(&self, work: F) -> PerSwitch<T>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Switch>, Desired) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.options.parallel.max(1)));
        let mut tasks = JoinSet::new();
        let mut results = PerSwitch::new();
        let mut running = BTreeMap::new();
        for (name, switch) in &self.switches {
            let ready = switch.clone().and_then(|switch| Ok((switch, self.desired(name)?)));
            let (switch, desired) = match ready {
                Ok(both) => both,
                Err(error) => {
                    results.insert(name.clone(), Err(error));
                    continue;
                }
            };
            let (work, places, watcher) = (work.clone(), Arc::clone(&places), self.watcher.clone());
            let handle = tasks.spawn(async move {
                // The semaphore is never closed, so waiting for a place cannot fail.
                let _place = places.acquire_owned().await.ok();
                let name = switch.name().clone();
                watcher.say(&name, Step::Begun);
                let result = work(switch, desired).await;
                watcher.say(&name, if result.is_ok() { Step::Done } else { Step::Failed });
                (name, result)
            });
            running.insert(handle.id(), name.clone());
        }
        while let Some(joined) = tasks.join_next().await {
            let (name, result) = joined.unwrap_or_else(|error| {
                // A panic in a driver is a defect; it must not take the other switches with it.
                let name = running.get(&error.id()).cloned().unwrap_or_else(|| "unknown".into());
                let reason = "the driver stopped by a defect; please report it".to_owned();
                let broken = Cause::BadReply { request: "work".into(), reason, expected: "known" };
                let error = SwitchError::new(&name, broken);
                (name, Err(error))
            });
            results.insert(name, result);
        }
        results
    }
}
