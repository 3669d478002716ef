//! What is answered to whom. Paths are documented in `docs/operations/boot.md`, section "What a node asks".

use super::files::{Payload, send};
use super::range::{Wanted, wanted};
use crate::clock::now_s;
use crate::decision::{Action, Decision, Decisions};
use crate::error::{BootError, Result};
use crate::event::{Event, Events, Step};
use crate::images::{Images, Version};
use crate::ipxe;
use crate::node::NodeId;
use crate::service::AddressBook;
use crate::token::{Tokens, Use};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const MAX_BODY_BYTES: usize = 4096;
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// A node that got its plan joins within minutes.
const PLAN_TOKEN_S: u64 = 3600;

/// Everything a request may need.
pub struct Desk {
    pub decisions: Arc<dyn Decisions>,
    pub tokens: Arc<dyn Tokens>,
    pub events: Arc<dyn Events>,
    pub images: Images,
    /// For nodes without a decision.
    pub unknown: Action,
    /// Which address belongs to whom.
    pub addresses: AddressBook,
    /// How nodes call this server where a request does not say it.
    pub base: String,
}

/// Who is on the other end.
pub(super) struct Caller {
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    pub(super) moved: Arc<dyn Fn() + Send + Sync>,
}

type Answer = Response<Payload>;

