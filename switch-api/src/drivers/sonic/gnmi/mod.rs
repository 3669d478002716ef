//! The rows over gNMI: origin `sonic-db`, paths `/CONFIG_DB/localhost/TABLE/key`, JSON_IETF. One Set is one transaction.
//!
//! Configuration is written natively alone: OpenConfig has no PFC, and SONiC takes no Set that mixes origins, so anything else
//! would be two transactions. What runs is read by OpenConfig (target `OC-YANG`) where the switch has the models
//! ([`openconfig`]), else from the rows.

mod openconfig;
#[allow(unreachable_pub, reason = "the test server reads the same file as a module of its own")]
mod proto;
mod status;

use super::stream::{self, Bounded};
use super::tables::{Database, Difference, Row, RowChange, Tables};
use super::{Session, Store, observe};
use crate::connection::Connection;
use crate::error::{Cause, Result};
use crate::names::InterfaceName;
use crate::switch::{LinkStatus, Neighbour};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use proto::{
    CapabilityRequest, CapabilityResponse, Encoding, GetRequest, GetResponse, Path, SetRequest, SetResponse,
    Typed, TypedValue, Update, path,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const NATIVE: &str = "sonic-db";
const OPENCONFIG: &str = "openconfig";
const OPENCONFIG_TARGET: &str = "OC-YANG";

pub(super) struct Gnmi;

pub(super) struct GnmiSession {
    connection: Connection,
    grpc: Grpc<Channel>,
    credentials: Option<(AsciiMetadataValue, AsciiMetadataValue)>,
    got: Arc<AtomicU64>,
    models: BTreeSet<String>,
}

#[async_trait]
impl Store for Gnmi {
    type Session = GnmiSession;
    const SAVE_ON_SET: bool = true;

    async fn open(&self, connection: &Connection) -> Result<GnmiSession> {
        let fail = |cause: Cause| cause.at(&connection.switch);
        let credentials = credentials(connection).map_err(fail)?;
        let got = Arc::new(AtomicU64::new(0));
        let stream = stream::open(connection, &[b"h2"]).await?;
        let stream = Bounded::new(stream, Arc::clone(&got), u64::MAX);
        let channel = channel(connection, stream).await.map_err(fail)?;
        let limit = usize::try_from(connection.limits.body_bytes).unwrap_or(usize::MAX);
        let grpc = Grpc::new(channel).max_decoding_message_size(limit);
        let models = BTreeSet::new();
        let mut session = GnmiSession { connection: connection.clone(), grpc, credentials, got, models };
        let capabilities = connection.timed("Capabilities", session.capabilities()).await?;
        session.models = usable(&capabilities).map_err(fail)?;
        Ok(session)
    }
}

fn credentials(connection: &Connection) -> Result<Option<(AsciiMetadataValue, AsciiMetadataValue)>, Cause> {
    if connection.secret.is_empty() {
        return Ok(None);
    }
    let value = |text: &str| -> Result<_, Cause> {
        let mut value = AsciiMetadataValue::try_from(text).map_err(|_| Cause::Settings {
            what: "management.user or management.credentials".to_owned(),
            reason: "gNMI carries them as plain ASCII".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    };
    Ok(Some((value(&connection.user)?, value(connection.secret.expose())?)))
}

/// HTTP/2 over the one stream that is open; it is not opened a second time behind our back.
async fn channel(connection: &Connection, stream: Bounded) -> Result<Channel, Cause> {
    let local = connection.address.starts_with("unix:");
    let authority = if local { "localhost".to_owned() } else { connection.endpoint() };
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| Cause::Settings { what: "management.address".to_owned(), reason: e.to_string() })?
        .connect_timeout(connection.limits.connect);
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_| {
        let taken = stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let again = || std::io::Error::other("the switch closed the connection");
        std::future::ready(taken.map(TokioIo::new).ok_or_else(again))
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|e| Cause::Unreachable { endpoint: connection.endpoint(), reason: status::chain(&e) })
}

/// The models' names, if we can work with them.
fn usable(capabilities: &CapabilityResponse) -> Result<BTreeSet<String>, Cause> {
    let found = |what: String| {
        let needed =
            format!("the model {NATIVE} and JSON_IETF (SONiC 202305 or newer, native write enabled)");
        Err(Cause::VersionMismatch { found: what, needed })
    };
    let models: BTreeSet<String> = capabilities.supported_models.iter().map(|m| m.name.clone()).collect();
    let version = &capabilities.gnmi_version;
    if !capabilities.supported_encodings.contains(&(Encoding::JsonIetf as i32)) {
        return found(format!("gNMI {version} without JSON_IETF"));
    }
    if !models.contains(NATIVE) {
        return found(format!("gNMI {version} with {} models, none of them {NATIVE}", models.len()));
    }
    Ok(models)
}

impl GnmiSession {
    async fn call<Q, A>(&mut self, request: Q, call: &'static str) -> Result<A>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let name = call.rsplit('/').next().unwrap_or(call);
        let before = self.got.load(Ordering::Relaxed);
        let mut request = tonic::Request::new(request);
        request.set_timeout(self.connection.limits.request);
        if let Some((user, secret)) = &self.credentials {
            request.metadata_mut().insert("username", user.clone());
            request.metadata_mut().insert("password", secret.clone());
        }
        let ready = self.grpc.ready().await.map_err(|e| tonic::Status::unavailable(status::chain(&e)));
        let answer = match ready {
            Ok(()) => {
                let codec = ProstCodec::<Q, A>::default();
                self.grpc.unary(request, PathAndQuery::from_static(call), codec).await
            }
            Err(status) => Err(status),
        };
        answer.map(tonic::Response::into_inner).map_err(|status| {
            let got_bytes = self.got.load(Ordering::Relaxed) - before;
            status::cause(&status, &self.connection, name, got_bytes).at(&self.connection.switch)
        })
    }

    async fn capabilities(&mut self) -> Result<CapabilityResponse> {
        self.call(CapabilityRequest {}, proto::CAPABILITIES).await
    }

    /// The JSON at one path; none where there is nothing.
    async fn get(&mut self, target: &str, path: Path) -> Result<Option<Value>> {
        let words = words(&path);
        let prefix = Path { target: target.to_owned(), ..Path::default() };
        let request = GetRequest {
            prefix: Some(prefix),
            path: vec![path],
            data_type: 0,
            encoding: Encoding::JsonIetf as i32,
        };
        let answer: GetResponse = match self.call(request, proto::GET).await {
            Err(error) if matches!(&error.cause, Cause::Rejected { path, .. } if path == status::NOT_FOUND) =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let updates = answer.notification.into_iter().flat_map(|n| n.update);
        match updates.filter_map(|update| update.val?.value).next() {
            None => Ok(None),
            Some(Typed::JsonIetf(json) | Typed::Json(json)) => {
                let bad = |e: serde_json::Error| self.nonsense(&words, &e.to_string());
                serde_json::from_slice(&json).map(Some).map_err(bad)
            }
            Some(_) => Err(self.nonsense(&words, "it is not JSON_IETF as asked for")),
        }
    }

    fn nonsense(&self, request: &str, reason: &str) -> crate::SwitchError {
        let (request, reason) = (format!("Get {request}"), reason.to_owned());
        Cause::BadReply { request, reason, expected: "SONiC" }.at(&self.connection.switch)
    }

    async fn openconfig(&mut self, model: &str, names: &[&str]) -> Result<Option<Value>> {
        if !self.models.contains(model) {
            return Ok(None);
        }
        let first = format!("{model}:{}", names.first().copied().unwrap_or_default());
        let names = std::iter::once(first.as_str()).chain(names.iter().skip(1).copied());
        self.get(OPENCONFIG_TARGET, path(OPENCONFIG, names)).await
    }
}

fn words(path: &Path) -> String {
    path.elem.iter().map(|elem| format!("/{}", elem.name)).collect()
}

/// A scalar of JSON as CONFIG_DB has it; lists are written with commas there.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn put_table(tables: &mut Tables, table: &str, rows: &Value) {
    for (key, row) in rows.as_object().into_iter().flatten() {
        match row {
            // A map of COUNTERS_DB is one row without a key.
            Value::Object(fields) => {
                let row: Row = fields.iter().map(|(field, value)| (field.clone(), text(value))).collect();
                *tables.row(table, key) = row.into_iter().filter(|(field, _)| field != "NULL").collect();
            }
            other => tables.set(table, "", key, text(other)),
        }
    }
}

/// One Set. Rows that are there are changed field by field: what others keep in them stays.
fn set_request(change: &Difference) -> SetRequest {
    let at = |table: &str, key: &str, field: Option<&str>| {
        path(NATIVE, ["CONFIG_DB", "localhost", table, key].into_iter().chain(field))
    };
    let update = |path: Path, value: Value| Update {
        path: Some(path),
        val: Some(TypedValue { value: Some(Typed::JsonIetf(value.to_string().into_bytes())) }),
    };
    let mut request = SetRequest { prefix: Some(Path::default()), ..SetRequest::default() };
    for ((table, key), change) in change.iter() {
        match change {
            RowChange::Delete => request.delete.push(at(table, key, None)),
            RowChange::Create(row) => {
                request.update.push(update(at(table, key, None), serde_json::json!(row)));
            }
            RowChange::Fields { set, unset } => {
                request.delete.extend(unset.iter().map(|field| at(table, key, Some(field))));
                let set = set.iter().map(|(field, value)| (at(table, key, Some(field)), value.as_str()));
                request.update.extend(set.map(|(path, value)| update(path, value.into())));
            }
        }
    }
    request
}

#[async_trait]
impl Session for GnmiSession {
    async fn tables(&mut self, database: Database, tables: &[&str]) -> Result<Tables> {
        let mut found = Tables::default();
        if database == Database::Config {
            // Whole: a path to a table that is not there is an error, and would take the others with it.
            let all = self.get("", path(NATIVE, [database.name(), "localhost"])).await?;
            let Some(Value::Object(all)) = all else {
                return Err(self.nonsense("/CONFIG_DB/localhost", "it has no tables"));
            };
            for (table, rows) in all.iter().filter(|(table, _)| tables.contains(&table.as_str())) {
                put_table(&mut found, table, rows);
            }
            return Ok(found);
        }
        for table in tables {
            if let Some(rows) = self.get("", path(NATIVE, [database.name(), "localhost", table])).await? {
                put_table(&mut found, table, &rows);
            }
        }
        Ok(found)
    }

    async fn rows(&mut self, database: Database, table: &str, keys: &[&String]) -> Result<Tables> {
        let mut found = self.tables(database, &[table]).await?;
        let keys: BTreeSet<&str> = keys.iter().map(|key| key.as_str()).collect();
        found.remove_where(table, |key, _| !keys.contains(key));
        Ok(found)
    }

    async fn commit(&mut self, change: &Difference, _: &Tables) -> Result<()> {
        let request = set_request(change);
        let asked = request.delete.len() + request.replace.len() + request.update.len();
        let answer: SetResponse = self.call(request, proto::SET).await?;
        if answer.response.len() < asked {
            tracing::debug!(asked, answered = answer.response.len(), "the switch does not answer each path");
        }
        Ok(())
    }

    async fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        match self.openconfig("openconfig-lldp", &["lldp", "interfaces"]).await? {
            Some(json) => Ok(openconfig::neighbours(&json)),
            None => Ok(observe::neighbours(&self.tables(Database::Appl, &["LLDP_ENTRY_TABLE"]).await?)),
        }
    }

    async fn links(&mut self) -> Result<BTreeMap<InterfaceName, LinkStatus>> {
        if let Some(json) = self.openconfig("openconfig-interfaces", &["interfaces"]).await? {
            return Ok(openconfig::links(&json));
        }
        let appl = self.tables(Database::Appl, &["PORT_TABLE"]).await?;
        Ok(observe::links(&appl, &self.tables(Database::State, &["PORT_TABLE"]).await?))
    }
}
