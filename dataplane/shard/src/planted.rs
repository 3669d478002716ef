//! Planted faults: mistakes that the simulator must find, switched on one at a time. Off by default; each costs one
//! thread-local read where it is looked at.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planted {
    /// COMMIT answers without writing anything back.
    CommitIgnoresDirty,
    /// Truncation leaves what was behind the new end in the last page, to show again when the file grows.
    TruncateKeepsTail,
    /// Packing publishes a page although a newer one has taken its key meanwhile.
    PackStalePage,
    /// A read's reply does not wait until what it saw is durable.
    ReplyBeforeObserved,
    /// A merge drops tombstones although older runs still hold their keys.
    DroppedTombstone,
    /// A checkpoint claims one record more than the flush wrote.
    CheckpointTooEarly,
    /// A non-idempotent operation leaves no replay record.
    LostReplaySlot,
    /// Parts of a cross-shard operation are applied one by one, without prepare and decision.
    RenameNotAtomic,
    /// A file that loses its last name leaves no orphan record.
    OrphanForgotten,
    /// `link` does not count.
    LinkCountSkipped,
    /// Not a mistake but an aid, so not among [`Planted::ALL`]: name hashes of few values, so that collisions happen.
    WeakNameHash,
}

impl Planted {
    pub const ALL: &[Planted] = &[
        Planted::CommitIgnoresDirty,
        Planted::TruncateKeepsTail,
        Planted::PackStalePage,
        Planted::ReplyBeforeObserved,
        Planted::DroppedTombstone,
        Planted::CheckpointTooEarly,
        Planted::LostReplaySlot,
        Planted::RenameNotAtomic,
        Planted::OrphanForgotten,
        Planted::LinkCountSkipped,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Switches one fault on for this thread (a simulated world is one thread), or all off.
pub fn set(fault: Option<Planted>) {
    PLANTED.set(fault);
}

pub(crate) fn is(fault: Planted) -> bool {
    PLANTED.get() == Some(fault)
}
