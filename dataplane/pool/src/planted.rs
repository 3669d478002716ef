//! Planted faults: mistakes that the simulator must find, switched on one at a time. This is how the simulator
//! itself is tested. Off by default; each costs one thread-local read where it is looked at.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planted {
    /// The root acknowledges a change that only its first copy holds.
    RootMinorityAck,
    /// A fenced owner's request is granted all the same.
    StaleEpochAccepted,
    /// A drive recorded out is trusted again when it returns, stale as it is.
    ReturnedDriveTrusted,
    /// The shard replies before its journal block is durable on all members.
    ReplyBeforeCommit,
    /// Stripes on drives with a volatile cache are not flushed.
    SkippedFlush,
    /// Block checksums are computed and not compared.
    IgnoredChecksum,
    /// The identity tag of a block checksum (segment, unit, block) is not compared.
    IgnoredChecksumAddress,
    /// A journal block counts as durable when one member has it.
    AckOneMirror,
    /// Recovery takes an unreadable block below the committed LSN for the journal's end.
    TailCutsCommitted,
    /// A segment goes back to the root while the record that killed it is not durable or a read of it still runs.
    ReusedSegmentEarly,
}

impl Planted {
    pub const ALL: [Planted; 10] = [
        Planted::RootMinorityAck,
        Planted::StaleEpochAccepted,
        Planted::ReturnedDriveTrusted,
        Planted::ReplyBeforeCommit,
        Planted::SkippedFlush,
        Planted::IgnoredChecksum,
        Planted::IgnoredChecksumAddress,
        Planted::AckOneMirror,
        Planted::TailCutsCommitted,
        Planted::ReusedSegmentEarly,
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
