//! A switch's web server for tests: real HTTP/1.1, with or without TLS, HTTP basic authentication, and faults on demand. What it
//! serves is a [`Site`], which keeps a state of its own.
#![allow(dead_code, unreachable_pub)]

use basalt_switch_api::connection::{Connection, Limits};
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::retry::RetryPolicy;
use basalt_switch_api::state::Mark;
use basalt_switch_api::tls::Trust;
use basalt_switch_api::{Secret, Switch};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub const USER: &str = "basalt";
pub const PASSWORD: &str = "corr3ct-horse";

pub struct Seen {
    pub method: String,
    /// With the query.
    pub path: String,
    pub if_match: Option<String>,
    pub content_type: String,
    pub body: Value,
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string() }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }
}

pub trait Site: Send + 'static {
    fn answer(&mut self, request: &Seen) -> Answer;
}

/// What goes wrong with the next request that `when` fits (all do where it is empty).
#[derive(Clone, Debug)]
pub enum Fault {
    /// Not handled; this status and these headers instead.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Not handled, no answer.
    Silence,
    /// Handled, and the answer breaks off after so many bytes.
    CutAfter(usize),
    /// Handled, and the connection closes before the answer.
    LoseAnswer,
    /// This many bytes of blanks.
    Flood(usize),
    /// No HTTP at all.
    Noise,
}

pub struct Web<S> {
    pub port: u16,
    pub site: Arc<Mutex<S>>,
    pub faults: Arc<Mutex<VecDeque<(String, Fault)>>>,
    /// `METHOD path` of what was handled, with the body.
    pub seen: Arc<Mutex<Vec<(String, Value)>>>,
    pub connections: Arc<Mutex<usize>>,
}

pub enum Tls {
    Off,
    On(Arc<ServerConfig>),
}

impl<S: Site> Web<S> {
    pub async fn start(site: S) -> Self {
        Self::start_tls(site, Tls::Off).await
    }

    pub async fn start_tls(site: S, tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self {
            port: listener.local_addr().unwrap().port(),
            site: Arc::new(Mutex::new(site)),
            faults: Arc::default(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (site, faults, seen) = (web.site.clone(), web.faults.clone(), web.seen.clone());
        let connections = web.connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                let (site, faults, seen) = (site.clone(), faults.clone(), seen.clone());
                match &tls {
                    Tls::Off => drop(tokio::spawn(serve(stream, site, faults, seen))),
                    Tls::On(config) => {
                        let acceptor = TlsAcceptor::from(config.clone());
                        tokio::spawn(async move {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, site, faults, seen).await;
                            }
                        });
                    }
                }
            }
        });
        web
    }

    pub fn fault(&self, when: &str, fault: Fault) {
        self.faults.lock().unwrap().push_back((when.to_owned(), fault));
    }

    pub fn site(&self) -> std::sync::MutexGuard<'_, S> {
        self.site.lock().unwrap()
    }

    pub fn connection(&self, kind: DriverKind, trust: Trust) -> Connection {
        Connection {
            switch: "leaf-1".into(),
            kind,
            address: "127.0.0.1".into(),
            port: self.port,
            user: USER.into(),
            secret: Secret::new(PASSWORD),
            trust,
            identity: None,
            limits: Limits {
                connect: Duration::from_secs(2),
                request: Duration::from_millis(1500),
                body_bytes: 1 << 20,
            },
            retry: RetryPolicy {
                attempts: 3,
                first_pause: Duration::from_millis(5),
                longest_pause: Duration::from_millis(20),
            },
            mark: Mark::new("rack-a"),
        }
    }

    /// With a switch of this kind at its other end.
    pub async fn with(site: S, kind: DriverKind) -> (Self, Arc<dyn Switch>) {
        let web = Self::start(site).await;
        let switch = web.switch(kind);
        (web, switch)
    }

    pub fn switch(&self, kind: DriverKind) -> Arc<dyn Switch> {
        basalt_switch_api::drivers::connect(self.connection(kind, Trust::Plaintext)).unwrap()
    }
}

type Seens = Arc<Mutex<Vec<(String, Value)>>>;

