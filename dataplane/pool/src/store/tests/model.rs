//! What the store should hold: keys with contents, each a run of blocks; records say what was put and what went.

use super::super::account::{take_u32, take_u64};
use super::*;
use basalt_reactor::random_u64;
use std::collections::BTreeMap;

/// A pool with one shard.
pub(super) struct Bench {
    pub(super) world: World,
    shard: ShardId,
}

impl Bench {
    pub(super) fn new(seed: u64, drives: usize, scheme: &str) -> Bench {
        let mut world = World::new(seed, drives);
        world.create(Some(scheme));
        let all = world.all();
        let shard = world.run(move || async move {
            let pool = Pool::import(all).await.unwrap();
            let shard = pool.create_shards(1).await.unwrap()[0];
            pool.close().await.unwrap();
            shard
        });
        Bench { world, shard }
    }
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }
    /// Imports and runs; the pool is not closed, as in a crash, unless `f` does so.
    pub(super) fn run<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        f: impl FnOnce(Pool) -> F + 'static,
    ) -> T {
        let all = self.world.all();
        self.world.run(move || async move {
            let pool = Pool::import(all).await.unwrap();
            f(pool).await
        })
    }
    pub(super) fn power_cut(&mut self) {
        self.world.power_cut();
    }
}

/// A value's place and the seed of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) seed: u64,
    pub(super) placed: Vec<Placed>,
}

/// The bytes of block `i` of a value.
pub(super) fn block_bytes(seed: u64, i: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64 + 1);
    let mut line = [0; 64];
    for word in line.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word.copy_from_slice(&x.to_le_bytes());
    }
    line.repeat(BLOCK / line.len())
}

#[derive(Default, Clone)]
pub(super) struct Model {
    pub(super) contents: BTreeMap<u64, Value>,
    next: u64,
}

/// Writes the bytes of `seed`, `blocks` blocks of them, in a few pieces.
pub(super) async fn write_value(
    store: &ShardStore,
    class: Class,
    seed: u64,
    blocks: usize,
) -> Result<Written> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < blocks {
        let n = (1 + random_u64() as usize % 40).min(blocks - at);
        let data: Vec<u8> = (at..at + n).flat_map(|i| block_bytes(seed, i)).collect();
        let offset = (at * BLOCK) as u64;
        pieces.push(Piece { owner: Owner { inode: seed, offset }, data: vec![data.into()] });
        at += n;
    }
    let written = store.write(class, pieces).await?;
    let placed: usize = written.placed.iter().flatten().map(|p| p.blocks as usize).sum();
    assert_eq!(placed, blocks);
    Ok(written)
}

impl Model {
    pub(super) async fn write(
        &mut self,
        store: &ShardStore,
        class: Class,
        blocks: usize,
    ) -> Result<(Lsn, u64)> {
        let seed = random_u64();
        let written = write_value(store, class, seed, blocks).await?;
        Ok(self.put(store, seed, written))
    }

    /// Appends and applies the record of a written value.
    pub(super) fn put(&mut self, store: &ShardStore, seed: u64, written: Written) -> (Lsn, u64) {
        self.next += 1;
        let key = self.next;
        let placed: Vec<Placed> = written.placed.concat();
        let mut record = vec![1];
        record.extend_from_slice(&key.to_le_bytes());
        record.extend_from_slice(&seed.to_le_bytes());
        encode_placed(&placed, &mut record);
        record.extend_from_slice(&(written.stripes.len() as u32).to_le_bytes());
        for s in &written.stripes {
            s.encode(&mut record);
        }
        let lsn = store.append(&record);
        for s in &written.stripes {
            store.apply_stripe(lsn, s);
        }
        self.contents.insert(key, Value { seed, placed });
        (lsn, key)
    }

    pub(super) fn delete(&mut self, store: &ShardStore, key: u64) -> Lsn {
        let value = self.contents.remove(&key).expect("a key that is there");
        let mut record = vec![2];
        record.extend_from_slice(&key.to_le_bytes());
        let lsn = store.append(&record);
        for p in value.placed {
            store.apply_dead(lsn, p.at, p.blocks);
        }
        lsn
    }

