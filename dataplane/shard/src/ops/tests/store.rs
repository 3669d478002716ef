//! A shard's store in memory. Media outlive crashes; of the journal a power cut leaves what is durable and, by chance, some more.

use crate::index::Store;
use basalt_pool::store::{Piece, Placed, Recovery, StripeRecord, Written};
use basalt_pool::{BlockAddr, Class, Lsn, Result, SegmentId};
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

enum Record {
    Txn(Bytes),
    Checkpoint { payload: Bytes, replay_from: Lsn },
}

#[derive(Default)]
pub(super) struct Media {
    journal: Vec<Record>,
    durable: u64,
    blocks: BTreeMap<u32, Bytes>,
    next_block: u32,
}

impl Media {
    pub(super) fn power_cut(&mut self, chance: u64) {
        let on_the_way = self.journal.len() as u64 - self.durable;
        self.durable += chance % (on_the_way + 1);
        self.journal.truncate(self.durable as usize);
    }
}

pub(super) struct MemoryStore {
    media: Rc<RefCell<Media>>,
    progress: Rc<Notify>,
    syncing: Rc<Cell<bool>>,
}

impl MemoryStore {
    pub(super) fn open(media: &Rc<RefCell<Media>>) -> (Rc<MemoryStore>, Recovery) {
        let recovery = recover(&media.borrow());
        let store = MemoryStore { media: media.clone(), progress: Rc::default(), syncing: Rc::default() };
        (Rc::new(store), recovery)
    }
    fn push(&self, record: Record) -> Lsn {
        self.media.borrow_mut().journal.push(record);
        if !self.syncing.replace(true) {
            let (media, progress, syncing) =
                (self.media.clone(), self.progress.clone(), self.syncing.clone());
            drop(basalt_reactor::spawn(async move {
                loop {
                    let target = media.borrow().journal.len() as u64;
                    if target == media.borrow().durable {
                        break;
                    }
                    let flight_us = 20 + basalt_reactor::random_u64() % 200;
                    basalt_reactor::sleep(Duration::from_micros(flight_us)).await;
                    media.borrow_mut().durable = target;
                    progress.notify_all();
                }
                syncing.set(false);
            }));
        }
        self.last_lsn()
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
    let records = media.journal.iter().enumerate().skip(from as usize - 1).filter_map(|(i, r)| match r {
        Record::Txn(b) => Some((Lsn(i as u64 + 1), b.clone())),
        Record::Checkpoint { .. } => None,
    });
    let records = records.collect();
    let (checkpoint_lsn, checkpoint) = newest.map_or((Lsn(0), None), |n| (n.0, Some(n.1)));
    Recovery { checkpoint, checkpoint_lsn, records }
}

impl Store for MemoryStore {
    fn append(&self, record: &[u8]) -> Lsn {
        self.push(Record::Txn(Bytes::copy_from_slice(record)))
    }
    fn last_lsn(&self) -> Lsn {
        Lsn(self.media.borrow().journal.len() as u64)
    }
    fn durable_lsn(&self) -> Lsn {
        Lsn(self.media.borrow().durable)
    }
    fn wait_durable(&self, lsn: Lsn) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.durable_lsn() < lsn {
                self.progress.notified().await;
            }
            Ok(())
        })
    }
    fn room(&self) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn wait_room(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn {
        self.push(Record::Checkpoint { payload: Bytes::copy_from_slice(payload), replay_from })
    }
    fn write(&self, _class: Class, pieces: Vec<Piece>) -> LocalBoxFuture<'_, Result<Written>> {
        Box::pin(async move {
            basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 300)).await;
            let mut media = self.media.borrow_mut();
            let mut placed = Vec::new();
            for piece in pieces {
                let bytes = piece.data.concat();
                let first = media.next_block;
                for block in bytes.chunks(BLOCK) {
                    let n = media.next_block;
                    media.next_block += 1;
                    media.blocks.insert(n, Bytes::copy_from_slice(block));
                }
                let at = BlockAddr { segment: SegmentId(1), column: 0, block: first };
                placed.push(vec![Placed { at, blocks: media.next_block - first }]);
            }
            Ok(Written { stripes: Vec::new(), placed })
        })
    }
    fn read(&self, at: BlockAddr, blocks: u32) -> LocalBoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            basalt_reactor::sleep(Duration::from_micros(basalt_reactor::random_u64() % 300)).await;
            let media = self.media.borrow();
            let found = (at.block..at.block + blocks).map(|b| media.blocks[&b].clone());
            Ok(found.collect::<Vec<_>>().concat().into())
        })
    }
    fn stripe_bytes(&self) -> usize {
        16 * BLOCK
    }
    fn direct_threshold_bytes(&self) -> usize {
        4 * BLOCK
    }
    fn apply_stripe(&self, _lsn: Lsn, _stripe: &StripeRecord) {}
    fn apply_dead(&self, _lsn: Lsn, _at: BlockAddr, _blocks: u32) {}
    fn pin(&self) -> Box<dyn Any> {
        Box::new(())
    }
}
