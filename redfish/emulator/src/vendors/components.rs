//! The things of a tree: system, chassis, manager and what is in them.

use super::base::{Shape, link, ok, put_collection};
use crate::tree::Tree;
use serde_json::{Value, json};

pub(super) fn put_system(tree: &mut Tree, shape: &Shape) {
    let path = shape.system();
    let at = |below: &str| format!("{path}/{below}");
    let options: Vec<String> = (0..3).map(|n| format!("Boot{n:04}")).collect();
    let bios = !shape.bios.is_empty();
    let mut system = json!({
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem", "Id": shape.system_id, "Name": "System",
        "SystemType": "Physical", "Manufacturer": shape.manufacturer, "Model": shape.model, "SerialNumber": shape.serial,
        "PartNumber": "P-1000", "UUID": shape.uuid, "AssetTag": "", "HostName": "", "BiosVersion": shape.bios_version,
        "PowerState": "Off", "Status": {"State": "Enabled", "Health": "OK", "HealthRollup": "OK"},
        "ProcessorSummary": {"Count": shape.processors, "CoreCount": shape.cores * shape.processors as u64, "Model": "Example CPU 9000"},
        "MemorySummary": {"TotalSystemMemoryGiB": shape.dimm_gib * shape.dimms as u64},
        "BootProgress": {"LastState": "None"},
        "Boot": {
            "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None", "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": shape.boot_targets,
            "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
            "HttpBootUri": null, "BootOrder": options, "BootOptions": link(&at("BootOptions")),
        },
        "TrustedModules": [{"InterfaceType": "TPM2_0", "FirmwareVersion": "7.2.2.0", "Status": {"State": "Enabled"}}],
        "Processors": link(&at("Processors")), "Memory": link(&at("Memory")), "Storage": link(&at("Storage")),
        "EthernetInterfaces": link(&at("EthernetInterfaces")), "LogServices": link(&at("LogServices")),
        "SecureBoot": link(&at("SecureBoot")),
        "PCIeDevices": [link(&format!("{}/PCIeDevices/NIC1", shape.chassis()))], "PCIeDevices@odata.count": 1,
        "Links": {"Chassis": [link(&shape.chassis())], "ManagedBy": [link(&shape.manager())]},
        "Actions": {"#ComputerSystem.Reset": {
            "target": at("Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues":
                ["On", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "PowerCycle", "Nmi", "PushPowerButton"],
        }},
    });
    if let Some(sku) = &shape.sku {
        system["SKU"] = json!(sku);
    }
    light(&mut system, shape);
    if bios {
        system["Bios"] = link(&at("Bios"));
    }
    if !shape.media_at_manager {
        system["VirtualMedia"] = link(&at("VirtualMedia"));
        put_media(tree, &at("VirtualMedia"));
    }
    tree.put(&path, system);
    let collection = json!({
        "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection", "Name": "Systems",
        "Members@odata.count": 1, "Members": [link(&path)],
    });
    tree.put("/redfish/v1/Systems", collection);
    put_processors_and_memory(tree, shape);
    put_storage(tree, shape);
    put_interfaces(tree, &at("EthernetInterfaces"), &shape.macs);
    if bios {
        put_bios(tree, shape);
    }
    let boots = ["UEFI PXE IPv4 NIC1 Port1", "UEFI HTTP NIC1 Port1", "NVMe disk 0"]
        .iter()
        .zip(["Pxe", "UefiHttp", "Hdd"]);
    let boots = boots.zip(&options).map(|((name, alias), id)| {
        let option = json!({
            "@odata.type": "#BootOption.v1_0_5.BootOption", "Id": id, "Name": "Boot option", "BootOptionReference": id,
            "DisplayName": name, "BootOptionEnabled": true, "Alias": alias,
        });
        (id.clone(), option)
    });
    put_collection(tree, &at("BootOptions"), "BootOption", "Boot options", boots.collect());
    put_secure_boot(tree, &at("SecureBoot"));
    put_log(tree, &at("LogServices"), "SEL");
}

/// By which property the light for finding a thing is switched.
fn light(resource: &mut Value, shape: &Shape) {
    match shape.older_led {
        true => resource["IndicatorLED"] = json!("Off"),
        false => resource["LocationIndicatorActive"] = json!(false),
    }
}

fn put_processors_and_memory(tree: &mut Tree, shape: &Shape) {
    let path = shape.system();
    let processors = (1..=shape.processors).map(|n| {
        let processor = json!({
            "@odata.type": "#Processor.v1_18_0.Processor", "Id": format!("CPU{n}"), "Name": format!("CPU {n}"),
            "Socket": format!("CPU {n}"), "ProcessorType": "CPU", "ProcessorArchitecture": "x86", "InstructionSet": "x86-64",
            "Manufacturer": "Example", "Model": "Example CPU 9000", "TotalCores": shape.cores, "TotalThreads": shape.cores * 2,
            "MaxSpeedMHz": 3600, "Status": ok(),
        });
        (format!("CPU{n}"), processor)
    });
    put_collection(tree, &format!("{path}/Processors"), "Processor", "Processors", processors.collect());
    let dimms = (1..=shape.dimms).map(|n| {
        let dimm = json!({
            "@odata.type": "#Memory.v1_18_0.Memory", "Id": format!("DIMM{n}"), "Name": format!("DIMM {n}"),
            "DeviceLocator": format!("A{n}"), "CapacityMiB": shape.dimm_gib * 1024, "MemoryDeviceType": "DDR5",
            "OperatingSpeedMhz": 4800, "RankCount": 2, "ErrorCorrection": "MultiBitECC", "Manufacturer": "Example",
            "PartNumber": "M-64", "SerialNumber": format!("{}-M{n}", shape.serial), "Status": ok(),
        });
        (format!("DIMM{n}"), dimm)
    });
    put_collection(tree, &format!("{path}/Memory"), "Memory", "Memory", dimms.collect());
}

fn put_storage(tree: &mut Tree, shape: &Shape) {
    let path = format!("{}/Storage", shape.system());
    let one = format!("{path}/1");
    let drives: Vec<String> = (0..shape.drives).map(|n| format!("{one}/Drives/{n}")).collect();
    let links: Vec<Value> = drives.iter().map(|drive| link(drive)).collect();
    let storage = json!({
        "@odata.type": "#Storage.v1_15_0.Storage", "Id": "1", "Name": "NVMe backplane", "Status": ok(),
        "Drives": links, "Drives@odata.count": drives.len(), "Controllers": link(&format!("{one}/Controllers")),
    });
    put_collection(tree, &path, "Storage", "Storage", vec![("1".to_owned(), storage)]);
    let controller = json!({
        "@odata.type": "#StorageController.v1_7_0.StorageController", "Id": "0", "Name": "PCIe switch", "Manufacturer": "Example",
        "Model": "SW-1", "FirmwareVersion": "3.1", "SupportedDeviceProtocols": ["NVMe"], "Status": ok(),
    });
    put_collection(
        tree,
        &format!("{one}/Controllers"),
        "StorageController",
        "Controllers",
        vec![("0".to_owned(), controller)],
    );
    for (n, drive) in drives.iter().enumerate() {
        let mut resource = json!({
            "@odata.type": "#Drive.v1_17_0.Drive", "Id": n.to_string(), "Name": format!("NVMe drive in bay {n}"),
            "Manufacturer": "Example", "Model": "EX-3840", "SerialNumber": format!("{}-D{n}", shape.serial),
            "Revision": "E2", "CapacityBytes": shape.drive_bytes, "BlockSizeBytes": 512, "MediaType": "SSD", "Protocol": "NVMe",
            "NegotiatedSpeedGbs": 32, "PredictedMediaLifeLeftPercent": 99, "FailurePredicted": false, "Status": ok(),
            "PhysicalLocation": {"PartLocation": {"ServiceLabel": format!("Bay {n}"), "LocationType": "Bay", "LocationOrdinalValue": n}},
            "Identifiers": [{"DurableNameFormat": "EUI", "DurableName": format!("02:00:00:00:00:00:00:{n:02x}")}],
        });
        light(&mut resource, shape);
        tree.put(drive, resource);
    }
}

fn put_interfaces(tree: &mut Tree, path: &str, macs: &[String]) {
    let interfaces = macs.iter().enumerate().map(|(n, mac)| {
        let id = format!("NIC1-{}", n + 1);
        let interface = json!({
            "@odata.type": "#EthernetInterface.v1_9_0.EthernetInterface", "Id": id, "Name": format!("Port {}", n + 1),
            "MACAddress": mac, "PermanentMACAddress": mac, "SpeedMbps": 100_000, "MTUSize": 1500, "LinkStatus": "LinkUp",
            "InterfaceEnabled": true, "Status": ok(),
        });
        (id, interface)
    });
    put_collection(tree, path, "EthernetInterface", "Ethernet interfaces", interfaces.collect());
}

fn put_bios(tree: &mut Tree, shape: &Shape) {
    let path = format!("{}/Bios", shape.system());
    let settings = format!("{path}/{}", shape.bios_settings);
    let attributes: serde_json::Map<String, Value> =
        shape.bios.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    tree.put(
        &path,
        json!({
            "@odata.type": "#Bios.v1_2_1.Bios", "Id": "Bios", "Name": "BIOS settings in force", "Attributes": attributes,
            "@Redfish.Settings": {"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(&settings), "SupportedApplyTimes": ["OnReset"]},
        }),
    );
    tree.put(
        &settings,
        json!({"@odata.type": "#Bios.v1_2_1.Bios", "Id": shape.bios_settings, "Name": "BIOS settings pending", "Attributes": {}}),
    );
}

fn put_secure_boot(tree: &mut Tree, path: &str) {
    let databases = format!("{path}/SecureBootDatabases");
    tree.put(
        path,
        json!({
            "@odata.type": "#SecureBoot.v1_1_1.SecureBoot", "Id": "SecureBoot", "Name": "UEFI secure boot",
            "SecureBootEnable": false, "SecureBootCurrentBoot": "Disabled", "SecureBootMode": "SetupMode",
            "SecureBootDatabases": link(&databases),
            "Actions": {"#SecureBoot.ResetKeys": {
                "target": format!("{path}/Actions/SecureBoot.ResetKeys"),
                "ResetKeysType@Redfish.AllowableValues": ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"],
            }},
        }),
    );
    let all = ["PK", "KEK", "db", "dbx"].map(|id| {
        let certificates = format!("{databases}/{id}/Certificates");
        put_collection(tree, &certificates, "Certificate", "Certificates", Vec::new());
        let database = json!({
            "@odata.type": "#SecureBootDatabase.v1_0_1.SecureBootDatabase", "Id": id, "Name": format!("{id} database"),
            "DatabaseId": id, "Certificates": link(&certificates),
        });
        (id.to_owned(), database)
    });
    put_collection(tree, &databases, "SecureBootDatabase", "Databases", all.into());
}

fn put_log(tree: &mut Tree, path: &str, id: &str) {
    let entries = format!("{path}/{id}/Entries");
    let log = json!({
        "@odata.type": "#LogService.v1_4_0.LogService", "Id": id, "Name": "Log", "ServiceEnabled": true, "MaxNumberOfRecords": 1000,
        "OverWritePolicy": "WrapsWhenFull", "LogEntryType": "SEL", "Entries": link(&entries), "Status": ok(),
        "Actions": {"#LogService.ClearLog": {"target": format!("{path}/{id}/Actions/LogService.ClearLog")}},
    });
    put_collection(tree, path, "LogService", "Logs", vec![(id.to_owned(), log)]);
    let all = (1..=3).map(|n| {
        let entry = json!({
            "@odata.type": "#LogEntry.v1_15_0.LogEntry", "Id": n.to_string(), "Name": format!("Entry {n}"), "EntryType": "SEL",
            "Severity": if n == 2 { "Warning" } else { "OK" }, "Created": format!("2025-01-0{n}T00:00:00Z"),
            "Message": format!("Something happened, number {n}."),
        });
        (n.to_string(), entry)
    });
    put_collection(tree, &entries, "LogEntry", "Log entries", all.collect());
}

fn put_media(tree: &mut Tree, path: &str) {
    let media = json!({
        "@odata.type": "#VirtualMedia.v1_6_2.VirtualMedia", "Id": "1", "Name": "Virtual CD", "MediaTypes": ["CD", "DVD"],
        "Image": null, "ImageName": null, "Inserted": false, "WriteProtected": true, "ConnectedVia": "NotConnected",
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": format!("{path}/1/Actions/VirtualMedia.InsertMedia")},
            "#VirtualMedia.EjectMedia": {"target": format!("{path}/1/Actions/VirtualMedia.EjectMedia")},
        },
    });
    put_collection(tree, path, "VirtualMedia", "Virtual media", vec![("1".to_owned(), media)]);
}

pub(super) fn put_chassis(tree: &mut Tree, shape: &Shape) {
    let path = shape.chassis();
    let at = |below: &str| format!("{path}/{below}");
    let mut chassis = json!({
        "@odata.type": "#Chassis.v1_23_0.Chassis", "Id": shape.chassis_id, "Name": "Chassis", "ChassisType": "RackMount",
        "Manufacturer": shape.manufacturer, "Model": shape.model, "SerialNumber": shape.serial, "PowerState": "On", "Status": ok(),
        "AssetTag": "", "NetworkAdapters": link(&at("NetworkAdapters")), "PCIeDevices": link(&at("PCIeDevices")),
        "Links": {"ComputerSystems": [link(&shape.system())], "ManagedBy": [link(&shape.manager())]},
    });
    light(&mut chassis, shape);
    if let Some(rack) = &shape.rack {
        chassis["Location"] =
            json!({"Placement": {"Rack": rack, "RackOffset": 12, "RackOffsetUnits": "EIA_310"}});
    }
    if shape.older_power {
        chassis["Power"] = link(&at("Power"));
        chassis["Thermal"] = link(&at("Thermal"));
        put_older_power(tree, &path);
    } else {
        chassis["PowerSubsystem"] = link(&at("PowerSubsystem"));
        chassis["ThermalSubsystem"] = link(&at("ThermalSubsystem"));
        chassis["Sensors"] = link(&at("Sensors"));
        put_power(tree, &path);
    }
    put_collection(
        tree,
        "/redfish/v1/Chassis",
        "Chassis",
        "Chassis",
        vec![(shape.chassis_id.to_owned(), chassis)],
    );
    put_adapter(tree, shape);
}

fn put_power(tree: &mut Tree, path: &str) {
    let power = format!("{path}/PowerSubsystem");
    tree.put(
        &power,
        json!({
            "@odata.type": "#PowerSubsystem.v1_1_0.PowerSubsystem", "Id": "PowerSubsystem", "Name": "Power", "Status": ok(),
            "PowerSupplies": link(&format!("{power}/PowerSupplies")),
        }),
    );
    let supplies = (1..=2).map(|n| {
        let supply = json!({
            "@odata.type": "#PowerSupply.v1_5_0.PowerSupply", "Id": format!("PSU{n}"), "Name": format!("PSU {n}"),
            "Manufacturer": "Example", "Model": "PS-1100", "SerialNumber": format!("PS{n}"), "FirmwareVersion": "1.0",
            "PowerCapacityWatts": 1100, "Status": ok(),
        });
        (format!("PSU{n}"), supply)
    });
    put_collection(
        tree,
        &format!("{power}/PowerSupplies"),
        "PowerSupply",
        "Power supplies",
        supplies.collect(),
    );
    let thermal = format!("{path}/ThermalSubsystem");
    tree.put(
        &thermal,
        json!({
            "@odata.type": "#ThermalSubsystem.v1_2_0.ThermalSubsystem", "Id": "ThermalSubsystem", "Name": "Thermal", "Status": ok(),
            "Fans": link(&format!("{thermal}/Fans")),
        }),
    );
    let fans = (1..=4).map(|n| {
        let fan = json!({
            "@odata.type": "#Fan.v1_5_0.Fan", "Id": format!("Fan{n}"), "Name": format!("Fan {n}"), "Status": ok(),
            "SpeedPercent": {"Reading": 40, "SpeedRPM": 8000},
        });
        (format!("Fan{n}"), fan)
    });
    put_collection(tree, &format!("{thermal}/Fans"), "Fan", "Fans", fans.collect());
    let inlet = json!({
        "@odata.type": "#Sensor.v1_7_0.Sensor", "Id": "Inlet", "Name": "Inlet temperature", "ReadingType": "Temperature",
        "Reading": 22.5, "ReadingUnits": "Cel", "PhysicalContext": "Intake", "Status": ok(),
        "Thresholds": {"UpperCaution": {"Reading": 38}, "UpperCritical": {"Reading": 42}},
    });
    put_collection(tree, &format!("{path}/Sensors"), "Sensor", "Sensors", vec![("Inlet".to_owned(), inlet)]);
}

fn put_older_power(tree: &mut Tree, path: &str) {
    let power = format!("{path}/Power");
    let supplies: Vec<Value> = (0..2)
        .map(|n| {
            json!({
                "@odata.id": format!("{power}#/PowerSupplies/{n}"), "MemberId": n.to_string(), "Name": format!("PSU {n}"),
                "Manufacturer": "Example", "Model": "PS-1100", "SerialNumber": format!("PS{n}"), "FirmwareVersion": "1.0",
                "PowerCapacityWatts": 1100, "LastPowerOutputWatts": 240, "LineInputVoltage": 230, "Status": ok(),
            })
        })
        .collect();
    tree.put(&power, json!({"@odata.type": "#Power.v1_7_1.Power", "Id": "Power", "Name": "Power", "PowerSupplies": supplies}));
    let thermal = format!("{path}/Thermal");
    let fans: Vec<Value> = (0..4)
        .map(|n| {
            json!({
                "@odata.id": format!("{thermal}#/Fans/{n}"), "MemberId": n.to_string(), "Name": format!("Fan {n}"),
                "Reading": 8000, "ReadingUnits": "RPM", "Status": ok(),
            })
        })
        .collect();
    let inlet = json!({
        "@odata.id": format!("{thermal}#/Temperatures/0"), "MemberId": "0", "Name": "Inlet", "ReadingCelsius": 22,
        "UpperThresholdNonCritical": 38, "UpperThresholdCritical": 42, "PhysicalContext": "Intake", "Status": ok(),
    });
    let body = json!({"@odata.type": "#Thermal.v1_7_1.Thermal", "Id": "Thermal", "Name": "Thermal", "Fans": fans, "Temperatures": [inlet]});
    tree.put(&thermal, body);
}

fn put_adapter(tree: &mut Tree, shape: &Shape) {
    let path = format!("{}/NetworkAdapters", shape.chassis());
    let one = format!("{path}/NIC1");
    let adapter = json!({
        "@odata.type": "#NetworkAdapter.v1_10_0.NetworkAdapter", "Id": "NIC1", "Name": "Network adapter", "Manufacturer": "Example",
        "Model": "EN-100G-2P", "SerialNumber": format!("{}-N1", shape.serial), "PartNumber": "EN100", "Status": ok(),
        "Controllers": [{"FirmwarePackageVersion": "22.31.1014"}], "Ports": link(&format!("{one}/Ports")),
    });
    put_collection(tree, &path, "NetworkAdapter", "Network adapters", vec![("NIC1".to_owned(), adapter)]);
    let ports = shape.macs.iter().enumerate().map(|(n, mac)| {
        let id = (n + 1).to_string();
        let port = json!({
            "@odata.type": "#Port.v1_9_0.Port", "Id": id, "Name": format!("Port {id}"), "PortId": id, "PortProtocol": "Ethernet",
            "LinkNetworkTechnology": "Ethernet", "LinkStatus": "LinkUp", "CurrentSpeedGbps": 100, "MaxSpeedGbps": 100, "Status": ok(),
            "Ethernet": {"AssociatedMACAddresses": [mac]},
        });
        (id, port)
    });
    put_collection(tree, &format!("{one}/Ports"), "Port", "Ports", ports.collect());
    let device = json!({
        "@odata.type": "#PCIeDevice.v1_11_0.PCIeDevice", "Id": "NIC1", "Name": "Network adapter", "Manufacturer": "Example",
        "Model": "EN-100G-2P", "SerialNumber": format!("{}-N1", shape.serial), "FirmwareVersion": "22.31.1014", "Status": ok(),
        "PCIeInterface": {"PCIeType": "Gen4", "LanesInUse": 16, "MaxPCIeType": "Gen4", "MaxLanes": 16},
    });
    let devices = vec![("NIC1".to_owned(), device)];
    put_collection(tree, &format!("{}/PCIeDevices", shape.chassis()), "PCIeDevice", "PCIe devices", devices);
}

pub(super) fn put_manager(tree: &mut Tree, shape: &Shape) {
    let path = shape.manager();
    let at = |below: &str| format!("{path}/{below}");
    let mut manager = json!({
        "@odata.type": "#Manager.v1_18_0.Manager", "Id": shape.manager_id, "Name": "Manager", "ManagerType": "BMC",
        "Model": shape.manager_model, "FirmwareVersion": shape.manager_firmware, "UUID": shape.uuid,
        "DateTime": "2026-01-01T00:00:00Z", "DateTimeLocalOffset": "+00:00", "PowerState": "On", "Status": ok(),
        "SerialConsole": {"ServiceEnabled": true, "MaxConcurrentSessions": 1, "ConnectTypesSupported": ["SSH", "IPMI"]},
        "EthernetInterfaces": link(&at("EthernetInterfaces")), "NetworkProtocol": link(&at("NetworkProtocol")),
        "LogServices": link(&at("LogServices")),
        "Links": {"ManagerForServers": [link(&shape.system())], "ManagerForChassis": [link(&shape.chassis())]},
        "Actions": {"#Manager.Reset": {
            "target": at("Actions/Manager.Reset"), "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"],
        }},
    });
    if shape.media_at_manager {
        manager["VirtualMedia"] = link(&at("VirtualMedia"));
        put_media(tree, &at("VirtualMedia"));
    }
    put_collection(
        tree,
        "/redfish/v1/Managers",
        "Manager",
        "Managers",
        vec![(shape.manager_id.to_owned(), manager)],
    );
    put_interfaces(tree, &at("EthernetInterfaces"), &["02:ff:00:00:00:01".to_owned()]);
    put_log(tree, &at("LogServices"), "BMC");
    tree.put(
        &at("NetworkProtocol"),
        json!({
            "@odata.type": "#ManagerNetworkProtocol.v1_9_1.ManagerNetworkProtocol", "Id": "NetworkProtocol", "Name": "Network protocols",
            "HostName": "bmc", "FQDN": "bmc.example", "Status": ok(),
            "HTTPS": {"ProtocolEnabled": true, "Port": 443}, "SSH": {"ProtocolEnabled": true, "Port": 22},
            "IPMI": {"ProtocolEnabled": false, "Port": 623}, "SSDP": {"ProtocolEnabled": true, "Port": 1900},
            "VirtualMedia": {"ProtocolEnabled": true, "Port": 5900}, "NTP": {"ProtocolEnabled": true, "Port": 123, "NTPServers": ["pool.ntp.org"]},
        }),
    );
}
