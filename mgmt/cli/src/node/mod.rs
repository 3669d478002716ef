//! `basalt node`: servers, from a rack of bare metal to running nodes. Speaks to BMCs itself and shares the boot service's files; needs
//! neither data plane nor agent. Exit codes 30 to 36 are in `outcome.rs` and `docs/operations/servers.md`.

mod act;
mod add;
mod check;
mod console;
mod discover;
mod firmware;
mod inspect;
mod leave;
mod media;
mod outcome;
mod provision;
mod secret;
mod show;
mod watch;

pub(crate) use outcome::Outcome;

use crate::control::CliError;
use crate::output::{Output, Row};
use basalt_boot::store::FileStore as BootStore;
use basalt_inventory::store::RecordStore;
use basalt_provision::bmc::{Opened, RedfishServers};
use basalt_provision::boot::BootDesk;
use basalt_provision::clock::SystemClock;
use basalt_provision::secrets::{Vault, VaultFile};
use basalt_provision::store::FileStore;
use basalt_provision::{List, Node, NodeName, NodeStore, ProvisionError, State};
use basalt_redfish::Limits;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// How BMCs are spoken with.
#[derive(clap::Args, Clone)]
struct Common {
    /// File with the passphrase of the secrets; else BASALT_NODE_PASSPHRASE, else it is asked for
    #[arg(long, global = true, env = "BASALT_NODE_PASSPHRASE_FILE", value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
    /// CA that vouches for the certificates of BMCs (PEM)
    #[arg(long, global = true, env = "BASALT_BMC_CA", value_name = "PATH")]
    ca: Option<PathBuf>,
    /// Seconds that one request to a BMC may take
    #[arg(long, global = true, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
    timeout: u64,
    /// BMCs asked at the same time
    #[arg(long, global = true, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    parallel: u16,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Find BMCs in a range of addresses; nothing is changed and no password is sent
    Discover(discover::Args),
    /// Put a server into the list, after its BMC has said who it is
    Add(Box<add::Args>),
    /// Read the inventory from BMCs, and say what changed
    Inspect(inspect::Args),
    /// List the nodes with state and health
    List {
        /// Those that were removed as well
        #[arg(long)]
        removed: bool,
    },
    /// Show what is known of a node
    Show {
        node: NodeName,
        /// Its steps as well
        #[arg(long)]
        history: bool,
    },
    /// Where nodes are not as expected, what is wrong with them and what is about to fail
    Check(check::Args),
    /// Bring nodes from bare metal to running; takes up what was interrupted, tries again what failed
    Provision(Box<provision::Args>),
    /// Show or change the power state
    Power(act::PowerArgs),
    /// Show or change where a server boots from
    Boot(act::BootArgs),
    /// List firmware versions, or update one
    Firmware(firmware::Args),
    /// Show or change the images that a server sees as its CD
    Media(media::Args),
    /// Light up a server, or one of its drives, so that it can be found
    Locate(act::LocateArgs),
    /// Open the serial console (serial over LAN)
    Console(console::Args),
    /// Show the logs of a BMC, newest first
    Logs(act::LogsArgs),
    /// Give a node another user and password, or accept a new certificate of its BMC
    Login(leave::LoginArgs),
    /// Say that the hardware of a node was exchanged
    Replace(leave::ReplaceArgs),
    /// Take a node out of the list; its server is left as it is
    Remove(leave::RemoveArgs),
}

/// The files of `basalt node`, and what opens BMCs.
struct Desk {
    dir: PathBuf,
    common: Common,
    store: Arc<FileStore>,
    records: RecordStore,
    boot: BootDesk,
}

impl Desk {
    fn open(dir: &Path, common: Common) -> Result<Desk, CliError> {
        let nodes = dir.join("nodes");
        let boot = Arc::new(BootStore::open(&dir.join("boot"))?);
        Ok(Desk {
            store: Arc::new(FileStore::open(&nodes.join("list"))?),
            records: RecordStore::open(&nodes.join("records")).map_err(failed)?,
            boot: BootDesk { decisions: boot.clone(), events: boot },
            common,
            dir: nodes,
        })
    }

    fn list(&self) -> List {
        List { store: self.store.clone(), boot: self.boot.clone(), clock: Arc::new(SystemClock) }
    }

    fn vault_file(&self) -> Result<VaultFile, CliError> {
        let passphrase = secret::secret(
            self.common.passphrase_file.as_deref(),
            "BASALT_NODE_PASSPHRASE",
            "passphrase of the secrets",
        )?;
        Ok(VaultFile::new(&self.vault_path(), passphrase))
    }

    fn vault_path(&self) -> PathBuf {
        self.dir.join("secrets.json")
    }

