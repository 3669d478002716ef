//! A node's own view, from trees as kernels lay them out: an x86 server with two sockets, NVMe drives and a ConnectX; and an Arm board
//! with next to nothing.

use basalt_inventory::local::{self, RecordedLogs, net::neighbours};
use basalt_inventory::record::{Contents, Record, Source};
use basalt_inventory::{Health, Profile, check, health};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Root {
    fn new(name: &str) -> Root {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("basalt-inventory-{}-{n}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Root(path)
    }
    fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Root {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }
    fn files(&self, dir: &str, files: &[(&str, &str)]) -> &Root {
        for (name, contents) in files {
            self.file(&format!("{dir}/{name}"), format!("{contents}\n"));
        }
        self
    }
    fn link(&self, path: &str, to: &str) -> &Root {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
        self
    }
    fn read(&self) -> Record {
        local::read(&self.0, &RecordedLogs::new(&self.0), 1_700_000_000)
    }
}

/// A SMART log: 40 °C, 97 % spare (limit 10), `used` % worn.
fn smart(used: u8, warning: u8) -> Vec<u8> {
    let mut log = vec![0; 512];
    log[0] = warning;
    log[1..3].copy_from_slice(&313u16.to_le_bytes());
    (log[3], log[4], log[5]) = (97, 10, used);
    log[48..56].copy_from_slice(&1_953_125u64.to_le_bytes());
    log[160..168].copy_from_slice(&7u64.to_le_bytes());
    log
}

fn server() -> Root {
    let root = Root::new("server");
    root.files(
        "sys/class/dmi/id",
        &[
            ("sys_vendor", "Dell Inc."),
            ("product_name", "PowerEdge R750"),
            ("product_serial", "ABC1234"),
            ("product_uuid", "4C4C4544-0042-4310-8031-C3C04F313233"),
            ("bios_version", "1.8.2"),
            ("chassis_asset_tag", "To be filled by O.E.M."),
        ],
    );
    let cpu = |n: u32, socket: u32, core: u32| {
        format!(
            "processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6354\nphysical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu avx2 avx512f pclmulqdq\n\n"
        )
    };
    let cpus: String = (0..8).map(|n| cpu(n, n / 4, n % 2)).collect();
    root.file("proc/cpuinfo", cpus);
    root.file("proc/meminfo", "MemTotal:       527846400 kB\nMemFree: 1 kB\n");
    for node in 0..2 {
        let dir = format!("sys/devices/system/node/node{node}");
        root.files(&dir, &[("cpulist", "0-3"), ("meminfo", "Node 0 MemTotal:       263923200 kB")]);
        root.files(&format!("{dir}/hugepages/hugepages-2048kB"), &[("nr_hugepages", "512")]);
    }
    root.files(
        "sys/bus/pci/devices/0000:3b:00.0",
        &[
            ("vendor", "0x15b3"),
            ("device", "0x1021"),
            ("class", "0x020000"),
            ("numa_node", "0"),
            ("current_link_speed", "16.0 GT/s PCIe"),
            ("current_link_width", "8"),
            ("max_link_speed", "16.0 GT/s PCIe"),
            ("max_link_width", "16"),
        ],
    );
    root.link("sys/bus/pci/devices/0000:3b:00.0/driver", "../../../../bus/pci/drivers/mlx5_core");
    root.link("sys/bus/pci/devices/0000:3b:00.0/iommu_group", "../../../kernel/iommu_groups/17");
    let net = "sys/class/net/ens1f0";
    root.files(
        net,
        &[
            ("address", "3c:ec:ef:00:11:22"),
            ("carrier", "1"),
            ("speed", "200000"),
            ("mtu", "9000"),
            ("operstate", "up"),
        ],
    );
    root.link("sys/class/net/ens1f0/device", "../../../bus/pci/devices/0000:3b:00.0");
    root.files(
        "sys/bus/pci/devices/0000:3b:00.0/infiniband/mlx5_0",
        &[("fw_ver", "22.31.1014"), ("ports/1/link_layer", "Ethernet"), ("ports/1/state", "4: ACTIVE")],
    );
    // No hardware behind it.
    root.files("sys/class/net/lo", &[("address", "00:00:00:00:00:00"), ("mtu", "65536")]);
    for n in [0, 10, 2] {
        let dir = format!("sys/class/nvme/nvme{n}");
        root.files(
            &dir,
            &[
                ("serial", &format!("S{n}                 ")),
                ("model", "KIOXIA KCM61RUL3T84"),
                ("firmware_rev", "0105"),
                ("transport", "pcie"),
                ("address", &format!("0000:{:02x}:00.0", 0x60 + n)),
                ("numa_node", "1"),
            ],
        );
        root.files(&format!("{dir}/nvme{n}n1"), &[("size", "7501476528"), ("eui", "8ce38ee2086a1b01")]);
        root.file(&format!("dev/nvme{n}.health"), smart(if n == 10 { 96 } else { 3 }, 0));
    }
    root.files("sys/class/nvme/nvme0/nvme0n1/nvme0n1p1", &[("partition", "1")]);
    let blank = fs::File::create(root.0.join("dev/nvme2n1")).unwrap();
    blank.set_len(64 << 20).unwrap();
    let mut xfs = vec![0; 4 << 20];
    xfs[..4].copy_from_slice(b"XFSB");
    root.file("dev/nvme10n1", xfs);
    // A drive of another node, over the fabric.
    root.files("sys/class/nvme/nvme7", &[("serial", "FAR"), ("transport", "tcp")]);
    root.files(
        "sys/block/sda",
        &[
            ("size", "937703088"),
            ("removable", "0"),
            ("device/vendor", "ATA"),
            ("device/model", "BOSS-S2"),
            ("queue/rotational", "0"),
        ],
    );
    root.files("sys/block/loop0", &[("size", "8")]);
    root
}

#[test]
fn a_server_is_read_whole() {
    let root = server();
    let record = root.read();
    assert_eq!(record.sources, [Source::Node]);
    assert!(record.unread.is_empty());
    assert_eq!((record.identity.serial.as_str(), record.identity.asset_tag.as_str()), ("ABC1234", ""));
    assert_eq!(record.identity.uuid, "4c4c4544-0042-4310-8031-c3c04f313233");
    let cpus: Vec<_> = record.processors.iter().map(|c| (c.socket.as_str(), c.cores, c.threads)).collect();
    assert_eq!(cpus, [("0", 2, 4), ("1", 2, 4)]);
    assert_eq!(record.memory_bytes, 527_846_400 * 1024);
    assert_eq!(record.numa[1].hugepages[&(2 << 20)], 512);
    assert_eq!(record.iommu_groups[&17], ["0000:3b:00.0"]);
    let nic = &record.nics[0];
    assert_eq!(record.nics.len(), 1, "the loopback is no hardware");
    assert_eq!((nic.firmware.as_str(), nic.pci.as_str()), ("22.31.1014", "0000:3b:00"));
    let port = &nic.ports[0];
    assert_eq!(
        (port.link_up, port.speed_mbps, port.mtu, port.numa),
        (Some(true), Some(200_000), Some(9000), Some(0))
    );
    assert_eq!((port.driver.as_str(), port.rdma.as_str()), ("mlx5_core", "mlx5_0 (Ethernet, active)"));
    let serials: Vec<&str> = record.drives.iter().map(|d| d.serial.as_str()).collect();
    assert_eq!(serials, ["S0", "S2", "S10", ""], "in the order of their numbers, and none of the fabric's");
    let contents: Vec<&Contents> = record.drives.iter().map(|d| &d.contents).collect();
    assert!(matches!(contents[0], Contents::Holds(what) if what.contains("1 partitions")));
    assert_eq!(contents[1], &Contents::Blank);
    assert!(matches!(contents[2], Contents::Holds(what) if what.contains("XFS")));
    assert_eq!(contents[3], &Contents::Unknown, "what cannot be read is not blank");
    let drive = &record.drives[1];
    assert_eq!((drive.bytes, drive.used_percent, drive.numa), (7_501_476_528 * 512, Some(3), Some(1)));
    let smart = drive.smart.as_ref().unwrap();
    assert_eq!((smart.temperature_c, smart.spare_percent, smart.media_errors), (40, 97, 7));
    assert_eq!(smart.data_units_written, 1_953_125);
    assert_eq!(record.drives[3].protocol, "SATA");
}

#[test]
fn health_names_what_is_worn_and_what_is_slow() {
    let root = server();
    root.file("dev/nvme2.health", smart(3, 0b100));
    let rolled = health::roll_up(&root.read());
    assert_eq!(rolled.health, Health::Critical);
    let causes: Vec<String> = rolled.causes.iter().map(|c| format!("{}: {}", c.part, c.cause)).collect();
    assert_eq!(
        causes,
        [
            "drive S2: the drive says that it is no longer reliable",
            "PCIe device 0000:3b:00.0: its link runs at 16.0 GT/s x8, it can do 16.0 GT/s x16",
            "drive S10: 96 % worn",
        ]
    );
}

#[test]
fn a_profile_names_each_difference() {
    let root = server();
    let mut record = root.read();
    let lldp = r#"{"lldp":[{"interface":[{"name":"ens1f0","chassis":[{"name":[{"value":"leaf-2"}]}],"port":[{"id":[{"value":"Ethernet12"}]}]}]}]}"#;
    assert_eq!(neighbours(&mut record, lldp).unwrap(), 1);
    let good = "
version: 1
name: r750
models: ['PowerEdge*']
processors: {count: 2, model: '*6354*'}
memory: {at_least: 512GiB}
drives: [{count: 3, size: 3.84TB, protocol: NVMe, firmware: '0104'}]
ports: [{count: 1, speed: 200G, link: up, rdma: true, firmware: '22.30'}]
firmware: {BIOS: '1.8.0'}
cpu_features: [avx2]
iommu: true
hugepages: {size: 2MiB, at_least: 1024}
cabling: [{port: ens1f0, to: 'leaf-2/*'}]
";
    assert_eq!(check::check(&Profile::from_yaml(good).unwrap(), &record), []);
    let bad = "
version: 1
name: other
models: ['ProLiant*']
processors: {count: 4, cores: 16}
memory: {at_least: 1TiB}
drives: [{count: 8, size: 3.84TB, protocol: NVMe, firmware: '0106', used_at_most_percent: 50}]
ports: [{count: 2, speed: 200G, firmware: '22.40'}]
firmware: {BIOS: '1.9.0', CPLD: '1.0'}
cpu_features: [avx2, amx]
iommu: false
hugepages: {size: 1GiB, at_least: 4}
cabling: [{port: ens1f0, to: 'leaf-1/*'}, {port: ens9, to: 'leaf-1/1'}]
";
    let words: Vec<String> =
        check::check(&Profile::from_yaml(bad).unwrap(), &record).iter().map(ToString::to_string).collect();
    let wanted = [
        "model: PowerEdge R750, expected ProLiant*",
        "processors: 2, expected 4",
        "processor 0: 2 cores, expected 16 cores",
        "memory: 503.4 GiB, expected at least 1 TiB",
        "drives: 3 (and 1 of another kind), expected 8 NVMe of 3.84 TB",
        "drive S10: firmware 0105, expected at least 0106",
        "drive S10: 96 % worn, expected at most 50 %",
        "ports: 1 of 1 that are there, expected 2 of 200 Gb/s",
        "firmware BIOS: 1.8.2, expected at least 1.9.0",
        "firmware CPLD: not listed by its BMC, expected at least 1.0",
        "processor features: no amx, expected all of them",
        "IOMMU: on, expected off",
        "hugepages: 0 of 1 GiB, expected at least 4 of 1 GiB",
        "port ens1f0: a cable to leaf-2/Ethernet12, expected one to leaf-1/*",
        "port ens9: not there, expected a cable to leaf-1/1",
    ];
    for line in wanted {
        assert!(words.iter().any(|w| w == line), "{line}\n{words:#?}");
    }
}

#[test]
fn nearly_nothing_is_read_without_harm() {
    let root = Root::new("arm");
    root.file("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\n\nprocessor\t: 1\nFeatures\t: fp\n");
    let record = root.read();
    assert_eq!((record.processors.len(), record.processors[0].threads, record.cpu_features.len()), (1, 2, 3));
    let empty = Root::new("empty").read();
    assert_eq!(empty.unread[0].part, "node");
}

/// This machine's own tree, whatever it is: nothing of it may be wrong enough to stop.
#[test]
fn the_machine_that_tests_is_read() {
    let record = local::read(Path::new("/"), &RecordedLogs::new(Path::new("/nonexistent")), 0);
    assert!(record.memory_bytes > 0 && !record.processors.is_empty());
}
