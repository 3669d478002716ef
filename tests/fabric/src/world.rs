//! Namespaces, cables, switches and nodes.

use crate::probe::{self, Echo};
use crate::process::{Running, run, until};
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::intent::Fabric;
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub(crate) const HOST_MTU: usize = 9000;

/// A bench for one test.
pub(crate) struct World {
    logs: PathBuf,
    namespaces: RefCell<Vec<String>>,
    cables: Cell<u32>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// Once, before the first: `/run` is where namespaces and sockets are kept, and the host's is not ours.
    pub(crate) fn prepare() -> Result<(), String> {
        run(&["mount", "-t", "tmpfs", "tmpfs", "/run"])?;
        run(&["ip", "link", "set", "lo", "up"]).map(drop)
    }

    pub(crate) fn new(logs: &Path) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        // Logs of an earlier run say nothing about this one.
        let _ = std::fs::remove_dir_all(logs);
        std::fs::create_dir_all(logs).map_err(text)?;
        let logs = logs.canonicalize().map_err(text)?;
        // lldpd's own: where it locks itself in.
        for folder in ["/run/netns", "/run/lldpd"] {
            std::fs::create_dir_all(folder).map_err(text)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(text)?;
        Ok(Self { logs, namespaces: RefCell::default(), cables: Cell::new(0), runtime })
    }

    /// Takes the namespaces away, with the cables that end in them.
    pub(crate) fn end(&self) {
        for name in self.namespaces.take() {
            // The next test makes its own under other names; a leftover is not its concern.
            let _ = run(&["ip", "netns", "del", &name]);
        }
    }

    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn namespace(&self, name: &str) -> Result<(), String> {
        run(&["ip", "netns", "add", name])?;
        self.namespaces.borrow_mut().push(name.to_owned());
        run(&["ip", "-n", name, "link", "set", "lo", "up"]).map(drop)
    }

    /// A cable between two ports; `None` is the namespace of the tests themselves.
    pub(crate) fn cable(&self, a: (Option<&str>, &str), b: (Option<&str>, &str)) -> Result<(), String> {
        let number = self.cables.replace(self.cables.get() + 1);
        let ends = [(format!("ca{number}"), a), (format!("cb{number}"), b)];
        run(&["ip", "link", "add", &ends[0].0, "type", "veth", "peer", "name", &ends[1].0])?;
        for (temporary, (namespace, name)) in &ends {
            if let Some(namespace) = namespace {
                run(&["ip", "link", "set", temporary, "netns", namespace])?;
            }
            link(*namespace, &["set", temporary, "name", name])?;
            // The userspace datapath sees frames before a NIC would have filled in their checksums.
            in_namespace(*namespace, &["ethtool", "-K", name, "tx", "off"])?;
            link(*namespace, &["set", name, "up"])?;
        }
        Ok(())
    }

    /// Writes down beside the logs how everything stands, when something did not come out as it should; while it all still runs.
    pub(crate) fn explained(&self, outcome: Result<(), String>) -> Result<(), String> {
        outcome.map_err(|reason| {
            let mut text = format!("{reason}\n");
            for name in self.namespaces.borrow().iter() {
                text += &state(name);
            }
            let file = self.logs.join("state.txt");
            match std::fs::write(&file, text) {
                Ok(()) => format!("{reason} (state: {})", file.display()),
                Err(error) => format!("{reason} (its state could not be written: {error})"),
            }
        })
    }

    pub(crate) fn engine(&self, fabric: &str, options: Options) -> Result<Engine, String> {
        let fabric = Fabric::from_yaml(fabric).map_err(|e| e.to_string())?;
        Ok(Engine::connect(fabric, options))
    }
}

/// How a namespace, its Open vSwitch and its lldpd stand.
fn state(namespace: &str) -> String {
    let mut text = String::new();
    let mut add = |words: &str, said: Result<String, String>| {
        text += &format!("== {namespace}: {words}\n{}\n", said.unwrap_or_else(|reason| reason));
    };
    for words in ["-s -d link", "addr", "neigh", "route"] {
        let asked: Vec<&str> = words.split(' ').collect();
        add(words, run(&[&["ip", "-n", namespace], asked.as_slice()].concat()));
    }
    let socket = format!("/run/lldpd-{namespace}.sock");
    for words in ["show neighbors details", "show statistics", "show interfaces"] {
        let asked: Vec<&str> = words.split(' ').collect();
        add(words, run(&[&["lldpcli", "-u", &socket], asked.as_slice()].concat()));
    }
    let folder = PathBuf::from(format!("/run/ovs-{namespace}"));
    if folder.exists() {
        for words in ["bond/show", "lacp/show", "fdb/show br0", "dpctl/show -s", "dpctl/dump-flows -m"] {
            add(words, ask_daemon(&folder, words));
        }
    }
    text
}

