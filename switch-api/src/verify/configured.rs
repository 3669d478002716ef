//! Drift of the configuration, and links that run otherwise than configured.

use super::{Finding, FindingKind, Severity};
use crate::desired::Desired;
use crate::plan::{Change, Plan};
use crate::state::{FieldChange, Object};
use crate::switch::Observed;

pub(super) fn drift(plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for change in &plan.changes {
        let finding = |text: String| Finding::new(Severity::Error, FindingKind::Drift, &plan.switch, text);
        match change {
            Change::Update { after: Object::Port(port), fields, .. } => {
                findings.extend(fields.iter().map(|field| finding(differs(field)).at(&port.name)));
            }
            Change::Update { fields, .. } => {
                let all = fields.iter().map(differs).collect::<Vec<_>>().join(", ");
                findings.push(finding(format!("{}: {all}", change.key())));
            }
            Change::Create { .. } => findings.push(finding(format!("{} is missing", change.key()))),
            Change::Delete { .. } => {
                findings.push(finding(format!("{} is there and not wanted", change.key())))
            }
        }
    }
    findings.extend(plan.refusals.iter().map(|refusal| {
        Finding::new(Severity::Error, FindingKind::NotOwned, &plan.switch, refusal.cause().to_string())
    }));
    findings
}

fn differs(field: &FieldChange) -> String {
    format!("{} {}, wanted {}", words(&field.field), field.before, field.after)
}

/// Field names as people say them.
fn words(field: &str) -> &str {
    match field {
        "mtu_bytes" => "MTU",
        "speed_gbps" => "speed in Gb/s",
        "fec" => "FEC",
        "pfc_priorities" => "PFC priorities",
        other => other,
    }
}

pub(super) fn running(observed: &Observed, desired: &Desired) -> Vec<Finding> {
    let mut findings = Vec::new();
    for port in desired.state.ports().filter(|port| port.enabled) {
        let Some(link) = observed.links.get(&port.name) else { continue };
        let finding =
            |kind, text: String| Finding::new(Severity::Error, kind, &desired.switch, text).at(&port.name);
        if !link.up {
            let text = "link is down; check cable, optics and the far end".to_owned();
            findings.push(finding(FindingKind::LinkDown, text));
            continue;
        }
        let pairs = [
            ("runs with MTU", link.mtu_bytes.zip(port.mtu_bytes)),
            ("runs at Gb/s", link.speed_gbps.zip(port.speed_gbps)),
        ];
        for (what, values) in pairs {
            if let Some((is, wanted)) = values.filter(|(is, wanted)| is != wanted) {
                findings.push(finding(FindingKind::LinkDiffers, format!("{what} {is}, wanted {wanted}")));
            }
        }
    }
    findings
}
