//! The data plane's settings and drives: which disks it gets, by which driver, and hugepages for it.

use crate::block;
use crate::cmdline::Cmdline;
use crate::console::say;
use crate::modules::Modules;
use crate::services::{BASALT_GID, BASALT_UID};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DIR: &str = "/var/lib/basalt";
/// A file that begins with this is init's to write anew; without the line it is the operator's and stays.
const MARK: &str = "# Made by init at each boot. Take this line out to keep changes.";
const NVME_CLASS: &str = "0x010802";

/// Chooses the drives and writes `basalt.toml`, unless the operator has one there.
pub(crate) fn prepare(cmdline: &Cmdline, modules: &mut Modules) -> Result<(), String> {
    let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    hugepages(cmdline.number("hugepages").unwrap_or(0));
    let drives: Vec<String> = match cmdline.get("drives").unwrap_or("auto") {
        "none" => Vec::new(),
        "auto" if cmdline.get("nvme") != Some("kernel") => {
            let mut drives = bind_vfio(modules);
            drives.extend(kernel_disks());
            drives
        }
        "auto" => kernel_disks(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    for drive in &drives {
        let path = Path::new(drive);
        if path.is_absolute()
            && let Err(e) = chown(path, Some(BASALT_UID), Some(BASALT_GID))
        {
            say(&format_args!("drive {}", at(path, e)));
        }
    }
    say(&format_args!("drives: {}", if drives.is_empty() { "none".to_owned() } else { drives.join(" ") }));
    let file = PathBuf::from(DIR).join("basalt.toml");
    let (before, wanted) = (fs::read_to_string(&file).unwrap_or_default(), settings(&drives));
    if before.is_empty() || before.starts_with(MARK) {
        if before != wanted {
            replace(&file, &wanted).map_err(|e| at(&file, e))?;
        }
    } else {
        say(&format_args!("{} is the operator's: used as it is", file.display()));
    }
    for path in [Path::new(DIR), &file] {
        chown(path, Some(BASALT_UID), Some(BASALT_GID)).map_err(|e| at(path, e))?;
    }
    Ok(())
}

/// Whole and on the disk, or not at all: a power cut must not leave an empty file that the next boot would take for the
/// operator's.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = fs::File::create(&fresh)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    fs::File::open(DIR)?.sync_all()
}

/// Without drives a pool would be made of files on the state partition or in memory: the node waits for drives instead.
fn settings(drives: &[String]) -> String {
    let list: Vec<String> = drives.iter().map(|d| format!("{d:?}")).collect();
    format!(
        "{MARK}\nlisten = \"0.0.0.0\"\ndrives = [{}]\n\n[first_start]\ncreate = {}\n",
        list.join(", "),
        !drives.is_empty()
    )
}

fn kernel_disks() -> Vec<String> {
    block::whole_disks().into_iter().map(|d| d.display().to_string()).collect()
}

fn hugepages(pages: u64) {
    if pages > 0
        && let Err(e) = fs::write("/proc/sys/vm/nr_hugepages", pages.to_string())
    {
        say(&format_args!("{pages} hugepages: {e}"));
    }
    let got = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    if pages > 0 {
        say(&format_args!("hugepages: {} of {pages}", got.trim()));
    }
}

/// Takes every NVMe controller without partitions from the kernel's driver and gives it to vfio-pci. One that is in no IOMMU
/// group, which includes every one of a machine without an IOMMU, stays: in user space it could write anywhere in memory.
fn bind_vfio(modules: &mut Modules) -> Vec<String> {
    modules.load("vfio_iommu_type1");
    modules.load("vfio-pci");
    let devices = Path::new("/sys/bus/pci/devices");
    let is_nvme = |address: &String| {
        let class = fs::read_to_string(devices.join(address).join("class")).unwrap_or_default();
        class.trim() == NVME_CLASS
    };
    let mut drives = Vec::new();
    for address in block::names(devices).into_iter().filter(is_nvme) {
        let dir = devices.join(&address);
        if !dir.join("iommu_group").exists() {
            say(&format_args!("NVMe {address} is in no IOMMU group: it stays with the kernel's driver"));
            continue;
        }
        if holds_partitions(&dir) {
            continue;
        }
        match bind(&dir, &address) {
            Ok(()) => drives.push(format!("nvme:{address}")),
            Err(e) => say(&format_args!("NVMe {address} stays with the kernel's driver: {e}")),
        }
    }
    drives
}

/// What has a partition table is not ours to take. The drive itself is asked: the kernel may not have read it yet.
fn holds_partitions(pci: &Path) -> bool {
    let namespaces = || {
        let controllers = block::names(&pci.join("nvme"));
        let blocks = controllers.iter().flat_map(|c| {
            let names = block::names(&pci.join("nvme").join(c));
            names.into_iter().filter(|n| n.starts_with("nvme") && Path::new("/dev").join(n).exists())
        });
        Some(blocks.collect::<Vec<_>>()).filter(|found| !found.is_empty())
    };
    // A controller without a namespace costs this once at each start.
    let found = block::wait_for(Duration::from_secs(5), namespaces).unwrap_or_default();
    found.iter().any(|name| has_table(&Path::new("/dev").join(name)).unwrap_or(true))
}

/// A GPT at block 1 of either block size, or an MBR with an entry.
fn has_table(device: &Path) -> std::io::Result<bool> {
    let mut start = [0; 8192];
    fs::File::open(device)?.read_exact(&mut start)?;
    Ok(is_table(&start))
}

fn is_table(start: &[u8; 8192]) -> bool {
    let gpt = [512, 4096].into_iter().any(|at| start[at..].starts_with(b"EFI PART"));
    let mbr = start[510..512] == [0x55, 0xaa] && start[446..510].iter().any(|b| *b != 0);
    gpt || mbr
}

fn bind(pci: &Path, address: &str) -> Result<(), String> {
    let group = fs::read_link(pci.join("iommu_group")).map_err(|e| format!("its IOMMU group: {e}"))?;
    let write =
        |path: PathBuf, text: &str| fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()));
    write(pci.join("driver_override"), "vfio-pci")?;
    if pci.join("driver").exists() {
        write(pci.join("driver/unbind"), address)?;
    }
    write(PathBuf::from("/sys/bus/pci/drivers_probe"), address)?;
    let node = Path::new("/dev/vfio").join(group.file_name().unwrap_or_default());
    for path in [node.as_path(), Path::new("/dev/vfio/vfio")] {
        chown(path, Some(BASALT_UID), Some(BASALT_GID)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn partition_tables_are_seen() {
        let mut start = [0; 8192];
        assert!(!super::is_table(&start));
        start[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(!super::is_table(&start), "a boot sector without partitions");
        start[450] = 0xee;
        assert!(super::is_table(&start));
        for at in [512, 4096] {
            let mut start = [0; 8192];
            start[at..at + 8].copy_from_slice(b"EFI PART");
            assert!(super::is_table(&start));
        }
    }

    #[test]
    fn settings_are_valid_for_no_drive_and_for_some() {
        assert!(super::settings(&[]).ends_with("drives = []\n\n[first_start]\ncreate = false\n"));
        let two = super::settings(&["/dev/vda".to_owned(), "nvme:0000:00:04.0".to_owned()]);
        assert!(
            two.contains("drives = [\"/dev/vda\", \"nvme:0000:00:04.0\"]")
                && two.ends_with("create = true\n")
        );
    }
}
