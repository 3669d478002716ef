//! Byte-range locks with POSIX semantics: an owner's locks never overlap, are split and joined as it locks and unlocks,
//! and are in the index before the answer, so that a restart keeps them.

use super::view::View;
use super::{Shard, perm};
use crate::index::TxnResult;
use crate::keys::{self, tag};
use crate::vfs::*;
use bytes::Bytes;

/// Locks on one file.
pub(crate) const LOCKS_MAX: usize = 4096;
const OWNER_MAX: usize = 1024;

/// A lock: `start..end`, `end` = `u64::MAX` being the end of any file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    owner: LockOwner,
    start: u64,
    end: u64,
    write: bool,
}

impl Held {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
    fn conflict(&self) -> LockConflict {
        LockConflict {
            owner: self.owner.clone(),
            range: LockRange {
                offset: self.start,
                length: if self.end == u64::MAX { u64::MAX } else { self.end - self.start },
                write: self.write,
            },
        }
    }
    fn key(&self, ino: Ino) -> Vec<u8> {
        let mut k = keys::ino_u64_key(tag::LOCK, ino, self.owner.client);
        k.extend_from_slice(&(self.owner.owner.len() as u16).to_be_bytes());
        k.extend_from_slice(&self.owner.owner);
        k.extend_from_slice(&self.start.to_be_bytes());
        k
    }
    fn value(&self) -> Vec<u8> {
        let mut v = self.end.to_le_bytes().to_vec();
        v.push(self.write as u8);
        v
    }
    fn decode(key: &[u8], value: &[u8]) -> Option<Held> {
        let client = u64::from_be_bytes(key.get(9..17)?.try_into().ok()?);
        let len = u16::from_be_bytes(key.get(17..19)?.try_into().ok()?) as usize;
        let owner = Bytes::copy_from_slice(key.get(19..19 + len)?);
        let start = u64::from_be_bytes(key.get(19 + len..)?.try_into().ok()?);
        let end = u64::from_le_bytes(value.get(..8)?.try_into().ok()?);
        Some(Held { owner: LockOwner { client, owner }, start, end, write: *value.get(8)? != 0 })
    }
}

fn end_of(offset: u64, length: u64) -> FsResult<u64> {
    match length {
        0 => Err(FsError::Invalid),
        u64::MAX => Ok(u64::MAX),
        n => offset.checked_add(n).ok_or(FsError::Invalid),
    }
}

/// An owner's locks after `start..end` became `Some(write)` locked or, `None`, unlocked.
fn changed(mut own: Vec<Held>, owner: &LockOwner, start: u64, end: u64, to: Option<bool>) -> Vec<Held> {
    let mut result = Vec::new();
    let piece = |start, end, write| Held { owner: owner.clone(), start, end, write };
    let (mut start, mut end) = (start, end);
    own.sort_by_key(|l| l.start);
    for l in own {
        if to == Some(l.write) && l.start <= end && start <= l.end {
            // The same kind, overlapping or adjacent: becomes one.
            start = start.min(l.start);
            end = end.max(l.end);
        } else if l.overlaps(start, end) {
            if l.start < start {
                result.push(piece(l.start, start, l.write));
            }
            if l.end > end {
                result.push(piece(end, l.end, l.write));
            }
        } else {
            result.push(l);
        }
    }
    if let Some(write) = to {
        result.push(piece(start, end, write));
    }
    result.sort_by_key(|l| l.start);
    result
}

fn first_conflict(
    all: &[Held],
    owner: &LockOwner,
    start: u64,
    end: u64,
    write: bool,
) -> Option<LockConflict> {
    all.iter().find(|l| l.owner != *owner && l.overlaps(start, end) && (write || l.write)).map(Held::conflict)
}

impl Shard {
    fn held(&self, v: &mut View<'_, '_>, ino: Ino) -> TxnResult<Vec<Held>> {
        let prefix = keys::ino_key(tag::LOCK, ino);
        let found = v.scan(&prefix, &keys::prefix_end(&prefix), LOCKS_MAX)?;
        found.iter().map(|(k, val)| Ok(Held::decode(k, val).ok_or(FsError::Io)?)).collect()
    }

    fn lockable(&self, v: &mut View<'_, '_>, ino: Ino) -> TxnResult<()> {
        let inode = v.live(ino)?;
        Ok(perm::require_regular(&inode)?)
    }

    fn change_locks(
        &self,
        v: &mut View<'_, '_>,
        ino: Ino,
        all: Vec<Held>,
        owner: &LockOwner,
        range: (u64, u64),
        to: Option<bool>,
    ) -> FsResult<()> {
        let total = all.len();
        let own: Vec<Held> = all.into_iter().filter(|l| l.owner == *owner).collect();
        let new = changed(own.clone(), owner, range.0, range.1, to);
        // One slot short of the scan's limit, so that all are always seen.
        if total - own.len() + new.len() >= LOCKS_MAX {
            return Err(FsError::Resource);
        }
        own.iter().filter(|l| !new.contains(l)).for_each(|l| v.delete(l.key(ino)));
        new.iter().filter(|l| !own.contains(l)).for_each(|l| v.put(l.key(ino), l.value()));
        Ok(())
    }

