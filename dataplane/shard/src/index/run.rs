//! Immutable sorted runs: what the index knows of each, and the writer.

use super::block::{Child, DataBuilder, IndexBlock, Kind};
use super::{Inner, filter};
use basalt_pool::store::{Owner, Piece, Placed, StripeRecord};
use basalt_pool::{Class, Lsn, PoolError};
use bytes::Bytes;

const BLOCK_BYTES: usize = basalt_bdev::BLOCK_BYTES as usize;

/// A run as the manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) entries: u64,
    /// All of its blocks of 4 KiB.
    pub(crate) blocks: u64,
    pub(crate) newest_lsn: Lsn,
    pub(crate) min_key: Bytes,
    pub(crate) max_key: Bytes,
    /// Where its top block is.
    pub(crate) top: Vec<Placed>,
}
impl Run {
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.min_key[..] <= *key && *key <= self.max_key[..]
    }
    /// Whether it may have keys of `from..to` (`to` empty: to the end).
    pub(crate) fn overlaps(&self, from: &[u8], to: &[u8]) -> bool {
        *from <= self.max_key[..] && (to.is_empty() || self.min_key[..] < *to)
    }
}

/// A run that is written but not yet part of the index.
pub(crate) struct NewRun {
    pub(crate) run: Run,
    pub(crate) stripes: Vec<StripeRecord>,
}

/// Writes a run, entry by entry in key order, in batches of a stripe. Until it is installed with a checkpoint nothing refers
/// to it: dropping the writer leaves only dead space.
pub(crate) struct RunWriter<'a> {
    inner: &'a Inner,
    id: u64,
    data: DataBuilder,
    ready: Vec<Ready>,
    ready_bytes: usize,
    /// The partition that is filling.
    partition: Vec<Child>,
    hashes: Vec<u64>,
    top: Vec<Child>,
    stripes: Vec<StripeRecord>,
    entries: u64,
    blocks: u64,
    newest_lsn: Lsn,
    bounds: Option<(Bytes, Bytes)>,
}
/// A block waiting to be written.
struct Ready {
    kind: Kind,
    first_key: Bytes,
    bytes: Bytes,
}

impl<'a> RunWriter<'a> {
    pub(crate) fn new(inner: &'a Inner, id: u64) -> RunWriter<'a> {
        RunWriter {
            inner,
            id,
            data: DataBuilder::default(),
            ready: Vec::new(),
            ready_bytes: 0,
            partition: Vec::new(),
            hashes: Vec::new(),
            top: Vec::new(),
            stripes: Vec::new(),
            entries: 0,
            blocks: 0,
            newest_lsn: Lsn(0),
            bounds: None,
        }
    }

    /// Keys come in order. Lets other tasks run after every block.
    pub(crate) async fn push(&mut self, key: Bytes, lsn: Lsn, value: Option<Bytes>) -> Result<(), PoolError> {
        let adds = DataBuilder::entry_bytes(&key, value.as_ref());
        if !self.data.is_empty() && self.data.bytes() + adds > self.inner.tuning.data_block_bytes {
            self.finish_data();
            basalt_reactor::yield_now().await;
            if self.ready_bytes >= self.inner.store.stripe_bytes() {
                self.write_ready().await?;
            }
        }
        self.entries += 1;
        self.newest_lsn = self.newest_lsn.max(lsn);
        match &mut self.bounds {
            Some((_, max)) => {
                debug_assert!(*max < key);
                *max = key.clone();
            }
            None => self.bounds = Some((key.clone(), key.clone())),
        }
        self.data.push(key, lsn, value);
        Ok(())
    }

    /// `None` when nothing was pushed.
    pub(crate) async fn finish(mut self) -> Result<Option<NewRun>, PoolError> {
        let Some((min_key, max_key)) = self.bounds.clone() else { return Ok(None) };
        self.finish_data();
        self.write_ready().await?;
        self.finish_partition();
        self.write_ready().await?;
        let bytes = IndexBlock::encode(Kind::Top, &self.top, &[]);
        let top =
            self.write(vec![Ready { kind: Kind::Top, first_key: Bytes::new(), bytes }]).await?.remove(0).at;
        Ok(Some(NewRun {
            run: Run {
                id: self.id,
                entries: self.entries,
                blocks: self.blocks,
                newest_lsn: self.newest_lsn,
                min_key: Bytes::copy_from_slice(&min_key),
                max_key: Bytes::copy_from_slice(&max_key),
                top,
            },
            stripes: self.stripes,
        }))
    }

    fn ready(&mut self, block: Ready) {
        self.ready_bytes += block.bytes.len();
        self.ready.push(block);
    }
    fn finish_data(&mut self) {
        let data = std::mem::take(&mut self.data);
        if let Some(first_key) = data.keys().next().cloned() {
            self.hashes.extend(data.keys().map(|k| filter::hash(k)));
            self.ready(Ready { kind: Kind::Data, first_key, bytes: data.encode() });
        }
    }
    fn finish_partition(&mut self) {
        if let Some(first) = self.partition.first() {
            let first_key = first.first_key.clone();
            let filter = filter::build(&std::mem::take(&mut self.hashes));
            let bytes = IndexBlock::encode(Kind::Partition, &std::mem::take(&mut self.partition), &filter);
            self.ready(Ready { kind: Kind::Partition, first_key, bytes });
        }
    }
    /// Writes what is ready. All data blocks of it are of the current partition, since partitions end only here.
    async fn write_ready(&mut self) -> Result<(), PoolError> {
        let ready = std::mem::take(&mut self.ready);
        self.ready_bytes = 0;
        if ready.is_empty() {
            return Ok(());
        }
        let kinds: Vec<Kind> = ready.iter().map(|r| r.kind).collect();
        for (kind, child) in kinds.into_iter().zip(self.write(ready).await?) {
            match kind {
                Kind::Data => self.partition.push(child),
                Kind::Partition | Kind::Top => self.top.push(child),
            }
        }
        let tuning = &self.inner.tuning;
        if self.partition.len() >= tuning.partition_blocks || self.hashes.len() >= tuning.partition_keys {
            self.finish_partition();
        }
        Ok(())
    }
    async fn write(&mut self, ready: Vec<Ready>) -> Result<Vec<Child>, PoolError> {
        let mut pieces = Vec::with_capacity(ready.len());
        for r in &ready {
            // The run's id in the high bits: reclaim asks the index whether that run still lives.
            let offset = (self.id << 40) | (self.blocks * BLOCK_BYTES as u64);
            pieces.push(Piece { owner: Owner { inode: 0, offset }, data: vec![r.bytes.clone()] });
            self.blocks += (r.bytes.len() / BLOCK_BYTES) as u64;
        }
        let written = self.inner.store.write(Class::Meta, pieces).await?;
        self.stripes.extend(written.stripes);
        let children = ready.into_iter().zip(written.placed).map(|(r, at)| {
            debug_assert_eq!(
                at.iter().map(|p| p.blocks as usize).sum::<usize>() * BLOCK_BYTES,
                r.bytes.len()
            );
            Child { first_key: r.first_key, at }
        });
        Ok(children.collect())
    }
}
