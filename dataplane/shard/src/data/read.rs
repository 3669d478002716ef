//! Reading: find every page, then fetch what is on the drives, in parallel.

use super::cache::{Joiner, Page};
use super::file::{File, Load, LoadGuard, Stretch, padded};
use super::{Data, PAGE_BYTES, extent, fs_error, merged};
use crate::index::{Txn, TxnResult};
use crate::inode::Inode;
use crate::vfs::*;
use basalt_pool::BlockAddr;
use basalt_reactor::buf;
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::rc::Rc;

/// Where a part of the range is.
pub(super) enum Part {
    Memory(Vec<Bytes>),
    Hole { first: u64, end: u64 },
    Stored { first: u64, end: u64, at: BlockAddr },
}

/// Where a range of pages is.
pub(super) enum Plan {
    /// Someone else is fetching some of it: wait and ask again.
    Wait(Rc<Load>),
    Parts(Vec<Part>, Option<LoadGuard>),
}

/// Waits for others' reads before a read goes to the drives itself.
const WAITS_MAX: usize = 4;
/// A larger read gets a shorter answer, as protocols allow.
const READ_MAX_BYTES: u64 = 8 << 20;
/// Largest single piece of zeroes.
const ZEROES_BYTES: u64 = 128 << 10;

impl Data {
    /// The checks that ops makes on an inode (exists, type, permission) are `check`, run inside the transaction.
    pub(crate) async fn read(
        &self,
        ino: Ino,
        offset: u64,
        len: u32,
        check: &dyn Fn(&Inode) -> FsResult<()>,
    ) -> FsResult<ReadReply> {
        let file = self.file(ino);
        let mut waits = 0;
        let (attr, end, parts, guard, observed, _pin) = loop {
            // Before the extents are looked up, and until what they hold is verified in memory.
            let pin = self.store().pin();
            let done = self
                .index
                .run_nowait(|txn| {
                    let inode = merged(txn, &file)?;
                    check(&inode)?;
                    let end = inode.size.min(offset.saturating_add((len as u64).min(READ_MAX_BYTES)));
                    if end <= offset {
                        return Ok((inode, offset, Plan::Parts(Vec::new(), None)));
                    }
                    let (first, last) = (offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
                    let plan = self.plan(txn, &file, first, last, waits < WAITS_MAX)?;
                    Ok((inode, end, plan))
                })
                .await?;
            let (inode, end, plan) = done.value;
            match plan {
                Plan::Wait(load) => {
                    waits += 1;
                    load.wait().await;
                }
                Plan::Parts(parts, guard) => break (inode.attr(), end, parts, guard, done.observed, pin),
            }
        };
        if end > offset {
            self.read_ahead(&file, offset, end, attr.size);
        }
        let data = self.fetch(&file, parts, guard).await?;
        self.cache.evict();
        self.index.wait_durable(observed).await?;
        let data = trim(data, (offset % PAGE_BYTES) as usize, (end - offset) as usize);
        Ok(ReadReply { data, eof: end >= attr.size, attr })
    }

    /// Finds pages `first..end`, as of this moment: what it returns is true as long as nothing suspends.
    pub(super) fn plan(
        &self,
        txn: &mut Txn<'_>,
        file: &Rc<File>,
        first: u64,
        end: u64,
        may_wait: bool,
    ) -> TxnResult<Plan> {
        let mut parts = Vec::new();
        let (mut load_first, mut load_end) = (u64::MAX, 0);
        for stretch in file.stretches(first, end) {
            let (first, end) = match stretch {
                Stretch::Cached(data) => {
                    parts.push(Part::Memory(data));
                    continue;
                }
                Stretch::Missing { first, end } => (first, end),
            };
            if may_wait && let Some(load) = file.load_of(first, end) {
                return Ok(Plan::Wait(load));
            }
            let journalled = extent::pages(txn, file.ino, first, end, usize::MAX)?;
            let mut journalled = journalled.into_iter().peekable();
            let runs = extent::extents(txn, file.ino, first, end, usize::MAX)?;
            let mut runs = runs.into_iter().peekable();
            let mut page = first;
            while page < end {
                if let Some((_, value)) = journalled.next_if(|(p, _)| *p <= page) {
                    let content = padded(value.get(..PAGE_BYTES as usize).unwrap_or(&value));
                    parts.push(Part::Memory(single(&content)));
                    file.put_clean(&self.cache, page, content);
                    page += 1;
                    continue;
                }
                let next_journalled = journalled.peek().map_or(end, |(p, _)| *p);
                match runs.peek().copied() {
                    Some(run) if run.first <= page => {
                        let to = run.end.min(next_journalled).min(end);
                        if run.end <= to {
                            runs.next();
                        }
                        if to > page {
                            parts.push(Part::Stored { first: page, end: to, at: run.addr(page) });
                            load_first = load_first.min(page);
                            load_end = load_end.max(to);
                            page = to;
                        }
                    }
                    next => {
                        let to = next.map_or(end, |r| r.first).min(next_journalled);
                        parts.push(Part::Hole { first: page, end: to });
                        page = to;
                    }
                }
            }
        }
        let guard = (load_end > 0).then(|| LoadGuard::new(file, load_first, load_end));
        Ok(Plan::Parts(parts, guard))
    }

    /// Reads the stored parts and caches them, unless something changed those pages meanwhile.
    pub(super) async fn fetch(
        &self,
        file: &Rc<File>,
        parts: Vec<Part>,
        guard: Option<LoadGuard>,
    ) -> FsResult<Vec<Bytes>> {
        let store = self.store();
        let mut read = join_all(parts.iter().filter_map(|p| match p {
            Part::Stored { first, end, at } => {
                let (at, blocks) = (*at, (end - first) as u32);
                Some(async move { (blocks, store.read(at, blocks).await) })
            }
            _ => None,
        }))
        .await
        .into_iter();
        let mut out = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Memory(data) => out.extend(data),
                Part::Hole { first, end } => {
                    let mut left = (end - first) * PAGE_BYTES;
                    while left > 0 {
                        let n = left.min(ZEROES_BYTES);
                        out.push(buf::zeroes(n as usize));
                        left -= n;
                    }
                }
                Part::Stored { first, .. } => {
                    let Some((blocks, result)) = read.next() else { return Err(FsError::Io) };
                    let bytes = result.map_err(fs_error)?;
                    if bytes.len() as u64 != blocks as u64 * PAGE_BYTES {
                        return Err(FsError::Io);
                    }
                    if guard.as_ref().is_some_and(|g| !g.load.stale.get()) {
                        for (page, content) in (first..).zip(Page::split(bytes.clone())) {
                            file.put_clean(&self.cache, page, content);
                        }
                    }
                    out.push(bytes);
                }
            }
        }
        Ok(out)
    }
}

fn single(page: &Page) -> Vec<Bytes> {
    let mut j = Joiner::default();
    j.push(page);
    j.finish()
}

/// Leaves out `skip` bytes, keeps `len`.
fn trim(pieces: Vec<Bytes>, mut skip: usize, mut len: usize) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(pieces.len());
    for p in pieces {
        if skip >= p.len() {
            skip -= p.len();
            continue;
        }
        let n = len.min(p.len() - skip);
        if n == 0 {
            break;
        }
        out.push(p.slice(skip..skip + n));
        skip = 0;
        len -= n;
    }
    out
}
