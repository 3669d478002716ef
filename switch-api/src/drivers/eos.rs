//! Arista EOS by eAPI: everything is a CLI command in JSON-RPC, changes are configuration sessions with a commit timer.
//!
//! * What is configured is read from `show running-config`, which eAPI gives as a tree; how it runs from `show interfaces`.
//! * EOS has no object for marking thresholds: a `qos profile` of that name carries them, and ports name it as `service-profile`.
//! * The DSCP map is one for the whole switch and carries no mark: entries are set when wanted and never removed.
//! * The system MAC address of an MLAG domain is chosen by the switches themselves; the intent's is not used.
//! * There is no breakout object: lanes are ports of their own, and the speed of each says how they are split.

mod eapi;
mod read;
mod write;

use super::http::{Http, unique};
use crate::connection::Connection;
use crate::desired::Desired;
use crate::error::{Cause, Result};
use crate::intent::DcbxMode;
use crate::names::DeviceName;
use crate::plan::{self, Plan};
use crate::state::{Key, Kind, Object, Scheduling, SwitchState};
use crate::switch::{ApplyOptions, Capabilities, Counters, Identity, Observed, Pending, Switch, Transaction};
use async_trait::async_trait;
use eapi::Eapi;
use std::collections::BTreeSet;
use std::sync::Arc;

/// `service-profile`, `priority-flow-control pause watchdog port` and sessions with timers are all there from this one on.
const OLDEST: (u32, u32) = (4, 24);

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    let http = Http::new(connection, "Arista EOS", "application/json")?;
    Ok(Arc::new(Eos { eapi: Eapi { http } }))
}

struct Eos {
    eapi: Eapi,
}

impl Eos {
    fn http(&self) -> &Http {
        &self.eapi.http
    }

    async fn state_of_session(&self, session: &str) -> Result<Option<String>> {
        let shown = self.eapi.show(&["show configuration sessions"]).await?;
        Ok(shown[0]["sessions"][session]["state"].as_str().map(str::to_owned))
    }
}

#[async_trait]
impl Switch for Eos {
    fn name(&self) -> &DeviceName {
        &self.http().connection.switch
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { transaction: Transaction::CommitTimer, unsupported: BTreeSet::from([Kind::Breakout]) }
    }

