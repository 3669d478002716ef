//! NVIDIA Cumulus Linux by NVUE: one tree, changed in revisions (POST, PATCH with `null` for what goes, apply, poll), each applied
//! with a time to confirm it in.
//!
//! * VLANs have no names here, so none is ours: they are made when wanted and stay when no longer used.
//! * The peer link of a pair is called `peerlink` whatever its number; the domain has no number.
//! * The times of the PFC watchdog are the whole switch's: polls of equal length, three to detect and to restore.
//! * Marking thresholds, lossless priorities and queue shares are profiles, which carry our mark in their names.

mod read;
mod write;

use super::http::{Http, Method, Reply, Request, StatusCode, entries};
use crate::connection::Connection;
use crate::desired::Desired;
use crate::error::{Cause, Result};
use crate::intent::{DcbxMode, WatchdogAction};
use crate::names::{DeviceName, InterfaceName};
use crate::plan::{self, Plan};
use crate::state::{Kind, Object, Owner, SwitchState};
use crate::switch::{ApplyOptions, Capabilities, Counters, Identity, Observed, Pending, Switch, Transaction};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Descriptions of interfaces and all QoS profiles are there from this one on.
const OLDEST: (u32, u32) = (5, 9);
/// The name that Cumulus gives the link between a pair.
const PEER_LINK: &str = "peerlink";
/// The bridge that everything is in.
const BRIDGE: &str = "br_default";
/// An apply reloads services; several times one request is usual on a loaded switch.
const APPLY_REQUESTS: u32 = 6;
const POLL_EVERY: Duration = Duration::from_millis(200);

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    Ok(Arc::new(Nvue { http: Http::new(connection, "Cumulus Linux", "application/json")? }))
}

struct Nvue {
    http: Http,
}

impl Nvue {
    async fn get(&self, path: &str) -> Result<Value> {
        let reply = self.http.send(Request::get(format!("/nvue_v1/{path}"))).await?;
        self.accepted(&reply)?;
        self.http.parse(&reply)
    }

    async fn patch(&self, path: &str, body: Value) -> Result<Value> {
        let request = Request::new(Method::PATCH, format!("/nvue_v1/{path}")).body(body).once();
        let reply = self.http.send(request).await?;
        self.accepted(&reply)?;
        self.http.parse(&reply)
    }

    /// Errors are `{"status": 400, "title": "Bad Request", "type": "about:blank", "detail": "..."}`.
    fn accepted(&self, reply: &Reply) -> Result<()> {
        if reply.status.is_success() {
            return Ok(());
        }
        let body = self.http.parse(reply).unwrap_or_default();
        let detail =
            body["detail"].as_str().or(body["title"].as_str()).map_or_else(|| reply.text(), str::to_owned);
        let (path, reason) = (reply.what.clone(), self.http.quote(&detail));
        Err(self.http.fail(match reply.status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Cause::Rejected { path, reason },
            StatusCode::CONFLICT => Cause::Conflict { reason },
            status => return Err(self.http.nonsense(&reply.what, format!("status {status}: {reason}"))),
        }))
    }

    async fn configuration(&self) -> Result<(Value, Value)> {
        let applied = self.get("?rev=applied").await?;
        let interfaces = self.get("interface?rev=operational").await?;
        if !applied.is_object() || !interfaces.is_object() {
            return Err(self.http.nonsense("GET /nvue_v1/?rev=applied", "no object"));
        }
        Ok((applied, interfaces))
    }

    async fn state_of(&self, revision: &str) -> Result<(String, Value)> {
        let shown = self.get(&format!("revision/{revision}")).await?;
        let state = shown["state"].as_str().map(str::to_owned);
        let state = state.ok_or_else(|| self.http.nonsense("GET revision", "it has no state"))?;
        Ok((state, shown))
    }

    /// Waits until `revision` is in one of `states`.
    async fn wait(&self, revision: &str, states: &[&str]) -> Result<()> {
        let deadline = Instant::now() + self.http.connection.limits.request * APPLY_REQUESTS;
        loop {
            let (state, shown) = self.state_of(revision).await?;
            if states.contains(&state.as_str()) {
                return Ok(());
            }
            // What a revision cannot leave by itself: `ays_fail`, `verify_fail`, `reload_error`, `invalid`, `ays`, ...
            let stuck = ["fail", "error", "invalid", "timeout", "ays", "inactive"];
            if stuck.iter().any(|word| state.contains(word)) {
                let reason = self.http.quote(&issues(&shown, &state));
                return Err(self.http.fail(Cause::Rejected { path: format!("revision {revision}"), reason }));
            }
            if Instant::now() >= deadline {
                let request = format!("apply of revision {revision} ({state})");
                let after = self.http.connection.limits.request * APPLY_REQUESTS;
                return Err(self.http.fail(Cause::TimedOut { request, after }));
            }
            sleep(POLL_EVERY).await;
        }
    }
}

