//! Submission and completion queue entries (Base 3.3.3), opcodes, and the builders of the commands we send.

use super::status::Status;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Namespace identifier; all ones addresses every namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nsid(pub u32);
pub const ALL_NAMESPACES: Nsid = Nsid(u32::MAX);

/// A submission queue entry (Base figure 87).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sqe {
    pub opcode: u8,
    /// Bits 1:0 fused operation, 7:6 PRP or SGL.
    pub flags: u8,
    pub cid: U16,
    pub nsid: U32,
    pub cdw2: U32,
    pub cdw3: U32,
    pub metadata: U64,
    /// Two PRP entries or one SGL descriptor.
    pub data: [U64; 2],
    pub cdw10: U32,
    pub cdw11: U32,
    pub cdw12: U32,
    pub cdw13: U32,
    pub cdw14: U32,
    pub cdw15: U32,
}
const _: () = assert!(size_of::<Sqe>() == 64);

/// A completion queue entry (Base figure 89).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cqe {
    pub dw0: U32,
    pub dw1: U32,
    pub sq_head: U16,
    pub sq_id: U16,
    pub cid: U16,
    /// Bit 0 is the phase, the rest the status field.
    pub phase_and_status: U16,
}
const _: () = assert!(size_of::<Cqe>() == 16);

impl Cqe {
    pub fn phase(&self) -> bool {
        self.phase_and_status.get() & 1 == 1
    }
    pub fn status(&self) -> Status {
        Status::from_cqe(self.phase_and_status.get())
    }
}

pub const FLAG_FUSED_FIRST: u8 = 0b01;
pub const FLAG_FUSED_SECOND: u8 = 0b10;
/// PSDT: data by SGL, no metadata pointer in use.
pub const FLAG_SGL: u8 = 0b01 << 6;

/// Admin commands (Base figure 138).
pub mod admin {
    pub const DELETE_IO_SQ: u8 = 0x00;
    pub const CREATE_IO_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_IO_CQ: u8 = 0x04;
    pub const CREATE_IO_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
    pub const FIRMWARE_COMMIT: u8 = 0x10;
    pub const FIRMWARE_DOWNLOAD: u8 = 0x11;
    pub const DOORBELL_BUFFER_CONFIG: u8 = 0x7c;
    pub const FORMAT_NVM: u8 = 0x80;
    pub const SANITIZE: u8 = 0x84;
}

/// I/O commands (NVM figure 21).
pub mod io {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Feature identifiers (Base figure 317).
pub mod feature {
    pub const VOLATILE_WRITE_CACHE: u32 = 0x06;
    pub const NUMBER_OF_QUEUES: u32 = 0x07;
    pub const INTERRUPT_COALESCING: u32 = 0x08;
    pub const ASYNC_EVENT_CONFIGURATION: u32 = 0x0b;
}

/// CDW12 of reads and writes (NVM 3.2.4, 3.2.6).
pub const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// PRACT: the controller inserts and strips protection information.
pub const PROTECTION_ACTION: u32 = 1 << 29;
/// PRCHK: guard and reference tag.
pub const CHECK_GUARD: u32 = 1 << 28;
pub const CHECK_REFERENCE_TAG: u32 = 1 << 26;
/// CDW12 of write zeroes (NVM 3.2.7).
pub const DEALLOCATE: u32 = 1 << 25;
/// CDW11 of dataset management (NVM 3.2.3).
pub const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;
/// Ranges in one dataset management command.
pub const DSM_RANGES_MAX: usize = 256;

/// One range of a dataset management command (NVM figure 40).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DsmRange {
    pub context: U32,
    pub blocks: U32,
    pub first_lba: U64,
}
const _: () = assert!(size_of::<DsmRange>() == 16);

impl Sqe {
    pub fn new(opcode: u8, nsid: Nsid) -> Sqe {
        Sqe { opcode, nsid: nsid.0.into(), ..Sqe::default() }
    }

    /// Read, write, compare, write zeroes: `blocks` is 1-based here and 0-based on the wire.
    pub fn blocks(opcode: u8, nsid: Nsid, lba: u64, blocks: u32, control: u32) -> Sqe {
        debug_assert!((1..=0x1_0000).contains(&blocks));
        Sqe {
            cdw10: (lba as u32).into(),
            cdw11: ((lba >> 32) as u32).into(),
            cdw12: ((blocks - 1) & 0xffff | control).into(),
            ..Sqe::new(opcode, nsid)
        }
    }

