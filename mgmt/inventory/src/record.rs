//! Everything known of one node. Parts carry identities that survive a move to another slot: serial numbers, MAC addresses, EUI-64.

use crate::health::Health;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a list of parts may have; a BMC that names more is wrong.
pub const MAX_PARTS: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Seconds since 1970.
    pub taken_s: u64,
    pub sources: Vec<Source>,
    pub identity: Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<Bmc>,
    pub bios_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub powered_on: Option<bool>,
    /// The BMC's own word for the whole server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Health>,
    pub processors: Vec<Processor>,
    pub cpu_features: Vec<String>,
    pub memory_bytes: u64,
    pub dimms: Vec<Dimm>,
    pub drives: Vec<Drive>,
    pub nics: Vec<Nic>,
    pub power_supplies: Vec<PowerSupply>,
    pub fans: Vec<Fan>,
    pub temperatures: Vec<Temperature>,
    pub firmware: Vec<Firmware>,
    pub pci: Vec<PciDevice>,
    pub numa: Vec<NumaNode>,
    /// IOMMU group numbers with the devices in each.
    pub iommu_groups: BTreeMap<u32, Vec<String>>,
    pub location: Location,
    /// Parts that could not be read, and why. What is here is not known to be missing.
    pub unread: Vec<Unread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Bmc,
    Node,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    pub manufacturer: String,
    pub model: String,
    pub sku: String,
    pub serial: String,
    /// Lower case.
    pub uuid: String,
    pub asset_tag: String,
    pub host_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bmc {
    pub url: String,
    pub model: String,
    pub firmware: String,
    pub redfish: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processor {
    pub socket: String,
    pub manufacturer: String,
    pub model: String,
    pub cores: u32,
    pub threads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dimm {
    pub slot: String,
    pub bytes: u64,
    pub speed_mts: u32,
    pub part: String,
    pub serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drive {
    pub serial: String,
    pub model: String,
    pub manufacturer: String,
    pub firmware: String,
    pub bytes: u64,
    /// `NVMe`, `SAS`, `SATA`.
    pub protocol: String,
    /// `SSD`, `HDD`.
    pub media: String,
    /// EUI-64 or NGUID of its namespaces.
    pub eui: Vec<String>,
    /// Bay or slot, as the BMC names it.
    pub slot: String,
    pub pci: String,
    /// `/dev` name on the running node.
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// 0 new, 100 and more: beyond what the maker promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_predicted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart: Option<Smart>,
    pub contents: Contents,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What stands on a drive. Only the node itself can look; a BMC cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contents {
    #[default]
    Unknown,
    Blank,
    /// A partition table, a file system, a pool.
    Holds(String),
}

/// NVMe SMART / Health Information (Base 2.1, 5.1.12.1.3), in the units it is reported in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Smart {
    pub warnings: Vec<String>,
    pub temperature_c: i32,
    pub spare_percent: u32,
    pub spare_threshold_percent: u32,
    pub used_percent: u32,
    /// Units of 512,000 bytes.
    pub data_units_written: u64,
    pub data_units_read: u64,
    pub power_on_hours: u64,
    pub unsafe_shutdowns: u64,
    pub media_errors: u64,
    pub error_log_entries: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// As the BMC names it; a driver's name where only the node was asked.
    pub name: String,
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    pub firmware: String,
    pub pci: String,
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Lower case with colons.
    pub mac: String,
    /// `1`, `NIC.Slot.3-1`.
    pub name: String,
    /// Interface on the running node.
    pub interface: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_up: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    pub driver: String,
    pub pci: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// RDMA device with its link layer: `mlx5_0 (Ethernet)`. Empty: none.
    pub rdma: String,
    /// Who is at the other end of the cable, by LLDP: `leaf-1/Ethernet12`.
    pub neighbour: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PowerSupply {
    pub name: String,
    pub model: String,
    pub serial: String,
    pub firmware: String,
    pub watts: u32,
    /// Empty bays are not listed; a supply without input is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_volts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fan {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Temperature {
    pub name: String,
    pub celsius: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Firmware {
    pub id: String,
    pub name: String,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updateable: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciDevice {
    /// `0000:3b:00.0`.
    pub address: String,
    /// `15b3:1021`.
    pub id: String,
    /// `020000`.
    pub class: String,
    pub driver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// `16.0 GT/s x8`.
    pub link: String,
    /// What device and slot could do.
    pub link_best: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumaNode {
    pub id: u32,
    /// `0-15,32-47`.
    pub cpus: String,
    pub memory_bytes: u64,
    /// Page size in bytes to pages reserved.
    pub hugepages: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Location {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub row: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rack: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<u32>,
    /// The feeds of its power supplies: `A`, `B`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub power_feeds: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    pub part: String,
    pub why: String,
}

impl Record {
    /// Serial number, else UUID, else the first MAC address: the same after a change of name, address or slot.
    pub fn stable_id(&self) -> Option<String> {
        let id = &self.identity;
        let mac = || self.nics.iter().flat_map(|n| &n.ports).map(|p| &p.mac).find(|m| !m.is_empty());
        match () {
            _ if !id.serial.is_empty() => Some(format!("{}/{}", id.manufacturer, id.serial)),
            _ if !id.uuid.is_empty() => Some(id.uuid.clone()),
            _ => mac().cloned(),
        }
    }

    pub fn macs(&self) -> Vec<String> {
        let mut macs: Vec<String> = Vec::new();
        for port in self.nics.iter().flat_map(|n| &n.ports) {
            if !port.mac.is_empty() && !macs.contains(&port.mac) {
                macs.push(port.mac.clone());
            }
        }
        macs
    }

    pub fn processors_text(&self) -> String {
        match self.processors.first() {
            None => "-".into(),
            Some(first) => format!("{} x {}", self.processors.len(), first.model),
        }
    }
}

/// Lower case, colons; None where it is no MAC address, or none of a port (all zero).
pub fn clean_mac(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let good = digits.len() == 12 && digits.chars().all(|c| c.is_ascii_hexdigit());
    (good && digits.chars().any(|c| c != '0')).then(|| {
        let bytes: Vec<String> =
            digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_lowercase()).collect();
        bytes.join(":")
    })
}

/// Makers pad and fill in: `N/A`, `To be filled by O.E.M.`, `0123456789`.
pub fn clean_serial(text: &str) -> String {
    let text = text.trim().trim_matches('\0').trim();
    let lower = text.to_lowercase();
    let nothing =
        ["", "n/a", "na", "none", "null", "unknown", "not specified", "default string", "0123456789", "-"];
    match nothing.contains(&lower.as_str())
        || lower.starts_with("to be filled")
        || lower.chars().all(|c| c == '0' || c == '.')
    {
        true => String::new(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_are_no_identity() {
        for filler in ["", " N/A ", "To be filled by O.E.M.", "0000000", "Default string", "None"] {
            assert_eq!(clean_serial(filler), "", "{filler}");
        }
        assert_eq!(clean_serial("  S1A2 \0"), "S1A2");
        assert_eq!(clean_mac("3C-EC-EF-00-11-22").as_deref(), Some("3c:ec:ef:00:11:22"));
        assert_eq!(clean_mac("00:00:00:00:00:00"), None);
        assert_eq!(clean_mac("::::::::::::"), None);
    }
}