/// `transition.issue` has messages by number.
fn issues(shown: &Value, state: &str) -> String {
    let transition = &shown["transition"];
    let messages: Vec<&str> = entries(&transition["issue"])
        .filter_map(|(_, issue)| issue["message"].as_str().or(issue.as_str()))
        .collect();
    let progress = transition["progress"].as_str().unwrap_or_default();
    format!("{state}: {}", if messages.is_empty() { progress.to_owned() } else { messages.join("; ") })
}

#[async_trait]
impl Switch for Nvue {
    fn name(&self) -> &DeviceName {
        &self.http.connection.switch
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { transaction: Transaction::CommitTimer, unsupported: BTreeSet::new() }
    }

    async fn discover(&self) -> Result<Identity> {
        self.http.forget_connection().await;
        let system = self.get("system?rev=operational").await?;
        let platform = self.get("platform?rev=operational").await?;
        let identity = read::identity(&system, &platform)
            .ok_or_else(|| self.http.nonsense("GET /nvue_v1/system", "it names no build"))?;
        let mut numbers = identity.os_version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
        if (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < OLDEST {
            let found = format!("Cumulus Linux {}", identity.os_version);
            let needed = format!("Cumulus Linux {}.{} or later", OLDEST.0, OLDEST.1);
            return Err(self.http.fail(Cause::VersionMismatch { found, needed }));
        }
        Ok(identity)
    }

    async fn read(&self) -> Result<Observed> {
        let (applied, interfaces) = self.configuration().await?;
        Ok(Observed {
            state: read::configured(&applied, &interfaces, &self.http.connection.mark),
            neighbours: read::neighbours(&interfaces),
            links: read::links(&interfaces),
            management: BTreeSet::new(),
        })
    }

    fn plan(&self, actual: &SwitchState, desired: &Desired) -> Plan {
        plan::plan(actual, &fitted(actual, desired), &self.capabilities())
    }

    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending> {
        let (applied, interfaces) = self.configuration().await?;
        let mark = &self.http.connection.mark;
        let before = read::configured(&applied, &interfaces, mark);
        let tree = write::tree(&before, plan, mark, &applied).map_err(|cause| self.http.fail(cause))?;
        let made = self.http.send(Request::new(Method::POST, "/nvue_v1/revision").once()).await?;
        self.accepted(&made)?;
        let made = self.http.parse(&made)?;
        let revision = entries(&made).next().map(|(id, _)| id.replace('/', "%2F"));
        let revision =
            revision.ok_or_else(|| self.http.nonsense("POST /nvue_v1/revision", "it names none"))?;
        self.patch(&format!("?rev={revision}"), tree).await?;
        let mut order = json!({"state": "apply", "auto-prompt": {"ays": "ays_yes"}});
        let seconds = options.hold.as_secs_f64().ceil() as u64;
        if seconds > 0 {
            order["state-controls"] = json!({"confirm": seconds});
        }
        self.patch(&format!("revision/{revision}"), order).await?;
        let end = if seconds > 0 { "confirm" } else { "applied" };
        self.wait(&revision, &[end]).await?;
        Ok(Pending { id: revision, plan: plan.clone() })
    }

    async fn confirm(&self, pending: &Pending) -> Result<()> {
        let (state, _) = self.state_of(&pending.id).await?;
        match state.as_str() {
            "confirm" => {
                self.patch(&format!("revision/{}", pending.id), json!({"state": "confirm_yes"})).await?;
                self.wait(&pending.id, &["applied", "applied_and_saved"]).await?;
            }
            // Confirmed before, and the answer was lost.
            "applied" | "applied_and_saved" => {}
            state => {
                let reason = format!(
                    "revision {} is {state}: its time to confirm ran out and the switch took the change back",
                    pending.id
                );
                return Err(self.http.fail(Cause::Conflict { reason }));
            }
        }
        let save = json!({"state": "save", "auto-prompt": {"ays": "ays_yes"}});
        self.patch("revision/applied", save).await.map(drop)
    }

    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        let (state, _) = self.state_of(&pending.id).await?;
        match state.as_str() {
            "confirm" => self
                .patch(&format!("revision/{}", pending.id), json!({"state": "confirm_no"}))
                .await
                .map(drop),
            "applied" | "applied_and_saved" => {
                let reason = format!("revision {} is confirmed and cannot be taken back", pending.id);
                Err(self.http.fail(Cause::Conflict { reason }))
            }
            _ => Ok(()),
        }
    }