fn ask_daemon(folder: &Path, words: &str) -> Result<String, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let words: Vec<&str> = words.split(' ').collect();
    let mut answer = Err("ovs-vswitchd does not run".to_owned());
    for socket in entries.flatten().map(|entry| entry.path()) {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        if !(name.starts_with("ovs-vswitchd.") && name.ends_with(".ctl")) {
            continue;
        }
        let target = socket.display().to_string();
        answer = run(&[&["ovs-appctl", "--timeout=5", "-t", &target], words.as_slice()].concat());
        // A daemon that was killed leaves its socket; the one that answers lives.
        if answer.is_ok() {
            break;
        }
    }
    answer
}

/// In the namespace of the calling thread; see [`OpenVswitch::detach`].
fn detach(port: &str) -> Result<(), String> {
    for (family, name, value) in
        [("ipv4", "arp_ignore", "8"), ("ipv4", "rp_filter", "1"), ("ipv6", "disable_ipv6", "1")]
    {
        let path = format!("/proc/sys/net/{family}/conf/{port}/{name}");
        // A kernel without IPv6 has nothing to switch off.
        if Path::new(&path).exists() {
            std::fs::write(&path, value).map_err(|e| format!("{path}: {e}"))?;
        }
    }
    Ok(())
}

fn link(namespace: Option<&str>, arguments: &[&str]) -> Result<(), String> {
    in_namespace(namespace, &[&["ip", "link"], arguments].concat())
}

fn in_namespace(namespace: Option<&str>, program: &[&str]) -> Result<(), String> {
    match namespace {
        Some(namespace) => run(&[&["ip", "netns", "exec", namespace], program].concat()).map(drop),
        None => run(program).map(drop),
    }
}

/// lldpd in a namespace, sending every second and forgetting after two.
struct Lldpd {
    socket: PathBuf,
    #[expect(dead_code, reason = "runs until dropped")]
    process: Running,
}

impl Lldpd {
    fn start(world: &World, namespace: &str, ports: &str) -> Result<Self, String> {
        let socket = PathBuf::from(format!("/run/lldpd-{namespace}.sock"));
        let _ = std::fs::remove_file(&socket);
        let log = world.logs.join(format!("lldpd-{namespace}.log"));
        let path = socket.display().to_string();
        // Read before the first frame is sent: what was said before it was told its name would be heard for two minutes.
        let settings = PathBuf::from(format!("/run/lldpd-{namespace}.conf"));
        let words = format!(
            "configure system hostname {namespace}\nconfigure lldp portidsubtype ifname\nconfigure lldp tx-hold 2\nconfigure lldp tx-interval 1\n"
        );
        std::fs::write(&settings, words).map_err(|e| format!("{}: {e}", settings.display()))?;
        let settings = settings.display().to_string();
        let program = ["lldpd", "-d", "-u", &path, "-O", &settings, "-I", ports];
        let process = Running::start(namespace, &log, &program, &[])?;
        until(Duration::from_secs(10), || run(&["lldpcli", "-u", &path, "show", "configuration"]))?;
        Ok(Self { socket, process })
    }
}

