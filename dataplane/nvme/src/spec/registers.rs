//! Controller registers (Base 3.1.3): offsets in BAR 0, and what their bits mean.

/// Controller capabilities, 64 bits.
pub const CAP: u32 = 0x00;
/// Version.
pub const VS: u32 = 0x08;
/// Interrupt mask set; not used with MSI-X.
pub const INTMS: u32 = 0x0c;
/// Controller configuration.
pub const CC: u32 = 0x14;
/// Controller status.
pub const CSTS: u32 = 0x1c;
/// Admin queue attributes.
pub const AQA: u32 = 0x24;
/// Admin submission queue base, 64 bits.
pub const ASQ: u32 = 0x28;
/// Admin completion queue base, 64 bits.
pub const ACQ: u32 = 0x30;
/// First doorbell (Base 3.1.3 and PCIe transport 3.1.2.1).
pub const DOORBELLS: u32 = 0x1000;

/// What a read of a device that is gone returns (PCIe: completion with all ones).
pub const GONE_32: u32 = u32::MAX;

/// CAP (Base 3.1.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap(pub u64);

impl Cap {
    /// Entries per I/O queue at most; the register is 0-based.
    pub fn max_queue_entries(self) -> u32 {
        (self.0 as u32 & 0xffff) + 1
    }
    /// Longest time for CSTS.RDY to follow CC.EN.
    pub fn ready_timeout_ms(self) -> u64 {
        (self.0 >> 24 & 0xff) * 500
    }
    pub fn doorbell_stride_bytes(self) -> u32 {
        4 << (self.0 >> 32 & 0xf)
    }
    pub fn subsystem_reset_supported(self) -> bool {
        self.0 >> 36 & 1 == 1
    }
    pub fn supports_nvm_command_set(self) -> bool {
        self.0 >> 37 & 1 == 1 || self.supports_all_command_sets()
    }
    /// CSS bit 6: Identify with CNS 1Ch and namespaces that are not of the NVM command set.
    pub fn supports_all_command_sets(self) -> bool {
        self.0 >> 43 & 1 == 1
    }
    pub fn min_page_bytes(self) -> u64 {
        4096 << (self.0 >> 48 & 0xf)
    }
    pub fn max_page_bytes(self) -> u64 {
        4096 << (self.0 >> 52 & 0xf)
    }
    /// Offset of a queue's submission (tail) doorbell.
    pub fn submission_doorbell(self, queue: u16) -> u32 {
        DOORBELLS + 2 * u32::from(queue) * self.doorbell_stride_bytes()
    }
    /// Offset of a queue's completion (head) doorbell.
    pub fn completion_doorbell(self, queue: u16) -> u32 {
        DOORBELLS + (2 * u32::from(queue) + 1) * self.doorbell_stride_bytes()
    }
}

/// CC (Base 3.1.3.5): enabled, 4 KiB pages, entries of 64 and 16 bytes, round robin.
pub fn cc_enabled(all_command_sets: bool) -> u32 {
    let css = if all_command_sets { 0b110 } else { 0 };
    1 | css << 4 | 6 << 16 | 4 << 20
}
pub const CC_ENABLE: u32 = 1;
/// CC.SHN: normal shutdown.
pub const CC_SHUTDOWN_NORMAL: u32 = 0b01 << 14;

/// CSTS (Base 3.1.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csts(pub u32);

impl Csts {
    pub fn gone(self) -> bool {
        self.0 == GONE_32
    }
    pub fn ready(self) -> bool {
        self.0 & 1 == 1
    }
    /// The controller has given up; only a reset helps.
    pub fn fatal(self) -> bool {
        self.0 & 2 == 2
    }
    pub fn shutdown_complete(self) -> bool {
        self.0 >> 2 & 3 == 0b10
    }
}

/// AQA (Base 3.1.3.8) for admin queues of `entries` each.
pub fn aqa(entries: u16) -> u32 {
    let zero_based = u32::from(entries) - 1;
    zero_based << 16 | zero_based
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // QEMU's: 2048 entries, contiguous queues, 7.5 s, CSS NVM and "all", pages 4 KiB to 64 KiB.
        let cap = Cap(0x0040_0820_0f01_07ff);
        assert_eq!(cap.max_queue_entries(), 2048);
        assert_eq!(cap.ready_timeout_ms(), 7500);
        assert_eq!(cap.doorbell_stride_bytes(), 4);
        assert!(cap.supports_nvm_command_set() && cap.supports_all_command_sets());
        assert_eq!((cap.min_page_bytes(), cap.max_page_bytes()), (4096, 65536));
        assert_eq!((cap.submission_doorbell(3), cap.completion_doorbell(3)), (0x1018, 0x101c));
        assert_eq!(Cap(1 << 32).completion_doorbell(1), 0x1000 + 3 * 8);
        assert_eq!(cc_enabled(false), 0x0046_0001);
        assert_eq!(cc_enabled(true), 0x0046_0061);
        assert_eq!(aqa(32), 0x001f_001f);
        assert!(
            Csts(GONE_32).gone() && Csts(1).ready() && Csts(3).fatal() && Csts(0b1000).shutdown_complete()
        );
    }
}
