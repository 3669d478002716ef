//! GUID partition tables (UEFI 2.10, section 5.3). Partitions are found by name, never by number or offset.

mod grow;
mod table;

pub use grow::{Grown, grow_state};
pub use table::Sizes;
pub(crate) use table::{Table, is_begun};

use crate::error::{Result, UpgradeError};
use crate::media::{Media, Slice};
use std::sync::Arc;

/// UEFI wants room for 128 entries; more than 1,024 is nothing we make.
const MAX_ENTRIES: u32 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    pub start_bytes: u64,
    pub len_bytes: u64,
}

/// All partitions, from the first header or, if that is damaged, from the one at the end of the disk.
pub fn partitions(disk: &dyn Media) -> Result<Vec<Partition>> {
    for sector in [512, 4096] {
        let last = disk.len_bytes() / sector;
        for lba in [1, last.saturating_sub(1)] {
            if let Some(found) = table_at(disk, sector, lba) {
                return Ok(found);
            }
        }
    }
    Err(UpgradeError::Layout(
        "it has no valid GPT; it was not set up by Basalt's installer, and an upgrade needs what that makes"
            .into(),
    ))
}

/// The partition of that name.
pub fn open(disk: &Arc<dyn Media>, name: &str) -> Result<Slice> {
    let all = partitions(&**disk)?;
    let Some(found) = all.iter().find(|p| p.name == name) else {
        let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
        return Err(UpgradeError::Layout(format!(
            "there is no partition {name} (there are: {}); set the disk up with the installer",
            names.join(", ")
        )));
    };
    Slice::new(disk.clone(), found.start_bytes, found.len_bytes)
        .map_err(|e| UpgradeError::Layout(format!("partition {name}: {e}")))
}

fn table_at(disk: &dyn Media, sector: u64, lba: u64) -> Option<Vec<Partition>> {
    let mut header = vec![0; 92];
    disk.read_at(lba.checked_mul(sector)?, &mut header).ok()?;
    if &header[..8] != b"EFI PART" || u32_at(&header, 12) != 92 {
        return None;
    }
    let crc = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32(&header) != crc {
        return None;
    }
    let (first, count, size) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    if count > MAX_ENTRIES || !(128..=4096).contains(&size) {
        return None;
    }
    let mut entries = vec![0; count as usize * size as usize];
    disk.read_at(first.checked_mul(sector)?, &mut entries).ok()?;
    if crc32(&entries) != u32_at(&header, 88) {
        return None;
    }
    let used = entries.chunks_exact(size as usize).filter(|e| e[..16] != [0; 16]);
    used.map(|e| {
        let (start, end) = (u64_at(e, 32), u64_at(e, 40));
        let name: Vec<u16> = e[56..128].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        Some(Partition {
            name: String::from_utf16_lossy(&name).trim_end_matches('\0').to_owned(),
            start_bytes: start.checked_mul(sector)?,
            len_bytes: end.checked_add(1)?.checked_sub(start)?.checked_mul(sector)?,
        })
    })
    .collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
