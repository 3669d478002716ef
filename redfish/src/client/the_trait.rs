//! [`Bmc`] for [`Client`]: which function does what.

use super::{Client, EventStream};
use crate::bmc::{Accepted, Bmc, BootOverride, PowerAction, TaskWait, UpdateRequest};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::model::*;
use crate::quirks::Quirks;
use async_trait::async_trait;
use basalt_trust::Secret;
use serde_json::Value;
use std::collections::BTreeMap;

#[async_trait]
impl Bmc for Client {
    fn endpoint(&self) -> &str {
        &self.http().endpoint
    }

    async fn service(&self) -> Result<Service> {
        Ok(self.root().await?.service.clone())
    }

    async fn quirks(&self) -> Result<Quirks> {
        self.quirk_set().await.cloned()
    }

    async fn systems(&self) -> Result<Vec<System>> {
        self.all_systems().await
    }

    async fn system(&self, system: &ResourcePath) -> Result<System> {
        self.read(system).await
    }

    async fn chassis(&self) -> Result<Vec<Chassis>> {
        self.collection(self.root().await?.service.chassis.as_ref()).await
    }

    async fn managers(&self) -> Result<Vec<Manager>> {
        self.collection(self.root().await?.service.managers.as_ref()).await
    }

    async fn inventory(&self, system: &ResourcePath) -> Result<Inventory> {
        self.whole(system).await
    }

    async fn processors(&self, system: &System) -> Result<Vec<Processor>> {
        self.processors_of(system).await
    }

    async fn memory(&self, system: &System) -> Result<Vec<MemoryModule>> {
        self.memory_of(system).await
    }

    async fn storage(&self, system: &System) -> Result<Vec<Storage>> {
        self.storage_of(system).await
    }

    async fn ethernet_interfaces(&self, system: &System) -> Result<Vec<EthernetInterface>> {
        self.ethernet_of(system).await
    }

    async fn pcie_devices(&self, system: &System) -> Result<Vec<PcieDevice>> {
        self.pcie_of(system).await
    }

    async fn network_adapters(&self, chassis: &Chassis) -> Result<Vec<NetworkAdapter>> {
        self.adapters_of(chassis).await
    }

    async fn power_supplies(&self, chassis: &Chassis) -> Result<Vec<PowerSupply>> {
        self.power_supplies_of(chassis).await
    }

    async fn fans(&self, chassis: &Chassis) -> Result<Vec<Fan>> {
        self.fans_of(chassis).await
    }

    async fn sensors(&self, chassis: &Chassis) -> Result<Vec<Sensor>> {
        self.sensors_of(chassis).await
    }

    async fn firmware(&self) -> Result<Vec<FirmwareItem>> {
        self.firmware_items().await
    }

    async fn power(&self, system: &ResourcePath, action: PowerAction) -> Result<()> {
        self.reset_system(system, action).await
    }

    async fn set_boot_override(&self, system: &ResourcePath, boot: &BootOverride) -> Result<Accepted> {
        self.override_boot(system, boot).await
    }

    async fn boot_options(&self, system: &ResourcePath) -> Result<Vec<BootOption>> {
        self.options_of(system).await
    }

    async fn set_boot_order(&self, system: &ResourcePath, order: &[String]) -> Result<Accepted> {
        self.order_boot(system, order).await
    }

    async fn bios(&self, system: &ResourcePath) -> Result<Bios> {
        let system: System = self.read(system).await?;
        self.bios_of(&system).await
    }

    async fn set_bios(
        &self,
        system: &ResourcePath,
        attributes: &BTreeMap<String, Value>,
    ) -> Result<Accepted> {
        let system: System = self.read(system).await?;
        self.change_bios(&system, attributes).await
    }

    async fn virtual_media(&self, system: &ResourcePath) -> Result<Vec<VirtualMedia>> {
        self.slots(system).await
    }

    async fn insert_media(&self, slot: &VirtualMedia, image_uri: &str) -> Result<Accepted> {
        self.insert(slot, image_uri).await
    }

    async fn eject_media(&self, slot: &VirtualMedia) -> Result<Accepted> {
        self.eject(slot).await
    }

    async fn set_indicator(&self, thing: &ResourcePath, lit: bool) -> Result<()> {
        self.indicate(thing, lit).await
    }

    async fn secure_boot(&self, system: &ResourcePath) -> Result<SecureBoot> {
        self.secure_boot_of(system).await
    }

    async fn set_secure_boot(&self, system: &ResourcePath, enabled: bool) -> Result<Accepted> {
        self.change_secure_boot(system, enabled).await
    }

    async fn secure_boot_databases(&self, system: &ResourcePath) -> Result<Vec<SecureBootDatabase>> {
        self.databases_of(system).await
    }

    async fn enrol_certificate(&self, system: &ResourcePath, database: &str, pem: &str) -> Result<Accepted> {
        self.enrol(system, database, pem).await
    }

    async fn reset_secure_boot_keys(&self, system: &ResourcePath, kind: &str) -> Result<Accepted> {
        self.reset_keys(system, kind).await
    }

    async fn update_service(&self) -> Result<UpdateService> {
        self.updates().await
    }

    async fn update_firmware(&self, update: &UpdateRequest) -> Result<Accepted> {
        self.update(update).await
    }

    async fn task(&self, task: &ResourcePath) -> Result<Task> {
        self.task_now(task).await
    }

    async fn wait_for_task(
        &self,
        task: &ResourcePath,
        wait: TaskWait,
        seen: &mut (dyn for<'t> FnMut(&'t Task) + Send),
    ) -> Result<Task> {
        self.await_task(task, wait, seen).await
    }

    async fn log_services(&self, system: &ResourcePath) -> Result<Vec<LogService>> {
        self.logs_of(system).await
    }

    async fn log_entries(&self, log: &LogService, limit: usize) -> Result<Vec<LogEntry>> {
        self.entries_of(log, limit).await
    }

    async fn clear_log(&self, log: &LogService) -> Result<()> {
        self.clear(log).await
    }

    async fn events(&self) -> Result<EventStream> {
        self.event_stream().await
    }

    async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.all_subscriptions().await
    }

    async fn subscribe(&self, destination: &str, context: &str) -> Result<ResourcePath> {
        self.new_subscription(destination, context).await
    }

    async fn unsubscribe(&self, subscription: &ResourcePath) -> Result<()> {
        self.delete(subscription).await.map(drop)
    }

    async fn network_protocol(&self, manager: &Manager) -> Result<NetworkProtocol> {
        let path = self.need(manager.network_protocol.as_ref(), "its network protocols")?;
        self.read(path).await
    }

    async fn manager_interfaces(&self, manager: &Manager) -> Result<Vec<EthernetInterface>> {
        self.collection(manager.ethernet_interfaces.as_ref()).await
    }

    async fn reset_manager(&self, manager: &ResourcePath) -> Result<()> {
        self.restart_manager(manager).await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.all_accounts().await
    }

    async fn create_account(&self, credentials: &Credentials, role: &str) -> Result<Account> {
        self.new_account(credentials, role).await
    }

    async fn set_password(&self, account: &ResourcePath, password: &Secret) -> Result<()> {
        self.change_password(account, password).await
    }

    async fn delete_account(&self, account: &ResourcePath) -> Result<()> {
        self.delete(account).await.map(drop)
    }

    async fn close(&self) {
        self.log_out().await;
    }
}
