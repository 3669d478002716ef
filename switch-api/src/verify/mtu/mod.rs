//! The largest frames, end to end: packets that must not be fragmented, sent from node to node. A switch may say 9100 and forward 1500
//! (a wrong profile, a tunnel, a port in between that is not in the intent), so only traffic proves it.
//!
//! [`probes`] says between which addresses to try, a [`Prober`] sends (the node side, or [`ping::Ping`]), [`measure`] looks for the largest
//! packet that passes, and [`judge()`] names the port that is to blame where the answers tell.

mod judge;
pub mod ping;

pub use judge::judge;

use crate::intent::{Fabric, InterfaceAddress, Node};
use crate::names::{DeviceName, InterfaceName};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// An address of a node, and the interface it is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub node: DeviceName,
    pub interface: InterfaceName,
    pub address: IpAddr,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.interface)
    }
}

/// One way to try.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub from: Endpoint,
    pub to: Endpoint,
}

/// What became of one packet size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Passed,
    /// No answer.
    Lost,
    /// Somebody on the way, or the sender itself, says that it is too large, and what would not be.
    TooBig {
        path_bytes: Option<u32>,
    },
    /// It could not be tried: no such address here, no right to send, no way to the node.
    NotTried {
        reason: String,
    },
}

/// Sends packets from a node.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Sends echo requests of `ip_bytes` (IP header included) that must not be fragmented, and waits for an answer, seconds at most.
    async fn probe(&self, probe: &Probe, ip_bytes: u32) -> Reach;
}

/// What passes on one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Packets of the wanted size.
    Whole,
    /// Packets of this size, and none larger.
    UpTo(u32),
    /// Not even small ones.
    Nothing,
    NotTried(String),
}

/// What every IP network carries (RFC 8200).
const SMALL_BYTES: u32 = 1280;
/// What a port carries that nobody has configured.
const USUAL_BYTES: u32 = 1500;

/// The ways to try: within each subnet every address to its neighbour in a ring, and across to the one farthest from it. That is two
/// packets per address however large the fabric, every address is in up to four ways, and so one bad port stands out.
pub fn probes(fabric: &Fabric) -> Vec<Probe> {
    let mut subnets: BTreeMap<(IpAddr, u8), Vec<Endpoint>> = BTreeMap::new();
    for node in &fabric.nodes {
        for (own, subnet) in node.addresses.iter().filter_map(|own| Some((own, subnet(&own.address)?))) {
            subnets.entry(subnet).or_default().extend(endpoint(node, own));
        }
    }
    let mut probes = Vec::new();
    for mut ends in subnets.into_values() {
        ends.sort();
        let n = ends.len();
        // Of two or three the farthest is the next one.
        let steps: &[usize] = match n {
            0 | 1 => &[],
            2 | 3 => &[1],
            _ => &[1, n / 2],
        };
        for step in steps {
            let ways = (0..n).map(|i| Probe { from: ends[i].clone(), to: ends[(i + step) % n].clone() });
            probes.extend(ways.filter(|probe| probe.from.node != probe.to.node));
        }
    }
    probes
}

fn endpoint(node: &Node, own: &InterfaceAddress) -> Option<Endpoint> {
    let address = own.address.split('/').next()?.parse().ok()?;
    Some(Endpoint { node: node.name.clone(), interface: own.interface.clone(), address })
}

fn subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok()?;
    let network = match address.parse().ok()? {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    Some((network, length))
}

/// Tries all `probes` with packets of `wanted_bytes`, `parallel` at a time, and looks for what passes where those do not.
pub async fn measure(
    prober: Arc<dyn Prober>,
    probes: Vec<Probe>,
    wanted_bytes: u32,
    parallel: usize,
) -> Vec<(Probe, Measured)> {
    let places = Arc::new(Semaphore::new(parallel.max(1)));
    let mut tasks = JoinSet::new();
    for probe in probes {
        let (prober, places) = (Arc::clone(&prober), Arc::clone(&places));
        tasks.spawn(async move {
            // The semaphore is never closed, so waiting for a place cannot fail.
            let _place = places.acquire_owned().await.ok();
            let measured = one(&*prober, &probe, wanted_bytes).await;
            (probe, measured)
        });
    }
    let mut measured = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        measured.extend(joined.ok());
    }
    measured.sort_by(|(a, _), (b, _)| a.cmp(b));
    measured
}

async fn one(prober: &dyn Prober, probe: &Probe, wanted_bytes: u32) -> Measured {
    match prober.probe(probe, wanted_bytes).await {
        Reach::Passed => return Measured::Whole,
        Reach::NotTried { reason } => return Measured::NotTried(reason),
        Reach::Lost | Reach::TooBig { .. } => {}
    }
    if !passes(prober, probe, SMALL_BYTES.min(wanted_bytes)).await {
        return Measured::Nothing;
    }
    // Bisection; the usual value first, since that is what it mostly is.
    let (mut passed, mut lost) = (SMALL_BYTES.min(wanted_bytes), wanted_bytes);
    let mut next = vec![USUAL_BYTES + 1, USUAL_BYTES];
    while lost - passed > 1 {
        let middle = passed + (lost - passed) / 2;
        let bytes = next.pop().filter(|bytes| (passed + 1..lost).contains(bytes)).unwrap_or(middle);
        if passes(prober, probe, bytes).await { passed = bytes } else { lost = bytes }
    }
    Measured::UpTo(passed)
}

async fn passes(prober: &dyn Prober, probe: &Probe, bytes: u32) -> bool {
    prober.probe(probe, bytes).await == Reach::Passed
}

/// All of it: which ways, how large, and what that says. Nodes without `addresses` are not probed.
pub async fn check(fabric: &Fabric, prober: Arc<dyn Prober>, parallel: usize) -> Vec<super::Finding> {
    let wanted_bytes = fabric.mtu.host_bytes;
    let measured = measure(prober, probes(fabric), wanted_bytes, parallel).await;
    judge(fabric, &measured, wanted_bytes)
}