/// Open vSwitch in a namespace: its own database, daemon and directory.
pub(crate) struct OpenVswitch {
    pub(crate) name: String,
    folder: PathBuf,
    log: PathBuf,
    database: Mutex<Option<Running>>,
    daemon: Mutex<Option<Running>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl OpenVswitch {
    fn start(world: &World, namespace: &str) -> Result<Self, String> {
        let folder = PathBuf::from(format!("/run/ovs-{namespace}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let database = folder.join("conf.db").display().to_string();
        run(&["ovsdb-tool", "create", &database, "/usr/share/openvswitch/vswitch.ovsschema"])?;
        let log = world.logs.join(format!("ovs-{namespace}.log"));
        let (database, daemon) = (Mutex::default(), Mutex::default());
        let vswitch = Self { name: namespace.to_owned(), folder, log, database, daemon };
        vswitch.start_database()?;
        vswitch.start_daemon()?;
        vswitch.vsctl("--no-wait init")?;
        vswitch.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev")?;
        Ok(vswitch)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("db.sock")
    }

    fn launch(&self, program: &[&str]) -> Result<Running, String> {
        let folder = self.folder.as_path();
        let variables = [("OVS_RUNDIR", folder), ("OVS_LOGDIR", folder), ("OVS_DBDIR", folder)];
        Running::start(&self.name, &self.log, program, &variables)
    }

    pub(crate) fn start_database(&self) -> Result<(), String> {
        let file = self.folder.join("conf.db").display().to_string();
        let unix = format!("--remote=punix:{}", self.socket().display());
        let program = ["ovsdb-server", &file, &unix, "--remote=ptcp:6640", "-vconsole:warn"];
        *held(&self.database) = Some(self.launch(&program)?);
        until(Duration::from_secs(10), || self.vsctl("--no-wait show").map(drop))
    }

    pub(crate) fn start_daemon(&self) -> Result<(), String> {
        let remote = format!("unix:{}", self.socket().display());
        let program = ["ovs-vswitchd", &remote, "--disable-system", "-vconsole:info"];
        *held(&self.daemon) = Some(self.launch(&program)?);
        Ok(())
    }

    pub(crate) fn kill_database(&self) {
        held(&self.database).take();
    }

    pub(crate) fn kill_daemon(&self) {
        held(&self.daemon).take();
    }

    pub(crate) fn vsctl(&self, arguments: &str) -> Result<String, String> {
        let database = format!("--db=unix:{}", self.socket().display());
        let words: Vec<&str> = arguments.split(' ').collect();
        run(&[&["ovs-vsctl", &database, "--timeout=10"], words.as_slice()].concat())
    }

    /// `ovs-appctl`: what the daemon itself knows, as opposed to its database.
    fn ask_daemon(&self, words: &str) -> Result<String, String> {
        ask_daemon(&self.folder, words)
    }

    /// Takes a port from the kernel's own IP.
    ///
    /// The userspace datapath reads frames by a packet socket, which gets a copy: the kernel goes on to answer ARP for every address
    /// of the host on every port ("ARP flux", `arp_ignore` in the kernel's ip-sysctl.rst), so that a neighbour may learn the MAC of
    /// a bond's member, and a frame that the bond then hashes to the other member is nobody's.
    pub(crate) fn detach(&self, port: &str) -> Result<(), String> {
        let port = port.to_owned();
        probe::within(&self.name, move || detach(&port))
    }

    /// All ports whose names begin so.
    pub(crate) fn detach_all(&self, prefix: &str) -> Result<(), String> {
        let prefix = prefix.to_owned();
        probe::within(&self.name, move || {
            let ports = std::fs::read_dir("/proc/sys/net/ipv4/conf").map_err(|e| e.to_string())?;
            let names = ports.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| name.starts_with(&prefix)).try_for_each(|name| detach(&name))
        })
    }

    /// `ip link set PORT WORDS` in the switch's namespace.
    pub(crate) fn link(&self, port: &str, words: &str) -> Result<(), String> {
        let words: Vec<&str> = words.split(' ').collect();
        link(Some(&self.name), &[&["set", port], words.as_slice()].concat())
    }
}

/// A switch of the fabric, with lldpd and the companion beside it.
pub(crate) struct Switch {
    pub(crate) ovs: OpenVswitch,
    /// Where its database answers, out of band.
    pub(crate) address: Ipv4Addr,
    #[expect(dead_code, reason = "run until dropped")]
    beside: (Lldpd, Running),
}

impl Switch {
    /// `number`: 1, 2, ... for its management address. Its data ports are called `eth...`.
    pub(crate) fn start(world: &World, name: &str, number: u8) -> Result<Self, String> {
        world.namespace(name)?;
        let ovs = OpenVswitch::start(world, name)?;
        let outside = format!("mgmt-{name}");
        world.cable((None, &outside), (Some(name), "mgmt"))?;
        let address = Ipv4Addr::new(10, 255, number, 2);
        run(&["ip", "addr", "add", &format!("10.255.{number}.1/24"), "dev", &outside])?;
        run(&["ip", "-n", name, "addr", "add", &format!("{address}/24"), "dev", "mgmt"])?;
        let lldpd = Lldpd::start(world, name, "eth*")?;
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = program.with_file_name("basalt-ovs-companion").display().to_string();
        let log = world.logs.join(format!("companion-{name}.log"));
        let (database, socket) = (ovs.socket().display().to_string(), lldpd.socket.display().to_string());
        let words =
            [program.as_str(), "--database", &database, "--lldpd-socket", &socket, "--every-ms", "300"];
        let companion = Running::start(name, &log, &words, &[])?;
        Ok(Self { ovs, address, beside: (lldpd, companion) })
    }
}

/// A node: an address on one port, or on a bond of two (by Open vSwitch, as the kernel may lack bonding).
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    echo: RefCell<Option<Echo>>,
    lldpd: RefCell<Option<Lldpd>>,
    bond: Option<OpenVswitch>,
}

impl Node {
    /// Cabled later, by [`World::cable`]; then [`Node::up`].
    pub(crate) fn new(world: &World, name: &str, number: u8) -> Result<Self, String> {
        world.namespace(name)?;
        let address = Ipv4Addr::new(10, 0, 0, number);
        Ok(Self {
            name: name.to_owned(),
            address,
            echo: RefCell::default(),
            lldpd: RefCell::default(),
            bond: None,
        })
    }