    fn limits(&self) -> Limits {
        let request = Duration::from_secs(self.common.timeout);
        Limits { request, connect: request.min(Duration::from_secs(5)), ..Limits::default() }
    }

    fn servers(&self, vault: Vault) -> RedfishServers {
        RedfishServers::new(vault, self.limits(), self.common.ca.clone())
    }

    /// The BMCs of the list, with the secrets that were kept.
    fn known_servers(&self) -> Result<RedfishServers, CliError> {
        Ok(self.servers(self.vault_file()?.read()?))
    }

    async fn node(&self, name: &NodeName) -> Result<Node, CliError> {
        let node = self.store.get(name).await?;
        Ok(node
            .filter(|n| n.state != State::Removed)
            .ok_or_else(|| ProvisionError::NoSuchNode(name.clone()))?)
    }

    /// Those that are named, or all of the list.
    async fn chosen(&self, which: &Which) -> Result<Vec<Node>, CliError> {
        if which.all {
            let mut all = self.store.all().await?;
            all.retain(|n| n.state != State::Removed);
            return Ok(all);
        }
        if which.nodes.is_empty() {
            return Err(CliError::Usage("say which nodes, or --all".into()));
        }
        let mut nodes: Vec<Node> = Vec::new();
        for name in &which.nodes {
            if nodes.iter().all(|n| n.name != *name) {
                nodes.push(self.node(name).await?);
            }
        }
        Ok(nodes)
    }

    /// Opens the BMC of one node, does `work` with it, and ends the session.
    async fn with_server<T>(
        &self,
        name: &NodeName,
        work: impl AsyncFnOnce(&Node, Opened) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let node = self.node(name).await?;
        let servers = self.known_servers()?;
        let done = async {
            let opened = servers.open(&node.bmc, &node.identity).await?;
            same_server(&node, &opened)?;
            work(&node, opened).await
        }
        .await;
        servers.close().await;
        done
    }
}

/// Nothing is done with a server that is not the one of the list.
fn same_server(node: &Node, opened: &Opened) -> Result<(), CliError> {
    match node.identity.differs(&opened.identity) {
        None => Ok(()),
        Some(why) => {
            use basalt_provision::fault::{Fault, FaultKind};
            let cause = format!("the BMC at {} answers for {why}; nothing was changed there", node.bmc.url);
            Err(Fault::new(FaultKind::OtherServer, cause).into())
        }
    }
}

/// Which nodes.
#[derive(clap::Args)]
struct Which {
    /// Names of nodes
    #[arg(value_name = "NODE")]
    nodes: Vec<NodeName>,
    /// All nodes of the list
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
}

pub(crate) fn run(args: Args, output: Output, dir: &Path) -> Result<(), CliError> {
    let desk = Desk::open(dir, args.common)?;
    // BMCs answer with TLS: two threads shake hands while a third writes files.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        match args.verb {
            Verb::Discover(args) => discover::discover(&desk, &args, output).await,
            Verb::Add(args) => add::add(&desk, &args, output).await,
            Verb::Inspect(args) => inspect::inspect(&desk, &args, output).await,
            Verb::List { removed } => show::list(&desk, removed, output).await,
            Verb::Show { node, history } => show::show(&desk, &node, history, output).await,
            Verb::Check(args) => check::check(&desk, &args, output).await,
            Verb::Provision(args) => provision::provision(&desk, &args, output).await,
            Verb::Power(args) => act::power(&desk, &args, output).await,
            Verb::Boot(args) => act::boot(&desk, &args, output).await,
            Verb::Firmware(args) => firmware::firmware(&desk, &args, output).await,
            Verb::Media(args) => media::media(&desk, &args, output).await,
            Verb::Locate(args) => act::locate(&desk, &args).await,
            Verb::Console(args) => console::console(&desk, &args).await,
            Verb::Logs(args) => act::logs(&desk, &args, output).await,
            Verb::Login(args) => leave::login(&desk, &args, output).await,
            Verb::Replace(args) => leave::replace(&desk, &args, output).await,
            Verb::Remove(args) => leave::remove(&desk, &args, output).await,
        }
    })
}

fn failed(e: impl std::fmt::Display) -> CliError {
    CliError::Failed(e.to_string())
}

fn redfish(e: basalt_redfish::RedfishError) -> CliError {
    basalt_provision::bmc::fault(&e).into()
}

fn headings<const N: usize>(names: [&str; N]) -> Vec<Row> {
    vec![names.map(String::from).to_vec()]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.to_owned() }
}

/// What a person reads of a file with a name.
fn read_file(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|e| CliError::Usage(format!("reading {}: {e}", path.display())))
}

fn password(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    secret::secret(file, "BASALT_BMC_PASSWORD", "password of the BMC")
}

/// `3 min`, `2 d`.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
