//! Full stripes through a shard's store, on drives in memory: what the pool adds to encoding and copying.

use super::codec::content;
use super::lanes::lanes;
use super::{one_core, pool_in_memory};
use crate::Environment;
use crate::meter::gigabytes_per_second;
use crate::row::{Durable, Report};
use basalt_erasure::Codec;
use basalt_pool::store::{Owner, Piece, Placed, ShardStore};
use basalt_pool::{Class, Lsn, PoolError};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

/// Stripes kept before the oldest is declared dead, so that segments come back.
const KEPT: usize = 256;

pub(super) fn run(environment: &Environment, report: &mut Report) {
    if !environment.wants("stripe writes") {
        return;
    }
    for in_flight in [1, 32] {
        let time = environment.row_time();
        let name = format!("stripe writes, 4+2, memory drives, {in_flight} in flight");
        let outcome = basalt_reactor::real::run(one_core(), move || async move {
            let rate = writes(in_flight, time).await.map_err(|e| e.to_string())?;
            Ok::<f64, String>(rate)
        });
        let floor = floor(environment.short_time());
        let durable = Durable {
            ours: "the stripe on its drives (memory); its journal record is queued",
            peer: "nothing to keep",
        };
        match outcome {
            Ok(rate) => {
                let peer = Some(("encode and copy all columns, one thread", floor * 1e3));
                report.row(&name, "MB/s", rate / 1e6, peer, durable);
            }
            Err(error) => report.failed(&name, &error),
        }
    }
}

async fn writes(in_flight: usize, time: Duration) -> Result<f64, PoolError> {
    let pool = pool_in_memory().await?;
    let shard = pool.create_shards(1).await?[0];
    let (store, _) = ShardStore::open(&pool, shard).await?;
    let store = Rc::new(store);
    store.start().await?;
    let data = Bytes::from(content(store.stripe_bytes(), 1));
    let kept = RefCell::new(VecDeque::new());
    let of_lanes = store.clone();
    let (meter, _) =
        lanes(in_flight, time, async move |n| one_write(&of_lanes, &data, n, &kept).await).await?;
    let rate = meter.rate();
    store.close().await?;
    pool.close().await?;
    Ok(rate)
}

async fn one_write(
    store: &ShardStore,
    data: &Bytes,
    number: u64,
    kept: &RefCell<VecDeque<Vec<Placed>>>,
) -> Result<u64, PoolError> {
    store.wait_room().await?;
    let owner = Owner { inode: 2, offset: number * data.len() as u64 };
    let written = store.write(Class::Data, vec![Piece { owner, data: vec![data.clone()] }]).await?;
    let mut record = Vec::new();
    written.stripes.iter().for_each(|s| s.encode(&mut record));
    let lsn = store.append(&record);
    written.stripes.iter().for_each(|s| store.apply_stripe(lsn, s));
    kept.borrow_mut().extend(written.placed);
    while kept.borrow().len() > KEPT {
        let dead = kept.borrow_mut().pop_front();
        dead.into_iter().flatten().for_each(|p| store.apply_dead(lsn, p.at, p.blocks));
    }
    if store.checkpoint_due() {
        store.checkpoint(b"", Lsn(store.last_lsn().0 + 1));
    }
    Ok(data.len() as u64)
}

/// GB/s of the least that has to be done: parity computed, every column copied once.
fn floor(time: Duration) -> f64 {
    const UNIT_BYTES: usize = 128 << 10;
    let codec = Codec::new(4, 2);
    let data: Vec<Vec<u8>> = (0..4).map(|i| content(UNIT_BYTES, i)).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0; UNIT_BYTES]; 2];
    // As large as what the pool keeps, so that neither stays in the processor's cache.
    let mut media = vec![0xa5; KEPT * 6 * UNIT_BYTES];
    let mut at = 0;
    gigabytes_per_second(4 * UNIT_BYTES, time, || {
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(black_box(&data), &mut out);
        for column in data.iter().copied().chain(parity.iter().map(Vec::as_slice)) {
            media[at..at + UNIT_BYTES].copy_from_slice(column);
            at = (at + UNIT_BYTES) % (KEPT * 6 * UNIT_BYTES);
        }
        black_box(&mut media);
    })
}
