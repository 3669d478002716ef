//! Watches one controller: events it sends, commands that queues report as overdue, its status register, the bus; and
//! carries out what [`Recovery`] says.

use super::admin::Data;
use super::{Controller, Mode, lock};
use crate::error::NvmeError;
use crate::io;
use crate::queue::Cid;
use crate::recovery::{Action, Event, Recovery};
use crate::spec::Sqe;
use crate::spec::command::ALL_NAMESPACES;
use crate::spec::log::{AsyncEvent, EventKind, page};
use basalt_reactor::call_on;
use std::sync::{Arc, Weak};

pub(super) fn start(controller: &Arc<Controller>) {
    let weak = Arc::downgrade(controller);
    let mut limits = controller.timing.limits;
    // ACL is 0-based.
    limits.aborts = limits.aborts.min(u32::from(lock(&controller.identity).abort_limit) + 1);
    drop(basalt_reactor::spawn(supervise(weak, Recovery::new(limits))));
}

async fn supervise(weak: Weak<Controller>, mut recovery: Recovery) {
    loop {
        let Some(controller) = weak.upgrade() else { return };
        controller.look(&mut recovery).await;
        if controller.mode() == Mode::Gone {
            return;
        }
        let pause = controller.timing.look;
        drop(controller);
        basalt_reactor::sleep(pause).await;
    }
}

impl Controller {
    async fn look(self: &Arc<Self>, recovery: &mut Recovery) {
        let csts = self.status();
        if csts.gone() || self.transport.departed() {
            return self.handle(recovery, Event::Departed).await;
        }
        if csts.fatal() {
            self.handle(recovery, Event::Fatal).await;
        } else if !csts.ready() && self.mode() == Mode::Running {
            self.handle(recovery, Event::Wanted("it has lost its state".to_owned())).await;
        }
        if self.mode() == Mode::Running {
            for event in self.take_events() {
                self.hear(event).await;
            }
        }
        let reports = std::mem::take(&mut *lock(&self.reports));
        for report in reports {
            let resets = recovery.resets();
            self.handle(recovery, report).await;
            if recovery.resets() != resets {
                // A reset has dealt with whatever else was reported before it.
                lock(&self.reports).clear();
                break;
            }
        }
    }

    async fn handle(self: &Arc<Self>, recovery: &mut Recovery, event: Event) {
        let mut action = recovery.on(event, basalt_reactor::now().0);
        loop {
            match action {
                Action::Nothing => return,
                Action::Abort { qid, cid } => return self.abort(qid, cid).await,
                Action::Reset { why } => {
                    tracing::warn!("NVMe {}: resetting: {why}", self.name());
                    let started = basalt_reactor::now();
                    let event = match self.reset().await {
                        Ok(()) => {
                            tracing::warn!(
                                "NVMe {}: reset in {} ms",
                                self.name(),
                                started.elapsed().as_millis()
                            );
                            Event::ResetDone
                        }
                        Err(NvmeError::Gone(_)) => Event::Departed,
                        Err(e) => Event::ResetFailed(e.to_string()),
                    };
                    action = recovery.on(event, basalt_reactor::now().0);
                }
                Action::Fail { why } => {
                    tracing::error!("NVMe {}: given up: {why}", self.name());
                    return self.stop(Mode::Failed, &why).await;
                }
                Action::Remove => {
                    tracing::error!("NVMe {}: gone", self.name());
                    return self.stop(Mode::Gone, "gone").await;
                }
            }
        }
    }

    /// Asks for an abort; whatever is answered, the command has `timing.abort` left.
    async fn abort(self: &Arc<Self>, qid: u16, cid: Cid) {
        tracing::warn!("NVMe {}: command {:#x} of queue {qid} is overdue; aborting it", self.name(), cid.0);
        let place = lock(&self.queues).existing.get(&qid).map(|p| p.core);
        let Some(core) = place else { return self.report(Event::AbortAnswered) };
        let id = self.id;
        call_on(core, move || async move { io::with_local(id, qid, |q| q.mark_abort(cid)) }).await;
        let controller = self.clone();
        drop(basalt_reactor::spawn(async move {
            let limit = controller.timing.abort;
            let result = controller.admin_now("abort", Sqe::abort(qid, cid.0), Data::None, limit).await;
            if let Err(e) = result {
                tracing::warn!("{e}");
            }
            controller.report(Event::AbortAnswered);
        }));
    }

    async fn hear(self: &Arc<Self>, event: AsyncEvent) {
        let name = self.name();
        match event.kind {
            EventKind::Health(_) => match self.health().await {
                Ok(health) => {
                    for warning in health.warnings {
                        tracing::error!("NVMe {name}: {warning}");
                    }
                }
                Err(e) => tracing::warn!("{e}"),
            },
            EventKind::NamespacesChanged => {
                tracing::warn!("NVMe {name}: its namespaces have changed; open its drives anew to see them");
                self.acknowledge(page::CHANGED_NAMESPACES, 4096).await;
            }
            EventKind::Error(info) => {
                tracing::error!("NVMe {name}: reports an error of kind {info}");
                self.acknowledge(page::ERROR, 64).await;
            }
            EventKind::SanitizeDone => {
                tracing::warn!("NVMe {name}: a sanitize has ended");
                self.acknowledge(page::SANITIZE, 512).await;
            }
            other => {
                tracing::warn!("NVMe {name}: event {other:?}");
                if event.log_page != 0 {
                    self.acknowledge(event.log_page, 512).await;
                }
            }
        }
    }

    /// Reads a page for its side effect: the event is armed again.
    async fn acknowledge(&self, page: u8, len: u32) {
        let sqe = Sqe::get_log_page(page, ALL_NAMESPACES, len);
        if let Err(e) =
            self.admin("log page", sqe, Data::FromController(len as usize), self.timing.admin).await
        {
            tracing::debug!("{e}");
        }
    }
}