    pub fn dataset_deallocate(nsid: Nsid, ranges: usize) -> Sqe {
        debug_assert!((1..=DSM_RANGES_MAX).contains(&ranges));
        Sqe {
            cdw10: (ranges as u32 - 1).into(),
            cdw11: ATTRIBUTE_DEALLOCATE.into(),
            ..Sqe::new(io::DATASET_MANAGEMENT, nsid)
        }
    }

    /// Identify (Base 5.17).
    pub fn identify(cns: u8, nsid: Nsid, csi: u8) -> Sqe {
        Sqe {
            cdw10: u32::from(cns).into(),
            cdw11: (u32::from(csi) << 24).into(),
            ..Sqe::new(admin::IDENTIFY, nsid)
        }
    }

    /// Create I/O Completion Queue (Base 5.5), physically contiguous; `vector`: interrupts on, by this MSI-X vector.
    pub fn create_io_cq(qid: u16, entries: u16, iova: u64, vector: Option<u16>) -> Sqe {
        let mut sqe = Sqe::new(admin::CREATE_IO_CQ, Nsid(0));
        sqe.data[0] = iova.into();
        sqe.cdw10 = ((u32::from(entries) - 1) << 16 | u32::from(qid)).into();
        sqe.cdw11 = vector.map_or(1, |v| u32::from(v) << 16 | 0b11).into();
        sqe
    }

    /// Create I/O Submission Queue (Base 5.6), physically contiguous, completing into the queue of the same number.
    pub fn create_io_sq(qid: u16, entries: u16, iova: u64) -> Sqe {
        let mut sqe = Sqe::new(admin::CREATE_IO_SQ, Nsid(0));
        sqe.data[0] = iova.into();
        sqe.cdw10 = ((u32::from(entries) - 1) << 16 | u32::from(qid)).into();
        sqe.cdw11 = (u32::from(qid) << 16 | 1).into();
        sqe
    }

    pub fn delete_io_queue(opcode: u8, qid: u16) -> Sqe {
        Sqe { cdw10: u32::from(qid).into(), ..Sqe::new(opcode, Nsid(0)) }
    }

    /// Abort (Base 5.1).
    pub fn abort(qid: u16, cid: u16) -> Sqe {
        Sqe { cdw10: (u32::from(cid) << 16 | u32::from(qid)).into(), ..Sqe::new(admin::ABORT, Nsid(0)) }
    }

    /// Number of Queues (Base 5.27.1.5): asks for `count` I/O queue pairs.
    pub fn set_number_of_queues(count: u16) -> Sqe {
        let zero_based = u32::from(count) - 1;
        Sqe {
            cdw10: feature::NUMBER_OF_QUEUES.into(),
            cdw11: (zero_based << 16 | zero_based).into(),
            ..Sqe::new(admin::SET_FEATURES, Nsid(0))
        }
    }

    pub fn set_feature(feature: u32, value: u32) -> Sqe {
        Sqe { cdw10: feature.into(), cdw11: value.into(), ..Sqe::new(admin::SET_FEATURES, Nsid(0)) }
    }

    pub fn get_feature(feature: u32) -> Sqe {
        Sqe { cdw10: feature.into(), ..Sqe::new(admin::GET_FEATURES, Nsid(0)) }
    }

    /// Get Log Page (Base 5.16); reading it acknowledges the event that announced it.
    pub fn get_log_page(page: u8, nsid: Nsid, len_bytes: u32) -> Sqe {
        debug_assert!(len_bytes > 0 && len_bytes.is_multiple_of(4));
        let dwords = len_bytes / 4 - 1;
        Sqe {
            cdw10: ((dwords & 0xffff) << 16 | u32::from(page)).into(),
            cdw11: (dwords >> 16).into(),
            ..Sqe::new(admin::GET_LOG_PAGE, nsid)
        }
    }

    /// Doorbell Buffer Config (Base 5.8): shadow doorbells, event indices.
    pub fn doorbell_buffer_config(shadow_iova: u64, event_index_iova: u64) -> Sqe {
        let mut sqe = Sqe::new(admin::DOORBELL_BUFFER_CONFIG, Nsid(0));
        sqe.data = [shadow_iova.into(), event_index_iova.into()];
        sqe
    }

