//! PCI devices and IOMMU groups.

use super::Tree;
use crate::record::{PciDevice, Record};

const DEVICES: &str = "sys/bus/pci/devices";

pub(super) fn read(tree: &Tree, record: &mut Record) {
    for address in tree.list(DEVICES) {
        let dir = format!("{DEVICES}/{address}");
        let hex = |name: &str| {
            let text = tree.text(&format!("{dir}/{name}")).unwrap_or_default();
            text.trim_start_matches("0x").to_owned()
        };
        let link = |speed: &str, width: &str| {
            let (speed, width) = (tree.text(&format!("{dir}/{speed}")), tree.text(&format!("{dir}/{width}")));
            match (speed, width) {
                // A link that is down, or a device inside the processor.
                (Some(speed), Some(width))
                    if !speed.starts_with("Unknown") && width != "0" && width != "255" =>
                {
                    format!("{} x{width}", speed.trim_end_matches(" PCIe"))
                }
                _ => String::new(),
            }
        };
        let group = tree.link_name(&format!("{dir}/iommu_group")).and_then(|g| g.parse().ok());
        if let Some(group) = group {
            record.iommu_groups.entry(group).or_default().push(address.clone());
        }
        record.pci.push(PciDevice {
            id: format!("{}:{}", hex("vendor"), hex("device")),
            class: hex("class"),
            driver: tree.link_name(&format!("{dir}/driver")).unwrap_or_default(),
            numa: tree.numa(&dir),
            iommu_group: group,
            link: link("current_link_speed", "current_link_width"),
            link_best: link("max_link_speed", "max_link_width"),
            address,
        });
    }
}
