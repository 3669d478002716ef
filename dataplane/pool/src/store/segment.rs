//! One segment as its shard sees it: what is allocated, what lives, which rows still keep their checksums in memory.
//!
//! A row's checksums stay in memory (and in checkpoints) until its checksum blocks are durable on every column. Rows leave
//! memory in order, so one number says which rows are *clean*: all below [`SegmentState::clean_rows`].

use super::checksum::RowSums;
use super::footer::FooterEntry;
use super::layout::{Layout, ROW_DATA};
use super::stripe::StripeRecord;
use crate::types::{Geometry, Lsn, SegmentEntry};
use basalt_erasure::Codec;
use basalt_reactor::sync::Notify;
use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A row with checksums in memory.
pub(crate) struct OpenRow {
    pub(crate) sums: RowSums,
    /// Its checksum blocks are on media; it waits for the rows before it.
    pub(crate) on_media: bool,
}

/// What happens to a segment, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes stripes.
    Open,
    /// Takes no more; footer and last checksum blocks are still to be written. `footer`: it filled up normally.
    Closing {
        footer: bool,
    },
    Sealed,
    /// Given back, or being given back.
    Freeing,
}

impl SegmentState {
    /// No stripe is being written.
    pub(crate) fn quiet(&self) -> bool {
        self.in_flight.is_empty()
    }
}

/// When the last live block went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) lsn: Lsn,
    /// Reads pinned before this number may still look.
    pub(crate) pin: u64,
}

pub(crate) struct SegmentState {
    pub(crate) phase: Phase,
    /// Data blocks referenced, exactly as the journal says.
    pub(crate) live: u64,
    pub(crate) death: Death,
    /// Next linear block.
    next: u32,
    /// Stripes being written, per row.
    in_flight: BTreeMap<u32, u32>,
    /// Stripe records handed out and not yet dropped.
    tokens: u32,
    pub(crate) rows: BTreeMap<u32, OpenRow>,
    /// Rows before this have their checksum blocks on media.
    pub(crate) clean_rows: u32,
    pub(crate) footer: Vec<FooterEntry>,
    /// The tidying task works on it.
    pub(crate) tidying: bool,
}

pub(crate) struct Segment {
    pub(crate) entry: SegmentEntry,
    pub(crate) layout: Layout,
    pub(crate) codec: Codec,
    state: RefCell<SegmentState>,
    /// Rung when a stripe of this segment ends or a record of it is dropped: there may be something to tidy.
    bell: Rc<Notify>,
}

