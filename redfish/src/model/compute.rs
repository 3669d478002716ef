//! Systems, processors, memory, PCIe devices.

use super::base::{Action, Location, ResourcePath, Status};
use super::boot::Boot;
use super::model;
use super::words::{IndicatorLed, PowerState};
use crate::time::Timestamp;

model! {
    /// A server as its BMC sees it (`ComputerSystem`).
    System {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        sku: Option<String> = text("SKU"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        uuid: Option<String> = text("UUID"),
        asset_tag: Option<String> = text("AssetTag"),
        host_name: Option<String> = text("HostName"),
        bios_version: Option<String> = text("BiosVersion"),
        power_state: Option<PowerState> = word("PowerState"),
        status: Status = part("Status"),
        indicator_led: Option<IndicatorLed> = word("IndicatorLED"),
        location_indicator_active: Option<bool> = flag("LocationIndicatorActive"),
        processor_count: Option<u64> = whole("ProcessorSummary>Count"),
        core_count: Option<u64> = whole("ProcessorSummary>CoreCount"),
        processor_model: Option<String> = text("ProcessorSummary>Model"),
        memory_gib: Option<f64> = number("MemorySummary>TotalSystemMemoryGiB"),
        boot: Boot = part("Boot"),
        /// How far the last boot came, e.g. `OSRunning`, `OSBootStarted`.
        boot_progress: Option<String> = text("BootProgress>LastState|BootProgress>OemLastState"),
        last_reset: Option<Timestamp> = time("LastResetTime"),
        trusted_modules: Vec<TrustedModule> = parts("TrustedModules"),
        reset: Option<Action> = action("#ComputerSystem.Reset"),
        chassis: Vec<ResourcePath> = links("Links>Chassis"),
        managers: Vec<ResourcePath> = links("Links>ManagedBy"),
        processors: Option<ResourcePath> = link("Processors"),
        memory: Option<ResourcePath> = link("Memory"),
        storage: Option<ResourcePath> = link("Storage"),
        simple_storage: Option<ResourcePath> = link("SimpleStorage"),
        ethernet_interfaces: Option<ResourcePath> = link("EthernetInterfaces"),
        network_interfaces: Option<ResourcePath> = link("NetworkInterfaces"),
        pcie_devices: Vec<ResourcePath> = links("PCIeDevices"),
        log_services: Option<ResourcePath> = link("LogServices"),
        virtual_media: Option<ResourcePath> = link("VirtualMedia"),
        bios: Option<ResourcePath> = link("Bios"),
        secure_boot: Option<ResourcePath> = link("SecureBoot"),
        settings: Option<ResourcePath> = link("@Redfish.Settings>SettingsObject"),
    }

    TrustedModule {
        interface: Option<String> = text("InterfaceType"),
        firmware_version: Option<String> = text("FirmwareVersion"),
        status: Status = part("Status"),
    }

    Processor {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        socket: Option<String> = text("Socket"),
        /// `CPU`, `GPU`, `FPGA`, …
        kind: Option<String> = text("ProcessorType"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        architecture: Option<String> = text("ProcessorArchitecture"),
        instruction_set: Option<String> = text("InstructionSet"),
        cores: Option<u64> = whole("TotalCores"),
        threads: Option<u64> = whole("TotalThreads"),
        max_speed_mhz: Option<u64> = whole("MaxSpeedMHz"),
        microcode: Option<String> = text("ProcessorId>MicrocodeInfo"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        status: Status = part("Status"),
    }

    MemoryModule {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        /// The slot as it is printed on the board.
        slot: Option<String> = text("DeviceLocator|Name"),
        capacity_mib: Option<u64> = whole("CapacityMiB"),
        kind: Option<String> = text("MemoryDeviceType"),
        speed_mhz: Option<u64> = whole("OperatingSpeedMhz"),
        ranks: Option<u64> = whole("RankCount"),
        error_correction: Option<String> = text("ErrorCorrection"),
        manufacturer: Option<String> = text("Manufacturer"),
        part_number: Option<String> = text("PartNumber"),
        serial_number: Option<String> = text("SerialNumber"),
        status: Status = part("Status"),
    }

    PcieDevice {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        firmware_version: Option<String> = text("FirmwareVersion"),
        link_generation: Option<String> = text("PCIeInterface>PCIeType"),
        lanes: Option<u64> = whole("PCIeInterface>LanesInUse"),
        max_link_generation: Option<String> = text("PCIeInterface>MaxPCIeType"),
        max_lanes: Option<u64> = whole("PCIeInterface>MaxLanes"),
        location: Location = part("Slot>Location"),
        status: Status = part("Status"),
    }
}
