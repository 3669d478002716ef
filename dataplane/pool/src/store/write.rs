//! Writing pieces as stripes: find room, write, and on a member's failure write elsewhere.

use super::checksum::BLOCK;
use super::segment::{Phase, Segment, Slot, Token};
use super::stripe::{BlockList, StripeFailure, StripeJob, flush};
use super::{Inner, Piece, Placed, StripeRecord, Written};
use crate::planted::{self, Planted};
use crate::types::*;
use basalt_bdev::Durability;
use basalt_reactor::sync::join_all;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// Of one call. Bounds the parity buffers it holds: 8 x m x 128 KiB.
const STRIPES_IN_FLIGHT: usize = 8;
/// How often a stripe is written again before the call gives up: more drives than that have failed under it.
const MAX_REWRITES: usize = 8;

impl Inner {
    pub(crate) async fn write(&self, class: Class, pieces: Vec<Piece>) -> Result<Written> {
        let list = BlockList::new(pieces)?;
        let mut todo: VecDeque<Range<usize>> = VecDeque::new();
        if list.blocks() > 0 {
            todo.push_back(0..list.blocks());
        }
        let mut stripes = Vec::new();
        let mut runs: Vec<(usize, Placed)> = Vec::new();
        let mut rewrites = 0;
        while !todo.is_empty() {
            let jobs = self.place(class, &mut todo).await?;
            let single = jobs.len() == 1;
            // A lone stripe goes down as one durable write per drive; several are cheaper with one flush for all.
            let durability = match single && !planted::is(Planted::SkippedFlush) {
                true => Durability::Durable,
                false => Durability::Cached,
            };
            let tokens: Vec<Token> = jobs.iter().map(|j| Token::hold(&j.slot.segment)).collect();
            let root = &*self.root;
            let mut results = join_all(jobs.iter().map(|j| j.write(root, &list, durability))).await;
            if !single {
                self.flush_stripes(&jobs, &mut results).await;
            }
            let mut failed_drives = Vec::new();
            let mut report = None;
            for ((job, token), result) in jobs.into_iter().zip(tokens).zip(results) {
                match result {
                    Ok(mut record) => {
                        self.stripe_done(&job, &list);
                        record.token = token;
                        runs.extend(job.runs());
                        stripes.push(record);
                    }
                    Err(StripeFailure::Members(members)) => {
                        job.slot.segment.close(false);
                        todo.push_back(job.first..job.first + job.count);
                        failed_drives.extend(members);
                        self.stats.borrow_mut().stripes_rewritten += 1;
                        rewrites += 1;
                    }
                    Err(StripeFailure::Report(e)) => report = Some(e),
                }
            }
            self.take_out(failed_drives).await?;
            if let Some(e) = report {
                return Err(e);
            }
            if rewrites > MAX_REWRITES * STRIPES_IN_FLIGHT {
                return Err(PoolError::Stopped(
                    "drives keep failing under writes; look at the pool's status".into(),
                ));
            }
        }
        runs.sort_by_key(|(first, _)| *first);
        let mut placed = vec![Vec::new(); list.pieces()];
        for (first, run) in runs {
            let mut at = run.at;
            for (piece, _, blocks) in list.owners(first, run.blocks as usize) {
                placed[piece].push(Placed { at, blocks: blocks as u32 });
                at.block += blocks as u32;
            }
        }
        Ok(Written { stripes, placed })
    }

    /// Takes drives out that failed under writes.
    pub(crate) async fn take_out(&self, mut failed: Vec<(DriveIndex, String)>) -> Result<()> {
        failed.sort();
        failed.dedup_by_key(|(drive, _)| *drive);
        for (drive, cause) in failed {
            tracing::warn!(shard = %self.shard, %drive, "a stripe write failed: {cause}");
            self.root.drive_out(drive, &cause).await?;
        }
        Ok(())
    }

