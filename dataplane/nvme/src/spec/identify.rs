//! Identify data structures (Base 5.17.2, NVM 4.1.5). Only what is read here has a name.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// CNS values (Base figure 273).
pub mod cns {
    pub const NAMESPACE: u8 = 0x00;
    pub const CONTROLLER: u8 = 0x01;
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
}

pub const IDENTIFY_BYTES: usize = 4096;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyController {
    pub pci_vendor: U16,
    pub pci_subsystem_vendor: U16,
    pub serial: [u8; 20],
    pub model: [u8; 40],
    pub firmware: [u8; 8],
    pub arbitration_burst: u8,
    pub ieee_oui: [u8; 3],
    pub multi_path: u8,
    /// Most data per command, as a power of two of pages; 0: no limit.
    pub max_data_transfer: u8,
    pub controller_id: U16,
    pub version: U32,
    pub rtd3_resume: U32,
    pub rtd3_entry: U32,
    /// Asynchronous events that can be switched on.
    pub optional_events: U32,
    pub attributes: U32,
    reserved_100: [u8; 156],
    /// OACS: bit 1 format, 2 firmware, 3 namespace management, 8 doorbell buffers.
    pub optional_admin: U16,
    /// 0-based.
    pub abort_limit: u8,
    /// 0-based.
    pub event_request_limit: u8,
    /// Bit 0: slot 1 is read-only; 3:1 slots; 4: activation without reset.
    pub firmware_updates: u8,
    pub log_attributes: u8,
    pub error_log_entries: u8,
    pub power_states: u8,
    pub vendor_commands: u8,
    pub autonomous_power: u8,
    pub warning_temperature_k: U16,
    pub critical_temperature_k: U16,
    pub firmware_activation_time: U16,
    pub host_memory_preferred: U32,
    pub host_memory_minimum: U32,
    pub total_capacity: U128,
    pub unallocated_capacity: U128,
    pub rpmb: U32,
    pub self_test_time: U16,
    pub self_test_options: u8,
    /// Granularity of a firmware piece in 4 KiB; 0: unknown, ffh: none.
    pub firmware_granularity: u8,
    pub keep_alive: U16,
    pub thermal_management: [u8; 6],
    /// Bit 0 crypto erase, 1 block erase, 2 overwrite.
    pub sanitize: U32,
    reserved_332: [u8; 180],
    pub sq_entry_size: u8,
    pub cq_entry_size: u8,
    pub max_commands: U16,
    pub namespace_count: U32,
    /// ONCS: bit 0 compare, 2 dataset management, 3 write zeroes.
    pub optional_commands: U16,
    /// Bit 0: compare and write.
    pub fused: U16,
    pub format_attributes: u8,
    /// Bit 0: there is one.
    pub volatile_write_cache: u8,
    pub atomic_write_normal: U16,
    pub atomic_write_power_fail: U16,
    pub vendor_io_commands: u8,
    pub write_protection: u8,
    pub atomic_compare_write: U16,
    pub copy_formats: U16,
    /// SGLS: bits 1:0 supported.
    pub sgl: U32,
    pub max_namespaces: U32,
    reserved_544: [u8; 224],
    pub subsystem_nqn: [u8; 256],
    reserved_1024: [u8; 3072],
}
const _: () = assert!(size_of::<IdentifyController>() == IDENTIFY_BYTES);
const _: () = assert!(std::mem::offset_of!(IdentifyController, optional_admin) == 256);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sanitize) == 328);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sq_entry_size) == 512);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sgl) == 536);
const _: () = assert!(std::mem::offset_of!(IdentifyController, subsystem_nqn) == 768);

impl IdentifyController {
    pub fn formats(&self) -> bool {
        self.optional_admin.get() & 1 << 1 != 0
    }
    pub fn updates_firmware(&self) -> bool {
        self.optional_admin.get() & 1 << 2 != 0
    }
    pub fn shadow_doorbells(&self) -> bool {
        self.optional_admin.get() & 1 << 8 != 0
    }
    pub fn compares(&self) -> bool {
        self.optional_commands.get() & 1 != 0
    }
    pub fn deallocates(&self) -> bool {
        self.optional_commands.get() & 1 << 2 != 0
    }
    pub fn writes_zeroes(&self) -> bool {
        self.optional_commands.get() & 1 << 3 != 0
    }
    pub fn fused_compare_and_write(&self) -> bool {
        self.fused.get() & 1 != 0
    }
    pub fn takes_sgl(&self) -> bool {
        matches!(self.sgl.get() & 3, 1 | 2)
    }
    pub fn serial(&self) -> String {
        ascii(&self.serial)
    }
    pub fn model(&self) -> String {
        ascii(&self.model)
    }
    pub fn firmware(&self) -> String {
        ascii(&self.firmware)
    }
    pub fn firmware_slots(&self) -> u8 {
        self.firmware_updates >> 1 & 7
    }
    /// Most data bytes of one command, where there is a limit.
    pub fn max_transfer_bytes(&self, min_page_bytes: u64) -> Option<u64> {
        match self.max_data_transfer {
            0 => None,
            n => min_page_bytes.checked_shl(n.into()).filter(|&b| b >> n == min_page_bytes),
        }
    }
}

