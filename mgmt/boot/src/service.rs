//! The whole service: HTTP, dnsmasq with its files, and what ties them together.

use crate::clock::now_s;
use crate::decision::{Action, Decision, Decisions};
use crate::dnsmasq::{self, Child, Dhcp, Network, News};
use crate::error::{BootError, Result};
use crate::event::{Event, Events, Step, nodes};
use crate::http::{Desk, Listening, serve, tls};
use crate::images::{Images, Version};
use crate::ipxe;
use crate::node::NodeId;
use crate::store::table::replace;
use crate::token::Tokens;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

/// How soon a decision of another process reaches dnsmasq.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MAX_ADDRESSES: usize = 4096;
const IPXE_FILES: [&str; 3] = ["undionly.kpxe", "ipxe.efi", "snponly.efi"];

/// Who answers at which address: told by DHCP, by iPXE and by booted nodes; the kernel's neighbour table where none of them did.
#[derive(Clone, Default)]
pub struct AddressBook(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    known: BTreeMap<IpAddr, NodeId>,
    oldest_first: VecDeque<IpAddr>,
}

impl AddressBook {
    pub fn learn(&self, address: IpAddr, node: NodeId) {
        if node.is_empty() {
            return;
        }
        let mut book = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if book.known.insert(address, node).is_none() {
            book.oldest_first.push_back(address);
            if book.oldest_first.len() > MAX_ADDRESSES
                && let Some(oldest) = book.oldest_first.pop_front()
            {
                book.known.remove(&oldest);
            }
        }
    }

    pub fn node_at(&self, address: IpAddr) -> NodeId {
        let known = self.0.lock().unwrap_or_else(|e| e.into_inner()).known.get(&address).copied();
        known.unwrap_or_else(|| neighbour(address).unwrap_or_default())
    }
}

/// IPv4 neighbours as the kernel knows them.
fn neighbour(address: IpAddr) -> Option<NodeId> {
    let table = std::fs::read_to_string("/proc/net/arp").ok()?;
    let line = table.lines().skip(1).find(|l| l.split_whitespace().next() == Some(&address.to_string()))?;
    let mac: crate::node::Mac = line.split_whitespace().nth(3)?.parse().ok()?;
    (mac.0 != [0; 6]).then(|| mac.into())
}

/// What `basalt boot serve` is told.
pub struct Settings {
    pub images: PathBuf,
    pub run_dir: PathBuf,
    pub listen: SocketAddr,
    pub https: Option<Https>,
    pub unknown: Action,
    /// None: another DHCP server tells nodes where to boot from.
    pub network: Option<Network>,
    pub dnsmasq: PathBuf,
    pub dnsmasq_user: Option<String>,
    /// Where iPXE's files are (Debian: `/usr/lib/ipxe`).
    pub ipxe_dir: PathBuf,
}

pub struct Https {
    pub listen: SocketAddr,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The three stores.
#[derive(Clone)]
pub struct Stores {
    pub decisions: Arc<dyn Decisions>,
    pub tokens: Arc<dyn Tokens>,
    pub events: Arc<dyn Events>,
}

/// A service with its ports bound.
pub struct Service {
    settings: Settings,
    stores: Stores,
    images: Images,
    addresses: AddressBook,
    listening: Vec<Listening>,
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
}

impl Service {
    pub async fn bind(settings: Settings, stores: Stores) -> Result<Service> {
        let images = Images::new(&settings.images);
        if images.versions()?.is_empty() {
            tracing::warn!("there is no image in {} yet; nodes are told to wait", settings.images.display());
        }
        let bind = async |at: SocketAddr| {
            let hint = "stop what listens there, or choose another port with --listen";
            let bound = TcpListener::bind(at)
                .await
                .map_err(|e| BootError::Config(format!("port {at} cannot be had: {e}; {hint}")))?;
            let address = bound.local_addr().map_err(BootError::io("the port that was bound"))?;
            Ok::<_, BootError>((bound, address))
        };
        let (listener, http) = bind(settings.listen).await?;
        let mut listening = vec![Listening { listener, tls: None }];
        let mut https = None;
        if let Some(secure) = &settings.https {
            let acceptor = tls(&secure.certificate, &secure.key)?;
            let (listener, address) = bind(secure.listen).await?;
            listening.push(Listening { listener, tls: Some(acceptor) });
            https = Some(address);
        }
        Ok(Service { settings, stores, images, addresses: AddressBook::default(), listening, http, https })
    }

