//! The account of live blocks: exactly what the journal says, saved in every checkpoint.
//!
//! A dead segment goes back to the root when the record that killed it is durable and no read that began before still
//! runs. A metadata segment waits for a checkpoint beyond that record as well: replay starts from the sorted runs the
//! checkpoint names, so they must outlive it. File contents are never read during replay.

use super::checksum::RowSums;
use super::segment::{Death, OpenRow, Phase, Segment};
use super::stripe::StripeRecord;
use crate::planted::{self, Planted};
use crate::types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Records and saved accounts of segments that are no longer granted are ignored: those were freed since.
pub(crate) struct Accounts {
    pub(crate) segments: BTreeMap<SegmentId, Rc<Segment>>,
    /// Accounts restored from a checkpoint already hold what records up to here did.
    restored_lsn: Lsn,
    /// Segments that take stripes, or still have checksums, footer or sealing ahead of them.
    busy: BTreeSet<SegmentId>,
    /// Segments seen with no live block: those to look at when something becomes durable.
    empty: BTreeSet<SegmentId>,
    pins: BTreeSet<u64>,
    next_pin: u64,
}

impl Accounts {
    pub(crate) fn new() -> Accounts {
        Accounts {
            segments: BTreeMap::new(),
            restored_lsn: Lsn(0),
            busy: BTreeSet::new(),
            empty: BTreeSet::new(),
            pins: BTreeSet::new(),
            next_pin: 0,
        }
    }
    pub(crate) fn get(&self, id: SegmentId) -> Option<&Rc<Segment>> {
        self.segments.get(&id)
    }
    pub(crate) fn insert(&mut self, segment: Rc<Segment>) {
        self.segments.insert(segment.entry.id, segment);
    }
    pub(crate) fn add_open(&mut self, segment: Rc<Segment>) {
        self.busy.insert(segment.entry.id);
        self.insert(segment);
    }
    pub(crate) fn remove(&mut self, id: SegmentId) {
        self.segments.remove(&id);
        self.busy.remove(&id);
        self.empty.remove(&id);
    }
    /// Segments open for stripes, oldest first.
    pub(crate) fn open(&self, class: Class) -> impl Iterator<Item = &Rc<Segment>> {
        let busy = self.busy.iter().filter_map(|id| self.segments.get(id));
        busy.filter(move |s| s.entry.class == class && s.state().phase == Phase::Open)
    }
    /// Puts a segment on the lists its state asks for.
    pub(crate) fn note(&mut self, segment: &Segment) {
        let (id, s) = (segment.entry.id, segment.state());
        if s.phase == Phase::Sealed && s.rows.is_empty() {
            self.busy.remove(&id);
        } else {
            self.busy.insert(id);
        }
        if s.live == 0 {
            self.empty.insert(id);
        }
    }
    pub(crate) fn busy(&mut self) -> Vec<Rc<Segment>> {
        self.busy.iter().filter_map(|id| self.segments.get(id)).cloned().collect()
    }

    pub(crate) fn apply_stripe(&self, lsn: Lsn, stripe: &StripeRecord) {
        if lsn <= self.restored_lsn {
            return;
        }
        let Some(segment) = self.get(stripe.segment) else { return };
        if stripe.columns != segment.layout.columns() {
            tracing::error!(segment = %stripe.segment, "a stripe record names {} columns", stripe.columns);
            return;
        }
        segment.set_sums(stripe);
        segment.state_mut().live += stripe.placed as u64;
    }

    /// True when that was the last live block.
    pub(crate) fn apply_dead(&mut self, lsn: Lsn, at: BlockAddr, blocks: u32) -> bool {
        if lsn <= self.restored_lsn {
            return false;
        }
        let Some(segment) = self.segments.get(&at.segment) else { return false };
        let mut s = segment.state_mut();
        if s.live < blocks as u64 {
            tracing::error!(segment = %at.segment, live = s.live, blocks, "more blocks die than live");
        }
        s.live = s.live.saturating_sub(blocks as u64);
        s.death = Death { lsn, pin: self.next_pin };
        if s.live == 0 {
            self.empty.insert(at.segment);
        }
        s.live == 0
    }

    pub(crate) fn pin(&mut self) -> u64 {
        let pin = self.next_pin;
        self.next_pin += 1;
        self.pins.insert(pin);
        pin
    }
    pub(crate) fn unpin(&mut self, pin: u64) {
        self.pins.remove(&pin);
    }

