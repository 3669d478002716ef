//! What is in flight, by command identifier.
//!
//! An identifier is a slot and the slot's generation: one that comes back late or twice names a generation that is
//! over, and is found out instead of ending somebody else's command.

use crate::spec::Sqe;

const SLOT_BITS: u32 = 10;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cid(pub u16);

impl Cid {
    #[inline]
    pub(super) fn slot(self) -> u16 {
        self.0 & SLOT_MASK
    }
    #[inline]
    fn generation(self) -> u8 {
        (self.0 >> SLOT_BITS) as u8
    }
}

#[derive(Debug)]
pub struct InFlight<T> {
    /// As sent, for another try after a reset.
    pub sqe: Sqe,
    pub deadline_ns: u64,
    pub attempts: u8,
    pub abort_sent: bool,
    pub token: T,
}

/// A command whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    pub cid: Cid,
    pub opcode: u8,
    /// Its abort has had its time too.
    pub abort_sent: bool,
}

struct Slot<T> {
    generation: u8,
    in_flight: Option<InFlight<T>>,
}

pub(super) struct Table<T> {
    slots: Box<[Slot<T>]>,
    /// First in, first out would keep generations young; last in, first out keeps memory warm.
    free: Vec<u16>,
}

impl<T> Table<T> {
    pub(super) fn new(slots: u16) -> Table<T> {
        assert!(slots < SLOT_MASK, "no identifier may be all ones");
        let free = (0..slots).rev().collect();
        let slots = (0..slots).map(|_| Slot { generation: 0, in_flight: None }).collect();
        Table { slots, free }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
    pub(super) fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(super) fn reserve(&mut self) -> Option<Cid> {
        let slot = self.free.pop()?;
        let s = &mut self.slots[usize::from(slot)];
        s.generation = (s.generation + 1) & 0x3f;
        Some(Cid(u16::from(s.generation) << SLOT_BITS | slot))
    }

    /// Undoes `reserve`.
    pub(super) fn release(&mut self, cid: Cid) {
        debug_assert!(self.slots[usize::from(cid.slot())].in_flight.is_none());
        self.free.push(cid.slot());
    }

    #[inline]
    pub(super) fn fill(&mut self, cid: Cid, in_flight: InFlight<T>) {
        self.slots[usize::from(cid.slot())].in_flight = Some(in_flight);
    }

    #[inline]
    fn slot(&mut self, cid: Cid) -> Option<&mut Slot<T>> {
        self.slots.get_mut(usize::from(cid.slot())).filter(|s| s.generation == cid.generation())
    }

    #[inline]
    pub(super) fn take(&mut self, cid: Cid) -> Option<InFlight<T>> {
        let in_flight = self.slot(cid)?.in_flight.take()?;
        self.free.push(cid.slot());
        Some(in_flight)
    }

    pub(super) fn get_mut(&mut self, cid: Cid) -> Option<&mut InFlight<T>> {
        self.slot(cid)?.in_flight.as_mut()
    }

    pub(super) fn cids(&self) -> Vec<Cid> {
        let cid = |(i, s): (usize, &Slot<T>)| {
            s.in_flight.is_some().then_some(Cid(u16::from(s.generation) << SLOT_BITS | i as u16))
        };
        self.slots.iter().enumerate().filter_map(cid).collect()
    }

    pub(super) fn overdue(&self, now_ns: u64, max: usize) -> Vec<Overdue> {
        let due = |(i, s): (usize, &Slot<T>)| {
            let f = s.in_flight.as_ref().filter(|f| f.deadline_ns <= now_ns)?;
            let cid = Cid(u16::from(s.generation) << SLOT_BITS | i as u16);
            Some(Overdue { cid, opcode: f.sqe.opcode, abort_sent: f.abort_sent })
        };
        self.slots.iter().enumerate().filter_map(due).take(max).collect()
    }
}
