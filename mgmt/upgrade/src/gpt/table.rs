//! A partition table of ours as it is written: both headers, both copies of the entries, and the protective MBR that makes it count
//! (UEFI 2.10, sections 5.2.3 and 5.3).

use super::crc32;
use crate::error::{Result, UpgradeError};
use crate::media::Media;
use crate::node::{ESP, ROOTS, STATE};
use ring::digest::{SHA256, digest};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const MIB: u64 = 1 << 20;
/// UEFI wants room for 128 entries.
const ENTRIES: usize = 128;
pub(super) const ENTRIES_BYTES: u64 = (ENTRIES * size_of::<Entry>()) as u64;
/// `docs/operations/image.md`, section 2.
const ESP_BYTES: u64 = 1024 * MIB;
const ROOT_BYTES: u64 = 512 * MIB;
const LEAST_STATE_BYTES: u64 = 512 * MIB;

/// Types of partitions as they stand on the disk: the first three fields of a GUID are little-endian.
const TYPE_ESP: Guid = guid(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
const TYPE_ROOT: Guid = guid(0x4f68_bce3, 0xe8cd, 0x4db1, 0x96e7_fbca_f984_b709);
const TYPE_LINUX: Guid = guid(0x0fc6_3daf, 0x8483, 0x4772, 0x8e79_3d69_d847_7de4);

type Guid = [u8; 16];

const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) signature: [u8; 8],
    pub(super) revision: U32,
    pub(super) header_bytes: U32,
    pub(super) header_crc: U32,
    pub(super) reserved: U32,
    pub(super) this_lba: U64,
    pub(super) other_lba: U64,
    pub(super) first_usable_lba: U64,
    pub(super) last_usable_lba: U64,
    pub(super) disk_guid: Guid,
    pub(super) entries_lba: U64,
    pub(super) entry_count: U32,
    pub(super) entry_bytes: U32,
    pub(super) entries_crc: U32,
}
pub(super) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 92);

#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) kind: Guid,
    pub(super) unique: Guid,
    pub(super) first_lba: U64,
    pub(super) last_lba: U64,
    pub(super) flags: U64,
    pub(super) name: [U16; 36],
}
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    pub(super) fn is_used(&self) -> bool {
        self.kind != [0; 16]
    }
    pub(super) fn name(&self) -> String {
        let units: Vec<u16> = self.name.iter().map(|u| u.get()).take_while(|u| *u != 0).collect();
        String::from_utf16_lossy(&units)
    }
}

/// A table in memory, for a disk of this size.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(super) sector_bytes: u64,
    pub(super) disk_bytes: u64,
    pub(super) header: Header,
    pub(super) entries: Vec<Entry>,
}

/// Sizes of the partitions; tests make small ones.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub esp_bytes: u64,
    pub root_bytes: u64,
    pub least_state_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { esp_bytes: ESP_BYTES, root_bytes: ROOT_BYTES, least_state_bytes: LEAST_STATE_BYTES }
    }
}

impl Sizes {
    /// The first and the last MiB belong to the table.
    pub fn least_disk_bytes(&self) -> u64 {
        self.esp_bytes + 2 * self.root_bytes + self.least_state_bytes + 2 * MIB
    }
}

impl Table {
    /// Basalt's partitions on a whole disk, aligned to 1 MiB. Identifiers come from `seed`.
    pub(crate) fn new(disk_bytes: u64, sector_bytes: u64, sizes: &Sizes, seed: &[u8]) -> Result<Table> {
        if ![512, 4096].contains(&sector_bytes) {
            return Err(UpgradeError::Layout(format!(
                "it has sectors of {sector_bytes} bytes; 512 and 4096 are known"
            )));
        }
        let least = sizes.least_disk_bytes();
        if disk_bytes < least {
            return Err(UpgradeError::Layout(format!(
                "it has {disk_bytes} bytes and at least {least} are needed ({} MiB); take a larger one",
                least.div_ceil(MIB)
            )));
        }
        let identifier = |what: &str| {
            let mut id: Guid = [0; 16];
            id.copy_from_slice(&digest(&SHA256, &[seed, what.as_bytes()].concat()).as_ref()[..16]);
            // Version 4, variant 1 (RFC 9562).
            id[7] = id[7] & 0x0f | 0x40;
            id[8] = id[8] & 0x3f | 0x80;
            id
        };
        let header = Header {
            signature: *b"EFI PART",
            revision: 0x0001_0000.into(),
            header_bytes: (HEADER_BYTES as u32).into(),
            header_crc: 0.into(),
            reserved: 0.into(),
            this_lba: 1.into(),
            other_lba: 0.into(),
            first_usable_lba: (MIB / sector_bytes).into(),
            last_usable_lba: 0.into(),
            disk_guid: identifier("disk"),
            entries_lba: 2.into(),
            entry_count: (ENTRIES as u32).into(),
            entry_bytes: (size_of::<Entry>() as u32).into(),
            entries_crc: 0.into(),
        };
        let mut table = Table { sector_bytes, disk_bytes, header, entries: Vec::with_capacity(ENTRIES) };
        table.place_for(disk_bytes);
        let mut start = MIB;
        let state_bytes = table.state_end_bytes() - (MIB + sizes.esp_bytes + 2 * sizes.root_bytes);
        for (name, kind, len) in [
            (ESP, TYPE_ESP, sizes.esp_bytes),
            (ROOTS[0], TYPE_ROOT, sizes.root_bytes),
            (ROOTS[1], TYPE_ROOT, sizes.root_bytes),
            (STATE, TYPE_LINUX, state_bytes),
        ] {
            let mut units = [U16::ZERO; 36];
            units.iter_mut().zip(name.encode_utf16()).for_each(|(to, unit)| *to = unit.into());
            table.entries.push(Entry {
                kind,
                unique: identifier(name),
                first_lba: (start / sector_bytes).into(),
                last_lba: ((start + len) / sector_bytes - 1).into(),
                flags: 0.into(),
                name: units,
            });
            start += len;
        }
        table.entries.resize_with(ENTRIES, Entry::new_zeroed);
        Ok(table)
    }