    /// Serves until `stop` changes. `ready` is called once everything runs.
    pub async fn run(self, stop: watch::Receiver<bool>, ready: impl FnOnce()) -> Result<()> {
        let Service { settings, stores, images, addresses, listening, http, .. } = self;
        let base = settings.network.as_ref().map_or_else(|| format!("http://{http}"), Network::base);
        let desk = Arc::new(Desk {
            decisions: stores.decisions.clone(),
            tokens: stores.tokens.clone(),
            events: stores.events.clone(),
            images: images.clone(),
            unknown: settings.unknown,
            addresses: addresses.clone(),
            base,
        });
        let dhcp = settings.network.as_ref().map(|network| Answering {
            settings: &settings,
            network,
            stores: &stores,
            images: &images,
            addresses: &addresses,
        });
        // Written and checked before anybody is told that the service runs.
        if let Some(dhcp) = &dhcp {
            dhcp.write_files().await?;
            let (_, reload) = watch::channel(0);
            let (news, _) = mpsc::channel(1);
            Child::new(&settings.dnsmasq, &dhcp.config(), None, reload, news).check().await?;
        }
        let servers: Vec<_> =
            listening.into_iter().map(|l| tokio::spawn(serve(l, desk.clone(), stop.clone()))).collect();
        ready();
        let mut stopped = stop.clone();
        match dhcp {
            Some(dhcp) => tokio::select! {
                result = dhcp.run() => result?,
                _ = stopped.changed() => {}
            },
            None => {
                let _ = stopped.changed().await;
            }
        }
        for server in servers {
            let _ = server.await;
        }
        Ok(())
    }
}

/// dnsmasq and the files it reads.
struct Answering<'a> {
    settings: &'a Settings,
    network: &'a Network,
    stores: &'a Stores,
    images: &'a Images,
    addresses: &'a AddressBook,
}