    /// Segments that may go back now.
    pub(crate) fn freeable(&mut self, durable: Lsn, checkpoint: Lsn) -> Vec<Rc<Segment>> {
        let oldest_pin = self.pins.first().copied().unwrap_or(u64::MAX);
        let early = planted::is(Planted::ReusedSegmentEarly);
        let segments = &self.segments;
        self.empty.retain(|id| segments.get(id).is_some_and(|s| s.state().live == 0));
        let free = self.empty.iter().filter_map(|id| segments.get(id)).filter(|segment| {
            let death = segment.state().death;
            let settled = match segment.entry.class {
                Class::Data => death.lsn <= durable,
                Class::Meta => death.lsn <= checkpoint,
            };
            segment.is_dead() && (early || settled && oldest_pin >= death.pin)
        });
        free.cloned().collect()
    }

    /// Accounts as of now, for a checkpoint.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for (id, segment) in &self.segments {
            let s = segment.state();
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&s.live.to_le_bytes());
            out.extend_from_slice(&s.clean_rows.to_le_bytes());
            out.extend_from_slice(&(segment.layout.columns() as u16).to_le_bytes());
            out.extend_from_slice(&(s.rows.len() as u16).to_le_bytes());
            for (row, open) in &s.rows {
                out.extend_from_slice(&row.to_le_bytes());
                open.sums.encode(out);
            }
        }
    }

    /// Restores what a checkpoint saved; `None` when it is malformed.
    pub(crate) fn restore(&mut self, mut input: &[u8], lsn: Lsn) -> Option<()> {
        self.restored_lsn = lsn;
        for _ in 0..take_u32(&mut input)? {
            let id = SegmentId(take_u64(&mut input)?);
            let live = take_u64(&mut input)?;
            let clean_rows = take_u32(&mut input)?;
            let columns = take_u16(&mut input)? as u32;
            let rows = take_u16(&mut input)?;
            let segment = self.segments.get(&id).filter(|s| s.layout.columns() == columns);
            if let Some(segment) = segment {
                let mut s = segment.state_mut();
                s.live = live;
                s.clean_rows = clean_rows;
            }
            for _ in 0..rows {
                let row = take_u32(&mut input)?;
                let sums = RowSums::decode(&mut input, columns)?;
                if let Some(segment) = segment {
                    segment.state_mut().rows.insert(row, OpenRow { sums, on_media: false });
                }
            }
        }
        input.is_empty().then_some(())
    }
}

pub(crate) fn take_u16(input: &mut &[u8]) -> Option<u16> {
    let (bytes, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u16::from_le_bytes(*bytes))
}
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    let (bytes, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u32::from_le_bytes(*bytes))
}
pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u64::from_le_bytes(*bytes))
}

