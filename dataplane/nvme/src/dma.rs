//! Memory that a controller may read and write, and its addresses as the controller sees them.

use std::ptr::NonNull;
use std::sync::Arc;

/// Page size that controllers are set to (CC.MPS = 0).
pub const PAGE_BYTES: u64 = 4096;

/// An address in the controller's I/O address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Iova(pub u64);

/// A mapped range of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub len: usize,
    pub iova: Iova,
}

impl Mapping {
    #[inline]
    pub fn translate(&self, at: usize, len: usize) -> Option<Iova> {
        let from = at.wrapping_sub(self.start);
        (from < self.len && len <= self.len - from).then(|| Iova(self.iova.0 + from as u64))
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum DmaError {
    #[error(
        "{len_bytes} bytes cannot be mapped for DMA: {cause}; raise the limit of locked memory (ulimit -l)"
    )]
    Map { len_bytes: usize, cause: String },
    #[error("the I/O address space is used up")]
    Full,
}

/// One I/O address space: an IOMMU container, or the mock's table.
pub trait DmaSpace: Send + Sync + 'static {
    /// Zeroed, page-aligned, mapped memory; `len` is rounded up to pages.
    fn allocate(&self, len: usize) -> Result<DmaRegion, DmaError>;
    /// Where the memory of the reactors' buffers is, mapping first what is not mapped yet.
    fn buffers(&self) -> Vec<Mapping>;
}

/// Owned DMA memory; unmapped when dropped.
pub struct DmaRegion {
    start: NonNull<u8>,
    len: usize,
    iova: Iova,
    /// Unmaps and frees.
    _owner: Arc<dyn Send + Sync>,
}

// SAFETY: plain memory, freed by its owner on whatever thread; all access goes through raw pointers whose users keep
// their own order.
unsafe impl Send for DmaRegion {}
// SAFETY: as above; `&DmaRegion` gives no access to the bytes by itself.
unsafe impl Sync for DmaRegion {}

impl DmaRegion {
    /// # Safety
    /// `start` must be `len` zeroed bytes, page-aligned, mapped at `iova`, that stay so until `owner` is dropped and
    /// that nobody else uses.
    pub unsafe fn new(start: NonNull<u8>, len: usize, iova: Iova, owner: Arc<dyn Send + Sync>) -> DmaRegion {
        DmaRegion { start, len, iova, _owner: owner }
    }

    pub fn iova(&self) -> Iova {
        self.iova
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Address of a byte within.
    pub fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "offset {offset} in {} bytes", self.len);
        // SAFETY: within the region, as just checked.
        unsafe { self.start.add(offset) }
    }
    pub fn iova_at(&self, offset: usize) -> Iova {
        Iova(self.iova.0 + offset as u64)
    }

    /// Copies out; the controller must be done with these bytes.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset.checked_add(out.len()).is_some_and(|end| end <= self.len));
        // SAFETY: within the region, as just checked; `out` is ours alone.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), out.as_mut_ptr(), out.len())
        };
    }

    /// Copies in; the controller must not use these bytes meanwhile.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset.checked_add(data.len()).is_some_and(|end| end <= self.len));
        // SAFETY: within the region, as just checked.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.start.as_ptr().add(offset), data.len()) };
    }

    pub fn zero(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        // SAFETY: within the region, as just checked.
        unsafe { std::ptr::write_bytes(self.start.as_ptr().add(offset), 0, len) };
    }
}

impl std::fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DmaRegion({} bytes at {:#x})", self.len, self.iova.0)
    }
}
