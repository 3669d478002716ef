//! How an operation sees the index: directly, or preparing for a cross-shard transaction.
//!
//! Preparing, every key that is looked at gets locked and what would be written is kept aside: that is the redo which
//! the participant journals and applies once the coordinator has decided.

use super::Shard;
use crate::index::{Txn, TxnResult};
use crate::inode::Inode;
use crate::keys::{self, tag};
use crate::vfs::*;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct View<'v, 't> {
    pub(crate) shard: &'v Shard,
    txn: &'v mut Txn<'t>,
    preparing: Option<Preparing>,
    seen: Seen,
    effects: Vec<Effect>,
}

/// What changes in the shard's memory when the transaction commits, in the same breath; an attempt changes nothing.
pub(crate) enum Effect {
    OrphanRecord { key: Vec<u8>, value: Option<Vec<u8>> },
    Answered { n: u64, key: super::replay::V3Key, stored: super::replay::Stored },
    Opened { ino: Ino, client: u64, share: Share },
}

struct Preparing {
    tx: u128,
    redo: Redo,
}

/// What a prepared transaction holds and will write at one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redo {
    pub(crate) locked: BTreeSet<Vec<u8>>,
    /// `None` deletes.
    pub(crate) writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// Attributes around the operation, for the reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) dirs: BTreeMap<Ino, (PreAttr, Attr)>,
    pub(crate) inodes: BTreeMap<Ino, Attr>,
}

impl Seen {
    pub(crate) fn merge(&mut self, other: Seen) {
        self.dirs.extend(other.dirs);
        self.inodes.extend(other.inodes);
    }
    pub(crate) fn dir(&self, ino: Ino) -> FsResult<DirChange> {
        let (before, after) = self.dirs.get(&ino).ok_or(FsError::Io)?;
        Ok(DirChange { before: *before, after: after.clone(), atomic: true })
    }
}

impl<'v, 't> View<'v, 't> {
    pub(crate) fn new(shard: &'v Shard, txn: &'v mut Txn<'t>) -> Self {
        View { shard, txn, preparing: None, seen: Seen::default(), effects: Vec::new() }
    }
    pub(crate) fn prepare(shard: &'v Shard, txn: &'v mut Txn<'t>, tx: u128) -> Self {
        let preparing = Some(Preparing { tx, redo: Redo::default() });
        View { shard, txn, preparing, seen: Seen::default(), effects: Vec::new() }
    }
    pub(crate) fn into_effects(self) -> (Seen, Vec<Effect>) {
        (self.seen, self.effects)
    }
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
    /// What was prepared, with all of it locked.
    pub(crate) fn into_prepared(self) -> TxnResult<(Redo, Seen)> {
        let Some(Preparing { tx, redo }) = self.preparing else { return Ok(Default::default()) };
        for key in redo.writes.keys().filter(|k| !redo.locked.contains(*k)) {
            self.txn.lock(key.clone(), tx)?;
        }
        Ok((redo, self.seen))
    }
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }
    pub(crate) fn txn(&mut self) -> &mut Txn<'t> {
        self.txn
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> TxnResult<Option<Bytes>> {
        if let Some(p) = &mut self.preparing {
            if let Some(written) = p.redo.writes.get(key) {
                return Ok(written.clone().map(Bytes::from));
            }
            // Lock first: waiting for another's lock while holding our own could go in a circle.
            if p.redo.locked.insert(key.to_vec()) {
                self.txn.lock(key.to_vec(), p.tx)?;
            }
        }
        self.txn.get(key)
    }
    /// Not to be used on keys that this view has written while preparing.
    pub(crate) fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> TxnResult<Vec<(Bytes, Bytes)>> {
        self.txn.scan(from, to, limit)
    }
    /// Whether a key that a scan found has not been deleted by this view since.
    pub(crate) fn still_there(&self, key: &[u8]) -> bool {
        self.preparing.as_ref().is_none_or(|p| !matches!(p.redo.writes.get(key), Some(None)))
    }
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        match &mut self.preparing {
            Some(p) => {
                p.redo.writes.insert(key, Some(value));
            }
            None => {
                if key[0] == tag::ORPHAN {
                    self.effects.push(Effect::OrphanRecord { key: key.clone(), value: Some(value.clone()) });
                }
                self.txn.put(key, value);
            }
        }
    }
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        match &mut self.preparing {
            Some(p) => {
                p.redo.writes.insert(key, None);
            }
            None => {
                if key[0] == tag::ORPHAN {
                    self.effects.push(Effect::OrphanRecord { key: key.clone(), value: None });
                }
                self.txn.delete(key);
            }
        }
    }

    pub(crate) fn time(&self) -> WallTime {
        self.txn.time()
    }

    /// The record as stored, without what unstable writes add.
    pub(crate) fn inode(&mut self, ino: Ino) -> TxnResult<Option<Inode>> {
        match self.get(&keys::inode(ino))? {
            None => Ok(None),
            Some(bytes) => Ok(Some(Inode::decode(ino, &bytes).ok_or(FsError::Io)?)),
        }
    }
    /// An inode that a client may still speak of: it has a name, or somebody holds it open.
    pub(crate) fn live(&mut self, ino: Ino) -> TxnResult<Inode> {
        let inode = self.inode(ino)?.ok_or(FsError::Stale)?;
        self.shard.require_live(&inode)?;
        Ok(inode)
    }
    pub(crate) fn dir(&mut self, ino: Ino) -> TxnResult<Inode> {
        let inode = self.live(ino)?;
        super::perm::require_dir(&inode)?;
        Ok(inode)
    }
    pub(crate) fn put_inode(&mut self, inode: &Inode) {
        let attr = self.shard.attr(inode);
        if let Some((_, after)) = self.seen.dirs.get_mut(&inode.ino) {
            *after = attr.clone();
        }
        self.seen.inodes.insert(inode.ino, attr);
        self.put(keys::inode(inode.ino), inode.encode());
    }
    /// Notes a directory's attributes as they are before the operation changes it.
    pub(crate) fn watch_dir(&mut self, dir: &Inode) {
        let attr = self.shard.attr(dir);
        self.seen.dirs.entry(dir.ino).or_insert_with(|| (pre(&attr), attr));
    }
    /// ctime and change of an inode that this transaction changes.
    pub(crate) fn touch(&self, inode: &mut Inode) {
        inode.ctime = self.txn.time();
        inode.change = self.shard.next_change(inode, self.txn);
    }

    /// Next inode number of this shard. Not while preparing: numbers are taken only by local transactions.
    pub(crate) fn allocate_ino(&mut self) -> TxnResult<Ino> {
        let key = vec![tag::SHARD, super::SHARD_NEXT_INO];
        let next = match self.txn.get(&key)? {
            Some(v) => u64::from_le_bytes(v[..].try_into().map_err(|_| FsError::Io)?),
            None => super::FIRST_LOCAL_INO,
        };
        if next >= 1 << Ino::LOCAL_BITS {
            return Err(FsError::NoSpace.into());
        }
        self.txn.put(key, (next + 1).to_le_bytes().to_vec());
        Ok(Ino::new(self.shard.slot(), next))
    }
}

pub(crate) fn pre(attr: &Attr) -> PreAttr {
    PreAttr { size: attr.size, mtime: attr.mtime, ctime: attr.ctime, change: attr.change }
}
