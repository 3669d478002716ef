//! Reads: data and checksums in parallel, every block verified, and what is missing or wrong given back from the other
//! columns of the same blocks.

use super::Inner;
use super::checksum::{BLOCK, ColumnSums, decode_block, verifies};
use super::layout::{Layout, ROW_BLOCKS};
use super::segment::Segment;
use crate::types::*;
use basalt_bdev::BdevError;
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::rc::Rc;

/// Checksums of one column's row, wherever they are.
enum Sums {
    /// The row is in memory: those of the run that is read.
    Open(Vec<Option<u32>>),
    Column(Rc<ColumnSums>),
    /// Its checksum block cannot be read or does not verify.
    Unknown,
}

/// A run of one column as read.
struct ColumnRead {
    column: usize,
    data: Option<DmaBuf>,
    sums: Sums,
    /// Per block: read, with a checksum, and it verifies.
    good: Vec<bool>,
}

impl Inner {
    pub(crate) async fn read(&self, at: BlockAddr, blocks: u32) -> Result<Bytes> {
        let Some(segment) = self.segment(at.segment) else {
            return Err(PoolError::Corrupt(format!(
                "segment {} is read but shard {} does not own it",
                at.segment, self.shard
            )));
        };
        if at.column as u32 >= segment.layout.k || !segment.layout.holds_run(at.block, blocks) {
            return Err(PoolError::Corrupt(format!(
                "{blocks} blocks at column {} block {} of segment {} are no run of data",
                at.column, at.block, at.segment
            )));
        }
        {
            let mut stats = self.stats.borrow_mut();
            stats.reads += 1;
            stats.read_bytes += blocks as u64 * BLOCK as u64;
        }
        let mut own = self.read_column(&segment, at.column as usize, at.block, blocks).await;
        let bad: Vec<usize> = (0..blocks as usize).filter(|i| !own.good[*i]).collect();
        if !bad.is_empty() {
            self.stats.borrow_mut().degraded_reads += 1;
            let answered = own.data.is_some();
            let mut out = own.data.take().unwrap_or_else(|| DmaBuf::zeroed(blocks as usize * BLOCK));
            self.reconstruct(&segment, &own, at.block, blocks, &bad, &mut out).await?;
            if answered || self.root.channel(segment.entry.members[own.column].drive).is_some() {
                // Rewriting such blocks elsewhere is reclaim's work, which comes later; until then every read of them is
                // repaired again.
                tracing::warn!(
                    segment = %at.segment, column = at.column, block = at.block, blocks = bad.len(),
                    drive = %segment.entry.members[own.column].drive,
                    "bad blocks were given back by redundancy"
                );
                self.stats.borrow_mut().repaired_blocks += bad.len() as u64;
            }
            return Ok(out.freeze());
        }
        match own.data {
            Some(data) => Ok(data.freeze()),
            None => Err(PoolError::DataLost(format!("segment {}: nothing was read", at.segment))),
        }
    }

    async fn read_column(&self, segment: &Rc<Segment>, column: usize, block: u32, blocks: u32) -> ColumnRead {
        let member = segment.entry.members[column];
        let channel = self.root.channel(member.drive);
        let offset = self.root.au_offset(member.au) + block as u64 * BLOCK as u64;
        let data = async {
            let channel = channel.as_ref()?;
            match channel.read(offset, blocks as usize * BLOCK).await {
                Ok(data) => Some(data),
                Err(e) => {
                    self.read_failed(member.drive, &e);
                    None
                }
            }
        };
        let sums = self.sums(segment, column, block, blocks);
        let (data, sums) = both(data, sums).await;
        let mut read = ColumnRead { column, data, sums, good: vec![false; blocks as usize] };
        for i in 0..blocks {
            let crc = crc_of(&read, block, i);
            let data = read.data.as_ref().map(|d| &d[i as usize * BLOCK..(i as usize + 1) * BLOCK]);
            read.good[i as usize] = matches!((data, crc), (Some(data), Some(crc)) if verifies(data, crc));
        }
        read
    }

