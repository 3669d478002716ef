//! A controller: one per device and process, shared by all reactors. Its supervisor runs on the reactor that brought
//! it up, its I/O queues each on a reactor of their own ([`crate::io`]).

mod admin;
mod bringup;
mod maintenance;
mod reset;
mod supervisor;

pub use maintenance::{Erase, FirmwareSlots, Health, SanitizeState};

use crate::dma::DmaRegion;
use crate::error::{NvmeError, Result};
use crate::queue::Shadow;
use crate::recovery::{Event, Limits};
use crate::spec::identify::IdentifyController;
use crate::spec::registers::{self, CC, CSTS, Cap, Csts};
use crate::transport::Transport;
use admin::Admin;
use basalt_reactor::CoreId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A read, write or flush.
    pub command: Duration,
    /// From an abort to the reset.
    pub abort: Duration,
    /// An admin command.
    pub admin: Duration,
    /// How often the supervisor looks at the controller, and queues at what is overdue.
    pub look: Duration,
    pub limits: Limits,
}

impl Default for Timing {
    /// As long as the Linux driver waits for I/O; twice as long for admin commands.
    fn default() -> Self {
        Timing {
            command: Duration::from_secs(30),
            abort: Duration::from_secs(5),
            admin: Duration::from_secs(60),
            look: Duration::from_millis(250),
            limits: Limits::default(),
        }
    }
}

/// Entries of each I/O queue, where the controller has as many.
const IO_ENTRIES: u16 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Running,
    Resetting,
    Failed,
    Gone,
}

pub struct Controller {
    /// Unique in this process.
    id: u64,
    transport: Arc<dyn Transport>,
    timing: Timing,
    cap: Cap,
    admin: Mutex<Admin>,
    identity: Mutex<Box<IdentifyController>>,
    queues: Mutex<Queues>,
    shadow: Mutex<Option<ShadowBuffers>>,
    mode: AtomicU8,
    failure: Mutex<String>,
    reports: Mutex<Vec<Event>>,
    /// Namespaces that are open as drives.
    open: Mutex<BTreeSet<u32>>,
}

#[derive(Default)]
struct Queues {
    granted: u16,
    existing: BTreeMap<u16, QueuePlace>,
}

/// What a reset needs to make a queue anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuePlace {
    pub(crate) core: CoreId,
    pub(crate) entries: u16,
    pub(crate) sq_iova: u64,
    pub(crate) cq_iova: u64,
    pub(crate) vector: Option<u16>,
}

#[derive(Clone)]
struct ShadowBuffers {
    shadow: Arc<DmaRegion>,
    event_index: Arc<DmaRegion>,
}

/// Reports kept until the supervisor looks; what is beyond is reported again by the next look.
const REPORTS_MAX: usize = 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    fn new(
        transport: Arc<dyn Transport>,
        timing: Timing,
        cap: Cap,
        admin: Admin,
        identity: Box<IdentifyController>,
    ) -> Controller {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Controller {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            transport,
            timing,
            cap,
            admin: Mutex::new(admin),
            identity: Mutex::new(identity),
            queues: Mutex::default(),
            shadow: Mutex::default(),
            mode: AtomicU8::new(Mode::Resetting as u8),
            failure: Mutex::default(),
            reports: Mutex::default(),
            open: Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        self.transport.name()
    }
    pub fn model(&self) -> String {
        lock(&self.identity).model()
    }
    pub fn serial(&self) -> String {
        lock(&self.identity).serial()
    }
    pub fn firmware(&self) -> String {
        lock(&self.identity).firmware()
    }
    pub fn identity(&self) -> IdentifyController {
        **lock(&self.identity)
    }
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }
    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }
    pub(crate) fn cap(&self) -> Cap {
        self.cap
    }
    pub(crate) fn io_entries(&self) -> u16 {
        self.cap.max_queue_entries().min(IO_ENTRIES.into()) as u16
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Running,
            1 => Mode::Resetting,
            2 => Mode::Failed,
            _ => Mode::Gone,
        }
    }
    fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }

    /// Why nothing can be asked of it now.
    pub(crate) fn trouble(&self) -> Option<NvmeError> {
        let name = self.name().to_owned();
        match self.mode() {
            Mode::Running => None,
            Mode::Resetting => Some(NvmeError::Resetting(name)),
            Mode::Failed => Some(NvmeError::Failed(name, lock(&self.failure).clone())),
            Mode::Gone => Some(NvmeError::Gone(name)),
        }
    }

    pub(crate) fn status(&self) -> Csts {
        Csts(self.transport.read32(CSTS))
    }

    /// Tells the supervisor; it acts at its next look.
    pub(crate) fn report(&self, event: Event) {
        let mut reports = lock(&self.reports);
        if reports.len() < REPORTS_MAX {
            reports.push(event);
        }
    }

    /// Places of a queue's doorbells in the shadow buffers.
    pub(crate) fn shadows(&self, qid: u16) -> (Option<Shadow>, Option<Shadow>) {
        let buffers = lock(&self.shadow).clone();
        let stride = self.cap.doorbell_stride_bytes() as usize;
        let at = |n: usize| {
            let b = buffers.as_ref()?;
            Some(Shadow { shadow: b.shadow.clone(), event_index: b.event_index.clone(), offset: n * stride })
        };
        (at(2 * usize::from(qid)), at(2 * usize::from(qid) + 1))
    }

    /// A queue number that is used again must not find its predecessor's doorbells.
    pub(crate) fn clear_shadows(&self, qid: u16) {
        if let Some(buffers) = &*lock(&self.shadow) {
            let len = 2 * self.cap.doorbell_stride_bytes() as usize;
            buffers.shadow.zero(usize::from(qid) * len, len);
            buffers.event_index.zero(usize::from(qid) * len, len);
        }
    }

    /// Claims a namespace for one drive.
    pub(crate) fn claim(&self, nsid: u32) -> bool {
        lock(&self.open).insert(nsid)
    }
    pub(crate) fn release(&self, nsid: u32) {
        lock(&self.open).remove(&nsid);
    }
    fn unused(&self) -> Result<()> {
        if lock(&self.open).is_empty() { Ok(()) } else { Err(NvmeError::InUse(self.name().to_owned())) }
    }

    pub(crate) fn dma_error(&self, cause: crate::dma::DmaError) -> NvmeError {
        NvmeError::Dma { name: self.name().to_owned(), cause }
    }
}

impl Drop for Controller {
    /// Normal shutdown (Base 3.6.1), so that the next start finds no unsafe one in the health log.
    fn drop(&mut self) {
        if matches!(self.mode(), Mode::Gone) || self.status().gone() {
            return;
        }
        let cc = self.transport.read32(CC);
        self.transport.write32(CC, cc & !(0b11 << 14) | registers::CC_SHUTDOWN_NORMAL);
        // RTD3E says how long it may take; nobody waits longer than this at a stop.
        const LOOKS: u32 = 2_000_000;
        for _ in 0..LOOKS {
            let csts = self.status();
            if csts.gone() || csts.shutdown_complete() {
                break;
            }
            self.transport.relax();
        }
        self.transport.write32(CC, 0);
    }
}
