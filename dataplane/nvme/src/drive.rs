//! Namespaces as drives.

mod cas;
mod channel;
mod read;
mod request;

use crate::controller::{Controller, Timing};
use crate::error::{NvmeError, Result};
use crate::format::Format;
use crate::io::IoQueue;
use basalt_bdev::lock::DriveLock;
use basalt_bdev::{Bdev, BdevError, Drive, DriveInfo, DriveRef};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One namespace of a controller.
pub struct NvmeDrive {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) info: DriveInfo,
    pub(crate) controller: Arc<Controller>,
    pub(crate) nsid: u32,
    pub(crate) format: Format,
    pub(crate) abilities: Abilities,
    /// For drives that cannot compare and write in one.
    pub(crate) compare_and_write: DriveLock,
    pub(crate) unmap_refused: AtomicBool,
}

/// What reads and writes need to know of the controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) transfer_max_bytes: u64,
    pub(crate) compare: bool,
    pub(crate) fused: bool,
    pub(crate) write_zeroes: bool,
    pub(crate) deallocate: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.controller.release(self.nsid);
    }
}

impl NvmeDrive {
    /// Every namespace of the controller that can be a drive; those that cannot are named in the log. With `nsid` that
    /// one or an error.
    pub async fn open_all(controller: &Arc<Controller>, nsid: Option<u32>) -> Result<Vec<DriveRef>> {
        let name = || controller.name().to_owned();
        let namespaces = controller.namespaces().await?;
        let alone = namespaces.len() == 1;
        let mut drives: Vec<DriveRef> = Vec::new();
        let mut refused = None;
        for n in namespaces.iter().filter(|n| nsid.is_none_or(|id| id == n.nsid)) {
            match &n.format {
                Ok(format) => drives.push(Self::open(controller, n.nsid, *format, alone)?),
                Err(why) => {
                    let e = NvmeError::Namespace { name: name(), nsid: n.nsid, why: why.clone() };
                    tracing::warn!("NVMe {e}");
                    refused = Some(e);
                }
            }
        }
        match (drives.is_empty(), refused) {
            (false, _) => Ok(drives),
            (true, Some(e)) => Err(e),
            (true, None) => Err(NvmeError::NoNamespace(name())),
        }
    }

    fn open(controller: &Arc<Controller>, nsid: u32, format: Format, alone: bool) -> Result<DriveRef> {
        // As SPDK names them; a single namespace is its drive.
        let name = if alone { controller.name().to_owned() } else { format!("{}n{nsid}", controller.name()) };
        if !controller.claim(nsid) {
            return Err(NvmeError::InUse(name));
        }
        let id = controller.identity();
        let limit = id.max_transfer_bytes(controller.cap().min_page_bytes()).unwrap_or(u64::MAX);
        let abilities = Abilities {
            // One page less than the list holds, for data that does not begin at a page.
            transfer_max_bytes: limit.min(crate::queue::TRANSFER_MAX_BYTES) / basalt_bdev::BLOCK_BYTES
                * basalt_bdev::BLOCK_BYTES,
            compare: id.compares(),
            fused: id.fused_compare_and_write()
                && u64::from(id.atomic_compare_write.get()) + 1
                    >= basalt_bdev::BLOCK_BYTES / u64::from(format.block_bytes),
            write_zeroes: id.writes_zeroes(),
            deallocate: id.deallocates(),
        };
        let info = DriveInfo {
            name,
            backend: "nvme".to_owned(),
            size_bytes: format.size_bytes(),
            block_bytes: format.block_bytes,
            volatile_cache: id.volatile_write_cache & 1 == 1,
        };
        let shared = Shared {
            info,
            controller: controller.clone(),
            nsid,
            format,
            abilities,
            compare_and_write: DriveLock::default(),
            unmap_refused: AtomicBool::new(false),
        };
        Ok(Arc::new(NvmeDrive { shared: Arc::new(shared) }))
    }

    /// As [`Controller::bring_up`] and [`open_all`](Self::open_all) with the usual times.
    pub async fn attach(transport: Arc<dyn crate::transport::Transport>) -> Result<Vec<DriveRef>> {
        let controller = Controller::bring_up(transport, Timing::default()).await?;
        Self::open_all(&controller, None).await
    }
}

impl Drive for NvmeDrive {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }
    fn open(&self) -> basalt_bdev::Result<Rc<dyn Bdev>> {
        let queue = IoQueue::open(&self.shared.controller).map_err(|e| match e {
            NvmeError::Gone(_) => BdevError::Gone { drive: self.shared.info.name.clone() },
            e => BdevError::Open { drive: self.shared.info.name.clone(), cause: e.to_string() },
        })?;
        Ok(Rc::new(channel::Channel::new(self.shared.clone(), queue)))
    }
}
