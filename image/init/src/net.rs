//! Network: every Ethernet port up, addresses by DHCP (IPv6 comes from the kernel's own autoconfiguration).

use crate::block::names;
use crate::console::say;
use crate::dhcp::{Kind, Lease, Request, decode};
use crate::sys;
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// More ports than that are not on a server.
const MOST_PORTS: usize = 32;

/// Brings the loopback up, and starts a client per Ethernet port that stays for the life of the node. Ports whose
/// driver comes later are taken up as they appear.
pub(crate) fn start(dhcp: bool) {
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")) {
        let _ = sys::link_up(socket.as_fd(), "lo");
    }
    if !dhcp {
        return;
    }
    std::thread::spawn(|| {
        let mut known = Vec::new();
        loop {
            for name in names(Path::new("/sys/class/net")) {
                if !known.contains(&name) && known.len() < MOST_PORTS && is_ethernet(&name) {
                    known.push(name.clone());
                    std::thread::spawn(move || port(&name));
                }
            }
            std::thread::sleep(if known.is_empty() {
                Duration::from_millis(50)
            } else {
                Duration::from_secs(2)
            });
        }
    });
}

fn read(name: &str, file: &str) -> String {
    let path = Path::new("/sys/class/net").join(name).join(file);
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A port with hardware behind it; virtual devices and InfiniBand have none or another type.
fn is_ethernet(name: &str) -> bool {
    read(name, "type") == "1" && Path::new("/sys/class/net").join(name).join("device").exists()
}

/// How many ports there are, and how many of them have a link.
pub(crate) fn links() -> crate::install::Links {
    let all: Vec<String> =
        names(Path::new("/sys/class/net")).into_iter().filter(|n| is_ethernet(n)).collect();
    let up = all.iter().filter(|n| read(n, "carrier") == "1").count();
    crate::install::Links { up, all: all.len() }
}

fn mac(name: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        read(name, "address").split(':').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
    bytes.try_into().ok()
}

fn port(name: &str) {
    let Some(mac) = mac(name) else { return };
    let up = UdpSocket::bind("0.0.0.0:0").and_then(|socket| sys::link_up(socket.as_fd(), name));
    if let Err(e) = up {
        say(&format_args!("network {name}: {e}"));
        return;
    }
    let mut pause = Duration::from_millis(250);
    let mut current: Option<Lease> = None;
    loop {
        match ask(name, mac, current.as_ref()) {
            Ok(lease) => {
                if let Err(e) = apply(name, &lease, current.as_ref()) {
                    say(&format_args!("network {name}: {e}"));
                }
                if current.as_ref() != Some(&lease) {
                    crate::boot::leased(mac, lease.boot.as_deref());
                }
                // T1 of RFC 2131: half of the lease.
                pause = Duration::from_millis(250);
                std::thread::sleep(lease.lasts / 2);
                current = Some(lease);
            }
            // The address stays until a server takes it away: a storage node that drops its address because a DHCP
            // server is down would do more harm than one that keeps it.
            Err(Refused) => current = None,
        }
        if current.is_none() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }
}

/// No usable answer.
struct Refused;

fn ask(name: &str, mac: [u8; 6], current: Option<&Lease>) -> Result<Lease, Refused> {
    let socket = open(name).map_err(|_| Refused)?;
    // Unique enough: it tells our exchanges on this wire apart.
    let xid =
        u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]) ^ (crate::console::uptime_s() * 1000.0) as u32;
    if let Some(lease) = current {
        let renew = Request { kind: Kind::Request, xid, mac, current: Some(lease.address), offer: None };
        return match exchange(&socket, &renew, SocketAddrV4::new(lease.server, 67)) {
            Some((Kind::Ack, lease)) => Ok(lease),
            Some((Kind::Nak, _)) => Err(Refused),
            _ => Ok(lease.clone()),
        };
    }
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let discover = Request { kind: Kind::Discover, xid, mac, current: None, offer: None };
    let (Kind::Offer, offer) = exchange(&socket, &discover, everybody).ok_or(Refused)? else {
        return Err(Refused);
    };
    let request = Request { kind: Kind::Request, xid, mac, current: None, offer: Some(&offer) };
    match exchange(&socket, &request, everybody) {
        Some((Kind::Ack, lease)) => Ok(lease),
        _ => Err(Refused),
    }
}

fn open(name: &str) -> std::io::Result<UdpSocket> {
    let raw = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&raw, sockopt::ReuseAddr, &true)?;
    setsockopt(&raw, sockopt::BindToDevice, &OsString::from(name))?;
    let address = nix::sys::socket::SockaddrIn::new(0, 0, 0, 0, 68);
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&raw), &address)?;
    let socket = UdpSocket::from(raw);
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// Sends, twice if need be, and waits for the answer.
fn exchange(socket: &UdpSocket, request: &Request<'_>, to: SocketAddrV4) -> Option<(Kind, Lease)> {
    let message = request.encode();
    let mut buffer = [0; 1500];
    for wait in [Duration::from_secs(1), Duration::from_secs(3)] {
        socket.send_to(&message, to).ok()?;
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            socket.set_read_timeout(Some(left)).ok()?;
            let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
            if let Some(answer) = decode(&buffer[..length], request.xid, request.mac) {
                return Some(answer);
            }
        }
    }
    None
}

fn apply(name: &str, lease: &Lease, before: Option<&Lease>) -> std::io::Result<()> {
    if before == Some(lease) {
        return Ok(());
    }
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    if let Some(mtu) = lease.mtu {
        sys::set_mtu(socket.as_fd(), name, mtu)?;
    }
    sys::set_address(socket.as_fd(), name, lease.address, lease.mask)?;
    if let Some(gateway) = lease.gateway {
        sys::add_default_route(socket.as_fd(), gateway)?;
    }
    let servers: String = lease.dns.iter().map(|a| format!("nameserver {a}\n")).collect();
    fs::write("/run/resolv.conf", servers)?;
    if let Some(host) = &lease.host_name {
        let _ = nix::unistd::sethostname(host);
    }
    let bits = u32::from(lease.mask).count_ones();
    say(&format_args!(
        "network {name}: {}/{bits} from {}, lease {} s",
        lease.address,
        lease.server,
        lease.lasts.as_secs()
    ));
    Ok(())
}
