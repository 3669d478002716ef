//! A store in memory whose media outlive a crash: the journal's durable part and a random piece of the rest, and blocks.
//! It is stricter than the real one: a block let go twice is a panic, and a block that nothing refers to durably and no
//! read pins is overwritten at once.

use crate::index::Store;
use basalt_pool::store::{Piece, Placed, Recovery, StripeRecord, Written};
use basalt_pool::{BlockAddr, Class, Lsn, PoolError, Result, SegmentId};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::sync::Notify;
use bytes::Bytes;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const BLOCK: usize = 4096;
/// Blocks of a unit in the tests' stripes.
const UNIT: u32 = 4;

type Addr = (u64, u8, u32);
fn addr(at: BlockAddr) -> Addr {
    (at.segment.0, at.column, at.block)
}

/// What survives.
pub(super) struct Media {
    records: RefCell<Vec<(Lsn, Bytes)>>,
    checkpoint: RefCell<Option<(Lsn, Bytes, Lsn)>>,
    pending_checkpoints: RefCell<Vec<(Lsn, Bytes, Lsn)>>,
    durable: Cell<Lsn>,
    highest: Cell<Lsn>,
    blocks: RefCell<BTreeMap<Addr, Vec<u8>>>,
    /// Blocks of the index's own runs.
    own: RefCell<std::collections::BTreeSet<Addr>>,
    dead: RefCell<BTreeMap<Addr, Lsn>>,
    next_block: Cell<u32>,
    /// Blocks there is room for; `Class::Meta` may use as many again.
    pub(super) capacity: Cell<usize>,
    /// Data writes fail with this while it is set.
    pub(super) broken: Cell<bool>,
    pub(super) appended: Cell<u64>,
    pub(super) data_writes: Cell<u64>,
}

impl Media {
    pub(super) fn new() -> Rc<Media> {
        Rc::new(Media {
            records: RefCell::default(),
            checkpoint: RefCell::default(),
            pending_checkpoints: RefCell::default(),
            durable: Cell::new(Lsn(0)),
            highest: Cell::new(Lsn(0)),
            blocks: RefCell::default(),
            own: RefCell::default(),
            dead: RefCell::default(),
            next_block: Cell::new(0),
            capacity: Cell::new(usize::MAX / 2),
            broken: Cell::new(false),
            appended: Cell::new(0),
            data_writes: Cell::new(0),
        })
    }
    /// Power cut: of the records that were not durable a random number survives, in order.
    pub(super) fn crash(&self, random: u64) {
        let durable = self.durable.get();
        let mut records = self.records.borrow_mut();
        let sure = records.iter().filter(|(l, _)| *l <= durable).count();
        let keep = sure + (random % (records.len() - sure + 1) as u64) as usize;
        records.truncate(keep);
        let last = records.last().map_or(durable, |(l, _)| (*l).max(durable));
        self.durable.set(last);
        self.dead.borrow_mut().retain(|_, l| *l <= last);
        for (l, payload, from) in self.pending_checkpoints.borrow_mut().drain(..) {
            if l <= last {
                *self.checkpoint.borrow_mut() = Some((l, payload, from));
            }
        }
    }
    /// Opens the store and says what to replay.
    pub(super) fn open(self: &Rc<Media>) -> (Rc<MemStore>, Recovery) {
        let checkpoint = self.checkpoint.borrow().clone();
        let from = checkpoint.as_ref().map_or(Lsn(0), |c| c.2);
        let records = self.records.borrow().iter().filter(|(l, _)| *l >= from).cloned().collect();
        // A new owner never gives a number again.
        self.highest.set(Lsn(self.highest.get().0 + 1000));
        let recovery = Recovery {
            checkpoint: checkpoint.as_ref().map(|c| c.1.clone()),
            checkpoint_lsn: checkpoint.as_ref().map_or(Lsn(0), |c| c.0),
            records,
        };
        let store = Rc::new(MemStore {
            media: self.clone(),
            flushing: Cell::new(false),
            flushed: Rc::new(Notify::new()),
            pins: Rc::new(Cell::new(0)),
            me: RefCell::default(),
        });
        *store.me.borrow_mut() = Rc::downgrade(&store);
        (store, recovery)
    }
    /// Blocks of files that were written and not let go.
    pub(super) fn live(&self) -> usize {
        let (dead, own) = (self.dead.borrow(), self.own.borrow());
        self.blocks.borrow().keys().filter(|a| !dead.contains_key(a) && !own.contains(a)).count()
    }
    pub(super) fn is_live(&self, at: BlockAddr) -> bool {
        self.blocks.borrow().contains_key(&addr(at)) && !self.dead.borrow().contains_key(&addr(at))
    }
}

pub(super) struct MemStore {
    media: Rc<Media>,
    flushing: Cell<bool>,
    flushed: Rc<Notify>,
    pins: Rc<Cell<u32>>,
    me: RefCell<std::rc::Weak<MemStore>>,
}

struct Pin {
    pins: Rc<Cell<u32>>,
}
impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.set(self.pins.get() - 1);
    }
}

async fn pause(max_us: u64) {
    basalt_reactor::sleep(Duration::from_micros(1 + basalt_reactor::random_u64() % max_us)).await;
}

