//! The words of `fabric.yaml`. Units are in the names; what is left out takes the default of the switch's vendor.

use crate::names::{DeviceName, InterfaceName, PortRef, VlanId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

macro_rules! model {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($body)* }
    };
    ($(#[$meta:meta])* pub enum $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($body)* }
    };
}

model! {
/// The whole fabric.
pub struct Fabric {
    /// Version of this file's grammar: 1.
    pub version: u32,
    /// Name of the fabric; what it owns on a switch is marked with it. At most 12 letters, digits and `-`.
    pub name: String,
    #[serde(default)]
    pub mtu: Mtu,
    /// The lossless class for RDMA.
    #[serde(default)]
    pub roce: Roce,
    #[serde(default)]
    pub vlans: Vec<Vlan>,
    #[serde(default)]
    pub racks: Vec<Rack>,
    pub switches: Vec<SwitchIntent>,
    /// Pairs of switches that act as one towards LAGs; they are never changed at the same time.
    #[serde(default)]
    pub pairs: Vec<Pair>,
    #[serde(default)]
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub lags: Vec<Lag>,
    /// The cabling plan, each cable with what shall run over it.
    #[serde(default)]
    pub links: Vec<Link>,
}
}

model! {
/// Largest frames.
pub struct Mtu {
    /// IP MTU of the nodes' storage ports.
    #[serde(default = "host_mtu_bytes")]
    pub host_bytes: u32,
    /// MTU of every switch port, 9100 to 9216; without it each vendor's usual value.
    #[serde(default)]
    pub switch_bytes: Option<u32>,
}
}

fn host_mtu_bytes() -> u32 {
    9000
}

impl Default for Mtu {
    fn default() -> Self {
        Self { host_bytes: host_mtu_bytes(), switch_bytes: None }
    }
}

model! {
/// RDMA over converged Ethernet, version 2: the class that loses no frame, and how congestion is signalled before it has to pause.
pub struct Roce {
    #[serde(default = "yes")]
    pub enabled: bool,
    /// DSCP of RDMA packets.
    #[serde(default = "roce_dscp")]
    pub dscp: u8,
    /// Traffic class (and queue, and PFC priority) they go to.
    #[serde(default = "roce_traffic_class")]
    pub traffic_class: u8,
    /// Congestion notification packets.
    #[serde(default)]
    pub cnp: Cnp,
    #[serde(default)]
    pub pfc: Pfc,
    /// Marking thresholds; the first row that fits a port's speed and its switch's buffer is taken. Without rows the vendor's.
    #[serde(default)]
    pub ecn: Vec<EcnRow>,
    /// Share of the link the class is guaranteed under congestion, in percent.
    #[serde(default = "roce_bandwidth_percent")]
    pub bandwidth_percent: u8,
    #[serde(default)]
    pub dcbx: DcbxMode,
}
}

fn yes() -> bool {
    true
}
fn roce_dscp() -> u8 {
    26
}
fn roce_traffic_class() -> u8 {
    3
}
fn roce_bandwidth_percent() -> u8 {
    50
}

impl Default for Roce {
    fn default() -> Self {
        Self {
            enabled: true,
            dscp: roce_dscp(),
            traffic_class: roce_traffic_class(),
            cnp: Cnp::default(),
            pfc: Pfc::default(),
            ecn: Vec::new(),
            bandwidth_percent: roce_bandwidth_percent(),
            dcbx: DcbxMode::default(),
        }
    }
}

model! {
/// Congestion notification packets: few, small, and they must not wait. Strict priority.
pub struct Cnp {
    pub dscp: u8,
    pub traffic_class: u8,
}
}

impl Default for Cnp {
    fn default() -> Self {
        Self { dscp: 48, traffic_class: 6 }
    }
}

model! {
/// Priority flow control on the RoCE traffic class.
pub struct Pfc {
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Without it the vendor's times.
    #[serde(default)]
    pub watchdog: Option<Watchdog>,
}
}

impl Default for Pfc {
    fn default() -> Self {
        Self { enabled: true, watchdog: None }
    }
}

model! {
/// What to do with a queue that a neighbour pauses without end.
pub struct Watchdog {
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    pub action: WatchdogAction,
    /// Paused this long without sending: a storm.
    pub detection_ms: u32,
    /// Unpaused this long: over.
    pub restoration_ms: u32,
}
}

