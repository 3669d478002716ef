//! The service itself: root, managers, accounts, logs, events.

use super::base::{Action, ResourcePath, Status};
use super::model;
use super::words::{Health, PowerState};
use crate::time::Timestamp;

model! {
    /// The service root.
    Service {
        path: ResourcePath = path(),
        redfish_version: Option<String> = text("RedfishVersion"),
        /// Since 2019.2; before, the key under `Oem`.
        vendor: Option<String> = text("Vendor"),
        product: Option<String> = text("Product"),
        uuid: Option<String> = text("UUID"),
        expand: Option<Expand> = perhaps("ProtocolFeaturesSupported>ExpandQuery"),
        systems: Option<ResourcePath> = link("Systems"),
        chassis: Option<ResourcePath> = link("Chassis"),
        managers: Option<ResourcePath> = link("Managers"),
        update_service: Option<ResourcePath> = link("UpdateService"),
        event_service: Option<ResourcePath> = link("EventService"),
        account_service: Option<ResourcePath> = link("AccountService"),
        session_service: Option<ResourcePath> = link("SessionService"),
        sessions: Option<ResourcePath> = link("Links>Sessions"),
        tasks: Option<ResourcePath> = link("Tasks"),
        job_service: Option<ResourcePath> = link("JobService"),
    }

    /// What the service can put into one answer.
    Expand {
        /// `$expand=.` with levels.
        levels: Option<bool> = flag("Levels"),
        /// `$expand=.`: the members, not the links.
        no_links: Option<bool> = flag("NoLinks"),
        all: Option<bool> = flag("ExpandAll"),
        max_levels: Option<u64> = whole("MaxLevels"),
    }

    /// A BMC.
    Manager {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        kind: Option<String> = text("ManagerType"),
        model: Option<String> = text("Model"),
        firmware_version: Option<String> = text("FirmwareVersion"),
        uuid: Option<String> = text("UUID"),
        serial_number: Option<String> = text("SerialNumber"),
        clock: Option<Timestamp> = time("DateTime"),
        power_state: Option<PowerState> = word("PowerState"),
        status: Status = part("Status"),
        serial_console: Option<SerialConsole> = perhaps("SerialConsole"),
        reset: Option<Action> = action("#Manager.Reset"),
        systems: Vec<ResourcePath> = links("Links>ManagerForServers"),
        ethernet_interfaces: Option<ResourcePath> = link("EthernetInterfaces"),
        network_protocol: Option<ResourcePath> = link("NetworkProtocol"),
        log_services: Option<ResourcePath> = link("LogServices"),
        virtual_media: Option<ResourcePath> = link("VirtualMedia"),
    }

    /// Serial over LAN, as far as it is offered.
    SerialConsole {
        enabled: Option<bool> = flag("ServiceEnabled"),
        /// `SSH`, `IPMI`, `Telnet`, `Oem`.
        kinds: Vec<String> = texts("ConnectTypesSupported"),
        max_sessions: Option<u64> = whole("MaxConcurrentSessions"),
    }

    NetworkProtocol {
        path: ResourcePath = path(),
        host_name: Option<String> = text("HostName"),
        ssh_enabled: Option<bool> = flag("SSH>ProtocolEnabled"),
        ssh_port: Option<u64> = whole("SSH>Port"),
        ipmi_enabled: Option<bool> = flag("IPMI>ProtocolEnabled"),
        ssdp_enabled: Option<bool> = flag("SSDP>ProtocolEnabled"),
        virtual_media_enabled: Option<bool> = flag("VirtualMedia>ProtocolEnabled"),
        ntp_enabled: Option<bool> = flag("NTP>ProtocolEnabled"),
        ntp_servers: Vec<String> = texts("NTP>NTPServers"),
    }

    Account {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        user: Option<String> = text("UserName"),
        role: Option<String> = text("RoleId"),
        enabled: Option<bool> = flag("Enabled"),
        locked: Option<bool> = flag("Locked"),
        password_change_required: Option<bool> = flag("PasswordChangeRequired"),
    }

    LogService {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        enabled: Option<bool> = flag("ServiceEnabled"),
        max_records: Option<u64> = whole("MaxNumberOfRecords"),
        entries: Option<ResourcePath> = link("Entries"),
        clear: Option<Action> = action("#LogService.ClearLog"),
    }

    LogEntry {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        created: Option<Timestamp> = time("Created|EventTimestamp"),
        severity: Option<Health> = word("Severity"),
        message: Option<String> = text("Message"),
        message_id: Option<String> = text("MessageId"),
        /// `SEL`, `Event`, `Oem`.
        kind: Option<String> = text("EntryType"),
        sensor: Option<String> = text("SensorType"),
        origin: Option<ResourcePath> = link("Links>OriginOfCondition|OriginOfCondition"),
    }

    Subscription {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        destination: Option<String> = text("Destination"),
        context: Option<String> = text("Context"),
        protocol: Option<String> = text("Protocol"),
        status: Status = part("Status"),
    }

    /// One record of an event.
    ServiceEvent {
        id: Option<String> = text("EventId"),
        kind: Option<String> = text("EventType"),
        time: Option<Timestamp> = time("EventTimestamp"),
        severity: Option<Health> = word("MessageSeverity|Severity"),
        message: Option<String> = text("Message"),
        message_id: Option<String> = text("MessageId"),
        args: Vec<String> = texts("MessageArgs"),
        origin: Option<ResourcePath> = link("OriginOfCondition"),
    }
}
