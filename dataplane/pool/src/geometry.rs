//! Where everything lies on a drive, and how the sizes of a pool follow from its drives.
//!
//! ```text
//! 0         label copies 0 and 1 (64 KiB apart)
//! 1 MiB     root claim block
//! 2 MiB     root area 0, root area 1
//! ...       journal area: slots of chunk_bytes, prewritten
//! ...       allocation units of au_bytes
//! end-1 MiB label copies 2 and 3 (64 KiB apart)
//! ```
//! Offsets up to the first allocation unit are the same on all drives of a pool, so that an (index, number) pair is an
//! address everywhere.

use crate::types::*;

pub(crate) const MIB: u64 = 1 << 20;
/// What may be written before the root areas: labels, and at creation zeroes over what was there.
pub(crate) const HEAD_BYTES: u64 = MIB;
/// Kept free of units at the end of a drive, for label copies.
pub(crate) const TAIL_BYTES: u64 = MIB;
pub(crate) const LABEL_SPACING_BYTES: u64 = 64 << 10;
pub(crate) const CLAIM_OFFSET: u64 = MIB;
const ROOT_AREAS_OFFSET: u64 = 2 * MIB;

/// The least drive a pool takes: below it there is no room for a useful journal beside the root areas.
pub const MIN_DRIVE_BYTES: u64 = 256 * MIB;
/// A pool strives for this many segments, so that one is a thousandth of the space and reserves stay small.
const SEGMENTS_WANTED: u64 = 1000;
const MAX_AU_BYTES: u64 = 1 << 30;
const MIN_CHUNK_BYTES: u64 = 2 * MIB;
const MAX_CHUNK_BYTES: u64 = 64 * MIB;
/// Chunk slots a drive is to have before chunks grow: two file systems of 16 shards with 4 chunks of 3 mirrors on six drives.
const SLOTS_WANTED: u64 = 64;
const MAX_JOURNAL_BYTES: u64 = 8 << 30;
/// Room in a root area beside the segment table: all of the key-value area (16 MiB) and the log.
const ROOT_AREA_BASE_BYTES: u64 = 18 * MIB;
/// More than the longest segment record.
const ROOT_BYTES_PER_SEGMENT: u64 = 512;

/// Addresses on one drive. The same for all drives of a pool, but for the number of units and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    pub(crate) size_bytes: u64,
    pub(crate) root_area_offset: [u64; 2],
    pub(crate) root_area_bytes: u64,
    pub(crate) journal_offset: u64,
    pub(crate) journal_slots: u32,
    pub(crate) au_offset: u64,
    pub(crate) au_count: u32,
}

impl Layout {
    pub(crate) fn label_offsets(size_bytes: u64) -> [u64; 4] {
        let end = size_bytes / 4096 * 4096;
        let tail = end.saturating_sub(TAIL_BYTES);
        [0, LABEL_SPACING_BYTES, tail, tail + LABEL_SPACING_BYTES]
    }

    /// Addresses must not overlap and must lie on the drive; what a label says is checked with this.
    pub(crate) fn is_sound(&self) -> bool {
        let g = &self.geometry;
        let aligned = |v: u64| v.is_multiple_of(4096);
        let units_end =
            (self.au_count as u64).checked_mul(g.au_bytes).and_then(|b| b.checked_add(self.au_offset));
        let slots_end = (self.journal_slots as u64)
            .checked_mul(g.chunk_bytes)
            .and_then(|b| b.checked_add(self.journal_offset));
        let area_end = |i: usize| self.root_area_offset[i].checked_add(self.root_area_bytes);
        g.au_bytes >= ROW_BYTES
            && g.au_bytes.is_multiple_of(ROW_BYTES)
            && g.au_bytes <= MAX_AU_BYTES
            && (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&g.chunk_bytes)
            && aligned(g.chunk_bytes)
            && aligned(self.root_area_offset[0])
            && aligned(self.root_area_bytes)
            && aligned(self.journal_offset)
            && aligned(self.au_offset)
            && self.root_area_bytes >= MIB
            && self.root_area_offset[0] > CLAIM_OFFSET
            && area_end(0) == Some(self.root_area_offset[1])
            && area_end(1).is_some_and(|e| e <= self.journal_offset)
            && slots_end.is_some_and(|e| e <= self.au_offset)
            && units_end.is_some_and(|e| e <= self.size_bytes.saturating_sub(TAIL_BYTES))
    }
}

