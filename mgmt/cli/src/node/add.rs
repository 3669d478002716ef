//! `basalt node add`: into the list, once its BMC has said who it is.

use super::outcome::{Ending, Outcome};
use super::{Desk, headings, or_dash, password, read_file, secret};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_boot::decision::Action;
use basalt_boot::node::Mac;
use basalt_provision::bmc::{Endpoint, fault};
use basalt_provision::fault::{Fault, FaultKind};
use basalt_provision::node::{BmcAddress, BootVia, Identity, Wanted};
use basalt_provision::secrets::{Credential, Vault};
use basalt_provision::{Node, NodeName};
use basalt_redfish::discovery::presented_certificate;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of the node
    #[arg(required_unless_present = "from")]
    name: Option<NodeName>,
    #[command(flatten)]
    bmc: BmcArgs,
    /// Add the servers of this file (YAML: a list of {name, bmc, serial, mac, rack}) with the same credentials
    #[arg(long, value_name = "PATH", conflicts_with_all = ["name", "bmc", "serial"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    wanted: WantedArgs,
}

/// A BMC, and how to get in.
#[derive(clap::Args)]
pub(super) struct BmcArgs {
    /// Address of its BMC: 10.0.0.7, https://10.0.0.7:8443
    #[arg(long, value_name = "ADDRESS")]
    pub(super) bmc: Option<Endpoint>,
    /// The server must have this serial number
    #[arg(long)]
    pub(super) serial: Option<String>,
    /// User of the BMC; with it the password is taken from --password-file, BASALT_BMC_PASSWORD or a prompt
    #[arg(long, env = "BASALT_BMC_USER")]
    pub(super) user: Option<String>,
    /// File with the password
    #[arg(long, value_name = "PATH", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
    /// Name under which user and password are kept; servers with the same password share one
    #[arg(long, default_value = "default")]
    pub(super) credential: String,
    /// Accept the certificate that the BMC presents, and no other from then on
    #[arg(long)]
    pub(super) accept_certificate: bool,
    /// Accept the certificate with this SHA-256 alone
    #[arg(long, value_name = "SHA256", conflicts_with = "accept_certificate")]
    pub(super) certificate: Option<basalt_redfish::Fingerprint>,
}

#[derive(clap::Args)]
pub(super) struct WantedArgs {
    /// Write the image to its disk
    #[arg(long, conflicts_with = "diskless")]
    pub(super) install: bool,
    /// Run the image from memory (the default)
    #[arg(long)]
    pub(super) diskless: bool,
    /// Version of the image; the newest by default
    #[arg(long, value_name = "VERSION")]
    pub(super) image: Option<String>,
    /// How the firmware fetches the image: pxe, bios-pxe, http, or an address for UEFI HTTP boot
    #[arg(long, value_parser = boot_via)]
    pub(super) via: Option<BootVia>,
    /// Port that it boots from; all of its inventory by default
    #[arg(long, value_name = "MAC")]
    pub(super) mac: Vec<Mac>,
    /// Serial number of the drive to install on
    #[arg(long, value_name = "SERIAL")]
    pub(super) drive: Option<String>,
    /// Serial number of a drive whose contents may go
    #[arg(long, value_name = "SERIAL")]
    pub(super) wipe: Vec<String>,
}

fn boot_via(text: &str) -> Result<BootVia, String> {
    match text {
        "pxe" => Ok(BootVia::Pxe),
        "bios-pxe" => Ok(BootVia::BiosPxe),
        "http" => Ok(BootVia::Http),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(BootVia::HttpUrl(url.to_owned()))
        }
        other => Err(format!("{other:?} is none of pxe, bios-pxe, http, http://…")),
    }
}

impl WantedArgs {
    /// Changes what is asked for; the rest stays.
    pub(super) fn apply(&self, wanted: &mut Wanted) {
        if self.install {
            wanted.action = Action::Install;
        }
        if self.diskless {
            wanted.action = Action::Diskless;
        }
        if self.image.is_some() {
            wanted.version.clone_from(&self.image);
        }
        if let Some(via) = &self.via {
            wanted.boot = via.clone();
        }
        if !self.mac.is_empty() {
            wanted.macs.clone_from(&self.mac);
        }
        if self.drive.is_some() {
            wanted.install_drive.clone_from(&self.drive);
        }
        wanted.wipe.extend(self.wipe.iter().cloned());
    }

