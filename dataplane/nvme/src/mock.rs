//! A controller in memory. It reads submission rings and writes completions through the same addresses, doorbells and
//! registers that a real one uses, and it can be told to misbehave.

mod admin;
mod execute;
mod memory;

pub use memory::IOVA_OFFSET;

use crate::dma::DmaSpace;
use crate::queue::DoorbellRegister;
use crate::spec::registers::{self, Csts};
use crate::spec::{Cqe, Sqe, Status};
use crate::transport::Transport;
use basalt_reactor::event::EventFd;
use memory::MockMemory;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the mock does with one command instead of answering it as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never answers; forgets it at a reset.
    Swallow,
    Twice,
    WrongCid,
    WrongQueue,
    BadHead,
    Status(Status),
    /// Carries it out, and answers after so many other commands.
    Late(u32),
    /// Does it and leaves all ones behind: the device is gone.
    Leave,
    /// CSTS.CFS.
    Die,
}

/// Decides about each command: queue number and entry.
pub type FaultPlan = Box<dyn FnMut(u16, &Sqe) -> Option<Fault> + Send>;

#[derive(Clone, Debug)]
pub struct MockConfig {
    pub namespaces: Vec<MockNamespace>,
    /// I/O queue pairs.
    pub queues: u16,
    pub queue_entries: u16,
    /// MDTS.
    pub max_transfer_shift: u8,
    pub sgl: bool,
    pub shadow_doorbells: bool,
    pub fused: bool,
    pub compare: bool,
    pub write_zeroes: bool,
    pub volatile_cache: bool,
    /// Whether buffers outside of the driver's own memory are mapped; else it has to copy.
    pub maps_buffers: bool,
    /// Whether an abort finds its command.
    pub aborts: bool,
}

impl Default for MockConfig {
    fn default() -> Self {
        MockConfig {
            namespaces: vec![MockNamespace::default()],
            queues: 4,
            queue_entries: 128,
            max_transfer_shift: 5,
            sgl: false,
            shadow_doorbells: false,
            fused: false,
            compare: true,
            write_zeroes: true,
            volatile_cache: true,
            maps_buffers: true,
            aborts: true,
        }
    }
}

#[derive(Clone, Debug)]
pub struct MockNamespace {
    pub size_bytes: u64,
    pub block_bytes: u32,
    pub metadata_bytes: u16,
    pub protection: u8,
    pub zoned: bool,
}

impl Default for MockNamespace {
    fn default() -> Self {
        MockNamespace {
            size_bytes: 4 << 20,
            block_bytes: 4096,
            metadata_bytes: 0,
            protection: 0,
            zoned: false,
        }
    }
}

pub struct Mock {
    config: MockConfig,
    memory: MockMemory,
    /// The doorbell page.
    doorbells: Arc<Vec<AtomicU32>>,
    state: Mutex<State>,
    departed: AtomicBool,
}

struct State {
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    gone: bool,
    /// Does not become ready any more.
    stuck: bool,
    submission: Vec<Option<Submission>>,
    completion: Vec<Option<Completions>>,
    shadow: Option<(u64, u64)>,
    media: Vec<Vec<u8>>,
    events: VecDeque<u16>,
    pending_events: VecDeque<u32>,
    swallowed: Vec<(u16, u16)>,
    late: Vec<(u32, u16, Cqe)>,
    faults: Option<FaultPlan>,
    resets: u32,
    log: MockLog,
}

/// What the mock has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MockLog {
    pub commands: u64,
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub aborts: u64,
    pub sgl: u64,
    pub firmware_bytes: u64,
    pub formats: u64,
}

#[derive(Clone, Copy)]
struct Submission {
    base: u64,
    entries: u16,
    head: u16,
}

#[derive(Clone, Copy)]
struct Completions {
    base: u64,
    entries: u16,
    tail: u16,
    phase: bool,
}

/// Commands looked at in one step.
const STEP_COMMANDS: usize = 256;

