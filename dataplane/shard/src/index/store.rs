//! What the index asks of the shard's store. A trait only so that the index can be tested over a store in memory, whose
//! crashes and failures a test controls record by record.

use basalt_pool::store::{Piece, ShardStore, StripeRecord, Written};
use basalt_pool::{BlockAddr, Class, Lsn, Result};
use basalt_reactor::LocalBoxFuture;
use bytes::Bytes;
use std::any::Any;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

pub(crate) trait Store {
    fn append(&self, record: &[u8]) -> Lsn;
    fn last_lsn(&self) -> Lsn;
    fn durable_lsn(&self) -> Lsn;
    fn wait_durable(&self, lsn: Lsn) -> LocalBoxFuture<'_, Result<()>>;
    /// Whether the journal takes a client's record now; pending when it has no room.
    fn room(&self) -> Poll<Result<()>>;
    fn wait_room(&self) -> LocalBoxFuture<'_, Result<()>>;
    /// Whether the journal is so full that a flush should make room, whatever was written since the last.
    fn flush_due(&self) -> bool {
        false
    }
    fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn;
    fn write(&self, class: Class, pieces: Vec<Piece>) -> LocalBoxFuture<'_, Result<Written>>;
    fn read(&self, at: BlockAddr, blocks: u32) -> LocalBoxFuture<'_, Result<Bytes>>;
    fn stripe_bytes(&self) -> usize;
    fn direct_threshold_bytes(&self) -> usize;
    fn apply_stripe(&self, lsn: Lsn, stripe: &StripeRecord);
    fn apply_dead(&self, lsn: Lsn, at: BlockAddr, blocks: u32);
    fn pin(&self) -> Box<dyn Any>;
}

impl Store for ShardStore {
    fn append(&self, record: &[u8]) -> Lsn {
        self.append(record)
    }
    fn last_lsn(&self) -> Lsn {
        self.last_lsn()
    }
    fn durable_lsn(&self) -> Lsn {
        self.durable_lsn()
    }
    fn wait_durable(&self, lsn: Lsn) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.wait_durable(lsn))
    }
    fn room(&self) -> Poll<Result<()>> {
        pin!(self.wait_room()).poll(&mut Context::from_waker(Waker::noop()))
    }
    fn wait_room(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.wait_room())
    }
    fn flush_due(&self) -> bool {
        self.checkpoint_due()
    }
    fn checkpoint(&self, payload: &[u8], replay_from: Lsn) -> Lsn {
        self.checkpoint(payload, replay_from)
    }
    fn write(&self, class: Class, pieces: Vec<Piece>) -> LocalBoxFuture<'_, Result<Written>> {
        Box::pin(self.write(class, pieces))
    }
    fn read(&self, at: BlockAddr, blocks: u32) -> LocalBoxFuture<'_, Result<Bytes>> {
        Box::pin(self.read(at, blocks))
    }
    fn stripe_bytes(&self) -> usize {
        self.stripe_bytes()
    }
    fn direct_threshold_bytes(&self) -> usize {
        self.direct_threshold_bytes()
    }
    fn apply_stripe(&self, lsn: Lsn, stripe: &StripeRecord) {
        self.apply_stripe(lsn, stripe);
    }
    fn apply_dead(&self, lsn: Lsn, at: BlockAddr, blocks: u32) {
        self.apply_dead(lsn, at, blocks);
    }
    fn pin(&self) -> Box<dyn Any> {
        Box::new(self.pin())
    }
}
