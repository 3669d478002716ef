//! The real dnsmasq under the real service, asked by DHCP packets as firmware sends them, over a veth pair between two network
//! namespaces. Needs `unshare`, `ip` and `dnsmasq`; no root. `BASALT_REQUIRE_DNSMASQ` set: they have to be there.

mod common;

use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::dnsmasq::{Addresses, Network};
use basalt_boot::event::{Events, Step};
use basalt_boot::node::{Mac, NodeId};
use basalt_boot::now_s;
use basalt_boot::service::{Service, Settings, Stores};
use basalt_boot::store::FileStore;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

#[test]
fn in_a_namespace_of_its_own() {
    let there = |program: &str, argument: &str| {
        Command::new(program).arg(argument).output().is_ok_and(|o| o.status.success())
    };
    let all = there("dnsmasq", "--version") && there("ip", "-V");
    if !all || !Command::new("unshare").args(["-rn", "true"]).status().is_ok_and(|s| s.success()) {
        assert!(
            std::env::var_os("BASALT_REQUIRE_DNSMASQ").is_none(),
            "dnsmasq, iproute2 or user namespaces are missing"
        );
        eprintln!("skipped: dnsmasq, iproute2 or user namespaces are missing");
        return;
    }
    let inner = Command::new("unshare")
        .arg("-rn")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = [inner.stdout, inner.stderr].concat();
    assert!(inner.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// A thread in a network namespace of its own, at the other end of the wire.
struct Other(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Other {
    fn new() -> Other {
        let (tell, told) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tid_tell, tid_told) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tid_tell.send(nix::unistd::gettid()).unwrap();
            told.into_iter().for_each(|work| work());
        });
        let tid = tid_told.recv().unwrap().to_string();
        ip("link add veth0 type veth peer name veth1");
        ip(&format!("link set veth1 netns {tid}"));
        ip("addr add 10.77.0.1/24 dev veth0");
        ip("link set veth0 up");
        ip("link set lo up");
        let other = Other(tell);
        other.run(|| {
            ip("addr add 10.77.0.50/24 dev veth1");
            ip("link set veth1 up");
            ip("route add default dev veth1");
        });
        other
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.0.send(Box::new(move || drop(tell.send(work())))).unwrap();
        told.recv().expect("the other end panicked")
    }

    fn ask(&self, client: &Client) -> Option<Reply> {
        let client = client.clone();
        self.run(move || client.lease())
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What firmware says of itself.
#[derive(Clone)]
struct Client {
    mac: Mac,
    architecture: Option<u16>,
    vendor_class: &'static str,
    user_class: Option<&'static str>,
}

#[derive(Debug)]
struct Reply {
    offered: Ipv4Addr,
    next_server: Ipv4Addr,
    file: String,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Reply {
    fn text(&self, option: u8) -> String {
        String::from_utf8_lossy(self.options.get(&option).map_or(&[][..], |v| v))
            .trim_end_matches('\0')
            .to_owned()
    }
}

impl Client {
    fn new(last: u8, architecture: u16, vendor_class: &'static str) -> Client {
        Client {
            mac: Mac([0x52, 0x54, 0, 0, 0, last]),
            architecture: Some(architecture),
            vendor_class,
            user_class: None,
        }
    }

    /// RFC 2131, figure 1; options of RFC 4578.
    fn packet(&self, kind: u8, requested: Option<(Ipv4Addr, Ipv4Addr)>) -> Vec<u8> {
        let mut packet = vec![0; 236];
        packet[..4].copy_from_slice(&[1, 1, 6, 0]);
        packet[4..8].copy_from_slice(&[9, 9, 9, self.mac.0[5]]);
        packet[10] = 0x80; // answer by broadcast
        packet[28..34].copy_from_slice(&self.mac.0);
        packet.extend([99, 130, 83, 99, 53, 1, kind, 55, 9, 1, 3, 43, 54, 60, 66, 67, 97, 224]);
        let mut option = |code: u8, value: &[u8]| {
            packet.extend([code, value.len() as u8]);
            packet.extend(value);
        };
        if let Some((address, server)) = requested {
            option(50, &address.octets());
            option(54, &server.octets());
        }
        if !self.vendor_class.is_empty() {
            option(60, self.vendor_class.as_bytes());
        }
        if let Some(class) = self.user_class {
            option(77, class.as_bytes());
        }
        if let Some(architecture) = self.architecture {
            option(93, &architecture.to_be_bytes());
            option(94, &[1, 3, 16]);
            option(97, &[0; 17]);
        }
        packet.push(255);
        packet.resize(packet.len().max(300), 0);
        packet
    }

    /// DISCOVER, OFFER, REQUEST, ACK. None: no answer within a second.
    fn lease(&self) -> Option<Reply> {
        let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
        socket.set_broadcast(true).unwrap();
        let offer = self.exchange(&socket, &self.packet(1, None))?;
        if offer.offered.is_unspecified() {
            return Some(offer);
        }
        self.exchange(&socket, &self.packet(3, Some((offer.offered, SERVER))))
    }

    fn exchange(&self, socket: &UdpSocket, packet: &[u8]) -> Option<Reply> {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.send_to(packet, "255.255.255.255:67").unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1000) {
            let mut bytes = [0; 1500];
            let Ok((len, _)) = socket.recv_from(&mut bytes) else { continue };
            if len > 240 && bytes[0] == 2 && bytes[4..8] == packet[4..8] {
                return Some(parse(&bytes[..len]));
            }
        }
        None
    }
}

fn parse(bytes: &[u8]) -> Reply {
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let mut options = BTreeMap::new();
    let mut at = 240;
    while at + 1 < bytes.len() && bytes[at] != 255 {
        let len = usize::from(bytes[at + 1]);
        options.insert(bytes[at], bytes[at + 2..at + 2 + len].to_vec());
        at += 2 + len;
    }
    let file = String::from_utf8_lossy(&bytes[108..236]).trim_end_matches('\0').to_owned();
    let mut reply = Reply { offered: address(16), next_server: address(20), file, options };
    if reply.file.is_empty() {
        reply.file = reply.text(67);
    }
    reply
}

/// RFC 1350, octet mode.
fn tftp(name: &str) -> Result<Vec<u8>, String> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.send_to(&[b"\0\x01", name.as_bytes(), b"\0octet\0"].concat(), (SERVER, 69)).unwrap();
    let mut whole = Vec::new();
    loop {
        let mut bytes = [0; 600];
        let (len, from) = socket.recv_from(&mut bytes).map_err(|e| e.to_string())?;
        if bytes[1] != 3 {
            return Err(String::from_utf8_lossy(&bytes[4..len]).into_owned());
        }
        whole.extend(&bytes[4..len]);
        socket.send_to(&[0, 4, bytes[2], bytes[3]], from).unwrap();
        if len < 516 {
            return Ok(whole);
        }
    }
}

async fn serve(
    dir: &Path,
    addresses: Addresses,
    port: u16,
) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let store = Arc::new(FileStore::open(&dir.join("boot")).unwrap());
    let settings = Settings {
        images: dir.join("images"),
        run_dir: dir.join("run"),
        listen: (SERVER, port).into(),
        https: None,
        unknown: Action::Quarantine,
        network: Some(Network {
            interface: "veth0".into(),
            server: SERVER,
            http_port: port,
            addresses,
            router: None,
        }),
        dnsmasq: "dnsmasq".into(),
        dnsmasq_user: Some("root".into()),
        ipxe_dir: dir.join("ipxe"),
    };
    let stores = Stores { decisions: store.clone(), tokens: store.clone(), events: store };
    let service = Service::bind(settings, stores).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move { service.run(stopped, || ()).await.unwrap() });
    (stop, task)
}

