//! The node's own view, from `/sys` and `/proc` under any root, so that trees recorded on other machines test it. Nothing is written,
//! and nothing that is missing stops the rest.

mod block;
mod cpu;
pub mod net;
mod nvme;
mod pci;

pub use nvme::{NvmeCli, NvmeLogs, RecordedLogs};

use crate::record::{Record, Source, Temperature, Unread, clean_serial};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of `/sys` or `/proc` that is larger is no such file.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_ENTRIES: usize = 8192;

/// Reads everything under `root` (`/` on a running node).
pub fn read(root: &Path, logs: &dyn NvmeLogs, taken_s: u64) -> Record {
    let tree = Tree { root: root.to_owned() };
    let mut record = Record { taken_s, sources: vec![Source::Node], ..Record::default() };
    identity(&tree, &mut record);
    cpu::read(&tree, &mut record);
    pci::read(&tree, &mut record);
    net::read(&tree, &mut record);
    nvme::read(&tree, logs, &mut record);
    block::read(&tree, &mut record);
    temperatures(&tree, &mut record);
    if !tree.exists("sys/bus") && !tree.exists("proc/cpuinfo") {
        let why = format!("{} holds neither sys nor proc", root.display());
        record.unread.push(Unread { part: "node".into(), why });
    }
    record
}

fn identity(tree: &Tree, record: &mut Record) {
    let dmi = |name: &str| clean_serial(&tree.text(&format!("sys/class/dmi/id/{name}")).unwrap_or_default());
    let id = &mut record.identity;
    id.manufacturer = dmi("sys_vendor");
    id.model = dmi("product_name");
    id.sku = dmi("product_sku");
    id.serial = dmi("product_serial");
    id.uuid = dmi("product_uuid").to_lowercase();
    id.asset_tag = dmi("chassis_asset_tag");
    id.host_name = tree.text("proc/sys/kernel/hostname").unwrap_or_default();
    record.bios_version = dmi("bios_version");
}

/// What the kernel's own drivers measure: processors and drives.
fn temperatures(tree: &Tree, record: &mut Record) {
    for hwmon in tree.list("sys/class/hwmon") {
        let dir = format!("sys/class/hwmon/{hwmon}");
        let chip = tree.text(&format!("{dir}/name")).unwrap_or_default();
        if !["coretemp", "k10temp", "nvme"].contains(&chip.as_str()) {
            continue;
        }
        let milli = |name: &str| tree.number::<i64>(&format!("{dir}/{name}")).map(|m| m as f64 / 1000.0);
        if let Some(celsius) = milli("temp1_input") {
            let label = tree.text(&format!("{dir}/temp1_label")).unwrap_or_else(|| "temp1".into());
            record.temperatures.push(Temperature {
                name: format!("{chip} {hwmon} {label}"),
                celsius,
                critical_celsius: milli("temp1_crit"),
                health: None,
            });
        }
    }
}

/// Files under a root, never outside it: links are followed by their names within it only where the kernel's own trees need it.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Contents without the white space around them; None where there is nothing to read, as of a port without link.
    fn text(&self, path: &str) -> Option<String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        fs::File::open(self.path(path)).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        Some(
            String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned(),
        )
    }

    fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// Names in a directory, sorted; a number in a name counts as one (`nvme2` before `nvme10`).
    fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().take(MAX_ENTRIES).filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_by_key(|name| natural(name));
        names
    }

    /// The last part of where a link leads: the driver of a device, its IOMMU group.
    fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// NUMA node; the kernel says -1 where there is only one.
    fn numa(&self, dir: &str) -> Option<u32> {
        self.number::<i64>(&format!("{dir}/numa_node")).and_then(|n| u32::try_from(n).ok())
    }
}

fn natural(name: &str) -> (String, u64, String) {
    let at = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (word, rest) = name.split_at(at);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    (word.to_owned(), rest[..end].parse().unwrap_or(0), rest[end..].to_owned())
}