    pub(crate) async fn lock(
        &self,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Result<(), LockConflict>> {
        if owner.owner.len() > OWNER_MAX {
            return Err(FsError::Invalid);
        }
        let end = end_of(range.offset, range.length)?;
        self.run(|v| {
            self.lockable(v, ino)?;
            let all = self.held(v, ino)?;
            if let Some(conflict) = first_conflict(&all, owner, range.offset, end, range.write) {
                return Ok(Err(conflict));
            }
            self.change_locks(v, ino, all, owner, (range.offset, end), Some(range.write))?;
            Ok(Ok(()))
        })
        .await
    }

    pub(crate) async fn unlock(&self, ino: Ino, owner: &LockOwner, offset: u64, length: u64) -> FsResult<()> {
        let end = end_of(offset, length)?;
        self.run(|v| {
            self.lockable(v, ino)?;
            let all = self.held(v, ino)?;
            Ok(self.change_locks(v, ino, all, owner, (offset, end), None)?)
        })
        .await
    }

    pub(crate) async fn test_lock(
        &self,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Option<LockConflict>> {
        let end = end_of(range.offset, range.length)?;
        self.run(|v| {
            self.lockable(v, ino)?;
            Ok(first_conflict(&self.held(v, ino)?, owner, range.offset, end, range.write))
        })
        .await
    }

    pub(crate) async fn holds_locks(&self, ino: Ino, owner: &LockOwner) -> FsResult<bool> {
        self.run(|v| Ok(self.held(v, ino)?.iter().any(|l| l.owner == *owner))).await
    }

    pub(crate) async fn drop_client_locks(&self, client: u64) -> FsResult<()> {
        let mut of_client = Vec::new();
        self.each(&[tag::LOCK], |key, value| {
            if Held::decode(key, value)?.owner.client == client {
                of_client.push(key.to_vec());
            }
            Some(())
        })
        .await?;
        for some in of_client.chunks(256) {
            self.run(|v| {
                some.iter().for_each(|k| v.delete(k.clone()));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(n: u64) -> LockOwner {
        LockOwner { client: n, owner: Bytes::from_static(b"o") }
    }
    fn h(start: u64, end: u64, write: bool) -> Held {
        Held { owner: owner(1), start, end, write }
    }
    fn after(own: &[Held], start: u64, end: u64, to: Option<bool>) -> Vec<(u64, u64, bool)> {
        let new = changed(own.to_vec(), &owner(1), start, end, to);
        new.into_iter().map(|l| (l.start, l.end, l.write)).collect()
    }

    #[test]
    fn ranges_split_join_and_change_kind() {
        let held = [h(0, 100, true)];
        assert_eq!(after(&held, 40, 60, None), [(0, 40, true), (60, 100, true)]);
        assert_eq!(after(&held, 40, 60, Some(false)), [(0, 40, true), (40, 60, false), (60, 100, true)]);
        assert_eq!(after(&held, 100, 200, Some(true)), [(0, 200, true)], "adjacent");
        assert_eq!(after(&held, 50, 200, Some(true)), [(0, 200, true)]);
        assert_eq!(after(&held, 0, u64::MAX, Some(false)), [(0, u64::MAX, false)]);
        assert_eq!(after(&held, 0, 100, None), []);
        let two = [h(0, 10, true), h(20, 30, true)];
        assert_eq!(after(&two, 10, 20, Some(true)), [(0, 30, true)], "fills the gap");
        assert_eq!(after(&two, 5, 25, None), [(0, 5, true), (25, 30, true)]);
    }

    /// Against a model that knows every byte.
    #[test]
    fn any_sequence_agrees_with_bytes() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut own: Vec<Held> = Vec::new();
        let mut bytes = [None; 64];
        for _ in 0..5000 {
            let start = draw(63);
            let end = start + 1 + draw(64 - start);
            let to = [None, Some(false), Some(true)][draw(3) as usize];
            own = changed(own, &owner(1), start, end, to);
            bytes[start as usize..end.min(64) as usize].fill(to);
            for (at, want) in bytes.iter().enumerate() {
                let at = at as u64;
                let got: Vec<bool> = own.iter().filter(|l| l.overlaps(at, at + 1)).map(|l| l.write).collect();
                assert_eq!(got.as_slice(), want.as_slice(), "byte {at}");
            }
            assert!(
                own.windows(2).all(|w| w[0].end < w[1].start || w[0].write != w[1].write),
                "joined: {own:?}"
            );
        }
    }

    #[test]
    fn keys_on_media() {
        let l = Held {
            owner: LockOwner { client: 2, owner: Bytes::from_static(b"ab") },
            start: 3,
            end: 9,
            write: true,
        };
        let key = l.key(Ino(1));
        assert_eq!(
            key,
            [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 3]
        );
        assert_eq!(l.value(), [9, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Held::decode(&key, &l.value()), Some(l));
        assert_eq!(Held::decode(&key[..20], &[0; 9]), None);
    }

    #[test]
    fn ranges_are_checked() {
        assert_eq!(end_of(5, 0), Err(FsError::Invalid));
        assert_eq!(end_of(5, u64::MAX), Ok(u64::MAX));
        assert_eq!(end_of(u64::MAX - 1, 5), Err(FsError::Invalid));
        assert_eq!(end_of(5, 5), Ok(10));
    }
}
