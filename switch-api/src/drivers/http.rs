//! HTTP/1.1 as switches speak it: one kept-alive connection, one request at a time, every answer bounded in time and size, and
//! one meaning for the statuses that say the same everywhere (401, 403, 429, 503).
//!
//! There is one connection to a switch on purpose: their web servers have few workers (EOS: 1 by default, NVUE: a handful), and an
//! order of requests that the driver chose must stay that order.

use crate::connection::Connection;
use crate::error::{Cause, Result, SwitchError};
use crate::retry::RetryPolicy;
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    RETRY_AFTER, USER_AGENT,
};
pub(super) use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Longest quotation of a switch's own words in an error.
const QUOTE_CHARS: usize = 300;

/// One switch's web server.
pub(super) struct Http {
    pub(super) connection: Connection,
    /// What the messages call the kind of switch.
    expected: &'static str,
    tls: Option<TlsConnector>,
    media_type: &'static str,
    /// The kept-alive connection; the lock is also the queue for it.
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// Whether a request may be sent again when its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// By the connection's retry policy.
    Policy,
    /// Never, and over a fresh connection, so that a stale one is not taken for a lost answer.
    Never,
}

/// A request; `what` is its name in messages.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) if_match: Option<String>,
    pub(super) repeat: Repeat,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        let what = format!("{method} {path}");
        Self { what, method, path, body: None, if_match: None, repeat: Repeat::Policy }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) fn named(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self }
    }

    pub(super) fn once(self) -> Self {
        Self { repeat: Repeat::Never, ..self }
    }
}

