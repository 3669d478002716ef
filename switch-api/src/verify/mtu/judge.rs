//! Which port is to blame.

use super::{Endpoint, Measured, Probe};
use crate::intent::Fabric;
use crate::names::PortRef;
use crate::verify::{Finding, FindingKind, Severity};
use std::collections::BTreeSet;

/// Findings from what passes between nodes. An address all of whose ways are bad, at least one of them to an address that is well
/// elsewhere, is to blame for them, and named by the switch port it is plugged into; a bad way that this does not explain lies
/// between two switches.
pub fn judge(fabric: &Fabric, measured: &[(Probe, Measured)], wanted_bytes: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tried = measured.iter().filter(|(_, m)| !matches!(m, Measured::NotTried(_)));
    let tried: Vec<&(Probe, Measured)> = tried.collect();
    let well: BTreeSet<&Endpoint> =
        tried.iter().filter(|(_, m)| *m == Measured::Whole).flat_map(|(p, _)| [&p.from, &p.to]).collect();
    let bad: Vec<&&(Probe, Measured)> = tried.iter().filter(|(_, m)| *m != Measured::Whole).collect();
    let ends = |(p, _): &&&(Probe, Measured)| [p.from.clone(), p.to.clone()];
    let suspects: BTreeSet<Endpoint> = bad.iter().flat_map(ends).filter(|end| !well.contains(end)).collect();
    let to_blame: BTreeSet<&Endpoint> = suspects
        .iter()
        .filter(|end| {
            let others = bad.iter().filter_map(|(p, _)| other(p, end));
            others.into_iter().any(|other| well.contains(other))
        })
        .collect();
    for end in &to_blame {
        let ways = bad.iter().filter(|(p, _)| other(p, end).is_some());
        let Some(passes) = ways.map(|(_, m)| up_to(m)).max() else { continue };
        let text =
            format!("{} {end}; set the MTU here and on the node", words(wanted_bytes, passes, "to and from"));
        findings.push(at_port_of(fabric, end, text));
    }
    for (probe, measured) in &bad {
        if to_blame.contains(&probe.from) || to_blame.contains(&probe.to) {
            continue;
        }
        let way = format!(
            "{} {}; look at {} and at the switches between",
            words(wanted_bytes, up_to(measured), "to"),
            probe.to,
            ports(fabric, probe)
        );
        let device = &probe.from.node;
        let finding = Finding::new(Severity::Error, FindingKind::PathMtu, device, way);
        findings.push(finding.at(&probe.from.interface));
    }
    // One line per node: its ways mostly fail for one reason.
    let mut said = BTreeSet::new();
    for (probe, measured) in measured {
        if let Measured::NotTried(reason) = measured
            && said.insert(&probe.from.node)
        {
            let text = format!("no packets could be sent from here: {reason}");
            findings.push(Finding::new(Severity::Warning, FindingKind::NoAnswer, &probe.from.node, text));
        }
    }
    findings
}

fn other<'a>(probe: &'a Probe, end: &Endpoint) -> Option<&'a Endpoint> {
    match (&probe.from == end, &probe.to == end) {
        (true, _) => Some(&probe.to),
        (_, true) => Some(&probe.from),
        _ => None,
    }
}

/// Largest that passes; 0: nothing.
fn up_to(measured: &Measured) -> u32 {
    if let Measured::UpTo(bytes) = measured { *bytes } else { 0 }
}

fn words(wanted_bytes: u32, passes: u32, direction: &str) -> String {
    match passes {
        0 => format!("no packet of any size passes {direction}"),
        bytes => format!("packets of {wanted_bytes} bytes do not pass, {bytes} do, {direction}"),
    }
}

/// Where the end is plugged in.
fn port_of(fabric: &Fabric, end: &Endpoint) -> Option<PortRef> {
    let here = PortRef { device: end.node.clone(), port: end.interface.clone() };
    fabric.links.iter().find_map(|link| match &link.ends {
        [a, b] if a == &here => Some(b.clone()),
        [a, b] if b == &here => Some(a.clone()),
        _ => None,
    })
}

fn at_port_of(fabric: &Fabric, end: &Endpoint, text: String) -> Finding {
    let finding = |device| Finding::new(Severity::Error, FindingKind::PathMtu, device, text.clone());
    match port_of(fabric, end) {
        Some(port) => finding(&port.device).at(&port.port),
        // A LAG or VLAN interface of the node.
        None => finding(&end.node).at(&end.interface),
    }
}

fn ports(fabric: &Fabric, probe: &Probe) -> String {
    let named = [&probe.from, &probe.to].map(|end| port_of(fabric, end).map(|port| port.to_string()));
    match named {
        [Some(a), Some(b)] => format!("{a}, {b}"),
        [Some(one), None] | [None, Some(one)] => one,
        [None, None] => "both nodes' ports".to_owned(),
    }
}
