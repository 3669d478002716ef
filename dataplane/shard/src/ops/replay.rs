//! Answers of non-idempotent operations, kept so that a request repeated after a crash is answered and not done again.
//!
//! The record is part of the transaction that made the change. Only successes are kept: a failure changed nothing, so
//! doing it again is right. Attributes are read again for the answer, which then says `atomic: false`.
//! A size change has no record: to repeat it is harmless.

use super::Shard;
use super::counters::Counter;
use super::view::{Effect, View};
use crate::index::{Txn, TxnResult};
use crate::keys::{self, tag};
use crate::planted::{self, Planted};
use crate::vfs::*;
use std::collections::{BTreeMap, VecDeque};

/// NFSv3 answers kept per shard.
pub(crate) const RING: u64 = 4096;

/// What is needed to give the answer again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The inode that was made, linked or changed; 0 where the answer names none.
    pub(crate) ino: Ino,
    pub(crate) created: bool,
}

impl Stored {
    pub(crate) const NOTHING: Stored = Stored { ino: Ino(0), created: false };
    pub(crate) fn of(ino: Ino) -> Stored {
        Stored { ino, created: true }
    }
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ino.0.to_le_bytes());
        out.push(self.created as u8);
    }
    fn decode(b: &[u8]) -> Option<Stored> {
        Some(Stored { ino: Ino(u64::from_le_bytes(b.get(..8)?.try_into().ok()?)), created: *b.get(8)? != 0 })
    }
}

/// How one local attempt of an operation ended.
pub(crate) enum Step<T, A> {
    Done(T),
    /// Was done before.
    Replayed(Stored),
    /// Needs other shards; nothing was written.
    Across(A),
}

pub(crate) type V3Key = (u64, u32, u32);

/// The newest NFSv3 answers, as in the index.
#[derive(Default)]
pub(crate) struct Ring {
    next: u64,
    answers: BTreeMap<V3Key, (u64, Stored)>,
    order: VecDeque<(u64, V3Key)>,
}

impl Ring {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.answers.len(), self.order.len());
        self.answers.len()
    }
    pub(crate) fn insert(&mut self, n: u64, key: V3Key, stored: Stored) {
        self.next = self.next.max(n + 1);
        self.answers.insert(key, (n, stored));
        self.order.push_back((n, key));
        while self.order.len() as u64 > RING {
            if let Some((n, key)) = self.order.pop_front()
                && self.answers.get(&key).is_some_and(|(at, _)| *at == n)
            {
                self.answers.remove(&key);
            }
        }
    }
}

fn v4_prefix(session: &[u8; 16]) -> Vec<u8> {
    let mut k = vec![tag::REPLAY_V4];
    k.extend_from_slice(session);
    k
}
fn v4_key(session: &[u8; 16], slot: u32, op: u16) -> Vec<u8> {
    let mut k = v4_prefix(session);
    k.extend_from_slice(&slot.to_be_bytes());
    k.extend_from_slice(&op.to_be_bytes());
    k
}
fn v3_key(n: u64) -> Vec<u8> {
    let mut k = vec![tag::REPLAY_V3];
    k.extend_from_slice(&((n % RING) as u32).to_be_bytes());
    k
}

impl Shard {
    /// Runs a non-idempotent operation: answers from its record when it was done before, and leaves one when it is done now.
    pub(crate) async fn mutate<T, A>(
        &self,
        cx: &Context,
        mut f: impl FnMut(&mut View<'_, '_>) -> TxnResult<Step<T, A>>,
        stored: impl Fn(&T) -> Stored,
    ) -> FsResult<Step<T, A>> {
        self.run_with_effects(|txn| {
            if let Some(done) = self.replayed(txn, cx)? {
                self.counted.add(Counter::Replayed);
                return Ok((Step::Replayed(done), Vec::new()));
            }
            let mut view = View::new(self, txn);
            let step = f(&mut view)?;
            let (_, mut effects) = view.into_effects();
            if let Step::Done(value) = &step {
                effects.extend(self.remember(txn, cx, stored(value)));
            }
            Ok((step, effects))
        })
        .await
    }

