//! A reactor's channel to a namespace: requests of any size in blocks of 4 KiB, cut to what the controller takes.

use super::Shared;
use super::read::Read;
use super::request::Place;
use crate::io::{BOUNCE_BYTES, BouncePiece, Keep, QueueUser};
use crate::pointer::Segment;
use crate::spec::Sqe;
use crate::spec::command::{DEALLOCATE, DsmRange, FORCE_UNIT_ACCESS, Nsid, io};
use basalt_bdev::{BLOCK_BYTES, Bdev, DriveInfo, Durability, Result, check_range};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::{ALIGN_BYTES, DmaBuf};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use zerocopy::IntoBytes;

/// Blocks of one write-zeroes: its count has 16 bits and is 0-based.
const ZEROES_MAX_BLOCKS: u64 = 1 << 16;

pub(super) struct Channel {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: QueueUser,
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueUser) -> Channel {
        Channel { shared, queue }
    }

    /// Read, write or compare of this range, protection information as formatted.
    #[inline]
    pub(super) fn command(&self, opcode: u8, offset: u64, len: u64, control: u32) -> Sqe {
        let format = &self.shared.format;
        let lba = format.lba(offset);
        let (bits, tag) = format.protection_words(lba);
        let mut sqe =
            Sqe::blocks(opcode, Nsid(self.shared.nsid), lba, format.block_count(len), control | bits);
        sqe.cdw14 = tag.into();
        sqe
    }

    pub(super) async fn run_bounced(
        &self,
        at: Place,
        sqe: Sqe,
        piece: BouncePiece,
        len: usize,
    ) -> Result<BouncePiece> {
        let data = [Segment { iova: piece.iova(), len: len as u32 }];
        match self.run(at, sqe, &data, Keep::Bounce(piece)).await? {
            Keep::Bounce(piece) => Ok(piece),
            _ => unreachable!("a command gives back what it was given"),
        }
    }

    pub(super) async fn write_blocks(
        &self,
        offset: u64,
        data: Vec<Bytes>,
        durability: Durability,
    ) -> Result<()> {
        let len = data.iter().map(|d| d.len() as u64).sum();
        check_range(&self.shared.info, offset, len)?;
        let at = Place { op: "write", offset, len };
        let cached = self.shared.info.volatile_cache;
        let control = if cached && durability == Durability::Durable { FORCE_UNIT_ACCESS } else { 0 };
        let most = self.shared.abilities.transfer_max_bytes;
        let Some(segments) = self.segments(&data) else {
            return Box::pin(self.write_copied(at, &data, control)).await;
        };
        let data = Rc::new(data);
        if len <= most {
            let sqe = self.command(io::WRITE, offset, len, control);
            return self.run(at, sqe, &segments, Keep::Bytes(data)).await.map(drop);
        }
        let mut parts = Vec::new();
        let mut from = 0;
        for piece in cut(&segments, most) {
            let n = piece.iter().map(|s| u64::from(s.len)).sum();
            let sqe = self.command(io::WRITE, offset + from, n, control);
            let keep = Keep::Bytes(data.clone());
            parts.push(async move { self.run(at, sqe, &piece, keep).await.map(drop) });
            from += n;
        }
        Box::pin(all(parts)).await
    }

    /// Where the controller sees the pieces, neighbours joined; `None` when it does not see one, or one is crooked.
    fn segments(&self, data: &[Bytes]) -> Option<Vec<Segment>> {
        let mut segments: Vec<Segment> = Vec::with_capacity(data.len());
        for d in data.iter().filter(|d| !d.is_empty()) {
            let fits = d.as_ptr().addr().is_multiple_of(ALIGN_BYTES) && d.len().is_multiple_of(ALIGN_BYTES);
            let iova = self.queue.translate(d.as_ptr(), d.len()).filter(|_| fits)?;
            let len = u32::try_from(d.len()).ok()?;
            match segments.last_mut() {
                Some(last) if last.iova.0 + u64::from(last.len) == iova.0 && last.len <= u32::MAX - len => {
                    last.len += len;
                }
                _ => segments.push(Segment { iova, len }),
            }
        }
        Some(segments)
    }

    async fn write_copied(&self, at: Place, data: &[Bytes], control: u32) -> Result<()> {
        let most = (self.shared.abilities.transfer_max_bytes as usize).min(BOUNCE_BYTES);
        let len = at.len as usize;
        let parts = (0..len).step_by(most).map(|from| async move {
            let n = most.min(len - from);
            let sqe = self.command(io::WRITE, at.offset + from as u64, n as u64, control);
            let piece = self.queue.bounce().take().await;
            copy_range(data, from, n, |to, bytes| piece.write(to, bytes));
            self.run_bounced(at, sqe, piece, n).await.map(drop)
        });
        all(parts.collect()).await
    }

    async fn unmap_blocks(&self, offset: u64, len: u64) -> Result<()> {
        check_range(&self.shared.info, offset, len)?;
        if !self.shared.abilities.deallocate {
            if !self.shared.unmap_refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(drive = self.shared.info.name, "cannot unmap; freed space is zeroed instead");
            }
            return self.zero_blocks(offset, len).await;
        }
        let at = Place { op: "unmap", offset, len };
        let format = &self.shared.format;
        let blocks = len / u64::from(format.block_bytes);
        let mut done = 0;
        while done < blocks {
            // A range's length has 32 bits.
            let n = (blocks - done).min(u64::from(u32::MAX));
            let range = DsmRange {
                context: 0.into(),
                blocks: (n as u32).into(),
                first_lba: (format.lba(offset) + done).into(),
            };
            let piece = self.queue.bounce().take().await;
            piece.write(0, range.as_bytes());
            let sqe = Sqe::dataset_deallocate(Nsid(self.shared.nsid), 1);
            self.run_bounced(at, sqe, piece, size_of::<DsmRange>()).await?;
            done += n;
        }
        Ok(())
    }

    async fn zero_blocks(&self, offset: u64, len: u64) -> Result<()> {
        check_range(&self.shared.info, offset, len)?;
        let at = Place { op: "write-zeroes", offset, len };
        let block = u64::from(self.shared.format.block_bytes);
        let mut done = 0;
        while done < len {
            let n;
            if self.shared.abilities.write_zeroes {
                n = (len - done).min(ZEROES_MAX_BLOCKS * block);
                let sqe = self.command(io::WRITE_ZEROES, offset + done, n, DEALLOCATE);
                self.run(at, sqe, &[], Keep::Nothing).await?;
            } else {
                n = (len - done).min(self.shared.abilities.transfer_max_bytes).min(BOUNCE_BYTES as u64);
                let sqe = self.command(io::WRITE, offset + done, n, 0);
                let piece = self.queue.bounce().take().await;
                piece.zero(n as usize);
                self.run_bounced(at, sqe, piece, n as usize).await?;
            }
            done += n;
        }
        Ok(())
    }

    async fn flush_cache(&self) -> Result<()> {
        if !self.shared.info.volatile_cache {
            return Ok(());
        }
        let at = Place { op: "flush", offset: 0, len: 0 };
        let sqe = Sqe::new(io::FLUSH, Nsid(self.shared.nsid));
        self.run(at, sqe, &[], Keep::Nothing).await.map(drop)
    }
}