async fn serve<S: Site>(
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    site: Arc<Mutex<S>>,
    faults: Arc<Mutex<VecDeque<(String, Fault)>>>,
    seen: Seens,
) {
    let noise = matches!(faults.lock().unwrap().front(), Some((_, Fault::Noise)));
    if noise {
        faults.lock().unwrap().pop_front();
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\nthis is not the service you look for\r\n").await;
        let _ = stream.shutdown().await;
        return;
    }
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (site, faults, seen) = (site.clone(), faults.clone(), seen.clone());
        async move { handle(request, site, faults, seen).await }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn handle<S: Site>(
    request: Request<Incoming>,
    site: Arc<Mutex<S>>,
    faults: Arc<Mutex<VecDeque<(String, Fault)>>>,
    seen: Seens,
) -> Result<Response<Reply>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let path = head.uri.to_string();
    let line = format!("{} {path}", head.method);
    assert!(header("host").is_some(), "HTTP/1.1 needs Host");
    let text = String::from_utf8_lossy(&body).into_owned();
    let fault = {
        let mut faults = faults.lock().unwrap();
        let at =
            faults.iter().position(|(when, _)| line.contains(when.as_str()) || text.contains(when.as_str()));
        at.and_then(|at| faults.remove(at)).map(|(_, fault)| fault)
    };
    let mut cut = None;
    match fault {
        Some(Fault::Status(status, headers, body)) => {
            return Ok(reply(Answer { status, headers, body }, None));
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Flood(bytes)) => {
            return Ok(reply(Answer { status: 200, headers: Vec::new(), body: " ".repeat(bytes) }, None));
        }
        Some(Fault::CutAfter(bytes)) => cut = Some(bytes),
        Some(Fault::LoseAnswer) => cut = Some(usize::MAX),
        _ => {}
    }
    if header("authorization") != Some(format!("Basic {}", basic())) {
        let headers = vec![("www-authenticate", "Basic realm=\"switch\"".to_owned())];
        let body =
            "{\"message\": \"Unable to authenticate user: Bad username/password combination\"}".to_owned();
        return Ok(reply(Answer { status: 401, headers, body }, None));
    }
    let json =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or(Value::Null) };
    let request = Seen {
        method: head.method.to_string(),
        path,
        if_match: header("if-match"),
        content_type: header("content-type").unwrap_or_default(),
        body: json.clone(),
    };
    let answer = site.lock().unwrap_or_else(|e| e.into_inner()).answer(&request);
    seen.lock().unwrap().push((line, json));
    match cut {
        Some(usize::MAX) => Err(std::io::Error::other("lost")),
        cut => Ok(reply(answer, cut)),
    }
}

fn basic() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

fn reply(answer: Answer, cut: Option<usize>) -> Response<Reply> {
    let mut response = Response::builder().status(answer.status).header("content-type", "application/json");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let mut data = answer.body.into_bytes();
    let broken = cut.is_some();
    if let Some(bytes) = cut {
        response = response.header("content-length", data.len() + 1);
        data.truncate(bytes);
    }
    response.body(Reply { data: Some(data.into()), broken }).unwrap()
}

/// A body that may break off.
pub struct Reply {
    data: Option<Bytes>,
    broken: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let end = std::mem::take(&mut self.broken).then(|| Err(std::io::Error::other("cut")));
        Poll::Ready(end)
    }
}

/// A CA with one server certificate for 127.0.0.1.
pub struct Certificates {
    pub ca_pem: String,
    pub server: Arc<ServerConfig>,
    /// SHA-256 of the server's certificate.
    pub pin: [u8; 32],
}

impl Certificates {
    pub fn new() -> Self {
        Self::valid_until(2100)
    }

    pub fn valid_until(year: i32) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "leaf-1.example".into()]).unwrap();
        leaf.not_before = date_time_ymd(2000, 1, 1);
        leaf.not_after = date_time_ymd(year, 1, 1);
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        let hash = match ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
            tokio_rustls::rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
            _ => unreachable!(),
        };
        let pin = hash.hash(certificate.der()).as_ref().try_into().unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        Self { ca_pem: ca_certificate.pem(), server: Arc::new(server), pin }
    }
}
