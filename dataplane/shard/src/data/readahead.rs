//! Read-ahead: a file read in order is fetched before it is asked for.

use super::file::File;
use super::read::Plan;
use super::{Data, PAGE_BYTES, merged};
use std::rc::Rc;

/// How a file has been read so far, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Stream {
    /// End of the furthest read of the sequence.
    end: u64,
    /// Fetched ahead up to here.
    ahead: u64,
    /// 0: no sequence seen.
    window: u64,
}

/// Clients send the reads of one sequence in parallel, so they arrive out of order by about this much.
const SLOP_BYTES: u64 = 1 << 20;
const WINDOW_MIN_BYTES: u64 = 128 << 10;
const WINDOW_MAX_BYTES: u64 = 2 << 20;
/// One fetch; a reader that catches up waits for no more than this.
const PIECE_BYTES: u64 = 512 << 10;
/// Fetches ahead under way, per shard.
const PREFETCHES_MAX: usize = 16;

impl Data {
    /// Notes a read of `offset..end` and starts fetching what will come next.
    pub(super) fn read_ahead(&self, file: &Rc<File>, offset: u64, end: u64, size: u64) {
        let mut s = file.stream.get();
        let follows = s.window > 0 || s.end > 0 || offset == 0;
        if !follows || offset > s.end + SLOP_BYTES || offset + SLOP_BYTES < s.end {
            file.stream.set(Stream { end, ahead: end, window: 0 });
            return;
        }
        s.end = s.end.max(end);
        s.ahead = s.ahead.max(s.end);
        s.window = (s.window * 2).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES);
        if s.ahead < s.end + s.window / 2 {
            let to = (s.end + s.window).min(size.next_multiple_of(PAGE_BYTES));
            while s.ahead < to && self.prefetches.get() < PREFETCHES_MAX {
                let piece_end = to.min(s.ahead + PIECE_BYTES);
                self.prefetch(file, s.ahead / PAGE_BYTES, piece_end.div_ceil(PAGE_BYTES));
                s.ahead = piece_end;
            }
        }
        file.stream.set(s);
    }

    fn prefetch(&self, file: &Rc<File>, first: u64, end: u64) {
        self.prefetches.set(self.prefetches.get() + 1);
        let (me, file) = (self.me.clone(), file.clone());
        basalt_reactor::spawn(async move {
            let Some(data) = me.upgrade() else { return };
            let _pin = data.store().pin();
            let planned = data
                .index
                .run_nowait(|txn| {
                    // Gone or shorter by now: nothing to fetch.
                    let end = end.min(merged(txn, &file)?.size.div_ceil(PAGE_BYTES));
                    if first >= end {
                        return Ok(None);
                    }
                    data.plan(txn, &file, first, end, true).map(Some)
                })
                .await;
            if let Ok(done) = planned
                && let Some(Plan::Parts(parts, guard)) = done.value
            {
                // A failure is found again, and reported, by the read that needs these pages.
                let _ = data.fetch(&file, parts, guard).await;
                data.cache.evict();
            }
            data.prefetches.set(data.prefetches.get() - 1);
        });
    }
}