    async fn counters(&self) -> Result<Counters> {
        let counters = read::counters(&self.get("interface?rev=operational").await?);
        if counters.ports.values().all(|port| port.queues.is_empty()) {
            tracing::warn!(switch = %self.name(), "it answers with no counter of a queue that is known here: taken as zero");
        }
        Ok(counters)
    }
}

/// The wishes as NVUE can hold them, so that what it cannot say is not taken for a difference.
fn fitted(actual: &SwitchState, desired: &Desired) -> Desired {
    let peer_lag = desired.state.iter().find_map(|(_, object)| match object {
        Object::Mclag(domain) => Some(domain.peer_lag.clone()),
        _ => None,
    });
    let renamed = |name: &InterfaceName| match Some(name) == peer_lag.as_ref() {
        true => InterfaceName::from(PEER_LINK),
        false => name.clone(),
    };
    let mut fitted = Desired { state: SwitchState::default(), ..desired.clone() };
    for (key, object) in desired.state.iter() {
        let found = actual.get(key);
        let mut object = object.clone();
        match &mut object {
            Object::Dcbx(dcbx) if found.is_none() && dcbx.mode == DcbxMode::Off => continue,
            Object::Vlan(vlan) => vlan.name = String::new(),
            Object::Lag(lag) => {
                lag.name = renamed(&lag.name);
                lag.min_links = None;
            }
            Object::LagMember(member) => member.lag = renamed(&member.lag),
            Object::VlanMember(member) => member.interface = renamed(&member.interface),
            Object::Address(address) => address.interface = renamed(&address.interface),
            Object::Mclag(domain) => {
                domain.peer_lag = renamed(&domain.peer_lag);
                domain.domain_id = 0;
            }
            Object::PfcWatchdog(watchdog) => {
                let ms = watchdog.detection_ms.div_ceil(3).clamp(100, 5000) * 3;
                (watchdog.detection_ms, watchdog.restoration_ms) = (ms, ms);
                watchdog.action = WatchdogAction::Drop;
            }
            Object::Breakout(split) => {
                let same = |o: &&Object| matches!(o, Object::Breakout(found) if found.lanes == split.lanes);
                if let Some(Object::Breakout(found)) = found.filter(same) {
                    split.speed_gbps = found.speed_gbps;
                }
            }
            _ => {}
        }
        let own = object.interface().is_none() && !matches!(key.kind, Kind::Port | Kind::Lag);
        match own {
            true => fitted.state.insert_owned(object, Owner::Ours),
            false => fitted.state.insert(object),
        }
    }
    fitted
}
