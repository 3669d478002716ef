//! DMA-able buffers: 4 KiB-aligned memory from per-core pools.

use crate::context::{self, World};
use bytes::Bytes;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Alignment and granule of every buffer.
pub const ALIGN_BYTES: usize = 4096;

/// Capacities that pools keep, and how many of each: at most 52 MiB per core.
const CLASSES: [(usize, usize); 6] =
    [(4 << 10, 2048), (16 << 10, 256), (64 << 10, 128), (128 << 10, 64), (256 << 10, 32), (1 << 20, 16)];

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: [const { Vec::new() }; CLASSES.len()] }) };
}

struct Pool {
    free: [Vec<Memory>; CLASSES.len()],
}

/// An aligned, initialised allocation of `capacity` bytes.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: `Memory` owns its allocation alone, as a Box<[u8]> would; the allocator takes memory back on any thread.
unsafe impl Send for Memory {}
// SAFETY: shared references to `Memory` give read access to plain bytes only.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGN_BYTES).expect("buffers are far smaller than isize::MAX")
    }

    fn allocate(capacity: usize) -> Memory {
        let layout = Self::layout(capacity);
        // SAFETY: `capacity` is never 0: `DmaBuf::new` rounds up to at least one granule.
        let start = unsafe { alloc_zeroed(layout) };
        Memory { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), capacity }
    }

    /// The second part: whether it is known to be zero.
    fn take(capacity: usize) -> (Memory, bool) {
        let pooled = class_of(capacity)
            .and_then(|class| POOL.try_with(|p| p.borrow_mut().free[class].pop()).ok().flatten());
        match pooled {
            Some(m) => (m, false),
            None => (Self::allocate(capacity), true),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `capacity` initialised bytes that `self` owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes any other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `allocate` with this very layout, and dropped once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// The class whose buffers have exactly this capacity.
fn class_of(capacity: usize) -> Option<usize> {
    CLASSES.iter().position(|c| c.0 == capacity)
}

fn capacity_for(len: usize) -> usize {
    let rounded = len.max(1).next_multiple_of(ALIGN_BYTES);
    // A class that wastes no more than it stores, else exactly what is asked.
    CLASSES.iter().map(|c| c.0).find(|&c| c >= rounded && c <= rounded * 2).unwrap_or(rounded)
}

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
        let (memory, _) = Memory::take(capacity_for(len));
        let mut buf = DmaBuf { memory: Some(memory), len };
        if matches!(context::try_current().as_deref().map(|r| &r.world), Some(World::Sim(_))) {
            // What an earlier use left behind must not reach a simulated run, or the seed would not repeat.
            buf.fill(0xdb);
        }
        buf
    }

    pub fn zeroed(len: usize) -> DmaBuf {
        let (mut memory, zero) = Memory::take(capacity_for(len));
        if !zero {
            memory.bytes_mut()[..len].fill(0);
        }
        DmaBuf { memory: Some(memory), len }
    }

    pub fn from_slice(s: &[u8]) -> DmaBuf {
        let (mut memory, _) = Memory::take(capacity_for(s.len()));
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
        self.memory().capacity
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
        let Some(memory) = self.memory.take() else { return };
        if let Some(class) = class_of(memory.capacity) {
            let mut memory = Some(memory);
            // The pool of the core that frees; full, or the thread ends: back to the allocator.
            let _ = POOL.try_with(|p| {
                let free = &mut p.borrow_mut().free[class];
                if free.len() < CLASSES[class].1
                    && let Some(m) = memory.take()
                {
                    free.push(m);
                }
            });
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
