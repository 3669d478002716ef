//! Inodes without a name: files removed while open or not yet deleted, and directories that are being made elsewhere.
//!
//! * A file that loses its last name keeps its inode, with an ORPHAN record that lists the clients which have it open. It
//!   stays, across restarts, until they have closed it or are released; then its contents are deleted in slices, and
//!   inode and record last.
//! * `mkdir` in another shard makes the inode first, with an intent that names the entry to come. If a crash comes between,
//!   the parent's shard is asked whether the entry was made.

use super::Shard;
use super::view::View;
use crate::inode::Inode;
use crate::keys::{self, tag};
use crate::planted::{self, Planted};
use crate::vfs::*;
use basalt_reactor::sync::Notify;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Orphans waiting in memory for deletion; the others are found by a scan when these are done.
const READY_MAX: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Nameless { holders: BTreeSet<u64> },
    Intent { parent: Ino, name: Bytes },
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Record::Nameless { holders } => {
                let mut v = vec![1];
                holders.iter().for_each(|c| v.extend_from_slice(&c.to_le_bytes()));
                v
            }
            Record::Intent { parent, name } => {
                let mut v = vec![2];
                v.extend_from_slice(&parent.0.to_le_bytes());
                v.extend_from_slice(name);
                v
            }
        }
    }
    pub(crate) fn decode(v: &[u8]) -> Option<Record> {
        match v.split_first()? {
            (1, clients) => {
                let (clients, rest) = clients.as_chunks::<8>();
                rest.is_empty().then(|| Record::Nameless {
                    holders: clients.iter().map(|c| u64::from_le_bytes(*c)).collect(),
                })
            }
            (2, rest) => Some(Record::Intent {
                parent: Ino(u64::from_le_bytes(rest.get(..8)?.try_into().ok()?)),
                name: Bytes::copy_from_slice(&rest[8..]),
            }),
            _ => None,
        }
    }
}

/// What the ORPHAN records say, in memory.
#[derive(Default)]
pub(crate) struct Orphans {
    held: RefCell<BTreeMap<Ino, BTreeSet<u64>>>,
    intents: RefCell<BTreeMap<Ino, (Ino, Bytes)>>,
    ready: RefCell<BTreeSet<Ino>>,
    overflow: Cell<bool>,
    deleting: Cell<bool>,
    work: Notify,
}

impl Orphans {
    pub(crate) fn is_held(&self, ino: Ino) -> bool {
        self.held.borrow().contains_key(&ino)
    }
    pub(crate) fn is_held_by(&self, ino: Ino, client: u64) -> bool {
        self.held.borrow().get(&ino).is_some_and(|h| h.contains(&client))
    }
    pub(crate) fn wake(&self) {
        self.work.notify_all();
    }
    pub(crate) fn idle(&self) -> bool {
        self.ready.borrow().is_empty() && !self.overflow.get() && !self.deleting.get()
    }
    fn push_ready(&self, ino: Ino) {
        let mut ready = self.ready.borrow_mut();
        if ready.len() < READY_MAX {
            ready.insert(ino);
        } else {
            self.overflow.set(true);
        }
        self.work.notify_all();
    }
    fn set(&self, ino: Ino, record: Option<Record>) {
        self.held.borrow_mut().remove(&ino);
        self.intents.borrow_mut().remove(&ino);
        match record {
            None => {}
            Some(Record::Intent { parent, name }) => {
                self.intents.borrow_mut().insert(ino, (parent, name));
            }
            Some(Record::Nameless { holders }) if holders.is_empty() => self.push_ready(ino),
            Some(Record::Nameless { holders }) => {
                self.held.borrow_mut().insert(ino, holders);
            }
        }
    }
}

impl Shard {
    /// `inode` has just lost its last name.
    pub(crate) fn orphan(&self, v: &mut View<'_, '_>, inode: &Inode) {
        let holders = self.opens.borrow().clients(inode.ino);
        let empty = inode.kind != FileType::Regular
            || inode.size == 0 && inode.blocks == 0 && self.data.overlay(inode.ino).is_none();
        if holders.is_empty() && empty {
            v.delete(keys::inode(inode.ino));
            return;
        }
        v.put_inode(inode);
        if !planted::is(Planted::OrphanForgotten) {
            v.put(keys::ino_key(tag::ORPHAN, inode.ino), Record::Nameless { holders }.encode());
        }
    }

    /// A directory that was made elsewhere has its name, or goes.
    pub(crate) fn drop_intent(&self, v: &mut View<'_, '_>, ino: Ino) {
        if self.orphans.intents.borrow().contains_key(&ino) {
            v.delete(keys::ino_key(tag::ORPHAN, ino));
        }
    }

    /// Called as an ORPHAN record's transaction commits.
    pub(crate) fn orphan_written(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(ino) = key.get(1..9).and_then(|b| b.try_into().ok()).map(|b| Ino(u64::from_be_bytes(b)))
        else {
            return;
        };
        self.orphans.set(ino, value.and_then(Record::decode));
    }

    /// Holders of an orphan that was prepared a while ago may have closed it since.
    pub(crate) fn recheck_orphan(self: &Rc<Self>, ino: Ino) {
        let held = self.orphans.held.borrow().get(&ino).cloned().unwrap_or_default();
        let open = self.opens.borrow().clients(ino);
        let gone: Vec<u64> = held.difference(&open).copied().collect();
        if !gone.is_empty() {
            let shard = self.clone();
            basalt_reactor::spawn(async move {
                for client in gone {
                    // A failure here means that the journal has stopped; the record is still there at the next start.
                    let _ = shard.drop_holder(ino, client).await;
                }
            });
        }
    }

