//! JSON-RPC 1.0 as OVSDB speaks it (RFC 7047, section 4): messages follow one another on the stream without any framing.

use crate::connection::Connection;
use crate::error::{Cause, Result};
use crate::tls::{self, Trust};
use serde_json::{Map, Value, json};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

pub(super) const DATABASE: &str = "Open_vSwitch";

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection. Requests go one after another; what the server says unasked is answered (`echo`) or passed over.
pub(super) struct Session<'a> {
    connection: &'a Connection,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    edge: Edge,
    next_id: u64,
}

impl<'a> Session<'a> {
    pub(super) async fn connect(connection: &'a Connection) -> Result<Self> {
        let unreachable = |reason: String| {
            Cause::Unreachable { endpoint: connection.endpoint(), reason }.at(&connection.switch)
        };
        let opened = tokio::time::timeout(connection.limits.connect, open(connection)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(cause)) => return Err(cause.at(&connection.switch)),
            Err(_) => {
                let seconds = connection.limits.connect.as_secs();
                return Err(unreachable(format!("no connection within {seconds} s")));
            }
        };
        Ok(Self { connection, stream, received: Vec::new(), edge: Edge::default(), next_id: 1 })
    }

    fn fail(&self, cause: Cause) -> crate::SwitchError {
        cause.at(&self.connection.switch)
    }

    pub(super) async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"method": method, "params": params, "id": id}), method).await;
        loop {
            let mut message = self.receive(method).await?;
            if message.get("method").and_then(Value::as_str) == Some("echo") {
                let reply =
                    json!({"id": message.remove("id"), "result": message.remove("params"), "error": null});
                self.send(&reply, "echo").await;
                continue;
            }
            if message.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            return match message.remove("error") {
                None | Some(Value::Null) => Ok(message.remove("result").unwrap_or(Value::Null)),
                Some(error) => Err(self.fail(refusal(self.connection, method, &error))),
            };
        }
    }

    /// All of `operations`, or none. One result per operation.
    pub(super) async fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>> {
        let named: Vec<String> = operations.iter().map(name_of).collect();
        let mut params = vec![json!(DATABASE)];
        params.extend(operations);
        let Value::Array(results) = self.call("transact", Value::Array(params)).await? else {
            return Err(self.nonsense("transact", "no list of results"));
        };
        // RFC 7047, 4.1.3: results end with the operation that failed; one more than operations: the commit itself failed.
        for (i, result) in results.iter().enumerate() {
            if result.get("error").is_some_and(|e| !e.is_null()) {
                let operation = named.get(i).map_or("commit", String::as_str);
                return Err(self.fail(refusal(self.connection, operation, result)));
            }
        }
        if results.len() < named.len() {
            return Err(self.nonsense("transact", "fewer results than operations"));
        }
        Ok(results)
    }

    fn nonsense(&self, request: &str, reason: &str) -> crate::SwitchError {
        self.fail(nonsense(request, reason))
    }

    async fn send(&mut self, message: &Value, request: &str) {
        let bytes = message.to_string().into_bytes();
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        // A server that goes away says why in what it sent before, and reading tells that, or that there is nothing.
        if let Err(error) = sent.await {
            tracing::debug!(%error, request, "sending");
        }
    }

    async fn receive(&mut self, request: &str) -> Result<Map<String, Value>> {
        let limit_bytes = self.connection.limits.body_bytes;
        loop {
            if let Some(end) = self.edge.find(&self.received) {
                let message: std::result::Result<Map<String, Value>, _> =
                    serde_json::from_slice(&self.received[..end]);
                self.received.drain(..end);
                self.edge = Edge::default();
                return message.map_err(|e| self.nonsense(request, &e.to_string()));
            }
            if self.edge.broken {
                return Err(self.nonsense(request, "it does not begin with a JSON object"));
            }
            if self.received.len() as u64 > limit_bytes {
                return Err(self.fail(Cause::ReplyTooLarge { request: request.to_owned(), limit_bytes }));
            }
            let read = self.stream.read_buf(&mut self.received).await;
            if let Err(error) = &read
                && let Some(cause) = tls::failure(&self.connection.endpoint(), error)
            {
                return Err(self.fail(cause));
            }
            if !read.is_ok_and(|count| count > 0) {
                let got_bytes = self.received.len() as u64;
                return Err(self.fail(Cause::PartialReply { request: request.to_owned(), got_bytes }));
            }
        }
    }
}

