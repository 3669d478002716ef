//! Two views of one server made one. Parts are matched by what they carry wherever they sit: drives by serial number, ports by MAC
//! address. The BMC knows slots and health, the node knows drivers, links and SMART; where both speak of what runs, the node is right.

use crate::record::{Contents, Drive, Nic, Port, Record};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    #[error("these are two servers: {0}")]
    TwoServers(String),
}

/// One record of what the BMC (`bmc`) and the node itself (`node`) say.
pub fn merge(bmc: Record, node: Record) -> Result<Record, MergeError> {
    same_server(&bmc, &node)?;
    let mut all = bmc;
    all.taken_s = all.taken_s.max(node.taken_s);
    for source in node.sources {
        if !all.sources.contains(&source) {
            all.sources.push(source);
        }
    }
    let id = &mut all.identity;
    for (mine, theirs) in [
        (&mut id.manufacturer, node.identity.manufacturer),
        (&mut id.model, node.identity.model),
        (&mut id.sku, node.identity.sku),
        (&mut id.serial, node.identity.serial),
        (&mut id.uuid, node.identity.uuid),
        (&mut id.asset_tag, node.identity.asset_tag),
        (&mut all.bios_version, node.bios_version),
    ] {
        fill(mine, theirs);
    }
    // What the node calls itself is its name; a BMC repeats it at best.
    if !node.identity.host_name.is_empty() {
        all.identity.host_name = node.identity.host_name;
    }
    if all.processors.is_empty() {
        all.processors = node.processors;
    }
    all.cpu_features = node.cpu_features;
    all.memory_bytes = all.memory_bytes.max(node.memory_bytes);
    all.pci = node.pci;
    all.numa = node.numa;
    all.iommu_groups = node.iommu_groups;
    for drive in node.drives {
        match all.drives.iter_mut().find(|d| same_drive(d, &drive)) {
            Some(known) => merge_drive(known, drive),
            None => all.drives.push(drive),
        }
    }
    for nic in node.nics {
        merge_nic(&mut all.nics, nic);
    }
    for temperature in node.temperatures {
        if !all.temperatures.iter().any(|t| t.name == temperature.name) {
            all.temperatures.push(temperature);
        }
    }
    // What one of the two could read is known.
    let read = |part: &str| match part {
        "drives" => !all.drives.is_empty(),
        "ports" => all.nics.iter().any(|n| !n.ports.is_empty()),
        "processors" => !all.processors.is_empty(),
        "memory" => all.memory_bytes > 0,
        _ => false,
    };
    all.unread.retain(|u| !read(&u.part));
    all.unread.extend(node.unread);
    Ok(all)
}

/// What a node told earlier, beside a newer record of its BMC: what stands there goes on to stand there. Readings of that time do not count
/// any more, nor what was found on its drives, nor drives and ports that the BMC does not have now.
pub fn with_earlier(bmc: Record, mut node: Record) -> Record {
    node.taken_s = 0;
    node.temperatures.clear();
    if !bmc.drives.is_empty() {
        node.drives.retain(|drive| bmc.drives.iter().any(|d| same_drive(d, drive)));
    }
    for drive in &mut node.drives {
        (drive.smart, drive.used_percent, drive.failure_predicted, drive.health) = (None, None, None, None);
        drive.contents = Contents::Unknown;
    }
    let macs = bmc.macs();
    for nic in &mut node.nics {
        nic.ports.retain(|port| macs.is_empty() || macs.contains(&port.mac));
        for port in &mut nic.ports {
            (port.link_up, port.speed_mbps) = (None, None);
        }
    }
    node.nics.retain(|nic| !nic.ports.is_empty());
    // Another server since then.
    merge(bmc.clone(), node).unwrap_or(bmc)
}

fn same_server(bmc: &Record, node: &Record) -> Result<(), MergeError> {
    let (a, b) = (&bmc.identity, &node.identity);
    if !a.serial.is_empty() && !b.serial.is_empty() {
        return match a.serial.eq_ignore_ascii_case(&b.serial) {
            true => Ok(()),
            // Dell's BMCs call the board's serial number the server's; the service tag is what SMBIOS says.
            false if !a.sku.is_empty() && a.sku.eq_ignore_ascii_case(&b.serial) => Ok(()),
            false => Err(MergeError::TwoServers(format!(
                "the BMC says serial number {}, the node {}",
                a.serial, b.serial
            ))),
        };
    }
    if !a.uuid.is_empty() && !b.uuid.is_empty() && a.uuid != b.uuid && a.uuid != swapped(&b.uuid) {
        return Err(MergeError::TwoServers(format!("the BMC says UUID {}, the node {}", a.uuid, b.uuid)));
    }
    Ok(())
}