/// The store's own wrapping of a checkpoint record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint<'a> {
    pub(crate) replay_from: Lsn,
    pub(crate) payload: &'a [u8],
    pub(crate) accounts: &'a [u8],
}
const CHECKPOINT_VERSION: u16 = 1;
impl<'a> Checkpoint<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.payload.len() + self.accounts.len());
        out.extend_from_slice(&CHECKPOINT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.accounts.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.replay_from.0.to_le_bytes());
        out.extend_from_slice(self.payload);
        out.extend_from_slice(self.accounts);
        out
    }
    pub(crate) fn decode(mut input: &'a [u8]) -> Option<Checkpoint<'a>> {
        if take_u16(&mut input)? != CHECKPOINT_VERSION || take_u16(&mut input)? != 0 {
            return None;
        }
        let payload = take_u32(&mut input)? as usize;
        let accounts = take_u32(&mut input)? as usize;
        let replay_from = Lsn(take_u64(&mut input)?);
        let (payload, rest) = input.split_at_checked(payload)?;
        let (accounts, rest) = rest.split_at_checked(accounts)?;
        rest.is_empty().then_some(Checkpoint { replay_from, payload, accounts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::segment::Token;
    use basalt_reactor::sync::Notify;
    use proptest::prelude::*;

    fn accounts(ids: impl IntoIterator<Item = (u64, Class)>) -> Accounts {
        let mut a = Accounts::new();
        for (id, class) in ids {
            let entry = SegmentEntry {
                id: SegmentId(id),
                shard: ShardId(1),
                epoch: Epoch(1),
                scheme: Scheme { k: 2, m: 1 },
                class,
                state: crate::types::SegmentState::Sealed,
                code: 1,
                key_id: 0,
                members: (0..3).map(|d| AuRef { drive: DriveIndex(d), au: 0 }).collect(),
            };
            let geometry = Geometry { au_bytes: 4 << 20, chunk_bytes: 2 << 20 };
            a.insert(Rc::new(Segment::new(entry, &geometry, Phase::Sealed, Rc::new(Notify::new()))));
        }
        a
    }
    fn stripe(segment: u64, block: u32, placed: u32) -> StripeRecord {
        let crcs = (0..6).map(|i| block + i).collect();
        StripeRecord {
            segment: SegmentId(segment),
            block,
            height: 2,
            columns: 3,
            placed,
            crcs,
            token: Token::none(),
        }
    }
    fn at(segment: u64) -> BlockAddr {
        BlockAddr { segment: SegmentId(segment), column: 0, block: 0 }
    }

    #[test]
    fn a_segment_is_freed_when_its_death_is_durable_and_unseen() {
        let mut a = accounts([(1, Class::Data), (2, Class::Meta)]);
        let ids = |a: &mut Accounts, durable, checkpoint| -> Vec<u64> {
            a.freeable(Lsn(durable), Lsn(checkpoint)).iter().map(|s| s.entry.id.0).collect()
        };
        for id in [1, 2] {
            a.apply_stripe(Lsn(5), &stripe(id, 0, 4));
        }
        assert!(ids(&mut a, 100, 100).is_empty());
        let pin = a.pin();
        for id in [1, 2] {
            assert!(!a.apply_dead(Lsn(6), at(id), 1));
            assert!(a.apply_dead(Lsn(7), at(id), 3));
        }
        let later = a.pin();
        assert!(ids(&mut a, 100, 100).is_empty(), "a read from before still runs");
        a.unpin(pin);
        assert!(ids(&mut a, 6, 6).is_empty(), "its death may still be lost");
        assert_eq!(ids(&mut a, 7, 6), [1]);
        assert_eq!(ids(&mut a, 7, 7), [1, 2]);
        let token = Token::hold(&a.segments[&SegmentId(1)]);
        assert_eq!(ids(&mut a, 7, 7), [2], "a stripe is still to be applied");
        drop(token);
        assert_eq!(ids(&mut a, 7, 7), [1, 2]);
        a.unpin(later);
    }

    #[test]
    fn accounts_survive_a_checkpoint() {
        let mut a = accounts([(1, Class::Data), (2, Class::Data), (3, Class::Data)]);
        a.apply_stripe(Lsn(5), &stripe(1, 10, 4));
        a.apply_stripe(Lsn(6), &stripe(1, 600, 3));
        a.apply_stripe(Lsn(7), &stripe(2, 0, 1));
        a.apply_dead(Lsn(8), at(1), 2);
        let mut bytes = Vec::new();
        a.encode(&mut bytes);
        // Segment 3 has been freed since; 4 is new.
        let mut b = accounts([(1, Class::Data), (2, Class::Data), (4, Class::Data)]);
        b.restore(&bytes, Lsn(9)).expect("well formed");
        let (one, again) = (a.segments[&SegmentId(1)].clone(), b.segments[&SegmentId(1)].clone());
        assert_eq!(again.state().live, 5);
        for row in [0, 1] {
            assert!(one.state().rows[&row].sums == again.state().rows[&row].sums);
        }
        b.apply_dead(Lsn(8), at(1), 2);
        assert_eq!(again.state().live, 5, "covered by the checkpoint");
        b.apply_dead(Lsn(10), at(1), 2);
        assert_eq!(again.state().live, 3);
        for cut in 0..bytes.len() {
            let mut c = accounts([(1, Class::Data)]);
            assert!(c.restore(&bytes[..cut], Lsn(9)).is_none());
        }
    }

    #[test]
    fn golden_checkpoint() {
        let c = Checkpoint { replay_from: Lsn(0x0102), payload: b"pay", accounts: b"acct" };
        let bytes = c.encode();
        let expect = [&[1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0][..], b"payacct"].concat();
        assert_eq!(bytes, expect);
        assert_eq!(Checkpoint::decode(&bytes), Some(c));
        for cut in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn restore_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = accounts([(1, Class::Data)]).restore(&bytes, Lsn(1));
            let _ = Checkpoint::decode(&bytes);
        }
    }
}
