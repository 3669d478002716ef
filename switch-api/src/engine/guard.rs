//! One switch changed without sawing off the branch: nothing is sent that would cut the way to it, and what cut it all the same is
//! taken back.
//!
//! | what happens | what is done |
//! |---|---|
//! | the plan is no longer what was shown | nothing; `Conflict` |
//! | a change touches the interface we came by | nothing; `WouldCutManagement` |
//! | the switch dies while it applies | nothing more; what is in force is looked up, the rest is in the next plan |
//! | somebody asks to stop | before the first change: nothing; after it: takes the change back |
//! | it does not answer afterwards, or lost a neighbour | waits `grace`, then takes the change back: by the switch's own timer where it has one, else by the inverse plan for as long again |

use super::progress::{Step, Stop, Watcher};
use super::{Applied, Options};
use crate::desired::Desired;
use crate::error::{Cause, Result, WayBack};
use crate::names::InterfaceName;
use crate::plan::{Change, Plan};
use crate::state::{Key, Kind, Object};
use crate::switch::{ApplyOptions, Neighbour, Observed, Pending, Switch, Transaction};
use std::collections::BTreeSet;
use tokio::time::{Instant, sleep, timeout};

/// How careful to be, whom to tell, and who may stop it.
pub(super) struct Care {
    pub options: Options,
    pub watcher: Watcher,
    pub stop: Stop,
}

/// Breakouts, then the rest.
const MAX_STAGES: usize = 2;

pub(super) async fn apply(
    switch: &dyn Switch,
    desired: &Desired,
    shown: &Plan,
    care: &Care,
) -> Result<Applied> {
    let name = switch.name();
    let mut before = switch.read().await?;
    let mut plan = switch.plan(&before.state, desired);
    if plan.changes != shown.changes {
        let reason = "it asks for other changes than were shown".to_owned();
        return Err(Cause::Conflict { reason }.at(name));
    }
    let mut changes = 0;
    for _ in 0..MAX_STAGES {
        if let Some(refusal) = plan.refusals.first() {
            return Err(refusal.cause().at(name));
        }
        if plan.changes.is_empty() {
            break;
        }
        if let Some(cause) = would_cut(&plan, &before, desired) {
            return Err(cause.at(name));
        }
        if care.stop.is_requested() {
            let (done, total) = (changes, changes + plan.changes.len());
            let reason = "stopped on request".to_owned();
            let cause = if done == 0 { Cause::NotBegun } else { Cause::Interrupted { done, total, reason } };
            return Err(cause.at(name));
        }
        let stage = plan.first_stage();
        put(switch, desired, &stage, &before, care).await?;
        changes += stage.changes.len();
        before = switch.read().await?;
        plan = switch.plan(&before.state, desired);
    }
    let findings = switch.verify(desired).await?;
    let to_do = switch.to_last().filter(|_| changes > 0);
    Ok(Applied { changes, findings, to_do })
}

/// The first change that may stop traffic on an interface by which we reach the switch, or on the ports of that LAG.
fn would_cut(plan: &Plan, observed: &Observed, desired: &Desired) -> Option<Cause> {
    let mut ways: BTreeSet<&InterfaceName> = observed.management.iter().chain(&desired.management).collect();
    let members = observed.state.iter().filter_map(|(_, object)| match object {
        Object::LagMember(member) if ways.contains(&member.lag) => Some(&member.port),
        _ => None,
    });
    let members: Vec<_> = members.collect();
    ways.extend(members);
    plan.changes.iter().filter(|change| disturbs(change)).find_map(|change| {
        let touched =
            [before(change), Some(change.object())].into_iter().flatten().flat_map(Object::interfaces);
        let interface = touched.into_iter().find(|interface| ways.contains(interface))?;
        Some(Cause::WouldCutManagement { interface: interface.clone(), change: change.to_string() })
    })
}