    async fn discover(&self) -> Result<Identity> {
        self.http().forget_connection().await;
        let shown = self.eapi.show(&["show version", "show hostname"]).await?;
        let identity = read::identity(&shown[0], &shown[1])
            .ok_or_else(|| self.http().nonsense("show version", "it names no model and version"))?;
        let mut numbers = identity.os_version.split(['.', '-']).map(|part| {
            part.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or_default()
        });
        if (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < OLDEST {
            let found = format!("EOS {}", identity.os_version);
            let needed = format!("EOS {}.{} or later", OLDEST.0, OLDEST.1);
            return Err(self.http().fail(Cause::VersionMismatch { found, needed }));
        }
        Ok(identity)
    }

    async fn read(&self) -> Result<Observed> {
        let shown =
            self.eapi.show(&["show running-config", "show interfaces", "show lldp neighbors detail"]).await?;
        if !shown[0]["cmds"].is_object() {
            return Err(self.http().nonsense("show running-config", "it has no commands"));
        }
        let mark = &self.http().connection.mark;
        Ok(Observed {
            state: read::configured(&shown[0], &shown[1], mark),
            neighbours: read::neighbours(&shown[2]),
            links: read::links(&shown[1]),
            management: BTreeSet::new(),
        })
    }

    fn plan(&self, actual: &SwitchState, desired: &Desired) -> Plan {
        plan::plan(actual, &fitted(actual, desired), &self.capabilities())
    }

    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending> {
        let shown = self.eapi.show(&["show version", "show running-config", "show interfaces"]).await?;
        let mark = &self.http().connection.mark;
        let before = read::configured(&shown[1], &shown[2], mark);
        let queue = read::queue_keyword(shown[0]["modelName"].as_str().unwrap_or_default());
        let commands =
            write::commands(&before, plan, mark, queue).map_err(|cause| self.http().fail(cause))?;
        let session = unique("basalt-");
        let enter = format!("configure session {session}");
        let staged: Vec<String> = std::iter::once(enter.clone()).chain(commands).collect();
        if let Err(error) = self.eapi.configure(&staged).await {
            // What is left of it vanishes after a day anyway; the error that counts is the first.
            let _ = self.eapi.configure(&[format!("{enter} abort")]).await;
            return Err(error);
        }
        let seconds = options.hold.as_secs_f64().ceil() as u64;
        let commit = match seconds {
            0 => "commit".to_owned(),
            _ => format!("commit timer {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        };
        if let Err(error) = self.eapi.configure_once(&[enter.clone(), commit]).await {
            if !error.cause.is_transient() {
                let _ = self.eapi.configure(&[format!("{enter} abort")]).await;
            }
            return Err(error);
        }
        Ok(Pending { id: session, plan: plan.clone() })
    }

    async fn confirm(&self, pending: &Pending) -> Result<()> {
        match self.state_of_session(&pending.id).await?.as_deref() {
            Some("pendingCommitTimer") => {
                self.eapi.configure_once(&[format!("configure session {} commit", pending.id)]).await?;
            }
            // Confirmed before, and the answer was lost.
            Some("completed") => {}
            state => {
                let state = state.unwrap_or("gone");
                let reason = format!(
                    "session {} is {state}: its commit timer ran out and the switch took the change back",
                    pending.id
                );
                return Err(self.http().fail(Cause::Conflict { reason }));
            }
        }
        self.eapi.configure(&["write memory".to_owned()]).await
    }

    async fn roll_back(&self, pending: &Pending) -> Result<()> {
        match self.state_of_session(&pending.id).await?.as_deref() {
            Some("completed") => {
                let reason = format!("session {} is confirmed and cannot be taken back", pending.id);
                Err(self.http().fail(Cause::Conflict { reason }))
            }
            Some("pendingCommitTimer" | "pending") => {
                self.eapi.configure_once(&[format!("configure session {} abort", pending.id)]).await
            }
            _ => Ok(()),
        }
    }

    async fn counters(&self) -> Result<Counters> {
        let shown = self.eapi.show(&["show interfaces"]).await?;
        let mut counters = read::counters(&shown[0]);
        // Not on every platform: then those counters stay at zero.
        for (command, add) in read::QUEUE_COUNTERS {
            match self.eapi.show(&[command]).await {
                Ok(shown) => {
                    if !add(&shown[0], &mut counters) {
                        tracing::warn!(switch = %self.name(), command, "it answers with no counter that is known here: taken as zero");
                    }
                }
                Err(error) if matches!(error.cause, Cause::Rejected { .. }) => {
                    tracing::debug!(switch = %self.name(), command, "no such counters here");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(counters)
    }
}

/// The wishes as EOS can hold them, so that what it cannot say is not taken for a difference.
fn fitted(actual: &SwitchState, desired: &Desired) -> Desired {
    let mut fitted = desired.clone();
    for (key, object) in desired.state.iter() {
        let absent = !actual.contains(key);
        match object {
            // Strict priority and DCBX off are how every port comes; they leave no trace in the configuration.
            Object::Queue(queue)
                if absent && queue.ecn_profile.is_none() && queue.scheduling == Some(Scheduling::Strict) =>
            {
                fitted.state.remove(key);
            }
            Object::Dcbx(dcbx) if absent && dcbx.mode == DcbxMode::Off => {
                fitted.state.remove(key);
            }
            Object::PfcWatchdog(watchdog) => {
                let hundredths = |ms: u32| ms.div_ceil(10).max(1) * 10;
                let mut watchdog = watchdog.clone();
                watchdog.detection_ms = hundredths(watchdog.detection_ms);
                watchdog.restoration_ms = hundredths(watchdog.restoration_ms);
                fitted.state.insert(watchdog);
            }
            Object::Mclag(domain) => {
                if let Some(Object::Mclag(found)) = actual.get(&Key::new(Kind::Mclag, "domain")) {
                    let system_mac = found.system_mac.clone();
                    let domain = crate::state::Mclag { system_mac, ..domain.clone() };
                    fitted.state.insert_owned(domain, crate::state::Owner::Ours);
                }
            }
            _ => {}
        }
    }
    fitted
}