    async fn sums(&self, segment: &Rc<Segment>, column: usize, block: u32, blocks: u32) -> Sums {
        let row = Layout::row_of(block);
        if let Some(open) = segment.state().rows.get(&row) {
            let in_row = block % ROW_BLOCKS;
            return Sums::Open((in_row..in_row + blocks).map(|i| open.sums.get(column as u8, i)).collect());
        }
        let key = (segment.entry.id, column as u8, row);
        if let Some(sums) = self.cache.borrow_mut().get(key) {
            return Sums::Column(sums);
        }
        let member = segment.entry.members[column];
        let Some(channel) = self.root.channel(member.drive) else { return Sums::Unknown };
        self.stats.borrow_mut().checksum_blocks_read += 1;
        let offset = self.root.au_offset(member.au) + Layout::checksum_block(row) as u64 * BLOCK as u64;
        match channel.read(offset, BLOCK).await {
            Ok(bytes) => match decode_block(&bytes, segment.entry.id, column as u8, row) {
                Some(sums) => {
                    let sums = Rc::new(sums);
                    self.cache.borrow_mut().insert(key, sums.clone());
                    Sums::Column(sums)
                }
                None => Sums::Unknown,
            },
            Err(e) => {
                self.read_failed(member.drive, &e);
                Sums::Unknown
            }
        }
    }

    /// A drive that fails to read takes itself out; one bad range does not.
    fn read_failed(&self, drive: DriveIndex, e: &BdevError) {
        match e {
            BdevError::Io { .. } | BdevError::Gone { .. } => self.suspect(drive, e.to_string()),
            e => tracing::warn!(%drive, "{e}"),
        }
    }

    /// Fills `bad` blocks of `out` (a run of `own.column`) from k other columns.
    async fn reconstruct(
        &self,
        segment: &Rc<Segment>,
        own: &ColumnRead,
        block: u32,
        blocks: u32,
        bad: &[usize],
        out: &mut DmaBuf,
    ) -> Result<()> {
        let k = segment.layout.k as usize;
        let present = |column: &usize| self.root.channel(segment.entry.members[*column].drive).is_some();
        let others: Vec<usize> =
            (0..segment.entry.members.len()).filter(|c| *c != own.column).filter(present).collect();
        let mut reads: Vec<ColumnRead> = Vec::new();
        // k columns first; the rest only when some of those are bad too.
        let (first, rest) = others.split_at(k.min(others.len()));
        for wave in [first, rest] {
            let enough = |i: &usize| reads.iter().filter(|r| r.good[*i]).count() >= k;
            if !wave.is_empty() && !bad.iter().all(enough) {
                let wave = wave.iter().map(|c| self.read_column(segment, *c, block, blocks));
                reads.extend(join_all(wave).await);
            }
        }
        for &i in bad {
            let range = i * BLOCK..(i + 1) * BLOCK;
            let columns: Vec<(usize, &[u8])> = reads
                .iter()
                .filter(|r| r.good[i])
                .filter_map(|r| Some((r.column, &r.data.as_ref()?[range.clone()])))
                .take(k)
                .collect();
            let place =
                || format!("segment {} column {} block {}", segment.entry.id, own.column, block as usize + i);
            if columns.len() < k {
                let gone = segment.entry.members.len() - others.len() - present(&own.column) as usize;
                let good = columns.len();
                return Err(if gone > segment.layout.m as usize {
                    PoolError::DataLost(format!(
                        "{}: {gone} of its drives are gone, {good} of {k} columns left",
                        place()
                    ))
                } else {
                    PoolError::Corrupt(format!("{}: only {good} of the {k} columns needed verify", place()))
                });
            }
            let out = &mut out[range];
            segment.codec.reconstruct(&columns, &[own.column], &mut [&mut *out]);
            if let Some(crc) = crc_of(own, block, i as u32)
                && !verifies(out, crc)
            {
                return Err(PoolError::Corrupt(format!(
                    "{}: what redundancy gives back does not verify",
                    place()
                )));
            }
        }
        Ok(())
    }
}

/// Checksum of block `i` of a run from `block`.
fn crc_of(read: &ColumnRead, block: u32, i: u32) -> Option<u32> {
    match &read.sums {
        Sums::Open(crcs) => crcs[i as usize],
        Sums::Column(sums) => sums.get(block % ROW_BLOCKS + i),
        Sums::Unknown => None,
    }
}

/// Polls both on this task.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    use std::task::Poll;
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    std::future::poll_fn(|cx| {
        if a_done.is_none()
            && let Poll::Ready(v) = a.as_mut().poll(cx)
        {
            a_done = Some(v);
        }
        if b_done.is_none()
            && let Poll::Ready(v) = b.as_mut().poll(cx)
        {
            b_done = Some(v);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
