//! Dell Enterprise SONiC by RESTCONF (RFC 8040): no transactions, one request after the other. ETags keep others' changes from being
//! overwritten between our reading and writing; what broke off says how far it came, and the next plan finishes it.
//!
//! * `openconfig-*-ext` and `openconfig-mclag` are the vendor's own models (Broadcom's management framework); there are no public ones.
//! * The name of a VLAN is the description of its interface.
//! * Turns of queues are scheduler policies, whose names carry our mark.
//! * Breakouts (by front-panel component) and DCBX are not done here: plans say so.

mod read;
mod write;

use super::http::{Http, Method, Reply, Request, StatusCode};
use crate::connection::Connection;
use crate::desired::Desired;
use crate::error::{Cause, Result, SwitchError};
use crate::names::DeviceName;
use crate::plan::{self, Plan};
use crate::state::{Key, Kind, Object, SwitchState};
use crate::switch::{ApplyOptions, Capabilities, Counters, Identity, Observed, Pending, Switch, Transaction};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use write::Step;

/// The first with the WRED, PFC watchdog and DSCP map models used here.
const OLDEST: (u32, u32) = (4, 0);

/// The resources that everything lies under.
const INTERFACES: &str = "openconfig-interfaces:interfaces";
const QOS: &str = "openconfig-qos:qos";
const MCLAG: &str = "openconfig-mclag:mclag";

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    let http = Http::new(connection, "Dell Enterprise SONiC", "application/yang-data+json")?;
    Ok(Arc::new(DellSonic { http }))
}

struct DellSonic {
    http: Http,
}

/// What was read, with the tags under which it was so.
struct Trees {
    all: BTreeMap<&'static str, Value>,
    tags: BTreeMap<&'static str, String>,
}

impl DellSonic {
    /// The data at `path`; nothing where there is none.
    async fn get(&self, path: &str) -> Result<(Value, Option<String>)> {
        let reply = self.http.send(Request::get(format!("/restconf/data/{path}"))).await?;
        if reply.status == StatusCode::NOT_FOUND || reply.status == StatusCode::NO_CONTENT {
            // RFC 8040 says 404 for data that is not there as well as for what is no RESTCONF at all.
            let restconf =
                reply.status == StatusCode::NO_CONTENT || reply.text().contains("ietf-restconf:errors");
            return if restconf { Ok((Value::Null, reply.etag)) } else { Err(self.refused(&reply)) };
        }
        if !reply.status.is_success() {
            return Err(self.refused(&reply));
        }
        let body = self.http.parse(&reply)?;
        let inner =
            body.as_object().filter(|map| map.len() == 1).and_then(|map| map.values().next().cloned());
        let inner = inner.ok_or_else(|| self.http.nonsense(&reply.what, "not one data node"))?;
        Ok((inner, reply.etag))
    }

    async fn trees(&self) -> Result<Trees> {
        let mut trees = Trees { all: BTreeMap::new(), tags: BTreeMap::new() };
        for path in [INTERFACES, QOS, MCLAG] {
            let (tree, tag) = self.get(path).await?;
            trees.all.insert(path, tree);
            trees.tags.extend(tag.map(|tag| (path, tag)));
        }
        Ok(trees)
    }

    /// `ietf-restconf:errors` in words.
    fn refused(&self, reply: &Reply) -> SwitchError {
        let body = self.http.parse(reply).unwrap_or_default();
        let error = &body["ietf-restconf:errors"]["error"][0];
        let tag = error["error-tag"].as_str().unwrap_or_default();
        let message = error["error-message"].as_str().map_or_else(|| reply.text(), str::to_owned);
        let reason = self.http.quote(&format!("{message} {}", if tag.is_empty() { "" } else { tag }));
        let path = reply.what.clone();
        self.http.fail(match (reply.status, tag) {
            (_, "access-denied") => {
                Cause::Forbidden { user: self.http.connection.user.clone(), request: path }
            }
            (_, "lock-denied" | "in-use") => Cause::Locked { held_by: format!("another client ({reason})") },
            (StatusCode::PRECONDITION_FAILED, _) => Cause::Conflict { reason },
            (status, tag) if !tag.is_empty() || status == StatusCode::BAD_REQUEST => {
                Cause::Rejected { path, reason }
            }
            (status, _) => return self.http.nonsense(&reply.what, format!("status {status}: {reason}")),
        })
    }

    async fn step(&self, step: &Step, tags: &mut BTreeMap<&'static str, String>) -> Result<()> {
        let mut request = Request::new(step.method.clone(), format!("/restconf/data/{}", step.path)).once();
        request.body = step.body.clone();
        request.if_match = tags.get(step.root).cloned();
        let reply = self.http.send(request).await?;
        // What is to go and is not there has gone.
        let gone = step.method == Method::DELETE
            && reply.status == StatusCode::NOT_FOUND
            && reply.text().contains("ietf-restconf:errors");
        if !reply.status.is_success() && !gone {
            return Err(self.refused(&reply));
        }
        match reply.etag {
            Some(tag) => tags.insert(step.root, tag),
            // Ours has changed it; without the new tag there is nothing to compare with.
            None if !gone => tags.remove(step.root),
            None => None,
        };
        Ok(())
    }
}

