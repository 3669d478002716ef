//! Packing: a flush of the memtable moves journalled pages into stripes, many small files sharing one, so that the
//! journal behind them can be recycled.

use super::{Data, PAGE_BYTES, extent, fs_error};
use crate::index::{FrozenPage, Txn, TxnResult};
use crate::keys::tag;
use crate::planted::{self, Planted};
use crate::vfs::*;
use basalt_pool::store::{Owner, Piece, Placed, Written};
use basalt_pool::{BlockAddr, Class, PoolError};
use basalt_reactor::buf::DmaBuf;
use std::ops::Range;

/// Pages of one transaction: 4 MiB of data, about 150 KiB of journal record.
const BATCH: usize = 1024;

/// Where a frozen page belongs.
struct Home {
    ino: Ino,
    page: u64,
}
impl Home {
    fn of(key: &[u8]) -> Option<Home> {
        let key: &[u8; 17] = key.try_into().ok()?;
        let (ino, page) = key[1..].split_at(8);
        (key[0] == tag::PAGE).then_some(Home {
            ino: Ino(u64::from_be_bytes(ino.try_into().ok()?)),
            page: u64::from_be_bytes(page.try_into().ok()?),
        })
    }
}

impl Data {
    /// Implements [`crate::index::PackPages`]. Takes no file's lock: whoever holds one may be waiting for the room in the
    /// journal that this makes.
    pub(super) async fn pack(&self, mut frozen: Vec<FrozenPage>) -> FsResult<()> {
        frozen.sort_by(|a, b| a.key.cmp(&b.key));
        for batch in frozen.chunks(BATCH) {
            // Superseded or deleted since the freeze: not worth a block.
            let batch: Vec<&FrozenPage> = batch.iter().filter(|p| self.is_current(p)).collect();
            if batch.is_empty() {
                continue;
            }
            let homes: Option<Vec<Home>> = batch.iter().map(|p| Home::of(&p.key)).collect();
            let homes = homes.ok_or(FsError::Io)?;
            let groups = contiguous(&homes);
            let written = self.write_packed(&batch, &homes, &groups).await?;
            self.index.run_nowait(|txn| self.publish_packed(txn, &batch, &homes, &groups, &written)).await?;
        }
        Ok(())
    }

    fn is_current(&self, p: &FrozenPage) -> bool {
        planted::is(Planted::PackStalePage) || self.index.page_lsn(&p.key) == Some(p.lsn)
    }

    async fn write_packed(
        &self,
        batch: &[&FrozenPage],
        homes: &[Home],
        groups: &[Range<usize>],
    ) -> FsResult<Written> {
        let pieces = || -> Vec<Piece> {
            groups
                .iter()
                .map(|g| {
                    let mut buf = DmaBuf::zeroed(g.len() * PAGE_BYTES as usize);
                    for (page, out) in batch[g.clone()].iter().zip(buf.chunks_mut(PAGE_BYTES as usize)) {
                        let n = page.value.len().min(out.len());
                        out[..n].copy_from_slice(&page.value[..n]);
                    }
                    let home = &homes[g.start];
                    Piece {
                        owner: Owner { inode: home.ino.0, offset: home.page * PAGE_BYTES },
                        data: vec![buf.freeze()],
                    }
                })
                .collect()
        };
        match self.store().write(Class::Data, pieces()).await {
            Ok(w) => Ok(w),
            // These pages were acknowledged, and the journal has to be recycled: they may use the reserve. New writes
            // learn that the pool is full.
            Err(PoolError::NoSpace(_)) => {
                self.full.set(true);
                self.store().write(Class::Meta, pieces()).await.map_err(fs_error)
            }
            Err(e) => Err(fs_error(e)),
        }
    }

    fn publish_packed(
        &self,
        txn: &mut Txn<'_>,
        batch: &[&FrozenPage],
        homes: &[Home],
        groups: &[Range<usize>],
        written: &Written,
    ) -> TxnResult<()> {
        for stripe in &written.stripes {
            txn.stripe(stripe.clone());
        }
        for (group, placed) in groups.iter().zip(&written.placed) {
            let mut i = group.start;
            for run in placed {
                publish_run(txn, run, &mut i, homes, |i| self.is_current(batch[i]));
            }
        }
        Ok(())
    }
}

/// Extents for the current pages of one run of blocks, the rest of it dead.
fn publish_run(
    txn: &mut Txn<'_>,
    run: &Placed,
    next: &mut usize,
    homes: &[Home],
    is_current: impl Fn(usize) -> bool,
) {
    let start = *next;
    *next += run.blocks as usize;
    let at = |i: usize| BlockAddr { block: run.at.block + (i - start) as u32, ..run.at };
    let mut i = start;
    while i < *next {
        let from = i;
        let current = is_current(i);
        while i < *next && is_current(i) == current {
            i += 1;
        }
        let Home { ino, page } = homes[from];
        if current {
            for h in &homes[from..i] {
                txn.delete(crate::keys::ino_u64_key(tag::PAGE, h.ino, h.page));
            }
            extent::put(txn, ino, page, page + (i - from) as u64, at(from));
        } else {
            txn.dead(at(from), (i - from) as u32);
        }
    }
}

/// Groups of pages that follow each other in one file.
fn contiguous(homes: &[Home]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for i in 0..homes.len() {
        let follows = i > 0 && homes[i].ino == homes[i - 1].ino && homes[i].page == homes[i - 1].page + 1;
        match groups.last_mut() {
            Some(g) if follows => g.end = i + 1,
            _ => groups.push(i..i + 1),
        }
    }
    groups
}