model! {
#[derive(Default)]
pub enum WatchdogAction {
    /// Drop what is queued and what comes.
    #[default]
    Drop,
    /// Send on, ignoring the pause.
    Forward,
    /// Report only.
    Alert,
}
}

model! {
/// One row of the table of marking thresholds.
pub struct EcnRow {
    /// The row holds for ports up to this speed.
    pub up_to_gbps: u32,
    /// And for switches with at least this much packet buffer.
    #[serde(default)]
    pub at_least_buffer_mib: u32,
    pub min_bytes: u64,
    pub max_bytes: u64,
    /// Probability of marking at `max_bytes`.
    pub mark_percent: u8,
}
}

model! {
/// Whether the switch tells its neighbours about PFC and classes by LLDP.
#[derive(Default)]
pub enum DcbxMode {
    #[default]
    Ieee,
    Cee,
    Off,
}
}

model! {
pub struct Vlan {
    /// At most 12 letters, digits, `-`.
    pub name: String,
    pub id: VlanId,
}
}

model! {
pub struct Rack {
    pub name: String,
    /// Where it stands, in the site's own words.
    #[serde(default)]
    pub place: Option<String>,
}
}

model! {
pub enum Role {
    Leaf,
    Spine,
}
}

model! {
/// Which driver speaks to the switch.
pub enum DriverKind {
    /// SONiC by gNMI.
    SonicGnmi,
    /// SONiC by its CONFIG_DB (Redis), on the switch itself or through a tunnel.
    SonicRedis,
    /// Dell Enterprise SONiC by RESTCONF.
    DellSonic,
    /// Arista EOS by eAPI.
    Eos,
    /// NVIDIA Cumulus Linux by NVUE.
    Nvue,
    /// Open vSwitch by OVSDB.
    Ovs,
}
}

model! {
pub struct SwitchIntent {
    pub name: DeviceName,
    pub role: Role,
    #[serde(default)]
    pub rack: Option<String>,
    pub driver: DriverKind,
    pub management: Management,
    /// Packet buffer of the switch, for the ECN table; without it that of the vendor's usual switch of the speed.
    #[serde(default)]
    pub buffer_mib: Option<u32>,
    /// Ports split into several.
    #[serde(default)]
    pub breakout: Vec<Breakout>,
    /// Addresses on this switch's own interfaces (loopback, VLANs); those of routed links stand at the links.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
    /// Take over objects that the intent names and that someone else has described. Off: they are reported and left.
    #[serde(default)]
    pub adopt: bool,
}
}

model! {
/// How the switch is reached.
pub struct Management {
    /// Host name or address; `unix:/path` for a socket on this machine.
    pub address: String,
    /// Without it the usual port of the driver.
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub credentials: Option<CredentialsRef>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default = "timeout_s")]
    pub timeout_s: u32,
    /// The switch's interface by which we come, where that is one of its data ports: it is never cut.
    #[serde(default)]
    pub interface: Option<InterfaceName>,
}
}

fn timeout_s() -> u32 {
    20
}

model! {
/// Where the password or token is; never the secret itself. Exactly one of the two.
pub struct CredentialsRef {
    /// A file that only its owner can read; its first line counts.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// A variable of the environment.
    #[serde(default)]
    pub env: Option<String>,
}
}

model! {
/// How the switch proves who it is. Nothing said: refused.
#[derive(Default)]
pub struct Tls {
    /// Certificates (PEM) that vouch for it.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of its own certificate (DER), 64 hexadecimal digits; colons allowed.
    #[serde(default)]
    pub pin_sha256: Option<String>,
    /// Name in the certificate where it is not the address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Our own certificate (PEM), where the switch asks for one, as Open vSwitch does.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM), readable by nobody else.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Believe any certificate.
    #[serde(default)]
    pub insecure: bool,
    /// No TLS at all: only to this machine itself or in a closed management network.
    #[serde(default)]
    pub plaintext: bool,
}
}

model! {
/// `port` becomes `lanes` ports of `speed_gbps` each; their names are the vendor's.
pub struct Breakout {
    pub port: InterfaceName,
    pub lanes: u8,
    pub speed_gbps: u32,
}
}

model! {
pub struct InterfaceAddress {
    pub interface: InterfaceName,
    /// Address and prefix length: `10.0.0.1/24`, `2001:db8::1/64`.
    pub address: String,
}
}

