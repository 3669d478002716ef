//! The parts of systems and chassis.

use super::Client;
use crate::error::{Cause, Result};
use crate::json::{Read, View};
use crate::model::{
    Chassis, Drive, EthernetInterface, Fan, MemoryModule, NetworkAdapter, NetworkPort, PcieDevice,
    PowerSupply, Processor, ResourcePath, Sensor, Storage, StorageController, System, Volume,
};
use serde_json::Value;

impl Client {
    pub(super) async fn all_systems(&self) -> Result<Vec<System>> {
        let root = self.root().await?;
        self.collection(root.service.systems.as_ref()).await
    }

    pub(super) async fn processors_of(&self, system: &System) -> Result<Vec<Processor>> {
        let all: Vec<Processor> = self.collection(system.processors.as_ref()).await?;
        Ok(all.into_iter().filter(|p| !p.status.is_absent()).collect())
    }

    pub(super) async fn memory_of(&self, system: &System) -> Result<Vec<MemoryModule>> {
        let all: Vec<MemoryModule> = self.collection(system.memory.as_ref()).await?;
        // An empty slot has no capacity, and not everywhere the state Absent.
        Ok(all.into_iter().filter(|m| !m.status.is_absent() && m.capacity_mib != Some(0)).collect())
    }

    pub(super) async fn storage_of(&self, system: &System) -> Result<Vec<Storage>> {
        let mut all: Vec<Storage> = self.collection(system.storage.as_ref()).await?;
        for storage in &mut all {
            if let Some(path) = &storage.controllers_path {
                let newer: Vec<StorageController> = self.optional_collection(Some(path)).await?;
                if !newer.is_empty() {
                    storage.controllers = newer;
                }
            }
            storage.drives = self.linked::<Drive>(&storage.drive_paths).await?;
            storage.drives.retain(|drive| !drive.status.is_absent());
            storage.volumes = self.volumes_of(storage).await?;
        }
        Ok(all)
    }

    /// A BMC that fails on the volumes has told the drives all the same (sushy-tools 2.2: status 500 where none are configured).
    async fn volumes_of(&self, storage: &Storage) -> Result<Vec<Volume>> {
        match self.optional_collection(storage.volumes_path.as_ref()).await {
            Err(error) if matches!(error.cause, Cause::ServerError { .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    pub(super) async fn ethernet_of(&self, system: &System) -> Result<Vec<EthernetInterface>> {
        self.collection(system.ethernet_interfaces.as_ref()).await
    }

    pub(super) async fn pcie_of(&self, system: &System) -> Result<Vec<PcieDevice>> {
        match &system.pcie_devices[..] {
            [] => self.optional_collection(Some(&system.path.join("PCIeDevices"))).await,
            // Newer services link the collection, older ones each device.
            [one] if one.last() == "PCIeDevices" => self.collection(Some(one)).await,
            links => self.linked(links).await,
        }
    }

    pub(super) async fn adapters_of(&self, chassis: &Chassis) -> Result<Vec<NetworkAdapter>> {
        let mut all: Vec<NetworkAdapter> = self.collection(chassis.network_adapters.as_ref()).await?;
        for adapter in &mut all {
            adapter.ports = self.optional_collection::<NetworkPort>(adapter.ports_path.as_ref()).await?;
        }
        Ok(all)
    }

    pub(super) async fn power_supplies_of(&self, chassis: &Chassis) -> Result<Vec<PowerSupply>> {
        let newer = self.below(chassis.power_subsystem.as_ref(), "PowerSupplies").await?;
        let all: Vec<PowerSupply> = match newer {
            Some(all) => all,
            None => self.inside(chassis.power.as_ref(), "PowerSupplies").await?,
        };
        Ok(all.into_iter().filter(|supply| !supply.status.is_absent()).collect())
    }

    pub(super) async fn fans_of(&self, chassis: &Chassis) -> Result<Vec<Fan>> {
        let newer = self.below(chassis.thermal_subsystem.as_ref(), "Fans").await?;
        let all: Vec<Fan> = match newer {
            Some(all) => all,
            None => self.inside(chassis.thermal.as_ref(), "Fans").await?,
        };
        Ok(all.into_iter().filter(|fan| !fan.status.is_absent()).collect())
    }

    pub(super) async fn sensors_of(&self, chassis: &Chassis) -> Result<Vec<Sensor>> {
        let mut all: Vec<Sensor> = self.optional_collection(chassis.sensors.as_ref()).await?;
        if all.is_empty() {
            all = self.older_sensors(chassis).await?;
        }
        Ok(all.into_iter().filter(|sensor| !sensor.status.is_absent()).collect())
    }

    /// Temperatures and voltages of before 2020.4, with their limits in other places.
    async fn older_sensors(&self, chassis: &Chassis) -> Result<Vec<Sensor>> {
        let mut all = Vec::new();
        let places = [
            (&chassis.thermal, "Temperatures", "Temperature", "Cel"),
            (&chassis.power, "Voltages", "Voltage", "V"),
        ];
        for (path, key, kind, unit) in places {
            let Some(path) = path else { continue };
            let json = self.get(path).await?;
            for view in View(&json).list(key) {
                let mut sensor = Sensor::read(view);
                sensor.kind.get_or_insert_with(|| kind.to_owned());
                sensor.unit.get_or_insert_with(|| unit.to_owned());
                sensor.limits.upper_caution = view.number("UpperThresholdNonCritical");
                sensor.limits.upper_critical = view.number("UpperThresholdCritical|UpperThresholdFatal");
                sensor.limits.lower_caution = view.number("LowerThresholdNonCritical");
                sensor.limits.lower_critical = view.number("LowerThresholdCritical|LowerThresholdFatal");
                all.push(sensor);
            }
        }
        Ok(all)
    }

    /// The collection under a subsystem; None where there is no subsystem, or it has none.
    async fn below<T: Read>(&self, subsystem: Option<&ResourcePath>, key: &str) -> Result<Option<Vec<T>>> {
        let Some(path) = subsystem else { return Ok(None) };
        let json = match self.get(path).await {
            Ok(json) => json,
            Err(error) if matches!(error.cause, Cause::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match View(&json).link(key) {
            Some(path) => {
                self.optional_collection(Some(&path)).await.map(|all| Some(all).filter(|all| !all.is_empty()))
            }
            None => Ok(None),
        }
    }

    /// The entries of an array in one resource.
    async fn inside<T: Read>(&self, path: Option<&ResourcePath>, key: &str) -> Result<Vec<T>> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let json: Value = self.get(path).await?;
        Ok(View(&json).parts(key))
    }

    /// A collection that a service may link without having it.
    pub(super) async fn optional_collection<T: Read>(&self, path: Option<&ResourcePath>) -> Result<Vec<T>> {
        match self.collection(path).await {
            Err(error) if matches!(error.cause, Cause::NotFound { .. }) => Ok(Vec::new()),
            other => other,
        }
    }
}