    fn replayed(&self, txn: &mut Txn<'_>, cx: &Context) -> TxnResult<Option<Stored>> {
        match cx.replay {
            None => Ok(None),
            Some(ReplayId::V4 { session, slot, sequence, op }) => Ok(txn
                .get(&v4_key(&session, slot, op))?
                .filter(|v| v.get(..4) == Some(&sequence.to_le_bytes()))
                .and_then(|v| Stored::decode(&v[4..]))),
            Some(ReplayId::V3 { client, xid, checksum }) => {
                let key = (client, xid, checksum);
                let known = self.ring.borrow().answers.get(&key).copied();
                // Through the index, so that the answer waits until the record is durable.
                match known {
                    Some((n, stored)) => Ok(txn.get(&v3_key(n))?.map(|_| stored)),
                    None => Ok(None),
                }
            }
        }
    }

    /// Adds the answer's record to the transaction.
    pub(crate) fn remember(&self, txn: &mut Txn<'_>, cx: &Context, stored: Stored) -> Option<Effect> {
        if planted::is(Planted::LostReplaySlot) {
            return None;
        }
        match cx.replay? {
            ReplayId::V4 { session, slot, sequence, op } => {
                let mut v = sequence.to_le_bytes().to_vec();
                stored.encode(&mut v);
                txn.put(v4_key(&session, slot, op), v);
                None
            }
            ReplayId::V3 { client, xid, checksum } => {
                let n = self.ring.borrow().next;
                let mut v = n.to_le_bytes().to_vec();
                v.extend_from_slice(&client.to_le_bytes());
                v.extend_from_slice(&xid.to_le_bytes());
                v.extend_from_slice(&checksum.to_le_bytes());
                stored.encode(&mut v);
                txn.put(v3_key(n), v);
                Some(Effect::Answered { n, key: (client, xid, checksum), stored })
            }
        }
    }

    pub(crate) async fn load_replay_ring(&self) -> FsResult<()> {
        let mut found = Vec::new();
        self.each(&[tag::REPLAY_V3], |_, v| {
            let n = u64::from_le_bytes(v.get(..8)?.try_into().ok()?);
            let client = u64::from_le_bytes(v.get(8..16)?.try_into().ok()?);
            let xid = u32::from_le_bytes(v.get(16..20)?.try_into().ok()?);
            let checksum = u32::from_le_bytes(v.get(20..24)?.try_into().ok()?);
            found.push((n, (client, xid, checksum), Stored::decode(&v[24..])?));
            Some(())
        })
        .await?;
        found.sort_by_key(|(n, ..)| *n);
        let mut ring = self.ring.borrow_mut();
        for (n, key, stored) in found {
            ring.insert(n, key, stored);
        }
        Ok(())
    }

    /// Visits all keys of a prefix, page by page. `None` from `f`: the value is not what this code writes.
    pub(crate) async fn each(
        &self,
        prefix: &[u8],
        mut f: impl FnMut(&[u8], &[u8]) -> Option<()>,
    ) -> FsResult<()> {
        const PAGE: usize = 512;
        let end = keys::prefix_end(prefix);
        let mut from = prefix.to_vec();
        loop {
            let page = self.index.run(|txn| txn.scan(&from, &end, PAGE)).await?;
            for (key, value) in &page {
                f(key, value).ok_or(FsError::Io)?;
            }
            if page.len() < PAGE {
                return Ok(());
            }
            from = page[PAGE - 1].0.to_vec();
            from.push(0);
        }
    }

    /// Deletes all keys of a prefix, page by page.
    pub(crate) async fn delete_all(&self, prefix: &[u8]) -> FsResult<()> {
        const PAGE: usize = 512;
        let end = keys::prefix_end(prefix);
        while self
            .index
            .run(|txn| {
                let page = txn.scan(prefix, &end, PAGE)?;
                let more = page.len() == PAGE;
                for (key, _) in page {
                    txn.delete(key.to_vec());
                }
                Ok(more)
            })
            .await?
        {}
        Ok(())
    }

    pub(crate) async fn release_sessions(&self, sessions: &[[u8; 16]]) -> FsResult<()> {
        for session in sessions {
            self.delete_all(&v4_prefix(session)).await?;
        }
        Ok(())
    }

    /// A directory's attributes for an answer that is given again.
    pub(crate) async fn dir_as_it_is(&self, dir: Ino) -> FsResult<DirChange> {
        let after = self.shared.getattr(dir).await?;
        Ok(DirChange { before: super::view::pre(&after), after, atomic: false })
    }
}