/// Segments cut into commands of at most `most` bytes, a multiple of 4 KiB.
fn cut(segments: &[Segment], most: u64) -> Vec<Vec<Segment>> {
    let mut commands: Vec<Vec<Segment>> = Vec::new();
    let mut room = 0;
    for s in segments {
        let mut rest = *s;
        while rest.len > 0 {
            if room == 0 {
                commands.push(Vec::new());
                room = most;
            }
            let n = room.min(u64::from(rest.len)) as u32;
            if let Some(last) = commands.last_mut() {
                last.push(Segment { iova: rest.iova, len: n });
            }
            rest.iova.0 += u64::from(n);
            rest.len -= n;
            room -= u64::from(n);
        }
    }
    commands
}

/// Calls `put` with what `data` holds of a range: where in the range, and the bytes.
fn copy_range(data: &[Bytes], from: usize, len: usize, mut put: impl FnMut(usize, &[u8])) {
    let mut at = 0;
    for d in data {
        let begin = from.max(at);
        let end = (from + len).min(at + d.len());
        if begin < end {
            put(begin - from, &d[begin - at..end - at]);
        }
        at += d.len();
    }
}

/// Runs all at once; the first error, once all have ended.
pub(super) async fn all<F: Future<Output = Result<()>>>(parts: Vec<F>) -> Result<()> {
    let mut parts: Vec<Option<Pin<Box<F>>>> = parts.into_iter().map(|f| Some(Box::pin(f))).collect();
    let mut outcome = Ok(());
    std::future::poll_fn(move |cx| {
        let mut pending = false;
        for place in &mut parts {
            let Some(part) = place else { continue };
            match part.as_mut().poll(cx) {
                Poll::Pending => pending = true,
                Poll::Ready(result) => {
                    *place = None;
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(result);
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(std::mem::replace(&mut outcome, Ok(()))) }
    })
    .await
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }
    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(Read::new(self, offset, len))
    }
    fn write(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.write_blocks(offset, data, durability))
    }
    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.flush_cache())
    }
    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.unmap_blocks(offset, len))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.zero_blocks(offset, len))
    }
    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(self.compare_and_write_block(offset, expect, new))
    }
}

const _: () = assert!(BLOCK_BYTES == ALIGN_BYTES as u64);