/// SMBIOS before 2.6 left open in which order the first three fields stand; BMCs and kernels differ on old boards.
fn swapped(uuid: &str) -> String {
    let fields: Vec<&str> = uuid.split('-').collect();
    let [a, b, c, d, e] = fields[..] else { return uuid.to_owned() };
    let reversed = |field: &str| -> String {
        let bytes: Vec<&str> = (0..field.len()).step_by(2).filter_map(|i| field.get(i..i + 2)).collect();
        bytes.into_iter().rev().collect()
    };
    format!("{}-{}-{}-{d}-{e}", reversed(a), reversed(b), reversed(c))
}

fn fill(mine: &mut String, theirs: String) {
    if mine.is_empty() {
        *mine = theirs;
    }
}

fn same_drive(a: &Drive, b: &Drive) -> bool {
    let serials = !a.serial.is_empty() && !b.serial.is_empty();
    match serials {
        true => a.serial.eq_ignore_ascii_case(&b.serial),
        false => !a.pci.is_empty() && a.pci == b.pci,
    }
}

fn merge_drive(known: &mut Drive, node: Drive) {
    fill(&mut known.serial, node.serial);
    fill(&mut known.model, node.model);
    fill(&mut known.manufacturer, node.manufacturer);
    fill(&mut known.media, node.media);
    fill(&mut known.slot, node.slot);
    // The running firmware; BMCs read it once per boot.
    for (mine, theirs) in [
        (&mut known.firmware, node.firmware),
        (&mut known.protocol, node.protocol),
        (&mut known.pci, node.pci),
        (&mut known.device, node.device),
    ] {
        if !theirs.is_empty() {
            *mine = theirs;
        }
    }
    if known.bytes == 0 {
        known.bytes = node.bytes;
    }
    if known.eui.is_empty() {
        known.eui = node.eui;
    }
    known.numa = node.numa.or(known.numa);
    known.used_percent = node.used_percent.or(known.used_percent);
    known.failure_predicted = match (known.failure_predicted, node.failure_predicted) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (a, b) => a.or(b),
    };
    known.smart = node.smart.or(known.smart.take());
    known.contents = node.contents;
    known.health = known.health.max(node.health);
}

fn merge_nic(nics: &mut Vec<Nic>, node: Nic) {
    let mut rest = Nic { ports: Vec::new(), ..node.clone() };
    for port in node.ports {
        let same = |p: &Port| !port.mac.is_empty() && p.mac == port.mac;
        match nics.iter_mut().find(|n| n.ports.iter().any(same)) {
            Some(nic) => {
                if !node.firmware.is_empty() {
                    nic.firmware.clone_from(&node.firmware);
                }
                fill(&mut nic.pci, node.pci.clone());
                fill(&mut nic.model, node.model.clone());
                if let Some(known) = nic.ports.iter_mut().find(|p| same(p)) {
                    merge_port(known, port);
                }
            }
            None => rest.ports.push(port),
        }
    }
    if !rest.ports.is_empty() {
        nics.push(rest);
    }
}

