//! How a driver reaches its switch: address, credentials, TLS, and the bounds of every exchange.

use crate::error::{Cause, Result};
use crate::intent::{CredentialsRef, DriverKind, Fabric, SwitchIntent, Tls};
use crate::names::DeviceName;
use crate::retry::RetryPolicy;
use crate::state::Mark;
use crate::tls::{self, Identity, Trust};
use basalt_trust::Secret;
use std::path::Path;
use std::time::Duration;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connect: Duration,
    /// One request with its whole answer.
    pub request: Duration,
    /// The whole configuration of a chassis of 576 ports is some 4 MiB of JSON.
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(20), body_bytes: 32 << 20 }
    }
}

/// Everything a driver needs to speak to one switch.
#[derive(Clone, Debug)]
pub struct Connection {
    pub switch: DeviceName,
    pub kind: DriverKind,
    /// Host name, address, or `unix:/path`.
    pub address: String,
    pub port: u16,
    pub user: String,
    pub secret: Secret,
    pub trust: Trust,
    /// What we show of ourselves, where the switch asks for a certificate.
    pub identity: Option<Identity>,
    pub limits: Limits,
    pub retry: RetryPolicy,
    /// What is ours on the switch.
    pub mark: Mark,
}

impl Connection {
    /// Settings of one switch of the intent; reads the credentials from where they are.
    pub fn of(fabric: &Fabric, switch: &SwitchIntent) -> Result<Self> {
        let fail = |cause: Cause| cause.at(&switch.name);
        let management = &switch.management;
        let secret =
            management.credentials.as_ref().map_or(Ok(Secret::default()), read_secret).map_err(fail)?;
        let trust = tls::trust(&management.tls, management.address.starts_with("unix:")).map_err(fail)?;
        let identity = identity(&management.tls).map_err(fail)?;
        let limits =
            Limits { request: Duration::from_secs(management.timeout_s.into()), ..Limits::default() };
        Ok(Self {
            switch: switch.name.clone(),
            kind: switch.driver,
            address: management.address.clone(),
            port: management.port.unwrap_or(usual_port(switch.driver, &trust)),
            user: management.user.clone().unwrap_or_else(|| "admin".to_owned()),
            secret,
            trust,
            identity,
            limits,
            retry: RetryPolicy::default(),
            mark: Mark::new(&fabric.name),
        })
    }

    /// None: no TLS.
    pub fn client_config(&self) -> Result<Option<rustls::ClientConfig>, Cause> {
        Ok(self.trust.client_config(self.identity.as_ref())?)
    }

    /// `host:port` for messages.
    pub fn endpoint(&self) -> String {
        match &self.address {
            unix if unix.starts_with("unix:") => unix.clone(),
            six if six.contains(':') => format!("[{six}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }

    /// Runs one request within the time bound.
    pub async fn timed<T>(&self, request: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(self.limits.request, work).await {
            Ok(result) => result,
            Err(_) => {
                let cause = Cause::TimedOut { request: request.to_owned(), after: self.limits.request };
                Err(cause.at(&self.switch))
            }
        }
    }
}

/// IANA's and the vendors' usual ports.
fn usual_port(kind: DriverKind, trust: &Trust) -> u16 {
    match kind {
        // IANA gnmi-gnoi is 9339; SONiC's telemetry container listens on 8080, its gnmi container on 50051 or 8080.
        DriverKind::SonicGnmi => 8080,
        DriverKind::SonicRedis => 6379,
        DriverKind::DellSonic | DriverKind::Eos if *trust == Trust::Plaintext => 80,
        DriverKind::DellSonic | DriverKind::Eos => 443,
        DriverKind::Nvue => 8765,
        DriverKind::Ovs => 6640,
    }
}

fn identity(tls: &Tls) -> Result<Option<Identity>, Cause> {
    let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) else { return Ok(None) };
    private(key, "key file")?;
    Ok(Some(Identity { certificate: certificate.clone(), key: key.clone() }))
}

fn read_secret(reference: &CredentialsRef) -> Result<Secret, Cause> {
    let settings = |what: String, reason: String| Cause::Settings { what, reason };
    if let Some(variable) = &reference.env {
        let missing = |_| settings(format!("environment variable {variable}"), "is not set".to_owned());
        return std::env::var(variable).map(Secret::new).map_err(missing);
    }
    let path = reference.file.as_deref().unwrap_or(Path::new(""));
    let failed = |e: std::io::Error| settings(format!("credentials file {}", path.display()), e.to_string());
    private(path, "credentials file")?;
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

/// A password, or a key, that others can read is not one.
fn private(path: &Path, kind: &str) -> Result<(), Cause> {
    use std::os::unix::fs::PermissionsExt;
    let what = format!("{kind} {}", path.display());
    let metadata =
        std::fs::metadata(path).map_err(|e| Cause::Settings { what: what.clone(), reason: e.to_string() })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason = format!("mode {mode:03o} lets others read it (chmod 600)");
        return Err(Cause::Settings { what, reason });
    }
    Ok(())
}