    /// `client` no longer has the orphan open.
    pub(crate) async fn drop_holder(&self, ino: Ino, client: u64) -> FsResult<()> {
        self.run(|v| {
            let key = keys::ino_key(tag::ORPHAN, ino);
            let Some(value) = v.get(&key)? else { return Ok(()) };
            let Some(Record::Nameless { mut holders }) = Record::decode(&value) else { return Ok(()) };
            if self.opens.borrow().clients(ino).contains(&client) || !holders.remove(&client) {
                return Ok(());
            }
            v.put(key, Record::Nameless { holders }.encode());
            Ok(())
        })
        .await
    }

    pub(crate) async fn drop_client_orphans(&self, client: u64) -> FsResult<()> {
        let of_client: Vec<Ino> = {
            let held = self.orphans.held.borrow();
            held.iter().filter(|(_, h)| h.contains(&client)).map(|(ino, _)| *ino).collect()
        };
        for ino in of_client {
            self.drop_holder(ino, client).await?;
        }
        Ok(())
    }

    pub(crate) async fn load_orphans(&self) -> FsResult<()> {
        self.each(&[tag::ORPHAN], |key, value| {
            let ino = Ino(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?));
            self.orphans.set(ino, Some(Record::decode(value)?));
            Some(())
        })
        .await
    }

    /// After a crash: directories made for an entry in another shard stay when the entry is there.
    pub(crate) async fn resolve_intents(&self) -> FsResult<()> {
        let intents = self.orphans.intents.borrow().clone();
        for (ino, (parent, name)) in intents {
            let named = self
                .shared
                .on(parent.slot(), move |shard| async move { shard.names(parent, &name, ino).await })
                .await?;
            self.settle_intent(ino, named).await?;
        }
        Ok(())
    }

    /// Ends the intent: the directory has its name, or it goes.
    pub(crate) async fn settle_intent(&self, ino: Ino, named: bool) -> FsResult<()> {
        self.run(|v| {
            if self.orphans.intents.borrow().contains_key(&ino) {
                v.delete(keys::ino_key(tag::ORPHAN, ino));
                if !named {
                    v.delete(keys::inode(ino));
                }
            }
            Ok(())
        })
        .await
    }

    async fn names(&self, dir: Ino, name: &[u8], ino: Ino) -> FsResult<bool> {
        self.run(|v| {
            let Some(parent) = v.inode(dir)? else { return Ok(false) };
            Ok(super::entry::find(v, dir, parent.hash_seed, name)?.is_some_and(|e| e.ino == ino))
        })
        .await
    }

    /// Background: deletes the contents of orphans that nobody holds.
    pub(crate) async fn reap(self: Rc<Self>) {
        loop {
            let work = self.orphans.work.notified();
            while !self.stopped.get() {
                let next = self.orphans.ready.borrow_mut().pop_first();
                let Some(ino) = next else {
                    if self.orphans.overflow.replace(false) {
                        let _ = self.load_orphans().await;
                        continue;
                    }
                    break;
                };
                self.orphans.deleting.set(true);
                let result = self.delete_orphan(ino).await;
                self.orphans.deleting.set(false);
                if let Err(error) = result {
                    tracing::warn!(ino = ino.0, %error, "deleting a removed file's contents failed; trying again");
                    self.orphans.push_ready(ino);
                    basalt_reactor::sleep(Duration::from_secs(1)).await;
                }
            }
            if self.stopped.get() {
                return;
            }
            work.await;
        }
    }

    async fn delete_orphan(&self, ino: Ino) -> FsResult<()> {
        self.data.forget(ino);
        while !self.stopped.get() {
            let finished = self
                .run(|v| {
                    let Some(inode) = v.inode(ino)? else { return Ok(true) };
                    if inode.nlink > 0 || self.opens.borrow().is_open(ino) {
                        return Ok(true);
                    }
                    if inode.kind == FileType::Regular && !self.data.delete_slice(v.txn(), ino)? {
                        return Ok(false);
                    }
                    let locks = keys::ino_key(tag::LOCK, ino);
                    for (key, _) in v.scan(&locks, &keys::prefix_end(&locks), super::locks::LOCKS_MAX)? {
                        v.delete(key.to_vec());
                    }
                    v.delete(keys::inode(ino));
                    v.delete(keys::ino_key(tag::ORPHAN, ino));
                    Ok(true)
                })
                .await?;
            if finished {
                self.data.forget(ino);
                return Ok(());
            }
            basalt_reactor::yield_now().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_on_media() {
        let nameless = Record::Nameless { holders: [7, 0x0102].into() };
        assert_eq!(nameless.encode(), [1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        let intent = Record::Intent { parent: Ino(1), name: Bytes::from_static(b"ab") };
        assert_eq!(intent.encode(), [2, 1, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        for r in [nameless, intent] {
            assert_eq!(Record::decode(&r.encode()), Some(r));
        }
        assert_eq!(Record::decode(&[1, 2, 3]), None);
        assert_eq!(Record::decode(&[2, 2, 3]), None);
        assert_eq!(Record::decode(&[]), None);
    }
}
