//! What makes one server's tree differ from another's, and the tree made of it.

use super::{components, services};
use crate::tree::Tree;
use serde_json::{Value, json};

/// A server.
#[derive(Clone, Debug)]
pub struct Shape {
    pub vendor: &'static str,
    pub product: &'static str,
    pub redfish_version: &'static str,
    pub system_id: &'static str,
    pub chassis_id: &'static str,
    pub manager_id: &'static str,
    pub manager_model: &'static str,
    pub manager_firmware: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    pub bios_version: &'static str,
    pub serial: String,
    pub sku: Option<String>,
    pub uuid: String,
    pub processors: usize,
    pub cores: u64,
    pub dimms: usize,
    pub dimm_gib: u64,
    pub drives: usize,
    pub drive_bytes: u64,
    /// MAC addresses of the ports of its one adapter.
    pub macs: Vec<String>,
    pub rack: Option<String>,
    /// Power and Thermal of before 2020.4 instead of the subsystems.
    pub older_power: bool,
    /// Virtual media at the manager instead of the system.
    pub media_at_manager: bool,
    /// `IndicatorLED` instead of `LocationIndicatorActive`.
    pub older_led: bool,
    pub expand: bool,
    pub sessions: bool,
    pub event_stream: bool,
    pub push: Push,
    pub bios: Vec<(&'static str, Value)>,
    /// BIOS has a settings resource here, below `Bios`.
    pub bios_settings: &'static str,
    pub boot_targets: Vec<&'static str>,
}

/// How an image can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    None,
    Plain,
    Multipart,
}

impl Shape {
    /// A server that keeps to the standard. `number` makes serial numbers and addresses its own.
    pub fn plain(number: u32) -> Self {
        let [_, a, b, c] = number.to_be_bytes();
        Self {
            vendor: "Contoso",
            product: "Contoso BMC",
            redfish_version: "1.17.0",
            system_id: "1",
            chassis_id: "1",
            manager_id: "1",
            manager_model: "Contoso BMC 4",
            manager_firmware: "4.1.0",
            manufacturer: "Contoso",
            model: "Storage Server 2",
            bios_version: "1.2.3",
            serial: format!("CN{number:08}"),
            sku: None,
            uuid: format!("00000000-0000-4000-8000-{number:012x}"),
            processors: 2,
            cores: 32,
            dimms: 4,
            dimm_gib: 64,
            drives: 4,
            drive_bytes: 3_840_755_982_336,
            macs: (0..2).map(|port| format!("02:00:{a:02x}:{b:02x}:{c:02x}:{port:02x}")).collect(),
            rack: Some("R1".to_owned()),
            older_power: false,
            media_at_manager: false,
            older_led: false,
            expand: true,
            sessions: true,
            event_stream: true,
            push: Push::Multipart,
            bios: vec![
                ("BootMode", json!("Uefi")),
                ("SriovEnabled", json!(false)),
                ("ProcVirtualization", json!(true)),
            ],
            bios_settings: "Settings",
            boot_targets: vec!["None", "Pxe", "UefiHttp", "Hdd", "Cd", "Usb", "BiosSetup"],
        }
    }

    pub(crate) fn system(&self) -> String {
        format!("/redfish/v1/Systems/{}", self.system_id)
    }

    pub(crate) fn chassis(&self) -> String {
        format!("/redfish/v1/Chassis/{}", self.chassis_id)
    }

    pub(crate) fn manager(&self) -> String {
        format!("/redfish/v1/Managers/{}", self.manager_id)
    }

    /// The whole tree.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        services::put(&mut tree, self);
        components::put_system(&mut tree, self);
        components::put_chassis(&mut tree, self);
        components::put_manager(&mut tree, self);
        tree
    }
}

pub(crate) fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

pub(crate) fn ok() -> Value {
    json!({"State": "Enabled", "Health": "OK"})
}

/// A collection of resources that are put with it; `kind` is the members' type.
pub(crate) fn put_collection(
    tree: &mut Tree,
    path: &str,
    kind: &str,
    name: &str,
    members: Vec<(String, Value)>,
) {
    let links: Vec<Value> = members.iter().map(|(id, _)| link(&format!("{path}/{id}"))).collect();
    tree.put(
        path,
        json!({
            "@odata.type": format!("#{kind}Collection.{kind}Collection"), "Name": name,
            "Members@odata.count": links.len(), "Members": links,
        }),
    );
    for (id, member) in members {
        tree.put(&format!("{path}/{id}"), member);
    }
}
