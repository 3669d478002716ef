//! Doorbells, and shadow doorbells (Base 5.8 and annex B.5): values go to memory, the register is written only when
//! the controller has asked for it by its event index.

use crate::dma::DmaRegion;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// A 32-bit doorbell register, mapped.
pub struct DoorbellRegister {
    register: NonNull<AtomicU32>,
    /// Keeps the mapping.
    _owner: Arc<dyn Send + Sync>,
}

// SAFETY: the register may be written from any thread; the queue pair that owns the doorbell orders its own writes.
unsafe impl Send for DoorbellRegister {}

impl DoorbellRegister {
    /// # Safety
    /// `register` must be a mapped doorbell register (or memory that stands for one) until `owner` is dropped.
    pub unsafe fn new(register: NonNull<u32>, owner: Arc<dyn Send + Sync>) -> DoorbellRegister {
        DoorbellRegister { register: register.cast(), _owner: owner }
    }

    #[inline]
    fn write(&self, value: u32) {
        before_device_write();
        // SAFETY: mapped while `_owner` lives; an atomic store is a single access of 32 bits.
        unsafe { self.register.as_ref() }.store(value.to_le(), Ordering::Release);
    }
}

/// Everything written to memory before is visible to the device before what is written to it next.
#[inline]
fn before_device_write() {
    // On x86 stores to memory stay before stores to uncached registers; the store's Release keeps the compiler from
    // moving them.
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
}

/// One doorbell's places in the two buffers.
#[derive(Clone)]
pub struct Shadow {
    pub shadow: Arc<DmaRegion>,
    pub event_index: Arc<DmaRegion>,
    /// Bytes into both.
    pub offset: usize,
}

pub struct Doorbell {
    register: DoorbellRegister,
    shadow: Option<Shadow>,
    last: u32,
    writes: u64,
}

impl Doorbell {
    pub fn new(register: DoorbellRegister) -> Doorbell {
        Doorbell { register, shadow: None, last: 0, writes: 0 }
    }

    pub(super) fn set_shadow(&mut self, shadow: Option<Shadow>) {
        self.shadow = shadow;
        self.last = 0;
    }

    pub(super) fn reset(&mut self) {
        self.last = 0;
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    #[inline]
    pub(super) fn ring(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.last, value);
        if let Some(s) = &self.shadow
            && !s.store(before, value)
        {
            return;
        }
        self.writes += 1;
        self.register.write(value);
    }
}

impl Shadow {
    fn word(region: &DmaRegion, offset: usize) -> &AtomicU32 {
        // SAFETY: four aligned bytes of memory that lives as long as the region; the device accesses them as a unit.
        unsafe { region.at(offset).cast::<AtomicU32>().as_ref() }
    }

    /// Whether the controller wants to hear of it: when its event index has been passed.
    #[inline]
    fn store(&self, before: u32, value: u32) -> bool {
        Self::word(&self.shadow, self.offset).store(value.to_le(), Ordering::Release);
        // The store must be visible before the index is read: the controller does the same the other way round.
        fence(Ordering::SeqCst);
        let event = u32::from_le(Self::word(&self.event_index, self.offset).load(Ordering::Acquire));
        passed(event as u16, value as u16, before as u16)
    }
}

/// Whether `event` lies in the half-open range from `before` to `value`, modulo 2^16.
fn passed(event: u16, value: u16, before: u16) -> bool {
    value.wrapping_sub(event).wrapping_sub(1) < value.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn event_indices_wrap() {
        assert!(passed(0, 1, 0));
        assert!(!passed(5, 3, 1));
        assert!(passed(2, 3, 1));
        assert!(passed(65535, 1, 65534));
        assert!(!passed(7, 7, 7));
    }
}
