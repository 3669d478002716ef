//! The ioctls of linux/vfio.h that are used here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const fn request(n: u32) -> u32 {
    // _IO(';', 100 + n)
    0x3b << 8 | (100 + n)
}
pub(super) const GET_API_VERSION: u32 = request(0);
pub(super) const CHECK_EXTENSION: u32 = request(1);
pub(super) const SET_IOMMU: u32 = request(2);
pub(super) const GROUP_GET_STATUS: u32 = request(3);
pub(super) const GROUP_SET_CONTAINER: u32 = request(4);
pub(super) const GROUP_GET_DEVICE_FD: u32 = request(6);
pub(super) const DEVICE_GET_REGION_INFO: u32 = request(8);
pub(super) const DEVICE_GET_IRQ_INFO: u32 = request(9);
pub(super) const DEVICE_SET_IRQS: u32 = request(10);
pub(super) const DEVICE_RESET: u32 = request(11);
pub(super) const IOMMU_GET_INFO: u32 = request(12);
pub(super) const IOMMU_MAP_DMA: u32 = request(13);
pub(super) const IOMMU_UNMAP_DMA: u32 = request(14);

pub(super) const API_VERSION: i32 = 0;
pub(super) const TYPE1V2_IOMMU: usize = 3;
pub(super) const GROUP_VIABLE: u32 = 1;
pub(super) const REGION_MMAP: u32 = 4;
pub(super) const PCI_BAR0: u32 = 0;
pub(super) const PCI_CONFIG: u32 = 7;
pub(super) const IRQ_MSIX: u32 = 2;
pub(super) const IRQ_REQUEST: u32 = 4;
pub(super) const IRQ_DATA_EVENTFD: u32 = 4;
pub(super) const IRQ_ACTION_TRIGGER: u32 = 32;
pub(super) const DMA_READ: u32 = 1;
pub(super) const DMA_WRITE: u32 = 2;
pub(super) const CAP_IOVA_RANGE: u16 = 1;

#[repr(C)]
#[derive(Default)]
pub(super) struct GroupStatus {
    pub(super) argsz: u32,
    pub(super) flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct RegionInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) cap_offset: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct IrqInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) count: u32,
}

/// With the events behind it, as many as `count`.
#[repr(C)]
pub(super) struct IrqSet<const N: usize> {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) events: [i32; N],
}

#[repr(C)]
#[derive(Default)]
pub(super) struct DmaMap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) vaddr: u64,
    pub(super) iova: u64,
    pub(super) size: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct DmaUnmap {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iova: u64,
    pub(super) size: u64,
}

/// With room for the capabilities behind it.
#[repr(C)]
pub(super) struct IommuInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) page_sizes: u64,
    pub(super) cap_offset: u32,
    pub(super) pad: u32,
    pub(super) rest: [u8; 4072],
}

/// An ioctl whose argument is a number or nothing; its result.
pub(super) fn with_value(fd: BorrowedFd<'_>, request: u32, value: usize) -> io::Result<i32> {
    // SAFETY: these requests take a plain number.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, value) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// An ioctl on a structure; its result.
///
/// # Safety
/// `T` must be what the request reads and writes, `argsz` included.
pub(super) unsafe fn with_struct<T>(fd: BorrowedFd<'_>, request: u32, value: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; `value` is ours alone meanwhile.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(value)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
