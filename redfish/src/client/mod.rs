//! [`Bmc`](crate::Bmc) over HTTP.

mod accounts;
mod answer;
mod boot;
mod collect;
mod components;
mod events;
mod inventory;
mod logs;
mod media;
mod power;
mod secure_boot;
mod send;
mod session;
mod task;
mod the_trait;
mod update;

pub use events::EventStream;

use crate::connection::Connection;
use crate::error::{Cause, RedfishError, Result};
use crate::http::Http;
use crate::model::{ResourcePath, Service};
use crate::quirks::{Facts, QuirkChoice, Quirks};
use session::Session;
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};

/// One BMC over HTTP(S). Cloning gives another handle to the same connection.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: Http,
    session: Mutex<Session>,
    root: OnceCell<Root>,
    quirks: OnceCell<Quirks>,
    /// The server has answered with the expected serial number.
    proven: OnceCell<()>,
}

/// What the service root said.
struct Root {
    service: Service,
    /// Keys under `Oem`: older services tell their vendor only there.
    oem: Vec<String>,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(connection: Connection) -> Result<Self> {
        let http = Http::new(connection)?;
        Ok(Self(Arc::new(Inner {
            http,
            session: Mutex::default(),
            root: OnceCell::new(),
            quirks: OnceCell::new(),
            proven: OnceCell::new(),
        })))
    }

    pub(crate) fn http(&self) -> &Http {
        &self.0.http
    }

    fn fail(&self, cause: Cause) -> RedfishError {
        self.0.http.fail(cause)
    }

    /// How many requests this client has sent.
    pub fn requests(&self) -> u64 {
        self.0.http.requests()
    }

    async fn root(&self) -> Result<&Root> {
        self.0.root.get_or_try_init(|| self.read_root()).await
    }

    async fn read_root(&self) -> Result<Root> {
        use crate::json::{Read, View};
        let root = ResourcePath::new(ResourcePath::ROOT).unwrap_or_default();
        // The root needs no credentials; a wrong password is not tried on what is no BMC.
        let json = match self.get_open(&root).await {
            Ok(json) => json,
            Err(error) => {
                let cause = match error.cause {
                    Cause::NotFound { .. } => {
                        Cause::NotRedfish { reason: "it has no /redfish/v1/".to_owned() }
                    }
                    // Some services guard even the root.
                    Cause::Unauthorised { .. } | Cause::Forbidden { .. } => {
                        return Ok(self.root_of(&self.get(&root).await?));
                    }
                    other => other,
                };
                return Err(self.fail(cause));
            }
        };
        let service = Service::read(View(&json));
        if service.systems.is_none() && service.managers.is_none() && service.chassis.is_none() {
            let reason = "its root links neither systems nor managers nor chassis".to_owned();
            return Err(self.fail(Cause::NotRedfish { reason }));
        }
        Ok(self.root_of(&json))
    }

    fn root_of(&self, json: &serde_json::Value) -> Root {
        use crate::json::{Read, View};
        let oem = json.get("Oem").and_then(serde_json::Value::as_object);
        let oem = oem.map(|oem| oem.keys().take(16).cloned().collect()).unwrap_or_default();
        Root { service: Service::read(View(json)), oem }
    }

    async fn quirk_set(&self) -> Result<&Quirks> {
        self.0
            .quirks
            .get_or_try_init(|| async {
                if let QuirkChoice::Exactly(quirks) = &self.0.http.connection.quirks {
                    return Ok(quirks.clone());
                }
                let root = self.root().await?;
                let manager = self.first_of(root.service.managers.as_ref()).await?;
                let system = self.first_of(root.service.systems.as_ref()).await?;
                let facts = Facts::of(&root.service, &root.oem, manager.as_ref(), system.as_ref());
                let quirks = Quirks::of(&facts);
                tracing::debug!(bmc = %self.0.http.endpoint, vendor = ?facts.vendor, product = %facts.product, ?quirks, "known");
                Ok(quirks)
            })
            .await
    }

    async fn has(&self, quirk: crate::Quirk) -> Result<bool> {
        Ok(self.quirk_set().await?.has(quirk))
    }
}