impl Desk {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Caller) -> Answer {
        let head = *request.method() == Method::HEAD;
        let mut answer = match self.route(request, &caller).await {
            Ok(answer) => answer,
            Err(e @ (BootError::Token(_) | BootError::NotFound(_))) => {
                let status = if matches!(e, BootError::Token(_)) {
                    StatusCode::FORBIDDEN
                } else {
                    StatusCode::NOT_FOUND
                };
                text(status, &format!("{e}\n"))
            }
            Err(e) => {
                tracing::warn!("{}: {e}", caller.peer);
                text(StatusCode::SERVICE_UNAVAILABLE, &format!("{e}\n"))
            }
        };
        if head {
            *answer.body_mut() = Payload::Whole(None);
        }
        answer
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>, caller: &Caller) -> Result<Answer> {
        // Some firmware doubles slashes; answering 301 to that breaks UEFI HTTP boot, so they count as one.
        let path: Vec<&str> = request.uri().path().split('/').filter(|p| !p.is_empty()).collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let base = self.base_of(&request, caller);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match path[..] {
            ["autoexec.ipxe"] | ["boot", "v1", "start.ipxe"] if reads => {
                Ok(text(StatusCode::OK, &ipxe::start(&base)))
            }
            ["boot", "v1", "script.ipxe"] if reads => self.script(&query, &base, caller).await,
            ["boot", "v1", "uefi.efi"] if reads => self.uefi(request, caller).await,
            ["boot", "v1", "files", name] if reads => {
                let node = self.node_at(caller, query.node());
                let name = name.to_owned();
                self.file(&name, &request, node, caller).await
            }
            ["boot", "v1", "plan"] if reads => self.plan(&query, &base, caller).await,
            ["boot", "v1", "events"] if *request.method() == Method::POST => {
                self.report(request, caller).await
            }
            ["autoexec.ipxe"] | ["boot", "v1", _] | ["boot", "v1", "files", _] => {
                Ok(text(StatusCode::METHOD_NOT_ALLOWED, "no such method here\n"))
            }
            _ => Err(BootError::NotFound("page".into())),
        }
    }

    /// `http://HOST:PORT` as the node wrote it, so that it can be reached again the same way.
    fn base_of(&self, request: &Request<Incoming>, caller: &Caller) -> String {
        let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
        let plain = |h: &&str| {
            !h.is_empty()
                && h.len() < 256
                && h.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
        };
        let scheme = if caller.secure { "https" } else { "http" };
        host.filter(plain).map_or_else(|| self.base.clone(), |h| format!("{scheme}://{h}"))
    }

    fn node_at(&self, caller: &Caller, said: NodeId) -> NodeId {
        said.with(&self.addresses.node_at(caller.peer.ip()))
    }

    async fn decision(&self, node: &NodeId) -> Result<Decision> {
        let known = if node.is_empty() { None } else { self.decisions.for_node(node).await? };
        Ok(known.unwrap_or_else(|| Decision {
            node: *node,
            action: self.unknown,
            version: None,
            disk: None,
            wipe: false,
            note: String::new(),
            decided_s: 0,
        }))
    }

    async fn record(&self, node: NodeId, step: Step, detail: &str) {
        if let Err(e) = self.events.record(Event::new(now_s(), node, step, detail)).await {
            tracing::warn!("an event is lost: {e}");
        }
    }

    async fn script(&self, query: &Query, base: &str, caller: &Caller) -> Result<Answer> {
        let node = self.node_at(caller, query.node());
        self.addresses.learn(caller.peer.ip(), node);
        let decision = self.decision(&node).await?;
        let bios = query.get("platform") != Some("efi");
        let script = match decision.action {
            Action::Quarantine => {
                self.record(node, Step::Ignored, "iPXE was told to wait: quarantine").await;
                return Ok(text(
                    StatusCode::OK,
                    &ipxe::wait(base, "nothing was decided for this node; `basalt boot decide` does"),
                ));
            }
            Action::Local => ipxe::local(bios),
            Action::Install | Action::Diskless => {
                let found = self.images.choose(decision.version.as_deref());
                let with_cmdline = |v: Version| {
                    let cmdline = if bios { self.images.cmdline(&v)? } else { String::new() };
                    Ok((v, cmdline))
                };
                match found.and_then(with_cmdline) {
                    Ok((version, cmdline)) => ipxe::boot(base, &version, &cmdline, bios),
                    Err(e) => {
                        self.record(node, Step::Failed, &e.to_string()).await;
                        ipxe::wait(base, &e.to_string())
                    }
                }
            }
        };
        self.record(node, Step::Script, decision.action.name()).await;
        Ok(text(StatusCode::OK, &script))
    }

    /// The one address that DHCP gives to all UEFI HTTP clients; who asks is known by the address it got.
    async fn uefi(self: &Arc<Self>, request: Request<Incoming>, caller: &Caller) -> Result<Answer> {
        let node = self.node_at(caller, NodeId::default());
        let decision = self.decision(&node).await?;
        if !decision.action.boots_image() {
            self.record(node, Step::Ignored, &format!("no image over HTTP: {}", decision.action.name()))
                .await;
            return Err(BootError::NotFound(format!(
                "image for this node: {} was decided",
                decision.action.name()
            )));
        }
        let version = match self.images.choose(decision.version.as_deref()) {
            Ok(version) => version,
            Err(e) => {
                self.record(node, Step::Failed, &e.to_string()).await;
                return Err(e);
            }
        };
        self.file(&Images::netboot(&version), &request, node, caller).await
    }

    async fn file(
        self: &Arc<Self>,
        name: &str,
        request: &Request<Incoming>,
        node: NodeId,
        caller: &Caller,
    ) -> Result<Answer> {
        let no_file = || BootError::NotFound("file".into());
        let path = self.images.file(name).ok_or_else(no_file)?;
        let opened = tokio::task::spawn_blocking(move || {
            std::fs::File::open(path).and_then(|f| Ok((f.metadata()?, f)))
        })
        .await;
        let Ok(Ok((meta, file))) = opened else {
            self.record(node, Step::FetchFailed, &format!("{name} is not there")).await;
            return Err(no_file());
        };
        if !meta.is_file() {
            return Err(no_file());
        }
        let len = meta.len();
        let changed =
            meta.modified().ok().and_then(|m| m.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        let tag = format!("\"{len:x}-{changed:x}\"");
        let header_of = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        // RFC 9110, section 13.1.5: a range of another version of the file is worth nothing.
        let same = header_of(header::IF_RANGE).is_none_or(|seen| seen == tag);
        let range = header_of(header::RANGE).filter(|_| same);
        let mut answer =
            Response::builder().header(header::ACCEPT_RANGES, "bytes").header(header::ETAG, &tag).header(
                header::CONTENT_TYPE,
                if name.ends_with(".efi") { "application/efi" } else { "application/octet-stream" },
            );
        let (first, count) = match wanted(range, len) {
            Wanted::All => (0, len),
            Wanted::Part(first, count) => {
                let last = first + count - 1;
                answer = answer
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{len}"));
                (first, count)
            }
            Wanted::None => {
                let answer = answer
                    .status(StatusCode::RANGE_NOT_SATISFIABLE)
                    .header(header::CONTENT_RANGE, format!("bytes */{len}"))
                    .header(header::CONTENT_LENGTH, 0);
                return built(answer.body(Payload::Whole(None)));
            }
        };
        answer = answer.header(header::CONTENT_LENGTH, count);
        if *request.method() == Method::HEAD {
            return built(answer.body(Payload::Whole(None)));
        }
        if first == 0 {
            self.record(node, Step::Fetching, name).await;
        }
        let (desk, name) = (self.clone(), name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        let done = move |whole: bool| {
            let step = match whole {
                true if first + count == len => Step::Fetched,
                // A piece in the middle: more will come.
                true => return,
                false => Step::FetchFailed,
            };
            runtime.spawn(async move { desk.record(node, step, &name).await });
        };
        built(answer.body(send(file, first, count, caller.moved.clone(), done)))
    }

    /// What a booted node is to do. Called by its init with MAC and UUID, and with a token where it has one.
    async fn plan(&self, query: &Query, base: &str, caller: &Caller) -> Result<Answer> {
        let said = query.node();
        if said.is_empty() {
            return Ok(text(StatusCode::BAD_REQUEST, "say who you are: mac=, uuid=\n"));
        }
        let node = said;
        self.addresses.learn(caller.peer.ip(), node);
        let mut decision = self.decision(&node).await?;
        let (now, again) = (now_s(), query.get("again").is_some());
        let token = match query.get("token") {
            Some(token) => {
                self.tokens.redeem(token, Use::Boot, &node, now).await?;
                // Whoever brings a token is expected, decision or not.
                if decision.decided_s == 0 && decision.action == Action::Quarantine {
                    decision.action = Action::Diskless;
                }
                Some(token.to_owned())
            }
            // One that looks again is not a new boot: it has its token.
            None if decision.action.boots_image() && !again => Some(self.fresh_token(&node, now).await?),
            None => None,
        };
        if !again {
            self.record(node, Step::Plan, decision.action.name()).await;
        }
        if decision.action == Action::Quarantine {
            return Ok(text(StatusCode::FORBIDDEN, "quarantine: nothing was decided for this node\n"));
        }
        let version = self.images.choose(decision.version.as_deref()).ok().map(|v| v.to_string());
        let files = version.as_ref().map(|v| {
            let url = |kind: &str| format!("{base}/boot/v1/files/basalt_{v}{kind}");
            json!({ "netboot": url("-netboot.efi"), "uki": url(".efi"), "root": url(".root"), "bundle": url(".bundle"), "disk": url(".disk") })
        });
        let plan = json!({
            "action": decision.action, "version": version, "pinned": decision.version.is_some(), "files": files, "token": token,
            "disk": decision.disk, "wipe": decision.wipe, "decided_s": decision.decided_s,
            "events": format!("{base}/boot/v1/events"), "now_s": now,
        });
        let mut answer = text(StatusCode::OK, &format!("{plan}\n"));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    /// A token for a node that was decided about; one that an earlier boot got and did not join with goes.
    async fn fresh_token(&self, node: &NodeId, now: u64) -> Result<String> {
        for old in self.tokens.all().await? {
            if old.node.is_some_and(|n| n.is(node)) && old.booted_s.is_some() && old.joined_s.is_none() {
                self.tokens.revoke(&old.id).await?;
            }
        }
        let (text, _) = self.tokens.make(Some(*node), now, PLAN_TOKEN_S).await?;
        self.tokens.redeem(&text, Use::Boot, node, now).await?;
        Ok(text)
    }

    async fn report(&self, request: Request<Incoming>, caller: &Caller) -> Result<Answer> {
        let refuse = |why: &str| Ok(text(StatusCode::BAD_REQUEST, &format!("{why}\n")));
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        let Ok(Ok(body)) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
            return refuse("an event has at most 4,096 bytes");
        };
        let Ok(report) = serde_json::from_slice::<Report>(&body.to_bytes()) else {
            return refuse("an event is {\"mac\":…,\"uuid\":…,\"step\":…,\"detail\":…}");
        };
        // The steps that this service sees itself are not a node's to claim.
        let told = [
            Step::Installing,
            Step::Installed,
            Step::Ready,
            Step::Failed,
            Step::FetchFailed,
            Step::Fetching,
            Step::Fetched,
        ];
        if report.node.is_empty() || !told.contains(&report.step) {
            return refuse(
                "say who you are (mac, uuid) and one of installing, installed, ready, failed, fetching, fetched, fetch_failed",
            );
        }
        let node = self.node_at(caller, report.node);
        self.record(node, report.step, &report.detail).await;
        if report.step == Step::Installed {
            // Before the answer: a node reboots when it has it, and must not be told to install again.
            self.decisions.installed(&node, now_s()).await?;
        }
        built(Response::builder().status(StatusCode::NO_CONTENT).body(Payload::Whole(None)))
    }
}

#[derive(Deserialize)]
struct Report {
    #[serde(flatten)]
    node: NodeId,
    step: Step,
    #[serde(default)]
    detail: String,
}

/// Names and values of a query string; `%` escapes are those of iPXE and shells.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Query {
        let pairs = text.split('&').take(16).filter_map(|p| p.split_once('='));
        Query(pairs.map(|(k, v)| (k.to_owned(), unescape(v))).collect())
    }
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    fn node(&self) -> NodeId {
        let parsed = |key| self.get(key).and_then(|v| v.parse::<NodeId>().ok()).unwrap_or_default();
        NodeId { mac: parsed("mac").mac, uuid: parsed("uuid").uuid }
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match escaped.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(Payload::Whole(Some(Bytes::copy_from_slice(body.as_bytes()))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    answer
}

fn built(answer: std::result::Result<Answer, hyper::http::Error>) -> Result<Answer> {
    answer.map_err(|e| BootError::Config(e.to_string()))
}
