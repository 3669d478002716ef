//! File handles: what they name, and the code that keeps clients from making their own.
//!
//! 60 bytes, little-endian, within NFSv3's 64:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 0 pseudo directory, 1 object of a file system |
//! | 2 | 2 | 0 |
//! | 4 | 4 | export id |
//! | 8 | 16 | file system id |
//! | 24 | 8 | snapshot, 0 |
//! | 32 | 8 | inode number, or id of the pseudo directory |
//! | 40 | 4 | generation |
//! | 44 | 16 | SipHash-2-4-128 of the above under the pool's secret |

use basalt_shard::vfs::Ino;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

pub const HANDLE_BYTES: usize = 60;
const MAC_AT: usize = 44;
const VERSION: u8 = 1;

/// The pool's secret; every code made with it starts with its purpose.
#[derive(Clone)]
pub struct Secret([u8; 16]);

impl Secret {
    pub fn new(key: [u8; 16]) -> Secret {
        Secret(key)
    }
    pub(crate) fn mac(&self, purpose: u8, parts: &[&[u8]]) -> [u8; 16] {
        let mut h = SipHasher24::new_with_key(&self.0);
        h.write(&[purpose]);
        for part in parts {
            h.write(part);
        }
        h.finish128().as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Compares without telling by its time where the difference lies.
pub(crate) fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y))) == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    Pseudo { id: u64 },
    Object { export: u32, fsid: [u8; 16], snapshot: u64, ino: Ino, generation: u32 },
}

/// Not a handle of ours, or changed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl Handle {
    pub fn encode(&self, secret: &Secret) -> [u8; HANDLE_BYTES] {
        let mut b = [0; HANDLE_BYTES];
        b[0] = VERSION;
        match self {
            Handle::Pseudo { id } => b[32..40].copy_from_slice(&id.to_le_bytes()),
            Handle::Object { export, fsid, snapshot, ino, generation } => {
                b[1] = 1;
                b[4..8].copy_from_slice(&export.to_le_bytes());
                b[8..24].copy_from_slice(fsid);
                b[24..32].copy_from_slice(&snapshot.to_le_bytes());
                b[32..40].copy_from_slice(&ino.0.to_le_bytes());
                b[40..44].copy_from_slice(&generation.to_le_bytes());
            }
        }
        let mac = secret.mac(b'h', &[&b[..MAC_AT]]);
        b[MAC_AT..].copy_from_slice(&mac);
        b
    }

    pub fn decode(bytes: &[u8], secret: &Secret) -> Result<Handle, Forged> {
        let b: &[u8; HANDLE_BYTES] = bytes.try_into().map_err(|_| Forged)?;
        if !equal_in_constant_time(&secret.mac(b'h', &[&b[..MAC_AT]]), &b[MAC_AT..]) {
            return Err(Forged);
        }
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        match (b[0], b[1]) {
            (VERSION, 0) => Ok(Handle::Pseudo { id: u64_at(32) }),
            (VERSION, 1) => Ok(Handle::Object {
                export: u32_at(4),
                fsid: std::array::from_fn(|i| b[8 + i]),
                snapshot: u64_at(24),
                ino: Ino(u64_at(32)),
                generation: u32_at(40),
            }),
            _ => Err(Forged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Handle {
        Handle::Object {
            export: 7,
            fsid: *b"0123456789abcdef",
            snapshot: 0,
            ino: Ino::new(3, 99),
            generation: 5,
        }
    }

    /// Handles outlive the server's version: these bytes may never change.
    #[test]
    fn golden_bytes() {
        let secret = Secret::new(*b"sixteen byte key");
        let hex: String = sample().encode(&secret).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            &hex[..88],
            concat!(
                "01010000",
                "07000000",
                "30313233343536373839616263646566",
                "0000000000000000",
                "6300000000800100",
                "05000000"
            )
        );
        assert_eq!(&hex[88..], GOLDEN_MAC);
    }
    const GOLDEN_MAC: &str = "cdb47c6187ba2087f2614373eab53242";

    proptest! {
        #[test]
        fn any_change_is_found(at in 0..HANDLE_BYTES, bit in 0u8..8, other_key in any::<[u8; 16]>()) {
            let secret = Secret::new([1; 16]);
            let mut b = sample().encode(&secret);
            prop_assert_eq!(Handle::decode(&b, &secret), Ok(sample()));
            prop_assert_eq!(Handle::decode(&b, &Secret::new(other_key)), Err(Forged));
            b[at] ^= 1 << bit;
            prop_assert_eq!(Handle::decode(&b, &secret), Err(Forged));
            prop_assert_eq!(Handle::decode(&b[1..], &secret), Err(Forged));
        }
    }
}
