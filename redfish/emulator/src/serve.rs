//! Sockets: connections, TLS, faults.

use crate::body::AnswerBody;
use crate::emulator::Shared;
use crate::fault::{Fault, Planned};
use crate::reply::{Content, Reply};
use crate::respond::{self, Asked};
use crate::state::Seen;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Longest body taken: an image of a test.
const BODY_BYTES: usize = 64 << 20;
/// What a planned fault for connections says instead of a request.
const CONNECT: &str = "CONNECT";

pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let gone = shared.state().gone_until.is_some_and(|until| until > Instant::now());
        if gone {
            continue;
        }
        tokio::spawn(connection(stream, shared.clone()));
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    let planned = {
        let mut faults = shared.faults.lock().unwrap_or_else(|p| p.into_inner());
        let at = faults.iter().position(|planned| planned.when == CONNECT);
        at.and_then(|_| Planned::take(&mut faults, CONNECT))
    };
    let mut end = shared.state().end.subscribe();
    match planned {
        Some(Fault::Noise) => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.ok();
            return;
        }
        Some(Fault::Hang) => {
            end.changed().await.ok();
            return;
        }
        Some(_) => return,
        None => {}
    }
    stream.set_nodelay(true).ok();
    let certificate = shared.certificate.lock().unwrap_or_else(|p| p.into_inner()).clone();
    let work = async {
        match certificate {
            None => serve(stream, shared.clone()).await,
            Some(certificate) => {
                if let Ok(stream) = TlsAcceptor::from(certificate.config).accept(stream).await {
                    serve(stream, shared.clone()).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = end.changed() => {}
    }
}

/// Counts a connection for as long as it lives, unless it becomes an event stream.
struct Counted {
    shared: Arc<Shared>,
    streams: AtomicBool,
}

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        let connections = &mut shared.state().connections;
        connections.now += 1;
        connections.most = connections.most.max(connections.now);
        Self { shared: shared.clone(), streams: AtomicBool::new(false) }
    }

    fn becomes_stream(&self) {
        if !self.streams.swap(true, Ordering::Relaxed) {
            self.shared.state().connections.now -= 1;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.becomes_stream();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let counted = Arc::new(Counted::new(shared.clone()));
    let service = service_fn(|request| answer(request, shared.clone(), counted.clone()));
    // Broken connections are what some faults are for.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    counted: Arc<Counted>,
) -> io::Result<Response<AnswerBody>> {
    let (head, body) = request.into_parts();
    let body =
        Limited::new(body, BODY_BYTES).collect().await.map_err(|_| io::ErrorKind::InvalidData)?.to_bytes();
    let asked = Asked::new(&head, body);
    let line = format!("{} {}", asked.method, asked.uri);
    let fault = Planned::take(&mut shared.faults.lock().unwrap_or_else(|p| p.into_inner()), &line);
    let instead = match &fault {
        Some(Fault::Hang) => {
            note(&shared, &asked, 0);
            std::future::pending::<()>().await;
            None
        }
        Some(Fault::Close | Fault::Noise) => {
            note(&shared, &asked, 0);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::Endless) => Some((200, AnswerBody::Endless)),
        Some(Fault::Large(bytes)) => Some((200, whole(vec![b' '; *bytes]))),
        Some(Fault::Status(status, text)) => Some((*status, whole(text.clone()))),
        Some(Fault::Body(text)) => Some((200, whole(text.clone()))),
        _ => None,
    };
    if let Some((status, body)) = instead {
        note(&shared, &asked, status);
        let response = Response::builder().status(status).header("Content-Type", "application/json");
        return response.body(body).map_err(io::Error::other);
    }
    let (mut reply, events) = {
        let mut state = shared.state();
        let reply = respond::answer(&mut state, &asked);
        let events = matches!(reply.content, Content::Events).then(|| state.open_stream());
        (reply, events)
    };
    note(&shared, &asked, reply.status);
    let mut cut = None;
    match fault {
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::LoseAnswer) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Fault::WrongTag) => {
            reply.headers.retain(|(name, _)| *name != "ETag");
            reply.headers.push(("ETag", "\"of something else\"".to_owned()));
            if let Content::Json(json) = &mut reply.content {
                json["@odata.etag"] = "\"of something else\"".into();
            }
        }
        Some(Fault::Truncate(bytes)) => cut = Some(bytes),
        _ => {}
    }
    if events.is_some() {
        counted.becomes_stream();
    }
    response(reply, events, cut, asked.method == "HEAD")
}

fn whole(bytes: impl Into<Bytes>) -> AnswerBody {
    AnswerBody::Whole(Some(bytes.into()))
}

fn note(shared: &Shared, asked: &Asked, status: u16) {
    let seen = Seen {
        method: asked.method.clone(),
        path: asked.uri.clone(),
        body: asked.json().unwrap_or_default(),
        if_match: asked.if_match.clone(),
        status,
    };
    shared.state().note(seen);
}

fn response(
    reply: Reply,
    events: Option<tokio::sync::mpsc::Receiver<Bytes>>,
    cut: Option<usize>,
    head_only: bool,
) -> io::Result<Response<AnswerBody>> {
    let mut builder = Response::builder()
        .status(reply.status)
        .header("OData-Version", "4.0")
        .header("Cache-Control", "no-cache");
    for (name, value) in &reply.headers {
        builder = builder.header(*name, value);
    }
    let (kind, bytes) = match reply.content {
        Content::None => (None, Bytes::new()),
        Content::Json(json) => {
            (Some("application/json;odata.metadata=minimal;charset=utf-8"), json.to_string().into())
        }
        Content::Xml(text) => (Some("application/xml"), text.into()),
        Content::Events => (Some("text/event-stream"), Bytes::new()),
    };
    if let Some(kind) = kind {
        builder = builder.header("Content-Type", kind);
    }
    let body = match (events, cut) {
        (Some(events), _) => AnswerBody::Events(events),
        (None, Some(cut)) => {
            let announced = bytes.len() as u64;
            AnswerBody::Cut { bytes: Some(bytes.slice(..cut.min(bytes.len()))), announced }
        }
        (None, None) if head_only => AnswerBody::Whole(None),
        (None, None) => AnswerBody::Whole(Some(bytes)),
    };
    builder.body(body).map_err(io::Error::other)
}
