//! From power-on to the first I/O queue (Base 3.5.1), and finding namespaces.

use super::admin::{ADMIN_ENTRIES, Admin, Data};
use super::{Controller, Mode, Queues, ShadowBuffers, Timing, lock, supervisor};
use crate::error::{NvmeError, Result};
use crate::format::Format;
use crate::queue::{Doorbell, QueuePair};
use crate::spec::Sqe;
use crate::spec::command::{ALL_NAMESPACES, Nsid, feature};
use crate::spec::identify::{
    CommandSet, IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, cns, command_set,
};
use crate::spec::registers::{ACQ, AQA, ASQ, CAP, CC, Cap, aqa, cc_enabled};
use crate::transport::Transport;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::{FromBytes, FromZeros};

/// I/O queue pairs asked for: as many as a node can have reactors.
const QUEUES_WANTED: u16 = 64;
/// Events switched on: health warnings, namespace changes, firmware activation (Base 5.27.1.9).
const EVENTS_WANTED: u32 = 0x1f | 1 << 8 | 1 << 9;
const NAMESPACES_MAX: usize = 1024;

/// An active namespace: fit to be a drive, or why not.
pub struct Namespace {
    pub nsid: u32,
    pub format: std::result::Result<Format, crate::format::Refused>,
    /// Formats that it could be given.
    pub identity: Box<IdentifyNamespace>,
}

impl Controller {
    /// Resets and initialises the controller, and starts its supervisor on the current reactor.
    pub async fn bring_up(transport: Arc<dyn Transport>, timing: Timing) -> Result<Arc<Controller>> {
        let name = transport.name().to_owned();
        let raw = transport.read64(CAP);
        if raw == u64::MAX {
            return Err(NvmeError::Gone(name));
        }
        let cap = Cap(raw);
        let unsuitable = |why: &str| NvmeError::Unsuitable { name: name.clone(), why: why.to_owned() };
        if !cap.supports_nvm_command_set() {
            return Err(unsuitable(
                "it has no NVM command set (an administrative or key-value controller); use another drive",
            ));
        }
        if cap.min_page_bytes() > crate::dma::PAGE_BYTES {
            return Err(unsuitable("it needs pages larger than 4 KiB; use another drive"));
        }
        let pair = {
            let dma = |cause| NvmeError::Dma { name: name.clone(), cause };
            let memory = QueuePair::<()>::allocate(transport.dma(), ADMIN_ENTRIES).map_err(dma)?;
            let bell = |offset| transport.doorbell(offset).map(Doorbell::new);
            let bells = bell(cap.submission_doorbell(0)).zip(bell(cap.completion_doorbell(0)));
            let (sq, cq) = bells.ok_or_else(|| unsuitable("its registers end before the doorbells"))?;
            QueuePair::new(0, ADMIN_ENTRIES, memory, sq, cq)
        };
        let identity = Box::new(IdentifyController::new_zeroed());
        let controller = Arc::new(Controller::new(transport, timing, cap, Admin::new(pair), identity));
        controller.disable().await?;
        controller.enable().await?;
        controller.configure().await?;
        controller.set_mode(Mode::Running);
        supervisor::start(&controller);
        tracing::info!(
            "NVMe {}: {} {}, firmware {}, {} queue pairs{}",
            controller.name(),
            controller.model(),
            controller.serial(),
            controller.firmware(),
            lock(&controller.queues).granted,
            if lock(&controller.shadow).is_some() { ", shadow doorbells" } else { "" },
        );
        Ok(controller)
    }

    /// CC.EN to 0, and what follows.
    pub(super) async fn disable(&self) -> Result<()> {
        self.transport.write32(CC, self.transport.read32(CC) & !1);
        self.wait_ready(false, "disabling").await
    }

    /// Sets the admin queues and CC.EN to 1.
    pub(super) async fn enable(&self) -> Result<()> {
        let (sq, cq) = lock(&self.admin).queue_iovas();
        self.transport.write32(AQA, aqa(ADMIN_ENTRIES));
        self.transport.write64(ASQ, sq);
        self.transport.write64(ACQ, cq);
        self.transport.write32(CC, cc_enabled(self.cap.supports_all_command_sets()));
        self.wait_ready(true, "enabling").await
    }

