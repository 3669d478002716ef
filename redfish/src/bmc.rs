//! What can be asked of a BMC, and done by it.

use crate::client::EventStream;
use crate::credentials::Credentials;
use crate::error::Result;
use crate::model::{
    Account, Bios, BootMode, BootOption, BootTarget, Chassis, EthernetInterface, Fan, FirmwareItem,
    Inventory, LogEntry, LogService, Manager, MemoryModule, Message, NetworkAdapter, NetworkProtocol,
    OverrideEnabled, PcieDevice, PowerSupply, Processor, ResourcePath, SecureBoot, SecureBootDatabase,
    Sensor, Service, Storage, Subscription, System, Task, TransferProtocol, UpdateService, VirtualMedia,
};
use crate::quirks::Quirks;
use async_trait::async_trait;
use basalt_trust::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// One BMC. Everything is asked over one connection, one request after the other.
///
/// Reading is repeated where that is safe and may help; changing is not, except where the answer says that nothing was done.
/// Where [`Connection::expected_serial`](crate::Connection::expected_serial) is given, nothing is changed before the server has
/// answered with it.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// `host:port`, the name in messages.
    fn endpoint(&self) -> &str;

    /// The service root; read once.
    async fn service(&self) -> Result<Service>;
    /// The rules in force with this BMC.
    async fn quirks(&self) -> Result<Quirks>;
    /// Servers behind this BMC: nearly always one; a chassis of several nodes has several.
    async fn systems(&self) -> Result<Vec<System>>;
    async fn system(&self, system: &ResourcePath) -> Result<System>;
    async fn chassis(&self) -> Result<Vec<Chassis>>;
    async fn managers(&self) -> Result<Vec<Manager>>;

    /// Everything about one server. Fails only where the BMC cannot be spoken with at all; a part that cannot be read is a
    /// [`Problem`](crate::model::Problem) of the inventory.
    async fn inventory(&self, system: &ResourcePath) -> Result<Inventory>;
    async fn processors(&self, system: &System) -> Result<Vec<Processor>>;
    async fn memory(&self, system: &System) -> Result<Vec<MemoryModule>>;
    async fn storage(&self, system: &System) -> Result<Vec<Storage>>;
    async fn ethernet_interfaces(&self, system: &System) -> Result<Vec<EthernetInterface>>;
    async fn pcie_devices(&self, system: &System) -> Result<Vec<PcieDevice>>;
    async fn network_adapters(&self, chassis: &Chassis) -> Result<Vec<NetworkAdapter>>;
    async fn power_supplies(&self, chassis: &Chassis) -> Result<Vec<PowerSupply>>;
    async fn fans(&self, chassis: &Chassis) -> Result<Vec<Fan>>;
    async fn sensors(&self, chassis: &Chassis) -> Result<Vec<Sensor>>;
    async fn firmware(&self) -> Result<Vec<FirmwareItem>>;

    /// Returns when the BMC has taken the order; the server may take a while. [`Bmc::system`] says how far it is.
    async fn power(&self, system: &ResourcePath, action: PowerAction) -> Result<()>;

    /// Where the next boot (or every boot) comes from.
    async fn set_boot_override(&self, system: &ResourcePath, boot: &BootOverride) -> Result<Accepted>;
    async fn boot_options(&self, system: &ResourcePath) -> Result<Vec<BootOption>>;
    /// `order`: references of boot options, first tried first.
    async fn set_boot_order(&self, system: &ResourcePath, order: &[String]) -> Result<Accepted>;
    async fn bios(&self, system: &ResourcePath) -> Result<Bios>;
    async fn set_bios(&self, system: &ResourcePath, attributes: &BTreeMap<String, Value>)
    -> Result<Accepted>;

    /// Slots of the system and of its managers.
    async fn virtual_media(&self, system: &ResourcePath) -> Result<Vec<VirtualMedia>>;
    async fn insert_media(&self, slot: &VirtualMedia, image_uri: &str) -> Result<Accepted>;
    async fn eject_media(&self, slot: &VirtualMedia) -> Result<Accepted>;

    /// The light for finding a system, chassis or drive.
    async fn set_indicator(&self, thing: &ResourcePath, lit: bool) -> Result<()>;

    async fn secure_boot(&self, system: &ResourcePath) -> Result<SecureBoot>;
    async fn set_secure_boot(&self, system: &ResourcePath, enabled: bool) -> Result<Accepted>;
    async fn secure_boot_databases(&self, system: &ResourcePath) -> Result<Vec<SecureBootDatabase>>;
    /// Adds a certificate (PEM) to a database (`PK`, `KEK`, `db`, `dbx`).
    async fn enrol_certificate(&self, system: &ResourcePath, database: &str, pem: &str) -> Result<Accepted>;
    /// `ResetAllKeysToDefault`, `DeleteAllKeys`, `DeletePK`.
    async fn reset_secure_boot_keys(&self, system: &ResourcePath, kind: &str) -> Result<Accepted>;

    async fn update_service(&self) -> Result<UpdateService>;
    async fn update_firmware(&self, update: &UpdateRequest) -> Result<Accepted>;
    async fn task(&self, task: &ResourcePath) -> Result<Task>;
    /// Asks until the task has ended; `seen` is called with every state that was read. A failed task is an error.
    async fn wait_for_task(
        &self,
        task: &ResourcePath,
        wait: TaskWait,
        seen: &mut (dyn for<'t> FnMut(&'t Task) + Send),
    ) -> Result<Task>;

    /// Logs of the system and its managers.
    async fn log_services(&self, system: &ResourcePath) -> Result<Vec<LogService>>;
    /// The newest entries, newest first, at most `limit`.
    async fn log_entries(&self, log: &LogService, limit: usize) -> Result<Vec<LogEntry>>;
    async fn clear_log(&self, log: &LogService) -> Result<()>;

    /// Server-sent events. They hold a second connection for as long as the stream lives.
    async fn events(&self) -> Result<EventStream>;
    async fn subscriptions(&self) -> Result<Vec<Subscription>>;
    /// `destination`: where the BMC posts events to; `context` comes back in each.
    async fn subscribe(&self, destination: &str, context: &str) -> Result<ResourcePath>;
    async fn unsubscribe(&self, subscription: &ResourcePath) -> Result<()>;

    async fn network_protocol(&self, manager: &Manager) -> Result<NetworkProtocol>;
    /// The manager's own NICs.
    async fn manager_interfaces(&self, manager: &Manager) -> Result<Vec<EthernetInterface>>;
    /// Restarts the BMC itself; it is gone for minutes.
    async fn reset_manager(&self, manager: &ResourcePath) -> Result<()>;

    async fn accounts(&self) -> Result<Vec<Account>>;
    async fn create_account(&self, credentials: &Credentials, role: &str) -> Result<Account>;
    async fn set_password(&self, account: &ResourcePath, password: &Secret) -> Result<()>;
    async fn delete_account(&self, account: &ResourcePath) -> Result<()>;

    /// Ends the session and the connection. A BMC has few sessions, and one that is not closed stays until its time-out.
    async fn close(&self);
}

