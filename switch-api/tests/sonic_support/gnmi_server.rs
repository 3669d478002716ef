//! A gNMI server that keeps the rules of the specification and of SONiC's server: origins and targets, JSON_IETF, user and
//! password, unknown paths, all of a Set or nothing. Real HTTP/2, with or without TLS.

#[path = "../../src/drivers/sonic/gnmi/proto.rs"]
#[allow(unreachable_pub, reason = "the driver's own messages")]
pub(crate) mod proto;

use super::{Rows, SECRET};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use proto::{
    CapabilityRequest, CapabilityResponse, Encoding, GetRequest, GetResponse, ModelData, Notification, Path,
    SetRequest, SetResponse, Typed, TypedValue, Update, UpdateResult,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// A clone is the same server.
#[derive(Clone)]
pub(crate) struct GnmiServer {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

/// JSON_IETF, for tests that set what the server offers.
pub(crate) fn json_ietf() -> Encoding {
    Encoding::JsonIetf
}

pub(crate) struct State {
    /// Databases of SONiC: database, table, key, field.
    pub databases: Map<String, Value>,
    /// What OpenConfig says, by the path's first element.
    pub openconfig: BTreeMap<String, Value>,
    pub(crate) models: Vec<&'static str>,
    pub encodings: Vec<Encoding>,
    /// The next answers to a call of this name are this status.
    pub fail: Option<(&'static str, Code, String)>,
    pub delay: Duration,
    /// Answers as they would be, but other bytes.
    pub raw: Option<Vec<u8>>,
    /// A Set that touches this table is refused, as SONiC's models refuse.
    pub refuse: Option<&'static str>,
    pub sets: usize,
    /// CONFIG_DB after each Set, for validation against the models.
    pub history: Vec<Value>,
    pub(crate) user: &'static str,
}

impl GnmiServer {
    pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            databases: Map::new(),
            openconfig: BTreeMap::new(),
            models: vec!["sonic-db", "openconfig-interfaces", "openconfig-lldp"],
            encodings: vec![Encoding::Json, Encoding::JsonIetf],
            fail: None,
            delay: Duration::ZERO,
            raw: None,
            refuse: None,
            sets: 0,
            history: Vec::new(),
            user: "basalt",
        };
        let server = Self { port, state: Arc::new(Mutex::new(state)) };
        server.load(&super::factory());
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (server, tls) = (accepting.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = TowerToHyperService::new(Service(server));
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(tcp).await else { return };
                            http.serve_connection(TokioIo::new(stream), service).await.ok();
                        }
                        None => {
                            http.serve_connection(TokioIo::new(tcp), service).await.ok();
                        }
                    }
                });
            }
        });
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn load(&self, config: &Value) {
        let mut databases = Map::new();
        databases.insert("CONFIG_DB".to_owned(), config.clone());
        for name in ["APPL_DB", "STATE_DB", "COUNTERS_DB"] {
            databases.insert(name.to_owned(), json!({}));
        }
        self.state().databases = databases;
    }
}

impl Rows for GnmiServer {
    fn config(&self) -> Value {
        self.state().databases["CONFIG_DB"].clone()
    }

    fn put(&self, database: &str, table: &str, key: &str, fields: &[(&str, &str)]) {
        let mut state = self.state();
        let rows = object(&mut state.databases[database], table);
        let row = if key.is_empty() { rows } else { object(rows, key) };
        for (field, value) in fields {
            row.as_object_mut().unwrap().insert((*field).to_owned(), json!(value));
        }
    }

    fn delete(&self, database: &str, table: &str, key: &str) {
        let mut state = self.state();
        remove(&mut state.databases[database], &[table, key]);
    }
}

fn object<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    value.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({}))
}

/// Removes what is at `names`, and a table that becomes empty.
fn remove(value: &mut Value, names: &[&str]) -> bool {
    let Some(map) = value.as_object_mut() else { return false };
    match names {
        [] => false,
        [last] => map.remove(*last).is_some(),
        [first, rest @ ..] => {
            let removed = map.get_mut(*first).is_some_and(|inner| remove(inner, rest));
            if rest.len() == 1 && names.len() == 2 && map.get(*first).is_some_and(|v| v == &json!({})) {
                map.remove(*first);
            }
            removed
        }
    }
}

#[derive(Clone)]
struct Service(GnmiServer);

