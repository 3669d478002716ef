//! The configuration: one file that is written at the start, and one with a line for each node that is read anew at each change.

use crate::decision::{Action, Decision};
use crate::images::Version;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Where addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// This service hands them out: first, last, mask.
    Range(Ipv4Addr, Ipv4Addr, Ipv4Addr),
    /// Another DHCP server does; this one only adds where to boot from (PXE specification 2.1, "proxyDHCP").
    Proxy(Ipv4Addr),
}

/// What boot answers go out on.
#[derive(Clone, Debug)]
pub struct Network {
    pub interface: String,
    /// This server on that interface.
    pub server: Ipv4Addr,
    pub http_port: u16,
    pub addresses: Addresses,
    pub router: Option<Ipv4Addr>,
}

impl Network {
    pub fn base(&self) -> String {
        format!("http://{}:{}", self.server, self.http_port)
    }
}

/// Everything the main file needs.
pub struct Dhcp<'a> {
    pub network: &'a Network,
    pub run_dir: PathBuf,
    pub tftp_dir: PathBuf,
    /// What nodes without a decision get.
    pub unknown: Action,
    pub versions: &'a [Version],
    /// Whom dnsmasq becomes once it has its ports; its own default if None.
    pub user: Option<String>,
    /// iPXE's files are in the TFTP directory: BIOS needs them.
    pub has_ipxe: bool,
}

/// Leases and TFTP transfers at once; a rack that is switched on together.
const MAX_LEASES: u32 = 4096;
const MAX_TFTP: u32 = 256;

/// The tag of a node that a version was chosen for.
fn version_tag(version: &Version) -> String {
    format!("v{}", version.to_string().replace('.', "_"))
}

/// What UEFI fetches by TFTP for a version.
pub fn tftp_name(version: Option<&Version>) -> String {
    version.map_or("basalt.efi".into(), |v| format!("basalt_{v}-netboot.efi"))
}

/// The main configuration file.
pub fn main(dhcp: &Dhcp<'_>) -> String {
    let network = dhcp.network;
    let (base, run) = (network.base(), dhcp.run_dir.display());
    let mut text = String::new();
    let mut line = |l: String| {
        text.push_str(&l);
        text.push('\n');
    };
    line("# Made by `basalt boot serve` at each start; changes are lost.".into());
    // No DNS; messages to the supervisor; nobody else's files.
    for l in ["port=0", "no-resolv", "no-hosts", "log-dhcp", "log-facility=-", "no-ping"] {
        line(l.into());
    }
    line(format!("interface={}", network.interface));
    line("bind-dynamic".into());
    line(format!("dhcp-leasefile={run}/leases"));
    line(format!("dhcp-lease-max={MAX_LEASES}"));
    line(format!("dhcp-hostsfile={run}/hosts"));
    match network.addresses {
        Addresses::Range(first, last, mask) => {
            line(format!("dhcp-range={first},{last},{mask},1h"));
            line("dhcp-authoritative".into());
            let router = network.router.map_or(String::new(), |r| format!(",{r}"));
            line(format!("dhcp-option=option:router{router}"));
        }
        Addresses::Proxy(subnet) => line(format!("dhcp-range={subnet},proxy")),
    }
    // Where the booted system finds this service; 224 to 254 are for the site (RFC 3942).
    line(format!("dhcp-option-force=224,{base}"));
    line("enable-tftp".into());
    line(format!("tftp-root={}", dhcp.tftp_dir.display()));
    line(format!("tftp-max={MAX_TFTP}"));
    if dhcp.unknown == Action::Quarantine {
        // dnsmasq tags `known` who has a line in the hosts file.
        line("dhcp-ignore=tag:!known".into());
    }
    if let Some(user) = dhcp.user.as_deref().filter(|u| *u != "root") {
        line(format!("user={user}"));
    }
    // Client architectures: RFC 4578, section 2.1, and the IANA registry that grew out of it.
    for (tag, arch) in [("bios", 0), ("efi", 7), ("efi", 9), ("efi", 11), ("efihttp", 16), ("efihttp", 19)] {
        line(format!("dhcp-match=set:{tag},option:client-arch,{arch}"));
    }
    line("dhcp-match=set:ipxe,175".into());
    line("dhcp-userclass=set:ipxe,iPXE".into());
    // UEFI 2.10, section 24.7.3.1: an offer without this class is not for HTTP boot.
    line("dhcp-option-force=tag:efihttp,60,HTTPClient".into());
    let boots = if dhcp.unknown == Action::Local { "tag:boot" } else { "tag:!stay" };
    line(format!("dhcp-boot=tag:efihttp,{boots},{base}/boot/v1/uefi.efi"));
    line(format!("dhcp-boot=tag:ipxe,tag:!efihttp,{boots},{base}/boot/v1/start.ipxe"));
    let not_pinned: String = dhcp.versions.iter().map(|v| format!(",tag:!{}", version_tag(v))).collect();
    line(format!("dhcp-boot=tag:efi,tag:!ipxe,{boots}{not_pinned},{},,{}", tftp_name(None), network.server));
    for version in dhcp.versions {
        let (tag, file) = (version_tag(version), tftp_name(Some(version)));
        line(format!("dhcp-boot=tag:efi,tag:!ipxe,{boots},tag:{tag},{file},,{}", network.server));
    }
    if dhcp.has_ipxe {
        line(format!("dhcp-boot=tag:bios,tag:!ipxe,{boots},undionly.kpxe,,{}", network.server));
    }
    if matches!(network.addresses, Addresses::Proxy(_)) {
        // In proxy mode dnsmasq boots PXE clients by these lines only.
        for system in ["X86-64_EFI", "BC_EFI", "ARM64_EFI"] {
            line(format!("pxe-service=tag:!ipxe,{boots},{system},\"Basalt\",{}", tftp_name(None)));
        }
        if dhcp.has_ipxe {
            line(format!("pxe-service=tag:!ipxe,{boots},X86PC,\"Basalt\",undionly.kpxe"));
        }
        line(format!("pxe-service=tag:ipxe,{boots},X86PC,\"Basalt\",{base}/boot/v1/start.ipxe"));
    }
    text
}

/// The file with a line per node that something was decided for. Nodes known by UUID alone are decided when they fetch.
pub fn hosts(decisions: &[Decision]) -> String {
    let mut text = String::new();
    for decision in decisions {
        let Some(mac) = decision.node.mac else { continue };
        let pinned = decision.version.as_deref().and_then(Version::parse);
        let pinned = pinned.map_or(String::new(), |v| format!(",set:{}", version_tag(&v)));
        let what = match decision.action {
            Action::Quarantine => "ignore".to_owned(),
            Action::Local => "set:stay".to_owned(),
            Action::Install | Action::Diskless => format!("set:boot{pinned}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mac},{what}");
    }
    text
}
