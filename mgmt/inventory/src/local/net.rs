//! Ethernet ports with link, speed, driver, firmware and RDMA. Interfaces without a device behind them (bridges, VLANs, tunnels) are
//! no hardware.

use super::Tree;
use crate::record::{Nic, Port, Record, clean_mac};
use std::collections::BTreeMap;

const NET: &str = "sys/class/net";

pub(super) fn read(tree: &Tree, record: &mut Record) {
    let mut nics: BTreeMap<String, Nic> = BTreeMap::new();
    for interface in tree.list(NET) {
        let dir = format!("{NET}/{interface}");
        if !tree.exists(&format!("{dir}/device")) {
            continue;
        }
        let pci = tree.link_name(&format!("{dir}/device")).unwrap_or_default();
        let driver = tree.link_name(&format!("{dir}/device/driver")).unwrap_or_default();
        // Functions of one adapter share its slot: 0000:3b:00.
        let slot = pci.rsplit_once('.').map_or(pci.clone(), |(slot, _)| slot.to_owned());
        let nic = nics
            .entry(if slot.is_empty() { interface.clone() } else { slot.clone() })
            .or_insert_with(|| Nic { name: driver.clone(), pci: slot, ..Nic::default() });
        if nic.firmware.is_empty() {
            nic.firmware = firmware(tree, &dir);
        }
        nic.ports.push(Port {
            mac: tree.text(&format!("{dir}/address")).and_then(|m| clean_mac(&m)).unwrap_or_default(),
            name: tree.text(&format!("{dir}/phys_port_name")).unwrap_or_default(),
            link_up: tree.text(&format!("{dir}/carrier")).map(|c| c == "1").or_else(|| {
                // Reading `carrier` of an interface that is switched off is an error.
                (tree.text(&format!("{dir}/operstate"))? == "down").then_some(false)
            }),
            speed_mbps: tree.number::<i64>(&format!("{dir}/speed")).and_then(|s| u64::try_from(s).ok()),
            mtu: tree.number(&format!("{dir}/mtu")),
            driver,
            numa: tree.numa(&format!("{dir}/device")),
            rdma: rdma(tree, &dir, &interface),
            neighbour: String::new(),
            pci,
            interface,
        });
    }
    record.nics = nics.into_values().collect();
}

/// Version that runs. Drivers with RDMA say it in sysfs; the others only by ethtool, which a recorded tree may bring along.
fn firmware(tree: &Tree, dir: &str) -> String {
    let rdma = tree.list(&format!("{dir}/device/infiniband"));
    let of_rdma = rdma.first().and_then(|d| tree.text(&format!("{dir}/device/infiniband/{d}/fw_ver")));
    of_rdma.or_else(|| tree.text(&format!("{dir}/device/firmware_version"))).unwrap_or_default()
}

/// `mlx5_0 (Ethernet, active)`.
fn rdma(tree: &Tree, dir: &str, interface: &str) -> String {
    let devices = tree.list(&format!("{dir}/device/infiniband"));
    let of_port = devices.iter().find(|device| {
        // A device with several ports names the interface of each.
        let named = tree.text(&format!("{dir}/device/infiniband/{device}/ports/1/gid_attrs/ndevs/0"));
        named.is_none_or(|n| n == interface)
    });
    let Some(device) = of_port else { return String::new() };
    let port = format!("{dir}/device/infiniband/{device}/ports/1");
    let layer = tree.text(&format!("{port}/link_layer")).unwrap_or_default();
    // `4: ACTIVE`
    let state = tree.text(&format!("{port}/state")).unwrap_or_default();
    let state = state.rsplit(' ').next().unwrap_or_default().to_lowercase();
    let words: Vec<&str> = [layer.as_str(), state.as_str()].into_iter().filter(|w| !w.is_empty()).collect();
    if words.is_empty() { device.clone() } else { format!("{device} ({})", words.join(", ")) }
}

#[derive(serde::Deserialize)]
struct Lldp {
    #[serde(default)]
    lldp: serde_json::Value,
}

/// Fills in who is at the other ends, from `lldpcli -f json0 show neighbors`.
pub fn neighbours(record: &mut Record, lldp_json: &str) -> Result<usize, serde_json::Error> {
    let heard: Lldp = serde_json::from_str(lldp_json)?;
    let mut found = 0;
    let lists = heard.lldp.as_array().into_iter().flatten();
    let interfaces = lists.flat_map(|l| l["interface"].as_array().into_iter().flatten());
    for heard in interfaces.take(4096) {
        let first = |path: [&str; 2], key: &str| {
            heard[path[0]][0][path[1]][0][key].as_str().map(str::to_owned).unwrap_or_default()
        };
        let (switch, port) = (first(["chassis", "name"], "value"), first(["port", "id"], "value"));
        let name = heard["name"].as_str().unwrap_or_default();
        let ports = record.nics.iter_mut().flat_map(|n| &mut n.ports);
        for mine in ports.filter(|p| !name.is_empty() && p.interface == name) {
            mine.neighbour = format!("{switch}/{port}");
            found += 1;
        }
    }
    Ok(found)
}
