//! Chassis with power supplies, fans and sensors.

use super::base::{Location, ResourcePath, Status};
use super::model;
use super::words::{IndicatorLed, PowerState};

model! {
    Chassis {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        /// `RackMount`, `Enclosure`, `Blade`, …
        kind: Option<String> = text("ChassisType"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        sku: Option<String> = text("SKU"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        asset_tag: Option<String> = text("AssetTag"),
        location: Location = part("Location"),
        power_state: Option<PowerState> = word("PowerState"),
        status: Status = part("Status"),
        indicator_led: Option<IndicatorLed> = word("IndicatorLED"),
        location_indicator_active: Option<bool> = flag("LocationIndicatorActive"),
        intrusion: Option<String> = text("PhysicalSecurity>IntrusionSensor"),
        systems: Vec<ResourcePath> = links("Links>ComputerSystems"),
        drives: Vec<ResourcePath> = links("Links>Drives"),
        network_adapters: Option<ResourcePath> = link("NetworkAdapters"),
        pcie_devices: Option<ResourcePath> = link("PCIeDevices"),
        /// Before 2020.4.
        power: Option<ResourcePath> = link("Power"),
        thermal: Option<ResourcePath> = link("Thermal"),
        /// Since 2020.4.
        power_subsystem: Option<ResourcePath> = link("PowerSubsystem"),
        thermal_subsystem: Option<ResourcePath> = link("ThermalSubsystem"),
        sensors: Option<ResourcePath> = link("Sensors"),
    }

    PowerSupply {
        path: ResourcePath = path(),
        id: Option<String> = text("Id|MemberId"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber|SparePartNumber"),
        firmware_version: Option<String> = text("FirmwareVersion"),
        capacity_w: Option<f64> = number("PowerCapacityWatts"),
        input_w: Option<f64> = number("PowerInputWatts"),
        output_w: Option<f64> = number("PowerOutputWatts|LastPowerOutputWatts"),
        input_v: Option<f64> = number("LineInputVoltage"),
        status: Status = part("Status"),
    }

    Fan {
        path: ResourcePath = path(),
        id: Option<String> = text("Id|MemberId"),
        name: Option<String> = text("Name|FanName"),
        reading: Option<f64> = number("SpeedPercent>SpeedRPM|SpeedPercent>Reading|Reading|CurrentReading"),
        /// `RPM` or `Percent`.
        unit: Option<String> = text("ReadingUnits|Units"),
        status: Status = part("Status"),
    }

    Sensor {
        path: ResourcePath = path(),
        id: Option<String> = text("Id|MemberId"),
        name: Option<String> = text("Name"),
        /// `Temperature`, `Voltage`, `Power`, `Rotational`, …
        kind: Option<String> = text("ReadingType"),
        reading: Option<f64> = number("Reading|ReadingCelsius|ReadingVolts"),
        /// `Cel`, `V`, `W`, `RPM`, `%`, …
        unit: Option<String> = text("ReadingUnits"),
        context: Option<String> = text("PhysicalContext"),
        limits: SensorLimits = part("Thresholds"),
        status: Status = part("Status"),
    }

    SensorLimits {
        upper_caution: Option<f64> = number("UpperCaution>Reading|UpperCautionUser>Reading"),
        upper_critical: Option<f64> = number("UpperCritical>Reading|UpperFatal>Reading"),
        lower_caution: Option<f64> = number("LowerCaution>Reading|LowerCautionUser>Reading"),
        lower_critical: Option<f64> = number("LowerCritical>Reading|LowerFatal>Reading"),
    }
}
