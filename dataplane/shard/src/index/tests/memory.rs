//! A store in memory. What a crash leaves is decided here: the durable prefix of the journal and, by chance, some of what was on
//! its way. Checks that no block dies twice or is read after it was freed.

use super::super::store::Store;
use basalt_pool::store::{Piece, Placed, Recovery, StripeRecord, Written};
use basalt_pool::{BlockAddr, Class, Lsn, PoolError, Result, SegmentId};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::sync::Notify;
use bytes::Bytes;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const BLOCK: usize = 4096;
const SEGMENT: SegmentId = SegmentId(7);

#[derive(Clone)]
enum Record {
    Txn(Bytes),
    Checkpoint { payload: Bytes, replay_from: Lsn },
}

/// Outlives crashes.
#[derive(Default)]
pub(super) struct Media {
    journal: Vec<Record>,
    blocks: BTreeMap<u32, Bytes>,
    next_block: u32,
}

pub(super) struct MemoryStore {
    media: Rc<RefCell<Media>>,
    durable: Rc<Cell<Lsn>>,
    progress: Rc<Notify>,
    syncing: Rc<Cell<bool>>,
    /// Not yet freed, by the record that let them go.
    dead: RefCell<BTreeMap<u32, Lsn>>,
    pins: Rc<Cell<usize>>,
    pub(super) room_bytes: Cell<usize>,
    pub(super) fail_writes: Cell<u32>,
    pub(super) reads: Cell<u64>,
}

impl MemoryStore {
    pub(super) fn open(media: &Rc<RefCell<Media>>) -> (Rc<MemoryStore>, Recovery) {
        let recovery = recover(&media.borrow());
        let durable = Lsn(media.borrow().journal.len() as u64);
        let store = MemoryStore {
            media: media.clone(),
            durable: Rc::new(Cell::new(durable)),
            progress: Rc::default(),
            syncing: Rc::default(),
            dead: RefCell::default(),
            pins: Rc::default(),
            room_bytes: Cell::new(usize::MAX),
            fail_writes: Cell::new(0),
            reads: Cell::new(0),
        };
        (Rc::new(store), recovery)
    }
    /// Power cut: of what is not durable, `keep` of all records stay.
    pub(super) fn cut(&self, keep: impl FnOnce(u64) -> u64) -> Lsn {
        let mut media = self.media.borrow_mut();
        let (durable, last) = (self.durable.get().0, media.journal.len() as u64);
        let left = durable + keep(last - durable);
        media.journal.truncate(left as usize);
        Lsn(left)
    }
    fn push(&self, record: Record) -> Lsn {
        self.media.borrow_mut().journal.push(record);
        if !self.syncing.replace(true) {
            let (media, durable) = (self.media.clone(), self.durable.clone());
            let (progress, syncing) = (self.progress.clone(), self.syncing.clone());
            drop(basalt_reactor::spawn(async move {
                loop {
                    let target = Lsn(media.borrow().journal.len() as u64);
                    if target == durable.get() {
                        break;
                    }
                    basalt_reactor::sleep(Duration::from_micros(20 + basalt_reactor::random_u64() % 200))
                        .await;
                    durable.set(target);
                    progress.notify_all();
                }
                syncing.set(false);
            }));
        }
        self.last_lsn()
    }
    /// Lets go of the data of blocks whose death is durable and which no reader may still want.
    fn free(&self) {
        if self.pins.get() > 0 {
            return;
        }
        let mut media = self.media.borrow_mut();
        for (block, lsn) in self.dead.borrow().iter() {
            if *lsn <= self.durable.get() {
                media.blocks.remove(block);
            }
        }
    }
    fn replay_bytes(&self) -> usize {
        let media = self.media.borrow();
        let durable = &media.journal[..self.durable.get().0 as usize];
        let from = durable.iter().rev().find_map(|r| match r {
            Record::Checkpoint { replay_from, .. } => Some(replay_from.0),
            Record::Txn(_) => None,
        });
        let bytes = |r: &Record| match r {
            Record::Txn(b) => b.len() + 32,
            Record::Checkpoint { .. } => 0,
        };
        media.journal[from.unwrap_or(1) as usize - 1..].iter().map(bytes).sum()
    }
}

