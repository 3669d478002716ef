//! An I/O queue pair on its reactor: submission from tasks, one doorbell per turn, completions by polling, an interrupt
//! only to be woken. All channels of a reactor to one controller share it.

mod bounce;
mod ops;
mod watch;

pub(crate) use bounce::{BOUNCE_BYTES, BouncePiece};
pub(crate) use ops::{Command, Ended, Keep};

use crate::controller::{Controller, Mode, QueuePlace};
use crate::dma::{Iova, Mapping};
use crate::error::{NvmeError, Result};
use crate::pointer::Segment;
use crate::queue::{Cid, DataStyle, Doorbell, QueuePair, SubmitError};
use crate::recovery::Event;
use crate::spec::Sqe;
use basalt_reactor::event::EventFd;
use basalt_reactor::sync::Notify;
use basalt_reactor::{BeforeSleep, CoreId, PollRegistration, PollSource, buf, register_poll_source};
use bounce::Bounce;
use ops::Ops;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Completions handled per turn.
const REAP_MAX: usize = 128;
/// Tries of one command, resets and aborts included.
const ATTEMPTS_MAX: u8 = 3;
/// Interrupts that find the reactor awake before they are masked.
const NEEDLESS_MAX: u32 = 4;

thread_local! {
    /// Queues of this thread, for messages from supervisors on other reactors.
    static LOCAL: RefCell<Vec<Weak<IoQueue>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a queue of this thread, if it is still there.
pub(crate) fn with_local(controller: u64, qid: u16, f: impl FnOnce(&IoQueue)) {
    let found = LOCAL.with_borrow(|all| {
        all.iter().filter_map(Weak::upgrade).find(|q| q.controller.id() == controller && q.qid == qid)
    });
    if let Some(queue) = found {
        f(&queue);
    }
}

pub(crate) struct IoQueue {
    controller: Arc<Controller>,
    core: CoreId,
    qid: u16,
    style: DataStyle,
    /// Freed only when nothing is in flight.
    pair: RefCell<ManuallyDrop<QueuePair<u32>>>,
    ops: RefCell<ManuallyDrop<Ops>>,
    mappings: RefCell<Vec<Mapping>>,
    /// Arena generation that `mappings` are of.
    mapped_generation: Cell<u64>,
    bounce: Bounce,
    /// Notified when there is room, or an end to waiting.
    room: Notify,
    /// During resets.
    halted: Cell<bool>,
    over: Cell<bool>,
    users: Cell<usize>,
    registration: RefCell<Option<PollRegistration>>,
    wake: Option<Wake>,
    watchdog_runs: Cell<bool>,
    /// The time at the watchdog's last look, for deadlines.
    coarse_now_ns: Cell<u64>,
    me: Weak<IoQueue>,
}

/// The queue's interrupt.
struct Wake {
    vector: u16,
    event: Arc<EventFd>,
    masked: Cell<bool>,
    /// The reactor went to sleep counting on it.
    wanted: Cell<bool>,
    needless: Cell<u32>,
}

/// A user of the queue; the last one to go closes it.
pub(crate) struct QueueUser {
    queue: Rc<IoQueue>,
}

impl std::ops::Deref for QueueUser {
    type Target = Rc<IoQueue>;
    fn deref(&self) -> &Rc<IoQueue> {
        &self.queue
    }
}

impl Drop for QueueUser {
    fn drop(&mut self) {
        let left = self.queue.users.get() - 1;
        self.queue.users.set(left);
        if left == 0 && basalt_reactor::on_reactor() {
            drop(basalt_reactor::spawn(watch::close(self.queue.clone())));
        }
    }
}

impl IoQueue {
    /// The current reactor's queue to this controller, made when there is none.
    pub(crate) fn open(controller: &Arc<Controller>) -> Result<QueueUser> {
        if let Some(trouble) = controller.trouble().filter(|t| !matches!(t, NvmeError::Resetting(_))) {
            return Err(trouble);
        }
        let core = basalt_reactor::current_core();
        let existing = LOCAL.with_borrow_mut(|all| {
            all.retain(|q| q.strong_count() > 0);
            let fits = |q: &Rc<IoQueue>| {
                Arc::ptr_eq(&q.controller, controller) && q.core == core && q.users.get() > 0
            };
            all.iter().filter_map(Weak::upgrade).find(fits)
        });
        let queue = match existing {
            Some(queue) => queue,
            None => Self::make(controller, core)?,
        };
        queue.users.set(queue.users.get() + 1);
        Ok(QueueUser { queue })
    }

    fn make(controller: &Arc<Controller>, core: CoreId) -> Result<Rc<IoQueue>> {
        let qid = controller.reserve_queue()?;
        let entries = controller.io_entries();
        let transport = controller.transport();
        let failed = |cause| controller.dma_error(cause);
        let memory = QueuePair::<u32>::allocate(transport.dma(), entries).map_err(failed)?;
        let bounce = Bounce::new(transport.dma()).map_err(failed)?;
        let bell = |offset| transport.doorbell(offset).map(Doorbell::new);
        let cap = controller.cap();
        let bells = bell(cap.submission_doorbell(qid)).zip(bell(cap.completion_doorbell(qid)));
        let Some((sq, cq)) = bells else {
            return Err(NvmeError::NoQueue { name: controller.name().to_owned(), granted: qid - 1 });
        };
        let mut pair = QueuePair::new(qid, entries, memory, sq, cq);
        let event = transport.event(qid);
        let place = QueuePlace {
            core,
            entries,
            sq_iova: pair.sq_iova().0,
            cq_iova: pair.cq_iova().0,
            vector: event.is_some().then_some(qid),
        };
        controller.open_queue(qid, place)?;
        let (sq_shadow, cq_shadow) = controller.shadows(qid);
        pair.set_shadow(sq_shadow, cq_shadow);
        let style = if controller.identity().takes_sgl() { DataStyle::Sgl } else { DataStyle::Prp };
        let wake = event.map(|event| Wake {
            vector: qid,
            event,
            masked: Cell::new(false),
            wanted: Cell::new(false),
            needless: Cell::new(0),
        });
        let queue = Rc::new_cyclic(|me| IoQueue {
            controller: controller.clone(),
            core,
            qid,
            style,
            pair: RefCell::new(ManuallyDrop::new(pair)),
            ops: RefCell::new(ManuallyDrop::new(Ops::default())),
            mappings: RefCell::default(),
            mapped_generation: Cell::new(u64::MAX),
            bounce,
            room: Notify::new(),
            halted: Cell::new(false),
            over: Cell::new(false),
            users: Cell::new(0),
            registration: RefCell::default(),
            wake,
            watchdog_runs: Cell::new(false),
            coarse_now_ns: Cell::new(0),
            me: me.clone(),
        });
        *queue.registration.borrow_mut() = Some(register_poll_source(queue.clone()));
        LOCAL.with_borrow_mut(|all| all.push(Rc::downgrade(&queue)));
        if !controller.register_queue(qid, place) {
            // A reset began between making and registering: it did not know of this queue.
            queue.halted.set(true);
            controller.report(Event::Wanted("a queue was opened while it was reset".to_owned()));
        }
        if queue.wake.is_some() {
            drop(basalt_reactor::spawn(watch::interrupts(Rc::downgrade(&queue))));
        }
        Ok(queue)
    }

    pub(crate) fn bounce(&self) -> &Bounce {
        &self.bounce
    }

    /// Where the controller sees this memory, if it does.
    #[inline]
    pub(crate) fn translate(&self, at: *const u8, len: usize) -> Option<Iova> {
        let found = self.mappings.borrow().iter().find_map(|m| m.translate(at.addr(), len));
        if found.is_some() {
            return found;
        }
        self.find_mapping(at, len)
    }

    #[cold]
    fn find_mapping(&self, at: *const u8, len: usize) -> Option<Iova> {
        // Only a new arena can change a miss.
        let generation = buf::arena_generation();
        if self.mapped_generation.replace(generation) == generation {
            return None;
        }
        let mappings = self.controller.transport().dma().buffers();
        let found = mappings.iter().find_map(|m| m.translate(at.addr(), len));
        self.mappings.replace(mappings);
        found
    }

    /// Puts a command into the queue, waiting for room, and returns its future. `keep` holds the memory that `data`
    /// names until the controller is done with it.
    pub(crate) async fn submit(&self, sqe: Sqe, data: &[Segment], keep: Keep) -> ops::Command {
        let mut keep = keep;
        loop {
            if self.over.get() {
                return ops::Command::ended(self.rc(), Ended::Over, keep);
            }
            if !self.halted.get() {
                match self.try_submit(&sqe, data, keep) {
                    Ok(command) => return command,
                    Err(back) => keep = back,
                }
            }
            self.room.notified().await;
        }
    }

    /// The same without waiting: `keep` comes back when there is no room now.
    #[inline]
    pub(crate) fn submit_now(
        &self,
        sqe: &Sqe,
        data: &[Segment],
        keep: Keep,
    ) -> std::result::Result<ops::Command, Keep> {
        if self.halted.get() || self.over.get() {
            return Err(keep);
        }
        self.try_submit(sqe, data, keep)
    }

    #[inline]
    fn try_submit(&self, sqe: &Sqe, data: &[Segment], keep: Keep) -> std::result::Result<ops::Command, Keep> {
        let mut pair = self.pair.borrow_mut();
        if pair.room() == 0 {
            return Err(keep);
        }
        let key = self.ops.borrow_mut().insert(keep);
        match pair.submit(*sqe, data, self.style_for(data), self.deadline_ns(), key) {
            Ok(_) => Ok(ops::Command::new(self.rc(), key)),
            Err((SubmitError::Full, key)) => Err(self.ops.borrow_mut().take_back(key)),
            Err((SubmitError::Pointer(e), key)) => {
                // The channel cuts requests so that this cannot be; if it does, the request fails and nothing else.
                tracing::error!("NVMe {}: a request could not be described: {e}", self.controller.name());
                let keep = self.ops.borrow_mut().take_back(key);
                Ok(ops::Command::ended(self.rc(), Ended::Undescribable, keep))
            }
        }
    }

    /// Two commands as one; waits for room.
    pub(crate) async fn submit_fused(
        &self,
        sqes: [Sqe; 2],
        data: [&[Segment]; 2],
        keep: [Keep; 2],
    ) -> [ops::Command; 2] {
        let [one, two] = keep;
        while !self.over.get() && (self.halted.get() || self.pair.borrow().room() < 2) {
            self.room.notified().await;
        }
        if self.over.get() {
            return [one, two].map(|k| ops::Command::ended(self.rc(), Ended::Over, k));
        }
        let keys = {
            let mut ops = self.ops.borrow_mut();
            [ops.insert(one), ops.insert(two)]
        };
        let deadline_ns = self.deadline_ns();
        let sent = self.pair.borrow_mut().submit_fused(sqes, data, DataStyle::Prp, deadline_ns, keys);
        match sent {
            Ok(_) => keys.map(|key| ops::Command::new(self.rc(), key)),
            Err((_, keys)) => keys.map(|key| {
                let keep = self.ops.borrow_mut().take_back(key);
                ops::Command::ended(self.rc(), Ended::Undescribable, keep)
            }),
        }
    }

    /// SGLs where they are shorter: PRPs need no list up to two pages.
    #[inline]
    fn style_for(&self, data: &[Segment]) -> DataStyle {
        match (self.style, data) {
            (DataStyle::Sgl, [one]) if one.len > 8192 => DataStyle::Sgl,
            (DataStyle::Sgl, [_, _, ..]) if data.len() <= crate::queue::LIST_BYTES / 16 => DataStyle::Sgl,
            _ => DataStyle::Prp,
        }
    }

    #[inline]
    fn deadline_ns(&self) -> u64 {
        if !self.watchdog_runs.get() {
            self.start_watchdog();
        }
        self.coarse_now_ns.get() + self.controller.timing().command.as_nanos() as u64
    }

    #[cold]
    fn start_watchdog(&self) {
        self.coarse_now_ns.set(basalt_reactor::now().0);
        self.watchdog_runs.set(true);
        drop(basalt_reactor::spawn(watch::watchdog(self.me.clone())));
    }

    #[inline]
    fn rc(&self) -> Rc<IoQueue> {
        self.me.upgrade().expect("a queue in use is alive")
    }

    /// For supervisors: no more doorbells, no more completions.
    pub(crate) fn halt(&self) {
        self.halted.set(true);
    }

    /// The controller is disabled: empty rings, what may be sent again is, the rest ends.
    pub(crate) fn restart(&self) {
        let deadline_ns = basalt_reactor::now().0 + self.controller.timing().command.as_nanos() as u64;
        let lost = self.pair.borrow_mut().restart(deadline_ns, |f| f.attempts < ATTEMPTS_MAX);
        self.end(lost, Ended::Reset);
    }

    fn end(&self, keys: Vec<u32>, how: Ended) {
        let mut ops = self.ops.borrow_mut();
        for key in keys {
            ops.finish(key, how);
        }
    }

    /// The controller has the queue again.
    pub(crate) fn resume(&self) {
        let (sq_shadow, cq_shadow) = self.controller.shadows(self.qid);
        {
            let mut pair = self.pair.borrow_mut();
            pair.set_shadow(sq_shadow, cq_shadow);
            pair.ring();
        }
        if let Some(wake) = &self.wake {
            // A reset unmasks vectors.
            wake.masked.set(false);
        }
        self.halted.set(false);
        self.room.notify_all();
    }

    /// Nothing will be answered any more.
    pub(crate) fn give_up(&self) {
        self.over.set(true);
        let lost = self.pair.borrow_mut().restart(0, |_| false);
        self.end(lost, Ended::Over);
        self.room.notify_all();
    }

    pub(crate) fn mark_abort(&self, cid: Cid) {
        let deadline_ns = basalt_reactor::now().0 + self.controller.timing().abort.as_nanos() as u64;
        self.pair.borrow_mut().mark_abort(cid, deadline_ns);
    }

    fn in_flight(&self) -> usize {
        self.pair.borrow().in_flight()
    }
}

impl PollSource for IoQueue {
    #[inline]
    fn poll(&self) -> bool {
        if self.halted.get() || self.over.get() {
            return false;
        }
        let mut pair = self.pair.borrow_mut();
        // What tasks have submitted since the last turn, with one write.
        pair.ring();
        let mut ops = self.ops.borrow_mut();
        let reaped = pair.reap(REAP_MAX, |c| ops.finish(c.token, Ended::Answered { status: c.status }));
        drop(ops);
        match reaped {
            Ok(0) => false,
            Ok(n) => {
                for _ in 0..n.min(self.room.waiter_count()) {
                    self.room.notify_one();
                }
                true
            }
            Err(violation) => {
                // Stop trusting it until the supervisor has reset it.
                self.halted.set(true);
                self.controller.report(Event::Violation(violation));
                false
            }
        }
    }

    fn before_sleep(&self) -> BeforeSleep {
        if self.halted.get() || self.over.get() || self.in_flight() == 0 {
            return BeforeSleep::Woken;
        }
        let Some(wake) = &self.wake else { return BeforeSleep::Unannounced };
        wake.wanted.set(true);
        if wake.masked.replace(false) {
            // What came while it was masked rings now.
            self.controller.transport().mask(wake.vector, false);
        }
        if self.pair.borrow().has_completion() { BeforeSleep::Busy } else { BeforeSleep::Woken }
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        let busy = self.in_flight() > 0;
        // With commands in flight the controller may still write: their memory is left to it.
        if !busy || self.controller.mode() == Mode::Gone {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe {
                ManuallyDrop::drop(&mut self.ops.borrow_mut());
                ManuallyDrop::drop(&mut self.pair.borrow_mut());
            }
        }
    }
}
