//! FAT32 of the ESP, read and written without mounting it (Microsoft's FAT specification 1.03).
//!
//! Why not the kernel's vfat: a rename there is two writes in an order that the page cache picks, and a power cut between them can
//! lose both names. Here every change of a directory is **one sector**, which a drive writes whole or not at all, and it comes
//! after a flush of everything it refers to. A file is there complete or not at all, and so is a rename. What a power cut can
//! leave behind are clusters that no name refers to, and two names for one file where a name written by others lies across
//! two sectors; [`Fat::sweep`] clears both away.

mod directory;
mod entry;
mod format;
mod write;

pub use directory::Entry;
pub use format::format;
pub(crate) use format::zero;

use crate::error::{Result, UpgradeError};
use crate::media::Media;
use std::collections::BTreeMap;

/// Allocation table of an ESP of 16 GiB with clusters of 512 bytes; ours has 1 MiB.
const MAX_TABLE_BYTES: u64 = 128 << 20;
const MAX_DIRECTORY_ENTRIES: usize = 4096;
const MAX_DEPTH: usize = 8;
const END: u32 = 0x0fff_ffff;
const FIRST_END: u32 = 0x0fff_fff8;
const BAD: u32 = 0x0fff_fff7;

/// An open FAT32 file system. The allocation table is in memory; writes go through to the media.
pub struct Fat<'m> {
    media: &'m dyn Media,
    sector_bytes: u64,
    cluster_bytes: u64,
    table_at: u64,
    table_bytes: u64,
    table_copies: u64,
    data_at: u64,
    info_at: Option<u64>,
    root_cluster: u32,
    table: Vec<u32>,
    /// Where to look for the next free cluster.
    cursor: usize,
}

impl<'m> Fat<'m> {
    pub fn open(media: &'m dyn Media) -> Result<Fat<'m>> {
        let mut boot = [0; 512];
        media.read_at(0, &mut boot).map_err(io)?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u64::from(word(&boot, at));
        let sector_bytes = u16_at(11);
        let (cluster_sectors, reserved, table_copies) =
            (u64::from(boot[13]), u16_at(14), u64::from(boot[16]));
        let (total, table_sectors) = (u32_at(32), u32_at(36));
        let sane = boot[510..] == [0x55, 0xaa]
            && [512, 1024, 2048, 4096].contains(&sector_bytes)
            && cluster_sectors.is_power_of_two()
            && (1..=2).contains(&table_copies)
            && reserved > 0
            && u16_at(17) == 0
            && u16_at(22) == 0
            && u16_at(40) & 0x80 == 0
            && u16_at(42) == 0
            && total * sector_bytes <= media.len_bytes();
        let data_sector = reserved + table_copies * table_sectors;
        let clusters = total.saturating_sub(data_sector) / cluster_sectors.max(1);
        let table_bytes = table_sectors * sector_bytes;
        if !sane || table_bytes > MAX_TABLE_BYTES || table_bytes / 4 < clusters + 2 || clusters < 65_525 {
            return Err(damaged("there is no FAT32 on it that this version can write"));
        }
        let mut raw = vec![0; ((clusters + 2) * 4) as usize];
        media.read_at(reserved * sector_bytes, &mut raw).map_err(io)?;
        let info = u16_at(48);
        let fat = Fat {
            media,
            sector_bytes,
            cluster_bytes: cluster_sectors * sector_bytes,
            table_at: reserved * sector_bytes,
            table_bytes,
            table_copies,
            data_at: data_sector * sector_bytes,
            info_at: (1..reserved).contains(&info).then_some(info * sector_bytes),
            root_cluster: word(&boot, 44),
            table: (0..raw.len() / 4).map(|i| word(&raw, 4 * i)).collect(),
            cursor: 2,
        };
        fat.chain(fat.root_cluster)?;
        Ok(fat)
    }

    pub fn free_bytes(&self) -> u64 {
        self.table[2..].iter().filter(|e| *e & END == 0).count() as u64 * self.cluster_bytes
    }

    /// First cluster of a directory named from the root, such as `EFI/Linux`.
    pub fn directory(&self, path: &str) -> Result<u32> {
        let mut cluster = self.root_cluster;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let found = self.list(cluster)?.into_iter().find(|e| e.is_directory && e.is_named(name));
            cluster = found
                .ok_or_else(|| {
                    UpgradeError::Layout(format!(
                        "the ESP has no directory /{path}; set it up with the installer"
                    ))
                })?
                .first_cluster;
        }
        Ok(cluster)
    }

