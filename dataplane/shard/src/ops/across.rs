//! Operations that change several shards, all or nothing.
//!
//! The coordinator is the shard that the operation was asked of (of its first directory).
//!
//! 1. *Reserve*: the coordinator checks its own parts and locks their keys, in memory only.
//! 2. *Prepare*: every other shard checks its parts, locks their keys and journals what it will write.
//! 3. *Decide*: the coordinator writes its own part, the decision and the replay record in one transaction. Once that is
//!    durable the operation has happened.
//! 4. *Commit*: every participant writes what it prepared and unlocks. When that is durable everywhere, the coordinator
//!    forgets the decision.
//!
//! Nobody waits for a lock while holding one: a key that is taken answers `Delay`, the coordinator aborts everything and
//! tries again after a random while. After a crash a participant asks the coordinator shard's owner; no decision found means
//! aborted. Locks are taken again before the shard serves, so nobody sees one half.

use super::counters::Counter;
use super::parts::{Part, by_slot};
use super::replay::Stored;
use super::view::{Effect, Redo, Seen, View};
use super::{Shard, orphan};
use crate::index::Txn;
use crate::keys::{self, tag};
use crate::planted::{self, Planted};
use crate::vfs::*;
use basalt_pool::Lsn;
use basalt_reactor::sync::{Notify, Permit, Semaphore, join_all};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Attempts before the client is told to come back.
const ATTEMPTS: u32 = 24;

#[derive(Default)]
pub(crate) struct Across {
    counter: Cell<u64>,
    /// Begun, and neither aborted nor forgotten.
    unfinished: Cell<usize>,
    finished: Notify,
    /// Operations across shards that begin in the same directory take turns; else they would only be in each other's way. A
    /// turn is waited for before anything is locked, so it is no part of a circle.
    turns: RefCell<BTreeMap<Ino, Rc<Semaphore>>>,
    /// Found prepared at open, until resolved.
    found: RefCell<Vec<(u128, u16)>>,
}

impl Across {
    /// Waits until nothing between shards is under way.
    pub(crate) async fn quiet(&self) {
        loop {
            let finished = self.finished.notified();
            if self.unfinished.get() == 0 {
                return;
            }
            finished.await;
        }
    }
    async fn turn(&self, dir: Ino) -> Turn {
        let semaphore = {
            let mut turns = self.turns.borrow_mut();
            // Those that nobody holds or waits for: only the map has them.
            turns.retain(|_, s| Rc::strong_count(s) > 1);
            turns.entry(dir).or_insert_with(|| Rc::new(Semaphore::new(1))).clone()
        };
        Turn { _permit: semaphore.acquire(1).await, _of: semaphore }
    }
}

struct Turn {
    _permit: Permit,
    _of: Rc<Semaphore>,
}

/// Something between shards that is to end before the shard comes to rest.
struct Underway(Rc<Shard>);

impl Underway {
    fn begin(shard: &Rc<Shard>) -> Underway {
        shard.across.unfinished.set(shard.across.unfinished.get() + 1);
        Underway(shard.clone())
    }
}
impl Drop for Underway {
    fn drop(&mut self) {
        let across = &self.0.across;
        across.unfinished.set(across.unfinished.get() - 1);
        across.finished.notify_all();
    }
}

fn tx_key(tx: u128) -> Vec<u8> {
    let mut k = vec![tag::TX];
    k.extend_from_slice(&tx.to_be_bytes());
    k
}

/// Value of a TX key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Prepared { coordinator: u16, redo: Redo },
    Decided { participants: Vec<u16> },
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        fn bytes(out: &mut Vec<u8>, b: &[u8]) {
            out.extend_from_slice(&(b.len() as u32).to_le_bytes());
            out.extend_from_slice(b);
        }
        let mut v = Vec::new();
        match self {
            Record::Prepared { coordinator, redo } => {
                v.push(1);
                v.extend_from_slice(&coordinator.to_le_bytes());
                v.extend_from_slice(&(redo.locked.len() as u32).to_le_bytes());
                redo.locked.iter().for_each(|k| bytes(&mut v, k));
                v.extend_from_slice(&(redo.writes.len() as u32).to_le_bytes());
                for (key, value) in &redo.writes {
                    bytes(&mut v, key);
                    match value {
                        None => v.push(0),
                        Some(value) => {
                            v.push(1);
                            bytes(&mut v, value);
                        }
                    }
                }
            }
            Record::Decided { participants } => {
                v.push(2);
                participants.iter().for_each(|p| v.extend_from_slice(&p.to_le_bytes()));
            }
        }
        v
    }

    fn decode(v: &[u8]) -> Option<Record> {
        fn take<'a>(v: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
            let (head, rest) = v.split_at_checked(n)?;
            *v = rest;
            Some(head)
        }
        fn number(v: &mut &[u8]) -> Option<usize> {
            Some(u32::from_le_bytes(take(v, 4)?.try_into().ok()?) as usize)
        }
        fn bytes(v: &mut &[u8]) -> Option<Vec<u8>> {
            let n = number(v)?;
            Some(take(v, n)?.to_vec())
        }
        let mut v = v;
        match take(&mut v, 1)?[0] {
            1 => {
                let coordinator = u16::from_le_bytes(take(&mut v, 2)?.try_into().ok()?);
                let mut redo = Redo::default();
                for _ in 0..number(&mut v)? {
                    redo.locked.insert(bytes(&mut v)?);
                }
                for _ in 0..number(&mut v)? {
                    let key = bytes(&mut v)?;
                    let value = match take(&mut v, 1)?[0] {
                        0 => None,
                        _ => Some(bytes(&mut v)?),
                    };
                    redo.writes.insert(key, value);
                }
                v.is_empty().then_some(Record::Prepared { coordinator, redo })
            }
            2 => {
                let (slots, rest) = v.as_chunks::<2>();
                rest.is_empty().then(|| Record::Decided {
                    participants: slots.iter().map(|p| u16::from_le_bytes(*p)).collect(),
                })
            }
            _ => None,
        }
    }
}

