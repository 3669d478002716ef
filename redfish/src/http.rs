//! One BMC's web server: one kept-alive HTTP/1.1 connection, one request at a time. BMCs have few workers and little memory; two
//! connections at once make some of them drop both.
//!
//! What comes back is bounded in time and bytes, and whole or an error. What a status means is the caller's business.

use crate::connection::Connection;
use crate::error::{Cause, RedfishError, Result};
use crate::tls::{client_config, handshake_cause};
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
pub(crate) use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Longest quotation of a BMC's own words in an error.
const QUOTE_CHARS: usize = 300;

pub(crate) struct Http {
    pub(crate) connection: Connection,
    pub(crate) endpoint: String,
    tls: Option<TlsConnector>,
    /// The kept-alive connection; the lock is also the queue for it.
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
    requests: AtomicU64,
}

/// How a request proves who sends it.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    None,
    Basic,
    Token(basalt_trust::Secret),
}

#[derive(Clone)]
pub(crate) enum Body {
    None,
    Json(Value),
    Raw {
        content_type: String,
        bytes: Bytes,
    },
    /// JSON with a password in it; wiped when it has been sent.
    Secret(Bytes),
}

impl Body {
    /// Room for any: a vector that grows would leave copies behind.
    const SECRET_BYTES: usize = 16 << 10;

    pub(crate) fn secret(json: &impl serde::Serialize) -> Self {
        let mut text = Zeroizing::new(Vec::with_capacity(Self::SECRET_BYTES));
        // Writing into memory what is made of strings does not fail.
        serde_json::to_writer(&mut *text, json).ok();
        Self::Secret(Bytes::from_owner(text))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Json(json) => write!(f, "{json}"),
            Self::Raw { content_type, bytes } => write!(f, "{} bytes of {content_type}", bytes.len()),
            Self::Secret(_) => f.write_str("***"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: Body,
    pub(crate) if_match: Option<String>,
    pub(crate) accept: &'static str,
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method, path, body: Body::None, if_match: None, accept: "application/json" }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Its name in messages.
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// It changes nothing, so it may be sent again.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// A whole answer, whatever its status.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.header(header::RETRY_AFTER).and_then(|v| v.trim().parse().ok()).map(Duration::from_secs)
    }

    pub(crate) fn text(&self) -> String {
        let begin = self.body.len().min(4 * QUOTE_CHARS);
        String::from_utf8_lossy(&self.body[..begin]).into_owned()
    }
}

/// An exchange that came to no answer.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: RedfishError,
    /// The BMC may have seen the request.
    pub(crate) sent: bool,
    /// The connection was an older one, which the BMC may have closed meanwhile.
    pub(crate) stale: bool,
}

impl Http {
    pub(crate) fn new(connection: Connection) -> Result<Self> {
        let endpoint = connection.endpoint();
        let config = client_config(&connection.trust).map_err(|cause| cause.at(&endpoint))?;
        let tls = config.map(|config| TlsConnector::from(Arc::new(config)));
        Ok(Self { connection, endpoint, tls, kept: Mutex::new(None), requests: AtomicU64::new(0) })
    }

    pub(crate) fn fail(&self, cause: Cause) -> RedfishError {
        cause.at(&self.endpoint)
    }

    pub(crate) fn nonsense(&self, request: &str, reason: impl Into<String>) -> RedfishError {
        let (request, reason) = (request.to_owned(), self.quote(&reason.into()));
        self.fail(Cause::BadReply { request, reason })
    }