impl Mock {
    pub fn new(config: MockConfig) -> Arc<Mock> {
        let media = config.namespaces.iter().map(|n| vec![0; n.size_bytes as usize]).collect();
        let state = State {
            cc: 0,
            csts: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            gone: false,
            stuck: false,
            submission: vec![None; 65],
            completion: vec![None; 65],
            shadow: None,
            media,
            events: VecDeque::new(),
            pending_events: VecDeque::new(),
            swallowed: Vec::new(),
            late: Vec::new(),
            faults: None,
            resets: 0,
            log: MockLog::default(),
        };
        let doorbells = Arc::new((0..1024).map(|_| AtomicU32::new(0)).collect());
        let memory = MockMemory { maps_buffers: config.maps_buffers };
        Arc::new(Mock {
            config,
            memory,
            doorbells,
            state: Mutex::new(state),
            departed: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_faults(&self, plan: FaultPlan) {
        self.state().faults = Some(plan);
    }
    pub fn clear_faults(&self) {
        self.state().faults = None;
    }
    pub fn log(&self) -> MockLog {
        self.state().log
    }
    /// Times the controller has been enabled.
    pub fn enables(&self) -> u32 {
        self.state().resets
    }
    /// Pulls the device: registers read as all ones, nothing is answered.
    pub fn pull(&self) {
        self.state().gone = true;
    }
    /// The bus announces that the device is wanted back.
    pub fn announce_departure(&self) {
        self.departed.store(true, Ordering::Release);
    }
    /// Never becomes ready again.
    pub fn jam(&self) {
        self.state().stuck = true;
    }
    /// An asynchronous event, as its completion's dword 0.
    pub fn raise_event(&self, dw0: u32) {
        self.state().pending_events.push_back(dw0);
    }
    /// The bytes of a namespace (0-based index).
    pub fn media(&self, namespace: usize, offset: u64, len: usize) -> Vec<u8> {
        self.state().media[namespace][offset as usize..][..len].to_vec()
    }

    /// Fetches and answers commands; whether there were any.
    pub fn step(&self) -> bool {
        let mut state = self.state();
        if state.gone || state.csts & 3 != 1 {
            return false;
        }
        let mut worked = 0;
        for qid in 0..state.submission.len() as u16 {
            while worked < STEP_COMMANDS && self.step_queue(&mut state, qid) {
                worked += 1;
                if state.gone || state.csts & 2 != 0 {
                    return true;
                }
            }
        }
        worked += self.deliver_events(&mut state);
        worked += self.deliver_late(&mut state, worked as u32);
        worked > 0
    }

    /// As doorbell registers are numbered: submission queue tails are even, completion queue heads odd.
    fn doorbell_value(&self, state: &State, index: usize) -> u16 {
        match state.shadow {
            // The admin queue's are not shadowed (Base annex B.5).
            Some((shadow, event_index)) if index >= 2 => {
                let value = self.memory.load32(shadow + 4 * index as u64);
                self.memory.store32(event_index + 4 * index as u64, value);
                // Read again, as the driver may have moved on without ringing.
                self.memory.load32(shadow + 4 * index as u64) as u16
            }
            _ => self.doorbells[index].load(Ordering::Acquire) as u16,
        }
    }

    fn step_queue(&self, state: &mut State, qid: u16) -> bool {
        let Some(sq) = state.submission[usize::from(qid)] else { return false };
        let tail = self.doorbell_value(state, 2 * usize::from(qid));
        if sq.head == tail || tail >= sq.entries || self.completion_full(state, qid) {
            return false;
        }
        let sqe: Sqe = self.memory.read_struct(sq.base + 64 * u64::from(sq.head));
        let head = if sq.head + 1 == sq.entries { 0 } else { sq.head + 1 };
        state.submission[usize::from(qid)] = Some(Submission { head, ..sq });
        state.log.commands += 1;
        let fault = state.faults.as_mut().and_then(|plan| plan(qid, &sqe));
        match fault {
            Some(Fault::Swallow) => {
                state.swallowed.push((qid, sqe.cid.get()));
                return true;
            }
            Some(Fault::Leave) => {
                state.gone = true;
                return true;
            }
            Some(Fault::Die) => {
                state.csts |= 2;
                return true;
            }
            _ => {}
        }
        let answer = match fault {
            Some(Fault::Status(status)) => Some((status, 0)),
            _ if qid == 0 => self.admin(state, &sqe),
            _ => Some((self.execute(state, &sqe), 0)),
        };
        let Some((status, dw0)) = answer else { return true };
        let mut cqe = Cqe {
            dw0: dw0.into(),
            dw1: 0.into(),
            sq_head: head.into(),
            sq_id: qid.into(),
            cid: sqe.cid,
            phase_and_status: status.to_cqe().into(),
        };
        match fault {
            Some(Fault::Twice) => self.complete(state, qid, cqe),
            Some(Fault::WrongCid) => cqe.cid = (cqe.cid.get() ^ 0x0155).into(),
            Some(Fault::WrongQueue) => cqe.sq_id = (qid + 1).into(),
            Some(Fault::BadHead) => cqe.sq_head = sq.entries.into(),
            Some(Fault::Late(after)) => {
                state.late.push((after, qid, cqe));
                return true;
            }
            _ => {}
        }
        self.complete(state, qid, cqe);
        true
    }

    fn completion_full(&self, state: &State, qid: u16) -> bool {
        let Some(cq) = state.completion[usize::from(qid)] else { return true };
        let head = self.doorbell_value(state, 2 * usize::from(qid) + 1);
        let used = (cq.tail + cq.entries - head % cq.entries) % cq.entries;
        used + 1 >= cq.entries
    }

    fn complete(&self, state: &mut State, qid: u16, mut cqe: Cqe) {
        let Some(cq) = &mut state.completion[usize::from(qid)] else { return };
        cqe.phase_and_status = (cqe.phase_and_status.get() & !1 | u16::from(cq.phase)).into();
        self.memory.write_cqe(cq.base + 16 * u64::from(cq.tail), &cqe);
        cq.tail += 1;
        if cq.tail == cq.entries {
            cq.tail = 0;
            cq.phase = !cq.phase;
        }
    }

    fn deliver_events(&self, state: &mut State) -> usize {
        let mut n = 0;
        while let (Some(&dw0), Some(&cid)) = (state.pending_events.front(), state.events.front()) {
            state.pending_events.pop_front();
            state.events.pop_front();
            let head = state.submission[0].map_or(0, |s| s.head);
            let cqe = Cqe { dw0: dw0.into(), sq_head: head.into(), cid: cid.into(), ..Cqe::default() };
            self.complete(state, 0, cqe);
            n += 1;
        }
        n
    }

    fn deliver_late(&self, state: &mut State, commands: u32) -> usize {
        let mut due = Vec::new();
        state.late.retain_mut(|(left, qid, cqe)| {
            *left = left.saturating_sub(commands.max(1));
            if *left == 0 {
                due.push((*qid, *cqe));
            }
            *left > 0
        });
        let n = due.len();
        for (qid, cqe) in due {
            self.complete(state, qid, cqe);
        }
        n
    }

    fn set_cc(&self, state: &mut State, cc: u32) {
        let was = state.cc & registers::CC_ENABLE != 0;
        let is = cc & registers::CC_ENABLE != 0;
        state.cc = cc;
        if was && !is {
            state.csts = 0;
            state.submission.fill(None);
            state.completion.fill(None);
            state.shadow = None;
            state.events.clear();
            state.swallowed.clear();
            state.late.clear();
            for d in self.doorbells.iter() {
                d.store(0, Ordering::Release);
            }
        }
        if !was && is && !state.stuck {
            state.resets += 1;
            let entries = |bits: u32| (bits & 0xfff) as u16 + 1;
            state.submission[0] = Some(Submission { base: state.asq, entries: entries(state.aqa), head: 0 });
            state.completion[0] = Some(Completions {
                base: state.acq,
                entries: entries(state.aqa >> 16),
                tail: 0,
                phase: true,
            });
            state.csts = 1;
        }
        if cc & registers::CC_SHUTDOWN_NORMAL != 0 {
            state.csts |= 0b10 << 2;
        }
    }

    fn cap(&self) -> u64 {
        // Contiguous queues, 1 s to ready, both command set bits.
        u64::from(self.config.queue_entries - 1) | 1 << 16 | 2 << 24 | 0x41 << 37
    }
}

impl Transport for Mock {
    fn name(&self) -> &str {
        "mock"
    }
    fn read32(&self, offset: u32) -> u32 {
        let state = self.state();
        if state.gone {
            return registers::GONE_32;
        }
        match offset {
            registers::VS => 0x0002_0000,
            registers::CC => state.cc,
            registers::CSTS => Csts(state.csts).0,
            _ => 0,
        }
    }
    fn read64(&self, offset: u32) -> u64 {
        match (self.state().gone, offset) {
            (true, _) => u64::MAX,
            (false, registers::CAP) => self.cap(),
            _ => 0,
        }
    }
    fn write32(&self, offset: u32, value: u32) {
        let mut state = self.state();
        match offset {
            _ if state.gone => {}
            registers::CC => self.set_cc(&mut state, value),
            registers::AQA => state.aqa = value,
            _ => {}
        }
    }
    fn write64(&self, offset: u32, value: u64) {
        let mut state = self.state();
        match offset {
            registers::ASQ => state.asq = value,
            registers::ACQ => state.acq = value,
            _ => {}
        }
    }
    fn doorbell(&self, offset: u32) -> Option<DoorbellRegister> {
        let index = offset.checked_sub(registers::DOORBELLS)? as usize / 4;
        let cell = NonNull::from(self.doorbells.get(index)?);
        // SAFETY: an element of a vector that never changes its length and lives as long as the Arc given along.
        Some(unsafe { DoorbellRegister::new(cell.cast(), self.doorbells.clone()) })
    }
    fn dma(&self) -> &dyn DmaSpace {
        &self.memory
    }
    fn event(&self, _vector: u16) -> Option<Arc<EventFd>> {
        None
    }
    fn mask(&self, _vector: u16, _masked: bool) -> bool {
        false
    }
    fn reset_function(&self) -> Result<(), String> {
        Err("the mock has no bus".to_owned())
    }
    fn isolate(&self) {
        self.state().gone = true;
    }
    fn departed(&self) -> bool {
        self.departed.load(Ordering::Acquire)
    }
    fn relax(&self) {
        self.step();
    }
}
