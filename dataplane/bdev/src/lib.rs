//! Block devices. A [`Drive`] is the shared description of one device; every reactor opens its own [`Bdev`] channel
//! on it (a queue per reactor) and never shares that.

pub mod counted;
pub mod fault;
pub mod lock;
pub mod malloc;
pub mod sim;
pub mod uring;

use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;

/// Granule of all pool I/O; offsets and lengths are multiples of it.
pub const BLOCK_BYTES: u64 = 4096;

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DriveInfo {
    /// What an operator calls it: a path, a PCI address, a simulated name. Unique on the node.
    pub name: String,
    pub backend: String,
    pub size_bytes: u64,
    /// Logical block size of the device, 512 or 4096.
    pub block_bytes: u32,
    /// Writes without `Durability::Durable` may be lost at power cut until `flush`.
    pub volatile_cache: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// May sit in the drive's cache.
    Cached,
    /// On media when the call returns (FUA).
    Durable,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BdevError {
    /// The medium or link failed for this request; the drive is to be taken out.
    #[error("drive {drive}: {op} of {len} bytes at {offset} failed: {cause}")]
    Io { drive: String, op: &'static str, offset: u64, len: u64, cause: String },
    /// This range cannot be read; others can (an unrecovered read error).
    #[error("drive {drive}: unreadable block in {len} bytes at {offset}")]
    Unreadable { drive: String, offset: u64, len: u64 },
    /// The file beneath a sparse drive cannot grow: the host's file system is full.
    #[error("drive {drive}: the host file system is full; free space there, then restart the write")]
    HostFull { drive: String },
    #[error("drive {drive}: {len} bytes at {offset} is outside its {size} bytes or not a multiple of 4096")]
    OutOfRange { drive: String, offset: u64, len: u64, size: u64 },
    #[error("drive {drive}: cannot be opened: {cause}")]
    Open { drive: String, cause: String },
    #[error("drive {drive}: gone")]
    Gone { drive: String },
    #[error("drive {drive}: {op} is not supported")]
    Unsupported { drive: String, op: &'static str },
}

pub type Result<T> = std::result::Result<T, BdevError>;

/// One device, shared by all reactors.
pub trait Drive: Send + Sync + 'static {
    fn info(&self) -> &DriveInfo;
    /// A channel for the current reactor.
    fn open(&self) -> Result<Rc<dyn Bdev>>;
}
pub type DriveRef = Arc<dyn Drive>;

/// A reactor's own channel to a drive.
///
/// Offsets and lengths in bytes, multiples of [`BLOCK_BYTES`]. Requests in flight have no order among each other; a
/// caller that needs order waits. A write of one block is atomic with respect to power loss, larger ones may tear at
/// block boundaries.
pub trait Bdev: 'static {
    fn info(&self) -> &DriveInfo;
    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>>;
    /// Gathers `data` (each piece 4 KiB-aligned in memory and a multiple of 4 KiB long, else the backend copies).
    fn write(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> LocalBoxFuture<'_, Result<()>>;
    /// Everything completed before this call is durable when it returns.
    fn flush(&self) -> LocalBoxFuture<'_, Result<()>>;
    /// Contents become unspecified (zeroes on our backends).
    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>>;
    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>>;
    /// Atomic on one block: writes `new` if the block equals `expect`; false (and no write) when it does not.
    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>>;
}

/// Every backend's first check of a request.
pub fn check_range(info: &DriveInfo, offset: u64, len: u64) -> Result<()> {
    let size = info.size_bytes;
    let inside = offset.checked_add(len).is_some_and(|end| end <= size);
    if inside && len > 0 && offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    Err(BdevError::OutOfRange { drive: info.name.clone(), offset, len, size })
}

/// As [`check_range`], for compare-and-write.
pub fn check_compare_and_write(info: &DriveInfo, offset: u64, expect: &[u8], new: &[u8]) -> Result<()> {
    check_range(info, offset, BLOCK_BYTES)?;
    if expect.len() as u64 == BLOCK_BYTES && new.len() as u64 == BLOCK_BYTES {
        return Ok(());
    }
    let op = "compare-and-write of anything but one block of 4096 bytes";
    Err(BdevError::Unsupported { drive: info.name.clone(), op })
}
