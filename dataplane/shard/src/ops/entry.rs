//! Directory entries: names, their hashes, and the values under their keys.
//!
//! The hash is also the readdir cookie: 63 bits (clients keep cookies in a signed `off_t`), never 0, 1 or 2. Two names
//! of one directory never share a hash: the second is refused with `NoSpace`, as ext4 does when a hash bucket is full, so
//! that a cookie names exactly one place and a reader can stop after any entry. With a billion names in one directory the
//! chance of a refusal is 1e-10 per name.

use super::view::View;
use crate::index::TxnResult;
use crate::inode::{kind_code, kind_of};
use crate::keys;
use crate::planted::{self, Planted};
use crate::vfs::*;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// Second half of the hash key; the first is the directory's own seed. Part of the on-media format.
const NAME_HASH_KEY: u64 = u64::from_le_bytes(*b"basaltnm");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
}

impl Entry {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut v = vec![kind_code(self.kind)];
        v.extend_from_slice(&self.ino.0.to_le_bytes());
        v
    }
    pub(crate) fn decode(v: &[u8]) -> FsResult<Entry> {
        let (Some(kind), Some(Ok(ino))) =
            (v.first().and_then(|c| kind_of(*c)), v.get(1..9).map(TryInto::try_into))
        else {
            return Err(FsError::Io);
        };
        Ok(Entry { ino: Ino(u64::from_le_bytes(ino)), kind })
    }
}

pub(crate) fn check_name(name: &[u8]) -> FsResult<()> {
    if name.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

pub(crate) const COOKIE_MIN: u64 = 3;
pub(crate) const COOKIE_MAX: u64 = i64::MAX as u64;

pub(crate) fn name_hash(seed: u64, name: &[u8]) -> u64 {
    let mut h = SipHasher24::new_with_keys(seed, NAME_HASH_KEY);
    h.write(name);
    let mut hash = h.finish() & COOKIE_MAX;
    if planted::is(Planted::WeakNameHash) {
        hash &= 3;
    }
    if hash < COOKIE_MIN { hash + COOKIE_MIN } else { hash }
}

/// `None` when the name is not there.
pub(crate) fn find(v: &mut View<'_, '_>, dir: Ino, seed: u64, name: &[u8]) -> TxnResult<Option<Entry>> {
    let key = keys::dirent(dir, name_hash(seed, name), name);
    Ok(match v.get(&key)? {
        Some(value) => Some(Entry::decode(&value)?),
        None => None,
    })
}

/// The name in a DIRENT key and its cookie.
pub(crate) fn split_key(key: &[u8]) -> Option<(Ino, u64, &[u8])> {
    let dir = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    let hash = u64::from_be_bytes(key.get(9..17)?.try_into().ok()?);
    Some((Ino(dir), hash, &key[17..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name(b"ok"), Ok(()));
        assert_eq!(check_name(&[b'a'; 255]), Ok(()));
        assert_eq!(check_name(&[b'a'; 256]), Err(FsError::NameTooLong));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(check_name(bad), Err(FsError::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_and_the_entry_are_part_of_the_format() {
        // From another implementation of SipHash-2-4, so that a change of library cannot move names.
        assert_eq!(name_hash(0x0123_4567_89ab_cdef, b"hello"), PINNED);
        let e = Entry { ino: Ino(0x0102), kind: FileType::Symlink };
        assert_eq!(e.encode(), [3, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Entry::decode(&e.encode()), Ok(e));
        assert_eq!(Entry::decode(&[9; 9]), Err(FsError::Io));
        assert_eq!(Entry::decode(&[1; 4]), Err(FsError::Io));
    }
    const PINNED: u64 = 0x3cfe_41d3_cd1d_33c3;
}
