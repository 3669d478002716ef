//! Requests with what surrounds them: sessions, repetition where it is safe, redirections, ETags.

use super::Client;
use crate::error::{Cause, RedfishError, Result};
use crate::http::{Body, Lost, Method, Proof, Reply, Request, StatusCode};
use crate::json::{Read, View};
use crate::model::ResourcePath;
use crate::quirks::Quirk;
use serde_json::Value;
use std::time::Duration;

/// Redirections followed for one GET.
const REDIRECTIONS: usize = 3;

/// A resource with its tag.
pub(super) struct Tagged {
    pub(super) path: ResourcePath,
    pub(super) json: Value,
    pub(super) etag: Option<String>,
}

impl Tagged {
    pub(super) fn view(&self) -> View<'_> {
        View(&self.json)
    }
}

impl Client {
    /// Sends `request` as ourselves.
    pub(super) async fn send(&self, request: &Request) -> Result<Reply> {
        let proof = Box::pin(self.proof()).await?;
        match self.send_with(request, &proof).await {
            // A session that the BMC forgot: nothing was done, so even a change may be sent again.
            Err(error) if matches!(error.cause, Cause::Unauthorised { .. }) && self.forget(&proof).await => {
                let proof = Box::pin(self.proof()).await?;
                self.send_with(request, &proof).await
            }
            other => other,
        }
    }

    pub(super) async fn send_with(&self, request: &Request, proof: &Proof) -> Result<Reply> {
        let mut request = request.clone();
        let mut redirections = 0;
        let limits = self.http().connection.limits;
        let mut pause = limits.first_pause;
        let mut attempt = 1;
        // A stale connection costs no attempt, once.
        let mut stale_allowed = true;
        loop {
            let error = match self.http().exchange(&request, proof).await {
                Ok(reply)
                    if request.is_safe() && is_redirection(reply.status) && redirections < REDIRECTIONS =>
                {
                    let target = reply.header(hyper::header::LOCATION).and_then(ResourcePath::new);
                    let bad = || self.http().nonsense(&request.what(), "a redirection to nowhere");
                    request.path = target.ok_or_else(bad)?.as_str().to_owned();
                    redirections += 1;
                    continue;
                }
                Ok(reply) => match self.judge(&request, reply) {
                    Ok(reply) => return Ok(reply),
                    Err(error) => error,
                },
                Err(lost) if lost.stale && request.is_safe() && stale_allowed => {
                    stale_allowed = false;
                    continue;
                }
                Err(lost) => self.lost(&request, lost),
            };
            // Busy says that nothing was done; the other transient causes are left only where nothing was sent.
            if !error.cause.is_transient() || attempt >= limits.attempts {
                return Err(counted(error, attempt));
            }
            let wait = match &error.cause {
                Cause::Busy { retry_after: Some(asked), .. } => *asked,
                _ => pause,
            };
            tracing::debug!(bmc = %self.http().endpoint, attempt, cause = %error.cause, "trying again");
            tokio::time::sleep(wait.min(limits.longest_pause)).await;
            pause = (pause * 2).min(limits.longest_pause);
            attempt += 1;
        }
    }

    /// A change whose answer was lost may have been done.
    fn lost(&self, request: &Request, lost: Lost) -> RedfishError {
        if request.is_safe() || !lost.sent {
            return lost.error;
        }
        let reason = match lost.error.cause {
            Cause::TimedOut { after, .. } => format!("no answer within {:.1} s", after.as_secs_f32()),
            Cause::PartialReply { got_bytes, .. } => format!("the connection broke after {got_bytes} bytes"),
            other => return self.fail(other),
        };
        self.fail(Cause::Unknown { request: request.what(), reason })
    }

    /// Without credentials.
    pub(super) async fn get_open(&self, path: &ResourcePath) -> Result<Value> {
        let request = Request::get(path.as_str());
        let reply = self.send_with(&request, &Proof::None).await?;
        self.parse(&request, &reply)
    }

    /// A resource; for a path with a JSON pointer, what it points to.
    pub(super) async fn get(&self, path: &ResourcePath) -> Result<Value> {
        self.tagged(path).await.map(|tagged| tagged.json)
    }

    pub(super) async fn tagged(&self, path: &ResourcePath) -> Result<Tagged> {
        let (document, pointer) = path.split_pointer();
        let request = Request::get(document);
        let reply = self.send(&request).await?;
        let mut json = self.parse(&request, &reply)?;
        let etag = Self::etag(&reply, &json);
        if let Some(pointer) = pointer {
            json = json
                .pointer_mut(pointer)
                .map(Value::take)
                .ok_or_else(|| self.fail(Cause::NotFound { path: path.as_str().to_owned() }))?;
        }
        // What it is called by decides, whatever it says of itself.
        if let Some(object) = json.as_object_mut() {
            object.insert("@odata.id".to_owned(), Value::String(path.as_str().to_owned()));
        }
        Ok(Tagged { path: path.clone(), json, etag })
    }