    /// With its address on port `p0`.
    pub(crate) fn up(&self, world: &World) -> Result<(), String> {
        let n = &self.name;
        run(&["ip", "-n", n, "link", "set", "p0", "mtu", &HOST_MTU.to_string(), "up"])?;
        run(&["ip", "-n", n, "addr", "add", &format!("{}/24", self.address), "dev", "p0"])?;
        self.services(world)
    }

    fn services(&self, world: &World) -> Result<(), String> {
        *self.lldpd.borrow_mut() = Some(Lldpd::start(world, &self.name, "p*")?);
        *self.echo.borrow_mut() = Some(Echo::start(&self.name)?);
        Ok(())
    }

    /// With its address on an LACP bond of `p0` and `p1`.
    pub(crate) fn bonded(&mut self, world: &World) -> Result<(), String> {
        let n = &self.name;
        let ovs = OpenVswitch::start(world, n)?;
        ovs.detach("p0")?;
        ovs.detach("p1")?;
        ovs.vsctl("add-bond br0 bond0 p0 p1 lacp=active bond_mode=balance-tcp other_config:lacp-time=fast")?;
        ovs.vsctl(&format!(
            "set interface p0 mtu_request={HOST_MTU} -- set interface p1 mtu_request={HOST_MTU}"
        ))?;
        ovs.vsctl(&format!("set interface br0 mtu_request={HOST_MTU}"))?;
        run(&["ip", "-n", n, "link", "set", "br0", "up"])?;
        in_namespace(Some(n), &["ethtool", "-K", "br0", "tx", "off"])?;
        run(&["ip", "-n", n, "addr", "add", &format!("{}/24", self.address), "dev", "br0"])?;
        self.bond = Some(ovs);
        self.services(world)
    }

    pub(crate) fn reaches(&self, other: &Self, size: usize) -> Result<bool, String> {
        probe::passes(&self.name, other.address, size, 3)
    }

    /// Within some seconds, as bonds and bridges need a moment.
    pub(crate) fn must_reach(&self, other: &Self, size: usize) -> Result<(), String> {
        let reached = probe::passes(&self.name, other.address, size, 40)?;
        if reached {
            Ok(())
        } else {
            let why = self.way_to(other);
            Err(format!("{size} bytes from {} do not reach {}: {why}", self.name, other.name))
        }
    }

    /// What each side holds of the other, for messages.
    fn way_to(&self, other: &Self) -> String {
        let at = |node: &str, words: &[&str]| {
            let said = run(&[&["ip", "-br", "-n", node], words].concat()).unwrap_or_else(|reason| reason);
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let address = other.address.to_string();
        let mut text = format!(
            "{} has {address} at [{}], {} has the ports [{}]",
            self.name,
            at(&self.name, &["neigh", "show", "to", &address]),
            other.name,
            at(&other.name, &["link"])
        );
        if let Some(bond) = &other.bond {
            let state = bond.ask_daemon("lacp/show").unwrap_or_else(|reason| reason);
            let words =
                state.lines().map(str::trim).filter(|l| l.starts_with("status") || l.starts_with("member"));
            text += &format!(", its bond [{}]", words.collect::<Vec<_>>().join("; "));
        }
        text
    }

    pub(crate) fn must_not_reach(&self, other: &Self, size: usize) -> Result<(), String> {
        let reached = self.reaches(other, size)?;
        if reached {
            Err(format!("{size} bytes from {} reach {} all the same", self.name, other.name))
        } else {
            Ok(())
        }
    }

    pub(crate) fn streams_to(&self, other: &Self, bytes: usize) -> Result<(), String> {
        probe::stream(&self.name, other.address, bytes)
    }
}
