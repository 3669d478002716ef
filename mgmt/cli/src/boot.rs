//! `basalt boot`: the boot service, and its decisions, tokens and events. Works without a data plane or an agent.

use crate::control::CliError;
use crate::output::{Output, Row, print};
use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::dnsmasq::{Addresses, Network};
use basalt_boot::event::{Event, Events, NodeState, nodes};
use basalt_boot::node::NodeId;
use basalt_boot::now_s;
use basalt_boot::service::{Https, Service, Settings, Stores};
use basalt_boot::store::FileStore;
use basalt_boot::token::{Token, Tokens};
use basalt_upgrade::time::rfc3339;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Run the boot service until it is stopped
    Serve(Box<Serve>),
    /// Show the nodes that were seen, how far each got, and which boot hangs
    Nodes {
        /// Only those that hang or failed
        #[arg(long)]
        trouble: bool,
    },
    /// Show what happened, oldest first
    Events {
        /// MAC address or UUID; all nodes by default
        node: Option<NodeId>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on and print what comes
        #[arg(long)]
        follow: bool,
    },
    /// Decide what a node does when it boots
    Decide {
        /// MAC address or UUID; none lists what was decided
        node: Option<NodeId>,
        /// install, diskless, local or quarantine; `default` takes a decision back
        #[arg(requires = "node")]
        action: Option<String>,
        /// Version to boot; the newest by default
        #[arg(long, value_name = "VERSION")]
        boot_version: Option<String>,
        /// With install: serial number or path of the disk; without, the node takes the only one, or the smallest that is blank
        #[arg(long, value_name = "SERIAL|PATH", requires = "action")]
        disk: Option<String>,
        /// With install: what is on that disk may go, once
        #[arg(long, requires = "action")]
        wipe: bool,
        /// A word for people
        #[arg(long, default_value = "")]
        note: String,
    },
    /// One-shot tokens
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(clap::Subcommand)]
pub(crate) enum TokenVerb {
    /// Make one; it is shown once
    Create {
        /// Only this node may use it; the first that boots with it by default
        #[arg(long)]
        node: Option<NodeId>,
        /// Hours until it expires
        #[arg(long, default_value_t = 24)]
        hours: u64,
    },
    /// List them, without their secrets
    List,
    /// Make one worthless
    Revoke { id: String },
}

#[derive(clap::Args)]
pub(crate) struct Serve {
    /// Directory with images: the output of `make image`
    #[arg(long, default_value = "target/image/out")]
    images: PathBuf,
    /// Address and port of the HTTP server
    #[arg(long, env = "BASALT_BOOT_LISTEN", default_value = "0.0.0.0:8069")]
    listen: SocketAddr,
    /// Address and port of the HTTPS server; needs --cert and --key
    #[arg(long, requires = "cert", requires = "key")]
    https: Option<SocketAddr>,
    /// Certificate chain, PEM
    #[arg(long)]
    cert: Option<PathBuf>,
    /// Private key, PEM
    #[arg(long)]
    key: Option<PathBuf>,
    /// Network port whose nodes are answered
    #[arg(long, required_unless_present = "no_dhcp", conflicts_with = "no_dhcp")]
    interface: Option<String>,
    /// This server's address on that port
    #[arg(long, required_unless_present = "no_dhcp")]
    address: Option<Ipv4Addr>,
    /// Addresses to hand out: FIRST-LAST
    #[arg(long, conflicts_with = "proxy")]
    range: Option<String>,
    /// Mask that goes with them
    #[arg(long, default_value = "255.255.255.0")]
    mask: Ipv4Addr,
    /// Router to name to nodes; none by default
    #[arg(long)]
    router: Option<Ipv4Addr>,
    /// Another DHCP server hands out addresses on this subnet; add only where to boot from
    #[arg(long, value_name = "SUBNET")]
    proxy: Option<Ipv4Addr>,
    /// HTTP only: the site's DHCP server tells nodes where to boot from
    #[arg(long)]
    no_dhcp: bool,
    /// What nodes get that nothing was decided for
    #[arg(long, default_value = "quarantine")]
    unknown: Action,
    /// The dnsmasq program
    #[arg(long, default_value = "dnsmasq")]
    dnsmasq: PathBuf,
    /// User that dnsmasq becomes
    #[arg(long)]
    dnsmasq_user: Option<String>,
    /// Directory with undionly.kpxe, for BIOS
    #[arg(long, default_value = "/usr/lib/ipxe")]
    ipxe: PathBuf,
}

