//! SEEK: where data and holes are, by pages.

use super::file::File;
use super::{Data, PAGE_BYTES, extent, merged};
use crate::index::{Txn, TxnResult};
use crate::vfs::*;
use std::rc::Rc;

/// Entries fetched at once, and how many such batches one attempt of a transaction walks.
const BATCH: usize = 64;
const BATCHES: usize = 16;

enum Walk {
    /// Not decided before this page.
    On(u64),
    At(u64),
    End,
}

impl Data {
    pub(crate) async fn seek(&self, ino: Ino, offset: u64, what: SeekWhat) -> FsResult<u64> {
        let file = self.file(ino);
        let mut page = offset / PAGE_BYTES;
        loop {
            let done = self
                .index
                .run_nowait(|txn| {
                    let size = merged(txn, &file)?.size;
                    if offset >= size {
                        return Err(FsError::NoMoreData.into());
                    }
                    let walk = match what {
                        SeekWhat::Data => self.next_data(txn, &file, page)?,
                        SeekWhat::Hole => self.next_hole(txn, &file, page, size.div_ceil(PAGE_BYTES))?,
                    };
                    Ok(match walk {
                        Walk::At(p) if p * PAGE_BYTES < size => Walk::At(offset.max(p * PAGE_BYTES)),
                        Walk::On(p) => Walk::On(p),
                        // The end of the file is a hole.
                        _ if what == SeekWhat::Hole => Walk::At(size),
                        _ => Walk::End,
                    })
                })
                .await?;
            match done.value {
                Walk::On(p) => {
                    page = p;
                    basalt_reactor::yield_now().await;
                }
                found => {
                    self.index.wait_durable(done.observed).await?;
                    return match found {
                        Walk::At(at) => Ok(at),
                        _ => Err(FsError::NoMoreData),
                    };
                }
            }
        }
    }

    fn next_data(&self, txn: &mut Txn<'_>, file: &Rc<File>, page: u64) -> TxnResult<Walk> {
        let last = FILE_SIZE_MAX / PAGE_BYTES + 1;
        let dirty = file.next_dirty(page);
        let journalled = extent::pages(txn, file.ino, page, u64::MAX, 1)?.first().map(|(p, _)| *p);
        let stored = extent::extents(txn, file.ino, page, last, 1)?.first().map(|r| r.first.max(page));
        Ok(dirty.into_iter().chain(journalled).chain(stored).min().map_or(Walk::End, Walk::At))
    }

    fn next_hole(&self, txn: &mut Txn<'_>, file: &Rc<File>, from: u64, end: u64) -> TxnResult<Walk> {
        let mut page = from;
        for _ in 0..BATCHES {
            if page >= end {
                return Ok(Walk::End);
            }
            let runs = extent::extents(txn, file.ino, page, end, BATCH)?;
            let pages = extent::pages(txn, file.ino, page, end, BATCH)?;
            let (full_runs, full_pages) = (runs.len() == BATCH, pages.len() == BATCH);
            let (mut runs, mut pages) = (runs.into_iter().peekable(), pages.into_iter().peekable());
            while page < end {
                while runs.next_if(|r| r.end <= page).is_some() {}
                while pages.next_if(|(p, _)| *p < page).is_some() {}
                if let Some(run) = runs.next_if(|r| r.first <= page) {
                    page = run.end;
                } else if pages.next_if(|(p, _)| *p == page).is_some() || file.is_dirty(page) {
                    page += 1;
                } else {
                    break;
                }
            }
            let undecided = (full_runs && runs.peek().is_none()) || (full_pages && pages.peek().is_none());
            if page < end && !undecided {
                return Ok(Walk::At(page));
            }
        }
        Ok(Walk::On(page))
    }
}
