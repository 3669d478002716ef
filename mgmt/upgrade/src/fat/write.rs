//! Changing the file system: every change becomes visible by one write of one sector.

use super::directory::{Entry, Slot};
use super::entry::{self, BYTES, Raw};
use super::{END, Fat, damaged, io};
use crate::error::{Result, UpgradeError};
use std::collections::BTreeSet;

/// Data of neighbouring clusters is written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

impl Fat<'_> {
    /// Makes a file of `size_bytes`; `read(offset, buffer)` gives its contents, and gives them again to compare what the drive
    /// kept. The file is there when this returns, or not at all.
    pub fn create(
        &mut self,
        directory: u32,
        name: &str,
        size_bytes: u32,
        read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let clusters = self.find_free(u64::from(size_bytes).div_ceil(self.cluster_bytes))?;
        let entries = self.list(directory)?;
        if entries.iter().any(|e| e.is_named(name)) {
            return Err(damaged("a file of that name is there already"));
        }
        let alias = self.alias(directory, name)?;
        self.set_free_count(None)?;
        self.write_data(&clusters, u64::from(size_bytes), read)?;
        let links: Vec<(u32, u32)> = clusters
            .iter()
            .enumerate()
            .map(|(i, c)| (*c, clusters.get(i + 1).copied().unwrap_or(END)))
            .collect();
        self.set_table(&links)?;
        if let Err(e) = self.compare_data(&clusters, u64::from(size_bytes), read) {
            self.free(&clusters)?;
            return Err(e);
        }
        let first = clusters.first().copied().unwrap_or(0);
        self.add_name(directory, &entry::set(name, entry::short(alias, first, size_bytes)))?;
        self.set_free_count(Some(()))
    }

    /// Makes an empty directory; its first cluster.
    pub fn make_directory(&mut self, parent: u32, name: &str) -> Result<u32> {
        if self.list(parent)?.iter().any(|e| e.is_named(name)) {
            return Err(damaged("a directory of that name is there already"));
        }
        let alias = self.alias(parent, name)?;
        let cluster = self.find_free(1)?[0];
        self.set_free_count(None)?;
        let mut bytes = vec![0; self.cluster_bytes as usize];
        // The root is called 0 from below.
        let above = if parent == self.root_cluster { 0 } else { parent };
        for (i, (dots, to)) in [(b".          ", cluster), (b"..         ", above)].into_iter().enumerate() {
            bytes[i * BYTES..][..BYTES].copy_from_slice(&entry::directory(*dots, to));
        }
        self.media.write_at(self.cluster_at(cluster), &bytes).map_err(io)?;
        self.media.flush().map_err(io)?;
        self.set_table(&[(cluster, END)])?;
        self.add_name(parent, &entry::set(name, entry::directory(alias, cluster)))?;
        self.set_free_count(Some(()))?;
        Ok(cluster)
    }

    /// Removes a file: first its name, then its clusters.
    pub fn remove(&mut self, entry: &Entry) -> Result<()> {
        let chain = self.chain(entry.first_cluster)?;
        self.drop_name(entry)?;
        self.free(&chain)
    }

    /// Gives a file another name in the same directory: one sector where the old name lies in one, else both names are there for a
    /// moment.
    pub fn rename(&mut self, directory: u32, entry: &Entry, name: &str) -> Result<()> {
        let same_name = |e: &Entry| e.is_named(name) && e.places != entry.places;
        if self.list(directory)?.iter().any(same_name) {
            return Err(damaged("a file of the new name is there already"));
        }
        let set = entry::set(name, entry.raw);
        let sector = entry.places[0] / self.sector_bytes;
        let spare = entry.places.len().checked_sub(set.len());
        let in_one = entry.places.iter().all(|p| p / self.sector_bytes == sector);
        if let (Some(spare), true) = (spare, in_one) {
            let dropped = vec![[entry::FREE; BYTES]; spare];
            let changes: Vec<(u64, Raw)> =
                entry.places.iter().copied().zip(dropped.into_iter().chain(set)).collect();
            return self.write_slots(&changes);
        }
        let mut raw = entry.raw;
        raw[..11].copy_from_slice(&self.alias(directory, name)?);
        self.add_name(directory, &entry::set(name, raw))?;
        self.drop_name(entry)
    }

    /// Marks the entries of a name free, the short one (which makes it a file) first.
    pub(super) fn drop_name(&self, entry: &Entry) -> Result<()> {
        let mut places = entry.places.clone();
        places.reverse();
        for of_sector in places.chunk_by(|a, b| a / self.sector_bytes == b / self.sector_bytes) {
            let changes: Vec<(u64, Raw)> =
                of_sector.iter().map(|at| Ok((*at, free_of(&self.slot(*at)?)))).collect::<Result<_>>()?;
            self.write_slots(&changes)?;
        }
        Ok(())
    }

    pub(super) fn free(&mut self, clusters: &[u32]) -> Result<()> {
        if clusters.is_empty() {
            return Ok(());
        }
        self.set_free_count(None)?;
        let links: Vec<(u32, u32)> = clusters.iter().map(|c| (*c, 0)).collect();
        self.set_table(&links)?;
        self.cursor = 2;
        self.set_free_count(Some(()))
    }

    fn find_free(&mut self, count: u64) -> Result<Vec<u32>> {
        let free = self.free_bytes();
        // A directory may have to grow by a cluster.
        if free / self.cluster_bytes < count + 1 {
            return Err(UpgradeError::EspFull { need: (count + 1) * self.cluster_bytes, free });
        }
        let mut found = Vec::with_capacity(count as usize);
        while (found.len() as u64) < count && self.cursor < self.table.len() {
            if self.table[self.cursor] & END == 0 {
                found.push(self.cursor as u32);
            }
            self.cursor += 1;
        }
        if (found.len() as u64) < count {
            self.cursor = 2;
            return self.find_free(count);
        }
        Ok(found)
    }

    fn write_data(
        &mut self,
        clusters: &[u32],
        size_bytes: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut offset = 0;
        for run in self.runs(clusters) {
            let mut piece = vec![0; run.len() * self.cluster_bytes as usize];
            let len = (size_bytes - offset).min(piece.len() as u64);
            read(offset, &mut piece[..len as usize])?;
            self.media.write_at(self.cluster_at(run[0]), &piece).map_err(io)?;
            offset += len;
        }
        self.media.flush().map_err(io)
    }

    fn compare_data(
        &self,
        clusters: &[u32],
        size_bytes: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.media.drop_caches().map_err(io)?;
        let mut offset = 0;
        for run in self.runs(clusters) {
            let len = (size_bytes - offset).min(run.len() as u64 * self.cluster_bytes) as usize;
            let (mut wanted, mut found) = (vec![0; len], vec![0; len]);
            read(offset, &mut wanted)?;
            self.media.read_at(self.cluster_at(run[0]), &mut found).map_err(io)?;
            if let Some(at) = wanted.iter().zip(&found).position(|(a, b)| a != b) {
                return Err(UpgradeError::ReadBack {
                    what: "the kernel image".into(),
                    at: offset + at as u64,
                });
            }
            offset += len as u64;
        }
        Ok(())
    }

    /// Neighbouring clusters together, at most [`PIECE_BYTES`] of them.
    fn runs<'a>(&self, clusters: &'a [u32]) -> impl Iterator<Item = &'a [u32]> + use<'a> {
        let most = (PIECE_BYTES / self.cluster_bytes as usize).max(1);
        clusters.chunk_by(|a, b| a + 1 == *b).flat_map(move |run| run.chunks(most))
    }

    /// Changes entries of the allocation table, in memory and in every copy, sector by sector, and flushes.
    fn set_table(&mut self, links: &[(u32, u32)]) -> Result<()> {
        let per_sector = self.sector_bytes / 4;
        let mut sectors = BTreeSet::new();
        for (cluster, next) in links {
            let slot = self
                .table
                .get_mut(*cluster as usize)
                .ok_or_else(|| damaged("a cluster number is out of range"))?;
            *slot = *slot & !END | next;
            sectors.insert(u64::from(*cluster) / per_sector);
        }
        for copy in 0..self.table_copies {
            for sector in &sectors {
                let at = (sector * per_sector) as usize;
                let mut bytes = vec![0; self.sector_bytes as usize];
                let words = self.table[at..].iter().take(per_sector as usize);
                words.zip(bytes.chunks_exact_mut(4)).for_each(|(w, b)| b.copy_from_slice(&w.to_le_bytes()));
                let offset = self.table_at + copy * self.table_bytes + sector * self.sector_bytes;
                self.media.write_at(offset, &bytes).map_err(io)?;
            }
        }
        self.media.flush().map_err(io)
    }

    /// The count of free clusters is a hint; it says "unknown" while something changes.
    fn set_free_count(&mut self, known: Option<()>) -> Result<()> {
        let Some(at) = self.info_at else { return Ok(()) };
        let mut sector = vec![0; self.sector_bytes as usize];
        self.media.read_at(at, &mut sector).map_err(io)?;
        if sector[..4] != *b"RRaA" {
            return Ok(());
        }
        let count = known.map_or(u32::MAX, |()| (self.free_bytes() / self.cluster_bytes) as u32);
        if sector[488..492] == count.to_le_bytes() {
            return Ok(());
        }
        sector[488..492].copy_from_slice(&count.to_le_bytes());
        self.media.write_at(at, &sector).map_err(io)?;
        self.media.flush().map_err(io)
    }

    /// An 8.3 name that no other entry of the directory has: the name itself where it is one, else one that nobody ever sees.
    fn alias(&self, directory: u32, name: &str) -> Result<[u8; 11]> {
        let taken: BTreeSet<[u8; 11]> =
            self.slots(directory)?.iter().map(|s| std::array::from_fn(|i| s.raw[i])).collect();
        let invented = (0..100_000u32).filter_map(|n| format!("BSLT~{n:<3}EFI").into_bytes().try_into().ok());
        entry::as_short(name)
            .into_iter()
            .chain(invented)
            .find(|a| !taken.contains(a))
            .ok_or_else(|| damaged("a directory is full"))
    }

    /// Puts a name into a directory so that it appears by one write.
    fn add_name(&mut self, directory: u32, set: &[Raw]) -> Result<()> {
        let per_sector = self.sector_bytes as usize / BYTES;
        if set.len() > per_sector {
            return Err(damaged("a name is too long for one sector"));
        }
        let slots = self.slots(directory)?;
        let end = slots.iter().position(|s| s.raw[0] == 0).unwrap_or(slots.len());
        let is_free = |i: usize| i >= end || slots[i].raw[0] == entry::FREE;
        let fits = |i: &usize| i % per_sector + set.len() <= per_sector && (*i..i + set.len()).all(is_free);
        // The end mark must stay where it is or move within the sector that is written.
        let visible = |i: &usize| *i <= end && i + set.len() <= slots.len();
        if let Some(i) = (0..slots.len()).filter(visible).find(fits) {
            return self.put(&slots, i, set, end);
        }
        if end == slots.len() {
            return self.grow(directory, set);
        }
        let next_sector = end.next_multiple_of(per_sector);
        if next_sector == slots.len() {
            // Grown first: what lies behind the end mark is not looked at.
            self.grow(directory, set)?;
        } else {
            self.put(&slots, next_sector, set, next_sector)?;
        }
        // Now the end mark goes, and the name behind it appears.
        let changes: Vec<(u64, Raw)> =
            slots[end..next_sector].iter().map(|s| (s.at, free_of(&s.raw))).collect();
        self.write_slots(&changes)
    }

    /// Writes `set` at slot `i`. Where that moves the end mark, what stands behind it becomes 0 before or with it.
    fn put(&self, slots: &[Slot], i: usize, set: &[Raw], end: usize) -> Result<()> {
        let after = i + set.len();
        let mut changes: Vec<(u64, Raw)> =
            slots[i..after].iter().map(|s| s.at).zip(set.iter().copied()).collect();
        if after > end && after < slots.len() && slots[after].raw[0] != 0 {
            match slots[after].at / self.sector_bytes == slots[i].at / self.sector_bytes {
                true => changes.push((slots[after].at, [0; BYTES])),
                false => self.write_slots(&[(slots[after].at, [0; BYTES])])?,
            }
        }
        self.write_slots(&changes)
    }

    /// Adds a cluster with `set` at its beginning to a directory.
    fn grow(&mut self, directory: u32, set: &[Raw]) -> Result<()> {
        let last = *self.chain(directory)?.last().ok_or_else(|| damaged("a directory has no clusters"))?;
        let cluster = self.find_free(1)?[0];
        let mut bytes = vec![0; self.cluster_bytes as usize];
        bytes[..set.len() * BYTES].copy_from_slice(&set.concat());
        self.media.write_at(self.cluster_at(cluster), &bytes).map_err(io)?;
        self.media.flush().map_err(io)?;
        self.set_table(&[(cluster, END)])?;
        self.set_table(&[(last, cluster)])
    }

    fn slot(&self, at: u64) -> Result<Raw> {
        let mut raw = [0; BYTES];
        self.media.read_at(at, &mut raw).map_err(io)?;
        Ok(raw)
    }

    /// Changes slots of one sector by one write, and flushes.
    fn write_slots(&self, changes: &[(u64, Raw)]) -> Result<()> {
        let Some((first, _)) = changes.first() else { return Ok(()) };
        let at = first / self.sector_bytes * self.sector_bytes;
        let mut sector = vec![0; self.sector_bytes as usize];
        self.media.read_at(at, &mut sector).map_err(io)?;
        for (place, raw) in changes {
            let within = place.checked_sub(at).filter(|w| *w < self.sector_bytes);
            let within = within.ok_or_else(|| damaged("a change of a directory crosses a sector"))? as usize;
            sector[within..within + BYTES].copy_from_slice(raw);
        }
        self.media.write_at(at, &sector).map_err(io)?;
        self.media.flush().map_err(io)
    }
}

/// The entry, marked free; the rest is kept, as every other implementation does.
fn free_of(raw: &Raw) -> Raw {
    let mut raw = *raw;
    raw[0] = entry::FREE;
    raw
}