pub(crate) fn run(verb: Verb, output: Output, dir: &Path) -> Result<(), CliError> {
    let store = FileStore::open(&dir.join("boot"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::Failed(format!("no runtime: {e}")))?;
    runtime.block_on(async {
        match verb {
            Verb::Serve(serve) => run_service(*serve, store, dir).await,
            Verb::Nodes { trouble } => {
                let mut all = nodes(&store.recent(None, usize::MAX).await?, now_s());
                let failed = basalt_boot::event::Step::Failed;
                all.retain(|n| !trouble || n.hung.is_some() || n.step == failed);
                print(output, &all, |all| nodes_table(all))
            }
            Verb::Events { node, limit, follow } => show_events(&store, node, limit, follow, output).await,
            Verb::Decide { node: None, .. } => {
                print(output, &Decisions::all(&store).await?, |all| decisions_table(all))
            }
            Verb::Decide { node: Some(node), action: None, .. } => {
                let found = store.for_node(&node).await?;
                let found =
                    found.ok_or_else(|| basalt_boot::BootError::NotFound(format!("decision for {node}")))?;
                print(output, &[found], |all| decisions_table(all))
            }
            Verb::Decide {
                node: Some(node),
                action: Some(action),
                boot_version: version,
                disk,
                wipe,
                note,
            } => {
                if action == "default" {
                    return match store.forget(&node).await? {
                        true => Ok(()),
                        false => Err(basalt_boot::BootError::NotFound(format!("decision for {node}")).into()),
                    };
                }
                let action: Action = action.parse().map_err(|e| CliError::Usage(format!("{e}, default")))?;
                if action != Action::Install && (disk.is_some() || wipe) {
                    return Err(CliError::Usage("--disk and --wipe go with install".into()));
                }
                let decision = Decision { node, action, version, disk, wipe, note, decided_s: now_s() };
                store.decide(decision.clone()).await?;
                print(output, &[decision], |all| decisions_table(all))
            }
            Verb::Token(TokenVerb::Create { node, hours }) => {
                let (text, token) = store.make(node, now_s(), hours.saturating_mul(3600)).await?;
                let shown =
                    serde_json::json!({ "token": text, "id": token.id, "expires_s": token.expires_s });
                print(output, &shown, |_| vec![vec![text.clone()]])
            }
            Verb::Token(TokenVerb::List) => {
                print(output, &Tokens::all(&store).await?, |all| tokens_table(all))
            }
            Verb::Token(TokenVerb::Revoke { id }) => match store.revoke(&id).await? {
                true => Ok(()),
                false => Err(basalt_boot::BootError::NotFound(format!("token {id}")).into()),
            },
        }
    })
}

async fn run_service(serve: Serve, store: FileStore, dir: &Path) -> Result<(), CliError> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BASALT_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let network = match (&serve.interface, serve.address) {
        (Some(interface), Some(server)) => Some(Network {
            interface: interface.clone(),
            server,
            http_port: serve.listen.port(),
            addresses: addresses(&serve)?,
            router: serve.router,
        }),
        _ => None,
    };
    let https = match (serve.https, serve.cert, serve.key) {
        (Some(listen), Some(certificate), Some(key)) => Some(Https { listen, certificate, key }),
        _ => None,
    };
    let settings = Settings {
        images: serve.images,
        // Beside the stores, since dnsmasq reads here under another user.
        run_dir: dir.join("boot-run"),
        listen: serve.listen,
        https,
        unknown: serve.unknown,
        network,
        dnsmasq: serve.dnsmasq,
        dnsmasq_user: serve.dnsmasq_user,
        ipxe_dir: serve.ipxe,
    };
    let store = Arc::new(store);
    let stores = Stores { decisions: store.clone(), tokens: store.clone(), events: store };
    let service = Service::bind(settings, stores).await?;
    let (stop, stopped) = watch::channel(false);
    let failed = |e: std::io::Error| CliError::Failed(format!("signals: {e}"));
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("stopping: transfers under way have 10 s to end");
        let _ = stop.send(true);
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(130);
    });
    let line = {
        let secure = service.https.map_or(String::new(), |a| format!(" boots=https://{a}"));
        format!("ready pid={} boot=http://{}{secure}", std::process::id(), service.http)
    };
    service.run(stopped, || println!("{line}")).await?;
    Ok(())
}

