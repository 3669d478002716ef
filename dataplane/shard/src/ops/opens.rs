//! Opens and share reservations. In memory only: after a restart the protocol opens again what its clients still hold.
//! (What must outlive a restart, that a removed file is still open, is in its orphan record.)

use super::orphan::Record;
use super::view::{Effect, View};
use super::{Shard, perm};
use crate::index::TxnResult;
use crate::inode::Inode;
use crate::keys::{self, tag};
use crate::vfs::*;
use std::collections::{BTreeMap, BTreeSet};

/// Opens of one shard.
const OPENS_MAX: usize = 1 << 20;

const SHARE_READ: u32 = 1;
const SHARE_WRITE: u32 = 2;

/// How often each (access, deny) was opened.
type Shares = BTreeMap<(u32, u32), u32>;

#[derive(Default)]
pub(crate) struct Opens {
    /// By inode and client.
    by_ino: BTreeMap<Ino, BTreeMap<u64, Shares>>,
    count: usize,
}

impl Opens {
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.by_ino.contains_key(&ino)
    }
    pub(crate) fn clients(&self, ino: Ino) -> BTreeSet<u64> {
        self.by_ino.get(&ino).map(|c| c.keys().copied().collect()).unwrap_or_default()
    }
    /// Between clients. Among the owners of one client the protocol decides, which knows them.
    fn conflicts(&self, ino: Ino, client: u64, share: Share) -> bool {
        self.by_ino.get(&ino).into_iter().flatten().filter(|(c, _)| **c != client).any(|(_, shares)| {
            shares.keys().any(|(access, deny)| access & share.deny != 0 || share.access & deny != 0)
        })
    }
    pub(crate) fn add(&mut self, ino: Ino, client: u64, share: Share) {
        let shares = self.by_ino.entry(ino).or_default().entry(client).or_default();
        *shares.entry((share.access, share.deny)).or_default() += 1;
        self.count += 1;
    }
    /// True when the client has none left of this inode.
    fn remove(&mut self, ino: Ino, client: u64, share: Share) -> bool {
        let Some(clients) = self.by_ino.get_mut(&ino) else { return true };
        let Some(shares) = clients.get_mut(&client) else { return true };
        if let Some(n) = shares.get_mut(&(share.access, share.deny)) {
            *n -= 1;
            self.count -= 1;
            if *n == 0 {
                shares.remove(&(share.access, share.deny));
            }
        }
        let gone = shares.is_empty();
        if gone {
            clients.remove(&client);
        }
        if clients.is_empty() {
            self.by_ino.remove(&ino);
        }
        gone
    }
    fn remove_client(&mut self, client: u64) {
        let count = &mut self.count;
        self.by_ino.retain(|_, clients| {
            if let Some(shares) = clients.remove(&client) {
                *count -= shares.values().map(|n| *n as usize).sum::<usize>();
            }
            !clients.is_empty()
        });
    }
}

impl Shard {
    pub(crate) async fn open_file(
        &self,
        cred: &Credentials,
        ino: Ino,
        client: u64,
        share: Share,
        check: bool,
    ) -> FsResult<Attr> {
        if share.access & !3 != 0 || share.access == 0 || share.deny & !3 != 0 {
            return Err(FsError::Invalid);
        }
        self.run(|v| {
            let inode = v.live(ino)?;
            perm::require_regular(&inode)?;
            if check {
                if share.access & SHARE_READ != 0
                    && !perm::allows(&inode, cred, perm::READ)
                    && !perm::allows(&inode, cred, perm::EXEC)
                {
                    return Err(FsError::Access.into());
                }
                if share.access & SHARE_WRITE != 0 {
                    perm::require(&inode, cred, perm::WRITE)?;
                }
            }
            if inode.nlink == 0 {
                self.hold(v, &inode, client)?;
            }
            let opens = self.opens.borrow();
            if opens.conflicts(ino, client, share) {
                return Err(FsError::ShareDenied.into());
            }
            if opens.count >= OPENS_MAX {
                return Err(FsError::Resource.into());
            }
            v.effect(Effect::Opened { ino, client, share });
            Ok(self.attr(&inode))
        })
        .await
    }

    /// One more client of a file without a name: its record says so.
    fn hold(&self, v: &mut View<'_, '_>, inode: &Inode, client: u64) -> TxnResult<()> {
        if self.orphans.is_held_by(inode.ino, client) {
            return Ok(());
        }
        let key = keys::ino_key(tag::ORPHAN, inode.ino);
        let Some(Record::Nameless { mut holders }) = v.get(&key)?.and_then(|r| Record::decode(&r)) else {
            return Err(FsError::Stale.into());
        };
        holders.insert(client);
        v.put(key, Record::Nameless { holders }.encode());
        Ok(())
    }

    pub(crate) async fn close_file(&self, ino: Ino, client: u64, share: Share) -> FsResult<()> {
        let last = self.opens.borrow_mut().remove(ino, client, share);
        if last && self.orphans.is_held_by(ino, client) {
            self.drop_holder(ino, client).await?;
        }
        Ok(())
    }

    pub(crate) async fn release_client(&self, client: u64, sessions: &[[u8; 16]]) -> FsResult<()> {
        self.opens.borrow_mut().remove_client(client);
        self.drop_client_orphans(client).await?;
        self.drop_client_locks(client).await?;
        self.release_sessions(sessions).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_other_clients_conflict() {
        let mut o = Opens::default();
        let f = Ino(5);
        let share = |access, deny| Share { access, deny };
        o.add(f, 1, share(3, 2));
        assert!(o.conflicts(f, 2, share(2, 0)), "write is denied");
        assert!(o.conflicts(f, 2, share(1, 1)), "cannot deny a reader that is there");
        assert!(!o.conflicts(f, 2, share(1, 0)));
        assert!(!o.conflicts(f, 1, share(2, 0)), "one's own client is not asked");
        o.add(f, 1, share(3, 2));
        assert!(!o.remove(f, 1, share(3, 2)));
        assert!(o.is_open(f));
        assert!(o.remove(f, 1, share(3, 2)));
        assert!(!o.is_open(f) && o.count == 0);
        o.add(f, 1, share(1, 0));
        o.add(f, 2, share(1, 0));
        o.remove_client(1);
        assert_eq!(o.clients(f), [2].into());
        assert_eq!(o.count, 1);
    }
}
