//! File contents against a model, in the simulator, over a store that tells what it would not forgive.

mod concurrent;
mod crash;
mod media;
mod model;
mod single;
mod speed;

use super::{Data, Extent, PAGE_BYTES, extent};
use crate::index::{Index, Tuning};
use crate::inode::Inode;
use crate::keys;
use crate::vfs::*;
use basalt_pool::{Pool, ShardId};
use bytes::Bytes;
use media::Media;
use std::rc::Rc;

struct Shard {
    index: Rc<Index>,
    data: Rc<Data>,
    /// What is beneath: one of the two.
    media: Rc<Media>,
    pool: Option<Pool>,
}

/// Over a pool as it really is.
async fn open_in(pool: Pool, shard: ShardId) -> Shard {
    let index = Index::open(&pool, shard).await.expect("opens");
    let data = Data::new(index.clone());
    data.set_limits(1 << 20, 256 << 10);
    Shard { index, data, media: Media::new(), pool: Some(pool) }
}

fn open(media: &Rc<Media>) -> Shard {
    let (store, recovery) = media.open();
    let tuning =
        Tuning { flush_journal_bytes: 64 << 10, flush_memtable_bytes: 128 << 10, ..Tuning::default() };
    let index = Index::over(store, recovery, tuning);
    let data = Data::new(index.clone());
    data.set_limits(1 << 20, 256 << 10);
    Shard { index, data, media: media.clone(), pool: None }
}

fn any(_: &Inode) -> FsResult<()> {
    Ok(())
}

fn noise(len: usize) -> Vec<u8> {
    let mut v = vec![0; len];
    basalt_reactor::fill_random(&mut v);
    v
}
fn below(n: usize) -> usize {
    (basalt_reactor::random_u64() % n as u64) as usize
}

impl Shard {
    async fn create(&self, ino: Ino) {
        self.index
            .run(|txn| {
                let inode = Inode {
                    ino,
                    generation: 1,
                    kind: FileType::Regular,
                    mode: 0o644,
                    nlink: 1,
                    uid: 0,
                    gid: 0,
                    size: 0,
                    blocks: 0,
                    rdev: (0, 0),
                    atime: txn.time(),
                    mtime: txn.time(),
                    ctime: txn.time(),
                    btime: txn.time(),
                    change: txn.lsn().0 << 16,
                    parent: Ino(1),
                    hash_seed: 0,
                    dir_layout: 0,
                    entries: 0,
                    project: 0,
                    tenant: 0,
                    scheme: 0,
                    create_verifier: [0; 8],
                    tail: Vec::new(),
                };
                txn.put(keys::inode(ino), inode.encode());
                Ok(())
            })
            .await
            .expect("creates");
    }
    async fn inode(&self, ino: Ino) -> Inode {
        let file = self.data.file(ino);
        self.index.run(|txn| super::merged(txn, &file)).await.expect("is there")
    }
    async fn write(&self, ino: Ino, offset: usize, data: &[u8], s: Stability) -> FsResult<WriteReply> {
        // In odd pieces, as a protocol delivers them.
        let pieces = data.chunks(1 + below(10_000)).map(Bytes::copy_from_slice).collect();
        self.data.write(ino, offset as u64, pieces, s, [7; 8], &any).await
    }
    async fn read(&self, ino: Ino, offset: usize, len: usize) -> FsResult<Vec<u8>> {
        let r = self.data.read(ino, offset as u64, len as u32, &any).await?;
        let bytes = r.data.concat();
        assert!(bytes.len() <= len);
        assert_eq!(r.eof, (offset + len) as u64 >= r.attr.size);
        Ok(bytes)
    }
    async fn read_all(&self, ino: Ino) -> Vec<u8> {
        let size = self.inode(ino).await.size as usize;
        let all = self.read(ino, 0, size + 10).await.expect("reads");
        assert_eq!(all.len(), size);
        all
    }
    async fn truncate(&self, ino: Ino, size: usize) -> FsResult<(PreAttr, Attr)> {
        self.data
            .resize(ino, &|inode, _| {
                inode.size = size as u64;
                Ok(())
            })
            .await
    }
    /// The file's record and what is stored for it agree, and nothing stored is let go.
    async fn audit(&self, ino: Ino) {
        let (inode, runs, pages) = self
            .index
            .run(|txn| {
                let inode = super::record(txn, ino)?.ok_or(FsError::NotFound)?;
                let runs = extent::extents(txn, ino, 0, u64::MAX / PAGE_BYTES, usize::MAX)?;
                let pages = extent::pages(txn, ino, 0, u64::MAX, usize::MAX)?;
                Ok((inode, runs, pages))
            })
            .await
            .expect("reads");
        let mut taken = std::collections::BTreeSet::new();
        for run in &runs {
            for page in run.first..run.end {
                assert!(taken.insert(page), "page {page} is stored twice");
                let live = self.pool.is_some() || self.media.is_live(run.addr(page));
                assert!(live, "page {page} refers to a block that was let go");
            }
        }
        for (page, value) in &pages {
            assert!(taken.insert(*page), "page {page} is stored twice");
            assert!(value.len() <= PAGE_BYTES as usize);
        }
        assert_eq!(inode.blocks, taken.len() as u64, "blocks of {}", ino.0);
        if let Some(last) = taken.last() {
            assert!(last * PAGE_BYTES < inode.size, "page {last} lies behind the end at {}", inode.size);
        }
    }
}

#[test]
fn extents_are_small() {
    assert_eq!(
        Extent::plain(basalt_pool::BlockAddr { segment: basalt_pool::SegmentId(1), column: 0, block: 0 }, 1)
            .encode()
            .len(),
        48
    );
}
