//! Asks one address whether a BMC is there.

use crate::Bmc;
use crate::client::Client;
use crate::connection::{Auth, Connection, Limits};
use crate::credentials::Credentials;
use crate::error::{Cause, Result};
use crate::model::Service;
use crate::tls::{client_config, handshake_cause};
use basalt_trust::{Fingerprint, Trust};
use rustls::pki_types::ServerName;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    pub port: u16,
    pub plaintext: bool,
    /// For each of connecting and answering.
    pub patience: Duration,
    /// Addresses asked at the same time.
    pub at_once: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { port: 443, plaintext: false, patience: Duration::from_secs(3), at_once: 64 }
    }
}

/// A Redfish service.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub address: IpAddr,
    pub port: u16,
    pub service: Service,
    /// What it presents: to be pinned once an operator has agreed.
    pub certificate: Option<Fingerprint>,
}

/// None: nobody there, or something else than a Redfish service.
pub async fn probe(address: IpAddr, options: &ProbeOptions) -> Option<Found> {
    let host = address.to_string();
    let certificate = match options.plaintext {
        true => None,
        false => Some(presented_certificate(&host, options.port, options.patience).await.ok()?),
    };
    let trust = certificate.map_or(Trust::Plaintext, Trust::Pin);
    let limits = Limits {
        connect: options.patience,
        request: options.patience,
        body_bytes: 1 << 20,
        attempts: 1,
        ..Limits::default()
    };
    let connection = Connection {
        port: options.port,
        limits,
        auth: Auth::Basic,
        ..Connection::new(host, Credentials::default(), trust)
    };
    let service = Client::new(connection).ok()?.service().await.ok()?;
    Some(Found { address, port: options.port, service, certificate })
}

/// Asks all of them, a bounded number at once; the answers are in the order of the addresses.
pub async fn probe_all(addresses: impl IntoIterator<Item = IpAddr>, options: &ProbeOptions) -> Vec<Found> {
    let slots = Arc::new(Semaphore::new(options.at_once.max(1)));
    let mut asked = tokio::task::JoinSet::new();
    for (index, address) in addresses.into_iter().enumerate() {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let options = *options;
        asked.spawn(async move {
            let found = probe(address, &options).await;
            drop(slot);
            (index, found)
        });
    }
    let mut found = Vec::new();
    while let Some(result) = asked.join_next().await {
        if let Ok((index, Some(one))) = result {
            found.push((index, one));
        }
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, one)| one).collect()
}

/// The fingerprint of the certificate that is presented, whosever it is. Nothing is sent but a handshake.
pub async fn presented_certificate(address: &str, port: u16, patience: Duration) -> Result<Fingerprint> {
    let endpoint =
        Connection { port, ..Connection::new(address, Credentials::default(), Trust::Insecure) }.endpoint();
    let fail = |cause: Cause| cause.at(&endpoint);
    let unreachable = |error: std::io::Error| fail(Cause::Unreachable { reason: error.to_string() });
    let work = async {
        let Some(config) = client_config(&Trust::Insecure).map_err(fail)? else { unreachable!("it has TLS") };
        let tcp = TcpStream::connect((address, port)).await.map_err(unreachable)?;
        let name = ServerName::try_from(address.to_owned()).map_err(|e| {
            fail(Cause::Settings { what: format!("address '{address}'"), reason: e.to_string() })
        })?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, tcp).await.map_err(|error| fail(handshake_cause(&error)))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let first = certificates.and_then(|all| all.first());
        let none = || fail(Cause::Tls { reason: "no certificate was presented".to_owned() });
        first.map(|certificate| Fingerprint::of(certificate)).ok_or_else(none)
    };
    let late = |_| fail(Cause::TimedOut { request: "TLS handshake".to_owned(), after: patience });
    tokio::time::timeout(patience, work).await.map_err(late)?
}
