//! Storage controllers, drives, volumes.

use super::base::{Location, ResourcePath, Status};
use super::model;
use super::words::{IndicatorLed, Protocol};

model! {
    /// A storage subsystem: controllers and what hangs on them.
    Storage {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        status: Status = part("Status"),
        controllers: Vec<StorageController> = parts("StorageControllers"),
        controllers_path: Option<ResourcePath> = link("Controllers"),
        drive_paths: Vec<ResourcePath> = links("Drives"),
        volumes_path: Option<ResourcePath> = link("Volumes"),
        /// Filled from the links.
        drives: Vec<Drive> = parts("@basalt.drives"),
        volumes: Vec<Volume> = parts("@basalt.volumes"),
    }

    StorageController {
        path: ResourcePath = path(),
        id: Option<String> = text("Id|MemberId"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        firmware_version: Option<String> = text("FirmwareVersion"),
        speed_gbps: Option<f64> = number("SpeedGbps"),
        protocols: Vec<Protocol> = words("SupportedDeviceProtocols"),
        status: Status = part("Status"),
    }

    Drive {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        firmware_version: Option<String> = text("FirmwareVersion|Revision"),
        capacity_bytes: Option<u64> = whole("CapacityBytes"),
        block_bytes: Option<u64> = whole("BlockSizeBytes"),
        /// `SSD`, `HDD`, `SMR`.
        media: Option<String> = text("MediaType"),
        protocol: Option<Protocol> = word("Protocol"),
        negotiated_gbps: Option<f64> = number("NegotiatedSpeedGbs"),
        rotation_rpm: Option<f64> = number("RotationSpeedRPM"),
        life_left_percent: Option<f64> = number("PredictedMediaLifeLeftPercent"),
        failure_predicted: Option<bool> = flag("FailurePredicted"),
        encryption: Option<String> = text("EncryptionStatus"),
        identifiers: Vec<DriveIdentifier> = parts("Identifiers"),
        location: Location = part("PhysicalLocation|Location>0"),
        indicator_led: Option<IndicatorLed> = word("IndicatorLED"),
        location_indicator_active: Option<bool> = flag("LocationIndicatorActive"),
        status: Status = part("Status"),
    }

    DriveIdentifier {
        /// `NAA`, `EUI`, `NGUID`, `NQN`, `UUID`.
        format: Option<String> = text("DurableNameFormat"),
        name: Option<String> = text("DurableName"),
    }

    Volume {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        raid: Option<String> = text("RAIDType|VolumeType"),
        capacity_bytes: Option<u64> = whole("CapacityBytes"),
        drives: Vec<ResourcePath> = links("Links>Drives"),
        status: Status = part("Status"),
    }
}
