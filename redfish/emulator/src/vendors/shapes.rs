//! The vendors. Names of resources, places and attributes are as published; values are examples.

use super::base::{Push, Shape, link};
use crate::deviation::Deviation;
use crate::tree::Tree;
use serde_json::json;

/// A server that keeps to the standard.
pub fn plain(number: u32) -> Tree {
    Shape::plain(number).tree()
}

/// Dell PowerEdge, iDRAC9. Source: Dell "iDRAC9 Redfish API Guide" (developer.dell.com, API 2978) and the example scripts of
/// dell/iDRAC-Redfish-Scripting: `System.Embedded.1`, `iDRAC.Embedded.1`, service tag as SKU, `Bios/Settings`, job queue under
/// `Managers/iDRAC.Embedded.1/Jobs`, virtual media at the manager.
pub fn dell(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "Dell",
        product: "Integrated Dell Remote Access Controller",
        system_id: "System.Embedded.1",
        chassis_id: "System.Embedded.1",
        manager_id: "iDRAC.Embedded.1",
        manager_model: "15G Monolithic",
        manager_firmware: "7.00.00.00",
        manufacturer: "Dell Inc.",
        model: "PowerEdge R750",
        bios_version: "1.12.1",
        sku: Some(format!("ST{number:05}")),
        older_power: true,
        media_at_manager: true,
        older_led: true,
        bios: vec![
            ("BootMode", json!("Uefi")),
            ("SriovGlobalEnable", json!("Disabled")),
            ("PxeDev1EnDis", json!("Enabled")),
            ("HttpDev1EnDis", json!("Disabled")),
            ("HttpDev1Uri", json!("")),
            ("HttpDev1TlsMode", json!("OneWay")),
        ],
        boot_targets: vec![
            "None",
            "Pxe",
            "Floppy",
            "Cd",
            "Hdd",
            "BiosSetup",
            "Utilities",
            "UefiTarget",
            "SDCard",
            "UefiHttp",
        ],
        ..Shape::plain(number)
    };
    let mut tree = shape.tree();
    let jobs = "/redfish/v1/JobService/Jobs";
    tree.put(jobs, json!({"@odata.type": "#JobCollection.JobCollection", "Name": "Jobs", "Members@odata.count": 0, "Members": []}));
    if let Some(root) = tree.get_mut("/redfish/v1") {
        root["JobService"] = link("/redfish/v1/JobService");
    }
    let service = json!({
        "@odata.type": "#JobService.v1_0_5.JobService", "Id": "JobService", "Name": "Job Service", "ServiceEnabled": true,
        "Jobs": link(jobs),
    });
    tree.put("/redfish/v1/JobService", service);
    (tree, vec![Deviation::BiosJobOnlyWithApplyTime, Deviation::PendingShownEarly, Deviation::HttpUriInBios])
}

/// HPE ProLiant Gen11, iLO 6. Source: HPE "iLO RESTful API" (servermanagementportal.ext.hpe.com, iLO 6 resource definitions):
/// ids `1`, BIOS settings under lower-case `settings`, `UrlBootFile`, `IndicatorLED`.
pub fn hpe(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "HPE",
        product: "ProLiant DL380 Gen11",
        redfish_version: "1.13.0",
        manager_model: "iLO 6",
        manager_firmware: "iLO 6 v1.55",
        manufacturer: "HPE",
        model: "ProLiant DL380 Gen11",
        bios_version: "U54 v1.44",
        older_power: true,
        media_at_manager: true,
        older_led: true,
        bios: vec![("BootMode", json!("Uefi")), ("UrlBootFile", json!("")), ("Sriov", json!("Enabled"))],
        bios_settings: "settings",
        ..Shape::plain(number)
    };
    let deviations =
        vec![Deviation::HttpOverrideWithoutEffect, Deviation::NoneTargetRefused, Deviation::StarTagRefused];
    (shape.tree(), deviations)
}