fn addresses(serve: &Serve) -> Result<Addresses, CliError> {
    if let Some(subnet) = serve.proxy {
        return Ok(Addresses::Proxy(subnet));
    }
    let usage = || {
        CliError::Usage("say which addresses to hand out (--range FIRST-LAST), or --proxy SUBNET where another server does".into())
    };
    let (first, last) = serve.range.as_deref().and_then(|r| r.split_once('-')).ok_or_else(usage)?;
    match (first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
            Ok(Addresses::Range(first, last, serve.mask))
        }
        _ => Err(usage()),
    }
}

async fn show_events(
    store: &FileStore,
    node: Option<NodeId>,
    limit: usize,
    follow: bool,
    output: Output,
) -> Result<(), CliError> {
    let mut shown = store.recent(node.as_ref(), limit).await?;
    print(output, &shown, |all| events_table(all, true))?;
    if !follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let now = store.recent(node.as_ref(), usize::MAX).await?;
        let known = shown.last().and_then(|last| now.iter().rposition(|e| e == last)).map_or(0, |at| at + 1);
        if known < now.len() {
            print(output, &&now[known..], |all| events_table(all, false))?;
            shown = now;
        }
    }
}

fn headings<const N: usize>(names: [&str; N]) -> Vec<Row> {
    vec![names.map(String::from).to_vec()]
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".into(), |v| v.to_string())
}

fn nodes_table(all: &[NodeState]) -> Vec<Row> {
    let mut rows = headings(["MAC", "UUID", "STEP", "SINCE", "DETAIL"]);
    rows.extend(all.iter().map(|n| {
        let detail = n.hung.as_ref().map_or(n.detail.clone(), |why| format!("HANGS: {why}"));
        vec![or_dash(n.node.mac), or_dash(n.node.uuid), n.step.name().into(), rfc3339(n.last_s), detail]
    }));
    rows
}

fn events_table(all: &[Event], with_headings: bool) -> Vec<Row> {
    let mut rows = if with_headings { headings(["AT", "NODE", "STEP", "DETAIL"]) } else { Vec::new() };
    rows.extend(
        all.iter().map(|e| vec![rfc3339(e.at_s), e.node.to_string(), e.step.name().into(), e.detail.clone()]),
    );
    rows
}

fn decisions_table(all: &[Decision]) -> Vec<Row> {
    let mut rows = headings(["NODE", "ACTION", "VERSION", "DISK", "DECIDED", "NOTE"]);
    rows.extend(all.iter().map(|d| {
        let version = d.version.clone().unwrap_or_else(|| "newest".into());
        let disk = or_dash(d.disk.as_ref()) + if d.wipe { " (wiped)" } else { "" };
        vec![d.node.to_string(), d.action.name().into(), version, disk, rfc3339(d.decided_s), d.note.clone()]
    }));
    rows
}

fn tokens_table(all: &[Token]) -> Vec<Row> {
    let mut rows = headings(["ID", "NODE", "EXPIRES", "BOOTED", "JOINED"]);
    rows.extend(all.iter().map(|t| {
        vec![
            t.id.clone(),
            or_dash(t.node),
            rfc3339(t.expires_s),
            or_dash(t.booted_s.map(rfc3339)),
            or_dash(t.joined_s.map(rfc3339)),
        ]
    }));
    rows
}
