//! The drives of this node: those the configuration names, or sparse files made at the first start.

use crate::config::Config;
use basalt_bdev::counted::{CountedDrive, Counters};
use basalt_bdev::uring::UringDrive;
use basalt_bdev::{BdevError, DriveRef};
use basalt_nvme::NvmeError;
use basalt_nvme::vfio::DriveName;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DrivesError {
    #[error("{path}: {cause}")]
    Directory { path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Bdev(#[from] BdevError),
    #[error("NVMe drive {0}")]
    Nvme(#[from] NvmeError),
    #[error("none of the configured drives can be opened")]
    None,
}

/// A drive and what has passed through it.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) drive: DriveRef,
    pub(crate) counters: Arc<Counters>,
}

/// Only the drives.
pub(crate) fn refs(opened: &[Opened]) -> Vec<DriveRef> {
    opened.iter().map(|o| o.drive.clone()).collect()
}

/// The PCI address in a name such as `0000:3b:00.0` or `nvme:0000:3b:00.0n1`; paths are no such names.
pub(crate) fn pci_name(path: &Path) -> Option<DriveName> {
    path.to_str()?.parse().ok()
}

/// What a name stands for: a file, a block device, or the namespaces of an NVMe controller.
async fn open_one(path: &Path) -> Result<Vec<DriveRef>, DrivesError> {
    match pci_name(path) {
        Some(name) => Ok(basalt_nvme::vfio::open(&name).await?),
        None => Ok(vec![UringDrive::open(path)?]),
    }
}

/// Opens what is there. A drive that cannot be opened is left out with a warning: the pool knows how many it may miss.
pub(crate) async fn open(paths: &[PathBuf]) -> Result<Vec<Opened>, DrivesError> {
    let mut drives = Vec::new();
    let mut last_error = None;
    for path in paths {
        match open_one(path).await {
            Ok(found) => drives.extend(found.into_iter().map(|drive| {
                let (drive, counters) = CountedDrive::wrap(drive);
                Opened { drive, counters }
            })),
            Err(e) => {
                tracing::warn!("drive {}: {e}; going on without it", path.display());
                last_error = Some(e);
            }
        }
    }
    match (drives.is_empty(), last_error) {
        (false, _) => Ok(drives),
        (true, Some(e)) => Err(e),
        (true, None) => Err(DrivesError::None),
    }
}

/// Paths of the configured drives.
pub(crate) fn configured(config: &Config) -> Result<Vec<PathBuf>, DrivesError> {
    if !config.drives.is_empty() {
        return Ok(config.drives.clone());
    }
    let dir = config.file_drive_dir();
    let directory = |cause| DrivesError::Directory { path: dir.clone(), cause };
    std::fs::create_dir_all(&dir).map_err(directory)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(directory)? {
        let path = entry.map_err(directory)?.path();
        if path.extension().is_some_and(|e| e == "img") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Makes the sparse files that are missing; only called while no drive carries a label.
pub(crate) fn create_missing_files(config: &Config) -> Result<(), DrivesError> {
    let dir = config.file_drive_dir();
    let size_bytes = config.file_drive_bytes().unwrap_or(0);
    for n in 0..config.file_drives.count {
        let path = dir.join(format!("drive-{n}.img"));
        if !path.exists() {
            UringDrive::create_file(&path, size_bytes)?;
        }
    }
    Ok(())
}