fn floor_power_of_two(v: u64) -> u64 {
    if v == 0 { 0 } else { 1 << v.ilog2() }
}

/// Layouts for drives of these sizes (each at least [`MIN_DRIVE_BYTES`]) under `scheme`; the smallest drive decides
/// what must be equal everywhere.
pub(crate) fn layouts(sizes: &[u64], scheme: Scheme) -> Vec<Layout> {
    let smallest = sizes.iter().copied().min().unwrap_or(0);
    // Prewritten at creation, so it must stay a small part of a large drive.
    let journal_wanted = (smallest / 16).min(128 * MIB).max((smallest / 256).min(MAX_JOURNAL_BYTES));
    let chunk_bytes =
        floor_power_of_two(journal_wanted / SLOTS_WANTED).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
    let journal_slots = journal_wanted / chunk_bytes;

    let total: u64 = sizes.iter().sum();
    let au_bytes = floor_power_of_two(total / (scheme.width().max(1) as u64 * SEGMENTS_WANTED))
        .clamp(ROW_BYTES, MAX_AU_BYTES);

    let segments_at_most = total / (au_bytes * scheme.width().max(1) as u64);
    let root_area_bytes =
        (ROOT_AREA_BASE_BYTES + segments_at_most * ROOT_BYTES_PER_SEGMENT).next_multiple_of(MIB);
    let journal_offset = (ROOT_AREAS_OFFSET + 2 * root_area_bytes).next_multiple_of(ROW_BYTES);
    let au_offset = (journal_offset + journal_slots * chunk_bytes).next_multiple_of(ROW_BYTES);
    let layout_of = |&size_bytes: &u64| Layout {
        geometry: Geometry { au_bytes, chunk_bytes },
        size_bytes,
        root_area_offset: [ROOT_AREAS_OFFSET, ROOT_AREAS_OFFSET + root_area_bytes],
        root_area_bytes,
        journal_offset,
        journal_slots: journal_slots as u32,
        au_offset,
        au_count: (size_bytes.saturating_sub(TAIL_BYTES).saturating_sub(au_offset) / au_bytes) as u32,
    };
    sizes.iter().map(layout_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn six_small_drives() {
        let l = layouts(&[2 * GIB; 6], Scheme { k: 4, m: 2 });
        assert_eq!(l[0].geometry, Geometry { au_bytes: 2 * MIB, chunk_bytes: 2 * MIB });
        assert_eq!(l[0].journal_slots, 64);
        assert!(l[0].au_count > 930, "{}", l[0].au_count);
    }

    #[test]
    fn layouts_of_all_sizes_are_sound_and_keep_their_promises() {
        for scheme in
            [Scheme { k: 1, m: 0 }, Scheme { k: 4, m: 2 }, Scheme { k: 8, m: 2 }, Scheme { k: 20, m: 4 }]
        {
            for shift in 28..47 {
                for extra in [0, 4096, 512, 12345 * 4096] {
                    let size = (1u64 << shift) + extra;
                    let sizes = vec![size; scheme.width().max(3)];
                    let all = layouts(&sizes, scheme);
                    let l = all[0];
                    assert!(l.is_sound(), "{scheme} {size}: {l:?}");
                    assert!(l.au_count >= 90, "{scheme} {size}: {l:?}");
                    if (4 * GIB..512 * GIB).contains(&size) {
                        let segments = l.au_count as usize * sizes.len() / scheme.width();
                        assert!(segments >= 900, "{scheme} {size}: {segments}");
                    }
                }
            }
        }
    }
}
