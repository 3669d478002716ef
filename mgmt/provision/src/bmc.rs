//! [`Servers`] by Redfish: one client per BMC for as long as a command runs, so that a BMC has one connection and one session.

use crate::fault::{Fault, FaultKind};
use crate::node::{BmcAddress, BootVia, Identity, Node};
use crate::secrets::Vault;
use crate::server::{BootSource, Power, Server, Servers, UpdateState};
use async_trait::async_trait;
use basalt_inventory::Record;
use basalt_inventory::profile::matches_glob;
use basalt_redfish::model::{
    BootMode, BootTarget, OverrideEnabled, PowerState, ResourcePath, System, TaskState,
};
use basalt_redfish::{
    Bmc, BootOverride, Cause, Client, Connection, Credentials, Fingerprint, Limits, PowerAction,
    RedfishError, Trust, UpdateImage, UpdateRequest,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Firmware images are up to some 300 MB.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// The BMCs of the list, opened with the credentials of the vault.
pub struct RedfishServers {
    vault: Vault,
    limits: Limits,
    /// Vouches for the BMCs' certificates where none was pinned.
    ca: Option<PathBuf>,
    clients: Mutex<BTreeMap<String, Client>>,
}

/// `https://10.0.0.7:8443` in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub plaintext: bool,
}

