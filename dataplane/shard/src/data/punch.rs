//! Holes: whole pages are removed, the edges zeroed.

use super::extent::{self, SLICE_ENTRIES};
use super::file::File;
use super::{Data, PAGE_BYTES, later, merged, next_change};
use crate::index::{Txn, TxnResult};
use crate::inode::Inode;
use crate::vfs::*;
use basalt_reactor::buf;
use std::rc::Rc;

impl Data {
    pub(crate) async fn deallocate(
        &self,
        ino: Ino,
        offset: u64,
        len: u64,
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<Attr> {
        let asked_end = offset.checked_add(len).ok_or(FsError::Invalid)?;
        let file = self.file(ino);
        let inode = self
            .index
            .run_nowait(|txn| {
                let inode = merged(txn, &file)?;
                check(&inode)?;
                Ok(inode)
            })
            .await?
            .value;
        let end = asked_end.min(inode.size);
        if offset < end {
            let (mut first, last) = (offset.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
            // A last page that the file's end cuts goes whole: behind the end there is nothing to keep.
            let last = if end == inode.size { end.div_ceil(PAGE_BYTES) } else { last };
            if first < last {
                let layout = file.layout.lock().await;
                while first < last {
                    let done =
                        self.index.run_nowait(|txn| self.punch_step(txn, &file, first, last, check)).await?;
                    // The same poll as the commit. The overlay is in the record now.
                    self.drop_pages(&file, first, done.value);
                    file.overlay.set(None);
                    first = done.value;
                    basalt_reactor::yield_now().await;
                }
                drop(layout);
            }
            // The edges: zeroes written, but not beyond what is there.
            let head_end = end.min(offset.next_multiple_of(PAGE_BYTES));
            if offset < head_end {
                self.zero(ino, offset, head_end, check).await?;
            }
            let tail = (end / PAGE_BYTES * PAGE_BYTES).max(head_end);
            if tail < end && end < inode.size {
                self.zero(ino, tail, end, check).await?;
            }
        }
        let inode = self.index.run(|txn| merged(txn, &file)).await?;
        Ok(inode.attr())
    }

    async fn zero(
        &self,
        ino: Ino,
        from: u64,
        to: u64,
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<()> {
        let data = vec![buf::zeroes((to - from) as usize)];
        // A file cut shorter since then is not to grow back.
        let still = |inode: &Inode| if inode.size < to { Err(FsError::Delay) } else { check(inode) };
        self.write(ino, from, data, Stability::FileSync, [0; 8], &still).await?;
        Ok(())
    }

    /// Removes pages from `first` on, a bounded number of entries; returns how far it came.
    fn punch_step(
        &self,
        txn: &mut Txn<'_>,
        file: &Rc<File>,
        first: u64,
        last: u64,
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> TxnResult<u64> {
        let mut inode = merged(txn, file)?;
        check(&inode)?;
        // Cut shorter or longer since then: the pages asked for are still the ones to go.
        let mut end = last;
        let runs = extent::extents(txn, file.ino, first, last, SLICE_ENTRIES)?;
        if let (Some(run), SLICE_ENTRIES) = (runs.last(), runs.len()) {
            end = end.min(run.end);
        }
        let pages = extent::pages(txn, file.ino, first, end, SLICE_ENTRIES)?;
        if let (Some((page, _)), SLICE_ENTRIES) = (pages.last(), pages.len()) {
            end = end.min(page + 1);
        }
        let freed = extent::clear(txn, file.ino, first, end)?;
        let time = txn.time();
        inode.blocks = inode.blocks.saturating_sub(freed);
        inode.mtime = time;
        inode.ctime = later(time, inode.ctime);
        inode.change = next_change(txn, inode.change);
        txn.put(crate::keys::inode(file.ino), inode.encode());
        Ok(end)
    }
}