impl MemStore {
    fn start_flush(&self) {
        if self.flushing.replace(true) {
            return;
        }
        let Some(me) = self.me.borrow().upgrade() else { return };
        basalt_reactor::spawn(async move {
            while me.media.durable.get() < me.media.highest.get() {
                let upto = me.media.highest.get();
                pause(300).await;
                me.media.durable.set(upto);
                let mut pending = me.media.pending_checkpoints.borrow_mut();
                pending.retain(|(l, payload, from)| {
                    if *l <= upto {
                        *me.media.checkpoint.borrow_mut() = Some((*l, payload.clone(), *from));
                    }
                    *l > upto
                });
                drop(pending);
                me.flushed.notify_all();
                me.scrub();
            }
            me.flushing.set(false);
        });
    }
    /// Overwrites what is durably dead and not pinned.
    fn scrub(&self) {
        if self.pins.get() > 0 {
            return;
        }
        let durable = self.media.durable.get();
        let mut blocks = self.media.blocks.borrow_mut();
        for (a, lsn) in self.media.dead.borrow().iter() {
            if *lsn <= durable
                && let Some(b) = blocks.get_mut(a)
            {
                *b = vec![0xee; BLOCK];
            }
        }
    }
}

impl Store for MemStore {
    fn append(&self, record: &[u8]) -> Lsn {
        let lsn = Lsn(self.media.highest.get().0 + 1);
        self.media.highest.set(lsn);
        self.media.appended.set(self.media.appended.get() + 1);
        self.media.records.borrow_mut().push((lsn, Bytes::copy_from_slice(record)));
        self.start_flush();
        lsn
    }
    fn last_lsn(&self) -> Lsn {
        self.media.highest.get()
    }
    fn durable_lsn(&self) -> Lsn {
        self.media.durable.get()
    }
    fn wait_durable(&self, lsn: Lsn) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.media.durable.get() < lsn {
                self.flushed.notified().await;
            }
            Ok(())
        })
    }
    fn room(&self) -> Poll<Result<()>> {
        // Now and then there is none, so that an attempt that had succeeded runs once more.
        if basalt_reactor::random_u64().is_multiple_of(16) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn wait_room(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            pause(500).await;
            Ok(())
        })
    }
    fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn {
        let lsn = Lsn(self.media.highest.get().0 + 1);
        self.media.highest.set(lsn);
        let c = (lsn, Bytes::copy_from_slice(payload), replay_from);
        self.media.pending_checkpoints.borrow_mut().push(c);
        self.start_flush();
        lsn
    }
    fn write(&self, class: Class, pieces: Vec<Piece>) -> LocalBoxFuture<'_, Result<Written>> {
        Box::pin(async move {
            let total: usize = pieces.iter().flat_map(|p| &p.data).map(|d| d.len()).sum();
            assert!(total.is_multiple_of(BLOCK));
            if self.media.broken.get() && class == Class::Data {
                return Err(PoolError::Stopped("a test says so".into()));
            }
            let room = self.media.capacity.get().saturating_mul(if class == Class::Meta { 2 } else { 1 });
            if room < usize::MAX / 4 && self.media.live() + total / BLOCK > room {
                return Err(PoolError::NoSpace("the test's pool".into()));
            }
            self.media.data_writes.set(self.media.data_writes.get() + 1);
            pause(2000).await;
            let mut placed = Vec::new();
            for p in &pieces {
                let mut content = p.data.concat();
                assert!(content.len().is_multiple_of(BLOCK) && !content.is_empty());
                let mut runs = Vec::new();
                while !content.is_empty() {
                    let n = (content.len() / BLOCK).min(UNIT as usize);
                    let rest = content.split_off(n * BLOCK);
                    let block = self.media.next_block.get();
                    self.media.next_block.set(block + UNIT);
                    let at = BlockAddr { segment: SegmentId(7), column: (block / UNIT % 4) as u8, block };
                    for (i, b) in content.chunks(BLOCK).enumerate() {
                        let at = BlockAddr { block: block + i as u32, ..at };
                        self.media.blocks.borrow_mut().insert(addr(at), b.to_vec());
                        if p.owner.inode == 0 {
                            self.media.own.borrow_mut().insert(addr(at));
                        }
                    }
                    runs.push(Placed { at, blocks: n as u32 });
                    content = rest;
                }
                placed.push(runs);
            }
            Ok(Written { stripes: Vec::new(), placed })
        })
    }
    fn read(&self, at: BlockAddr, blocks: u32) -> LocalBoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            pause(1000).await;
            let mut out = Vec::new();
            for i in 0..blocks {
                let a = addr(BlockAddr { block: at.block + i, ..at });
                let blocks = self.media.blocks.borrow();
                out.extend_from_slice(
                    blocks.get(&a).ok_or_else(|| PoolError::DataLost(format!("no block {a:?}")))?,
                );
            }
            Ok(out.into())
        })
    }
    fn stripe_bytes(&self) -> usize {
        16 * BLOCK
    }
    fn direct_threshold_bytes(&self) -> usize {
        4 * BLOCK
    }
    fn apply_stripe(&self, _lsn: Lsn, _stripe: &StripeRecord) {}
    fn apply_dead(&self, lsn: Lsn, at: BlockAddr, blocks: u32) {
        for i in 0..blocks {
            let a = addr(BlockAddr { block: at.block + i, ..at });
            assert!(self.media.blocks.borrow().contains_key(&a), "block {a:?} let go and never written");
            let before = self.media.dead.borrow_mut().insert(a, lsn);
            // Replay says it again.
            assert!(before.is_none_or(|l| l == lsn), "block {a:?} let go by records {before:?} and {lsn}");
        }
    }
    fn pin(&self) -> Box<dyn Any> {
        self.pins.set(self.pins.get() + 1);
        Box::new(Pin { pins: self.pins.clone() })
    }
}
