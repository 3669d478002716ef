//! A queue pair: submission ring, completion ring, doorbells, and the table of what is in flight. It knows nothing of
//! tasks, threads or VFIO: the mock controller and real ones drive this same code.
//!
//! Bounds: `entries - 1` commands in flight, each with one list page part ([`LIST_BYTES`]) for its PRP list or SGL.

mod doorbell;
mod ring;
mod table;

pub use doorbell::{Doorbell, DoorbellRegister, Shadow};
pub use table::{Cid, InFlight, Overdue};

use crate::dma::{DmaError, DmaRegion, DmaSpace, Iova};
use crate::pointer::{self, ListMemory, PointerError, Segment};
use crate::spec::command::{FLAG_FUSED_FIRST, FLAG_FUSED_SECOND, FLAG_SGL};
use crate::spec::{Cqe, Sqe, Status};
use ring::Rings;
use table::Table;

/// List memory per command: 256 PRP entries, so 1 MiB and a page of data at most.
pub const LIST_BYTES: usize = 2048;
/// Most data of one command, whatever the controller would take.
pub const TRANSFER_MAX_BYTES: u64 = 1 << 20;
/// Entries of a queue at most; command identifiers have 10 bits for the slot.
pub const ENTRIES_MAX: u16 = 1024;

/// How a command describes its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataStyle {
    Prp,
    Sgl,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Completion<T> {
    pub token: T,
    pub status: Status,
    pub dw0: u32,
}

/// What no controller may do. After it the queue's state is unknown and the controller has to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("completed command {cid:#x} of queue {qid}, which was never sent or has completed before")]
    NotInFlight { qid: u16, cid: u16 },
    #[error("completed a command of queue {named} on queue {qid}")]
    WrongQueue { qid: u16, named: u16 },
    #[error("claims head {head} of queue {qid}, which has {entries} entries")]
    BadHead { qid: u16, head: u16, entries: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("the queue is full")]
    Full,
    #[error(transparent)]
    Pointer(#[from] PointerError),
}

pub struct QueuePair<T> {
    qid: u16,
    rings: Rings,
    table: Table<T>,
    sq_bell: Doorbell,
    cq_bell: Doorbell,
}

impl<T> QueuePair<T> {
    /// Memory that [`new`](Self::new) takes for a queue of `entries`.
    pub fn allocate(dma: &dyn DmaSpace, entries: u16) -> Result<DmaRegion, DmaError> {
        dma.allocate(ring::layout(entries).total)
    }

    /// `entries` is 2 to [`ENTRIES_MAX`].
    pub fn new(
        qid: u16,
        entries: u16,
        memory: DmaRegion,
        sq_bell: Doorbell,
        cq_bell: Doorbell,
    ) -> QueuePair<T> {
        assert!((2..=ENTRIES_MAX).contains(&entries), "{entries} entries");
        QueuePair {
            qid,
            rings: Rings::new(entries, memory),
            table: Table::new(entries - 1),
            sq_bell,
            cq_bell,
        }
    }

    pub fn qid(&self) -> u16 {
        self.qid
    }
    pub fn entries(&self) -> u16 {
        self.rings.entries()
    }
    pub fn sq_iova(&self) -> Iova {
        self.rings.sq_iova()
    }
    pub fn cq_iova(&self) -> Iova {
        self.rings.cq_iova()
    }
    pub fn in_flight(&self) -> usize {
        self.table.busy()
    }
    pub fn room(&self) -> usize {
        self.table.free()
    }
    /// Writes to doorbell registers so far, of both rings.
    pub fn doorbell_writes(&self) -> u64 {
        self.sq_bell.writes() + self.cq_bell.writes()
    }

    /// Puts a command into the ring; the controller hears of it at the next [`ring`](Self::ring).
    #[inline]
    pub fn submit(
        &mut self,
        mut sqe: Sqe,
        data: &[Segment],
        style: DataStyle,
        deadline_ns: u64,
        token: T,
    ) -> Result<Cid, (SubmitError, T)> {
        let Some(cid) = self.table.reserve() else { return Err((SubmitError::Full, token)) };
        sqe.cid = cid.0.into();
        if let Err(e) = self.point(&mut sqe, cid, data, style) {
            self.table.release(cid);
            return Err((e.into(), token));
        }
        self.rings.push(&sqe);
        self.table.fill(cid, InFlight { sqe, deadline_ns, attempts: 1, abort_sent: false, token });
        Ok(cid)
    }

    #[inline]
    fn point(
        &mut self,
        sqe: &mut Sqe,
        cid: Cid,
        data: &[Segment],
        style: DataStyle,
    ) -> Result<(), PointerError> {
        let mut list = self.rings.list(cid.slot());
        match (data, style) {
            ([], _) => Ok(()),
            (_, DataStyle::Prp) => pointer::build_prp(sqe, data, &mut list),
            (_, DataStyle::Sgl) => pointer::build_sgl(sqe, data, &mut list),
        }
    }

