//! DMA-able buffers: 4 KiB-aligned memory from per-core pools.

mod arena;
mod memory;

pub(crate) use arena::Arena;
pub use arena::{ArenaRef, arena_generation, arenas};
pub(crate) use memory::adopt_arena;

use crate::context::{self, World};
use bytes::Bytes;
use memory::{Memory, give_back, take};

/// Alignment and granule of every buffer.
pub const ALIGN_BYTES: usize = 4096;

/// A uniquely owned, 4 KiB-aligned buffer whose capacity is a multiple of 4 KiB. `Send`: it may be freed on another
/// core than its own.
pub struct DmaBuf {
    /// `None` only while dropping.
    memory: Option<Memory>,
    len: usize,
}

impl DmaBuf {
    /// Contents are unspecified (but initialised memory). `len` need not be a multiple of 4 KiB.
    pub fn new(len: usize) -> DmaBuf {
        let (memory, _) = take(len);
        let mut buf = DmaBuf { memory: Some(memory), len };
        if matches!(context::try_current().as_deref().map(|r| &r.world), Some(World::Sim(_))) {
            // What an earlier use left behind must not reach a simulated run, or the seed would not repeat.
            buf.fill(0xdb);
        }
        buf
    }

    pub fn zeroed(len: usize) -> DmaBuf {
        let (mut memory, zero) = take(len);
        if !zero {
            memory.bytes_mut()[..len].fill(0);
        }
        DmaBuf { memory: Some(memory), len }
    }

    pub fn from_slice(s: &[u8]) -> DmaBuf {
        let (mut memory, _) = take(s.len());
        memory.bytes_mut()[..s.len()].copy_from_slice(s);
        DmaBuf { memory: Some(memory), len: s.len() }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A multiple of 4 KiB, at least `len`.
    pub fn capacity(&self) -> usize {
        self.memory().bytes().len()
    }

    /// Shortens; never reallocates.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Shared, immutable, sliceable; returns to the pool when the last clone drops.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("a buffer has its memory until it is dropped")
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            give_back(memory);
        }
    }
}

impl std::ops::Deref for DmaBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory().bytes()[..self.len]
    }
}

impl std::ops::DerefMut for DmaBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        let memory = self.memory.as_mut().expect("a buffer has its memory until it is dropped");
        &mut memory.bytes_mut()[..len]
    }
}

impl AsRef<[u8]> for DmaBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DmaBuf({} bytes)", self.len)
    }
}

const ZEROES_BYTES: usize = 128 << 10;

#[repr(align(4096))]
struct Zeroes([u8; ZEROES_BYTES]);
static ZEROES: Zeroes = Zeroes([0; ZEROES_BYTES]);

/// `len` zero bytes, aligned, shared from one static page where it can be (len <= 128 KiB).
pub fn zeroes(len: usize) -> Bytes {
    if len <= ZEROES_BYTES { Bytes::from_static(&ZEROES.0[..len]) } else { DmaBuf::zeroed(len).freeze() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_as_long_as_asked() {
        for len in [0, 1, 4096, 5000, 65536, 100_000, 3 << 20] {
            let b = DmaBuf::zeroed(len);
            assert_eq!(b.len(), len);
            assert!(b.iter().all(|&x| x == 0));
            assert_eq!(b.as_ptr() as usize % ALIGN_BYTES, 0);
            assert!(b.capacity() >= len && b.capacity().is_multiple_of(ALIGN_BYTES));
        }
    }

    #[test]
    fn memory_is_used_again_and_zeroed_when_asked() {
        let mut a = DmaBuf::new(4096);
        a.fill(7);
        let at = a.as_ptr();
        let frozen = a.freeze();
        let slice = frozen.slice(10..20);
        drop(frozen);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        let b = DmaBuf::zeroed(4096);
        assert_eq!(b.as_ptr(), at);
        assert!(b.iter().all(|&x| x == 0));
    }

    #[test]
    fn freed_on_another_thread() {
        let b = DmaBuf::from_slice(&[1; 9000]);
        std::thread::spawn(move || assert_eq!(b[8999], 1)).join().unwrap();
    }

    #[test]
    fn zeroes_are_aligned() {
        for len in [4096, ZEROES_BYTES, ZEROES_BYTES + 4096] {
            let z = zeroes(len);
            assert!(
                z.len() == len && z.iter().all(|&x| x == 0) && (z.as_ptr() as usize).is_multiple_of(4096)
            );
        }
    }
}