impl std::str::FromStr for Endpoint {
    type Err = String;
    /// Without a scheme: HTTPS.
    fn from_str(text: &str) -> Result<Endpoint, String> {
        let wrong = || format!("{text:?} is no address of a BMC such as 10.0.0.7 or https://10.0.0.7:8443");
        let (plaintext, rest) = match text.split_once("://") {
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some(_) => return Err(wrong()),
            None => (false, text),
        };
        let rest = rest.trim_end_matches('/');
        let usual = if plaintext { 80 } else { 443 };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let fits = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
        if host.is_empty() || host.len() > 255 || !host.chars().all(fits) {
            return Err(wrong());
        }
        Ok(Endpoint { host: host.to_owned(), port, plaintext })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.plaintext { "http" } else { "https" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port == if self.plaintext { 80 } else { 443 } {
            true => write!(f, "{scheme}://{host}"),
            false => write!(f, "{scheme}://{host}:{}", self.port),
        }
    }
}

impl RedfishServers {
    pub fn new(vault: Vault, limits: Limits, ca: Option<PathBuf>) -> RedfishServers {
        RedfishServers { vault, limits, ca, clients: Mutex::default() }
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<String, Client>> {
        self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The client of a BMC; nothing is sent yet. `serial`: the server that changes are for.
    pub fn client(&self, bmc: &BmcAddress, serial: &str) -> Result<Client, Fault> {
        let key = format!("{} {serial}", bmc.url);
        if let Some(client) = self.clients().get(&key) {
            return Ok(client.clone());
        }
        let endpoint: Endpoint = bmc.url.parse().map_err(|e| Fault::new(FaultKind::NotRedfish, e))?;
        let credentials = self.vault.get(&bmc.credential).ok_or_else(|| {
            let cause = format!("no credentials named {} are known", bmc.credential);
            Fault::new(FaultKind::WrongPassword, cause)
        })?;
        let trust = match (&bmc.certificate_sha256, &self.ca) {
            _ if endpoint.plaintext => Trust::Plaintext,
            (Some(pin), _) => {
                Trust::Pin(pin.parse::<Fingerprint>().map_err(|e| Fault::new(FaultKind::Certificate, e))?)
            }
            (None, Some(file)) => Trust::Ca { file: file.clone(), server_name: None },
            (None, None) => {
                let cause = format!("no certificate of {} was accepted, and no CA is given", bmc.url);
                return Err(Fault::new(FaultKind::Certificate, cause));
            }
        };
        let client = Client::new(Connection {
            port: endpoint.port,
            limits: self.limits,
            expected_serial: (!serial.is_empty()).then(|| serial.to_owned()),
            ..Connection::new(
                endpoint.host,
                Credentials::new(credentials.user, credentials.password.as_str()),
                trust,
            )
        })
        .map_err(|e| fault(&e))?;
        self.clients().insert(key, client.clone());
        Ok(client)
    }

    /// The server of a node behind its BMC, with who it is.
    pub async fn open(&self, bmc: &BmcAddress, expected: &Identity) -> Result<Opened, Fault> {
        let client = self.client(bmc, &expected.serial)?;
        let systems = client.systems().await.map_err(|e| fault(&e))?;
        let with_identity = |system: System| (identity(&system), system);
        let mut systems: Vec<(Identity, System)> = systems.into_iter().map(with_identity).collect();
        // A chassis of several nodes behind one BMC: the one that is meant.
        if systems.len() > 1
            && let Some(at) =
                systems.iter().position(|(id, _)| expected.is_known() && id.same_machine(expected))
        {
            systems.swap(0, at);
            systems.truncate(1);
        }
        match systems.len() {
            0 => Err(Fault::new(FaultKind::BadReply, format!("the BMC at {} shows no server", bmc.url))),
            1 => {
                let (identity, system) = systems.swap_remove(0);
                Ok(Opened { url: bmc.url.clone(), client, identity, system })
            }
            many => {
                let serials: Vec<&str> = systems.iter().map(|(id, _)| id.serial.as_str()).collect();
                let list = serials.join(", ");
                let cause = format!("{many} servers are behind {}: {list}; say which with --serial", bmc.url);
                Err(Fault::new(FaultKind::Duplicate, cause))
            }
        }
    }

    /// Ends all sessions; BMCs have few.
    pub async fn close(&self) {
        let clients = std::mem::take(&mut *self.clients());
        let mut closing = tokio::task::JoinSet::new();
        for client in clients.into_values() {
            closing.spawn(async move {
                // A BMC that hangs must not hold up the end of a command.
                let _ = tokio::time::timeout(Duration::from_secs(3), client.close()).await;
            });
        }
        while closing.join_next().await.is_some() {}
    }
}

#[async_trait]
impl Servers for RedfishServers {
    async fn connect(&self, node: &Node) -> Result<Box<dyn Server>, Fault> {
        Ok(Box::new(self.open(&node.bmc, &node.identity).await?))
    }
}

/// A server whose BMC has answered.
pub struct Opened {
    url: String,
    pub client: Client,
    pub identity: Identity,
    pub system: System,
}

impl Opened {
    async fn fresh(&self) -> Result<System, Fault> {
        self.client.system(&self.system.path).await.map_err(|e| fault(&e))
    }
}

#[async_trait]
impl Server for Opened {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    async fn inspect(&self) -> Result<Record, Fault> {
        let found = self.client.inventory(&self.system.path).await.map_err(|e| fault(&e))?;
        // It went away in the middle: half an inventory is no ground to decide on.
        if let Some(problem) = found.problems.iter().find(|p| p.reason.starts_with("not asked for: ")) {
            let why = problem.reason.trim_start_matches("not asked for: ");
            let cause =
                format!("{} stopped answering in the middle of its inventory: {}", self.url, first_part(why));
            return Err(Fault::new(FaultKind::TimedOut, cause));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(basalt_inventory::redfish::record(&found, &self.url, now))
    }

    async fn power(&self) -> Result<Power, Fault> {
        Ok(match self.fresh().await?.power_state {
            Some(PowerState::On) => Power::On,
            Some(PowerState::Off) => Power::Off,
            _ => Power::Unknown,
        })
    }

    async fn start_anew(&self) -> Result<(), Fault> {
        let off = self.power().await? == Power::Off;
        let action = if off { PowerAction::On } else { PowerAction::ForceRestart };
        self.client.power(&self.system.path, action).await.map_err(|e| fault(&e))
    }

    async fn set_boot(&self, source: &BootSource) -> Result<(), Fault> {
        let path = &self.system.path;
        let wanted = match source {
            BootSource::Normal => BootOverride::none(),
            BootSource::Network { via, always } => network(via, *always),
        };
        match self.client.set_boot_override(path, &wanted).await {
            Ok(_) => Ok(()),
            // Some have no word for "as usual": the disk is what is meant.
            Err(e)
                if *source == BootSource::Normal && !e.cause.is_transient() && !e.cause.needs_operator() =>
            {
                let disk = BootOverride {
                    target: BootTarget::Hdd,
                    enabled: OverrideEnabled::Continuous,
                    mode: self.system.boot.mode.clone(),
                    http_boot_uri: None,
                    uefi_target: None,
                };
                self.client.set_boot_override(path, &disk).await.map(|_| ()).map_err(|e| fault(&e))
            }
            Err(e) => Err(fault(&e)),
        }
    }

    async fn boots_from(&self, source: &BootSource) -> Result<bool, Fault> {
        let boot = self.fresh().await?.boot;
        let on = !matches!(boot.enabled, None | Some(OverrideEnabled::Disabled));
        Ok(match source {
            BootSource::Normal => !on || matches!(boot.target, Some(BootTarget::None | BootTarget::Hdd)),
            BootSource::Network { via, always } => on && boot.target == Some(network(via, *always).target),
        })
    }

    async fn firmware_version(&self, component: &str) -> Result<Option<String>, Fault> {
        if component.eq_ignore_ascii_case("BIOS")
            && let Some(version) = self.fresh().await?.bios_version
        {
            return Ok(Some(version));
        }
        if component.eq_ignore_ascii_case("BMC") {
            let managers = self.client.managers().await.map_err(|e| fault(&e))?;
            return Ok(managers.into_iter().find_map(|m| m.firmware_version));
        }
        Ok(self.item(component).await?.and_then(|item| item.version))
    }

    async fn begin_update(&self, component: &str, file: &str) -> Result<String, Fault> {
        let image = match file.contains("://") {
            true => UpdateImage::Uri { uri: file.to_owned(), protocol: None, credentials: None },
            false => content(file).await?,
        };
        let item = self.item(component).await?;
        let targets = item.filter(|i| i.updateable == Some(true)).map(|i| i.path);
        let request = UpdateRequest { image, targets: targets.into_iter().collect(), apply_time: None };
        let accepted = self.client.update_firmware(&request).await.map_err(|e| fault(&e))?;
        Ok(accepted.task.map_or_else(String::new, |task| task.as_str().to_owned()))
    }

    async fn update_state(&self, task: &str) -> Result<UpdateState, Fault> {
        // Some take an update and name no task: its version will show.
        let Some(path) = ResourcePath::new(task) else { return Ok(UpdateState::Done) };
        let task = match self.client.task(&path).await {
            Ok(task) => task,
            // A BMC that restarted has forgotten its tasks.
            Err(RedfishError { cause: Cause::NotFound { .. }, .. }) => return Ok(UpdateState::Done),
            Err(e) => return Err(fault(&e)),
        };
        let why = || {
            task.messages
                .iter()
                .rev()
                .find_map(|m| m.text.clone())
                .unwrap_or_else(|| "it does not say why".into())
        };
        Ok(match &task.state {
            Some(TaskState::Completed) => UpdateState::Done,
            Some(state) if state.is_final() => UpdateState::Failed { why: why() },
            _ => UpdateState::Running { percent: task.percent.and_then(|p| u32::try_from(p).ok()) },
        })
    }
}

impl Opened {
    async fn item(&self, component: &str) -> Result<Option<basalt_redfish::model::FirmwareItem>, Fault> {
        let items = self.client.firmware().await.map_err(|e| fault(&e))?;
        let old = |id: &str| id.starts_with("Previous-") || id.starts_with("Available-");
        Ok(items
            .into_iter()
            .filter(|i| !i.id.as_deref().is_some_and(old))
            .find(|i| [&i.id, &i.name].into_iter().flatten().any(|name| matches_glob(component, name))))
    }
}

async fn content(file: &str) -> Result<UpdateImage, Fault> {
    let unreadable =
        |e: std::io::Error| Fault::new(FaultKind::NotAsExpected, format!("firmware file {file}: {e}"));
    let meta = tokio::fs::metadata(file).await.map_err(unreadable)?;
    if meta.len() > MAX_IMAGE_BYTES {
        let cause = format!("firmware file {file} has {} bytes: that is no firmware", meta.len());
        return Err(Fault::new(FaultKind::NotAsExpected, cause));
    }
    let bytes = tokio::fs::read(file).await.map_err(unreadable)?;
    let file_name = file.rsplit('/').next().unwrap_or(file).to_owned();
    Ok(UpdateImage::Content { file_name, bytes })
}

fn network(via: &BootVia, always: bool) -> BootOverride {
    let enabled = if always { OverrideEnabled::Continuous } else { OverrideEnabled::Once };
    match via {
        BootVia::Pxe => BootOverride::pxe(enabled),
        BootVia::BiosPxe => BootOverride { mode: Some(BootMode::Legacy), ..BootOverride::pxe(enabled) },
        BootVia::Http => BootOverride { target: BootTarget::UefiHttp, ..BootOverride::pxe(enabled) },
        BootVia::HttpUrl(url) => BootOverride::uefi_http(enabled, url.clone()),
    }
}

/// Who a server is, by its own BMC.
pub fn identity(system: &System) -> Identity {
    let found = basalt_inventory::redfish::identity(system);
    Identity {
        manufacturer: found.manufacturer,
        model: found.model,
        serial: found.serial,
        uuid: found.uuid.parse().ok(),
    }
}

/// What a BMC did wrong, without the library's advice: [`FaultKind::next`] has ours.
pub fn fault(error: &RedfishError) -> Fault {
    let kind = match &error.cause {
        Cause::Unreachable { .. } => FaultKind::Unreachable,
        Cause::TimedOut { .. } | Cause::PartialReply { .. } => FaultKind::TimedOut,
        Cause::Unknown { reason, .. } if reason.starts_with("no answer") => FaultKind::TimedOut,
        Cause::Busy { .. } | Cause::SessionLimit | Cause::Conflict { .. } | Cause::Unknown { .. } => {
            FaultKind::Busy
        }
        Cause::Unauthorised { .. } | Cause::PasswordChangeRequired { .. } | Cause::Forbidden { .. } => {
            FaultKind::WrongPassword
        }
        Cause::AccountLocked { .. } => FaultKind::AccountLocked,
        Cause::Tls { .. } | Cause::CertificateChanged { .. } | Cause::CertificateExpired { .. } => {
            FaultKind::Certificate
        }
        Cause::WrongServer { .. } => FaultKind::OtherServer,
        Cause::NotRedfish { .. } => FaultKind::NotRedfish,
        Cause::ReplyTooLarge { .. } | Cause::TooManyMembers { .. } | Cause::BadReply { .. } => {
            FaultKind::BadReply
        }
        Cause::ServerError { .. } => FaultKind::Busy,
        _ => FaultKind::Refused,
    };
    Fault::new(kind, format!("BMC {}: {}", error.bmc, first_part(&error.cause.to_string())))
}

fn first_part(text: &str) -> &str {
    text.split("; ").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("10.0.0.7", "https://10.0.0.7"),
            ("https://10.0.0.7/", "https://10.0.0.7"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("bmc-7.example:8443", "https://bmc-7.example:8443"),
            ("https://[fd00::7]:444", "https://[fd00::7]:444"),
            ("fd00::7", "https://[fd00::7]"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for bad in ["", "ftp://x", "https://", "a b", "10.0.0.7:x", "https://user:pw@host"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
