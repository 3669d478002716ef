//! A drive in memory, for tests and measurements. Sparse: memory is taken when a chunk is first written.

use crate::{
    BLOCK_BYTES, Bdev, Drive, DriveInfo, DriveRef, Durability, Result, check_compare_and_write, check_range,
};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

const CHUNK_BYTES: u64 = 256 << 10;

type Chunk = Mutex<Option<Box<[u8]>>>;

/// The contents live as long as the drive or a channel to it.
pub struct MallocDrive {
    media: Arc<Media>,
}

struct Media {
    info: DriveInfo,
    chunks: Vec<Chunk>,
}

impl MallocDrive {
    /// `size_bytes` is rounded down to a multiple of 4 KiB.
    pub fn create(name: &str, size_bytes: u64) -> DriveRef {
        let size_bytes = size_bytes / BLOCK_BYTES * BLOCK_BYTES;
        let info = DriveInfo {
            name: name.to_owned(),
            backend: "malloc".to_owned(),
            size_bytes,
            block_bytes: BLOCK_BYTES as u32,
            volatile_cache: false,
        };
        let chunks = (0..size_bytes.div_ceil(CHUNK_BYTES)).map(|_| Chunk::default()).collect();
        Arc::new(MallocDrive { media: Arc::new(Media { info, chunks }) })
    }
}

impl Drive for MallocDrive {
    fn info(&self) -> &DriveInfo {
        &self.media.info
    }
    fn open(&self) -> Result<Rc<dyn Bdev>> {
        Ok(Rc::new(Channel { media: self.media.clone() }))
    }
}

struct Channel {
    media: Arc<Media>,
}

impl Media {
    /// Calls `f` with each chunk that the range touches, where in it, and where in the range.
    fn each_chunk(
        &self,
        offset: u64,
        len: u64,
        mut f: impl FnMut(&mut Option<Box<[u8]>>, std::ops::Range<usize>, usize),
    ) {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let within = at % CHUNK_BYTES;
            let n = (CHUNK_BYTES - within).min(len - done);
            let mut chunk =
                self.chunks[(at / CHUNK_BYTES) as usize].lock().unwrap_or_else(PoisonError::into_inner);
            f(&mut chunk, within as usize..(within + n) as usize, done as usize);
            done += n;
        }
    }

    fn zero(&self, offset: u64, len: u64) {
        self.each_chunk(offset, len, |chunk, within, _| {
            if within.len() as u64 == CHUNK_BYTES {
                *chunk = None;
            } else if let Some(c) = chunk {
                c[within].fill(0);
            }
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.each_chunk(offset, data.len() as u64, |chunk, within, at| {
            let c = chunk.get_or_insert_with(|| vec![0; CHUNK_BYTES as usize].into_boxed_slice());
            let n = within.len();
            c[within].copy_from_slice(&data[at..at + n]);
        });
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        check_range(&self.info, offset, len)
    }
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        &self.media.info
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(async move {
            self.media.check(offset, len as u64)?;
            let mut buf = DmaBuf::new(len);
            self.media.each_chunk(offset, len as u64, |chunk, within, at| {
                let out = &mut buf[at..at + within.len()];
                match chunk {
                    Some(c) => out.copy_from_slice(&c[within]),
                    None => out.fill(0),
                }
            });
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, data: Vec<Bytes>, _: Durability) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.media.check(offset, data.iter().map(|d| d.len() as u64).sum())?;
            let mut at = offset;
            for piece in &data {
                self.media.write(at, piece);
                at += piece.len() as u64;
            }
            Ok(())
        })
    }

    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        self.write_zeroes(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.media.check(offset, len)?;
            self.media.zero(offset, len);
            Ok(())
        })
    }

    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            check_compare_and_write(&self.media.info, offset, &expect, &new)?;
            let mut equal = false;
            // One block lies in one chunk, whose lock makes this atomic.
            self.media.each_chunk(offset, BLOCK_BYTES, |chunk, within, _| {
                equal = match chunk {
                    Some(c) => c[within.clone()] == expect[..],
                    None => expect.iter().all(|&b| b == 0),
                };
                if equal {
                    let c = chunk.get_or_insert_with(|| vec![0; CHUNK_BYTES as usize].into_boxed_slice());
                    c[within].copy_from_slice(&new);
                }
            });
            Ok(equal)
        })
    }
}
