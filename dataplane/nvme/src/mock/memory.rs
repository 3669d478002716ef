//! The mock's address space: everything of this process, moved by a constant, so that an address of ours used as one
//! of the controller's (or the other way round) is found out.

use crate::dma::{DmaError, DmaRegion, DmaSpace, Iova, Mapping, PAGE_BYTES};
use crate::spec::Cqe;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use zerocopy::{FromBytes, IntoBytes, transmute};

/// Added to an address of ours.
pub const IOVA_OFFSET: u64 = 1 << 60;

pub(super) struct MockMemory {
    pub(super) maps_buffers: bool,
}

struct Allocation {
    start: NonNull<u8>,
    layout: Layout,
}
// SAFETY: owns plain memory.
unsafe impl Send for Allocation {}
// SAFETY: as above; gives no access.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl DmaSpace for MockMemory {
    fn allocate(&self, len: usize) -> Result<DmaRegion, DmaError> {
        let len = len.max(1).next_multiple_of(PAGE_BYTES as usize);
        let layout = Layout::from_size_align(len, PAGE_BYTES as usize).map_err(|_| DmaError::Full)?;
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::Full)?;
        let iova = Iova(start.as_ptr().addr() as u64 + IOVA_OFFSET);
        // SAFETY: fresh, zeroed, and freed by the owner given along.
        Ok(unsafe { DmaRegion::new(start, len, iova, Arc::new(Allocation { start, layout })) })
    }

    fn buffers(&self) -> Vec<Mapping> {
        let all = Mapping { start: 0x1000, len: 1 << 47, iova: Iova(IOVA_OFFSET + 0x1000) };
        if self.maps_buffers { vec![all] } else { Vec::new() }
    }
}

impl MockMemory {
    #[track_caller]
    fn at(&self, iova: u64) -> *mut u8 {
        let at = iova.checked_sub(IOVA_OFFSET).filter(|&a| (0x1000..1 << 47).contains(&a));
        let at = at.unwrap_or_else(|| panic!("{iova:#x} is no address of the controller's"));
        std::ptr::with_exposed_provenance_mut(at as usize)
    }

    pub(super) fn read(&self, iova: u64, out: &mut [u8]) {
        // SAFETY: the driver promises, as to any controller, that what it names is mapped memory.
        unsafe { std::ptr::copy_nonoverlapping(self.at(iova), out.as_mut_ptr(), out.len()) };
    }

    pub(super) fn write(&self, iova: u64, data: &[u8]) {
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.at(iova), data.len()) };
    }

    pub(super) fn read_struct<T: FromBytes + IntoBytes>(&self, iova: u64) -> T {
        let mut value = T::new_zeroed();
        self.read(iova, value.as_mut_bytes());
        value
    }

    /// The half with the phase last, as controllers do.
    pub(super) fn write_cqe(&self, iova: u64, cqe: &Cqe) {
        let [low, high]: [u64; 2] = transmute!(*cqe);
        let at = self.at(iova).cast::<AtomicU64>();
        // SAFETY: sixteen aligned bytes of a completion ring.
        unsafe {
            (*at).store(low, Ordering::Relaxed);
            (*at.add(1)).store(high, Ordering::Release);
        }
    }

    pub(super) fn load32(&self, iova: u64) -> u32 {
        // SAFETY: four aligned bytes of a doorbell buffer.
        unsafe { (*self.at(iova).cast::<AtomicU32>()).load(Ordering::SeqCst) }
    }

    pub(super) fn store32(&self, iova: u64, value: u32) {
        // SAFETY: as in `load32`.
        unsafe { (*self.at(iova).cast::<AtomicU32>()).store(value, Ordering::SeqCst) };
    }
}
