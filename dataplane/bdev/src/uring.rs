//! Files and block devices through io_uring, with O_DIRECT where the file system knows it.
//!
//! A drive is locked against a second opening, by this or another process: block devices by O_EXCL (which also refuses
//! mounted ones), files by flock(2). It stays open while the drive or a channel to it lives.

mod channel;
mod device;

use crate::lock::DriveLock;
use crate::{BLOCK_BYTES, Bdev, BdevError, Drive, DriveInfo, DriveRef, Result};
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Clone)]
pub struct UringDrive {
    shared: Arc<Shared>,
}

struct Shared {
    info: DriveInfo,
    file: File,
    kind: Kind,
    compare_and_write: DriveLock,
    /// So that each shortcoming of a drive is logged once.
    unmap_refused: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    BlockDevice,
}

impl UringDrive {
    /// Opens what exists; its name is the path. Blocks for a moment: for start-up and administration.
    pub fn open(path: &Path) -> Result<DriveRef> {
        Self::open_named(path, &path.display().to_string())
    }

    pub fn open_named(path: &Path, name: &str) -> Result<DriveRef> {
        let device::Opened { file, kind, size_bytes, block_bytes, volatile_cache } =
            device::open(path, name)?;
        let info = DriveInfo {
            name: name.to_owned(),
            backend: "uring".to_owned(),
            size_bytes,
            block_bytes,
            volatile_cache,
        };
        let shared = Shared {
            info,
            file,
            kind,
            compare_and_write: DriveLock::default(),
            unmap_refused: AtomicBool::new(false),
        };
        Ok(Arc::new(UringDrive { shared: Arc::new(shared) }))
    }

    /// A new sparse file of `size_bytes` (rounded down to 4 KiB), then as [`open`](Self::open). Refuses an existing path.
    pub fn create_file(path: &Path, size_bytes: u64) -> Result<DriveRef> {
        let failed =
            |e: std::io::Error| BdevError::Open { drive: path.display().to_string(), cause: e.to_string() };
        let file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
        file.set_len(size_bytes / BLOCK_BYTES * BLOCK_BYTES).map_err(failed)?;
        drop(file);
        Self::open(path)
    }
}

impl Drive for UringDrive {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }
    fn open(&self) -> Result<Rc<dyn Bdev>> {
        Ok(Rc::new(channel::Channel::new(self.shared.clone())))
    }
}