impl Answering<'_> {
    fn config(&self) -> PathBuf {
        self.settings.run_dir.join("dnsmasq.conf")
    }
    fn tftp_dir(&self) -> PathBuf {
        self.settings.run_dir.join("tftp")
    }

    /// Writes everything dnsmasq reads; the versions and the lines of the hosts file that it was written for.
    async fn write_files(&self) -> Result<(Vec<Version>, String)> {
        let (run, tftp) = (&self.settings.run_dir, self.tftp_dir());
        let what = format!("preparing {}", run.display());
        std::fs::create_dir_all(&tftp).map_err(BootError::io(what.clone()))?;
        let versions = self.images.versions()?;
        let link = |name: &str, to: &Path| {
            let at = tftp.join(name);
            let _ = std::fs::remove_file(&at);
            std::os::unix::fs::symlink(to, at)
        };
        let images = std::path::absolute(&self.settings.images).map_err(BootError::io(what.clone()))?;
        for version in &versions {
            let name = Images::netboot(version);
            link(&name, &images.join(&name)).map_err(BootError::io(what.clone()))?;
            // The newest comes last and stays.
            link(&dnsmasq::tftp_name(None), &images.join(&name)).map_err(BootError::io(what.clone()))?;
        }
        let mut has_ipxe = false;
        for name in IPXE_FILES {
            let from = self.settings.ipxe_dir.join(name);
            if from.exists() {
                link(name, &from).map_err(BootError::io(what.clone()))?;
                has_ipxe |= name == "undionly.kpxe";
            }
        }
        let autoexec = ipxe::start(&self.network.base());
        replace(&tftp.join("autoexec.ipxe"), autoexec.as_bytes(), 0o644)
            .map_err(BootError::io(what.clone()))?;
        let config = dnsmasq::main(&Dhcp {
            network: self.network,
            run_dir: std::path::absolute(run).map_err(BootError::io(what.clone()))?,
            tftp_dir: std::path::absolute(&tftp).map_err(BootError::io(what.clone()))?,
            unknown: self.settings.unknown,
            versions: &versions,
            user: self.settings.dnsmasq_user.clone(),
            has_ipxe,
        });
        replace(&self.config(), config.as_bytes(), 0o644).map_err(BootError::io(what))?;
        let hosts = self.hosts().await?;
        self.write_hosts(&hosts)?;
        Ok((versions, hosts))
    }

    fn write_hosts(&self, hosts: &str) -> Result<()> {
        let path = self.settings.run_dir.join("hosts");
        replace(&path, hosts.as_bytes(), 0o644).map_err(BootError::io(format!("writing {}", path.display())))
    }

    /// Decisions by MAC. One that names a UUID alone gets the MAC that its node has shown.
    async fn hosts(&self) -> Result<String> {
        let mut decisions = self.stores.decisions.all().await?;
        if decisions.iter().any(|d| d.node.mac.is_none()) {
            let seen = nodes(&self.stores.events.recent(None, usize::MAX).await?, now_s());
            for decision in decisions.iter_mut().filter(|d: &&mut Decision| d.node.mac.is_none()) {
                if let Some(state) = seen.iter().find(|s| s.node.is(&decision.node)) {
                    decision.node = decision.node.with(&state.node);
                }
            }
        }
        Ok(dnsmasq::hosts(&decisions))
    }

    async fn run(&self) -> Result<()> {
        loop {
            // What is compared below is what was written: a decision made meanwhile differs from it.
            let (versions, mut hosts) = self.write_files().await?;
            let (reload, reloaded) = watch::channel(0);
            let (news, mut heard) = mpsc::channel(256);
            let child = Child::new(
                &self.settings.dnsmasq,
                &self.config(),
                self.settings.dnsmasq_user.as_deref(),
                reloaded,
                news,
            );
            // Dropped at the end of this turn, and dnsmasq with it.
            let supervised = child.supervise();
            tokio::pin!(supervised);
            let mut look = interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    () = &mut supervised => break,
                    Some(news) = heard.recv() => self.hear(news).await,
                    _ = look.tick() => match (self.images.versions(), self.hosts().await) {
                        (Ok(now), _) if now != versions => {
                            tracing::info!("the images changed; dnsmasq is started again");
                            break;
                        }
                        (_, Ok(now)) if now != hosts => {
                            self.write_hosts(&now)?;
                            hosts = now;
                            reload.send_modify(|n| *n += 1);
                        }
                        (Err(e), _) | (_, Err(e)) => tracing::warn!("{e}"),
                        _ => {}
                    }
                }
            }
        }
    }

    async fn hear(&self, news: News) {
        match news {
            News::Started => tracing::info!("dnsmasq runs on {}", self.network.interface),
            News::Ended(why, pause) => {
                tracing::error!("dnsmasq ended ({why}); it is started again in {} s", pause.as_secs());
            }
            News::Step(line) => {
                let address = line.address.map(IpAddr::V4);
                let node = match (line.mac, address) {
                    (Some(mac), _) => mac.into(),
                    (None, Some(address)) => self.addresses.node_at(address),
                    (None, None) => NodeId::default(),
                };
                if let (Step::Leased, Some(address)) = (line.step, address) {
                    self.addresses.learn(address, node);
                }
                let event = Event::new(now_s(), node, line.step, &line.detail);
                if let Err(e) = self.stores.events.record(event).await {
                    tracing::warn!("an event is lost: {e}");
                }
            }
        }
    }
}
