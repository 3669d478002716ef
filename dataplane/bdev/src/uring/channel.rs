//! Requests on a file or block device.

use super::{Kind, Shared};
use crate::{
    BLOCK_BYTES, Bdev, BdevError, DriveInfo, Durability, Result, check_compare_and_write, check_range,
};
use basalt_reactor::buf::{ALIGN_BYTES, DmaBuf, zeroes};
use basalt_reactor::{LocalBoxFuture, ring};
use bytes::Bytes;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Zeroes written at a time where the kernel cannot zero a range by itself.
const ZERO_CHUNK_BYTES: u64 = 128 << 10;

pub(super) struct Channel {
    shared: Arc<Shared>,
}

/// Where a request failed, for its error.
#[derive(Clone, Copy)]
struct Place {
    op: &'static str,
    offset: u64,
    len: u64,
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>) -> Channel {
        Channel { shared }
    }

    /// Valid while `self` lives, as every future of a channel borrows it. A dropped future's request holds the open
    /// file in the kernel.
    fn fd(&self) -> RawFd {
        self.shared.file.as_raw_fd()
    }

    fn error(&self, at: Place, e: &io::Error) -> BdevError {
        let drive = self.shared.info.name.clone();
        let Place { op, offset, len } = at;
        match e.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => BdevError::HostFull { drive },
            Some(libc::ENODEV | libc::ENXIO) => BdevError::Gone { drive },
            // What the block layer makes of unrecovered medium errors and of failed protection information.
            Some(libc::ENODATA | libc::EILSEQ) if op == "read" => {
                BdevError::Unreadable { drive, offset, len }
            }
            _ => BdevError::Io { drive, op, offset, len, cause: e.to_string() },
        }
    }

    async fn read_blocks(&self, offset: u64, len: usize) -> Result<DmaBuf> {
        check_range(&self.shared.info, offset, len as u64)?;
        let at = Place { op: "read", offset, len: len as u64 };
        let (result, mut buf) = ring::read_at(self.fd(), DmaBuf::new(len), offset).await;
        let mut done = result.map_err(|e| self.error(at, &e))?;
        // Cut short by a signal or a stripe boundary below: go on from there.
        while done < len {
            let (result, rest) =
                ring::read_at(self.fd(), DmaBuf::new(len - done), offset + done as u64).await;
            let n = result.map_err(|e| self.error(at, &e))?;
            if n == 0 {
                let cause = format!(
                    "it ends at {} now, which is shorter than when it was opened",
                    offset + done as u64
                );
                return Err(self.error(at, &io::Error::other(cause)));
            }
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        Ok(buf)
    }

    async fn write_blocks(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> Result<()> {
        let len = data.iter().map(|d| d.len() as u64).sum();
        check_range(&self.shared.info, offset, len)?;
        let dsync = durability == Durability::Durable;
        let result = ring::write_at(self.fd(), aligned(data, len as usize), offset, dsync).await;
        result.map_err(|e| self.error(Place { op: "write", offset, len }, &e))
    }

    async fn unmap_blocks(&self, offset: u64, len: u64) -> Result<()> {
        check_range(&self.shared.info, offset, len)?;
        // On block devices the kernel makes this a write-zeroes that may deallocate, or refuses. Other than BLKDISCARD it
        // does not block the reactor, and what it leaves behind are zeroes.
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match ring::fallocate(self.fd(), mode, offset, len).await {
            Err(e) if unsupported(&e) => {
                if !self.shared.unmap_refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        drive = self.shared.info.name,
                        kind = ?self.shared.kind,
                        "cannot unmap; freed space is zeroed instead"
                    );
                }
                self.zero_blocks(offset, len).await
            }
            result => result.map_err(|e| self.error(Place { op: "unmap", offset, len }, &e)),
        }
    }

    async fn zero_blocks(&self, offset: u64, len: u64) -> Result<()> {
        check_range(&self.shared.info, offset, len)?;
        let at = Place { op: "write-zeroes", offset, len };
        // ZERO_RANGE keeps a file's blocks allocated; where it is unknown (tmpfs) a hole is zero too.
        let modes = match self.shared.kind {
            Kind::File => &[libc::FALLOC_FL_ZERO_RANGE, libc::FALLOC_FL_PUNCH_HOLE][..],
            Kind::BlockDevice => &[libc::FALLOC_FL_ZERO_RANGE][..],
        };
        for mode in modes {
            match ring::fallocate(self.fd(), mode | libc::FALLOC_FL_KEEP_SIZE, offset, len).await {
                Err(e) if unsupported(&e) => {}
                result => return result.map_err(|e| self.error(at, &e)),
            }
        }
        let mut done = 0;
        while done < len {
            let n = ZERO_CHUNK_BYTES.min(len - done);
            let written = ring::write_at(self.fd(), vec![zeroes(n as usize)], offset + done, false).await;
            written.map_err(|e| self.error(at, &e))?;
            done += n;
        }
        Ok(())
    }
}

fn unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// O_DIRECT takes aligned memory only: copies when a piece is not.
fn aligned(data: Vec<Bytes>, len: usize) -> Vec<Bytes> {
    let fits =
        |d: &Bytes| d.as_ptr().addr().is_multiple_of(ALIGN_BYTES) && d.len().is_multiple_of(ALIGN_BYTES);
    if data.iter().all(fits) {
        return data;
    }
    let mut copy = DmaBuf::new(len);
    let mut at = 0;
    for d in &data {
        copy[at..at + d.len()].copy_from_slice(d);
        at += d.len();
    }
    vec![copy.freeze()]
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(self.read_blocks(offset, len))
    }

    fn write(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.write_blocks(offset, data, durability))
    }

    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let at = Place { op: "flush", offset: 0, len: 0 };
            ring::fdatasync(self.fd()).await.map_err(|e| self.error(at, &e))
        })
    }

    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.unmap_blocks(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.zero_blocks(offset, len))
    }

    /// Atomic among the compare-and-writes of this process, which is the only one to have the drive open; a plain write
    /// to the same block meanwhile is not excluded. Durable when it returns true.
    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            check_compare_and_write(&self.shared.info, offset, &expect, &new)?;
            let _turn = self.shared.compare_and_write.lock().await;
            let found = self.read_blocks(offset, BLOCK_BYTES as usize).await?;
            if found[..] != expect[..] {
                return Ok(false);
            }
            self.write_blocks(offset, vec![new], Durability::Durable).await?;
            Ok(true)
        })
    }
}
