//! Byte-range locks. The file system keeps them, under owner bytes that follow from the lock's stateid alone, so that a
//! client can unlock after this process was replaced.

use super::compound::Compound;
use super::state::State;
use super::stateid::{Other, Stateid};
use super::types::{OpResult, Status};
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::{LockConflict, LockOwner, LockRange, Share};
use bytes::Bytes;

const OWNER_MAX: usize = 1024;

pub(crate) fn lock_owner(client: u64, lock: &Other) -> LockOwner {
    LockOwner { client, owner: Bytes::copy_from_slice(&lock.0) }
}

/// nfs_lock_type4: whether it is for writing. Waiting ones are answered like the others; the client polls.
fn lock_type(r: &mut Reader) -> OpResult<bool> {
    match r.u32()? {
        1 | 3 => Ok(false),
        2 | 4 => Ok(true),
        _ => Err(Status::BADXDR),
    }
}

fn range(offset: u64, length: u64, write: bool) -> OpResult<LockRange> {
    if length == 0 || (length != u64::MAX && offset.checked_add(length).is_none()) {
        return Err(Status::INVAL);
    }
    Ok(LockRange { offset, length, write })
}

/// LOCK4denied.
fn denied(w: &mut Writer, c: &LockConflict) {
    w.u64(c.range.offset);
    w.u64(c.range.length);
    w.u32(if c.range.write { 2 } else { 1 });
    w.u64(c.owner.client);
    w.opaque(&c.owner.owner);
}

impl Compound<'_> {
    pub(crate) async fn op_lock(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let status_at = w.len() - 4;
        let write = lock_type(r)?;
        let _reclaim = r.bool()?;
        let (offset, length) = (r.u64()?, r.u64()?);
        let o = self.object(Status::ISDIR)?;
        let client = self.client()?.clone();
        let (open, lock) = if r.bool()? {
            let _open_seqid = r.u32()?;
            let open_id = Stateid::decode(r)?;
            let _lock_seqid = r.u32()?;
            let _client = r.u64()?;
            let owner = r.opaque(OWNER_MAX)?;
            let State::Open(open) = self.state(open_id, &o).await? else { return Err(Status::BAD_STATEID) };
            let lock = match client.find_lock(&owner, open.file) {
                Some(l) => l,
                None => client.add_lock(&owner, &open, &self.local.shared.secret, self.local.shared.boot)?,
            };
            (Some(open), lock)
        } else {
            let id = Stateid::decode(r)?;
            let _seqid = r.u32()?;
            let State::Lock(lock) = self.state(id, &o).await? else { return Err(Status::BAD_STATEID) };
            let open = lock.open.map(|other| client.find(Stateid { seqid: 0, other })).transpose()?.flatten();
            let open = open.and_then(|s| if let State::Open(o) = s { Some(o) } else { None });
            (open, lock)
        };
        lock.pending.set(lock.pending.get() + 1);
        let outcome = async {
            let range = range(offset, length, write)?;
            // A write lock needs an open for writing; a rebuilt lock's open was checked when it was made.
            let need = Share { access: if write { 2 } else { 1 }, deny: 0 };
            if open.as_ref().is_some_and(|o| o.access() & need.access == 0) {
                return Err(Status::OPENMODE);
            }
            Ok(o.vfs().lock(&self.once(&o), o.ino, &lock_owner(client.id, &lock.other), range).await?)
        }
        .await;
        lock.pending.set(lock.pending.get() - 1);
        let refused = match outcome {
            Ok(Ok(())) => {
                lock.established.set(true);
                let id = lock.bump();
                id.encode(w);
                self.stateid = Some(id);
                return Ok(());
            }
            Ok(Err(conflict)) => {
                denied(w, &conflict);
                w.patch_u32(status_at, Status::DENIED.0);
                Status::DENIED
            }
            Err(e) => e,
        };
        if !lock.established.get() && lock.pending.get() == 0 {
            client.remove_lock(&lock);
        }
        Err(refused)
    }

    pub(crate) async fn op_lockt(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let status_at = w.len() - 4;
        let write = lock_type(r)?;
        let range = range(r.u64()?, r.u64()?, write)?;
        let _client = r.u64()?;
        let owner = r.opaque(OWNER_MAX)?;
        let o = self.object(Status::ISDIR)?;
        let client = self.client()?.clone();
        let attr = o.vfs().getattr(o.ino, o.generation).await?;
        match attr.kind {
            basalt_shard::vfs::FileType::Regular => {}
            basalt_shard::vfs::FileType::Directory => return Err(Status::ISDIR),
            basalt_shard::vfs::FileType::Symlink => return Err(Status::SYMLINK),
            _ => return Err(Status::WRONG_TYPE),
        }
        let held = client.find_lock(&owner, o.key());
        // Without a lock state the owner holds nothing, so any bytes that no stateid has will do.
        let asker = held.map_or(LockOwner { client: client.id, owner: Bytes::from_static(b"?") }, |l| {
            lock_owner(client.id, &l.other)
        });
        match o.vfs().test_lock(o.ino, &asker, range).await? {
            None => Ok(()),
            Some(conflict) => {
                denied(w, &conflict);
                w.patch_u32(status_at, Status::DENIED.0);
                Err(Status::DENIED)
            }
        }
    }

    pub(crate) async fn op_locku(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        lock_type(r)?;
        let _seqid = r.u32()?;
        let id = Stateid::decode(r)?;
        let range = range(r.u64()?, r.u64()?, false)?;
        let o = self.object(Status::ISDIR)?;
        let State::Lock(lock) = self.state(id, &o).await? else { return Err(Status::BAD_STATEID) };
        let client = self.client()?.id;
        o.vfs()
            .unlock(&self.once(&o), o.ino, &lock_owner(client, &lock.other), range.offset, range.length)
            .await?;
        let id = lock.bump();
        id.encode(w);
        self.stateid = Some(id);
        Ok(())
    }
}
