//! What changed between two records of one node. Readings (temperatures, fan speeds, counters) change all the time and are left out.

use crate::check::drive_name;
use crate::record::{Drive, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub part: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Gone,
    New,
    Became { what: String, was: String, is: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Gone => write!(f, "{}: gone", self.part),
            Kind::New => write!(f, "{}: new", self.part),
            Kind::Became { what, was, is } => {
                let named = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
                write!(f, "{}: {what} was {}, is {}", self.part, named(was), named(is))
            }
        }
    }
}

/// A part by its identity, with what of it should not change.
type Parts = BTreeMap<String, (String, Vec<(&'static str, String)>)>;

/// Parts that a BMC could not read this time (or last time) are not gone.
pub fn drift(before: &Record, after: &Record) -> Vec<Change> {
    let mut changes = Vec::new();
    let unread = |part: &str| [before, after].iter().any(|r| r.unread.iter().any(|u| u.part == part));
    // A view that only one of the two had cannot be compared.
    let same_sources = |source| before.sources.contains(&source) == after.sources.contains(&source);
    compare(&server(before), &server(after), &mut changes);
    type Of = fn(&Record) -> Parts;
    let lists: [(&str, Of); 7] = [
        ("processors", processors),
        ("memory", dimms),
        ("drives", drives),
        ("ports", ports),
        ("power supplies", supplies),
        ("firmware", firmware),
        ("pci", pci),
    ];
    for (part, of) in lists {
        let comparable = match part {
            "pci" => same_sources(crate::record::Source::Node),
            "drives" | "ports" => {
                same_sources(crate::record::Source::Node) && same_sources(crate::record::Source::Bmc)
            }
            _ => same_sources(crate::record::Source::Bmc),
        };
        if comparable && !unread(part) {
            compare(&of(before), &of(after), &mut changes);
        }
    }
    changes
}

fn compare(before: &Parts, after: &Parts, changes: &mut Vec<Change>) {
    for (id, (name, was)) in before {
        let Some((_, is)) = after.get(id) else {
            changes.push(Change { part: name.clone(), kind: Kind::Gone });
            continue;
        };
        for ((what, was), (_, is)) in was.iter().zip(is) {
            // What one record does not know did not change.
            if was != is && !is.is_empty() && !was.is_empty() {
                let kind = Kind::Became { what: (*what).into(), was: was.clone(), is: is.clone() };
                changes.push(Change { part: name.clone(), kind });
            }
        }
    }
    for (id, (name, _)) in after {
        if !before.contains_key(id) {
            changes.push(Change { part: name.clone(), kind: Kind::New });
        }
    }
}

fn server(record: &Record) -> Parts {
    let facts = vec![
        ("serial number", record.identity.serial.clone()),
        ("BIOS", record.bios_version.clone()),
        ("BMC firmware", record.bmc.as_ref().map_or(String::new(), |b| b.firmware.clone())),
        ("rack", record.location.rack.clone()),
        ("memory", crate::units::memory_text(record.memory_bytes)),
    ];
    [("server".to_owned(), ("server".to_owned(), facts))].into()
}

fn processors(record: &Record) -> Parts {
    let one = |p: &crate::record::Processor| {
        let facts = vec![("model", p.model.clone()), ("cores", p.cores.to_string())];
        (p.socket.clone(), (format!("processor {}", p.socket), facts))
    };
    record.processors.iter().map(one).collect()
}

fn dimms(record: &Record) -> Parts {
    let one = |d: &crate::record::Dimm| {
        let facts = vec![
            ("serial number", d.serial.clone()),
            ("size", crate::units::memory_text(d.bytes)),
            ("speed", d.speed_mts.to_string()),
        ];
        (d.slot.clone(), (format!("memory module {}", d.slot), facts))
    };
    record.dimms.iter().map(one).collect()
}

fn drives(record: &Record) -> Parts {
    let one = |d: &Drive| {
        let id = if d.serial.is_empty() { drive_name(d) } else { d.serial.clone() };
        let facts =
            vec![("slot", d.slot.clone()), ("firmware", d.firmware.clone()), ("size", d.bytes.to_string())];
        (id, (format!("drive {}", drive_name(d)), facts))
    };
    record.drives.iter().map(one).collect()
}

fn ports(record: &Record) -> Parts {
    let all = record.nics.iter().flat_map(|n| n.ports.iter().map(move |p| (n, p)));
    let one = |(nic, port): (&crate::record::Nic, &crate::record::Port)| {
        let id = if port.mac.is_empty() { format!("{} {}", nic.name, port.name) } else { port.mac.clone() };
        let link = port.link_up.map_or("", |up| if up { "up" } else { "down" });
        let speed = port.speed_mbps.filter(|s| *s > 0).map_or(String::new(), |s| format!("{s} Mb/s"));
        let facts = vec![
            ("firmware", nic.firmware.clone()),
            ("link", link.to_owned()),
            ("speed", speed),
            ("cable", port.neighbour.clone()),
        ];
        (id.clone(), (format!("port {id}"), facts))
    };
    all.map(one).collect()
}

fn supplies(record: &Record) -> Parts {
    let one = |p: &crate::record::PowerSupply| {
        let facts = vec![("serial number", p.serial.clone()), ("firmware", p.firmware.clone())];
        (p.name.clone(), (format!("power supply {}", p.name), facts))
    };
    record.power_supplies.iter().map(one).collect()
}

fn firmware(record: &Record) -> Parts {
    // Dell lists each version under an id of its own.
    let current =
        record.firmware.iter().filter(|f| !f.id.starts_with("Previous-") && !f.id.starts_with("Available-"));
    let one = |f: &crate::record::Firmware| {
        let id = f.id.split("__").next().unwrap_or_default().to_owned();
        let id = if f.id.contains("__") { format!("{id} {}", f.name) } else { f.id.clone() };
        (id, (format!("firmware {}", f.name), vec![("version", f.version.clone())]))
    };
    current.map(one).collect()
}

fn pci(record: &Record) -> Parts {
    let one = |d: &crate::record::PciDevice| {
        let facts = vec![("device", d.id.clone()), ("link", d.link.clone())];
        (d.address.clone(), (format!("PCIe device {}", d.address), facts))
    };
    record.pci.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Source, Unread};

    fn record() -> Record {
        let drive = |serial: &str, slot: &str| Drive {
            serial: serial.into(),
            slot: slot.into(),
            firmware: "1".into(),
            ..Drive::default()
        };
        Record {
            sources: vec![Source::Bmc],
            bios_version: "1.8.2".into(),
            drives: vec![drive("A", "Bay 1"), drive("B", "Bay 2")],
            ..Record::default()
        }
    }

    #[test]
    fn changes_are_named_by_identity() {
        let before = record();
        assert_eq!(drift(&before, &before), []);
        let mut after = record();
        after.bios_version = "1.9.0".into();
        after.drives[0].slot = "Bay 5".into();
        after.drives[1].serial = "C".into();
        let texts: Vec<String> = drift(&before, &after).iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                "server: BIOS was 1.8.2, is 1.9.0",
                "drive A in Bay 1: slot was Bay 1, is Bay 5",
                "drive B in Bay 2: gone",
                "drive C in Bay 2: new",
            ]
        );
    }

    #[test]
    fn what_was_not_read_is_not_gone() {
        let mut after = record();
        after.drives.clear();
        after.unread = vec![Unread { part: "drives".into(), why: "time-out".into() }];
        assert_eq!(drift(&record(), &after), []);
        after.unread.clear();
        assert_eq!(drift(&record(), &after).len(), 2);
    }
}
