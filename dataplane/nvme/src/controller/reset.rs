//! Controller reset (Base 3.7.2) with I/O in flight, and the end of a controller.

use super::admin::Data;
use super::{Controller, Mode, QueuePlace, lock};
use crate::error::{NvmeError, Result};
use crate::io;
use crate::spec::Sqe;
use crate::spec::command::admin as op;
use basalt_reactor::{CoreId, call_on};

impl Controller {
    fn places(&self) -> Vec<(u16, QueuePlace)> {
        lock(&self.queues).existing.iter().map(|(&qid, &place)| (qid, place)).collect()
    }

    /// Runs `f` with each queue on its own reactor, one after the other.
    async fn each_queue(&self, f: impl Fn(&io::IoQueue) + Copy + Send + 'static) {
        let id = self.id;
        for (qid, place) in self.places() {
            call_on(place.core, move || async move { io::with_local(id, qid, f) }).await;
        }
    }

    /// One try. I/O queues are stopped first and go on afterwards with what was in flight.
    pub(super) async fn reset(&self) -> Result<()> {
        self.set_mode(Mode::Resetting);
        self.each_queue(io::IoQueue::halt).await;
        if let Err(e) = self.disable().await {
            if let NvmeError::Gone(_) = e {
                return Err(e);
            }
            // What does not listen to its own register may listen to the bus.
            self.transport.reset_function().map_err(|why| NvmeError::Failed(self.name().to_owned(), why))?;
            self.disable().await?;
        }
        // From here on the controller touches no memory until it is enabled.
        self.each_queue(io::IoQueue::restart).await;
        lock(&self.admin).restart();
        self.enable().await?;
        self.configure().await?;
        for (qid, place) in self.places() {
            self.create_queue(qid, place).await?;
        }
        self.set_mode(Mode::Running);
        self.each_queue(io::IoQueue::resume).await;
        Ok(())
    }

    async fn create_queue(&self, qid: u16, place: QueuePlace) -> Result<()> {
        let QueuePlace { entries, sq_iova, cq_iova, vector, .. } = place;
        let limit = self.timing.admin;
        let cq = Sqe::create_io_cq(qid, entries, cq_iova, vector);
        self.admin_now("create completion queue", cq, Data::None, limit).await?;
        let sq = Sqe::create_io_sq(qid, entries, sq_iova);
        self.admin_now("create submission queue", sq, Data::None, limit).await.map(drop)
    }

    /// The end: what is in flight fails, and so does what comes.
    pub(super) async fn stop(&self, mode: Mode, why: &str) {
        lock(&self.failure).push_str(why);
        // Before any buffer goes back: nothing may write into it any more.
        self.transport.isolate();
        self.set_mode(mode);
        self.each_queue(io::IoQueue::give_up).await;
        lock(&self.admin).restart();
    }

    /// Takes a queue number for the current reactor.
    pub(crate) fn reserve_queue(&self) -> Result<u16> {
        let queues = lock(&self.queues);
        let free = (1..=queues.granted).find(|qid| !queues.existing.contains_key(qid));
        free.ok_or_else(|| NvmeError::NoQueue { name: self.name().to_owned(), granted: queues.granted })
    }

    /// Makes an I/O queue pair in the controller. Blocks the reactor for as long as two admin commands take.
    pub(crate) fn open_queue(&self, qid: u16, place: QueuePlace) -> Result<()> {
        self.clear_shadows(qid);
        let cq = Sqe::create_io_cq(qid, place.entries, place.cq_iova, place.vector);
        self.admin_blocking("create completion queue", cq)?;
        let sq = Sqe::create_io_sq(qid, place.entries, place.sq_iova);
        if let Err(e) = self.admin_blocking("create submission queue", sq) {
            let _ =
                self.admin_blocking("delete completion queue", Sqe::delete_io_queue(op::DELETE_IO_CQ, qid));
            return Err(e);
        }
        Ok(())
    }

    /// Announces a queue to resets. False when one has begun meanwhile.
    pub(crate) fn register_queue(&self, qid: u16, place: QueuePlace) -> bool {
        lock(&self.queues).existing.insert(qid, place);
        self.mode() == Mode::Running
    }

    pub(crate) fn forget_queue(&self, qid: u16) {
        lock(&self.queues).existing.remove(&qid);
    }

    /// Ends an idle queue.
    pub(crate) async fn close_queue(&self, qid: u16) {
        let limit = self.timing.admin;
        for (what, opcode) in
            [("delete submission queue", op::DELETE_IO_SQ), ("delete completion queue", op::DELETE_IO_CQ)]
        {
            if let Err(e) = self.admin(what, Sqe::delete_io_queue(opcode, qid), Data::None, limit).await {
                tracing::debug!("{e}");
            }
        }
        self.forget_queue(qid);
    }

    /// The reactor that an I/O queue lives on.
    pub fn queue_cores(&self) -> Vec<(u16, CoreId)> {
        self.places().into_iter().map(|(qid, place)| (qid, place.core)).collect()
    }
}