    pub(super) fn is_empty(&self) -> bool {
        let choices = !(self.install || self.diskless) && self.image.is_none() && self.via.is_none();
        choices && self.mac.is_empty() && self.drive.is_none() && self.wipe.is_empty()
    }
}

/// One server of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: NodeName,
    bmc: String,
    #[serde(default)]
    serial: Option<String>,
    #[serde(default)]
    mac: Vec<Mac>,
    #[serde(default)]
    certificate_sha256: Option<String>,
    #[serde(default)]
    credential: Option<String>,
}

#[derive(Serialize)]
struct Added {
    name: String,
    bmc: String,
    manufacturer: String,
    model: String,
    serial: String,
}

/// What is asked to be added.
struct Asked {
    name: NodeName,
    endpoint: Endpoint,
    serial: Option<String>,
    credential: String,
    certificate: Option<String>,
    wanted: Wanted,
}

pub(super) async fn add(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let asked = asked(args)?;
    let file = desk.vault_file()?;
    let mut vault = file.read()?;
    let fresh = credential(&args.bmc)?;
    if let Some(fresh) = &fresh {
        vault = vault.with(&args.bmc.credential, fresh.clone());
    }
    let mut work = JoinSet::new();
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(desk.common.parallel.into()));
    let one = asked.len() == 1;
    for asked in asked {
        let name = asked.name.clone();
        // A person can be asked about one certificate, not about five hundred.
        let trust = certificate(desk, &args.bmc, &asked, one);
        let (vault, ca, limits, slots) =
            (vault.clone(), desk.common.ca.clone(), desk.limits(), slots.clone());
        let accept = match trust {
            Trusted::Known(pin) => Ok(pin),
            Trusted::Ask => Err(()),
        };
        let interactive = one && !args.bmc.accept_certificate;
        work.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let done = async {
                let pin = match accept {
                    Ok(pin) => pin,
                    Err(()) => Some(presented(&asked.endpoint, interactive).await?),
                };
                let bmc = BmcAddress {
                    url: asked.endpoint.to_string(),
                    credential: asked.credential.clone(),
                    certificate_sha256: pin,
                };
                let identity = who(vault, limits, ca, &bmc, asked.serial.as_deref()).await?;
                Ok::<_, Fault>((asked, bmc, identity))
            }
            .await;
            (name, done)
        });
    }
    let mut results = Vec::new();
    while let Some(done) = work.join_next().await {
        results.push(done.map_err(super::failed)?);
    }
    results.sort_by(|a, b| a.0.cmp(&b.0));
    // The password is kept once it has opened something.
    if let Some(fresh) = fresh
        && results.iter().any(|(_, r)| r.is_ok())
    {
        file.change(&args.bmc.credential, Some(fresh))?;
    }
    let mut added = Vec::new();
    let mut errors: Vec<(NodeName, CliError)> = Vec::new();
    for (name, result) in results {
        let done = match result {
            Ok((asked, bmc, identity)) => {
                let node = Node::new(name.clone(), bmc, identity, asked.wanted, basalt_boot::now_s());
                desk.list().add(node).await.map_err(CliError::from)
            }
            Err(fault) => Err(fault.into()),
        };
        match done {
            Ok(node) => added.push(Added {
                name: node.name.to_string(),
                bmc: node.bmc.url,
                manufacturer: node.identity.manufacturer,
                model: node.identity.model,
                serial: node.identity.serial,
            }),
            Err(error) => errors.push((name, error)),
        }
    }
    print(output, &added, |added| {
        let mut rows = headings(["NODE", "BMC", "MANUFACTURER", "MODEL", "SERIAL"]);
        rows.extend(added.iter().map(|a| {
            vec![
                a.name.clone(),
                a.bmc.clone(),
                or_dash(&a.manufacturer),
                or_dash(&a.model),
                or_dash(&a.serial),
            ]
        }));
        rows
    })?;
    match errors.len() {
        0 => Ok(()),
        1 if one => Err(errors.remove(0).1),
        failed => {
            for (name, error) in &errors {
                eprintln!("{name}: {error}");
            }
            Err(Outcome::new(
                Ending::NoAnswer,
                format!("{failed} servers were not added; the reasons are above"),
            )
            .into())
        }
    }
}

