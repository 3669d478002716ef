//! One word for a node, and the causes of it.

use crate::record::{Record, Source};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    #[default]
    Ok,
    Warning,
    Critical,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Critical => "critical",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub health: Health,
    /// The part, as an operator finds it: `drive S4X0 in Bay 3`.
    pub part: String,
    pub cause: String,
    /// What to do about it.
    pub next: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollUp {
    pub health: Health,
    /// The worst first.
    pub causes: Vec<Cause>,
}

/// The health of all parts. What the BMC says of the whole counts only where no part explains it: its own sum may be out of date, but
/// may know of parts that it does not show.
pub fn roll_up(record: &Record) -> RollUp {
    let mut causes = Vec::new();
    let mut told = |health: Option<Health>, part: String, what: &str, next: &str| {
        let health = health.unwrap_or_default();
        if health > Health::Ok {
            causes.push(Cause { health, part, cause: what.to_owned(), next: next.to_owned() });
        }
    };
    let bmc = "its BMC reports it";
    for part in &record.processors {
        told(part.health, format!("processor {}", part.socket), bmc, "see the BMC's log");
    }
    for dimm in &record.dimms {
        told(dimm.health, format!("memory module {}", dimm.slot), bmc, "replace it at the next maintenance");
    }
    for nic in &record.nics {
        told(nic.health, format!("network adapter {}", nic.name), bmc, "see the BMC's log");
    }
    for psu in &record.power_supplies {
        let part = format!("power supply {}", psu.name);
        match psu.input_volts {
            Some(0) => {
                told(Some(Health::Warning), part, "it has no input", "check its cable and its power feed")
            }
            _ => told(psu.health, part, bmc, "replace it; the others carry the load"),
        }
    }
    for fan in &record.fans {
        let part = format!("fan {}", fan.name);
        match (fan.health, fan.rpm, record.powered_on) {
            (None, Some(0), Some(true)) => told(Some(Health::Warning), part, "it stands still", "replace it"),
            (health, ..) => told(health, part, bmc, "replace it"),
        }
    }
    for sensor in &record.temperatures {
        let part = format!("temperature {}", sensor.name);
        match sensor.critical_celsius {
            Some(limit) if limit > 0.0 && sensor.celsius >= limit => {
                let what = format!("{:.0} °C, critical from {limit:.0}", sensor.celsius);
                told(Some(Health::Critical), part, &what, "check the air flow and the room");
            }
            _ => told(sensor.health, part, bmc, "check the air flow and the room"),
        }
    }
    for drive in &record.drives {
        causes.extend(crate::wear::drive_causes(drive));
    }
    let worst = causes.iter().map(|c| c.health).max().unwrap_or_default();
    if let Some(reported) = record.reported
        && reported > worst
    {
        causes.push(Cause {
            health: reported,
            part: "server".into(),
            cause: "its BMC reports it, and no part that it shows explains it".into(),
            next: "see the BMC's log".into(),
        });
    }
    if record.unread.iter().any(|u| u.part == "node" || u.part == "bmc") || record.sources.is_empty() {
        for unread in record.unread.iter().filter(|u| u.part == "node" || u.part == "bmc") {
            causes.push(Cause {
                health: Health::Warning,
                part: unread.part.clone(),
                cause: format!("it does not answer: {}", unread.why),
                next: "check its network".into(),
            });
        }
    }
    degraded_links(record, &mut causes);
    causes.sort_by(|a, b| b.health.cmp(&a.health).then_with(|| a.part.cmp(&b.part)));
    RollUp { health: causes.iter().map(|c| c.health).max().unwrap_or_default(), causes }
}

/// A PCIe link of NVMe drives or network ports that came up slower or narrower than both ends can do.
fn degraded_links(record: &Record, causes: &mut Vec<Cause>) {
    if !record.sources.contains(&Source::Node) {
        return;
    }
    let matters = |class: &str| class.starts_with("0108") || class.starts_with("02");
    for device in record.pci.iter().filter(|d| matters(&d.class)) {
        if !device.link.is_empty() && !device.link_best.is_empty() && device.link != device.link_best {
            causes.push(Cause {
                health: Health::Warning,
                part: format!("PCIe device {}", device.address),
                cause: format!("its link runs at {}, it can do {}", device.link, device.link_best),
                next: "reseat it, or move it to a slot of that width".into(),
            });
        }
    }
}