    pub(super) async fn read<T: Read>(&self, path: &ResourcePath) -> Result<T> {
        self.get(path).await.map(|json| T::read(View(&json)))
    }

    /// The link that a resource must have for something to be possible.
    pub(super) fn need<T>(&self, link: Option<T>, what: &str) -> Result<T> {
        link.ok_or_else(|| self.fail(Cause::Unsupported { what: what.to_owned() }))
    }

    /// An action or a new member.
    pub(super) async fn post(&self, path: &ResourcePath, body: Value) -> Result<Reply> {
        self.post_body(path, Body::Json(body)).await
    }

    pub(super) async fn post_body(&self, path: &ResourcePath, body: Body) -> Result<Reply> {
        self.prove_identity().await?;
        let mut request = Request::new(Method::POST, path.as_str());
        request.body = body;
        self.send(&request).await
    }

    pub(super) async fn delete(&self, path: &ResourcePath) -> Result<Reply> {
        self.prove_identity().await?;
        self.send(&Request::new(Method::DELETE, path.as_str())).await
    }

    /// Changes what was read as `tagged`: refused if somebody else changed it meanwhile, where the service has tags.
    pub(super) async fn patch(&self, tagged: &Tagged, body: Value) -> Result<Reply> {
        self.patch_at(&tagged.path, tagged.etag.clone(), Body::Json(body)).await
    }

    pub(super) async fn patch_at(
        &self,
        path: &ResourcePath,
        etag: Option<String>,
        body: Body,
    ) -> Result<Reply> {
        self.prove_identity().await?;
        let mut request = Request::new(Method::PATCH, path.as_str());
        request.body = body;
        request.if_match = etag.map(strong);
        if request.if_match.is_none() && self.has(Quirk::IfMatchRequired).await? {
            request.if_match = Some(self.tag_of(path).await?.unwrap_or_else(|| "*".to_owned()));
        }
        let body = request.body.clone();
        let error = match self.send(&request).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        // Both say that nothing was done.
        match &error.cause {
            Cause::Rejected { status: 428, .. } if request.if_match.is_none() => {
                request.if_match = match self.has(Quirk::IfMatchStarRefused).await? {
                    true => self.tag_of(path).await?,
                    false => Some("*".to_owned()),
                };
                self.send(&request).await
            }
            Cause::Conflict { .. } if self.has(Quirk::EtagGoesStale).await? => {
                request.if_match = self.tag_of(path).await?;
                match self.send(&request).await {
                    // The tag in the body is what works then.
                    Err(again) if matches!(again.cause, Cause::Conflict { .. }) => {
                        let tag = request.if_match.take();
                        if let (Body::Json(mut json), Some(tag)) = (body, tag) {
                            json["@odata.etag"] = Value::String(tag);
                            request.body = Body::Json(json);
                        }
                        self.send(&request).await
                    }
                    other => other,
                }
            }
            _ => Err(error),
        }
    }

    async fn tag_of(&self, path: &ResourcePath) -> Result<Option<String>> {
        self.tagged(path).await.map(|tagged| tagged.etag.map(strong))
    }

    /// Before the first change: is this the server that is meant?
    pub(super) async fn prove_identity(&self) -> Result<()> {
        let Some(expected) = &self.http().connection.expected_serial else { return Ok(()) };
        self.0
            .proven
            .get_or_try_init(|| async {
                let systems: Vec<crate::model::System> = self.all_systems().await?;
                let mut found = Vec::new();
                for system in systems {
                    // Dell's service tag, which operators know as the serial number, is the SKU.
                    let names = [system.serial_number, system.sku];
                    if names.iter().flatten().any(|name| name.eq_ignore_ascii_case(expected)) {
                        return Ok(());
                    }
                    found.extend(names.into_iter().flatten().next());
                }
                let found =
                    if found.is_empty() { "none".to_owned() } else { self.http().quote(&found.join(", ")) };
                Err(self.fail(Cause::WrongServer { expected: expected.clone(), found }))
            })
            .await
            .copied()
    }
}

/// If-Match compares strongly (RFC 9110 section 13.1.1), so a weak tag would never fit; services that give weak ones mean this.
fn strong(tag: String) -> String {
    tag.strip_prefix("W/").map(str::to_owned).unwrap_or(tag)
}

fn counted(mut error: RedfishError, tried: u32) -> RedfishError {
    if let Cause::Busy { attempts, .. } = &mut error.cause {
        *attempts = tried;
    }
    error
}

/// Redirection statuses that a GET follows, on the same host.
fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Short pauses between requests that wait for something, doubled up to a bound.
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}