type Answering = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl tower::Service<Request<hyper::body::Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Answering {
        let server = self.0.clone();
        Box::pin(async move {
            let (delay, raw) = {
                let state = server.state();
                (state.delay, state.raw.clone())
            };
            tokio::time::sleep(delay).await;
            if let Some(bytes) = raw {
                let body = Body::new(http_body(bytes));
                let response = Response::builder().header("content-type", "application/grpc").body(body);
                return Ok(response.unwrap());
            }
            let method = request.uri().path().to_owned();
            let response = match &method[..] {
                proto::CAPABILITIES => {
                    unary(request, move |_: CapabilityRequest, user| server.capabilities(user)).await
                }
                proto::GET => unary(request, move |get: GetRequest, user| server.get(&get, user)).await,
                proto::SET => unary(request, move |set: SetRequest, user| server.set(&set, user)).await,
                _ => Status::unimplemented("unknown service or method").into_http(),
            };
            Ok(response)
        })
    }
}

fn http_body(bytes: Vec<u8>) -> http_body_util::Full<hyper::body::Bytes> {
    http_body_util::Full::new(bytes.into())
}

type User = Option<(String, String)>;

struct Unary<F>(F);

impl<Q, A, F: FnMut(Q, User) -> Result<A, Status>> UnaryService<Q> for Unary<F> {
    type Response = A;
    type Future = Ready<Result<tonic::Response<A>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let text = |name: &str| Some(request.metadata().get(name)?.to_str().ok()?.to_owned());
        let user = text("username").zip(text("password"));
        ready((self.0)(request.into_inner(), user).map(tonic::Response::new))
    }
}

async fn unary<Q, A, F>(request: Request<hyper::body::Incoming>, work: F) -> Response<Body>
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
    F: FnMut(Q, User) -> Result<A, Status> + Send,
{
    Grpc::new(ProstCodec::<A, Q>::default()).unary(Unary(work), request).await
}

/// Elements of a path, with keys of lists refused: SONiC's rows have none.
fn names(path: &Path) -> Result<Vec<&str>, Status> {
    if path.elem.iter().any(|elem| !elem.key.is_empty() || elem.name.is_empty()) {
        return Err(Status::invalid_argument("unsupported path element"));
    }
    Ok(path.elem.iter().map(|elem| elem.name.as_str()).collect())
}

