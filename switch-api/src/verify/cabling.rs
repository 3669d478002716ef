//! LLDP against the cabling plan.

use super::{Finding, FindingKind, Severity};
use crate::desired::Desired;
use crate::names::{InterfaceName, PortRef};
use crate::switch::{Neighbour, Observed};

pub(super) fn cabling(observed: &Observed, desired: &Desired) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (port, wanted) in &desired.cabling {
        let heard: Vec<&Neighbour> = observed.neighbours.iter().filter(|n| &n.port == port).collect();
        if heard.iter().any(|neighbour| is(neighbour, wanted)) {
            continue;
        }
        let (kind, text) = match heard.first() {
            Some(other) => (
                FindingKind::WrongCable,
                format!(
                    "{}/{} is plugged here, wanted {wanted}{}",
                    other.device,
                    other.device_port,
                    elsewhere(observed, port, wanted)
                ),
            ),
            None => (
                FindingKind::MissingNeighbour,
                format!("nothing heard by LLDP, wanted {wanted}{}", elsewhere(observed, port, wanted)),
            ),
        };
        findings.push(Finding::new(Severity::Error, kind, &desired.switch, text).at(port));
    }
    findings
}

/// Where the wanted far end really is, if on this switch.
fn elsewhere(observed: &Observed, port: &InterfaceName, wanted: &PortRef) -> String {
    let found = observed.neighbours.iter().find(|n| &n.port != port && is(n, wanted));
    found.map_or(String::new(), |n| format!(" (that one is in {})", n.port))
}

/// Names are compared up to the domain: `node-1` sends `node-1.example.org` where it has one.
fn is(neighbour: &Neighbour, wanted: &PortRef) -> bool {
    let device = wanted.device.as_str();
    let same_device = neighbour.device == device
        || neighbour.device.strip_prefix(device).is_some_and(|domain| domain.starts_with('.'));
    same_device && [&neighbour.device_port, &neighbour.description].contains(&&wanted.port.0)
}