pub(super) fn nonsense(request: &str, reason: &str) -> Cause {
    Cause::BadReply { request: request.to_owned(), reason: reason.to_owned(), expected: "Open vSwitch" }
}

/// Where a message ends: its braces, outside of strings, are balanced. Looks at every byte once, however they arrive.
#[derive(Default)]
struct Edge {
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    broken: bool,
}

impl Edge {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth += 1,
                b'}' if self.depth == 1 => return Some(self.seen),
                b'}' if self.depth > 0 => self.depth -= 1,
                _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
                _ => self.broken = true,
            }
            if self.broken || self.depth == 0 && self.in_string {
                self.broken = true;
                return None;
            }
        }
        None
    }
}

async fn open(connection: &Connection) -> std::result::Result<Box<dyn Stream>, Cause> {
    let endpoint = connection.endpoint();
    let unreachable = |e: io::Error| Cause::Unreachable { endpoint: endpoint.clone(), reason: e.to_string() };
    if let Some(path) = connection.address.strip_prefix("unix:") {
        return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
    }
    let stream =
        TcpStream::connect((connection.address.as_str(), connection.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let Some(config) = connection.client_config()? else { return Ok(Box::new(stream)) };
    debug_assert!(connection.trust != Trust::Plaintext);
    let name = connection.trust.server_name(&connection.address)?;
    let connector = TlsConnector::from(Arc::new(config));
    let opened = connector.connect(name, stream).await;
    opened.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|e| {
        tls::failure(&endpoint, &e)
            .unwrap_or(Cause::Tls { endpoint: endpoint.clone(), reason: e.to_string() })
    })
}

/// `update Port`, for messages.
fn name_of(operation: &Value) -> String {
    let word = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}", word("op"), word("table")).trim_end().to_owned()
}

/// RFC 7047, 3.1 and 5.2: `error` is one of a few words, `details` is for people.
fn refusal(connection: &Connection, operation: &str, error: &Value) -> Cause {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let word = error.get("error").map_or_else(|| text(error), text);
    let details = error.get("details").map(text).unwrap_or_default();
    let reason = if details.is_empty() { word.clone() } else { format!("{word}: {details}") };
    match word.as_str() {
        // Only `wait` may time out, and ours say that a row is as it was read.
        "timed out" => {
            let reason = format!("{} is no longer as it was read", operation.trim_start_matches("wait "));
            Cause::Conflict { reason }
        }
        "permission error" | "not allowed" => {
            Cause::Forbidden { user: connection.user.clone(), request: operation.to_owned() }
        }
        "unknown database" => {
            let needed = format!("a database {DATABASE}");
            Cause::VersionMismatch { found: "an OVSDB server without it".to_owned(), needed }
        }
        "not leader" | "not owner" => Cause::Locked { held_by: "another server of the cluster".to_owned() },
        _ => Cause::Rejected { path: operation.to_owned(), reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_end_where_their_braces_do() {
        let two = br#" {"a":"}\"{","b":{"c":1}}{"d":2}"#;
        let mut edge = Edge::default();
        let end = edge.find(two).unwrap();
        assert_eq!(&two[..end], br#" {"a":"}\"{","b":{"c":1}}"#);
        let mut edge = Edge::default();
        assert_eq!(edge.find(b"SSH-2.0-OpenSSH"), None);
        assert!(edge.broken);
        let mut edge = Edge::default();
        assert_eq!(edge.find(b"\"text\""), None);
        assert!(edge.broken);
    }

    proptest! {
        #[test]
        fn the_edge_is_found_however_the_bytes_come(text in ".{0,40}", cut in 1_usize..8) {
            let message = json!({"text": text, "more": [{"and": text}]}).to_string();
            let both = format!("{message}{{}}");
            let mut edge = Edge::default();
            let found = (0..=both.len()).step_by(cut).chain([both.len()]).find_map(|n| edge.find(&both.as_bytes()[..n]));
            prop_assert_eq!(found, Some(message.len()));
        }
    }
}
