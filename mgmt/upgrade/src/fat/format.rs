//! An empty FAT32 file system (Microsoft's FAT specification 1.03, sections 3 and 5). No more than an ESP needs: the image has no
//! mkfs.fat, and what this writes is what the rest of this module reads.

use super::{END, MAX_TABLE_BYTES, entry, io};
use crate::error::{Result, UpgradeError};
use crate::media::Media;

const RESERVED_BYTES: u64 = 32 << 10;
/// As mkfs.fat does below 8 GiB; small ones of tests get smaller clusters, since FAT32 begins at 65,525 of them.
const MOST_CLUSTER_BYTES: u64 = 4096;
const LEAST_CLUSTERS: u64 = 65_525;
const COPIES: u64 = 2;
const ROOT_CLUSTER: u32 = 2;
/// In the reserved sectors: FSInfo, and the copy of the boot sector with its FSInfo behind it.
const INFO_SECTOR: u64 = 1;
const BACKUP_SECTOR: u64 = 6;
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// Writes an empty file system over all of `media`. What stood there before is gone for readers, though its clusters are not cleared.
pub fn format(media: &dyn Media, sector_bytes: u64, label: &[u8; 11], volume_id: u32) -> Result<()> {
    let sectors = media.len_bytes() / sector_bytes;
    let geometry = Geometry::of(sectors, sector_bytes).ok_or_else(|| {
        UpgradeError::Layout(format!("{} bytes are no size for a FAT32 ESP", media.len_bytes()))
    })?;
    let boot = geometry.boot_sector(label, volume_id);
    let info = geometry.info_sector();
    let data_at = geometry.reserved_sectors * sector_bytes + COPIES * geometry.table_sectors * sector_bytes;
    // Also the root directory's cluster.
    zero(media, 0, data_at + geometry.cluster_sectors * sector_bytes)?;
    let mut table = vec![0; sector_bytes as usize];
    // Media type, "clean", and the end of the root directory.
    for (i, word) in [0x0fff_fff8, END, END].into_iter().enumerate() {
        table[4 * i..][..4].copy_from_slice(&u32::to_le_bytes(word));
    }
    let mut volume = [0; entry::BYTES];
    volume[..11].copy_from_slice(label);
    volume[11] = entry::VOLUME_LABEL;
    let mut root = vec![0; sector_bytes as usize];
    root[..entry::BYTES].copy_from_slice(&volume);
    let mut writes = vec![(data_at, root)];
    for copy in 0..COPIES {
        let sector = geometry.reserved_sectors + copy * geometry.table_sectors;
        writes.push((sector * sector_bytes, table.clone()));
    }
    for sector in [BACKUP_SECTOR, 0] {
        writes.push(((sector + INFO_SECTOR) * sector_bytes, info.clone()));
        writes.push((sector * sector_bytes, boot.clone()));
    }
    for (at, bytes) in writes {
        media.write_at(at, &bytes).map_err(io)?;
    }
    media.flush().map_err(io)
}

/// Clears a range, in pieces.
pub(crate) fn zero(media: &dyn Media, at: u64, len: u64) -> Result<()> {
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(PIECE.len() as u64);
        media.write_at(at + done, &PIECE[..piece as usize]).map_err(io)?;
        done += piece;
    }
    Ok(())
}

struct Geometry {
    sector_bytes: u64,
    sectors: u32,
    cluster_sectors: u64,
    reserved_sectors: u64,
    table_sectors: u64,
    clusters: u64,
}

impl Geometry {
    fn of(sectors: u64, sector_bytes: u64) -> Option<Geometry> {
        let sectors = u32::try_from(sectors).ok()?;
        let reserved_sectors = RESERVED_BYTES / sector_bytes;
        let mut cluster_bytes = MOST_CLUSTER_BYTES;
        while cluster_bytes >= sector_bytes {
            let cluster_sectors = cluster_bytes / sector_bytes;
            let most = u64::from(sectors).checked_sub(reserved_sectors)? / cluster_sectors;
            // Whole 4 KiB, so that clusters are aligned as the partition is.
            let table_bytes = (4 * (most + 2)).next_multiple_of(4096);
            let table_sectors = table_bytes / sector_bytes;
            let data = u64::from(sectors).checked_sub(reserved_sectors + COPIES * table_sectors)?;
            let clusters = data / cluster_sectors;
            if clusters >= LEAST_CLUSTERS && table_bytes <= MAX_TABLE_BYTES {
                return Some(Geometry {
                    sector_bytes,
                    sectors,
                    cluster_sectors,
                    reserved_sectors,
                    table_sectors,
                    clusters,
                });
            }
            cluster_bytes /= 2;
        }
        None
    }

    fn boot_sector(&self, label: &[u8; 11], volume_id: u32) -> Vec<u8> {
        let mut b = vec![0; self.sector_bytes as usize];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"BASALT  ");
        put(11, &(self.sector_bytes as u16).to_le_bytes());
        put(13, &[self.cluster_sectors as u8]);
        put(14, &(self.reserved_sectors as u16).to_le_bytes());
        put(16, &[COPIES as u8]);
        // Media: a fixed disk; a geometry that nobody uses any more.
        put(21, &[0xf8]);
        put(24, &32u16.to_le_bytes());
        put(26, &8u16.to_le_bytes());
        put(32, &self.sectors.to_le_bytes());
        put(36, &(self.table_sectors as u32).to_le_bytes());
        put(44, &ROOT_CLUSTER.to_le_bytes());
        put(48, &(INFO_SECTOR as u16).to_le_bytes());
        put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
        put(64, &[0x80, 0, 0x29]);
        put(67, &volume_id.to_le_bytes());
        put(71, label);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        b
    }

    fn info_sector(&self) -> Vec<u8> {
        let mut b = vec![0; self.sector_bytes as usize];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RRaA");
        put(484, b"rrAa");
        put(488, &(self.clusters as u32 - 1).to_le_bytes());
        put(492, &(ROOT_CLUSTER + 1).to_le_bytes());
        put(508, &[0, 0, 0x55, 0xaa]);
        b
    }
}