model! {
/// Two switches that look like one to a LAG (MLAG, MC-LAG).
pub struct Pair {
    pub name: String,
    pub switches: [DeviceName; 2],
    pub domain_id: u16,
    /// The LAG between the two.
    pub peer_lag: String,
    /// VLAN of their own protocol.
    #[serde(default = "peer_vlan")]
    pub peer_vlan: VlanId,
    /// Addresses with prefix length by which they speak, in the order of `switches`.
    pub peer_addresses: [String; 2],
    /// MAC address they share.
    pub system_mac: String,
}
}

fn peer_vlan() -> VlanId {
    VlanId(4094)
}

model! {
pub struct Node {
    /// The name it gives by LLDP.
    pub name: DeviceName,
    #[serde(default)]
    pub rack: Option<String>,
    /// Addresses on its storage interfaces, between which frames of full size are tried; nodes configure themselves.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
}
}

model! {
/// Several links as one. Members are the links that name it; when they end at both switches of a pair it is a multi-chassis LAG.
pub struct Lag {
    pub name: String,
    /// Number of the LAG on its switches, 1 to 999; its name there is the vendor's.
    pub id: u16,
    #[serde(default)]
    pub mode: LagMode,
    /// LACP packets every second instead of every thirty.
    #[serde(default)]
    pub fast: bool,
    #[serde(default = "one")]
    pub min_links: u16,
    #[serde(default)]
    pub vlans: Option<Membership>,
    /// Addresses of its two ends, when it is routed; see [`Link::routed`].
    #[serde(default)]
    pub routed: Vec<RoutedEnd>,
}
}

fn one() -> u16 {
    1
}

model! {
#[derive(Default)]
pub enum LagMode {
    #[default]
    Lacp,
    Static,
}
}

model! {
/// VLANs by name.
#[derive(Default)]
pub struct Membership {
    #[serde(default)]
    pub untagged: Option<String>,
    #[serde(default)]
    pub tagged: Vec<String>,
}
}

model! {
pub struct RoutedEnd {
    pub device: DeviceName,
    /// Address and prefix length.
    pub address: String,
}
}

model! {
/// Forward error correction.
pub enum Fec {
    /// Reed-Solomon (RS-528 at 25G and 100G, RS-544 at 50G lanes and above).
    Rs,
    /// Fire code, base-R.
    Fc,
    Off,
    Auto,
}
}

model! {
/// A cable, and what runs over it: VLANs, or a LAG, or addresses, or nothing yet.
pub struct Link {
    pub ends: [PortRef; 2],
    #[serde(default)]
    pub speed_gbps: Option<u32>,
    /// Without it what the speed asks for.
    #[serde(default)]
    pub fec: Option<Fec>,
    #[serde(default)]
    pub vlans: Option<Membership>,
    #[serde(default)]
    pub lag: Option<String>,
    /// Addresses of the ends that are switches, when the link is routed.
    #[serde(default)]
    pub routed: Vec<RoutedEnd>,
}
}

impl Fabric {
    pub fn switch(&self, name: &DeviceName) -> Option<&SwitchIntent> {
        self.switches.iter().find(|s| &s.name == name)
    }

    pub fn pair_of(&self, switch: &DeviceName) -> Option<&Pair> {
        self.pairs.iter().find(|p| p.switches.contains(switch))
    }

    pub fn lag(&self, name: &str) -> Option<&Lag> {
        self.lags.iter().find(|l| l.name == name)
    }

    pub fn vlan(&self, name: &str) -> Option<&Vlan> {
        self.vlans.iter().find(|v| v.name == name)
    }

    /// The links with an end at `switch`, as (its own port, far end, link).
    pub fn links_of<'a>(
        &'a self,
        switch: &'a DeviceName,
    ) -> impl Iterator<Item = (&'a InterfaceName, &'a PortRef, &'a Link)> {
        self.links.iter().flat_map(move |link| {
            let [a, b] = &link.ends;
            let ends = [(a, b), (b, a)];
            ends.into_iter()
                .filter(move |(near, _)| &near.device == switch)
                .map(move |(near, far)| (&near.port, far, link))
        })
    }
}

impl Pair {
    pub fn mate(&self, switch: &DeviceName) -> &DeviceName {
        if &self.switches[0] == switch { &self.switches[1] } else { &self.switches[0] }
    }
}
