//! Truncation and growth.
//!
//! A file shrinks from its end: each transaction removes a bounded number of extents and sets the size to where it got,
//! so that at every moment, a crash included, nothing lies behind the end. The last transaction carries the attributes
//! that were asked for and the last page with its tail zeroed.

use super::cache::Page;
use super::extent;
use super::file::{File, padded};
use super::read::{Part, Plan};
use super::{Data, PAGE_BYTES, merged, next_change, pre_attr};
use crate::index::{Txn, TxnResult};
use crate::inode::Inode;
use crate::planted::{self, Planted};
use crate::vfs::*;
use std::cell::Cell;
use std::rc::Rc;

enum Step {
    /// The page that the new end cuts has to be in memory.
    Fetch(Plan),
    /// Done down to this page; there is more to remove.
    More(PreAttr, u64),
    /// Done, and what has become of memory: pages from here on go, and this one takes the place of the last.
    Shrunk {
        before: PreAttr,
        after: Attr,
        keep: u64,
        tail: Option<Page>,
    },
    Grown(PreAttr, Attr),
}

impl Data {
    /// Size change and other attributes in one: `edit` gets the inode record (with the overlay already merged in) inside the
    /// transaction, checks and changes it, `size` included; contents follow the size. It may be called several times; while
    /// a large file shrinks, its times stay as they were until the end. The change attribute is set here.
    pub(crate) async fn resize(
        &self,
        ino: Ino,
        edit: &dyn Fn(&mut Inode, &Txn<'_>) -> FsResult<()>,
    ) -> FsResult<(PreAttr, Attr)> {
        let file = self.file(ino);
        let layout = file.layout.lock().await;
        let width = Cell::new(extent::SLICE_PAGES);
        let mut first = None;
        let (before, after, observed) = loop {
            let _pin = self.store().pin();
            let done = self.index.run_nowait(|txn| self.resize_step(txn, &file, edit, &width)).await?;
            match done.value {
                Step::Fetch(Plan::Wait(load)) => load.wait().await,
                Step::Fetch(Plan::Parts(parts, guard)) => {
                    self.fetch(&file, parts, guard).await?;
                }
                // From here on in the same poll as the commit: nothing has come in between.
                Step::More(before, end) => {
                    self.drop_pages(&file, end, u64::MAX);
                    file.overlay.set(None);
                    first.get_or_insert(before);
                    basalt_reactor::yield_now().await;
                }
                Step::Shrunk { before, after, keep, tail } => {
                    self.drop_pages(&file, keep, u64::MAX);
                    if let Some(tail) = tail {
                        file.replace_clean(&self.cache, keep - 1, tail);
                        self.settle(&file);
                    }
                    file.overlay.set(None);
                    file.clean_lsn.set(done.observed);
                    break (first.unwrap_or(before), after, done.observed);
                }
                Step::Grown(before, after) => {
                    file.overlay.set(None);
                    break (first.unwrap_or(before), after, done.observed);
                }
            }
        };
        drop(layout);
        self.cache.evict();
        self.index.wait_durable(observed).await?;
        Ok((before, after))
    }

    fn resize_step(
        &self,
        txn: &mut Txn<'_>,
        file: &Rc<File>,
        edit: &dyn Fn(&mut Inode, &Txn<'_>) -> FsResult<()>,
        width: &Cell<u64>,
    ) -> TxnResult<Step> {
        let ino = file.ino;
        let shown = merged(txn, file)?;
        let before = pre_attr(&shown);
        let mut inode = shown.clone();
        edit(&mut inode, txn)?;
        if inode.size > FILE_SIZE_MAX {
            return Err(FsError::FileTooBig.into());
        }
        inode.change = next_change(txn, shown.change);
        if inode.size >= shown.size {
            // Behind the old end everything is zero or absent. The overlay is in the record now.
            txn.put(crate::keys::inode(ino), inode.encode());
            return Ok(Step::Grown(before, inode.attr()));
        }
        let keep = inode.size.div_ceil(PAGE_BYTES);
        let kept_bytes = (inode.size % PAGE_BYTES) as usize;
        let mut tail = None;
        if kept_bytes > 0 && !planted::is(Planted::TruncateKeepsTail) {
            match self.plan(txn, file, keep - 1, keep, true)? {
                Plan::Parts(parts, None) => {
                    if let Some(Part::Memory(data)) = parts.first() {
                        let old: Vec<u8> = data.concat();
                        tail = Some(padded(old.get(..kept_bytes).unwrap_or(&old)));
                    }
                }
                fetch => return Ok(Step::Fetch(fetch)),
            }
        }
        let (cut, mut freed) =
            extent::clear_from_end(txn, ino, keep, shown.size.div_ceil(PAGE_BYTES), width)?;
        if cut > keep {
            let mut inode = shown.clone();
            inode.size = cut * PAGE_BYTES;
            inode.blocks = inode.blocks.saturating_sub(freed);
            inode.change = next_change(txn, shown.change);
            txn.put(crate::keys::inode(ino), inode.encode());
            return Ok(Step::More(before, cut));
        }
        if let Some(tail) = &tail {
            freed += extent::clear(txn, ino, keep - 1, keep)?;
            extent::put_page(txn, ino, keep - 1, tail.as_slice());
            inode.blocks += 1;
        }
        inode.blocks = inode.blocks.saturating_sub(freed);
        txn.put(crate::keys::inode(ino), inode.encode());
        Ok(Step::Shrunk { before, after: inode.attr(), keep, tail })
    }
}