    /// A BMC's own words, fit for an error: without our credentials in either spelling, in one line, not too long.
    pub(crate) fn quote(&self, text: &str) -> String {
        let credentials = &self.connection.credentials;
        let mut text = credentials.password.redact(text);
        if !credentials.password.is_empty() {
            text = text.replace(&*self.basic(), "***");
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let quoted: String = line.chars().filter(|c| !c.is_control()).take(QUOTE_CHARS).collect();
        if quoted.is_empty() { "no reason given".to_owned() } else { quoted }
    }

    fn basic(&self) -> Zeroizing<String> {
        let credentials = &self.connection.credentials;
        let pair = Zeroizing::new(format!("{}:{}", credentials.user, credentials.password.expose()));
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))
    }

    /// How many requests were sent.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) async fn disconnect(&self) {
        self.kept.lock().await.take();
    }

    /// One exchange. A request that changes something goes over a fresh connection, so that one which the BMC has closed
    /// meanwhile is not taken for a lost answer.
    pub(crate) async fn exchange(&self, request: &Request, proof: &Proof) -> Result<Reply, Lost> {
        let mut kept = self.kept.lock().await;
        // The time of waiting for others' requests does not count.
        let limit = self.time_limit(request);
        let progress = Progress::default();
        match tokio::time::timeout(limit, self.exchange_within(&mut kept, request, proof, &progress)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Lost { error, sent: progress.sent(), stale: progress.stale() }),
            Err(_) => {
                // A half-read connection is not left behind: it was taken out of `kept`.
                let cause = Cause::TimedOut { request: request.what(), after: limit };
                Err(Lost { error: self.fail(cause), sent: progress.sent(), stale: false })
            }
        }
    }

    /// An image takes its time: a megabyte each second is the least that is expected of a BMC.
    fn time_limit(&self, request: &Request) -> Duration {
        let extra_s = match &request.body {
            Body::Raw { bytes, .. } => bytes.len() as u64 >> 20,
            _ => 0,
        };
        self.connection.limits.request + Duration::from_secs(extra_s)
    }

    async fn exchange_within(
        &self,
        kept: &mut Option<SendRequest<Full<Bytes>>>,
        request: &Request,
        proof: &Proof,
        progress: &Progress,
    ) -> Result<Reply> {
        let mut sender = match kept.take() {
            Some(sender) if sender.is_ready() && request.is_safe() => {
                progress.set(Progress::STALE);
                sender
            }
            // One at a time: the old one goes before a new one comes.
            old => {
                drop(old);
                self.connect().await?
            }
        };
        let built = self.build(request, proof)?;
        progress.set(Progress::SENT);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = sender.send_request(built).await.map_err(|e| self.broken(request, 0, &e))?;
        progress.clear(Progress::STALE);
        let (head, body) = answer.into_parts();
        let body = self.collect(request, &head.headers, body).await?;
        if !sender.is_closed() && sender.ready().await.is_ok() {
            *kept = Some(sender);
        }
        let (status, bytes) = (head.status.as_u16(), body.len());
        tracing::debug!(bmc = %self.endpoint, method = %request.method, path = %request.path, status, bytes, "answered");
        Ok(Reply { status: head.status, headers: head.headers, body })
    }

    fn build(&self, request: &Request, proof: &Proof) -> Result<hyper::Request<Full<Bytes>>> {
        let bad = |what: &str, reason: &str| {
            self.fail(Cause::Settings { what: what.to_owned(), reason: reason.to_owned() })
        };
        let mut builder = hyper::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header(header::HOST, &self.endpoint)
            .header(header::USER_AGENT, concat!("basalt/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, request.accept)
            .header("OData-Version", "4.0");
        let secret = |text: Zeroizing<String>| {
            let bytes = Zeroizing::new(text.as_bytes().to_vec());
            let value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes));
            let mut value = value.map_err(|_| bad("user or password", "cannot be sent"))?;
            value.set_sensitive(true);
            Ok::<_, RedfishError>(value)
        };
        match proof {
            Proof::None => {}
            Proof::Basic => {
                builder = builder.header(
                    header::AUTHORIZATION,
                    secret(Zeroizing::new(format!("Basic {}", &*self.basic())))?,
                );
            }
            Proof::Token(token) => {
                builder = builder.header("X-Auth-Token", secret(Zeroizing::new(token.expose().to_owned()))?);
            }
        }
        if let Some(tag) = &request.if_match {
            builder = builder.header(header::IF_MATCH, tag);
        }
        let body = match &request.body {
            Body::None => Bytes::new(),
            Body::Json(json) => {
                builder = builder.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(json.to_string())
            }
            Body::Secret(bytes) => {
                builder = builder.header(header::CONTENT_TYPE, "application/json");
                bytes.clone()
            }
            Body::Raw { content_type, bytes } => {
                builder = builder.header(header::CONTENT_TYPE, content_type);
                bytes.clone()
            }
        };
        builder.body(Full::new(body)).map_err(|error| bad("request", &error.to_string()))
    }

    /// The body up to the bound; beyond it the connection is given up with its rest unread.
    async fn collect(&self, request: &Request, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes> {
        let limit_bytes = self.connection.limits.body_bytes;
        let too_large = || self.fail(Cause::ReplyTooLarge { request: request.what(), limit_bytes });
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: u64| bytes > limit_bytes) {
            return Err(too_large());
        }
        let mut collected = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(request, collected.len() as u64, &error))?;
            if let Some(data) = frame.data_ref() {
                if collected.len() as u64 + data.len() as u64 > limit_bytes {
                    return Err(too_large());
                }
                collected.extend_from_slice(data);
            }
        }
        Ok(collected.into())
    }

    fn broken(&self, request: &Request, got_bytes: u64, error: &hyper::Error) -> RedfishError {
        if error.is_parse() {
            return self.fail(Cause::NotRedfish { reason: format!("it does not speak HTTP ({error})") });
        }
        self.fail(Cause::PartialReply { request: request.what(), got_bytes })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = self.stream().await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
        let bmc = self.endpoint.clone();
        // Ends with the connection, which ends with its sender.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%bmc, %error, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn stream(&self) -> Result<Box<dyn Stream>> {
        let limit = self.connection.limits.connect;
        let late = |_| self.unreachable(format!("no answer within {:.1} s", limit.as_secs_f32()));
        tokio::time::timeout(limit, self.stream_within()).await.map_err(late)?
    }

    async fn stream_within(&self) -> Result<Box<dyn Stream>> {
        let Connection { address, port, trust, .. } = &self.connection;
        let unreachable = |error: std::io::Error| self.unreachable(error.to_string());
        let tcp = TcpStream::connect((address.as_str(), *port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = trust.server_name(address).map_err(|bad| self.fail(bad.into()))?;
        let stream = tls.connect(name, tcp).await.map_err(|error| self.fail(handshake_cause(&error)))?;
        Ok(Box::new(stream))
    }

    fn unreachable(&self, reason: String) -> RedfishError {
        self.fail(Cause::Unreachable { reason })
    }

    /// A connection of its own for an answer without an end; the caller reads it.
    pub(crate) async fn stream_reply(
        &self,
        request: &Request,
        proof: &Proof,
    ) -> Result<(SendRequest<Full<Bytes>>, hyper::Response<Incoming>)> {
        let limit = self.connection.limits.request;
        let work = async {
            let mut sender = self.connect().await?;
            let built = self.build(request, proof)?;
            let answer = sender.send_request(built).await.map_err(|e| self.broken(request, 0, &e))?;
            Ok((sender, answer))
        };
        let late = |_| self.fail(Cause::TimedOut { request: request.what(), after: limit });
        tokio::time::timeout(limit, work).await.map_err(late)?
    }
}

/// How far an exchange came, seen from outside of it.
#[derive(Default)]
struct Progress(std::sync::atomic::AtomicU8);

impl Progress {
    const SENT: u8 = 1;
    const STALE: u8 = 2;

    fn set(&self, flag: u8) {
        self.0.fetch_or(flag, Ordering::Relaxed);
    }

    fn clear(&self, flag: u8) {
        self.0.fetch_and(!flag, Ordering::Relaxed);
    }

    fn sent(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::SENT != 0
    }

    fn stale(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::STALE != 0
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
