//! Lookups in sorted runs: what is in memory answers at once, what is missing becomes a future to wait for.

use super::block::{Block, DataBlock, IndexBlock, Kind};
use super::run::Run;
use super::store::Store;
use super::{Inner, Stop, TxnResult, filter, fs_error};
use crate::vfs::FsResult;
use basalt_pool::store::Placed;
use basalt_pool::{BlockAddr, PoolError};
use basalt_reactor::sync::{Notify, join_all};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A scan that wants at least this many more entries has the blocks that follow read along with the one it misses.
const READ_AHEAD_ENTRIES: usize = 32;
const READ_AHEAD_BLOCKS: usize = 4;

/// Reads and joins the places of one block, or of several that lie in a row.
pub(super) async fn read_placed(store: &dyn Store, at: &[Placed]) -> Result<Bytes, PoolError> {
    if let [one] = at {
        return store.read(one.at, one.blocks).await;
    }
    let parts = join_all(at.iter().map(|p| store.read(p.at, p.blocks))).await;
    let mut out = BytesMut::new();
    for p in parts {
        out.extend_from_slice(&p?);
    }
    Ok(out.freeze())
}
pub(super) async fn read_block(store: &dyn Store, kind: Kind, at: &[Placed]) -> Result<Block, PoolError> {
    let bytes = read_placed(store, at).await?;
    Block::decode(kind, bytes).ok_or_else(|| {
        PoolError::Corrupt(format!(
            "the block of a sorted run at {:?} is intact but not a {kind:?} block of a known version",
            at.first()
        ))
    })
}

/// A block that is not in memory.
struct Missing {
    kind: Kind,
    at: Vec<Placed>,
}

/// Blocks that one operation has waited for: they stay until it is done, so that every attempt gets further.
#[derive(Default)]
pub(crate) struct Pins {
    blocks: Rc<RefCell<BTreeMap<BlockAddr, Rc<Block>>>>,
}

impl Pins {
    fn block(&self, inner: &Inner, kind: Kind, at: &[Placed]) -> Result<Rc<Block>, Missing> {
        let first = at[0].at;
        let pinned = self.blocks.borrow().get(&first).cloned();
        pinned
            .or_else(|| inner.cache.borrow_mut().get(first))
            .ok_or_else(|| Missing { kind, at: at.to_vec() })
    }

    /// The newest word of `runs` (newest first) on `key`.
    pub(super) fn get(&self, inner: &Rc<Inner>, runs: &[Rc<Run>], key: &[u8]) -> TxnResult<Option<Bytes>> {
        let mut missing = Vec::new();
        let hash = if runs.is_empty() { 0 } else { filter::hash(key) };
        for run in runs.iter().filter(|r| r.covers(key)) {
            let data = self.data_block_of(inner, run, key, hash);
            match data {
                Ok(None) => {}
                Ok(Some(block)) => {
                    let Block::Data(data) = &*block else { unreachable!("decoded as what its parent says") };
                    let i = data.lower_bound(key);
                    if i < data.len() && data.key(i) == key {
                        if missing.is_empty() {
                            return Ok(data.value(i));
                        }
                        break;
                    }
                }
                Err(m) => {
                    // Data comes after its filter said yes: very likely the answer, unless a newer run has one.
                    let likely = m.kind == Kind::Data;
                    missing.push(m);
                    if likely {
                        break;
                    }
                }
            }
        }
        if missing.is_empty() { Ok(None) } else { Err(self.wait(inner, missing)) }
    }
    fn data_block_of(
        &self,
        inner: &Inner,
        run: &Run,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<Rc<Block>>, Missing> {
        let top = self.block(inner, Kind::Top, &run.top)?;
        let top = index(&top);
        let Some(i) = top.find(key) else { return Ok(None) };
        let partition = self.block(inner, Kind::Partition, top.at(i))?;
        let partition = index(&partition);
        if !partition.filter.may_contain(hash) {
            return Ok(None);
        }
        let Some(i) = partition.find(key) else { return Ok(None) };
        self.block(inner, Kind::Data, partition.at(i)).map(Some)
    }

    /// A scan of `runs` (newest first) over `from..to`.
    pub(super) fn seek(
        &self,
        inner: &Rc<Inner>,
        runs: &[Rc<Run>],
        from: &[u8],
        to: &[u8],
    ) -> TxnResult<RunScan> {
        let mut cursors = Vec::new();
        let mut missing = Vec::new();
        for run in runs.iter().filter(|r| r.overlaps(from, to)) {
            match self.cursor(inner, run, from, to) {
                Ok(c) => cursors.extend(c),
                Err(m) => missing.push(m),
            }
        }
        if missing.is_empty() { Ok(RunScan { cursors }) } else { Err(self.wait(inner, missing)) }
    }
    fn cursor(&self, inner: &Inner, run: &Run, from: &[u8], to: &[u8]) -> Result<Option<Cursor>, Missing> {
        let top = self.block(inner, Kind::Top, &run.top)?;
        let t = index(&top).find(from).unwrap_or(0);
        let partition = self.block(inner, Kind::Partition, index(&top).at(t))?;
        let p = index(&partition).find(from).unwrap_or(0);
        let block = self.block(inner, Kind::Data, index(&partition).at(p))?;
        let entry = data(&block).lower_bound(from);
        let mut c = Cursor { top, t, partition, p, block, entry, to: Bytes::copy_from_slice(to) };
        let at_end = entry == data(&c.block).len() && !self.next_block(inner, &mut c)?;
        Ok((!at_end && c.within()).then_some(c))
    }
    /// Moves to the first entry of the next block; false at the end of the run.
    fn next_block(&self, inner: &Inner, c: &mut Cursor) -> Result<bool, Missing> {
        let (mut t, mut p, mut partition) = (c.t, c.p + 1, None);
        if p == index(&c.partition).len() {
            (t, p) = (t + 1, 0);
            if t == index(&c.top).len() {
                return Ok(false);
            }
            partition = Some(self.block(inner, Kind::Partition, index(&c.top).at(t))?);
        }
        let block = self.block(inner, Kind::Data, index(partition.as_ref().unwrap_or(&c.partition)).at(p))?;
        (c.t, c.p, c.entry, c.block) = (t, p, 0, block);
        if let Some(partition) = partition {
            c.partition = partition;
        }
        Ok(true)
    }

    fn wait(&self, inner: &Rc<Inner>, missing: Vec<Missing>) -> Stop {
        // Taken now, while the runs are still the shard's: a merge that retires them later must not free what is read here.
        let pin = inner.store.pin();
        let loads: Vec<_> =
            missing.into_iter().map(|m| load(inner.clone(), self.blocks.clone(), m)).collect();
        Stop::Wait(Box::pin(async move {
            let _pin = pin;
            for done in join_all(loads).await {
                done?;
            }
            Ok(())
        }))
    }
}

fn index(b: &Rc<Block>) -> &IndexBlock {
    match &**b {
        Block::Index(i) => i,
        Block::Data(_) => unreachable!("decoded as what its parent says"),
    }
}
fn data(b: &Rc<Block>) -> &DataBlock {
    match &**b {
        Block::Data(d) => d,
        Block::Index(_) => unreachable!("decoded as what its parent says"),
    }
}

/// Brings a block into the cache and pins it.
async fn load(
    inner: Rc<Inner>,
    pins: Rc<RefCell<BTreeMap<BlockAddr, Rc<Block>>>>,
    m: Missing,
) -> FsResult<()> {
    let first = m.at[0].at;
    loop {
        let loading = inner.cache.borrow().loading.get(&first).map(|n| n.notified());
        match loading {
            Some(other) => other.await,
            None => break,
        }
        if let Some(b) = inner.cache.borrow_mut().get(first) {
            pins.borrow_mut().insert(first, b);
            return Ok(());
        }
    }
    let _loading = Loading::new(&inner, first);
    let block = Rc::new(read_block(&*inner.store, m.kind, &m.at).await.map_err(fs_error)?);
    inner.cache.borrow_mut().insert(first, block.clone());
    pins.borrow_mut().insert(first, block);
    Ok(())
}
/// Marks a block as being read, also when the reader is dropped halfway.
struct Loading<'a> {
    inner: &'a Inner,
    at: BlockAddr,
}
impl<'a> Loading<'a> {
    fn new(inner: &'a Inner, at: BlockAddr) -> Self {
        inner.cache.borrow_mut().loading.insert(at, Rc::new(Notify::new()));
        Loading { inner, at }
    }
}
impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let waiters = self.inner.cache.borrow_mut().loading.remove(&self.at);
        if let Some(w) = waiters {
            w.notify_all();
        }
    }
}