impl Redo {
    /// Writes all of it.
    fn apply(&self, txn: &mut Txn<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (key, value) in &self.writes {
            if key[0] == tag::ORPHAN {
                effects.push(Effect::OrphanRecord { key: key.clone(), value: value.clone() });
            }
            match value {
                Some(value) => txn.put(key.clone(), value.clone()),
                None => txn.delete(key.clone()),
            }
        }
        effects
    }
    fn orphans(&self) -> Vec<Ino> {
        let keys = self.writes.keys().filter(|k| k[0] == tag::ORPHAN);
        keys.filter_map(|k| Some(Ino(u64::from_be_bytes(k.get(1..9)?.try_into().ok()?)))).collect()
    }
}

/// Runs an operation that may span shards until it is not in another's way, at most [`ATTEMPTS`] times.
pub(crate) async fn persist<T>(mut attempt: impl AsyncFnMut() -> FsResult<T>) -> FsResult<T> {
    for n in 0..ATTEMPTS {
        match attempt().await {
            Err(FsError::Delay) => {
                let ceiling_us = 100u64 << n.min(9);
                let wait_us = basalt_reactor::random_u64() % ceiling_us + 20;
                basalt_reactor::sleep(Duration::from_micros(wait_us)).await;
            }
            answer => return answer,
        }
    }
    Err(FsError::Delay)
}

impl Shard {
    fn new_tx(&self) -> u128 {
        let n = self.across.counter.get();
        self.across.counter.set(n + 1);
        // Epochs are never reused, so neither is this.
        (self.slot as u128) << 112 | (self.epoch as u128 & ((1 << 48) - 1)) << 64 | n as u128
    }

    /// Does `parts`, wherever they belong; once started it is not to be dropped (callers spawn it). `stored` is the replay
    /// record that goes with it.
    pub(crate) async fn perform_across(
        self: &Rc<Self>,
        cx: &Context,
        parts: Vec<Part>,
        stored: Stored,
    ) -> FsResult<Seen> {
        let mut slots = by_slot(parts);
        let own = slots.remove(&self.slot).unwrap_or_default();
        if planted::is(Planted::RenameNotAtomic) {
            return self.perform_carelessly(cx, own, slots).await;
        }
        if slots.is_empty() {
            return self
                .run_with_effects(|txn| {
                    let mut view = View::new(self, txn);
                    self.perform(&mut view, &cx.cred, &own)?;
                    let (seen, mut effects) = view.into_effects();
                    effects.extend(self.remember(txn, cx, stored));
                    Ok((seen, effects))
                })
                .await;
        }
        let underway = Underway::begin(self);
        let _turn = match own.iter().find_map(Part::dir) {
            Some(dir) => Some(self.across.turn(dir).await),
            None => None,
        };
        let tx = self.new_tx();
        let participants: Vec<u16> = slots.keys().copied().collect();
        let (redo, mut seen) = match self.reserve(tx, &cx.cred, &own).await {
            Ok(reserved) => reserved,
            Err(error) => {
                self.index.unlock(tx);
                return Err(error);
            }
        };

        let coordinator = self.slot;
        let prepared = join_all(slots.into_iter().map(|(slot, parts)| {
            let cred = cx.cred.clone();
            self.shared
                .on(slot, move |shard| async move { shard.prepare(tx, coordinator, &cred, &parts).await })
        }))
        .await;
        let mut failed = None;
        for answer in prepared {
            match answer {
                Ok(part) => seen.merge(part),
                // A real refusal says more than that somebody was in the way.
                Err(e) if failed.is_none_or(|f| f == FsError::Delay) => failed = Some(e),
                Err(_) => {}
            }
        }
        if failed.is_none() {
            match self.decide(tx, cx, &redo, &participants, stored).await {
                Ok(lsn) => {
                    // When that fails, only the journal's next reader can tell whether it is decided. Locks stay.
                    self.index.wait_durable(lsn).await?;
                    self.commit_everywhere(tx, participants, underway).await;
                    return Ok(seen);
                }
                Err(e) => failed = Some(e),
            }
        }
        self.index.unlock(tx);
        join_all(
            participants
                .into_iter()
                .map(|slot| self.shared.on(slot, move |shard| async move { shard.abort_tx(tx).await })),
        )
        .await;
        Err(failed.unwrap_or(FsError::Io))
    }

