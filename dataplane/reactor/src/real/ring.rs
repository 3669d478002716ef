//! A reactor's io_uring, and the memory that the kernel uses meanwhile.
//!
//! Each request owns an entry of `ops` from before its submission until its completion has been seen. Everything the
//! kernel may touch lives in that entry (`Keep`), so a future that is dropped early frees nothing too soon: its entry
//! is marked as orphaned, the request is cancelled, and the completion frees the memory.

use crate::buf::{Arena, DmaBuf, adopt_arena};
use crate::context::{self, Reactor};
use crate::slab::Slab;
use bytes::{Bytes, BytesMut};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 4096;
/// Completions handled per turn.
const REAP_MAX: usize = 512;

/// Registered buffer memory per reactor: first try, and what is not worth having less of.
const ARENA_BYTES: usize = 32 << 20;
const ARENA_MIN_BYTES: usize = 2 << 20;

/// Values of user_data that are not keys of `ops`.
const WOKEN: u64 = u64::MAX;
const DRAINED: u64 = u64::MAX - 1;
const CANCELLED: u64 = u64::MAX - 2;

pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    ops: RefCell<Slab<Op>>,
    reaped: RefCell<Vec<(u64, i32, u32)>>,
    /// Entries pushed and not yet submitted.
    unsubmitted: Cell<usize>,
    wake_fd: RawFd,
    drain_fd: RawFd,
    /// Registered as fixed buffer 0.
    arena: Option<Arc<Arena>>,
}

struct Op {
    state: OpState,
    keep: Keep,
}

enum OpState {
    InFlight(Option<Waker>),
    Done(i32),
    /// Nobody waits any more.
    Orphaned,
}

/// What a request keeps alive: the memory that its submission entry points to, and the socket it is on.
///
/// Pointers are taken before the value moves into the table, so only heap memory may be pointed to.
#[allow(dead_code, reason = "some fields are held for their drop alone")]
pub(crate) enum Keep {
    Nothing,
    Dma(DmaBuf),
    Recv(Rc<OwnedFd>, BytesMut),
    /// The vectors point into the bytes, the message header (of a send) at the vectors.
    Gather(Option<Rc<OwnedFd>>, Gather),
    Accept(Rc<OwnedFd>),
    Connect(Rc<OwnedFd>, Vec<libc::sockaddr_storage>),
}

pub(crate) struct Gather {
    pub(crate) bytes: Vec<Bytes>,
    pub(crate) iovecs: Vec<libc::iovec>,
    pub(crate) header: Vec<libc::msghdr>,
}