async fn decide(store: &FileStore, last: u8, action: Action, version: Option<&str>) {
    let node: NodeId = Mac([0x52, 0x54, 0, 0, 0, last]).into();
    let decision = Decision {
        node,
        action,
        version: version.map(str::to_owned),
        disk: None,
        wipe: false,
        note: String::new(),
        decided_s: now_s(),
    };
    store.decide(decision).await.unwrap();
    // The service looks every second; dnsmasq reads the file in a moment.
    tokio::time::sleep(Duration::from_millis(1300)).await;
}

async fn has(store: &FileStore, mac: Mac, step: Step, detail: &str) -> bool {
    for _ in 0..20 {
        let events = store.recent(Some(&mac.into()), 100).await.unwrap();
        if events.iter().any(|e| e.step == step && e.detail.contains(detail)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[test]
#[ignore = "runs inside in_a_namespace_of_its_own"]
fn inside() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let other = Other::new();
    runtime.block_on(clients(other));
}

async fn clients(other: Other) {
    let dir = common::dir("dhcp");
    let image: Vec<u8> = (0..150_000u32).map(|i| (i / 3) as u8).collect();
    common::image(&dir, "1.0.0", b"old");
    common::image(&dir, "1.1.0", &image);
    std::fs::create_dir_all(dir.join("ipxe")).unwrap();
    std::fs::write(dir.join("ipxe/undionly.kpxe"), b"ipxe").unwrap();
    let store = FileStore::open(&dir.join("boot")).unwrap();
    let range = Addresses::Range(Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 200), MASK);
    let (stop, task) = serve(&dir, range, 8069).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let uefi = Client::new(1, 7, "PXEClient:Arch:00007:UNDI:003016");
    assert!(other.ask(&uefi).is_none(), "quarantine gets no answer");
    assert!(has(&store, uefi.mac, Step::Ignored, "quarantine").await);

    decide(&store, 1, Action::Diskless, None).await;
    let reply = other.ask(&uefi).expect("no answer after the decision");
    assert_eq!((reply.file.as_str(), reply.next_server), ("basalt.efi", SERVER), "{reply:?}");
    assert_eq!(reply.text(224), "http://10.77.0.1:8069");
    assert!((100..=200).contains(&reply.offered.octets()[3]));
    assert!(has(&store, uefi.mac, Step::Leased, "10.77.0.").await);
    assert_eq!(other.run(|| tftp("basalt.efi")).unwrap(), image);
    assert!(
        String::from_utf8(other.run(|| tftp("autoexec.ipxe")).unwrap()).unwrap().contains("script.ipxe?mac=")
    );
    other.run(|| tftp("../boot/tokens.json")).unwrap_err();

    let http =
        Client { architecture: Some(16), vendor_class: "HTTPClient:Arch:00016:UNDI:003001", ..uefi.clone() };
    let reply = other.ask(&http).unwrap();
    assert_eq!(
        (reply.text(60).as_str(), reply.file.as_str()),
        ("HTTPClient", "http://10.77.0.1:8069/boot/v1/uefi.efi")
    );

    let bios =
        Client { architecture: Some(0), vendor_class: "PXEClient:Arch:00000:UNDI:002001", ..uefi.clone() };
    assert_eq!(other.ask(&bios).unwrap().file, "undionly.kpxe");
    let ipxe = Client { user_class: Some("iPXE"), ..bios.clone() };
    assert_eq!(other.ask(&ipxe).unwrap().file, "http://10.77.0.1:8069/boot/v1/start.ipxe");

    // dnsmasq dies; the service starts it again. A pinned version and a decision for the own disk, meanwhile.
    let pid = std::fs::read_to_string(dir.join("run/dnsmasq.pid")).unwrap();
    assert!(Command::new("kill").arg("-9").arg(pid.trim()).status().unwrap().success());
    decide(&store, 2, Action::Local, None).await;
    decide(&store, 1, Action::Install, Some("1.0.0")).await;
    assert_eq!(other.ask(&uefi).expect("dnsmasq did not come back").file, "basalt_1.0.0-netboot.efi");
    let local = other
        .ask(&Client { mac: Mac([0x52, 0x54, 0, 0, 0, 2]), ..uefi.clone() })
        .expect("an address, but no file");
    assert_eq!((local.file.as_str(), local.offered.is_unspecified()), ("", false));

    // A DHCP client of other people.
    if Command::new("busybox").arg("true").status().is_ok_and(|s| s.success()) {
        other.run(|| ip("link set veth1 address 52:54:00:00:00:02"));
        let leased = other.run(|| {
            Command::new("busybox")
                .args(["udhcpc", "-i", "veth1", "-n", "-q", "-f", "-t", "5", "-s", "/bin/true"])
                .output()
                .unwrap()
        });
        assert!(leased.status.success(), "{}", String::from_utf8_lossy(&leased.stderr));
    }
    stop.send(true).unwrap();
    task.await.unwrap();
    let pid = std::fs::read_to_string(dir.join("run/dnsmasq.pid")).unwrap();
    let runs = || std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|c| !c.is_empty());
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(if runs() { 50 } else { 0 })).await;
    }
    assert!(!runs(), "dnsmasq outlives the service");

    // Beside another DHCP server.
    let (stop, task) = serve(&dir, Addresses::Proxy(Ipv4Addr::new(10, 77, 0, 0)), 8070).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let offer = other.ask(&uefi).expect("no proxy offer");
    assert!(offer.offered.is_unspecified(), "a proxy offers no address: {offer:?}");
    assert_eq!(offer.text(60), "PXEClient");
    assert!(
        other.ask(&Client { architecture: None, vendor_class: "", ..uefi.clone() }).is_none(),
        "and says nothing to others"
    );
    stop.send(true).unwrap();
    task.await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
