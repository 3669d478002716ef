//! DMA-able buffers: 4 KiB-aligned memory from per-core pools.

use bytes::Bytes;

/// Alignment and granule of every buffer.
pub const ALIGN_BYTES: usize = 4096;

/// A uniquely owned, 4 KiB-aligned buffer whose capacity is a multiple of 4 KiB. `Send`: it may be freed on another
/// core than its own.
pub struct DmaBuf {
    _p: Vec<u8>,
}

impl DmaBuf {
    /// Contents are unspecified (but initialised memory). `len` need not be a multiple of 4 KiB.
    pub fn new(_len: usize) -> DmaBuf {
        todo!()
    }
    pub fn zeroed(_len: usize) -> DmaBuf {
        todo!()
    }
    pub fn from_slice(_s: &[u8]) -> DmaBuf {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Shortens; never reallocates.
    pub fn truncate(&mut self, _len: usize) {
        todo!()
    }
    /// Shared, immutable, sliceable; returns to the pool when the last clone drops.
    pub fn freeze(self) -> Bytes {
        todo!()
    }
}
impl std::ops::Deref for DmaBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}
impl std::ops::DerefMut for DmaBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}
/// `len` zero bytes, aligned, shared from one static page where it can be (len <= 128 KiB).
pub fn zeroes(_len: usize) -> Bytes {
    todo!()
}