impl GnmiServer {
    fn admit(&self, user: User, call: &'static str) -> Result<MutexGuard<'_, State>, Status> {
        let state = self.state();
        match user {
            Some((user, password)) if user == state.user && password == SECRET => {}
            _ => return Err(Status::unauthenticated("invalid username or password")),
        }
        match &state.fail {
            Some((name, code, text)) if *name == call => Err(Status::new(*code, text)),
            _ => Ok(state),
        }
    }

    fn capabilities(&self, user: User) -> Result<CapabilityResponse, Status> {
        let state = self.admit(user, "Capabilities")?;
        let model = |name: &&str| ModelData {
            name: (*name).to_owned(),
            organization: if name.starts_with("openconfig") { "OpenConfig working group" } else { "SONiC" }
                .into(),
            version: "0.1.0".to_owned(),
        };
        Ok(CapabilityResponse {
            supported_models: state.models.iter().map(model).collect(),
            supported_encodings: state.encodings.iter().map(|e| *e as i32).collect(),
            gnmi_version: "0.7.0".to_owned(),
        })
    }

    fn get(&self, request: &GetRequest, user: User) -> Result<GetResponse, Status> {
        let state = self.admit(user, "Get")?;
        if request.encoding != Encoding::JsonIetf as i32 {
            return Err(Status::unimplemented("unsupported encoding"));
        }
        if request.data_type != 0 {
            return Err(Status::unimplemented("unsupported request type"));
        }
        let target = request.prefix.as_ref().map_or("", |prefix| &prefix.target);
        let prefix_origin = request.prefix.as_ref().map_or("", |prefix| &prefix.origin);
        let mut notification = Vec::new();
        for path in &request.path {
            let names = names(path)?;
            if !prefix_origin.is_empty() && !path.origin.is_empty() {
                return Err(Status::invalid_argument("origin in prefix and in path"));
            }
            let origin = if prefix_origin.is_empty() { &path.origin } else { prefix_origin };
            let found = match (origin, target) {
                ("sonic-db", _) => native(&state.databases, &names)?,
                ("openconfig", "OC-YANG") => {
                    let first = names.first().copied().unwrap_or_default();
                    state.openconfig.get(first).ok_or_else(|| Status::not_found("Resource not found"))?
                }
                ("openconfig", _) => return Err(Status::invalid_argument("target OC-YANG is missing")),
                _ => return Err(Status::unimplemented("Empty target data not supported")),
            };
            let json = serde_json::to_vec(found).unwrap();
            let update = Update {
                path: Some(path.clone()),
                val: Some(TypedValue { value: Some(Typed::JsonIetf(json)) }),
            };
            notification.push(Notification {
                timestamp: 1,
                prefix: request.prefix.clone(),
                update: vec![update],
                delete: Vec::new(),
            });
        }
        Ok(GetResponse { notification })
    }

    fn set(&self, request: &SetRequest, user: User) -> Result<SetResponse, Status> {
        let mut state = self.admit(user, "Set")?;
        let prefix_origin = request.prefix.as_ref().map_or("", |prefix| &prefix.origin);
        let mut config = state.databases["CONFIG_DB"].clone();
        let mut response = Vec::new();
        let place = |path: &Path| -> Result<Vec<String>, Status> {
            let origin = if prefix_origin.is_empty() { &path.origin } else { prefix_origin };
            if origin != "sonic-db" {
                return Err(Status::unimplemented("Set is supported for the origin sonic-db"));
            }
            match &names(path)?[..] {
                ["CONFIG_DB", "localhost", rest @ ..] if (1..=3).contains(&rest.len()) => {
                    if state.refuse == rest.first().copied() {
                        let text = format!("Failed to apply patch: {} does not validate", rest[0]);
                        return Err(Status::internal(text));
                    }
                    Ok(rest.iter().map(|name| (*name).to_owned()).collect())
                }
                _ => Err(Status::invalid_argument("only /CONFIG_DB/localhost can be set")),
            }
        };
        // Specification 3.4.3: deletes, then replaces, then updates.
        for path in &request.delete {
            let names = place(path)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            remove(&mut config, &names);
            response.push(UpdateResult { path: Some(path.clone()), op: 1 });
        }
        let changes = request.replace.iter().map(|u| (u, 2)).chain(request.update.iter().map(|u| (u, 3)));
        for (update, op) in changes {
            let path = update.path.as_ref().ok_or_else(|| Status::invalid_argument("no path"))?;
            let Some(Typed::JsonIetf(json)) = update.val.as_ref().and_then(|v| v.value.as_ref()) else {
                return Err(Status::unimplemented("only JSON_IETF is supported"));
            };
            let value: Value =
                serde_json::from_slice(json).map_err(|e| Status::invalid_argument(e.to_string()))?;
            put(&mut config, &place(path)?, value)?;
            response.push(UpdateResult { path: Some(path.clone()), op });
        }
        state.history.push(config.clone());
        drop(state.databases.insert("CONFIG_DB".to_owned(), config));
        state.sets += 1;
        Ok(SetResponse { prefix: request.prefix.clone(), response, timestamp: 1 })
    }
}

fn native<'a>(databases: &'a Map<String, Value>, names: &[&str]) -> Result<&'a Value, Status> {
    let not_found = |what: &str| Status::not_found(format!("no valid entry found on {what}"));
    let [database, namespace, rest @ ..] = names else {
        return Err(Status::invalid_argument("path too short"));
    };
    if *namespace != "localhost" {
        return Err(Status::invalid_argument("unknown namespace"));
    }
    let mut found = databases.get(*database).ok_or_else(|| not_found(database))?;
    for name in rest {
        found = found.get(name).ok_or_else(|| not_found(name))?;
    }
    Ok(found)
}

/// JSON patch's `add`, as SONiC applies it: what is there is replaced. Fields are strings.
fn put(config: &mut Value, names: &[String], value: Value) -> Result<(), Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("{what} at {}", names.join("/")));
    match names {
        [table] if value.is_object() => {
            config[table.as_str()] = value;
        }
        [table, key] => {
            let fields = value.as_object().ok_or_else(|| wrong("a row is an object"))?;
            if !fields.values().all(Value::is_string) {
                return Err(wrong("fields are strings"));
            }
            object(config, table)[key.as_str()] = value;
        }
        [table, key, field] => {
            if !value.is_string() {
                return Err(wrong("a field is a string"));
            }
            let row = config.get_mut(table).and_then(|rows| rows.get_mut(key));
            row.ok_or_else(|| wrong("no such row"))?[field.as_str()] = value;
        }
        _ => return Err(wrong("unexpected value")),
    }
    Ok(())
}