fn asked(args: &Args) -> Result<Vec<Asked>, CliError> {
    let mut wanted = Wanted::default();
    args.wanted.apply(&mut wanted);
    let Some(file) = &args.from else {
        let (Some(name), Some(endpoint)) = (&args.name, &args.bmc.bmc) else {
            return Err(CliError::Usage("give the node a name, and say where its BMC is with --bmc".into()));
        };
        return Ok(vec![Asked {
            name: name.clone(),
            endpoint: endpoint.clone(),
            serial: args.bmc.serial.clone(),
            credential: args.bmc.credential.clone(),
            certificate: args.bmc.certificate.map(|c| c.to_string()),
            wanted,
        }]);
    };
    let bad = |e: &dyn std::fmt::Display| CliError::Usage(format!("{}: {e}", file.display()));
    let entries: Vec<Entry> = serde_saphyr::from_str(&read_file(file)?).map_err(|e| bad(&e))?;
    let asked = entries.into_iter().map(|entry| {
        let mut wanted = wanted.clone();
        if !entry.mac.is_empty() {
            wanted.macs = entry.mac;
        }
        Ok(Asked {
            name: entry.name,
            endpoint: entry.bmc.parse::<Endpoint>().map_err(|e| bad(&e))?,
            serial: entry.serial,
            credential: entry.credential.unwrap_or_else(|| args.bmc.credential.clone()),
            certificate: entry.certificate_sha256,
            wanted,
        })
    });
    asked.collect()
}

/// User and password, where a user is given.
pub(super) fn credential(args: &BmcArgs) -> Result<Option<Credential>, CliError> {
    let Some(user) = &args.user else { return Ok(None) };
    Ok(Some(Credential { user: user.clone(), password: password(args.password_file.as_deref())? }))
}

enum Trusted {
    /// This certificate; None: a CA, or no TLS.
    Known(Option<String>),
    Ask,
}

fn certificate(desk: &Desk, args: &BmcArgs, asked: &Asked, one: bool) -> Trusted {
    match (&asked.certificate, &desk.common.ca) {
        _ if asked.endpoint.plaintext => Trusted::Known(None),
        (Some(pin), _) => Trusted::Known(Some(pin.clone())),
        (None, Some(_)) => Trusted::Known(None),
        (None, None) if args.accept_certificate || one => Trusted::Ask,
        // Refused later, with its cause.
        (None, None) => Trusted::Known(None),
    }
}

/// The certificate that the BMC presents, once somebody has agreed to it.
pub(super) async fn presented(endpoint: &Endpoint, interactive: bool) -> Result<String, Fault> {
    let pin = presented_certificate(&endpoint.host, endpoint.port, Duration::from_secs(10)).await;
    let pin = pin.map_err(|e| fault(&e))?.to_string();
    if interactive {
        let question = format!("{endpoint} presents the certificate {pin} (SHA-256). Accept it from now on?");
        let agreed = tokio::task::spawn_blocking(move || secret::agreed(&question)).await.unwrap_or(false);
        if !agreed {
            let cause = format!("the certificate {pin} of {endpoint} was not accepted");
            return Err(Fault::new(FaultKind::Certificate, cause));
        }
    }
    Ok(pin)
}

/// Logs in and asks who the server is; nothing is changed.
pub(super) async fn who(
    vault: Vault,
    limits: basalt_redfish::Limits,
    ca: Option<PathBuf>,
    bmc: &BmcAddress,
    serial: Option<&str>,
) -> Result<Identity, Fault> {
    let servers = basalt_provision::bmc::RedfishServers::new(vault, limits, ca);
    let expected = Identity { serial: serial.unwrap_or_default().to_owned(), ..Identity::default() };
    let opened = servers.open(bmc, &expected).await;
    let identity = opened.map(|o| o.identity.clone());
    servers.close().await;
    let identity = identity?;
    if let Some(why) = expected.differs(&identity) {
        let cause = format!("the BMC at {} answers for {why}; nothing was changed there", bmc.url);
        return Err(Fault::new(FaultKind::OtherServer, cause));
    }
    Ok(identity)
}