/// One run's place in a scan; always on an entry within the range.
struct Cursor {
    top: Rc<Block>,
    t: usize,
    partition: Rc<Block>,
    p: usize,
    block: Rc<Block>,
    entry: usize,
    to: Bytes,
}
impl Cursor {
    fn key(&self) -> &[u8] {
        data(&self.block).key(self.entry)
    }
    fn within(&self) -> bool {
        self.to.is_empty() || *self.key() < self.to[..]
    }
}

/// Scan over several runs, newest first.
pub(super) struct RunScan {
    cursors: Vec<Cursor>,
}
impl RunScan {
    /// Smallest key not yet taken.
    pub(super) fn smallest(&self) -> Option<Bytes> {
        let c = self.cursors.iter().min_by(|a, b| a.key().cmp(b.key()))?;
        Some(data(&c.block).key_bytes(c.entry))
    }
    /// The newest word on `key`, which is at or before [`RunScan::smallest`], and moves past it. The caller wants about
    /// `wanted` more entries.
    pub(super) fn take(
        &mut self,
        inner: &Rc<Inner>,
        pins: &Pins,
        key: &[u8],
        wanted: usize,
    ) -> TxnResult<Option<Option<Bytes>>> {
        let mut found = None;
        let mut missing = Vec::new();
        let mut i = 0;
        while i < self.cursors.len() {
            let c = &mut self.cursors[i];
            if c.key() != key {
                i += 1;
                continue;
            }
            found.get_or_insert_with(|| data(&c.block).value(c.entry));
            c.entry += 1;
            let mut more = true;
            if c.entry == data(&c.block).len() {
                match pins.next_block(inner, c) {
                    Ok(m) => more = m,
                    Err(m) => {
                        if wanted >= READ_AHEAD_ENTRIES && m.kind == Kind::Data {
                            read_ahead(c, &mut missing);
                        }
                        missing.push(m);
                        // Only this attempt ends: the cursor is not used again.
                        c.entry -= 1;
                    }
                }
            }
            if more && c.within() {
                i += 1;
            } else {
                self.cursors.remove(i);
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(pins.wait(inner, missing)) }
    }
}
/// The blocks after the next one, as far as this partition knows them.
fn read_ahead(c: &Cursor, missing: &mut Vec<Missing>) {
    let partition = index(&c.partition);
    for p in (c.p + 2..partition.len()).take(READ_AHEAD_BLOCKS - 1) {
        missing.push(Missing { kind: Kind::Data, at: partition.at(p).to_vec() });
    }
}
