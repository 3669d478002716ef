//! Events: server-sent ones (DSP0266 "Server-sent events"), and subscriptions for BMCs that post them.

use super::Client;
use crate::error::{Cause, Result};
use crate::http::{Request, StatusCode};
use crate::json::View;
use crate::model::{ResourcePath, ServiceEvent, Subscription};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Longest event, in bytes.
const EVENT_BYTES: usize = 1 << 20;
/// Most records of one event.
const RECORDS: usize = 1024;

/// Events as they come. It holds a connection of its own; dropping it closes that.
pub struct EventStream {
    bmc: String,
    body: Incoming,
    lines: Lines,
    ready: VecDeque<ServiceEvent>,
    /// Ends the connection when dropped.
    _sender: SendRequest<Full<Bytes>>,
}

impl EventStream {
    /// The next record; None when the BMC has ended the stream. Waits for as long as nothing happens.
    pub async fn next(&mut self) -> Result<Option<ServiceEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(frame) = frame else { return Ok(None) };
            let Some(data) = frame.data_ref() else { continue };
            let fail = |cause: Cause| cause.at(&self.bmc);
            let too_long =
                Cause::ReplyTooLarge { request: "event".to_owned(), limit_bytes: EVENT_BYTES as u64 };
            let texts = self.lines.feed(data).map_err(|()| fail(too_long))?;
            for text in texts {
                // What is no event is passed over: a stream is not given up for one record.
                let Ok(json) = serde_json::from_str::<Value>(&text) else { continue };
                let view = View(&json);
                let records = view.parts("Events").into_iter().chain(view.parts("Members"));
                self.ready.extend(records.take(RECORDS));
            }
        }
    }
}

/// The `data` of events, out of a stream of bytes (WHATWG HTML 9.2.6).
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    data: String,
    after_return: bool,
}

impl Lines {
    /// Error: an event is longer than the bound.
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, ()> {
        let mut events = Vec::new();
        for byte in bytes {
            let ends = match byte {
                b'\n' if std::mem::take(&mut self.after_return) => continue,
                b'\n' => true,
                b'\r' => {
                    self.after_return = true;
                    true
                }
                _ => {
                    self.after_return = false;
                    false
                }
            };
            if !ends {
                self.line.push(*byte);
            } else if self.line.is_empty() {
                if !self.data.is_empty() {
                    events.push(std::mem::take(&mut self.data));
                }
            } else {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.strip_prefix("data:") {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
                }
            }
            if self.line.len() + self.data.len() > EVENT_BYTES {
                return Err(());
            }
        }
        Ok(events)
    }
}

impl Client {
    async fn event_service(&self) -> Result<Value> {
        let path = self.root().await?.service.event_service.clone();
        let path = self.need(path, "an event service")?;
        self.get(&path).await
    }

    pub(super) async fn event_stream(&self) -> Result<EventStream> {
        let json = self.event_service().await?;
        let path = self.need(View(&json).link("ServerSentEventUri"), "server-sent events")?;
        let mut request = Request::get(path.as_str());
        request.accept = "text/event-stream";
        let mut proof = self.proof().await?;
        let (mut sender, mut answer) = self.http().stream_reply(&request, &proof).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.forget(&proof).await {
            proof = self.proof().await?;
            (sender, answer) = self.http().stream_reply(&request, &proof).await?;
        }
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            let cause = match status {
                StatusCode::UNAUTHORIZED => {
                    Cause::Unauthorised { user: self.http().connection.credentials.user.clone() }
                }
                _ => Cause::BadReply { request: request.what(), reason: format!("status {status}") },
            };
            return Err(self.fail(cause));
        }
        Ok(EventStream {
            bmc: self.http().endpoint.clone(),
            body: answer.into_body(),
            lines: Lines::default(),
            ready: VecDeque::new(),
            _sender: sender,
        })
    }

    async fn subscriptions_path(&self) -> Result<ResourcePath> {
        let json = self.event_service().await?;
        self.need(View(&json).link("Subscriptions"), "event subscriptions")
    }

    pub(super) async fn all_subscriptions(&self) -> Result<Vec<Subscription>> {
        let path = self.subscriptions_path().await?;
        self.collection(Some(&path)).await
    }

    pub(super) async fn new_subscription(&self, destination: &str, context: &str) -> Result<ResourcePath> {
        let path = self.subscriptions_path().await?;
        let mut body = json!({
            "Destination": destination,
            "Context": context,
            "Protocol": "Redfish",
            "EventFormatType": "Event",
            "SubscriptionType": "RedfishEvent",
        });
        let reply = match self.post(&path, body.clone()).await {
            // Services from before 2019 know neither format nor kind, and want event types.
            Err(error) if matches!(error.cause, Cause::Rejected { status: 400, .. }) => {
                let object = body.as_object_mut().into_iter();
                object.for_each(|o| o.retain(|k, _| k != "EventFormatType" && k != "SubscriptionType"));
                body["EventTypes"] = json!(["Alert"]);
                self.post(&path, body).await?
            }
            other => other?,
        };
        let located = reply.header(hyper::header::LOCATION).and_then(ResourcePath::new);
        let own = || {
            let json: Value = serde_json::from_slice(&reply.body).ok()?;
            Some(View(&json).path()).filter(|path| !path.is_empty())
        };
        located
            .or_else(own)
            .ok_or_else(|| self.http().nonsense("POST subscription", "it does not say where it is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_are_cut_at_blank_lines() {
        let mut lines = Lines::default();
        let text = b": hello\r\n\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:x\n\ndata: unfinished";
        assert_eq!(lines.feed(text), Ok(vec!["{\"a\":\n1}".to_owned(), "x".to_owned()]));
        assert_eq!(lines.feed(b"\n\n"), Ok(vec!["unfinished".to_owned()]));
        assert_eq!(lines.feed(&vec![b'a'; EVENT_BYTES + 1]), Err(()));
    }

    proptest! {
        #[test]
        fn how_bytes_arrive_makes_no_difference(text in "(data:|[a-z ]|\r\n|\n|\r){0,80}", cut in 0usize..80) {
            let whole = Lines::default().feed(text.as_bytes()).unwrap();
            let cut = cut.min(text.len());
            let mut lines = Lines::default();
            let mut parts = lines.feed(&text.as_bytes()[..cut]).unwrap();
            parts.extend(lines.feed(&text.as_bytes()[cut..]).unwrap());
            prop_assert_eq!(whole, parts);
        }
    }
}