/// Space-padded ASCII (Base 1.4.2), made safe to print.
fn ascii(field: &[u8]) -> String {
    let printable = field.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { ' ' });
    printable.collect::<String>().trim().to_owned()
}

/// One LBA format (NVM figure 98): metadata bytes, log2 of data bytes, relative performance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LbaFormat {
    pub metadata_bytes: U16,
    pub data_shift: u8,
    pub performance: u8,
}
const _: () = assert!(size_of::<LbaFormat>() == 4);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyNamespace {
    pub size_blocks: U64,
    pub capacity_blocks: U64,
    pub used_blocks: U64,
    pub features: u8,
    /// 0-based.
    pub format_count: u8,
    /// Bits 3:0 and 6:5 index, bit 4 metadata at the end of each block.
    pub format: u8,
    pub metadata_capabilities: u8,
    /// Bits 2:0 types 1 to 3, 3 first and 4 last eight bytes.
    pub protection_capabilities: u8,
    /// Bits 2:0 type, bit 3 in the first eight bytes.
    pub protection: u8,
    pub sharing: u8,
    pub reservations: u8,
    pub format_progress: u8,
    pub deallocation: u8,
    pub atomics: [u8; 12],
    pub optimal_boundary: U16,
    pub nvm_capacity: U128,
    pub preferred_write: [u8; 40],
    pub nguid: [u8; 16],
    pub eui64: [u8; 8],
    pub formats: [LbaFormat; 64],
    vendor: [u8; 3712],
}
const _: () = assert!(size_of::<IdentifyNamespace>() == IDENTIFY_BYTES);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, optimal_boundary) == 46);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, nguid) == 104);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, formats) == 128);

impl IdentifyNamespace {
    pub fn format_index(&self) -> usize {
        // Bits 6:5 are reserved unless there are more than 16 formats.
        let high = if self.format_count >= 16 { (self.format >> 5 & 3) << 4 } else { 0 };
        usize::from(self.format & 0xf | high)
    }
    pub fn current_format(&self) -> LbaFormat {
        self.formats[self.format_index()]
    }
    /// Metadata travels inside the data buffer.
    pub fn extended_blocks(&self) -> bool {
        self.format >> 4 & 1 == 1
    }
    pub fn protection_type(&self) -> u8 {
        self.protection & 7
    }
}

/// Command set of a namespace (Base 3.1.4.1 "CSI").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandSet {
    Nvm,
    KeyValue,
    Zoned,
    Other(u8),
}

/// The CSI in a namespace identification descriptor list (Base 5.17.2.3); NVM where it says none.
pub fn command_set(descriptors: &[u8]) -> CommandSet {
    const CSI: u8 = 4;
    let mut rest = descriptors;
    // Type 0 ends the list.
    while let [kind, len, _, _, tail @ ..] = rest {
        let len = usize::from(*len);
        if *kind == 0 {
            break;
        }
        if *kind == CSI {
            return match tail.first() {
                Some(0) => CommandSet::Nvm,
                Some(1) => CommandSet::KeyValue,
                Some(2) => CommandSet::Zoned,
                Some(&other) => CommandSet::Other(other),
                None => CommandSet::Nvm,
            };
        }
        rest = tail.get(len..).unwrap_or_default();
    }
    CommandSet::Nvm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_lists_of_any_shape() {
        assert_eq!(command_set(&[]), CommandSet::Nvm);
        assert_eq!(command_set(&[0; 4096]), CommandSet::Nvm);
        let mut list = vec![3, 16, 0, 0];
        list.extend([0xaa; 16]);
        list.extend([4, 1, 0, 0, 2, 0, 0, 0]);
        assert_eq!(command_set(&list), CommandSet::Zoned);
        list.truncate(24);
        assert_eq!(command_set(&list), CommandSet::Nvm);
        assert_eq!(command_set(&[1, 255, 0, 0, 1]), CommandSet::Nvm);
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(ascii(b"  QEMU\x07\xff NVMe Ctrl   "), "QEMU   NVMe Ctrl");
    }
}
