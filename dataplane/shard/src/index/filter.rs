//! Bloom filter of the keys in a partition of a run, so that looking for a name that is not there (every create) reads no data
//! block. 10 bits and 7 probes a key: 0.8 % false positives.
//!
//! On media: the hash (SipHash-1-3 under fixed keys) and the probe sequence are part of the format.

use bytes::Bytes;
use siphasher::sip::SipHasher13;

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 7;
const SIP_KEYS: (u64, u64) = (0x4261_7361_6c74_4b65, 0x7973_2069_6e20_7275);

pub(crate) fn hash(key: &[u8]) -> u64 {
    SipHasher13::new_with_keys(SIP_KEYS.0, SIP_KEYS.1).hash(key)
}

/// Bit numbers that a key of this hash sets, by double hashing.
fn probes(hash: u64, bits: u64) -> impl Iterator<Item = u64> {
    let (start, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
    (0..u64::from(PROBES)).map(move |i| (start + i * step) % bits)
}

pub(crate) fn build(hashes: &[u64]) -> Vec<u8> {
    let mut out = vec![0; (hashes.len() * BITS_PER_KEY).div_ceil(8).max(1)];
    let bits = out.len() as u64 * 8;
    for h in hashes {
        for b in probes(*h, bits) {
            out[(b / 8) as usize] |= 1 << (b % 8);
        }
    }
    out
}

pub(crate) struct Filter(pub(crate) Bytes);
impl Filter {
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        // No filter: anything may be there.
        self.0.is_empty()
            || probes(hash, self.0.len() as u64 * 8).all(|b| self.0[(b / 8) as usize] & 1 << (b % 8) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_and_little_else() {
        let hashes: Vec<u64> = (0u32..8192).map(|i| hash(&i.to_be_bytes())).collect();
        let f = Filter(build(&hashes).into());
        assert!(hashes.iter().all(|h| f.may_contain(*h)));
        let wrong = (8192u32..108_192).filter(|i| f.may_contain(hash(&i.to_be_bytes()))).count();
        assert!(wrong < 1500, "{wrong} of 100000 absent keys were thought present");
    }

    /// Hash and probes are on media: this test changes only together with the block's version.
    #[test]
    fn golden_bytes() {
        assert_eq!(hash(b"basalt"), GOLDEN_HASH);
        assert_eq!(build(&[hash(b"a"), hash(b"b"), hash(b"c")]), GOLDEN_FILTER);
    }
    const GOLDEN_HASH: u64 = 1620897093238388918;
    const GOLDEN_FILTER: [u8; 4] = [83, 140, 252, 35];
}