/// What is wanted of a server's power; the client picks the reset type that the BMC offers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerAction {
    On,
    /// Asks the operating system.
    GracefulOff,
    ForceOff,
    GracefulRestart,
    /// Resets without asking.
    ForceRestart,
    /// Off and on again: what firmware updates need.
    PowerCycle,
    Nmi,
    PushButton,
}

/// Where boots shall come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOverride {
    pub target: BootTarget,
    pub enabled: OverrideEnabled,
    /// None: as it is.
    pub mode: Option<BootMode>,
    /// For [`BootTarget::UefiHttp`].
    pub http_boot_uri: Option<String>,
    /// For [`BootTarget::UefiTarget`].
    pub uefi_target: Option<String>,
}

impl BootOverride {
    pub fn pxe(enabled: OverrideEnabled) -> Self {
        let (target, mode) = (BootTarget::Pxe, Some(BootMode::Uefi));
        Self { target, enabled, mode, http_boot_uri: None, uefi_target: None }
    }

    pub fn uefi_http(enabled: OverrideEnabled, uri: impl Into<String>) -> Self {
        Self { target: BootTarget::UefiHttp, http_boot_uri: Some(uri.into()), ..Self::pxe(enabled) }
    }

    /// Back to the boot order.
    pub fn none() -> Self {
        let (target, enabled) = (BootTarget::None, OverrideEnabled::Disabled);
        Self { target, enabled, mode: None, http_boot_uri: None, uefi_target: None }
    }
}

/// A BMC has taken a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// Goes on there; see [`Bmc::wait_for_task`].
    pub task: Option<ResourcePath>,
    /// In force from the next boot of the server on.
    pub after_reset: bool,
    /// The BMC said that it goes on with it, and not where: how far it is shows only in its outcome.
    pub unattended: bool,
    pub messages: Vec<Message>,
}

#[derive(Clone, Debug)]
pub struct UpdateRequest {
    pub image: UpdateImage,
    /// What to update; empty: what the image is for.
    pub targets: Vec<ResourcePath>,
    /// `Immediate`, `OnReset`, …; None: as the BMC likes.
    pub apply_time: Option<String>,
}

#[derive(Clone, Debug)]
pub enum UpdateImage {
    /// The BMC fetches it (`SimpleUpdate`).
    Uri { uri: String, protocol: Option<TransferProtocol>, credentials: Option<Credentials> },
    /// We send it (multipart where offered, else the plain push).
    Content { file_name: String, bytes: Vec<u8> },
}

/// How to wait for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskWait {
    pub limit: Duration,
    pub pause: Duration,
}

impl Default for TaskWait {
    fn default() -> Self {
        Self { limit: Duration::from_secs(3600), pause: Duration::from_secs(5) }
    }
}