    async fn reserve(&self, tx: u128, cred: &Credentials, parts: &[Part]) -> FsResult<(Redo, Seen)> {
        self.index
            .run(|txn| {
                let mut view = View::prepare(self, txn, tx);
                self.perform(&mut view, cred, parts)?;
                view.into_prepared()
            })
            .await
    }

    async fn prepare(
        self: Rc<Self>,
        tx: u128,
        coordinator: u16,
        cred: &Credentials,
        parts: &[Part],
    ) -> FsResult<Seen> {
        self.index
            .run(|txn| {
                let mut view = View::prepare(&self, txn, tx);
                self.perform(&mut view, cred, parts)?;
                let (redo, seen) = view.into_prepared()?;
                txn.put(tx_key(tx), Record::Prepared { coordinator, redo }.encode());
                Ok(seen)
            })
            .await
    }

    /// The coordinator's one transaction. Returns at once; the caller waits for the LSN.
    async fn decide(
        self: &Rc<Self>,
        tx: u128,
        cx: &Context,
        redo: &Redo,
        participants: &[u16],
        stored: Stored,
    ) -> FsResult<Lsn> {
        let decision = Record::Decided { participants: participants.to_vec() }.encode();
        let done = self
            .commit_with_effects(|txn| {
                txn.enter(tx);
                let mut effects = redo.apply(txn);
                txn.put(tx_key(tx), decision.clone());
                effects.extend(self.remember(txn, cx, stored));
                Ok(((), effects))
            })
            .await?;
        self.index.unlock(tx);
        redo.orphans().into_iter().for_each(|ino| self.recheck_orphan(ino));
        Ok(done.observed)
    }

    /// Returns when all participants show the outcome; their durability and the forgetting go on behind.
    async fn commit_everywhere(self: &Rc<Self>, tx: u128, participants: Vec<u16>, underway: Underway) {
        let committed = join_all(
            participants
                .iter()
                .map(|slot| self.shared.on(*slot, move |shard| async move { shard.commit_tx(tx).await })),
        )
        .await;
        let shard = self.clone();
        basalt_reactor::spawn(async move {
            let durable = join_all(participants.iter().zip(committed).map(|(slot, lsn)| {
                let shared = shard.shared.clone();
                async move {
                    let lsn = lsn?;
                    shared.on(*slot, move |shard| async move { shard.index.wait_durable(lsn).await }).await
                }
            }))
            .await;
            // A participant that could not finish still has it prepared and will ask after the next start.
            if durable.iter().all(Result::is_ok) {
                let _ = shard.forget(tx).await;
            }
            drop(underway);
        });
    }

    async fn forget(&self, tx: u128) -> FsResult<()> {
        let forgotten = self.index.run_nowait(|txn| {
            txn.delete(tx_key(tx));
            Ok(())
        });
        forgotten.await.map(drop)
    }

    /// Writes what was prepared and unlocks; the LSN to wait for.
    pub(crate) async fn commit_tx(self: &Rc<Self>, tx: u128) -> FsResult<Lsn> {
        let done = self
            .commit_with_effects(|txn| {
                txn.enter(tx);
                let Some(value) = txn.get(&tx_key(tx))? else { return Ok(Default::default()) };
                let Some(Record::Prepared { redo, .. }) = Record::decode(&value) else {
                    return Err(FsError::Io.into());
                };
                let effects = redo.apply(txn);
                txn.delete(tx_key(tx));
                Ok((redo.orphans(), effects))
            })
            .await?;
        self.index.unlock(tx);
        done.value.into_iter().for_each(|ino| self.recheck_orphan(ino));
        Ok(done.observed)
    }

    async fn abort_tx(self: Rc<Self>, tx: u128) -> FsResult<()> {
        let dropped = self
            .index
            .run_nowait(|txn| {
                if txn.get(&tx_key(tx))?.is_some() {
                    txn.delete(tx_key(tx));
                }
                Ok(())
            })
            .await;
        self.index.unlock(tx);
        dropped.map(drop)
    }

