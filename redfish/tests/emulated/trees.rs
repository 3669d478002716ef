//! Service trees read completely: the written ones of each vendor, and real ones where they are given.

use crate::common::{client, system_path, with};
use basalt_redfish::model::OverrideEnabled;
use basalt_redfish::quirks::{Facts, Vendor};
use basalt_redfish::{Bmc, BootOverride, PowerAction, Quirk, Timestamp};
use basalt_redfish_emulator::{Emulator, Tree, vendors};
use std::path::{Path, PathBuf};

#[tokio::test]
async fn every_vendors_tree_is_read_completely() {
    let plain = (vendors::plain(5), Vec::new());
    let all = [
        (Vendor::Unknown, plain),
        (Vendor::Dell, vendors::dell(5)),
        (Vendor::Hpe, vendors::hpe(5)),
        (Vendor::Lenovo, vendors::lenovo(5)),
        (Vendor::Supermicro, vendors::supermicro(5)),
        (Vendor::Ami, vendors::ami(5)),
        (Vendor::OpenBmc, vendors::openbmc(5)),
    ];
    for (vendor, (tree, deviations)) in all {
        let emulator = with(tree, deviations).await;
        let client = client(&emulator);
        let i = client.inventory(&system_path(&client).await).await.unwrap();
        assert_eq!(i.problems, [], "{vendor:?}");
        let found = Facts::of(&i.service, &[], i.managers.first(), Some(&i.system)).vendor;
        assert_eq!(found, vendor);
        let counts = [i.processors.len(), i.memory.len(), i.drives().count(), i.ethernet_interfaces.len()];
        assert_eq!(counts, [2, 4, 4, 2], "{vendor:?}");
        let counts =
            [i.power_supplies.len(), i.fans.len(), i.sensors.len(), i.firmware.len(), i.virtual_media.len()];
        assert_eq!(counts, [2, 4, 1, 2, 1], "{vendor:?}");
        assert_eq!(i.system.serial_number.as_deref(), Some("CN00000005"), "{vendor:?}");
        let adapter = &i.network_adapters[0];
        assert_eq!(adapter.firmware_version.as_deref(), Some("22.31.1014"));
        assert_eq!(adapter.ports[0].speed_bits_per_s(), Some(100e9));
        assert_eq!(i.sensors[0].limits.upper_critical, Some(42.0), "{vendor:?}");
        assert_eq!(i.chassis[0].location.rack.as_deref(), Some("R1"));
        assert_eq!(i.managers[0].clock, Timestamp::read("2026-01-01T00:00:00Z"));
        let drive = i.drives().next().unwrap();
        assert_eq!(
            (drive.capacity_bytes, drive.location.label.as_deref()),
            (Some(3_840_755_982_336), Some("Bay 0"))
        );
    }
}

/// A tree out of a `.tar.gz`.
fn unpack(archive: &Path) -> Tree {
    let name = archive.file_name().unwrap().to_string_lossy().replace(".tar.gz", "");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tree-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("xzf").arg(archive).arg("-C").arg(&folder);
    assert!(tar.status().unwrap().success());
    let inside =
        std::fs::read_dir(&folder).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    let root = if inside.ends_with("redfish") { folder.clone() } else { inside };
    let tree = Tree::load(&root).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    tree
}

/// `REDFISH_TREES`, or the data beside the tree.
fn given() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/redfish");
    std::env::var_os("REDFISH_TREES").map(PathBuf::from).or(Some(beside)).filter(|path| path.is_dir())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_trees_are_read_completely() {
    let Some(folder) = given() else {
        eprintln!("skipped: no REDFISH_TREES");
        return;
    };
    let mut archives: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    archives.retain(|path| path.to_string_lossy().ends_with(".tar.gz"));
    archives.sort();
    assert!(!archives.is_empty());
    for archive in archives {
        let name = archive.file_name().unwrap().to_string_lossy().into_owned();
        let emulator = Emulator::start(unpack(&archive)).await;
        let client = client(&emulator);
        for system in client.systems().await.unwrap() {
            let i = client.inventory(&system.path).await.unwrap();
            // A mockup links what its maker did not copy.
            let real: Vec<_> = i.problems.iter().filter(|p| !p.reason.contains("the BMC has no")).collect();
            assert!(real.is_empty(), "{name}: {real:?}");
            assert!(i.system.serial_number.is_some() && i.system.model.is_some(), "{name}");
            assert!(!i.processors.is_empty() && !i.managers.is_empty() && !i.chassis.is_empty(), "{name}");
            assert!(!i.power_supplies.is_empty() && !i.fans.is_empty() && !i.sensors.is_empty(), "{name}");
            eprintln!(
                "{name}: {:?} {:?}: {} CPUs, {} DIMMs, {} drives, {} NICs, {} adapters, {} PSUs, {} fans, {} sensors, {} firmwares, {} requests",
                i.system.manufacturer,
                i.system.model,
                i.processors.len(),
                i.memory.len(),
                i.drives().count(),
                i.ethernet_interfaces.len(),
                i.network_adapters.len(),
                i.power_supplies.len(),
                i.fans.len(),
                i.sensors.len(),
                i.firmware.len(),
                client.requests()
            );
            let boot = BootOverride::pxe(OverrideEnabled::Once);
            client
                .set_boot_override(&system.path, &boot)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            client
                .power(&system.path, PowerAction::PowerCycle)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(emulator.boots()[0].target, "Pxe", "{name}");
            if name.starts_with("dell") {
                assert!(client.quirks().await.unwrap().has(Quirk::BiosNeedsApplyTime), "told to be an iDRAC");
                let sockets = i.processors.iter().filter(|p| p.kind.as_deref() == Some("CPU")).count();
                assert_eq!((sockets, i.memory.len()), (2, 16));
                assert_eq!(i.system.sku.as_deref(), Some("F54P1G3"));
                assert!(i.bios.is_some_and(|bios| bios.attributes.len() > 100));
            }
        }
    }
}
