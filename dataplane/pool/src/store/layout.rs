//! Where things lie inside an allocation unit: rows of 511 data blocks and their checksum block, and the footer's
//! place at the end.
//!
//! *Physical* blocks count checksum blocks ([`crate::BlockAddr::block`] is physical); *linear* blocks do not.

use super::footer;
use crate::types::{Geometry, ROW_BYTES, ROW_DATA_BLOCKS, Scheme};
use basalt_bdev::BLOCK_BYTES;

/// Physical blocks of a row, its checksum block included.
pub(crate) const ROW_BLOCKS: u32 = (ROW_BYTES / BLOCK_BYTES) as u32;
/// Data (or parity) blocks of a row.
pub(crate) const ROW_DATA: u32 = ROW_DATA_BLOCKS as u32;
/// Tallest stripe: a unit of 128 KiB.
pub(crate) const UNIT_BLOCKS: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) k: u32,
    pub(crate) m: u32,
    rows: u32,
}

impl Layout {
    pub(crate) fn new(geometry: &Geometry, scheme: Scheme) -> Layout {
        Layout { k: scheme.k as u32, m: scheme.m as u32, rows: (geometry.au_bytes / ROW_BYTES) as u32 }
    }
    pub(crate) fn columns(&self) -> u32 {
        self.k + self.m
    }
    /// Data blocks of one column, footer included.
    pub(crate) fn column_blocks(&self) -> u32 {
        self.rows * ROW_DATA
    }
    /// Blocks of one column kept for the footer. Sized for the worst case, an entry per data block.
    pub(crate) fn footer_blocks(&self) -> u32 {
        let entries = (self.column_blocks() as usize * footer::ENTRY_BYTES).div_ceil(BLOCK_BYTES as usize);
        entries as u32 + 1
    }
    /// First linear block of the footer: data ends here.
    pub(crate) fn data_end(&self) -> u32 {
        self.column_blocks() - self.footer_blocks()
    }
    pub(crate) fn physical(linear: u32) -> u32 {
        linear / ROW_DATA * ROW_BLOCKS + linear % ROW_DATA
    }
    pub(crate) fn row_of(physical: u32) -> u32 {
        physical / ROW_BLOCKS
    }
    /// Physical block of a row's checksum block.
    pub(crate) fn checksum_block(row: u32) -> u32 {
        row * ROW_BLOCKS + ROW_DATA
    }
    /// Whether `blocks` data blocks from `physical` lie in the unit and in one row.
    pub(crate) fn holds_run(&self, physical: u32, blocks: u32) -> bool {
        let in_row = physical % ROW_BLOCKS;
        physical / ROW_BLOCKS < self.rows
            && blocks >= 1
            && in_row.checked_add(blocks).is_some_and(|end| end <= ROW_DATA)
    }
    /// Height of the next stripe at `linear`, for `blocks` data blocks still to be placed before `end`.
    pub(crate) fn stripe_height(&self, linear: u32, end: u32, blocks: usize) -> u32 {
        let wanted = blocks.div_ceil(self.k as usize).min(UNIT_BLOCKS as usize) as u32;
        wanted.min(ROW_DATA - linear % ROW_DATA).min(end - linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_unit_keeps_room_for_its_footer() {
        let g = Geometry { au_bytes: 2 << 20, chunk_bytes: 2 << 20 };
        let l = Layout::new(&g, Scheme { k: 4, m: 2 });
        assert_eq!(l.column_blocks(), 511);
        assert_eq!(l.footer_blocks(), 4);
        assert_eq!(l.data_end(), 507);
        // Header and an entry per data block fit.
        assert!(
            footer::encoded_bytes((l.data_end() * l.k) as usize) <= (l.footer_blocks() * l.k * 4096) as usize
        );
        assert_eq!(Layout::physical(511), 512);
        assert_eq!(Layout::checksum_block(1), 1023);
        assert!(l.holds_run(510, 1));
        assert!(!l.holds_run(510, 2));
        assert!(!l.holds_run(511, 1));
        assert!(!l.holds_run(512, 1));
        assert!(!l.holds_run(0, u32::MAX));
    }

    #[test]
    fn stripes_stop_at_rows_and_at_the_footer() {
        let g = Geometry { au_bytes: 4 << 20, chunk_bytes: 2 << 20 };
        let l = Layout::new(&g, Scheme { k: 4, m: 2 });
        assert_eq!(l.stripe_height(0, l.data_end(), 1), 1);
        assert_eq!(l.stripe_height(0, l.data_end(), 5), 2);
        assert_eq!(l.stripe_height(0, l.data_end(), 10_000), 32);
        assert_eq!(l.stripe_height(509, l.data_end(), 10_000), 2);
        assert_eq!(l.stripe_height(l.data_end() - 3, l.data_end(), 10_000), 3);
    }
}