/// Lenovo ThinkSystem, XClarity Controller 2. Source: Lenovo "XClarity Controller Redfish REST API" (pubs.lenovo.com/xcc-restapi):
/// ids `1`, BIOS settings under `Pending`, virtual media by PATCH.
pub fn lenovo(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "Lenovo",
        product: "ThinkSystem",
        manager_model: "Lenovo XClarity Controller 2",
        manager_firmware: "AFBT20R 3.10",
        manufacturer: "Lenovo",
        model: "ThinkSystem SR650 V3",
        bios_version: "ESE110Q",
        media_at_manager: true,
        bios: vec![
            ("BootModes_SystemBootMode", json!("UEFIMode")),
            ("DevicesandIOPorts_SRIOV", json!("Enabled")),
        ],
        bios_settings: "Pending",
        ..Shape::plain(number)
    };
    (shape.tree(), vec![Deviation::TagRefusedOnce, Deviation::MediaByPatch])
}

/// Supermicro H12/X12. Source: Supermicro "Redfish Reference Guide" and "Redfish User's Guide" (supermicro.com, BMC): ids `1`,
/// `SMC` messages, licences for updates, multipart upload.
pub fn supermicro(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "Supermicro",
        product: "X12",
        redfish_version: "1.11.0",
        manager_model: "AST2600",
        manager_firmware: "01.01.11",
        manufacturer: "Supermicro",
        model: "SYS-220U-TNR",
        bios_version: "1.4",
        older_power: true,
        media_at_manager: true,
        older_led: true,
        expand: false,
        event_stream: false,
        bios: vec![("QuietBoot", json!(true)), ("SR_IOVSupport", json!("Enabled"))],
        bios_settings: "SD",
        ..Shape::plain(number)
    };
    (shape.tree(), vec![Deviation::ModeFallsToLegacy, Deviation::NoTask])
}

/// AMI MegaRAC SP-X, as board makers ship it. Source: the Redfish user guides that Gigabyte and ASRock Rack publish for MegaRAC
/// boards: ids `Self`, settings of the system under `/Systems/Self/SD`, ETags demanded.
pub fn ami(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "AMI",
        product: "AMI Redfish Server",
        system_id: "Self",
        chassis_id: "Self",
        manager_id: "Self",
        manager_model: "MegaRAC",
        manager_firmware: "12.61.21",
        manufacturer: "GIGABYTE",
        model: "R282-Z93",
        bios_version: "M23",
        older_power: true,
        media_at_manager: true,
        older_led: true,
        bios: vec![("PCIS007", json!("Enabled"))],
        bios_settings: "SD",
        ..Shape::plain(number)
    };
    let mut tree = shape.tree();
    let path = shape.system();
    let settings = format!("{path}/SD");
    let boot = tree.get_mut(&path).map(|system| {
        system["@Redfish.Settings"] =
            json!({"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(&settings)});
        system["Boot"].clone()
    });
    let resource = json!({
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Id": "SD", "Name": "System settings", "Boot": boot,
    });
    tree.put(&settings, resource);
    (tree, vec![Deviation::TagMandatory, Deviation::WeakTags, Deviation::BootInSettings])
}

/// OpenBMC. Source: openbmc/bmcweb, `Redfish.md` and `redfish-core/lib`: ids `system`, `chassis`, `bmc`; plain push; no `$expand`
/// by default.
pub fn openbmc(number: u32) -> (Tree, Vec<Deviation>) {
    let shape = Shape {
        vendor: "OpenBMC",
        product: "OpenBMC",
        system_id: "system",
        chassis_id: "chassis",
        manager_id: "bmc",
        manager_model: "OpenBmc",
        manager_firmware: "2.14.0",
        manufacturer: "Quanta",
        model: "D53X",
        bios_version: "3A10",
        push: Push::Plain,
        bios: Vec::new(),
        media_at_manager: true,
        ..Shape::plain(number)
    };
    (shape.tree(), vec![Deviation::ExpandWrong])
}