    async fn wait_ready(&self, ready: bool, what: &'static str) -> Result<()> {
        let limit = Duration::from_millis(self.cap.ready_timeout_ms().max(1000));
        let started = basalt_reactor::now();
        let mut pause = Duration::from_micros(100);
        loop {
            let csts = self.status();
            if csts.gone() || self.transport.departed() {
                return Err(NvmeError::Gone(self.name().to_owned()));
            }
            if csts.ready() == ready && !(ready && csts.fatal()) {
                return Ok(());
            }
            if started.elapsed() > limit {
                let ms = limit.as_millis() as u64;
                return Err(NvmeError::Timeout { name: self.name().to_owned(), what, ms });
            }
            basalt_reactor::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Everything between enabling and the first I/O queue; after a reset again.
    pub(super) async fn configure(&self) -> Result<()> {
        let limit = self.timing.admin;
        let sqe = Sqe::identify(cns::CONTROLLER, Nsid(0), 0);
        let answer =
            self.admin_now("identify controller", sqe, Data::FromController(IDENTIFY_BYTES), limit).await?;
        let identity = IdentifyController::read_from_bytes(&answer.bytes(IDENTIFY_BYTES))
            .expect("identify data has the structure's size");
        let (events, event_limit) = (identity.optional_events.get(), identity.event_request_limit);
        let shadow = identity.shadow_doorbells();
        **lock(&self.identity) = identity;

        let answer = self
            .admin_now("set number of queues", Sqe::set_number_of_queues(QUEUES_WANTED), Data::None, limit)
            .await?;
        // Both counts are 0-based.
        let granted = (answer.dw0 & 0xffff).min(answer.dw0 >> 16) as u16;
        {
            let mut queues = lock(&self.queues);
            let Queues { granted: g, existing } = &mut *queues;
            *g = granted.saturating_add(1).min(QUEUES_WANTED);
            if let Some((&highest, _)) = existing.last_key_value()
                && highest > *g
            {
                let why = format!("it grants {g} queue pairs after its reset, fewer than before");
                return Err(NvmeError::Unsuitable { name: self.name().to_owned(), why });
            }
        }
        if shadow {
            self.share_doorbells(limit).await?;
        }
        let sqe = Sqe::set_feature(feature::ASYNC_EVENT_CONFIGURATION, EVENTS_WANTED & (events | 0xff));
        if let Err(e) = self.admin_now("event configuration", sqe, Data::None, limit).await {
            tracing::warn!("{e}; its warnings may not be heard");
        }
        self.request_events(event_limit);
        Ok(())
    }

    async fn share_doorbells(&self, limit: Duration) -> Result<()> {
        let buffers = match lock(&self.shadow).clone() {
            Some(b) => b,
            None => {
                let page =
                    || self.transport.dma().allocate(4096).map(Arc::new).map_err(|e| self.dma_error(e));
                ShadowBuffers { shadow: page()?, event_index: page()? }
            }
        };
        buffers.shadow.zero(0, 4096);
        buffers.event_index.zero(0, 4096);
        let sqe = Sqe::doorbell_buffer_config(buffers.shadow.iova().0, buffers.event_index.iova().0);
        let result = self.admin_now("doorbell buffers", sqe, Data::None, limit).await;
        // One page holds both doorbells of 64 queues at a stride of up to 7 bytes; more than that is not offered.
        let fits = self.cap.doorbell_stride_bytes() as usize * 2 * (usize::from(QUEUES_WANTED) + 1) <= 4096;
        *lock(&self.shadow) = match result {
            Ok(_) if fits => Some(buffers),
            Ok(_) | Err(NvmeError::Status { .. }) => None,
            Err(e) => return Err(e),
        };
        Ok(())
    }

    /// Active namespaces, in order.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>> {
        let limit = self.timing.admin;
        let mut found = Vec::new();
        let mut after = 0;
        // Each answer holds up to 1024 identifiers above the one asked with (Base 5.17.2.2).
        'lists: loop {
            let sqe = Sqe::identify(cns::ACTIVE_NAMESPACES, Nsid(after), 0);
            let answer =
                self.admin("list namespaces", sqe, Data::FromController(IDENTIFY_BYTES), limit).await?;
            let bytes = answer.bytes(IDENTIFY_BYTES);
            let (ids, _) = bytes.as_chunks::<4>();
            for id in ids.iter().map(|b| u32::from_le_bytes(*b)) {
                if id <= after || id == ALL_NAMESPACES.0 || found.len() >= NAMESPACES_MAX {
                    break 'lists;
                }
                found.push(id);
                after = id;
            }
        }
        let mut namespaces = Vec::new();
        for nsid in found {
            namespaces.push(self.namespace(nsid).await?);
        }
        Ok(namespaces)
    }

    async fn namespace(&self, nsid: u32) -> Result<Namespace> {
        let limit = self.timing.admin;
        let descriptors = Sqe::identify(cns::NAMESPACE_DESCRIPTORS, Nsid(nsid), 0);
        let set = match self
            .admin("describe namespace", descriptors, Data::FromController(IDENTIFY_BYTES), limit)
            .await
        {
            Ok(answer) => command_set(&answer.bytes(IDENTIFY_BYTES)),
            // Controllers before 1.3 have no such list, nor other command sets.
            Err(NvmeError::Status { .. }) => CommandSet::Nvm,
            Err(e) => return Err(e),
        };
        let sqe = Sqe::identify(cns::NAMESPACE, Nsid(nsid), 0);
        let identity =
            match self.admin("identify namespace", sqe, Data::FromController(IDENTIFY_BYTES), limit).await {
                Ok(answer) => IdentifyNamespace::read_from_bytes(&answer.bytes(IDENTIFY_BYTES))
                    .expect("identify data has the structure's size"),
                // Refused for namespaces of other command sets by some controllers.
                Err(NvmeError::Status { .. }) if set != CommandSet::Nvm => IdentifyNamespace::new_zeroed(),
                Err(e) => return Err(e),
            };
        Ok(Namespace { nsid, format: Format::of(&identity, set), identity: Box::new(identity) })
    }
}
