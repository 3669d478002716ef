//! Where buffers' memory comes from and goes to: the pool of the core, its arena, the allocator.

use super::ALIGN_BYTES;
use super::arena::{Arena, Home};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;

/// Capacities that pools keep, and how many of each: at most 52 MiB per core.
const CLASSES: [(usize, usize); CLASS_COUNT] =
    [(4 << 10, 2048), (16 << 10, 256), (64 << 10, 128), (128 << 10, 64), (256 << 10, 32), (1 << 20, 16)];
pub(super) const CLASS_COUNT: usize = 6;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: [const { Vec::new() }; CLASS_COUNT], home: None }) };
}

struct Pool {
    free: [Vec<Memory>; CLASS_COUNT],
    home: Option<Home>,
}

/// An aligned, initialised piece of memory: an allocation of its own, or a piece of an arena.
pub(super) struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// Keeps the arena; `None` for an allocation of its own.
    arena: Option<Arc<Arena>>,
}

// SAFETY: `Memory` owns its bytes alone, as a Box<[u8]> would; allocator and arena take them back on any thread.
unsafe impl Send for Memory {}
// SAFETY: shared references to `Memory` give read access to plain bytes only.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGN_BYTES).expect("buffers are far smaller than isize::MAX")
    }

    fn allocate(capacity: usize) -> Memory {
        let layout = Self::layout(capacity);
        // SAFETY: `capacity` is never 0: `capacity_for` rounds up to at least one granule.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Memory { start, capacity, arena: None }
    }

    /// # Safety
    /// `start` must be `capacity` initialised bytes of the arena, 4 KiB-aligned, that nobody else uses.
    pub(super) unsafe fn of_arena(start: NonNull<u8>, capacity: usize, arena: Arc<Arena>) -> Memory {
        Memory { start, capacity, arena: Some(arena) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `capacity` initialised bytes that `self` owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes any other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.arena.take() {
            Some(arena) => arena.give_back(self.start, class_of(self.capacity)),
            // SAFETY: allocated by `allocate` with this very layout, and dropped once.
            None => unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) },
        }
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

/// Memory for `len` bytes, and whether it is known to be zero.
pub(super) fn take(len: usize) -> (Memory, bool) {
    let capacity = capacity_for(len);
    let pooled =
        class_of(capacity).and_then(|class| POOL.try_with(|p| p.borrow_mut().take(class)).ok().flatten());
    match pooled {
        Some(m) => (m, false),
        None => (Memory::allocate(capacity), true),
    }
}

impl Pool {
    fn take(&mut self, class: usize) -> Option<Memory> {
        let free = self.free[class].pop();
        free.or_else(|| self.home.as_mut().and_then(|h| h.take(class, CLASSES[class].0)))
    }
}

/// To the pool of the core that frees, if it may keep it.
pub(super) fn give_back(memory: Memory) {
    let Some(class) = class_of(memory.capacity) else { return };
    let mut memory = Some(memory);
    // A full pool, another core's arena, a thread that ends: what is still here is dropped, outside of the borrow.
    let _ = POOL.try_with(|p| {
        let mut pool = p.borrow_mut();
        let Some(m) = &memory else { return };
        let keeps = match &m.arena {
            None => pool.free[class].len() < CLASSES[class].1,
            Some(arena) => pool.home.as_ref().is_some_and(|h| h.is(arena)),
        };
        if keeps {
            pool.free[class].extend(memory.take());
        }
    });
}

/// Makes `arena` the first source of this thread's pool.
pub(crate) fn adopt_arena(arena: &Arc<Arena>) {
    POOL.with_borrow_mut(|p| p.home = Some(Home::new(arena.clone())));
}
