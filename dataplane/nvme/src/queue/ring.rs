//! The two rings in DMA memory: places, wrap, phase.

use super::LIST_BYTES;
use crate::dma::{DmaRegion, Iova, PAGE_BYTES};
use crate::pointer::ListMemory;
use crate::spec::{Cqe, Sqe};
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::IntoBytes;

pub(super) struct Layout {
    cq: usize,
    lists: usize,
    pub(super) total: usize,
}

/// Submission ring, completion ring, list memory; the rings each begin a page.
pub(super) fn layout(entries: u16) -> Layout {
    let page = PAGE_BYTES as usize;
    let entries = usize::from(entries);
    let cq = (entries * size_of::<Sqe>()).next_multiple_of(page);
    let lists = cq + (entries * size_of::<Cqe>()).next_multiple_of(page);
    Layout { cq, lists, total: lists + (entries - 1) * LIST_BYTES }
}

pub(super) struct Rings {
    entries: u16,
    memory: DmaRegion,
    layout: Layout,
    tail: u16,
    announced_tail: u16,
    announced: bool,
    head: u16,
    announced_head: u16,
    /// Phase of entries not seen yet; flips at each wrap (Base 3.3.3.2).
    phase: bool,
}

impl Rings {
    pub(super) fn new(entries: u16, memory: DmaRegion) -> Rings {
        let layout = layout(entries);
        assert!(memory.len() >= layout.total);
        Rings {
            entries,
            memory,
            layout,
            tail: 0,
            announced_tail: 0,
            announced: false,
            head: 0,
            announced_head: 0,
            phase: true,
        }
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }
    pub(super) fn sq_iova(&self) -> Iova {
        self.memory.iova()
    }
    pub(super) fn cq_iova(&self) -> Iova {
        self.memory.iova_at(self.layout.cq)
    }

    pub(super) fn reset(&mut self) {
        // Old entries would carry the phase that the new round expects.
        self.memory.zero(self.layout.cq, usize::from(self.entries) * size_of::<Cqe>());
        self.announced = false;
        (self.tail, self.announced_tail, self.head, self.announced_head, self.phase) = (0, 0, 0, 0, true);
    }

    /// Whether the controller has been told of anything since the last reset.
    pub(super) fn announced(&self) -> bool {
        self.announced
    }

    /// There is room: fewer commands than entries are ever in flight, and a command leaves the ring before it completes.
    #[inline]
    pub(super) fn push(&mut self, sqe: &Sqe) {
        self.memory.write(usize::from(self.tail) * size_of::<Sqe>(), sqe.as_bytes());
        self.tail = self.after(self.tail);
        debug_assert!(self.tail != self.announced_tail, "the submission ring has run over");
    }

    #[inline]
    fn after(&self, index: u16) -> u16 {
        if index + 1 == self.entries { 0 } else { index + 1 }
    }

    #[inline]
    pub(super) fn unannounced_tail(&mut self) -> Option<u16> {
        (self.announced_tail != self.tail).then(|| {
            self.announced_tail = self.tail;
            self.announced = true;
            self.tail
        })
    }

    #[inline]
    pub(super) fn unannounced_head(&mut self) -> Option<u16> {
        (self.announced_head != self.head).then(|| {
            self.announced_head = self.head;
            self.head
        })
    }

    /// The next completion, if the controller has written it.
    #[inline]
    pub(super) fn peek(&self) -> Option<Cqe> {
        let at = self.memory.at(self.layout.cq + usize::from(self.head) * size_of::<Cqe>());
        // SAFETY: sixteen aligned bytes in the completion ring; the device writes them, so each half is read atomically,
        // the one with the phase first.
        let (low, high) =
            unsafe { (at.cast::<AtomicU64>().as_ref(), at.add(8).cast::<AtomicU64>().as_ref()) };
        let high = high.load(Ordering::Acquire);
        if (u64::from_le(high) >> 48 & 1 == 1) != self.phase {
            return None;
        }
        let low = low.load(Ordering::Relaxed);
        Some(zerocopy::transmute!([low, high]))
    }

    #[inline]
    pub(super) fn advance(&mut self) {
        self.head = self.after(self.head);
        if self.head == 0 {
            self.phase = !self.phase;
        }
    }

    /// List memory of a slot. The slot must be free or reserved: the controller reads it while its command is in flight.
    #[inline]
    pub(super) fn list(&mut self, slot: u16) -> ListMemory<'_> {
        let offset = self.layout.lists + usize::from(slot) * LIST_BYTES;
        let iova = self.memory.iova_at(offset);
        let at = self.memory.at(offset + LIST_BYTES - 8);
        // SAFETY: LIST_BYTES aligned bytes that end where just checked, used by this slot alone.
        let words = unsafe {
            std::slice::from_raw_parts_mut(at.cast::<u64>().as_ptr().sub(LIST_BYTES / 8 - 1), LIST_BYTES / 8)
        };
        ListMemory { words, iova }
    }
}
