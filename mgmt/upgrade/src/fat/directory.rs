//! Reading directories.

use super::entry::{self, BYTES, Raw};
use super::{Fat, MAX_DIRECTORY_ENTRIES, damaged, io};
use crate::error::Result;

/// A file or a directory, and where its name stands.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub is_directory: bool,
    pub size_bytes: u32,
    pub(super) first_cluster: u32,
    pub(super) raw: Raw,
    /// Offsets on the media of all its entries, in the order of the directory; the short one is last.
    pub(super) places: Vec<u64>,
}

impl Entry {
    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
    pub(super) fn is_dot(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

/// One slot of a directory.
pub(super) struct Slot {
    pub(super) at: u64,
    pub(super) raw: Raw,
}

impl Fat<'_> {
    /// Every entry of the directory that begins at `cluster`.
    pub fn list(&self, cluster: u32) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut longs: Vec<Slot> = Vec::new();
        for slot in self.slots(cluster)? {
            match slot.raw {
                [0, ..] => break,
                [entry::FREE, ..] => longs.clear(),
                raw if raw[11] & 0x3f == entry::LONG_NAME => longs.push(slot),
                raw if raw[11] & entry::VOLUME_LABEL != 0 => longs.clear(),
                raw => {
                    let parts: Vec<Raw> = longs.iter().map(|s| s.raw).collect();
                    let long = entry::long_name(&parts, &raw);
                    let mut places: Vec<u64> = longs.drain(..).map(|s| s.at).collect();
                    if long.is_none() {
                        places.clear();
                    }
                    places.push(slot.at);
                    let half = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
                    entries.push(Entry {
                        name: long.unwrap_or_else(|| entry::short_name(&raw)),
                        is_directory: raw[11] & entry::DIRECTORY != 0,
                        size_bytes: super::word(&raw, 28),
                        first_cluster: half(20) << 16 | half(26),
                        raw,
                        places,
                    });
                }
            }
        }
        Ok(entries)
    }

    /// Every slot, those behind the end of the directory included.
    pub(super) fn slots(&self, cluster: u32) -> Result<Vec<Slot>> {
        let chain = self.chain(cluster)?;
        if chain.len() as u64 * self.cluster_bytes > (MAX_DIRECTORY_ENTRIES * BYTES) as u64 {
            return Err(damaged("a directory is too long"));
        }
        let mut slots = Vec::new();
        let mut bytes = vec![0; self.cluster_bytes as usize];
        for cluster in chain {
            let at = self.cluster_at(cluster);
            self.media.read_at(at, &mut bytes).map_err(io)?;
            slots.extend(bytes.chunks_exact(BYTES).enumerate().map(|(i, chunk)| {
                let mut raw = [0; BYTES];
                raw.copy_from_slice(chunk);
                Slot { at: at + (i * BYTES) as u64, raw }
            }));
        }
        Ok(slots)
    }
}
