//! Merging runs, so that a lookup asks few of them and what is deleted goes away.

use super::block::{Block, DataBlock, IndexBlock, Kind};
use super::read::{read_block, read_placed};
use super::run::{NewRun, Run, RunWriter};
use super::{Inner, fs_error};
use crate::planted::{self, Planted};
use crate::vfs::{FsError, FsResult};
use basalt_pool::PoolError;
use basalt_pool::store::Placed;
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// Data blocks that a merge reads at a time from each run: 128 KiB, one unit of a stripe.
const READ_BLOCKS: usize = 8;

/// Which runs (newest first, by size) to merge: a row of neighbours of similar size, so that each entry is rewritten a number of
/// times that grows with the logarithm of the shard only. `None` while there are at most `limit`, or when every older run is
/// more than twice what is newer than it (then their number is logarithmic by itself).
pub(super) fn pick(sizes: &[u64], limit: usize) -> Option<Range<usize>> {
    if sizes.len() <= limit {
        return None;
    }
    (0..sizes.len()).find_map(|start| {
        let mut sum = sizes[start];
        let mut end = start + 1;
        while end < sizes.len() && sizes[end] <= sum.saturating_mul(2) {
            sum += sizes[end];
            end += 1;
        }
        (end - start >= 2).then_some(start..end)
    })
}

impl Inner {
    /// One merge if one is due; whether there was. `force`: some merge, due or not, if there are two runs.
    pub(super) async fn merge_step(&self, force: bool) -> FsResult<bool> {
        let _one = self.merging.lock().await;
        if self.stopping.get() {
            return Ok(false);
        }
        let (group, oldest_included) = {
            let state = self.state.borrow();
            let sizes: Vec<u64> = state.runs.iter().map(|r| r.blocks).collect();
            let all = (force && sizes.len() >= 2).then_some(0..2);
            let Some(range) = pick(&sizes, self.tuning.runs).or(all) else { return Ok(false) };
            (state.runs[range.clone()].to_vec(), range.end == state.runs.len())
        };
        // A tombstone is needed as long as an older run may have the key.
        let drop_tombstones = oldest_included || planted::is(Planted::DroppedTombstone);
        let (new, dead) = match self.merge(&group, drop_tombstones).await {
            Ok(done) => done,
            Err(Stopped::Pool(e)) => return Err(fs_error(e)),
            Err(Stopped::Asked) => return Err(FsError::Delay),
        };
        let (run, stripes) = new.map_or((None, Vec::new()), |n| (Some(n.run), n.stripes));
        self.install(&stripes, &dead, |state| {
            // A flush may have put newer runs in front meanwhile; only merges take runs away, and this is the only one.
            let at = state.runs.iter().position(|r| r.id == group[0].id).expect("merges are one at a time");
            state.runs.splice(at..at + group.len(), run.map(Rc::new));
        });
        self.count(|s| s.merges += 1);
        Ok(true)
    }

    async fn merge(
        &self,
        group: &[Rc<Run>],
        drop_tombstones: bool,
    ) -> Result<(Option<NewRun>, Vec<Placed>), Stopped> {
        let mut sources = Vec::new();
        for run in group {
            sources.push(Source::open(self, run).await?);
        }
        let mut out = RunWriter::new(self, self.take_run_id());
        while let Some(newest) = smallest(&sources) {
            if self.stopping.get() {
                return Err(Stopped::Asked);
            }
            let key = sources[newest].key();
            let (block, i) = sources[newest].entry();
            let (lsn, value) = (block.lsn(i), block.value(i));
            for s in &mut sources {
                if s.at_key(&key) {
                    s.advance(self).await?;
                }
            }
            if value.is_some() || !drop_tombstones {
                out.push(key, lsn, value).await?;
            }
        }
        for (s, run) in sources.iter().zip(group) {
            debug_assert_eq!(
                s.places.iter().map(|p| u64::from(p.blocks)).sum::<u64>(),
                run.blocks,
                "all of it dies, once"
            );
        }
        let new = out.finish().await?;
        Ok((new, sources.into_iter().flat_map(|s| s.places).collect()))
    }
}

enum Stopped {
    Pool(PoolError),
    /// The index is being closed.
    Asked,
}
impl From<PoolError> for Stopped {
    fn from(e: PoolError) -> Self {
        Stopped::Pool(e)
    }
}