    /// Two commands that the controller carries out as one (Base 3.4.2), side by side in the ring.
    pub fn submit_fused(
        &mut self,
        [mut first, mut second]: [Sqe; 2],
        data: [&[Segment]; 2],
        style: DataStyle,
        deadline_ns: u64,
        [first_token, second_token]: [T; 2],
    ) -> Result<[Cid; 2], (SubmitError, [T; 2])> {
        if self.room() < 2 {
            return Err((SubmitError::Full, [first_token, second_token]));
        }
        first.flags |= FLAG_FUSED_FIRST;
        second.flags |= FLAG_FUSED_SECOND;
        // Both pointers are built before either half enters the ring.
        for (sqe, data) in [(&first, data[0]), (&second, data[1])] {
            let mut probe = *sqe;
            let mut words = [0; LIST_BYTES / 8];
            let mut list = ListMemory { words: &mut words, iova: Iova(0) };
            let built = match style {
                DataStyle::Prp => pointer::build_prp(&mut probe, data, &mut list),
                DataStyle::Sgl => pointer::build_sgl(&mut probe, data, &mut list),
            };
            if let Err(e) = built {
                return Err((e.into(), [first_token, second_token]));
            }
        }
        let one = self.submit(first, data[0], style, deadline_ns, first_token);
        let two = self.submit(second, data[1], style, deadline_ns, second_token);
        match (one, two) {
            (Ok(a), Ok(b)) => Ok([a, b]),
            _ => unreachable!("room and pointers were checked for both"),
        }
    }

    /// Tells the controller of everything submitted and everything reaped since the last time: one doorbell each.
    #[inline]
    pub fn ring(&mut self) {
        if let Some(tail) = self.rings.unannounced_tail() {
            self.sq_bell.ring(u32::from(tail));
        }
        self.ring_completions();
    }

    #[inline]
    fn ring_completions(&mut self) {
        if let Some(head) = self.rings.unannounced_head() {
            self.cq_bell.ring(u32::from(head));
        }
    }

    /// Whether a completion waits to be reaped.
    #[inline]
    pub fn has_completion(&self) -> bool {
        self.rings.peek().is_some()
    }

    /// Hands at most `max` completions to `each`. The completion doorbell is rung once, afterwards.
    #[inline]
    pub fn reap(&mut self, max: usize, mut each: impl FnMut(Completion<T>)) -> Result<usize, Violation> {
        let mut n = 0;
        while n < max {
            let Some(cqe) = self.rings.peek() else { break };
            let token = self.accept(&cqe)?;
            self.rings.advance();
            n += 1;
            each(Completion { token, status: cqe.status(), dw0: cqe.dw0.get() });
        }
        if n > 0 {
            self.ring_completions();
        }
        Ok(n)
    }

    #[inline]
    fn accept(&mut self, cqe: &Cqe) -> Result<T, Violation> {
        let qid = self.qid;
        if cqe.sq_id.get() != qid {
            return Err(Violation::WrongQueue { qid, named: cqe.sq_id.get() });
        }
        if cqe.sq_head.get() >= self.entries() {
            return Err(Violation::BadHead { qid, head: cqe.sq_head.get(), entries: self.entries() });
        }
        let cid = cqe.cid.get();
        match self.table.take(Cid(cid)) {
            Some(in_flight) => Ok(in_flight.token),
            None => Err(Violation::NotInFlight { qid, cid }),
        }
    }

    pub fn token_mut(&mut self, cid: Cid) -> Option<&mut T> {
        self.table.get_mut(cid).map(|f| &mut f.token)
    }

    /// Commands whose time is over, at most `max`.
    pub fn overdue(&self, now_ns: u64, max: usize) -> Vec<Overdue> {
        self.table.overdue(now_ns, max)
    }

    /// Notes that an abort is under way for this command and gives it until `deadline_ns`.
    pub fn mark_abort(&mut self, cid: Cid, deadline_ns: u64) {
        if let Some(f) = self.table.get_mut(cid) {
            f.abort_sent = true;
            f.deadline_ns = deadline_ns;
        }
    }

    /// Empties both rings, after the controller has been disabled, and puts those commands into the ring again for
    /// which `again` holds (fused pairs never: whether the write happened is unknown). The rest is handed back.
    /// [`ring`](Self::ring) sends them once the queue exists anew.
    pub fn restart(&mut self, deadline_ns: u64, mut again: impl FnMut(&InFlight<T>) -> bool) -> Vec<T> {
        // A try that the controller never heard of does not count.
        let tried = u8::from(self.rings.announced());
        self.rings.reset();
        self.sq_bell.reset();
        self.cq_bell.reset();
        let mut given_up = Vec::new();
        for cid in self.table.cids() {
            let fused = |f: &InFlight<T>| f.sqe.flags & (FLAG_FUSED_FIRST | FLAG_FUSED_SECOND) != 0;
            let keep = self.table.get_mut(cid).is_some_and(|f| !fused(f) && again(f));
            if let (true, Some(f)) = (keep, self.table.get_mut(cid)) {
                f.deadline_ns = deadline_ns;
                f.abort_sent = false;
                f.attempts = f.attempts.saturating_add(tried);
                // The list memory still holds what the pointer names.
                debug_assert!(f.sqe.flags & !(FLAG_SGL) == 0);
                self.rings.push(&f.sqe);
            } else {
                given_up.extend(self.table.take(cid).map(|f| f.token));
            }
        }
        given_up
    }

    /// Takes shadow doorbells into use, or out of use.
    pub fn set_shadow(&mut self, sq: Option<Shadow>, cq: Option<Shadow>) {
        self.sq_bell.set_shadow(sq);
        self.cq_bell.set_shadow(cq);
    }
}
