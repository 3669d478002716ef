//! Counts what passes: wraps a drive and keeps its totals where any thread can read them.

use crate::{Bdev, Drive, DriveInfo, DriveRef, Durability, Result};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the drive was wrapped.
#[derive(Debug, Default)]
pub struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    errors: AtomicU64,
}

/// One look at [`Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub errors: u64,
}

impl Counters {
    pub fn get(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            reads: of(&self.reads),
            read_bytes: of(&self.read_bytes),
            writes: of(&self.writes),
            written_bytes: of(&self.written_bytes),
            errors: of(&self.errors),
        }
    }

    fn done<T>(&self, count: &AtomicU64, bytes: &AtomicU64, len: u64, result: &Result<T>) {
        count.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(_) => bytes.fetch_add(len, Ordering::Relaxed),
            Err(_) => self.errors.fetch_add(1, Ordering::Relaxed),
        };
    }
}

pub struct CountedDrive {
    inner: DriveRef,
    counters: Arc<Counters>,
}

impl CountedDrive {
    pub fn wrap(inner: DriveRef) -> (DriveRef, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Arc::new(CountedDrive { inner, counters: counters.clone() }), counters)
    }
}

impl Drive for CountedDrive {
    fn info(&self) -> &DriveInfo {
        self.inner.info()
    }
    fn open(&self) -> Result<Rc<dyn Bdev>> {
        Ok(Rc::new(Channel { inner: self.inner.open()?, counters: self.counters.clone() }))
    }
}

struct Channel {
    inner: Rc<dyn Bdev>,
    counters: Arc<Counters>,
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        self.inner.info()
    }
    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(async move {
            let result = self.inner.read(offset, len).await;
            self.counters.done(&self.counters.reads, &self.counters.read_bytes, len as u64, &result);
            result
        })
    }
    fn write(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let len = data.iter().map(|piece| piece.len() as u64).sum();
            let result = self.inner.write(offset, data, durability).await;
            self.counters.done(&self.counters.writes, &self.counters.written_bytes, len, &result);
            result
        })
    }
    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        self.inner.flush()
    }
    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        self.inner.unmap(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        self.inner.write_zeroes(offset, len)
    }
    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        self.inner.compare_and_write(offset, expect, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_counted() {
        let mut sim = basalt_reactor::sim::Sim::new(1);
        let node = sim.add_node(1);
        sim.block_on(node, || async {
            let (drive, counters) = CountedDrive::wrap(crate::malloc::MallocDrive::create("m", 1 << 20));
            let channel = drive.open().unwrap();
            channel.write(0, vec![Bytes::from(vec![1; 8192])], Durability::Durable).await.unwrap();
            assert_eq!(channel.read(4096, 4096).await.unwrap()[0], 1);
            assert!(channel.read(1 << 20, 4096).await.is_err());
            let expect = Counts { reads: 2, read_bytes: 4096, writes: 1, written_bytes: 8192, errors: 1 };
            assert_eq!(counters.get(), expect);
        });
    }
}
