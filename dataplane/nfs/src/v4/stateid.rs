//! Stateids that describe themselves, so that the opens of a client outlive this process (architecture, section 8).
//!
//! `other`, 12 bytes, big-endian:
//!
//! | at | bits | field |
//! |---|---|---|
//! | 0 | 2 | kind: 1 open, 2 lock |
//! | 0 | 2 | share access of an open |
//! | 0 | 2 | share deny of an open |
//! | 0 | 10 | low bits of the boot number that minted it |
//! | 2 | 16 | hash of the owner (open-owner or lock-owner) |
//! | 4 | 32 | counter |
//! | 8 | 32 | code under the pool's secret, over the above, the client id and the file |

use crate::handle::{Secret, equal_in_constant_time};
use crate::xdr::{Reader, Writer, XdrResult};
use basalt_shard::vfs::Share;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stateid {
    pub(crate) seqid: u32,
    pub(crate) other: Other,
}

/// The part of a stateid that stays for the life of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Other(pub(crate) [u8; 12]);

/// Special stateids (RFC 8881, section 8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Anonymous,
    ReadBypass,
    Current,
    Invalid,
}

impl Stateid {
    pub(crate) const INVALID: Stateid = Stateid { seqid: u32::MAX, other: Other([0; 12]) };

    pub(crate) fn decode(r: &mut Reader) -> XdrResult<Stateid> {
        Ok(Stateid { seqid: r.u32()?, other: Other(r.fixed()?) })
    }
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u32(self.seqid);
        w.fixed(&self.other.0);
    }
    pub(crate) fn special(&self) -> Option<Special> {
        match (self.seqid, self.other.0) {
            (0, o) if o == [0; 12] => Some(Special::Anonymous),
            (1, o) if o == [0; 12] => Some(Special::Current),
            (u32::MAX, o) if o == [0xff; 12] => Some(Special::ReadBypass),
            (_, o) if o == [0; 12] || o == [0xff; 12] => Some(Special::Invalid),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Open(Share),
    Lock,
}

/// The file that a state belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileKey {
    pub(crate) export: u32,
    pub(crate) ino: u64,
    pub(crate) generation: u32,
}

pub(crate) const BOOT_MASK: u32 = 0x3ff;

pub(crate) struct Minted {
    pub(crate) kind: Kind,
    pub(crate) boot: u32,
    pub(crate) owner_hash: u16,
    pub(crate) counter: u32,
}

impl Minted {
    pub(crate) fn encode(&self, secret: &Secret, client: u64, file: FileKey) -> Other {
        let top = match self.kind {
            Kind::Open(s) => 1 << 6 | (s.access & 3) << 4 | (s.deny & 3) << 2,
            Kind::Lock => 2 << 6,
        };
        let mut o = [0; 12];
        o[0] = (top | (self.boot & BOOT_MASK) >> 8) as u8;
        o[1] = self.boot as u8;
        o[2..4].copy_from_slice(&self.owner_hash.to_be_bytes());
        o[4..8].copy_from_slice(&self.counter.to_be_bytes());
        let code = code(&o, secret, client, file);
        o[8..].copy_from_slice(&code);
        Other(o)
    }
}

fn code(o: &[u8; 12], secret: &Secret, client: u64, file: FileKey) -> [u8; 4] {
    let mac = secret.mac(
        b's',
        &[
            &o[..8],
            &client.to_be_bytes(),
            &file.export.to_be_bytes(),
            &file.ino.to_be_bytes(),
            &file.generation.to_be_bytes(),
        ],
    );
    [mac[0], mac[1], mac[2], mac[3]]
}

impl Other {
    /// What it says, code unchecked.
    pub(crate) fn claims(&self) -> Option<Minted> {
        let o = &self.0;
        let kind = match o[0] >> 6 {
            1 => Kind::Open(Share { access: (o[0] >> 4 & 3) as u32, deny: (o[0] >> 2 & 3) as u32 }),
            2 => Kind::Lock,
            _ => return None,
        };
        Some(Minted {
            kind,
            boot: (o[0] as u32 & 3) << 8 | o[1] as u32,
            owner_hash: u16::from_be_bytes([o[2], o[3]]),
            counter: u32::from_be_bytes([o[4], o[5], o[6], o[7]]),
        })
    }
    /// What it says, when this server minted it for this client and file.
    pub(crate) fn verify(&self, secret: &Secret, client: u64, file: FileKey) -> Option<Minted> {
        let good = equal_in_constant_time(&code(&self.0, secret, client, file), &self.0[8..]);
        self.claims().filter(|_| good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn says_what_was_minted_and_nothing_else(
            access in 1u32..4, deny in 0u32..4, boot: u32, owner_hash: u16, counter: u32, client: u64, ino: u64, flip in 0usize..96,
        ) {
            let secret = Secret::new([3; 16]);
            let file = FileKey { export: 1, ino, generation: 4 };
            let kind = Kind::Open(Share { access, deny });
            let other = Minted { kind, boot, owner_hash, counter }.encode(&secret, client, file);
            let got = other.verify(&secret, client, file).unwrap();
            prop_assert_eq!((got.kind, got.boot, got.owner_hash, got.counter), (kind, boot & BOOT_MASK, owner_hash, counter));
            prop_assert!(other.verify(&secret, client.wrapping_add(1), file).is_none());
            let successor = FileKey { generation: 5, ..file };
            prop_assert!(other.verify(&secret, client, successor).is_none());
            let mut forged = other;
            forged.0[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(forged.verify(&secret, client, file).is_none());
        }
    }

    #[test]
    fn golden_bytes() {
        let file = FileKey { export: 1, ino: 2, generation: 3 };
        let kind = Kind::Open(Share { access: 3, deny: 0 });
        let other = Minted { kind, boot: 0x2fe, owner_hash: 0x1234, counter: 9 }.encode(
            &Secret::new([0; 16]),
            5,
            file,
        );
        assert_eq!(other.0[..8], [0x72, 0xfe, 0x12, 0x34, 0, 0, 0, 9]);
    }
}