    /// The backup at the end of a disk of that size.
    pub(super) fn place_for(&mut self, disk_bytes: u64) {
        self.disk_bytes = disk_bytes;
        let last = disk_bytes / self.sector_bytes - 1;
        self.header.other_lba = last.into();
        self.header.last_usable_lba = (last - 1 - ENTRIES_BYTES / self.sector_bytes).into();
    }

    /// Where the last partition may end: whole MiB, before the backup.
    pub(super) fn state_end_bytes(&self) -> u64 {
        (self.header.last_usable_lba.get() + 1) * self.sector_bytes / MIB * MIB
    }

    /// Offset and length of the partition of that name.
    pub(crate) fn place(&self, name: &str) -> Option<(u64, u64)> {
        let entry = self.entries.iter().find(|e| e.is_used() && e.name() == name)?;
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        Some((first * self.sector_bytes, (last - first + 1) * self.sector_bytes))
    }

    /// A header with its sums, padded to a sector.
    fn sealed(&self, this_lba: u64, other_lba: u64, entries_lba: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        header.this_lba = this_lba.into();
        header.other_lba = other_lba.into();
        header.entries_lba = entries_lba.into();
        header.entries_crc = crc32(self.entries.as_bytes()).into();
        header.header_crc = 0.into();
        header.header_crc = crc32(header.as_bytes()).into();
        let mut sector = header.as_bytes().to_vec();
        sector.resize(self.sector_bytes as usize, 0);
        sector
    }

    /// The copy at the end of the disk.
    pub(super) fn write_backup(&self, disk: &dyn Media) -> std::io::Result<()> {
        let last = self.header.other_lba.get();
        let entries_lba = last - ENTRIES_BYTES / self.sector_bytes;
        disk.write_at(entries_lba * self.sector_bytes, self.entries.as_bytes())?;
        disk.write_at(last * self.sector_bytes, &self.sealed(last, 1, entries_lba))
    }

    pub(super) fn write_entries(&self, disk: &dyn Media, entries_lba: u64) -> std::io::Result<()> {
        disk.write_at(entries_lba * self.sector_bytes, self.entries.as_bytes())
    }

    /// One sector, which makes the entries at `entries_lba` those that count.
    pub(super) fn write_header(&self, disk: &dyn Media, entries_lba: u64) -> std::io::Result<()> {
        disk.write_at(self.sector_bytes, &self.sealed(1, self.header.other_lba.get(), entries_lba))
    }

    /// One sector. Without it neither firmware nor kernel look at the table.
    pub(super) fn write_mbr(&self, disk: &dyn Media) -> std::io::Result<()> {
        let mut sector = vec![0; self.sector_bytes as usize];
        let sectors = u32::try_from(self.header.other_lba.get()).unwrap_or(u32::MAX);
        sector[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
        sector[458..462].copy_from_slice(&sectors.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk.write_at(0, &sector)
    }

    /// Writes all of it to a disk without one. Until the last sector is there the disk has no table for anybody
    /// who reads one.
    pub(crate) fn write_new(&self, disk: &dyn Media) -> std::io::Result<()> {
        self.write_backup(disk)?;
        self.write_entries(disk, 2)?;
        self.write_header(disk, 2)?;
        disk.flush()?;
        self.write_mbr(disk)?;
        disk.flush()
    }
}

/// True for what [`Table::write_new`] leaves when it is cut short: no MBR, and nothing but headers and entries of Basalt's
/// partitions in the first and the last MiB of a disk.
pub(crate) fn is_begun(first: &[u8], last: &[u8], sector: usize) -> bool {
    let entries = ENTRIES_BYTES as usize;
    let zero = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    let header = |bytes: &[u8]| zero(bytes) || bytes.starts_with(b"EFI PART");
    let ours = |bytes: &[u8]| {
        let all = bytes.chunks_exact(size_of::<Entry>());
        all.filter_map(|e| Entry::read_from_bytes(e).ok())
            .all(|e| zero(e.as_bytes()) || e.name().starts_with("basalt-"))
    };
    if first.len() < 2 * sector + entries || last.len() < sector + entries {
        return false;
    }
    let (mbr, rest) = first.split_at(sector);
    let (primary, rest) = rest.split_at(sector);
    let (table, rest) = rest.split_at(entries);
    let (before, backup) = last.split_at(last.len() - sector);
    let (before, copy) = before.split_at(before.len() - entries);
    zero(mbr) && header(primary) && ours(table) && zero(rest) && zero(before) && ours(copy) && header(backup)
}