    /// Reads part of a file.
    pub fn read_file(&self, entry: &Entry, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset + buf.len() as u64 > u64::from(entry.size_bytes) {
            return Err(damaged("a file is shorter than it should be"));
        }
        let chain = self.chain(entry.first_cluster)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let cluster = *chain
                .get((at / self.cluster_bytes) as usize)
                .ok_or_else(|| damaged("a file's clusters end early"))?;
            let within = at % self.cluster_bytes;
            let len = (self.cluster_bytes - within).min((buf.len() - done) as u64) as usize;
            self.media.read_at(self.cluster_at(cluster) + within, &mut buf[done..done + len]).map_err(io)?;
            done += len;
        }
        Ok(())
    }

    /// Frees clusters that nothing refers to, and drops the second of two names for one file: what a power cut leaves. `drop_first`
    /// says which of two names goes first. Returns how many clusters came free.
    pub fn sweep(&mut self, drop_first: &dyn Fn(&str, &str) -> bool) -> Result<usize> {
        let mut owned = vec![false; self.table.len()];
        let mut files: BTreeMap<u32, Entry> = BTreeMap::new();
        let mut doubled = Vec::new();
        let mut directories = vec![(self.root_cluster, 0)];
        self.own(self.root_cluster, &mut owned)?;
        while let Some((directory, depth)) = directories.pop() {
            for entry in self.list(directory)? {
                if entry.first_cluster == 0 || entry.is_dot() {
                    continue;
                }
                if let Some(other) = files.get(&entry.first_cluster) {
                    let loser = if drop_first(&entry.name, &other.name) { &entry } else { other };
                    doubled.push(loser.clone());
                    continue;
                }
                self.own(entry.first_cluster, &mut owned)?;
                if entry.is_directory {
                    if depth == MAX_DEPTH {
                        return Err(damaged("its directories are nested too deeply"));
                    }
                    directories.push((entry.first_cluster, depth + 1));
                } else {
                    files.insert(entry.first_cluster, entry);
                }
            }
        }
        for entry in &doubled {
            self.drop_name(entry)?;
        }
        let used = |e: u32| e & END != 0 && e & END != BAD;
        let lost: Vec<u32> =
            (2..self.table.len()).filter(|i| used(self.table[*i]) && !owned[*i]).map(|i| i as u32).collect();
        self.free(&lost)?;
        Ok(lost.len())
    }

    fn own(&self, first: u32, owned: &mut [bool]) -> Result<()> {
        for cluster in self.chain(first)? {
            if std::mem::replace(&mut owned[cluster as usize], true) {
                return Err(damaged("two files share a cluster"));
            }
        }
        Ok(())
    }

    /// All clusters from `first` on; none for an empty file.
    fn chain(&self, first: u32) -> Result<Vec<u32>> {
        let mut chain = Vec::new();
        let mut at = first;
        while at != 0 && at < FIRST_END {
            let next = *self
                .table
                .get(at as usize)
                .filter(|_| at >= 2)
                .ok_or_else(|| damaged("a cluster number is out of range"))?;
            chain.push(at);
            if chain.len() > self.table.len() {
                return Err(damaged("the clusters of a file go round in a circle"));
            }
            at = next & END;
            if at == 0 || at == BAD {
                return Err(damaged("the clusters of a file end in nothing"));
            }
        }
        Ok(chain)
    }

    fn cluster_at(&self, cluster: u32) -> u64 {
        self.data_at + u64::from(cluster - 2) * self.cluster_bytes
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
fn damaged(why: &str) -> UpgradeError {
    UpgradeError::Fat(why.into())
}
fn io(e: std::io::Error) -> UpgradeError {
    UpgradeError::io("the ESP")(e)
}
