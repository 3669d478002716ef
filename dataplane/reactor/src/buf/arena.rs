//! One large mapping per reactor, of huge pages where there are any, registered with its io_uring: requests from it
//! need no page pinning each. It stays mapped until its last buffer is gone, wherever that is.

use super::memory::{CLASS_COUNT, Memory};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Every arena of the process, for drivers that map memory for devices: one per reactor.
static ARENAS: Mutex<Vec<Weak<Arena>>> = Mutex::new(Vec::new());
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Changes whenever an arena comes into being.
pub fn arena_generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// An arena that stays mapped while this is held.
#[derive(Clone)]
pub struct ArenaRef(Arc<Arena>);

impl ArenaRef {
    /// A page boundary.
    pub fn start(&self) -> *const u8 {
        self.0.start.as_ptr()
    }
    /// A multiple of 2 MiB.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len
    }
}

/// All arenas there are.
pub fn arenas() -> Vec<ArenaRef> {
    let all = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).map(ArenaRef).collect()
}

pub(crate) struct Arena {
    start: NonNull<u8>,
    len: usize,
    /// Pieces freed on other cores, by class, on their way home.
    returned: Mutex<[Vec<Piece>; CLASS_COUNT]>,
    any_returned: AtomicBool,
}

/// Start of an unused piece.
struct Piece(NonNull<u8>);

// SAFETY: the mapping belongs to the arena; its pieces are handed out each to one owner, and returned under a lock.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// `len` is rounded up to huge pages.
    pub(crate) fn map(len: usize) -> io::Result<Arc<Arena>> {
        let len = len.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let map = |flags| {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
        };
        let at = map(libc::MAP_HUGETLB).or_else(|_| map(0))?;
        // SAFETY: the mapping just made. Transparent huge pages are a wish only.
        let _ = unsafe { libc::madvise(at, len, libc::MADV_HUGEPAGE) };
        let start = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let arena =
            Arc::new(Arena { start, len, returned: Mutex::default(), any_returned: AtomicBool::new(false) });
        let mut all = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|a| a.strong_count() > 0);
        all.push(Arc::downgrade(&arena));
        GENERATION.fetch_add(1, Ordering::Release);
        Ok(arena)
    }

    pub(crate) fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start.as_ptr().cast(), iov_len: self.len }
    }

    /// Whether these bytes lie in the arena.
    pub(crate) fn holds(&self, at: *const u8, len: usize) -> bool {
        at.addr()
            .checked_sub(self.start.as_ptr().addr())
            .is_some_and(|from| from < self.len && len <= self.len - from)
    }

    /// From a core that is not the arena's, or whose pool has ended.
    pub(super) fn give_back(&self, start: NonNull<u8>, class: Option<usize>) {
        let Some(class) = class else { unreachable!("an arena's pieces are of a class") };
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)[class].push(Piece(start));
        self.any_returned.store(true, Ordering::Release);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `map`; every piece held an Arc, so none is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The arena as its own core sees it: what has not been cut yet, and what comes back.
pub(super) struct Home {
    arena: Arc<Arena>,
    cut: usize,
}

impl Home {
    pub(super) fn new(arena: Arc<Arena>) -> Home {
        Home { arena, cut: 0 }
    }

    pub(super) fn is(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    pub(super) fn take(&mut self, class: usize, capacity: usize) -> Option<Memory> {
        let start = match self.returned(class) {
            Some(Piece(start)) => start,
            None if self.cut + capacity <= self.arena.len => {
                // SAFETY: within the mapping, as just checked.
                let start = unsafe { self.arena.start.add(self.cut) };
                self.cut += capacity;
                start
            }
            None => return None,
        };
        // SAFETY: a piece of this class, cut from the (zero-initialised) mapping for the first time or given back by its
        // last owner; cuts are multiples of 4 KiB from a page boundary.
        Some(unsafe { Memory::of_arena(start, capacity, self.arena.clone()) })
    }

    fn returned(&self, class: usize) -> Option<Piece> {
        if !self.arena.any_returned.load(Ordering::Acquire) {
            return None;
        }
        let mut returned = self.arena.returned.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = returned[class].pop();
        let any = returned.iter().any(|r| !r.is_empty());
        self.arena.any_returned.store(any, Ordering::Release);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{DmaBuf, adopt_arena};

    #[test]
    fn pieces_come_home_from_other_threads() {
        std::thread::spawn(|| {
            let arena = Arena::map(1).unwrap();
            adopt_arena(&arena);
            // Cut it up whole: 2 MiB.
            let all: Vec<_> = (0..512).map(|_| DmaBuf::zeroed(4096)).collect();
            assert!(all.iter().all(|b| arena.holds(b.as_ptr(), 4096)));
            let from_allocator = DmaBuf::new(4096);
            assert!(!arena.holds(from_allocator.as_ptr(), 4096));
            std::thread::spawn(move || drop(all)).join().unwrap();
            let again: Vec<_> = (0..512).map(|_| DmaBuf::new(4096)).collect();
            assert!(again.iter().all(|b| arena.holds(b.as_ptr(), 4096)));
            let mut starts: Vec<_> = again.iter().map(|b| b.as_ptr().addr()).collect();
            starts.sort();
            starts.dedup();
            assert_eq!(starts.len(), 512);
            // The mapping outlives thread and handle while a buffer is left.
            let weak = Arc::downgrade(&arena);
            (again.into_iter().next().unwrap().freeze(), weak)
        })
        .join()
        .map(|(bytes, weak)| {
            assert!(weak.upgrade().is_some() && bytes.len() == 4096);
            drop(bytes);
            assert!(weak.upgrade().is_none(), "unmapped with its last buffer");
        })
        .unwrap();
    }
}