    /// Firmware Image Download (Base 5.14) of one piece.
    pub fn firmware_download(offset_bytes: u32, len_bytes: u32) -> Sqe {
        debug_assert!(len_bytes > 0 && len_bytes.is_multiple_of(4) && offset_bytes.is_multiple_of(4));
        Sqe {
            cdw10: (len_bytes / 4 - 1).into(),
            cdw11: (offset_bytes / 4).into(),
            ..Sqe::new(admin::FIRMWARE_DOWNLOAD, Nsid(0))
        }
    }

    /// Firmware Commit (Base 5.13).
    pub fn firmware_commit(slot: u8, action: u8) -> Sqe {
        Sqe {
            cdw10: (u32::from(slot & 7) | u32::from(action & 7) << 3).into(),
            ..Sqe::new(admin::FIRMWARE_COMMIT, Nsid(0))
        }
    }

    /// Format NVM (Base 5.15): no or user data erase, protection information at the end of the metadata.
    pub fn format_nvm(nsid: Nsid, lba_format: u8, protection_type: u8, erase: bool) -> Sqe {
        let cdw10 = u32::from(lba_format & 0xf)
            | u32::from(protection_type & 7) << 5
            | u32::from(erase) << 9
            | u32::from(lba_format >> 4 & 3) << 12;
        Sqe { cdw10: cdw10.into(), ..Sqe::new(admin::FORMAT_NVM, nsid) }
    }

    /// Sanitize (Base 5.24).
    pub fn sanitize(action: u8) -> Sqe {
        Sqe { cdw10: u32::from(action & 7).into(), ..Sqe::new(admin::SANITIZE, Nsid(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(sqe: &Sqe) -> String {
        let mut words =
            sqe.as_bytes().chunks(4).map(|w| w.iter().rev().map(|b| format!("{b:02x}")).collect::<String>());
        words.by_ref().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn golden_commands() {
        let mut read = Sqe::blocks(io::READ, Nsid(1), 0x1_2345_6789, 8, FORCE_UNIT_ACCESS);
        read.cid = 0x0a0b.into();
        read.data = [0x1000.into(), 0x2000.into()];
        assert_eq!(
            hex(&read),
            "0a0b0002 00000001 00000000 00000000 00000000 00000000 00001000 00000000 \
             00002000 00000000 23456789 00000001 40000007 00000000 00000000 00000000"
        );
        assert_eq!(
            hex(&Sqe::create_io_cq(2, 256, 0xffff_0000, Some(2))),
            "00000005 00000000 00000000 00000000 00000000 00000000 ffff0000 00000000 \
             00000000 00000000 00ff0002 00020003 00000000 00000000 00000000 00000000"
        );
        assert_eq!(
            hex(&Sqe::create_io_sq(2, 256, 0x5000)),
            "00000001 00000000 00000000 00000000 00000000 00000000 00005000 00000000 \
             00000000 00000000 00ff0002 00020001 00000000 00000000 00000000 00000000"
        );
        let word = |sqe: &Sqe, n: usize| hex(sqe).split(' ').nth(n).unwrap().to_owned();
        assert_eq!(word(&Sqe::abort(3, 0x41), 10), "00410003");
        assert_eq!(word(&Sqe::set_number_of_queues(4), 11), "00030003");
        assert_eq!(word(&Sqe::get_log_page(2, ALL_NAMESPACES, 512), 10), "007f0002");
        assert_eq!(word(&Sqe::firmware_download(8192, 4096), 10), "000003ff");
        assert_eq!(word(&Sqe::firmware_download(8192, 4096), 11), "00000800");
        assert_eq!(word(&Sqe::firmware_commit(2, 3), 10), "0000001a");
        assert_eq!(word(&Sqe::format_nvm(Nsid(1), 0x12, 1, true), 10), "00001222");
        assert_eq!(word(&Sqe::sanitize(2), 10), "00000002");
        assert_eq!(word(&Sqe::identify(6, Nsid(1), 2), 11), "02000000");
        assert_eq!(word(&Sqe::dataset_deallocate(Nsid(1), 3), 11), "00000004");
    }

    #[test]
    fn golden_completion() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 0, 5, 0, 0x03, 0x05];
        let cqe = Cqe::read_from_bytes(&bytes).unwrap();
        assert_eq!((cqe.dw0.get(), cqe.sq_head.get(), cqe.sq_id.get(), cqe.cid.get()), (1, 7, 2, 5));
        assert!(cqe.phase());
        assert_eq!(cqe.status(), Status::new(2, 0x81));
    }
}