fn before(change: &Change) -> Option<&Object> {
    match change {
        Change::Create { .. } => None,
        Change::Update { before, .. } | Change::Delete { before } => Some(before),
    }
}

/// A description alone cuts nothing, neither does a VLAN added with a tag, nor how queues take their turns.
fn disturbs(change: &Change) -> bool {
    match change {
        _ if change.object().kind() >= Kind::DscpClass => false,
        Change::Update { fields, .. } => fields.iter().any(|f| f.field != "description"),
        Change::Create { after: Object::VlanMember(member) } => !member.tagged,
        _ => true,
    }
}

async fn put(
    switch: &dyn Switch,
    desired: &Desired,
    stage: &Plan,
    before: &Observed,
    care: &Care,
) -> Result<()> {
    let neighbours = kept_neighbours(stage, before);
    let begin = Instant::now();
    care.watcher.say(switch.name(), Step::Changing { changes: stage.changes.len() });
    let pending = match switch.apply(stage, ApplyOptions { hold: care.options.hold() }).await {
        Ok(pending) => pending,
        Err(error) if error.cause.is_transient() => {
            match look_after_silence(switch, desired, stage, care).await {
                Silence::AllInForce => Pending { id: String::new(), plan: stage.clone() },
                Silence::Part(done) => {
                    let (total, reason) = (stage.changes.len(), error.cause.to_string());
                    return Err(Cause::Interrupted { done, total, reason }.at(switch.name()));
                }
                Silence::Nothing => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    care.watcher.say(switch.name(), Step::Watching);
    match watch(switch, &neighbours, begin, care).await {
        Ok(()) => {
            switch.confirm(&pending).await?;
            care.watcher.say(switch.name(), Step::Confirmed);
            Ok(())
        }
        Err(cause) => {
            care.watcher.say(switch.name(), Step::TakingBack);
            Err(take_back(switch, &pending, begin, cause, &care.options).await.at(switch.name()))
        }
    }
}

/// What the answer that never came would have said.
enum Silence {
    AllInForce,
    Part(usize),
    /// Nothing in force, or the switch does not answer.
    Nothing,
}

async fn look_after_silence(switch: &dyn Switch, desired: &Desired, stage: &Plan, care: &Care) -> Silence {
    // Without the session's name a commit timer cannot be ended: the switch takes the change back by itself.
    if switch.capabilities().transaction == Transaction::CommitTimer {
        return Silence::Nothing;
    }
    let options = &care.options;
    let deadline = Instant::now() + options.grace;
    while Instant::now() < deadline {
        if let Ok(Ok(observed)) = timeout(options.grace, switch.read()).await {
            let left: BTreeSet<Key> =
                switch.plan(&observed.state, desired).changes.iter().map(Change::key).collect();
            let open = stage.changes.iter().filter(|change| left.contains(&change.key())).count();
            return match stage.changes.len() - open {
                0 => Silence::Nothing,
                _ if open == 0 => Silence::AllInForce,
                done => Silence::Part(done),
            };
        }
        sleep(options.look_every).await;
    }
    Silence::Nothing
}

/// The neighbours that must still be heard: all, but those of ports that the plan gives up.
fn kept_neighbours(stage: &Plan, before: &Observed) -> Vec<Neighbour> {
    let given_up: BTreeSet<&InterfaceName> = stage
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Delete { before: Object::Port(port) } => Some(&port.name),
            Change::Update { after: Object::Port(port), .. } if !port.enabled => Some(&port.name),
            // The ports of a breakout go, whatever becomes of them.
            other => match other.object() {
                Object::Breakout(split) => Some(&split.port),
                _ => None,
            },
        })
        .collect();
    before.neighbours.iter().filter(|n| !given_up.contains(&n.port)).cloned().collect()
}

/// Looks until the switch has been well for `settle`; gives up when it is not well `grace` after the change.
async fn watch(
    switch: &dyn Switch,
    neighbours: &[Neighbour],
    begin: Instant,
    care: &Care,
) -> std::result::Result<(), Cause> {
    let options = &care.options;
    let mut well_since: Option<Instant> = None;
    loop {
        if care.stop.is_requested() {
            return Err(Cause::Stopped { back: WayBack::NotDone });
        }
        let look = timeout(options.grace, look(switch, neighbours)).await;
        let now = Instant::now();
        match look.unwrap_or(Err(Cause::LostManagementPath { back: WayBack::NotDone })) {
            Ok(()) => {
                let since = *well_since.get_or_insert(now);
                if now - since >= options.settle {
                    return Ok(());
                }
            }
            Err(cause) => {
                well_since = None;
                if now - begin >= options.grace {
                    return Err(cause);
                }
            }
        }
        // A switch that comes and goes is not well either, and must not use up the commit timer.
        if now - begin >= options.grace + options.settle {
            return Err(Cause::LostManagementPath { back: WayBack::NotDone });
        }
        care.stop.sleep(options.look_every).await;
    }
}

async fn look(switch: &dyn Switch, neighbours: &[Neighbour]) -> std::result::Result<(), Cause> {
    let lost_path = |_| Cause::LostManagementPath { back: WayBack::NotDone };
    switch.discover().await.map_err(lost_path)?;
    let heard = switch.read().await.map_err(lost_path)?.neighbours;
    // The far end is what counts: a port's description may well be what we changed. And where two are heard at one port, one has been
    // unplugged and is not forgotten yet (its time to live, IEEE 802.1AB 9.2.2): that it ends is no loss.
    let same = |a: &Neighbour, b: &Neighbour| (&a.port, &a.device) == (&b.port, &b.device);
    let mut lost: BTreeSet<&InterfaceName> = neighbours.iter().map(|n| &n.port).collect();
    for still in neighbours.iter().filter(|n| heard.iter().any(|h| same(h, n))) {
        lost.remove(&still.port);
    }
    if lost.is_empty() {
        Ok(())
    } else {
        let ports = lost.into_iter().cloned().collect();
        Err(Cause::LostNeighbours { ports, back: WayBack::NotDone })
    }
}

/// The way back, tried until it is done or as long again as the change was watched.
async fn take_back(
    switch: &dyn Switch,
    pending: &Pending,
    begin: Instant,
    mut why: Cause,
    options: &Options,
) -> Cause {
    let own_timer = switch.capabilities().transaction == Transaction::CommitTimer;
    let timer_ends = begin + options.hold();
    let deadline = if own_timer { timer_ends + options.grace } else { Instant::now() + options.grace };
    // Who has a timer goes back without us, even if it is not seen doing so.
    let mut back = if own_timer { WayBack::LeftToSwitch { after: options.hold() } } else { WayBack::NotDone };
    while Instant::now() < deadline {
        let asked = timeout(options.grace, switch.roll_back(pending)).await;
        let done = match asked {
            Ok(Ok(())) => matches!(timeout(options.grace, switch.discover()).await, Ok(Ok(_))),
            _ if own_timer && Instant::now() >= timer_ends => {
                let seen = timeout(options.grace, switch.read()).await;
                matches!(seen, Ok(Ok(observed)) if as_before(&observed, &pending.plan))
            }
            _ => false,
        };
        if done {
            back = WayBack::Done;
            break;
        }
        sleep(options.look_every).await;
    }
    if let Cause::LostManagementPath { back: said }
    | Cause::LostNeighbours { back: said, .. }
    | Cause::Stopped { back: said } = &mut why
    {
        *said = back;
    }
    tracing::warn!(switch = %switch.name(), ?back, cause = %why, "change taken back");
    why
}

/// Nothing of the plan is in force.
fn as_before(observed: &Observed, plan: &Plan) -> bool {
    plan.changes.iter().all(|change| observed.state.get(&change.key()) == before(change))
}
