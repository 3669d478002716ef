//! Gives the last partition the room that a larger disk has behind it, in an order that a power cut cannot break: the new backup
//! goes where nothing was, and the primary table changes by **one sector**. Its header names where its entries are, so the new
//! ones are written beside the old ones first. (A reader that finds a damaged primary header need not look for the backup: Linux
//! does not.)

use super::table::{ENTRIES_BYTES, Entry, HEADER_BYTES, Header, MIB, Table};
use super::{crc32, u32_at};
use crate::error::{Result, UpgradeError};
use crate::media::Media;
use crate::node::STATE;
use serde::Serialize;
use zerocopy::FromBytes;

/// The partition that grew, for telling the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Grown {
    /// As the kernel counts: from 1.
    pub number: u32,
    pub start_bytes: u64,
    pub before_bytes: u64,
    pub len_bytes: u64,
}

/// Extends the state partition to the end of the disk. None: it is not the last one, or there is not a MiB to gain.
pub fn grow_state(disk: &dyn Media) -> Result<Option<Grown>> {
    let mut table = read(disk)?;
    let used = || table.entries.iter().enumerate().filter(|(_, e)| e.is_used());
    let Some((index, state)) = used().max_by_key(|(_, e)| e.last_lba.get()) else { return Ok(None) };
    if state.name() != STATE {
        return Ok(None);
    }
    let sector = table.sector_bytes;
    let start_bytes = state.first_lba.get() * sector;
    let before_bytes = (state.last_lba.get() + 1) * sector - start_bytes;
    let first_entries = table.header.entries_lba.get();
    table.place_for(disk.len_bytes());
    let end = table.state_end_bytes();
    if end < start_bytes + before_bytes + MIB {
        return Ok(None);
    }
    table.entries[index].last_lba = (end / sector - 1).into();
    // Behind the place where they usually are, or back to it.
    let spare = if first_entries == 2 { 2 + ENTRIES_BYTES / sector } else { 2 };
    if (spare * sector + ENTRIES_BYTES) > table.header.first_usable_lba.get() * sector {
        return Err(UpgradeError::Layout(
            "its partition table has no room to change it safely; write the image to it anew".into(),
        ));
    }
    let write = || -> std::io::Result<()> {
        table.write_backup(disk)?;
        table.write_entries(disk, spare)?;
        disk.flush()?;
        table.write_header(disk, spare)?;
        disk.flush()?;
        if spare != 2 {
            table.write_entries(disk, 2)?;
            disk.flush()?;
            table.write_header(disk, 2)?;
        }
        table.write_mbr(disk)?;
        disk.flush()
    };
    write().map_err(UpgradeError::io("extending the state partition"))?;
    Ok(Some(Grown { number: index as u32 + 1, start_bytes, before_bytes, len_bytes: end - start_bytes }))
}

/// The primary table, as the kernel reads it.
fn read(disk: &dyn Media) -> Result<Table> {
    let wrong = |why: &str| UpgradeError::Layout(format!("its partition table {why}"));
    for sector_bytes in [512, 4096] {
        let mut raw = [0; HEADER_BYTES];
        if disk.read_at(sector_bytes, &mut raw).is_err() || &raw[..8] != b"EFI PART" {
            continue;
        }
        let header = Header::read_from_bytes(&raw).map_err(|_| wrong("has no header"))?;
        raw[16..20].fill(0);
        if crc32(&raw) != header.header_crc.get() || u32_at(&raw, 12) != HEADER_BYTES as u32 {
            return Err(wrong("fails its checksum"));
        }
        let bytes = u64::from(header.entry_count.get()) * u64::from(header.entry_bytes.get());
        if header.entry_bytes.get() as usize != size_of::<Entry>() || bytes != ENTRIES_BYTES {
            return Err(wrong("is not one of Basalt's making"));
        }
        let mut entries = vec![0; bytes as usize];
        let at = header.entries_lba.get().checked_mul(sector_bytes).ok_or_else(|| wrong("is damaged"))?;
        disk.read_at(at, &mut entries).map_err(UpgradeError::io("reading the partition table"))?;
        if crc32(&entries) != header.entries_crc.get() {
            return Err(wrong("fails its checksum"));
        }
        let entries: Vec<Entry> =
            entries.chunks_exact(size_of::<Entry>()).filter_map(|e| Entry::read_from_bytes(e).ok()).collect();
        let last_sector = disk.len_bytes() / sector_bytes;
        if disk.len_bytes() < 4 * MIB || header.first_usable_lba.get() > last_sector {
            return Err(wrong("is damaged"));
        }
        if entries
            .iter()
            .any(|e| e.is_used() && (e.first_lba > e.last_lba || e.last_lba.get() >= last_sector))
        {
            return Err(wrong("holds impossible values"));
        }
        return Ok(Table { sector_bytes, disk_bytes: disk.len_bytes(), header, entries });
    }
    Err(wrong("is not there, or damaged"))
}