impl Segment {
    pub(crate) fn new(entry: SegmentEntry, geometry: &Geometry, phase: Phase, bell: Rc<Notify>) -> Segment {
        let layout = Layout::new(geometry, entry.scheme);
        let codec = Codec::new(entry.scheme.k as usize, entry.scheme.m as usize);
        let state = SegmentState {
            phase,
            live: 0,
            death: Death { lsn: Lsn(0), pin: 0 },
            next: 0,
            in_flight: BTreeMap::new(),
            tokens: 0,
            rows: BTreeMap::new(),
            clean_rows: 0,
            footer: Vec::new(),
            tidying: false,
        };
        Segment { entry, layout, codec, state: RefCell::new(state), bell }
    }
    pub(crate) fn state(&self) -> Ref<'_, SegmentState> {
        self.state.borrow()
    }
    pub(crate) fn state_mut(&self) -> RefMut<'_, SegmentState> {
        self.state.borrow_mut()
    }

    /// Room for the next stripe of up to `blocks` data blocks; `None` when the segment takes no more.
    pub(crate) fn allocate(self: &Rc<Segment>, blocks: usize) -> Option<Slot> {
        let slot = {
            let mut s = self.state.borrow_mut();
            if s.phase != Phase::Open || s.next >= self.layout.data_end() {
                return None;
            }
            let linear = s.next;
            let height = self.layout.stripe_height(linear, self.layout.data_end(), blocks);
            self.take(&mut s, linear, height)
        };
        if slot.linear + slot.height == self.layout.data_end() {
            self.close(true);
        }
        Some(slot)
    }
    /// Room for a stripe of the footer, past the end of data.
    pub(crate) fn allocate_footer(self: &Rc<Segment>, blocks: usize) -> Option<Slot> {
        let mut s = self.state.borrow_mut();
        let linear = s.next.max(self.layout.data_end());
        if linear >= self.layout.column_blocks() {
            return None;
        }
        let height = self.layout.stripe_height(linear, self.layout.column_blocks(), blocks);
        Some(self.take(&mut s, linear, height))
    }
    fn take(self: &Rc<Segment>, s: &mut SegmentState, linear: u32, height: u32) -> Slot {
        s.next = linear + height;
        let row = linear / ROW_DATA;
        *s.in_flight.entry(row).or_insert(0) += 1;
        let columns = self.layout.columns();
        s.rows.entry(row).or_insert_with(|| OpenRow { sums: RowSums::new(columns), on_media: false });
        Slot { segment: self.clone(), linear, height, row }
    }
    /// No stripe will be added after this.
    pub(crate) fn close(&self, footer: bool) {
        let mut s = self.state.borrow_mut();
        match s.phase {
            Phase::Open => s.phase = Phase::Closing { footer },
            Phase::Closing { footer: true } if !footer => s.phase = Phase::Closing { footer: false },
            _ => return,
        }
        self.bell.notify_all();
    }

    /// Takes a stripe's checksums into its row unless the row is known to be on media.
    pub(crate) fn set_sums(&self, stripe: &StripeRecord) {
        let mut s = self.state.borrow_mut();
        let row = Layout::row_of(stripe.block);
        if row < s.clean_rows {
            return;
        }
        let columns = self.layout.columns();
        let open =
            s.rows.entry(row).or_insert_with(|| OpenRow { sums: RowSums::new(columns), on_media: false });
        if !open.on_media {
            open.sums.set_stripe(stripe.block % super::layout::ROW_BLOCKS, stripe.height, &stripe.crcs);
        }
    }

    /// Rows that will not change any more and are not on media yet.
    pub(crate) fn finished_rows(&self) -> Vec<u32> {
        let s = self.state.borrow();
        let current = s.next / ROW_DATA;
        let open = s.phase == Phase::Open || matches!(s.phase, Phase::Closing { footer: true });
        let finished = s
            .rows
            .iter()
            .filter(|(row, r)| !r.on_media && !s.in_flight.contains_key(row) && (**row < current || !open));
        finished.map(|(row, _)| *row).collect()
    }
    /// Whether there is something to tidy now.
    pub(crate) fn has_work(&self) -> bool {
        let closing = {
            let s = self.state.borrow();
            matches!(s.phase, Phase::Closing { .. }) && s.quiet()
        };
        closing || !self.finished_rows().is_empty()
    }
    /// The row's checksum blocks are durable on every column there is.
    pub(crate) fn row_on_media(&self, row: u32) {
        let mut s = self.state.borrow_mut();
        if let Some(r) = s.rows.get_mut(&row) {
            r.on_media = true;
        }
        while let Some((row, r)) = s.rows.first_key_value()
            && r.on_media
        {
            let row = *row;
            s.rows.remove(&row);
            s.clean_rows = s.clean_rows.max(row + 1);
        }
    }
    /// Whether nothing refers to it or can come to: only time (durability, pins) stands between it and the root.
    pub(crate) fn is_dead(&self) -> bool {
        let s = self.state.borrow();
        s.phase == Phase::Sealed && s.live == 0 && s.tokens == 0 && s.in_flight.is_empty() && !s.tidying
    }
}

/// A place for one stripe, held while it is written.
pub(crate) struct Slot {
    pub(crate) segment: Rc<Segment>,
    pub(crate) linear: u32,
    pub(crate) height: u32,
    row: u32,
}
impl Drop for Slot {
    fn drop(&mut self) {
        let mut s = self.segment.state.borrow_mut();
        if let Some(n) = s.in_flight.get_mut(&self.row) {
            *n -= 1;
            if *n == 0 {
                s.in_flight.remove(&self.row);
            }
        }
        self.segment.bell.notify_all();
    }
}

/// Counted by its segment while a written stripe may still be applied. Two records are equal whatever their tokens.
#[derive(Clone)]
pub(crate) struct Token(#[expect(dead_code, reason = "held for its drop")] Option<Rc<Held>>);
struct Held(Rc<Segment>);
impl Token {
    pub(crate) fn none() -> Token {
        Token(None)
    }
    pub(crate) fn hold(segment: &Rc<Segment>) -> Token {
        segment.state.borrow_mut().tokens += 1;
        Token(Some(Rc::new(Held(segment.clone()))))
    }
}
impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.borrow_mut().tokens -= 1;
        self.0.bell.notify_all();
    }
}
impl PartialEq for Token {
    fn eq(&self, _: &Token) -> bool {
        true
    }
}
impl Eq for Token {}
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}