impl Ring {
    pub(super) fn new(wake_fd: RawFd, drain_fd: RawFd) -> io::Result<Ring> {
        // Completions are processed when the reactor asks for them, not in the middle of a task: 6.1 and newer.
        let modern = IoUring::builder()
            .setup_cqsize(CQ_ENTRIES)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SQ_ENTRIES);
        let uring = match modern {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().setup_cqsize(CQ_ENTRIES).build(SQ_ENTRIES)?
            }
            other => other?,
        };
        let arena = register_arena(&uring);
        let ring = Ring {
            uring: RefCell::new(uring),
            ops: RefCell::default(),
            reaped: RefCell::default(),
            unsubmitted: Cell::new(0),
            wake_fd,
            drain_fd,
            arena,
        };
        ring.watch(wake_fd, WOKEN);
        ring.watch(drain_fd, DRAINED);
        Ok(ring)
    }

    /// Whether these bytes are in fixed buffer 0.
    pub(crate) fn registered(&self, at: *const u8, len: usize) -> bool {
        self.arena.as_ref().is_some_and(|a| a.holds(at, len))
    }

    /// A completion for every write to the eventfd, until cancelled.
    fn watch(&self, fd: RawFd, user_data: u64) {
        let entry =
            opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build().user_data(user_data);
        // SAFETY: the entry points to no memory; both eventfds outlive the ring.
        unsafe { self.push(&entry) };
    }

    /// # Safety
    /// The memory that the entry points to must stay until its completion.
    unsafe fn push(&self, entry: &squeue::Entry) {
        loop {
            let mut uring = self.uring.borrow_mut();
            // SAFETY: the caller's promise.
            let pushed = unsafe { uring.submission().push(entry) };
            if pushed.is_ok() {
                self.unsubmitted.set(self.unsubmitted.get() + 1);
                return;
            }
            // The queue is full: make room.
            drop(uring);
            self.submit();
            self.reap();
        }
    }

    fn submit(&self) {
        let result = self.uring.borrow().submit();
        self.after_enter(result);
    }

    fn after_enter(&self, result: io::Result<usize>) {
        match result {
            Ok(n) => self.unsubmitted.set(self.unsubmitted.get().saturating_sub(n)),
            // ETIME ends a wait. EBUSY and EAGAIN: the kernel wants completions reaped or memory freed first; the
            // entries stay in the queue for the next try.
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {
                    self.unsubmitted.set(self.uring.borrow_mut().submission().len());
                }
                _ => panic!("io_uring_enter: {e}"),
            },
        }
    }

    /// Hands new requests to the kernel and completed ones to their futures; returns whether any had completed.
    pub(super) fn submit_and_reap(&self) -> bool {
        let deferred_work = {
            let mut uring = self.uring.borrow_mut();
            let sq = uring.submission();
            sq.taskrun() || sq.cq_overflow()
        };
        if self.unsubmitted.get() > 0 || deferred_work {
            self.submit();
        }
        self.reap()
    }

    /// Blocks until something completes, an eventfd rings, or the time is over.
    pub(super) fn wait(&self, timeout_ns: Option<u64>) {
        let uring = self.uring.borrow();
        let result = match timeout_ns {
            Some(ns) => {
                let ts = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&ts))
            }
            None => uring.submit_and_wait(1),
        };
        drop(uring);
        self.after_enter(result);
    }

    fn reap(&self) -> bool {
        let mut reaped = self.reaped.take();
        {
            let mut uring = self.uring.borrow_mut();
            let completions = uring.completion().take(REAP_MAX);
            reaped.extend(completions.map(|c| (c.user_data(), c.result(), c.flags())));
        }
        let any = !reaped.is_empty();
        for (user_data, result, flags) in reaped.drain(..) {
            match user_data {
                WOKEN | DRAINED => self.rung(user_data, flags),
                CANCELLED => {}
                key => self.complete(key as usize, result),
            }
        }
        self.reaped.replace(reaped);
        any
    }

    fn rung(&self, user_data: u64, flags: u32) {
        let fd = if user_data == WOKEN { self.wake_fd } else { self.drain_fd };
        if user_data == WOKEN {
            super::clock::drain_eventfd(fd);
        }
        if !cqueue::more(flags) {
            self.watch(fd, user_data);
        }
    }

    fn complete(&self, key: usize, result: i32) {
        let mut ops = self.ops.borrow_mut();
        let Some(op) = ops.get_mut(key) else {
            unreachable!("a completion for request {key}, which does not exist")
        };
        match std::mem::replace(&mut op.state, OpState::Done(result)) {
            OpState::InFlight(waker) => {
                drop(ops);
                if let Some(w) = waker {
                    w.wake();
                }
            }
            OpState::Orphaned => {
                let op = ops.remove(key);
                drop(ops);
                if let (Some(Op { keep: Keep::Accept(_), .. }), true) = (&op, result >= 0) {
                    // SAFETY: the accepted connection's fd, which nobody else has heard of.
                    drop(unsafe { OwnedFd::from_raw_fd(result) });
                }
            }
            OpState::Done(_) => unreachable!("request {key} completed twice"),
        }
    }

    /// Cancels what is left and waits for it. The tasks are gone already.
    pub(super) fn finish(&self) {
        // Storage answers within seconds; sockets at once, cancelled as they are.
        const TRIES: u32 = 100;
        for _ in 0..TRIES {
            self.submit_and_reap();
            if self.ops.borrow().len() == 0 {
                return;
            }
            self.wait(Some(100_000_000));
        }
        let left = std::mem::take(&mut *self.ops.borrow_mut());
        tracing::warn!(
            requests = left.len(),
            "requests still in the kernel at stop; their memory is left to it"
        );
        std::mem::forget(left);
    }
}