    /// Gives places to the first stripes of what is to be written.
    async fn place(&self, class: Class, todo: &mut VecDeque<Range<usize>>) -> Result<Vec<StripeJob>> {
        let mut jobs = Vec::new();
        while jobs.len() < STRIPES_IN_FLIGHT
            && let Some(range) = todo.pop_front()
        {
            let slot = self.allocate(class, range.len()).await?;
            let count = range.len().min((slot.height * slot.segment.layout.k) as usize);
            jobs.push(StripeJob { slot, first: range.start, count });
            if count < range.len() {
                todo.push_front(range.start + count..range.end);
            }
        }
        Ok(jobs)
    }

    async fn allocate(&self, class: Class, blocks: usize) -> Result<Slot> {
        loop {
            if let Some(slot) = self.allocate_now(class, blocks) {
                return Ok(slot);
            }
            let _granting = self.granting[class as usize].lock().await;
            // Whoever held the lock before may have brought a segment.
            if let Some(slot) = self.allocate_now(class, blocks) {
                return Ok(slot);
            }
            let granted = match self.root.grant_segments(self.shard, self.epoch, class, 1).await {
                // The tidying task may have given back what this call did not: ask again whatever went.
                Err(PoolError::NoSpace(_)) => {
                    self.reclaim_all().await?;
                    self.root.grant_segments(self.shard, self.epoch, class, 1).await?
                }
                granted => granted?,
            };
            for entry in granted {
                self.scheme.set(entry.scheme);
                self.stats.borrow_mut().segments_granted += 1;
                let segment = Rc::new(Segment::new(entry, &self.geometry, Phase::Open, self.bell.clone()));
                self.accounts.borrow_mut().add_open(segment);
            }
        }
    }
    fn allocate_now(&self, class: Class, blocks: usize) -> Option<Slot> {
        self.accounts.borrow().open(class).find_map(|s| s.allocate(blocks))
    }

    /// One flush per drive for stripes written to its cache. A failed flush fails every stripe on that drive.
    async fn flush_stripes(
        &self,
        jobs: &[StripeJob],
        results: &mut [std::result::Result<StripeRecord, StripeFailure>],
    ) {
        let written = jobs.iter().zip(&*results).filter(|(_, r)| r.is_ok());
        let drives: BTreeSet<DriveIndex> =
            written.flat_map(|(j, _)| j.slot.segment.entry.members.iter().map(|m| m.drive)).collect();
        let Err(failure) = flush(&*self.root, drives).await else { return };
        for (job, result) in jobs.iter().zip(results) {
            match &failure {
                StripeFailure::Members(failed) => {
                    let members = &job.slot.segment.entry.members;
                    let mine: Vec<_> = failed
                        .iter()
                        .filter(|(d, _)| members.iter().any(|m| m.drive == *d))
                        .cloned()
                        .collect();
                    if result.is_ok() && !mine.is_empty() {
                        *result = Err(StripeFailure::Members(mine));
                    }
                }
                StripeFailure::Report(e) => *result = Err(StripeFailure::Report(e.clone())),
            }
        }
    }

    fn stripe_done(&self, job: &StripeJob, list: &BlockList) {
        let segment = &job.slot.segment;
        let entries = job.footer_entries(list);
        let mut s = segment.state_mut();
        for e in entries {
            // Pages of one file written one after the other become one entry.
            match s.footer.last_mut() {
                Some(last)
                    if last.inode == e.inode
                        && last.column == e.column
                        && last.block + last.blocks as u32 == e.block
                        && last.offset + last.blocks as u64 * BLOCK as u64 == e.offset =>
                {
                    last.blocks += e.blocks;
                }
                _ => s.footer.push(e),
            }
        }
        let mut stats = self.stats.borrow_mut();
        stats.stripes_written += 1;
        stats.stripe_bytes += (job.count * BLOCK) as u64;
        stats.padding_bytes +=
            ((job.slot.height * segment.layout.k) as usize - job.count) as u64 * BLOCK as u64;
    }
}