/// A whole answer, whatever its status.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) what: String,
    pub(super) status: StatusCode,
    pub(super) etag: Option<String>,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new(
        connection: Connection,
        expected: &'static str,
        media_type: &'static str,
    ) -> Result<Self> {
        let config = connection.client_config().map_err(|cause| cause.at(&connection.switch))?;
        let tls = config.map(|mut config| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Ok(Self { connection, expected, tls, media_type, kept: Mutex::new(None) })
    }

    pub(super) fn fail(&self, cause: Cause) -> SwitchError {
        cause.at(&self.connection.switch)
    }

    pub(super) fn nonsense(&self, what: &str, reason: impl Into<String>) -> SwitchError {
        let (request, reason) = (what.to_owned(), self.quote(&reason.into()));
        self.fail(Cause::BadReply { request, reason, expected: self.expected })
    }

    /// A switch's own words, fit for an error: without our credentials in either spelling, in one line, not too long.
    pub(super) fn quote(&self, text: &str) -> String {
        let connection = &self.connection;
        let text = connection.secret.redact(text);
        let text = if connection.secret.is_empty() { text } else { text.replace(&*self.basic(), "***") };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let quoted: String = line.chars().filter(|c| !c.is_control()).take(QUOTE_CHARS).collect();
        if quoted.is_empty() { "no reason given".to_owned() } else { quoted }
    }

    fn basic(&self) -> Zeroizing<String> {
        let Connection { user, secret, .. } = &self.connection;
        let pair = Zeroizing::new(format!("{user}:{}", secret.expose()));
        Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))
    }

    /// The next request opens a connection: what is asked then proves that the way to the switch stands.
    pub(super) async fn forget_connection(&self) {
        self.kept.lock().await.take();
    }

    /// Sends `request`; an answer is any status but those that mean the same everywhere.
    pub(super) async fn send(&self, request: Request) -> Result<Reply> {
        let policy = match request.repeat {
            Repeat::Policy => self.connection.retry,
            Repeat::Never => {
                self.forget_connection().await;
                RetryPolicy::ONCE
            }
        };
        policy.run(|| self.connection.timed(&request.what, self.try_once(&request))).await
    }

    pub(super) fn parse(&self, reply: &Reply) -> Result<Value> {
        serde_json::from_slice(&reply.body)
            .map_err(|error| self.nonsense(&reply.what, format!("{error} in \"{}\"", reply.text())))
    }

    async fn try_once(&self, request: &Request) -> Result<Reply> {
        let mut kept = self.kept.lock().await;
        // A request that is dropped in the middle (time-out) leaves no half-read connection behind.
        let mut sender = match kept.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let answer =
            sender.send_request(self.build(request)?).await.map_err(|e| self.broken(request, 0, &e))?;
        let (head, body) = answer.into_parts();
        let body = self.collect(request, &head.headers, body).await?;
        if !sender.is_closed() {
            *kept = Some(sender);
        }
        tracing::debug!(switch = %self.connection.switch, request = %request.what, status = head.status.as_u16(), bytes = body.len(), "answered");
        self.common(request, head.status, &head.headers)?;
        let etag = head.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok(Reply { what: request.what.clone(), status: head.status, etag, body })
    }

    /// Statuses that mean the same everywhere.
    fn common(&self, request: &Request, status: StatusCode, headers: &HeaderMap) -> Result<()> {
        let user = self.connection.user.clone();
        let cause = match status {
            StatusCode::UNAUTHORIZED => Cause::Unauthorised { user },
            StatusCode::FORBIDDEN => Cause::Forbidden { user, request: request.what.clone() },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let seconds =
                    headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
                Cause::RateLimited { retry_after: seconds.map(Duration::from_secs), attempts: 1 }
            }
            _ if status.is_redirection() => {
                return Err(self.nonsense(&request.what, format!("status {status}, a redirection")));
            }
            _ => return Ok(()),
        };
        Err(self.fail(cause))
    }

    fn build(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>> {
        let bad = |what: &str, reason: String| self.fail(Cause::Settings { what: what.to_owned(), reason });
        let mut authorization = HeaderValue::try_from(format!("Basic {}", &*self.basic()))
            .map_err(|_| bad("management.user", "cannot be sent".into()))?;
        authorization.set_sensitive(true);
        let host = match self.connection.address.starts_with("unix:") {
            true => "localhost".to_owned(),
            false => self.connection.endpoint(),
        };
        let mut builder = hyper::Request::builder()
            .method(request.method.clone())
            .uri(&request.path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("basalt/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, self.media_type)
            .header(AUTHORIZATION, authorization);
        if request.body.is_some() {
            builder = builder.header(CONTENT_TYPE, self.media_type);
        }
        if let Some(tag) = &request.if_match {
            builder = builder.header(IF_MATCH as HeaderName, tag);
        }
        let body = request.body.as_ref().map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        builder.body(Full::new(body)).map_err(|error| bad("management.address", error.to_string()))
    }

    /// The body up to the bound; beyond it the connection is given up with its rest unread.
    async fn collect(&self, request: &Request, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes> {
        let limit_bytes = self.connection.limits.body_bytes;
        let too_large = || self.fail(Cause::ReplyTooLarge { request: request.what.clone(), limit_bytes });
        let announced =
            headers.get(hyper::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
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

    fn broken(&self, request: &Request, got_bytes: u64, error: &hyper::Error) -> SwitchError {
        if error.is_parse() {
            return self.nonsense(&request.what, format!("no HTTP: {error}"));
        }
        self.fail(Cause::PartialReply { request: request.what.clone(), got_bytes })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let limit = self.connection.limits.connect;
        let late = |_| self.unreachable(format!("no answer within {} s", limit.as_secs_f32()));
        let stream = tokio::time::timeout(limit, self.stream()).await.map_err(late)??;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error.to_string()))?;
        let switch = self.connection.switch.clone();
        // Ends with the connection, which ends with its sender.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%switch, %error, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn stream(&self) -> Result<Box<dyn Stream>> {
        let Connection { address, port, trust, .. } = &self.connection;
        let unreachable = |error: std::io::Error| self.unreachable(error.to_string());
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
        }
        let tcp = TcpStream::connect((address.as_str(), *port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = trust.server_name(address).map_err(|bad| self.fail(bad.into()))?;
        let stream = tls.connect(name, tcp).await.map_err(|error| {
            let by_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            let (endpoint, reason) = (self.connection.endpoint(), self.quote(&error.to_string()));
            self.fail(match by_tls {
                true => Cause::Tls { endpoint, reason },
                false => {
                    Cause::Unreachable { endpoint, reason: format!("during the TLS handshake: {reason}") }
                }
            })
        })?;
        Ok(Box::new(stream))
    }

    fn unreachable(&self, reason: String) -> SwitchError {
        self.fail(Cause::Unreachable { endpoint: self.connection.endpoint(), reason })
    }
}

impl Reply {
    pub(super) fn text(&self) -> String {
        let begin = self.body.len().min(4 * QUOTE_CHARS);
        String::from_utf8_lossy(&self.body[..begin]).into_owned()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Values of JSON as a switch may send them: a number where text is meant, and the other way round.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The entries of an object; none where it is anything else.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// A name that no earlier session or revision of ours has.
pub(super) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}-{:x}-{count:x}", since.as_millis(), std::process::id())
}
