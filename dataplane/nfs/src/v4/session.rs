//! Sessions: slots, their replay cache, and SEQUENCE (RFC 8881, sections 2.10.6 and 18.46).

use super::records::Channel;
use super::state::SessionId;
use super::types::Status;
use bytes::Bytes;
use std::cell::RefCell;

/// More than the 64 that a Linux client asks for by default.
pub(crate) const SLOTS_MAX: u32 = 256;
/// Replies kept for every slot without being asked, when they are no larger than this: it costs nothing but the memory
/// that the budget has set aside anyhow, and a retry is answered instead of refused.
const CACHED_UNASKED_MAX_BYTES: usize = 1024;

pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) client: u64,
    pub(crate) channel: Channel,
    slots: RefCell<Vec<Slot>>,
}

#[derive(Default)]
struct Slot {
    sequence: u32,
    /// Restored from a record: its sequence is not known, the next one is taken as given.
    any: bool,
    in_progress: bool,
    /// Of the request that got `reply`, to recognise a false retry.
    request_hash: u64,
    reply: Option<Vec<Bytes>>,
    used: bool,
}

/// SEQUENCE4args.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceArgs {
    pub(crate) session: SessionId,
    pub(crate) sequence: u32,
    pub(crate) slot: u32,
    pub(crate) highest_slot: u32,
    pub(crate) cache_this: bool,
}

pub(crate) enum Begin {
    /// Execute it; `finish` must follow.
    New,
    /// A retry: the whole COMPOUND4res as it was sent.
    Replay(Vec<Bytes>),
    /// A retry whose reply was not kept.
    Uncached,
}

impl Session {
    pub(crate) fn new(id: SessionId, client: u64, channel: Channel, restored: bool) -> Session {
        let slots = (0..channel.slots).map(|_| Slot { any: restored, ..Slot::default() }).collect();
        Session { id, client, channel, slots: RefCell::new(slots) }
    }

    /// What `memory` bytes the replay cache may grow to.
    pub(crate) fn cache_bytes(channel: &Channel) -> usize {
        channel.slots as usize * channel.max_response_cached as usize
    }

    /// An error leaves the slot as it was.
    pub(crate) fn begin(&self, a: &SequenceArgs, request_hash: u64) -> Result<Begin, Status> {
        let mut slots = self.slots.borrow_mut();
        let count = slots.len() as u32;
        let slot = slots.get_mut(a.slot as usize).ok_or(Status::BADSLOT)?;
        if a.highest_slot >= count {
            return Err(Status::BAD_HIGH_SLOT);
        }
        if a.sequence == slot.sequence && slot.used {
            if slot.in_progress {
                return Err(Status::DELAY);
            }
            if slot.request_hash != request_hash {
                return Err(Status::SEQ_FALSE_RETRY);
            }
            return Ok(match &slot.reply {
                Some(r) if !crate::planted::lost_replay_slot() => Begin::Replay(r.clone()),
                Some(_) => Begin::New,
                None => Begin::Uncached,
            });
        }
        if slot.in_progress || !(slot.any || a.sequence == slot.sequence.wrapping_add(1)) {
            return Err(Status::SEQ_MISORDERED);
        }
        *slot = Slot { sequence: a.sequence, in_progress: true, used: true, request_hash, ..Slot::default() };
        Ok(Begin::New)
    }

    /// Keeps the reply as the slot's duty or thrift asks.
    pub(crate) fn finish(&self, a: &SequenceArgs, reply: &[Bytes]) {
        let len = crate::xdr::pieces_len(reply);
        let keep =
            if a.cache_this { self.channel.max_response_cached as usize } else { CACHED_UNASKED_MAX_BYTES };
        let keep = keep.min(self.channel.max_response_cached as usize);
        if let Some(slot) = self.slots.borrow_mut().get_mut(a.slot as usize) {
            slot.in_progress = false;
            // One exact copy: slices would pin the buffers that they were cut from.
            slot.reply = (len <= keep).then(|| vec![Bytes::from(reply.concat())]);
        }
    }

    pub(crate) fn busy_slots(&self) -> usize {
        self.slots.borrow().iter().filter(|s| s.in_progress).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(restored: bool) -> Session {
        let channel = Channel {
            max_request: 1 << 20,
            max_response: 1 << 20,
            max_response_cached: 2048,
            max_operations: 16,
            slots: 4,
        };
        Session::new([1; 16], 7, channel, restored)
    }
    fn args(slot: u32, sequence: u32) -> SequenceArgs {
        SequenceArgs { session: [1; 16], sequence, slot, highest_slot: 3, cache_this: true }
    }

    #[test]
    fn order_retry_and_false_retry() {
        let s = session(false);
        assert!(
            matches!(s.begin(&args(0, 0), 1), Err(Status::SEQ_MISORDERED)),
            "nothing was sent on this slot"
        );
        assert!(matches!(s.begin(&args(0, 2), 1), Err(Status::SEQ_MISORDERED)));
        assert!(matches!(s.begin(&args(4, 1), 1), Err(Status::BADSLOT)));
        let high = SequenceArgs { highest_slot: 4, ..args(0, 1) };
        assert!(matches!(s.begin(&high, 1), Err(Status::BAD_HIGH_SLOT)));
        assert!(matches!(s.begin(&args(0, 1), 1), Ok(Begin::New)), "no error advanced the slot");
        assert!(matches!(s.begin(&args(0, 1), 1), Err(Status::DELAY)), "in progress");
        assert!(matches!(s.begin(&args(0, 2), 1), Err(Status::SEQ_MISORDERED)), "in progress");
        s.finish(&args(0, 1), &[Bytes::from_static(b"re"), Bytes::from_static(b"ply")]);
        assert!(matches!(s.begin(&args(0, 1), 1), Ok(Begin::Replay(r)) if r.concat() == b"reply"));
        assert!(matches!(s.begin(&args(0, 1), 2), Err(Status::SEQ_FALSE_RETRY)));
        assert!(matches!(s.begin(&args(0, 3), 1), Err(Status::SEQ_MISORDERED)));
        assert!(matches!(s.begin(&args(0, 2), 2), Ok(Begin::New)));
        s.finish(&SequenceArgs { cache_this: false, ..args(0, 2) }, &[Bytes::from(vec![0; 2000])]);
        assert!(matches!(s.begin(&args(0, 2), 2), Ok(Begin::Uncached)));
    }

    #[test]
    fn a_restored_slot_takes_any_sequence_once() {
        let s = session(true);
        assert!(matches!(s.begin(&args(1, 77), 1), Ok(Begin::New)));
        s.finish(&args(1, 77), &[]);
        assert!(matches!(s.begin(&args(1, 79), 1), Err(Status::SEQ_MISORDERED)));
        assert!(matches!(s.begin(&args(1, 78), 1), Ok(Begin::New)));
        assert!(matches!(s.begin(&args(0, 0), 1), Ok(Begin::New)), "zero is a sequence like any other");
    }
}
