//! Everything about one server in one record.

use super::base::ResourcePath;
use super::{
    Bios, Chassis, EthernetInterface, Fan, FirmwareItem, Manager, MemoryModule, NetworkAdapter, PcieDevice,
    PowerSupply, Processor, SecureBoot, Sensor, Service, Storage, System, VirtualMedia,
};
use serde::{Deserialize, Serialize};

/// What one reading of a server found. A part that could not be read is missing here and named in `problems`; it takes nothing
/// else with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub service: Service,
    pub system: System,
    pub managers: Vec<Manager>,
    pub chassis: Vec<Chassis>,
    pub processors: Vec<Processor>,
    pub memory: Vec<MemoryModule>,
    pub storage: Vec<Storage>,
    pub ethernet_interfaces: Vec<EthernetInterface>,
    pub network_adapters: Vec<NetworkAdapter>,
    pub pcie_devices: Vec<PcieDevice>,
    pub power_supplies: Vec<PowerSupply>,
    pub fans: Vec<Fan>,
    pub sensors: Vec<Sensor>,
    pub firmware: Vec<FirmwareItem>,
    pub bios: Option<Bios>,
    pub secure_boot: Option<SecureBoot>,
    pub virtual_media: Vec<VirtualMedia>,
    pub problems: Vec<Problem>,
}

/// A part that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was asked for, in words: `storage`, `fans`, …
    pub part: String,
    pub path: Option<ResourcePath>,
    pub reason: String,
}

impl Inventory {
    /// All drives of all storage subsystems, each once.
    pub fn drives(&self) -> impl Iterator<Item = &super::Drive> {
        let mut seen = std::collections::BTreeSet::new();
        self.storage.iter().flat_map(|storage| &storage.drives).filter(move |drive| seen.insert(&drive.path))
    }
}
