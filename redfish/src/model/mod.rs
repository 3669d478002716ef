//! What a BMC says, typed. Each table below is the mapping as well: field, type, where it stands in the JSON (`|`: alternatives of
//! older schemas, `>`: deeper). Units are in the names. All of it can be stored (serde, in names of our own).

mod base;
mod boot;
mod chassis;
mod compute;
mod inventory;
mod network;
mod service;
mod storage;
mod update;
mod words;

pub use base::{Action, Location, Message, ResourcePath, Status};
pub use boot::{Bios, Boot, BootOption, SecureBoot, SecureBootDatabase, VirtualMedia};
pub use chassis::{Chassis, Fan, PowerSupply, Sensor, SensorLimits};
pub use compute::{MemoryModule, PcieDevice, Processor, System, TrustedModule};
pub use inventory::{Inventory, Problem};
pub use network::{EthernetInterface, Ipv4Address, Ipv6Address, NetworkAdapter, NetworkPort};
pub use service::{
    Account, Expand, LogEntry, LogService, Manager, NetworkProtocol, SerialConsole, Service, ServiceEvent,
    Subscription,
};
pub use storage::{Drive, DriveIdentifier, Storage, StorageController, Volume};
pub use update::{FirmwareItem, Task, UpdateService};
pub use words::{
    BootMode, BootTarget, Health, IndicatorLed, LinkStatus, MediaType, OverrideEnabled, PowerState, Protocol,
    ResetType, State, TaskState, TransferProtocol,
};

/// A struct and how it is read, in one table.
macro_rules! model {
    ($($(#[$meta:meta])* $name:ident {
        $($(#[$field_meta:meta])* $field:ident : $type:ty = $read:ident($($keys:expr)?)),* $(,)?
    })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl crate::json::Read for $name {
            fn read(view: crate::json::View<'_>) -> Self {
                Self { $($field: view.$read($($keys)?),)* }
            }
        }
    )* };
}
use model;
