//! Work behind the caller's back: checksum blocks of finished rows, footers, sealing, giving back dead segments and
//! journal chunks. One task per shard, woken by a bell; a segment's own work runs beside it.

use super::Inner;
use super::checksum::BLOCK;
use super::footer;
use super::layout::Layout;
use super::segment::{Phase, Segment};
use super::stripe::{BlockList, StripeFailure, StripeJob, is_drive_failure};
use crate::types::*;
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::sync::join_all;
use basalt_reactor::{sleep, spawn};
use std::rc::Rc;
use std::time::Duration;

/// After an error of the root or a full host file system.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Segments given back by one change of the root log.
const FREE_BATCH: usize = 64;

impl Inner {
    /// Runs until the store is closed.
    pub(crate) async fn tidy(self: Rc<Inner>) {
        loop {
            let bell = self.bell.notified();
            if self.closed.get() {
                return;
            }
            let busy = self.accounts.borrow_mut().busy();
            for segment in busy {
                if !segment.state().tidying && segment.has_work() {
                    segment.state_mut().tidying = true;
                    spawn(self.clone().tidy_segment(segment));
                }
            }
            let suspects = std::mem::take(&mut *self.suspects.borrow_mut());
            let result = match self.take_out(suspects.into_iter().collect()).await {
                Ok(()) => self.reclaim().await.map(|_| ()),
                e => e,
            };
            match result {
                Ok(()) => bell.await,
                Err(e @ PoolError::Fenced { .. }) => {
                    tracing::error!(shard = %self.shard, "{e}");
                    return;
                }
                Err(e) => {
                    tracing::warn!(shard = %self.shard, "giving back space: {e}; trying again");
                    sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn tidy_segment(self: Rc<Inner>, segment: Rc<Segment>) {
        loop {
            let done = self.tidy_step(&segment).await;
            match done {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    tracing::warn!(segment = %segment.entry.id, "{e}; trying again");
                    sleep(RETRY_AFTER).await;
                    if self.closed.get() {
                        break;
                    }
                }
            }
        }
        segment.state_mut().tidying = false;
        self.accounts.borrow_mut().note(&segment);
        // Something may have ended between the last look and the flag's fall, and a sealed segment may be dead.
        if segment.has_work() || segment.is_dead() {
            self.bell.notify_all();
        }
    }

    /// True when something was done and there may be more.
    async fn tidy_step(&self, segment: &Rc<Segment>) -> Result<bool> {
        let rows = segment.finished_rows();
        if !rows.is_empty() {
            for row in rows {
                self.write_checksum_row(segment, row).await?;
                segment.row_on_media(row);
            }
            return Ok(true);
        }
        let phase = segment.state().phase;
        match phase {
            Phase::Closing { footer: true } if segment.state().quiet() => {
                if let Err(e) = self.write_footer(segment).await {
                    tracing::warn!(segment = %segment.entry.id, "its footer was not written: {e}");
                    if matches!(e, PoolError::Stopped(_)) {
                        return Err(e);
                    }
                }
                segment.close(false);
                Ok(true)
            }
            Phase::Closing { footer: false } if segment.state().quiet() => {
                // Only the root's word for it is missing when this fails; the next epoch seals it anyway.
                if let Err(e) = self.root.seal_segment(self.shard, self.epoch, segment.entry.id).await {
                    tracing::warn!(segment = %segment.entry.id, "sealing: {e}");
                }
                let mut s = segment.state_mut();
                s.phase = Phase::Sealed;
                s.footer = Vec::new();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Writes a row's checksum blocks to every column there is.
    async fn write_checksum_row(&self, segment: &Segment, row: u32) -> Result<()> {
        let blocks: Vec<DmaBuf> = {
            let s = segment.state();
            let Some(open) = s.rows.get(&row) else { return Ok(()) };
            (0..segment.layout.columns() as u8)
                .map(|c| open.sums.encode_block(segment.entry.id, c, row))
                .collect()
        };
        let writes = segment.entry.members.iter().zip(blocks).filter_map(|(member, block)| {
            let channel = self.root.channel(member.drive)?;
            let at = self.root.au_offset(member.au) + Layout::checksum_block(row) as u64 * BLOCK as u64;
            Some(async move {
                let written = channel.write(at, vec![block.freeze()], Durability::Durable).await;
                written.map_err(|e| (member.drive, e))
            })
        });
        let failed: Vec<(DriveIndex, BdevError)> =
            join_all(writes).await.into_iter().filter_map(|r| r.err()).collect();
        if let Some((_, e)) = failed.iter().find(|(_, e)| !is_drive_failure(e)) {
            return Err(e.clone().into());
        }
        self.take_out(failed.into_iter().map(|(d, e)| (d, e.to_string())).collect()).await?;
        self.stats.borrow_mut().checksum_rows_written += 1;
        Ok(())
    }

    async fn write_footer(&self, segment: &Rc<Segment>) -> Result<()> {
        let bytes = {
            let s = segment.state();
            let scheme = segment.entry.scheme;
            footer::encode(segment.entry.id, scheme.k, scheme.width() as u8, &s.footer)
        };
        let mut padded = DmaBuf::zeroed(bytes.len().next_multiple_of(BLOCK));
        padded[..bytes.len()].copy_from_slice(&bytes);
        let list = BlockList::of_bytes(padded.freeze());
        let mut first = 0;
        while first < list.blocks() {
            let Some(slot) = segment.allocate_footer(list.blocks() - first) else {
                return Err(PoolError::Refused("it does not fit".into()));
            };
            let count = (list.blocks() - first).min((slot.height * segment.layout.k) as usize);
            let job = StripeJob { slot, first, count };
            match job.write(&*self.root, &list, Durability::Durable).await {
                Ok(_) => first += count,
                Err(StripeFailure::Report(e)) => return Err(e),
                Err(StripeFailure::Members(failed)) => {
                    self.take_out(failed).await?;
                    return Err(PoolError::Refused("a drive failed".into()));
                }
            }
        }
        self.stats.borrow_mut().footers_written += 1;
        Ok(())
    }

    /// Gives back what may go; returns how many segments went.
    pub(crate) async fn reclaim(&self) -> Result<usize> {
        let _one_at_a_time = self.reclaiming.lock().await;
        let mut freed = 0;
        loop {
            let durable = self.journal.durable_lsn();
            let mut dead = self.accounts.borrow_mut().freeable(durable, self.journal.checkpoint_lsn());
            dead.truncate(FREE_BATCH);
            if dead.is_empty() {
                break;
            }
            let ids: Vec<SegmentId> = dead.iter().map(|s| s.entry.id).collect();
            for s in &dead {
                s.state_mut().phase = Phase::Freeing;
            }
            if let Err(e) = self.root.free_segments(self.shard, self.epoch, ids.clone()).await {
                for s in &dead {
                    s.state_mut().phase = Phase::Sealed;
                }
                return Err(e);
            }
            for id in &ids {
                self.accounts.borrow_mut().remove(*id);
                self.cache.borrow_mut().forget_segment(*id);
            }
            freed += ids.len();
            self.stats.borrow_mut().segments_freed += ids.len() as u64;
        }
        self.journal.chunks.recycle().await?;
        Ok(freed)
    }

    /// Before saying that there is no space: everything dead whose record only waits for the drives.
    pub(crate) async fn reclaim_all(&self) -> Result<usize> {
        self.journal.wait_durable(self.journal.last_lsn()).await?;
        self.reclaim().await
    }
}