fn merge_port(known: &mut Port, node: Port) {
    for (mine, theirs) in [
        (&mut known.interface, node.interface),
        (&mut known.driver, node.driver),
        (&mut known.pci, node.pci),
        (&mut known.rdma, node.rdma),
        (&mut known.neighbour, node.neighbour),
    ] {
        if !theirs.is_empty() {
            *mine = theirs;
        }
    }
    fill(&mut known.name, node.name);
    known.link_up = node.link_up.or(known.link_up);
    known.speed_mbps = node.speed_mbps.or(known.speed_mbps);
    known.mtu = node.mtu.or(known.mtu);
    known.numa = node.numa.or(known.numa);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Source, Unread};

    #[test]
    fn what_a_node_told_earlier_stands_beside_a_newer_record_of_its_bmc() {
        let drive = |serial: &str| Drive { serial: serial.into(), ..Drive::default() };
        let (mut bmc, mut node) = two();
        bmc.taken_s = 20;
        bmc.drives = vec![drive("A")];
        node.taken_s = 10;
        node.cpu_features = vec!["avx2".into()];
        let told =
            Drive { device: "nvme0".into(), contents: Contents::Blank, used_percent: Some(3), ..drive("A") };
        node.drives = vec![told, drive("pulled since")];
        let all = with_earlier(bmc.clone(), node.clone());
        assert_eq!((all.taken_s, all.cpu_features.len(), all.drives.len()), (20, 1, 1));
        let kept = &all.drives[0];
        assert_eq!(
            (kept.device.as_str(), &kept.contents, kept.used_percent),
            ("nvme0", &Contents::Unknown, None)
        );
        assert!(all.sources.contains(&Source::Node));
        node.identity.serial = "other hardware".into();
        assert_eq!(with_earlier(bmc.clone(), node), bmc);
    }

    fn two() -> (Record, Record) {
        let mut bmc = Record { sources: vec![Source::Bmc], ..Record::default() };
        bmc.identity.serial = "S1".into();
        bmc.drives = vec![
            Drive { serial: "D1".into(), slot: "Bay 1".into(), firmware: "old".into(), ..Drive::default() },
            Drive { serial: "D2".into(), slot: "Bay 2".into(), ..Drive::default() },
        ];
        let port = |mac: &str| Port { mac: mac.into(), ..Port::default() };
        bmc.nics = vec![Nic {
            name: "NIC.1".into(),
            ports: vec![port("aa:00:00:00:00:01"), port("aa:00:00:00:00:02")],
            ..Nic::default()
        }];
        bmc.unread = vec![Unread { part: "memory".into(), why: "404".into() }];
        let mut node = Record { sources: vec![Source::Node], memory_bytes: 1 << 30, ..Record::default() };
        node.identity.serial = "s1".into();
        node.drives = vec![
            Drive {
                serial: "d1".into(),
                device: "nvme0n1".into(),
                firmware: "new".into(),
                contents: Contents::Blank,
                ..Drive::default()
            },
            Drive { serial: "D9".into(), device: "sda".into(), ..Drive::default() },
        ];
        let mut up = port("aa:00:00:00:00:02");
        up.interface = "eth1".into();
        up.link_up = Some(true);
        node.nics = vec![Nic { ports: vec![up, port("aa:00:00:00:00:09")], ..Nic::default() }];
        (bmc, node)
    }

    #[test]
    fn parts_meet_by_what_they_carry() {
        let (bmc, node) = two();
        let all = merge(bmc, node).unwrap();
        let names: Vec<&str> = all.drives.iter().map(|d| d.serial.as_str()).collect();
        assert_eq!(names, ["D1", "D2", "D9"]);
        let first = &all.drives[0];
        assert_eq!(
            (first.slot.as_str(), first.device.as_str(), first.firmware.as_str()),
            ("Bay 1", "nvme0n1", "new")
        );
        assert_eq!(first.contents, Contents::Blank);
        assert_eq!(all.nics.len(), 2, "a port that the BMC does not show is not lost");
        assert_eq!(
            (all.nics[0].ports[1].link_up, all.nics[0].ports[1].interface.as_str()),
            (Some(true), "eth1")
        );
        assert!(all.unread.is_empty(), "the node knew its memory");
        assert_eq!(all.sources, [Source::Bmc, Source::Node]);
    }

    #[test]
    fn two_servers_are_not_made_one() {
        let (bmc, mut node) = two();
        node.identity.serial = "S2".into();
        assert!(merge(bmc.clone(), node.clone()).unwrap_err().to_string().contains("S2"));
        let (mut bmc, mut node) = (bmc, node);
        (bmc.identity.serial, node.identity.serial) = (String::new(), String::new());
        bmc.identity.uuid = "00112233-4455-6677-8899-aabbccddeeff".into();
        node.identity.uuid = "33221100-5544-7766-8899-aabbccddeeff".into();
        assert!(merge(bmc.clone(), node.clone()).is_ok(), "the same in the other byte order");
        node.identity.uuid = "43221100-5544-7766-8899-aabbccddeeff".into();
        assert!(merge(bmc, node).is_err());
    }
}
