//! Everything about one server, part by part.

use super::Client;
use crate::error::{RedfishError, Result};
use crate::model::{Chassis, Inventory, Manager, Problem, ResourcePath, System};

/// Parts that cannot be read are noted.
struct Reading {
    inventory: Inventory,
    /// The BMC stopped answering (or lets us in no longer): nothing more is asked.
    gone: Option<String>,
}

impl Reading {
    async fn part<T: Default>(
        &mut self,
        name: &str,
        path: Option<&ResourcePath>,
        work: impl Future<Output = Result<T>>,
    ) -> T {
        let note = |reason: String| Problem { part: name.to_owned(), path: path.cloned(), reason };
        if let Some(reason) = &self.gone {
            self.inventory.problems.push(note(format!("not asked for: {reason}")));
            return T::default();
        }
        match work.await {
            Ok(found) => found,
            Err(RedfishError { cause, .. }) => {
                if cause.is_transient() || cause.needs_operator() {
                    self.gone = Some(cause.to_string());
                }
                self.inventory.problems.push(note(cause.to_string()));
                T::default()
            }
        }
    }
}

impl Client {
    pub(super) async fn whole(&self, path: &ResourcePath) -> Result<Inventory> {
        let service = self.root().await?.service.clone();
        let system: System = self.read(path).await?;
        let inventory = Inventory { service, system: system.clone(), ..Inventory::default() };
        let mut reading = Reading { inventory, gone: None };
        let r = &mut reading;
        let managers: Vec<Manager> = r.part("managers", None, self.linked(&system.managers)).await;
        let chassis: Vec<Chassis> = r.part("chassis", None, self.linked(&system.chassis)).await;
        r.inventory.processors =
            r.part("processors", system.processors.as_ref(), self.processors_of(&system)).await;
        r.inventory.memory = r.part("memory", system.memory.as_ref(), self.memory_of(&system)).await;
        r.inventory.storage = r.part("storage", system.storage.as_ref(), self.storage_of(&system)).await;
        let nics = system.ethernet_interfaces.as_ref();
        r.inventory.ethernet_interfaces =
            r.part("ethernet interfaces", nics, self.ethernet_of(&system)).await;
        r.inventory.pcie_devices = r.part("PCIe devices", None, self.pcie_of(&system)).await;
        for one in &chassis {
            let at = Some(&one.path);
            let adapters = r.part("network adapters", at, self.adapters_of(one)).await;
            r.inventory.network_adapters.extend(adapters);
            let supplies = r.part("power supplies", at, self.power_supplies_of(one)).await;
            r.inventory.power_supplies.extend(supplies);
            let fans = r.part("fans", at, self.fans_of(one)).await;
            r.inventory.fans.extend(fans);
            let sensors = r.part("sensors", at, self.sensors_of(one)).await;
            r.inventory.sensors.extend(sensors);
        }
        r.inventory.firmware = r.part("firmware", None, self.firmware_items()).await;
        if let Some(bios) = &system.bios {
            r.inventory.bios =
                r.part("BIOS", Some(bios), async { self.bios_of(&system).await.map(Some) }).await;
        }
        if let Some(path) = &system.secure_boot {
            let work = async { self.read(path).await.map(Some) };
            r.inventory.secure_boot = r.part("secure boot", Some(path), work).await;
        }
        r.inventory.virtual_media = r.part("virtual media", None, self.media_of(&system, &managers)).await;
        r.inventory.managers = managers;
        r.inventory.chassis = chassis;
        Ok(reading.inventory)
    }
}