fn recover(media: &Media) -> Recovery {
    let newest = media.journal.iter().enumerate().rev().find_map(|(i, r)| match r {
        Record::Checkpoint { payload, replay_from } => {
            Some((Lsn(i as u64 + 1), payload.clone(), *replay_from))
        }
        Record::Txn(_) => None,
    });
    let from = newest.as_ref().map_or(1, |n| n.2.0);
    let numbered = media.journal.iter().enumerate().skip(from as usize - 1);
    let records = numbered.filter_map(|(i, r)| match r {
        Record::Txn(b) => Some((Lsn(i as u64 + 1), b.clone())),
        Record::Checkpoint { .. } => None,
    });
    let records = records.collect();
    let (checkpoint_lsn, checkpoint) = newest.map_or((Lsn(0), None), |n| (n.0, Some(n.1)));
    Recovery { checkpoint, checkpoint_lsn, records }
}

struct Pin(Rc<Cell<usize>>);
impl Drop for Pin {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Store for MemoryStore {
    fn append(&self, record: &[u8]) -> Lsn {
        self.push(Record::Txn(Bytes::copy_from_slice(record)))
    }
    fn last_lsn(&self) -> Lsn {
        Lsn(self.media.borrow().journal.len() as u64)
    }
    fn durable_lsn(&self) -> Lsn {
        self.durable.get()
    }
    fn wait_durable(&self, lsn: Lsn) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.durable.get() < lsn {
                self.progress.notified().await;
            }
            Ok(())
        })
    }
    fn room(&self) -> Poll<Result<()>> {
        if self.replay_bytes() < self.room_bytes.get() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn wait_room(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.room().is_pending() {
                self.progress.notified().await;
            }
            Ok(())
        })
    }
    fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn {
        self.push(Record::Checkpoint { payload: Bytes::copy_from_slice(payload), replay_from })
    }
    fn write(&self, class: Class, pieces: Vec<Piece>) -> LocalBoxFuture<'_, Result<Written>> {
        Box::pin(async move {
            assert_eq!(class, Class::Meta);
            basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 300)).await;
            if self.fail_writes.get() > 0 {
                self.fail_writes.set(self.fail_writes.get() - 1);
                return Err(PoolError::NoSpace("planted by the test".into()));
            }
            let mut media = self.media.borrow_mut();
            let mut placed = Vec::new();
            for p in pieces {
                let mut places: Vec<Placed> = Vec::new();
                for block in p.data.iter().flat_map(|b| {
                    assert_eq!(b.len() % BLOCK, 0);
                    (0..b.len()).step_by(BLOCK).map(|i| b.slice(i..i + BLOCK))
                }) {
                    // Now and then the end of a column.
                    let gap = basalt_reactor::random_u64().is_multiple_of(5);
                    media.next_block += u32::from(gap);
                    let n = media.next_block;
                    media.next_block += 1;
                    media.blocks.insert(n, block);
                    match places.last_mut() {
                        Some(last) if !gap => last.blocks += 1,
                        _ => places.push(Placed {
                            at: BlockAddr { segment: SEGMENT, column: 1, block: n },
                            blocks: 1,
                        }),
                    }
                }
                placed.push(places);
            }
            Ok(Written { stripes: Vec::new(), placed })
        })
    }
    fn read(&self, at: BlockAddr, blocks: u32) -> LocalBoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            self.reads.set(self.reads.get() + 1);
            basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 300)).await;
            self.free();
            let media = self.media.borrow();
            let mut out = Vec::new();
            for b in at.block..at.block + blocks {
                out.extend_from_slice(
                    media.blocks.get(&b).expect("read of a block that was freed or never written"),
                );
            }
            Ok(out.into())
        })
    }
    fn stripe_bytes(&self) -> usize {
        4 * BLOCK
    }
    fn direct_threshold_bytes(&self) -> usize {
        4 * BLOCK
    }
    fn apply_stripe(&self, _lsn: Lsn, _stripe: &StripeRecord) {
        unreachable!("this store makes none");
    }
    fn apply_dead(&self, lsn: Lsn, at: BlockAddr, blocks: u32) {
        assert_eq!(at.segment, SEGMENT);
        for b in at.block..at.block + blocks {
            assert!(self.dead.borrow_mut().insert(b, lsn).is_none(), "block {b} died twice");
        }
        let all: BTreeSet<u32> = self.dead.borrow().keys().copied().collect();
        assert!(all.len() as u32 <= self.media.borrow().next_block);
    }
    fn pin(&self) -> Box<dyn Any> {
        self.pins.set(self.pins.get() + 1);
        Box::new(Pin(self.pins.clone()))
    }
}