/// The source (newest first) that has the smallest key, the newest of those.
fn smallest(sources: &[Source]) -> Option<usize> {
    let live = sources.iter().enumerate().filter(|(_, s)| s.current.is_some());
    live.min_by(|(_, a), (_, b)| a.peek().cmp(&b.peek())).map(|(i, _)| i)
}

/// Reads a whole run in order, past the cache, and notes where all its blocks are.
struct Source {
    top: IndexBlock,
    t: usize,
    partition: Option<IndexBlock>,
    p: usize,
    read: VecDeque<DataBlock>,
    current: Option<(DataBlock, usize)>,
    places: Vec<Placed>,
}
impl Source {
    async fn open(inner: &Inner, run: &Run) -> Result<Source, PoolError> {
        let top = index(read_block(&*inner.store, Kind::Top, &run.top).await?);
        let mut s = Source {
            top,
            t: 0,
            partition: None,
            p: 0,
            read: VecDeque::new(),
            current: None,
            places: run.top.clone(),
        };
        s.next_block(inner).await?;
        Ok(s)
    }
    fn peek(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|(b, i)| b.key(*i))
    }
    fn at_key(&self, key: &[u8]) -> bool {
        self.peek() == Some(key)
    }
    fn entry(&self) -> (&DataBlock, usize) {
        let (block, i) = self.current.as_ref().expect("chosen because it has an entry");
        (block, *i)
    }
    fn key(&self) -> Bytes {
        let (block, i) = self.entry();
        block.key_bytes(i)
    }
    async fn advance(&mut self, inner: &Inner) -> Result<(), PoolError> {
        match &mut self.current {
            Some((block, i)) if *i + 1 < block.len() => *i += 1,
            _ => self.next_block(inner).await?,
        }
        Ok(())
    }
    async fn next_block(&mut self, inner: &Inner) -> Result<(), PoolError> {
        if self.read.is_empty() {
            self.read_more(inner).await?;
        }
        self.current = self.read.pop_front().map(|b| (b, 0));
        Ok(())
    }
    async fn read_more(&mut self, inner: &Inner) -> Result<(), PoolError> {
        if self.partition.as_ref().is_none_or(|p| self.p == p.len()) {
            if self.t == self.top.len() {
                return Ok(());
            }
            let at = self.top.at(self.t);
            self.places.extend_from_slice(at);
            self.partition = Some(index(read_block(&*inner.store, Kind::Partition, at).await?));
            (self.t, self.p) = (self.t + 1, 0);
        }
        let partition = self.partition.as_ref().expect("read just above");
        let end = partition.len().min(self.p + READ_BLOCKS);
        let blocks = join_all((self.p..end).map(|i| read_placed(&*inner.store, partition.at(i)))).await;
        for (i, bytes) in (self.p..end).zip(blocks) {
            self.places.extend_from_slice(partition.at(i));
            match Block::decode(Kind::Data, bytes?) {
                Some(Block::Data(d)) => self.read.push_back(d),
                _ => {
                    let at = partition.at(i).first();
                    return Err(PoolError::Corrupt(format!(
                        "the block of a sorted run at {at:?} is intact but not a data block of a known version"
                    )));
                }
            }
            basalt_reactor::yield_now().await;
        }
        self.p = end;
        Ok(())
    }
}
fn index(b: Block) -> IndexBlock {
    match b {
        Block::Index(i) => i,
        Block::Data(_) => unreachable!("decoded as an index"),
    }
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn merges_neighbours_of_similar_size() {
        assert_eq!(pick(&[1; 6], 6), None);
        assert_eq!(pick(&[1; 7], 6), Some(0..7));
        assert_eq!(pick(&[1, 1, 1, 1, 100, 300, 900], 6), Some(0..4));
        // Nothing new to merge, but two old ones alike.
        assert_eq!(pick(&[1, 5, 20, 30, 200, 900, 9000], 6), Some(2..4));
        assert_eq!(pick(&[1, 3, 9, 27, 81, 243, 729, 2187], 6), None);
    }

    /// The number of runs stays near the limit and each entry is rewritten few times.
    #[test]
    fn growth_is_logarithmic() {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..4096 {
            sizes.insert(0, 1u64);
            written += 1;
            while let Some(r) = pick(&sizes, 6) {
                let sum: u64 = sizes[r.clone()].iter().sum();
                written += sum;
                sizes.splice(r, [sum]);
            }
            assert!(sizes.len() <= 12, "{sizes:?}");
        }
        assert!(written < 4096 * 12, "{written}");
    }
}
