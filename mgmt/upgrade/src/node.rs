//! The node that is to be upgraded: what runs on it, what it is made of, and its disk.

use crate::error::{Result, UpgradeError};
use crate::gpt;
use crate::manifest::{Node, Version};
use crate::media::{FileMedia, Media};
use crate::uki::root_of;
use crate::verity::RootId;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names in the partition table; `docs/operations/image.md`, section 2.
pub const ESP: &str = "basalt-esp";
pub const ROOTS: [&str; 2] = ["basalt-root-a", "basalt-root-b"];
pub const STATE: &str = "basalt-state";

/// Where a disk's partitions are opened.
#[derive(Clone)]
pub enum Disk {
    /// A whole disk as one file; partitions by its partition table. For images, the installer and tests.
    Whole(Arc<dyn Media>),
    /// Partition devices of the running kernel, by name.
    Devices(BTreeMap<String, PathBuf>),
}

impl Disk {
    /// A disk's image, or a disk that nothing uses.
    pub fn open_image(path: &Path, write: bool) -> Result<Disk> {
        let opened = if write { FileMedia::open(path) } else { FileMedia::open_read_only(path) };
        let media = opened.map_err(UpgradeError::io(format!("opening {}", path.display())))?;
        Ok(Disk::Whole(Arc::new(media)))
    }

    /// The disk of this node: the one that holds the running root, or the only one that has all partitions.
    pub fn of_node(running: Option<&RootId>) -> Result<Disk> {
        let disks = find_disks(Path::new("/sys/class/block"), Path::new("/dev"));
        let complete = |parts: &&BTreeMap<String, PathBuf>| {
            [&[ESP], &ROOTS[..]].concat().iter().all(|n| parts.contains_key(*n))
        };
        let candidates: Vec<_> = disks.values().filter(complete).cloned().map(Disk::Devices).collect();
        let holds =
            |disk: &&Disk| running.is_some_and(|r| disk.root_slot(r).is_ok_and(|slot| slot.is_some()));
        if let Some(disk) = candidates.iter().find(holds) {
            return Ok(disk.clone());
        }
        match &candidates[..] {
            [one] => Ok(one.clone()),
            [] => Err(UpgradeError::Layout(
                "no disk here has the partitions basalt-esp, basalt-root-a and basalt-root-b; a node that was booted over the network \
                 is upgraded at the boot service, others are set up by the installer"
                    .into(),
            )),
            many => Err(UpgradeError::Layout(format!(
                "{} disks have Basalt's partitions and none holds the root that runs; name one with --disk",
                many.len()
            ))),
        }
    }

    pub fn read(&self, partition: &str) -> Result<Arc<dyn Media>> {
        self.open(partition, false)
    }

    pub fn write(&self, partition: &str) -> Result<Arc<dyn Media>> {
        self.open(partition, true)
    }

    fn open(&self, partition: &str, write: bool) -> Result<Arc<dyn Media>> {
        match self {
            Disk::Whole(media) => Ok(Arc::new(gpt::open(media, partition)?)),
            Disk::Devices(paths) => {
                let path = paths
                    .get(partition)
                    .ok_or_else(|| UpgradeError::Layout(format!("there is no partition {partition}")))?;
                let opened = if write { FileMedia::open(path) } else { FileMedia::open_read_only(path) };
                let hint = if write { " (if it is busy it is mounted: unmount it)" } else { "" };
                Ok(Arc::new(opened.map_err(UpgradeError::io(format!("opening {}{hint}", path.display())))?))
            }
        }
    }

    /// Which of the two root partitions holds this root.
    pub fn root_slot(&self, root: &RootId) -> Result<Option<usize>> {
        for (slot, name) in ROOTS.iter().enumerate() {
            if root.is_on(&*self.read(name)?) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }
}

/// Disk -> name of partition -> device, from what the kernel says of each partition (no udev needed).
fn find_disks(sys_block: &Path, dev: &Path) -> BTreeMap<PathBuf, BTreeMap<String, PathBuf>> {
    let mut disks: BTreeMap<PathBuf, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for device in fs::read_dir(sys_block).into_iter().flatten().flatten() {
        let Ok(real) = fs::canonicalize(device.path()) else { continue };
        let uevent = fs::read_to_string(real.join("uevent")).unwrap_or_default();
        let field = |key: &str| uevent.lines().find_map(|l| l.strip_prefix(key));
        if let (Some(name), Some(node), Some(disk)) = (field("PARTNAME="), field("DEVNAME="), real.parent()) {
            disks.entry(disk.to_owned()).or_default().insert(name.to_owned(), dev.join(node));
        }
    }
    disks
}

/// The root that runs; None where the node was booted with its root in memory, or is no Basalt node.
pub fn running_root() -> Result<Option<RootId>> {
    root_of(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
}

/// This node, for [`Manifest::suits`](crate::manifest::Manifest::suits).
pub fn this_node() -> Node {
    let text =
        |path: &str| fs::read_to_string(path).ok().map(|t| t.trim_matches(['\0', '\n', ' ']).to_owned());
    let release = text("/usr/lib/os-release").or_else(|| text("/etc/os-release")).unwrap_or_default();
    let field = |key: &str| release.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim_matches('"'));
    let version: Option<Version> =
        field("VERSION_ID=").filter(|_| field("ID=") == Some("basalt")).and_then(|v| v.parse().ok());
    let board = match (text("/sys/class/dmi/id/sys_vendor"), text("/sys/class/dmi/id/product_name")) {
        (None, None) => text("/proc/device-tree/model").unwrap_or_else(|| "unknown/unknown".into()),
        (vendor, product) => {
            format!(
                "{}/{}",
                vendor.unwrap_or_else(|| "unknown".into()),
                product.unwrap_or_else(|| "unknown".into())
            )
        }
    };
    Node { version, architecture: std::env::consts::ARCH.into(), hardware: board }
}
