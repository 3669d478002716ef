//! Log pages (Base 5.16.1) and asynchronous events (Base 5.2.1).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod page {
    pub const ERROR: u8 = 0x01;
    pub const HEALTH: u8 = 0x02;
    pub const FIRMWARE_SLOTS: u8 = 0x03;
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    pub const SANITIZE: u8 = 0x81;
}

/// SMART / Health Information (Base 5.16.1.3).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HealthLog {
    /// Bit 0 spare low, 1 temperature, 2 reliability, 3 read-only, 4 volatile memory backup failed.
    pub critical_warning: u8,
    pub temperature_k: U16,
    pub spare_percent: u8,
    pub spare_threshold_percent: u8,
    pub used_percent: u8,
    pub endurance_group_warning: u8,
    reserved_7: [u8; 25],
    /// In thousands of 512 bytes, as are the units written.
    pub data_units_read: U128,
    pub data_units_written: U128,
    pub host_reads: U128,
    pub host_writes: U128,
    pub busy_minutes: U128,
    pub power_cycles: U128,
    pub power_on_hours: U128,
    pub unsafe_shutdowns: U128,
    pub media_errors: U128,
    pub error_log_entries: U128,
    pub warning_temperature_minutes: U32,
    pub critical_temperature_minutes: U32,
    pub sensors_k: [U16; 8],
    reserved_216: [u8; 296],
}
const _: () = assert!(size_of::<HealthLog>() == 512);
const _: () = assert!(std::mem::offset_of!(HealthLog, sensors_k) == 200);

impl HealthLog {
    /// What an operator should know, most urgent first.
    pub fn warnings(&self) -> Vec<&'static str> {
        const WORDS: [(u8, &str); 5] = [
            (3, "the drive has become read-only; replace it"),
            (2, "the drive says that it is no longer reliable; replace it"),
            (0, "spare blocks are nearly used up; plan a replacement"),
            (4, "the power-loss protection has failed; replace the drive"),
            (1, "the temperature is out of range; check the cooling"),
        ];
        WORDS.iter().filter(|(bit, _)| self.critical_warning >> bit & 1 == 1).map(|w| w.1).collect()
    }
}

/// Firmware Slot Information (Base 5.16.1.4).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// Bits 2:0 the active slot, 6:4 the one after the next reset.
    pub active: u8,
    reserved_1: [u8; 7],
    pub revisions: [[u8; 8]; 7],
    reserved_64: [u8; 448],
}
const _: () = assert!(size_of::<FirmwareSlotLog>() == 512);

/// Sanitize Status (Base 5.16.1.25); its first 20 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SanitizeLog {
    /// Of 65536.
    pub progress: U16,
    /// Bits 2:0: 0 never, 1 done, 2 under way, 3 failed, 4 done without deallocation.
    pub status: U16,
    pub command: U32,
    pub estimates_s: [U32; 6],
    reserved_32: [u8; 480],
}
const _: () = assert!(size_of::<SanitizeLog>() == 512);

/// One error (Base 5.16.1.2).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorLogEntry {
    pub count: U64,
    pub sq_id: U16,
    pub cid: U16,
    pub status: U16,
    pub location: U16,
    pub lba: U64,
    pub nsid: U32,
    reserved_28: [u8; 36],
}
const _: () = assert!(size_of::<ErrorLogEntry>() == 64);

/// Completion dword 0 of an asynchronous event request (Base figure 145).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    pub kind: EventKind,
    /// Reading this page arms the event again.
    pub log_page: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Error(u8),
    /// Reliability, temperature or spare below threshold.
    Health(u8),
    NamespacesChanged,
    FirmwareActivation,
    Notice(u8),
    SanitizeDone,
    Other {
        kind: u8,
        info: u8,
    },
}

impl AsyncEvent {
    pub fn from_dw0(dw0: u32) -> AsyncEvent {
        let info = (dw0 >> 8) as u8;
        let kind = match (dw0 & 7, info) {
            (0, info) => EventKind::Error(info),
            (1, info) => EventKind::Health(info),
            (2, 0) => EventKind::NamespacesChanged,
            (2, 1) => EventKind::FirmwareActivation,
            (2, info) => EventKind::Notice(info),
            (6, 1 | 2) => EventKind::SanitizeDone,
            (kind, info) => EventKind::Other { kind: kind as u8, info },
        };
        AsyncEvent { kind, log_page: (dw0 >> 16) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_warnings() {
        assert_eq!(
            AsyncEvent::from_dw0(0x0004_0002),
            AsyncEvent { kind: EventKind::NamespacesChanged, log_page: 4 }
        );
        assert_eq!(AsyncEvent::from_dw0(0x0002_0101).kind, EventKind::Health(1));
        let mut log = HealthLog::read_from_bytes(&[0; 512]).unwrap();
        assert!(log.warnings().is_empty());
        log.critical_warning = 0b1001;
        assert!(log.warnings()[0].contains("read-only") && log.warnings()[1].contains("spare"));
    }

    #[test]
    fn health_log_offsets() {
        let mut bytes = [0u8; 512];
        bytes[1..3].copy_from_slice(&323u16.to_le_bytes());
        bytes[5] = 7;
        bytes[32] = 9;
        bytes[128] = 5;
        let log = HealthLog::read_from_bytes(&bytes).unwrap();
        assert_eq!((log.temperature_k.get(), log.used_percent), (323, 7));
        assert_eq!((log.data_units_read.get(), log.power_on_hours.get()), (9, 5));
        assert_eq!((log.unsafe_shutdowns.get(), log.power_cycles.get()), (0, 0));
    }
}