    /// Planted: each shard on its own, one after the other.
    async fn perform_carelessly(
        self: &Rc<Self>,
        cx: &Context,
        own: Vec<Part>,
        others: BTreeMap<u16, Vec<Part>>,
    ) -> FsResult<Seen> {
        let mut seen = self.run(|v| self.perform_here(v, &cx.cred, &own)).await?;
        for (slot, parts) in others {
            let cred = cx.cred.clone();
            let part = self.shared.on(slot, move |shard| async move {
                shard.run(|v| shard.perform_here(v, &cred, &parts)).await
            });
            seen.merge(part.await?);
        }
        Ok(seen)
    }

    // ---- after a crash

    /// Takes the locks of what was prepared again, before anything else runs.
    pub(crate) async fn relock_prepared(&self) -> FsResult<()> {
        let mut found = Vec::new();
        self.each(&[tag::TX], |key, value| {
            let tx = u128::from_be_bytes(key.get(1..17)?.try_into().ok()?);
            if let Record::Prepared { coordinator, redo } = Record::decode(value)? {
                found.push((tx, coordinator, redo));
            }
            Some(())
        })
        .await?;
        for (tx, coordinator, redo) in found {
            redo.locked.into_iter().chain(redo.writes.into_keys()).for_each(|key| self.index.relock(key, tx));
            self.across.found.borrow_mut().push((tx, coordinator));
        }
        Ok(())
    }

    /// Asks the coordinators, once all shards are open.
    pub(crate) async fn resolve_prepared(self: &Rc<Self>) -> FsResult<()> {
        for (tx, coordinator) in self.across.found.take() {
            let decided = self.shared.on(coordinator, move |shard| async move {
                shard.index.run(|txn| Ok(txn.get(&tx_key(tx))?.is_some())).await
            });
            self.counted.add(Counter::Resolved);
            if decided.await? {
                let lsn = self.commit_tx(tx).await?;
                self.index.wait_durable(lsn).await?;
            } else {
                self.clone().abort_tx(tx).await?;
            }
        }
        Ok(())
    }

    /// Every participant has resolved what it had prepared: the decisions have served.
    pub(crate) async fn forget_decided(&self) -> FsResult<()> {
        let mut decided = Vec::new();
        self.each(&[tag::TX], |key, value| {
            let tx = u128::from_be_bytes(key.get(1..17)?.try_into().ok()?);
            if matches!(Record::decode(value)?, Record::Decided { .. }) {
                decided.push(tx);
            }
            Some(())
        })
        .await?;
        for tx in decided {
            self.forget(tx).await?;
        }
        Ok(())
    }

    // ---- mkdir in another shard

    /// Until this is durable the intent says where to ask, so nobody need wait for it.
    pub(crate) fn settle_intent_behind(self: &Rc<Self>, ino: Ino, named: bool) {
        let underway = Underway::begin(self);
        basalt_reactor::spawn(async move {
            let settled = underway
                .0
                .shared
                .on(ino.slot(), move |other| async move { other.settle_intent(ino, named).await });
            if let Err(error) = settled.await {
                tracing::warn!(ino = ino.0, %error, "a new directory's intent stays until the next start");
            }
            drop(underway);
        });
    }

    /// A directory without a name yet, with the intent to give it one.
    pub(crate) async fn make_nameless_dir(
        self: Rc<Self>,
        parent: Ino,
        name: bytes::Bytes,
        new: super::create::New,
    ) -> FsResult<Attr> {
        self.run(|v| {
            let ino = v.allocate_ino()?;
            let inode = new.inode(v, ino, parent);
            v.put_inode(&inode);
            let intent = orphan::Record::Intent { parent, name: name.clone() };
            v.put(keys::ino_key(tag::ORPHAN, ino), intent.encode());
            Ok(self.attr(&inode))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_on_media() {
        let redo = Redo {
            locked: [vec![1, 2], vec![3]].into(),
            writes: [(vec![3], None), (vec![1, 2], Some(vec![9, 9]))].into(),
        };
        let prepared = Record::Prepared { coordinator: 5, redo };
        assert_eq!(
            prepared.encode(),
            [
                1, 5, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 2, 1, 0, 0, 0, 3, 2, 0, 0, 0, 2, 0, 0, 0, 1, 2, 1, 2, 0,
                0, 0, 9, 9, 1, 0, 0, 0, 3, 0
            ]
        );
        let decided = Record::Decided { participants: vec![1, 0x0203] };
        assert_eq!(decided.encode(), [2, 1, 0, 3, 2]);
        for r in [prepared, decided] {
            let bytes = r.encode();
            assert_eq!(Record::decode(&bytes), Some(r));
            for cut in 0..bytes.len() {
                // Never a panic; a shorter list of participants is still one.
                let _ = Record::decode(&bytes[..cut]);
            }
        }
    }
}
