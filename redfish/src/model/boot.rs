//! What a server boots: overrides, order, BIOS attributes, secure boot, virtual media.

use super::base::{Action, ResourcePath};
use super::model;
use super::words::{BootMode, BootTarget, MediaType, OverrideEnabled};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

model! {
    Boot {
        enabled: Option<OverrideEnabled> = word("BootSourceOverrideEnabled"),
        target: Option<BootTarget> = word("BootSourceOverrideTarget"),
        mode: Option<BootMode> = word("BootSourceOverrideMode"),
        http_boot_uri: Option<String> = text("HttpBootUri"),
        uefi_target: Option<String> = text("UefiTargetBootSourceOverride"),
        /// Empty: the service does not say.
        allowed_targets: Vec<BootTarget> = words("BootSourceOverrideTarget@Redfish.AllowableValues"),
        allowed_modes: Vec<BootMode> = words("BootSourceOverrideMode@Redfish.AllowableValues"),
        /// References of boot options (`Boot0003`), first tried first.
        order: Vec<String> = texts("BootOrder"),
        options: Option<ResourcePath> = link("BootOptions"),
    }

    BootOption {
        path: ResourcePath = path(),
        /// What the boot order names.
        reference: Option<String> = text("BootOptionReference|Id"),
        display_name: Option<String> = text("DisplayName|Name"),
        uefi_device_path: Option<String> = text("UefiDevicePath"),
        enabled: Option<bool> = flag("BootOptionEnabled"),
        alias: Option<BootTarget> = word("Alias"),
    }

    SecureBoot {
        path: ResourcePath = path(),
        /// From the next boot on.
        enabled: Option<bool> = flag("SecureBootEnable"),
        /// `Enabled` or `Disabled` for the boot that is running.
        current_boot: Option<String> = text("SecureBootCurrentBoot"),
        /// `SetupMode`, `UserMode`, `AuditMode`, `DeployedMode`.
        mode: Option<String> = text("SecureBootMode"),
        databases: Option<ResourcePath> = link("SecureBootDatabases"),
        reset_keys: Option<Action> = action("#SecureBoot.ResetKeys"),
    }

    SecureBootDatabase {
        path: ResourcePath = path(),
        /// `PK`, `KEK`, `db`, `dbx`.
        id: Option<String> = text("DatabaseId|Id"),
        certificates: Option<ResourcePath> = link("Certificates"),
        signatures: Option<ResourcePath> = link("Signatures"),
        reset_keys: Option<Action> = action("#SecureBootDatabase.ResetKeys"),
    }

    VirtualMedia {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        media_types: Vec<MediaType> = words("MediaTypes"),
        image: Option<String> = text("Image"),
        inserted: Option<bool> = flag("Inserted"),
        write_protected: Option<bool> = flag("WriteProtected"),
        connected_via: Option<String> = text("ConnectedVia"),
        insert: Option<Action> = action("#VirtualMedia.InsertMedia"),
        eject: Option<Action> = action("#VirtualMedia.EjectMedia"),
    }
}

impl VirtualMedia {
    pub fn takes(&self, kind: &MediaType) -> bool {
        self.media_types.contains(kind)
    }
}

/// BIOS attributes: a vendor's own names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bios {
    pub path: ResourcePath,
    /// In force.
    pub attributes: BTreeMap<String, serde_json::Value>,
    /// Set, and in force from a later boot on.
    pub pending: BTreeMap<String, serde_json::Value>,
    pub registry: Option<String>,
    pub settings: Option<ResourcePath>,
}
