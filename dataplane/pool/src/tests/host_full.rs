//! The host's file system full beneath sparse drives.

use super::*;
use basalt_bdev::{Bdev, BdevError, Drive, DriveInfo, Durability};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Refuses writes as a sparse file does when its host has no space.
struct Sparse {
    under: DriveRef,
    full: Arc<AtomicBool>,
}
struct Channel {
    under: Rc<dyn Bdev>,
    full: Arc<AtomicBool>,
}

impl Drive for Sparse {
    fn info(&self) -> &DriveInfo {
        self.under.info()
    }
    fn open(&self) -> basalt_bdev::Result<Rc<dyn Bdev>> {
        Ok(Rc::new(Channel { under: self.under.open()?, full: self.full.clone() }))
    }
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        self.under.info()
    }
    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, basalt_bdev::Result<DmaBuf>> {
        self.under.read(offset, len)
    }
    fn write(&self, at: u64, data: Vec<Bytes>, d: Durability) -> LocalBoxFuture<'_, basalt_bdev::Result<()>> {
        if self.full.load(Ordering::Relaxed) {
            let drive = self.info().name.clone();
            return Box::pin(async move { Err(BdevError::HostFull { drive }) });
        }
        self.under.write(at, data, d)
    }
    fn flush(&self) -> LocalBoxFuture<'_, basalt_bdev::Result<()>> {
        self.under.flush()
    }
    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, basalt_bdev::Result<()>> {
        self.under.unmap(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, basalt_bdev::Result<()>> {
        self.under.write_zeroes(offset, len)
    }
    fn compare_and_write(&self, o: u64, e: Bytes, n: Bytes) -> LocalBoxFuture<'_, basalt_bdev::Result<bool>> {
        self.under.compare_and_write(o, e, n)
    }
}

fn set(key: &str) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    vec![(key.as_bytes().to_vec(), Some(key.as_bytes().to_vec()))]
}

#[test]
fn a_full_host_is_named_and_passes() {
    for full_drives in [1, 2, 3] {
        let mut w = World::new(1, 3);
        let full = Arc::new(AtomicBool::new(false));
        let never = Arc::new(AtomicBool::new(false));
        let drives: Vec<DriveRef> = (0..3)
            .map(|n| -> DriveRef {
                let full = if n < full_drives { full.clone() } else { never.clone() };
                Arc::new(Sparse { under: w.drives[n].drive(), full })
            })
            .collect();
        w.run(|| async move {
            let pool = Pool::create(drives, &spec(None), |_, _| ()).await.unwrap();
            pool.meta_write(set("before")).await.unwrap();
            full.store(true, Ordering::Relaxed);
            for _ in 0..3 {
                match pool.meta_write(set("while")).await {
                    Ok(()) => assert_eq!(full_drives, 1),
                    Err(PoolError::Bdev(BdevError::HostFull { .. })) => assert!(full_drives > 1),
                    other => panic!("{other:?}"),
                }
            }
            full.store(false, Ordering::Relaxed);
            pool.meta_write(set("after")).await.unwrap();
            // No drive was blamed for it.
            assert_eq!(pool.status().await.unwrap().health, "healthy");
        });
        w.power_cut();
        for left_out in 0..3 {
            let drives = w.refs((0..3).filter(|n| *n != left_out));
            let view = w.run(|| async move { inspect::root(drives).await });
            assert_eq!(view.error, None);
            assert_eq!(view.meta.len(), 3, "{full_drives} full, without drive {left_out}");
        }
    }
}