    pub(super) fn checkpoint(&self, store: &ShardStore) -> Lsn {
        let mut payload = self.next.to_le_bytes().to_vec();
        for (key, v) in &self.contents {
            payload.extend_from_slice(&key.to_le_bytes());
            payload.extend_from_slice(&v.seed.to_le_bytes());
            encode_placed(&v.placed, &mut payload);
        }
        store.checkpoint(&payload, Lsn(store.last_lsn().0 + 1))
    }

    pub(super) fn replay(store: &ShardStore, recovery: &Recovery) -> Model {
        let mut model = Model::default();
        if let Some(payload) = &recovery.checkpoint {
            let mut input = &payload[..];
            model.next = take_u64(&mut input).unwrap();
            while !input.is_empty() {
                let key = take_u64(&mut input).unwrap();
                let seed = take_u64(&mut input).unwrap();
                model.contents.insert(key, Value { seed, placed: decode_placed(&mut input) });
            }
        }
        for (lsn, record) in &recovery.records {
            assert!(*lsn > recovery.checkpoint_lsn);
            let mut input = &record[1..];
            let key = take_u64(&mut input).unwrap();
            if record[0] == 1 {
                let seed = take_u64(&mut input).unwrap();
                let placed = decode_placed(&mut input);
                for _ in 0..take_u32(&mut input).unwrap() {
                    store.apply_stripe(*lsn, &StripeRecord::decode(&mut input).unwrap());
                }
                model.next = model.next.max(key);
                model.contents.insert(key, Value { seed, placed });
            } else {
                let value = model.contents.remove(&key).expect("replayed in order");
                for p in value.placed {
                    store.apply_dead(*lsn, p.at, p.blocks);
                }
            }
        }
        model
    }

    /// Every byte.
    pub(super) async fn check(&self, store: &ShardStore) {
        self.check_some(store, 0).await;
    }
    /// Every byte of the newest values, from the `skip`th on.
    pub(super) async fn check_some(&self, store: &ShardStore, skip: usize) {
        for (key, v) in self.contents.iter().skip(skip) {
            let mut i = 0;
            for p in &v.placed {
                let bytes = store.read(p.at, p.blocks).await.unwrap_or_else(|e| panic!("key {key}: {e}"));
                for block in bytes.chunks(BLOCK) {
                    assert!(block == block_bytes(v.seed, i), "key {key} block {i}");
                    i += 1;
                }
            }
        }
    }
    /// Live blocks as the model counts them.
    pub(super) fn live_blocks(&self) -> u64 {
        self.contents.values().flat_map(|v| &v.placed).map(|p| p.blocks as u64).sum()
    }
    pub(super) fn any_key(&self) -> Option<u64> {
        let n = self.contents.len() as u64;
        (n > 0).then(|| *self.contents.keys().nth((random_u64() % n) as usize).expect("in range"))
    }
}

fn encode_placed(placed: &[Placed], out: &mut Vec<u8>) {
    out.extend_from_slice(&(placed.len() as u32).to_le_bytes());
    for p in placed {
        out.extend_from_slice(&p.at.segment.0.to_le_bytes());
        out.extend_from_slice(&(p.at.column as u32).to_le_bytes());
        out.extend_from_slice(&p.at.block.to_le_bytes());
        out.extend_from_slice(&p.blocks.to_le_bytes());
    }
}
fn decode_placed(input: &mut &[u8]) -> Vec<Placed> {
    let runs = (0..take_u32(input).unwrap()).map(|_| {
        let segment = SegmentId(take_u64(input).unwrap());
        let column = take_u32(input).unwrap() as u8;
        let block = take_u32(input).unwrap();
        Placed { at: BlockAddr { segment, column, block }, blocks: take_u32(input).unwrap() }
    });
    runs.collect()
}