#[async_trait]
impl Switch for DellSonic {
    fn name(&self) -> &DeviceName {
        &self.http.connection.switch
    }

    fn capabilities(&self) -> Capabilities {
        let unsupported = BTreeSet::from([Kind::Breakout, Kind::Dcbx]);
        Capabilities { transaction: Transaction::None, unsupported }
    }

    async fn discover(&self) -> Result<Identity> {
        self.http.forget_connection().await;
        let (eeprom, _) = self.get("openconfig-platform:components/component=System%20Eeprom").await?;
        let (software, _) = self.get("openconfig-platform:components/component=SoftwareModule").await?;
        let (system, _) = self.get("openconfig-system:system/state").await?;
        let identity = read::identity(&eeprom, &software, &system).ok_or_else(|| {
            self.http.nonsense("GET openconfig-platform:components", "it names no software")
        })?;
        let numbers = identity.os_version.trim_start_matches(|c: char| !c.is_ascii_digit());
        let mut numbers = numbers.split(['.', '-', '_']).map(|part| part.parse::<u32>().unwrap_or_default());
        if (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < OLDEST {
            let found = format!("Enterprise SONiC {}", identity.os_version);
            let needed = format!("Enterprise SONiC {}.{} or later", OLDEST.0, OLDEST.1);
            return Err(self.http.fail(Cause::VersionMismatch { found, needed }));
        }
        Ok(identity)
    }

    async fn read(&self) -> Result<Observed> {
        let trees = self.trees().await?;
        let (lldp, _) = self.get("openconfig-lldp:lldp/interfaces").await?;
        Ok(Observed {
            state: read::configured(&trees.all, &self.http.connection.mark),
            neighbours: read::neighbours(&lldp),
            links: read::links(&trees.all[INTERFACES]),
            management: BTreeSet::new(),
        })
    }

    fn plan(&self, actual: &SwitchState, desired: &Desired) -> Plan {
        plan::plan(actual, &fitted(actual, desired), &self.capabilities())
    }

    async fn apply(&self, plan: &Plan, _: ApplyOptions) -> Result<Pending> {
        let Trees { all, mut tags } = self.trees().await?;
        let mark = &self.http.connection.mark;
        let before = read::configured(&all, mark);
        let fail = |cause| self.http.fail(cause);
        // All is worked out before the first request, so that what cannot be said is found while nothing is done.
        let steps = write::steps(&before, plan, mark).map_err(fail)?;
        let total = steps.len();
        for (done, change) in steps.iter().enumerate() {
            for (i, step) in change.iter().enumerate() {
                match self.step(step, &mut tags).await {
                    Ok(()) => {}
                    Err(error) if done == 0 && i == 0 => return Err(error),
                    Err(error) => {
                        let reason = error.cause.to_string();
                        return Err(self.http.fail(Cause::Interrupted { done, total, reason }));
                    }
                }
            }
        }
        Ok(Pending { id: String::new(), plan: plan.clone() })
    }

    async fn confirm(&self, _: &Pending) -> Result<()> {
        let copy = json!({"sonic-config-mgmt:input": {
            "source": "running-configuration", "destination": "startup-configuration"
        }});
        let request = Request::new(Method::POST, "/restconf/operations/sonic-config-mgmt:copy").body(copy);
        let reply = self.http.send(request).await?;
        if reply.status.is_success() { Ok(()) } else { Err(self.refused(&reply)) }
    }

    async fn counters(&self) -> Result<Counters> {
        let (interfaces, _) = self.get(INTERFACES).await?;
        let (qos, _) = self.get(QOS).await?;
        Ok(read::counters(&interfaces, &qos))
    }
}

/// The wishes as this system can hold them.
fn fitted(actual: &SwitchState, desired: &Desired) -> Desired {
    let mut fitted = desired.clone();
    for (_, object) in desired.state.iter() {
        if let Object::Mclag(domain) = object
            && let Some(Object::Mclag(found)) = actual.get(&Key::new(Kind::Mclag, "domain"))
        {
            // The VLAN of the peers' own protocol and its prefix are an interface of its own here.
            let (peer_vlan, prefix_length) = (found.peer_vlan, found.prefix_length);
            let domain = crate::state::Mclag { peer_vlan, prefix_length, ..domain.clone() };
            fitted.state.insert_owned(domain, crate::state::Owner::Ours);
        }
    }
    fitted
}