/// Registers buffer memory with the ring, as much as RLIMIT_MEMLOCK lets it, and makes it this thread's first choice.
fn register_arena(uring: &IoUring) -> Option<Arc<Arena>> {
    static REFUSAL_LOGGED: AtomicBool = AtomicBool::new(false);
    let mut len = ARENA_BYTES;
    loop {
        let registered = Arena::map(len).and_then(|arena| {
            // SAFETY: the arena stays mapped while `Ring` holds it, and the ring is closed first (`Ring`'s field order).
            unsafe { uring.submitter().register_buffers(&[arena.iovec()]) }.map(|()| arena)
        });
        match registered {
            Ok(arena) => {
                adopt_arena(&arena);
                return Some(arena);
            }
            Err(_) if len > ARENA_MIN_BYTES => len /= 2,
            Err(e) => {
                if !REFUSAL_LOGGED.swap(true, Ordering::Relaxed) {
                    tracing::info!(cause = %e, "buffers are not registered with io_uring: raise RLIMIT_MEMLOCK (ulimit -l) for a little less CPU per request");
                }
                return None;
            }
        }
    }
}

/// A request that the kernel works on; yields its result and gives its memory back.
pub(crate) struct Flight {
    reactor: Rc<Reactor>,
    key: usize,
    done: bool,
}

/// Starts a request on the current reactor's ring.
///
/// # Safety
/// The memory that the entry points to must be heap memory owned by `keep` (or static), and its fd must stay open until
/// the request is submitted: owned by `keep`, or by the caller until this future is dropped.
pub(crate) unsafe fn start(entry: squeue::Entry, keep: Keep) -> Flight {
    let reactor = context::current();
    let ring = &reactor.real().ring;
    let key = ring.ops.borrow_mut().insert(Op { state: OpState::InFlight(None), keep });
    let entry = entry.user_data(key as u64);
    // SAFETY: the caller's promise; `keep` is in `ops` until the completion.
    unsafe { ring.push(&entry) };
    Flight { reactor, key, done: false }
}

impl Future for Flight {
    type Output = (io::Result<u32>, Keep);
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut ops = self.reactor.real().ring.ops.borrow_mut();
        let op = ops.get_mut(self.key).expect("an entry stays until its future has seen the result");
        match &mut op.state {
            OpState::InFlight(waker) => {
                match waker {
                    Some(w) => w.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            OpState::Done(result) => {
                let result = *result;
                let keep = ops.remove(self.key).map_or(Keep::Nothing, |op| op.keep);
                drop(ops);
                self.done = true;
                let result = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                Poll::Ready((result, keep))
            }
            OpState::Orphaned => unreachable!("orphaned only when the future is dropped"),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let ring = &self.reactor.real().ring;
        let mut ops = ring.ops.borrow_mut();
        let Some(op) = ops.get_mut(self.key) else { return };
        if let OpState::Done(result) = op.state {
            // Completed, and nobody came to see: as if orphaned.
            op.state = OpState::Orphaned;
            drop(ops);
            ring.complete(self.key, result);
            return;
        }
        let waker = std::mem::replace(&mut op.state, OpState::Orphaned);
        drop(ops);
        drop(waker);
        let cancel = opcode::AsyncCancel::new(self.key as u64).build().user_data(CANCELLED);
        // SAFETY: the entry points to no memory.
        unsafe { ring.push(&cancel) };
        // At once: the caller may close the fd after this.
        ring.submit();
    }
}

impl Reactor {
    pub(super) fn finish_ring(&self) {
        self.real().ring.finish();
    }
}
