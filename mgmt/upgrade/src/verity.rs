//! dm-verity's hash tree, format 1 without superblock: SHA-256, blocks of 4 KiB, salt first. The tree stands behind the data,
//! its top block first (`Documentation/admin-guide/device-mapper/verity.rst` of Linux).

use crate::error::{Result, UpgradeError};
use crate::media::Media;
use crate::trust::{hex, unhex};
use ring::digest::{Context, SHA256};

pub const BLOCK: usize = 4096;
const HASH: usize = 32;
const HASHES_PER_BLOCK: u64 = (BLOCK / HASH) as u64;

pub type Hash = [u8; HASH];

/// What a kernel command line says about a root: enough to tell whether a partition holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootId {
    pub root_hash: Hash,
    pub data_blocks: u64,
    pub salt: Vec<u8>,
}

/// `HASH:DATA_BLOCKS:SALT`, as in `basalt.root=` of the command line.
impl std::str::FromStr for RootId {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<RootId, String> {
        let malformed = || format!("basalt.root={text} is not HASH:DATA_BLOCKS:SALT");
        let [hash, blocks, salt] = text.split(':').collect::<Vec<_>>()[..] else { return Err(malformed()) };
        Ok(RootId {
            root_hash: unhex(hash).and_then(|h| h.try_into().ok()).ok_or_else(malformed)?,
            data_blocks: blocks.parse().ok().filter(|n| (1..1 << 32).contains(n)).ok_or_else(malformed)?,
            salt: unhex(salt).filter(|s| s.len() <= 256).ok_or_else(malformed)?,
        })
    }
}
impl std::fmt::Display for RootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", hex(&self.root_hash), self.data_blocks, hex(&self.salt))
    }
}

impl RootId {
    pub fn data_bytes(&self) -> u64 {
        self.data_blocks.saturating_mul(BLOCK as u64)
    }

    /// Compares the top block of the tree: as cheap as one read, and what init does at boot.
    pub fn is_on(&self, partition: &dyn Media) -> bool {
        let mut top = vec![0; BLOCK];
        partition.read_at(self.data_bytes(), &mut top).is_ok() && hash(&self.salt, &top) == self.root_hash
    }

    /// Reads everything and compares it with the tree; the offset of the first wrong block if there is one.
    pub fn check(&self, partition: &dyn Media) -> Result<()> {
        let mut leaves = Leaves::new(&self.salt);
        let mut buf = vec![0; 256 * BLOCK];
        let mut at = 0;
        while at < self.data_bytes() {
            let len = (self.data_bytes() - at).min(buf.len() as u64) as usize;
            partition.read_at(at, &mut buf[..len]).map_err(UpgradeError::io("reading a root partition"))?;
            leaves.add(&buf[..len]);
            at += len as u64;
        }
        let (tree, root_hash) = leaves.finish();
        if root_hash != self.root_hash {
            return Err(UpgradeError::ReadBack { what: "the root partition".into(), at: 0 });
        }
        for (i, wanted) in tree.chunks(BLOCK).enumerate() {
            let at = self.data_bytes() + (i * BLOCK) as u64;
            partition
                .read_at(at, &mut buf[..wanted.len()])
                .map_err(UpgradeError::io("reading a root partition"))?;
            if buf[..wanted.len()] != *wanted {
                return Err(UpgradeError::ReadBack { what: "the hash tree of the root".into(), at });
            }
        }
        Ok(())
    }
}

/// Collects the hashes of data blocks as they stream by: 32 bytes for each 4 KiB (4 MiB for a slot of 512 MiB).
pub struct Leaves {
    salt: Vec<u8>,
    level: Vec<u8>,
    partial: Vec<u8>,
}

impl Leaves {
    pub fn new(salt: &[u8]) -> Leaves {
        Leaves { salt: salt.to_vec(), level: Vec::new(), partial: Vec::new() }
    }

    pub fn blocks(&self) -> u64 {
        (self.level.len() / HASH) as u64
    }

    pub fn add(&mut self, mut data: &[u8]) {
        if !self.partial.is_empty() {
            let take = data.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&data[..take]);
            data = &data[take..];
            if self.partial.len() < BLOCK {
                return;
            }
            self.level.extend_from_slice(&hash(&self.salt, &self.partial));
            self.partial.clear();
        }
        let whole = data.chunks_exact(BLOCK);
        self.partial.extend_from_slice(whole.remainder());
        for block in whole {
            self.level.extend_from_slice(&hash(&self.salt, block));
        }
    }

    /// The tree as it stands on media, and the root hash.
    pub fn finish(mut self) -> (Vec<u8>, Hash) {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            self.level.extend_from_slice(&hash(&self.salt, &self.partial));
        }
        let mut levels = Vec::new();
        let mut level = self.level;
        loop {
            level.resize(level.len().next_multiple_of(BLOCK).max(BLOCK), 0);
            let next: Vec<u8> = level.chunks(BLOCK).flat_map(|block| hash(&self.salt, block)).collect();
            levels.push(level);
            if next.len() == HASH {
                let mut root_hash = [0; HASH];
                root_hash.copy_from_slice(&next);
                levels.reverse();
                return (levels.concat(), root_hash);
            }
            level = next;
        }
    }
}

/// Bytes of a tree over so many data blocks.
pub fn tree_bytes(data_blocks: u64) -> u64 {
    let (mut total, mut level) = (0, data_blocks);
    loop {
        level = level.div_ceil(HASHES_PER_BLOCK).max(1);
        total += level;
        if level == 1 {
            return total * BLOCK as u64;
        }
    }
}

fn hash(salt: &[u8], block: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(block);
    let mut out = [0; HASH];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Recorder;

    fn image(blocks: usize) -> (RootId, Vec<u8>) {
        let data: Vec<u8> = (0..blocks * BLOCK).map(|i| (i / 7 + i / BLOCK) as u8).collect();
        let mut leaves = Leaves::new(b"salt");
        data.chunks(1000).for_each(|piece| leaves.add(piece));
        let (tree, root_hash) = leaves.finish();
        assert_eq!(tree.len() as u64, tree_bytes(blocks as u64));
        (RootId { root_hash, data_blocks: blocks as u64, salt: b"salt".to_vec() }, [data, tree].concat())
    }

    /// Made with `veritysetup format --no-superblock --salt=00112233` (cryptsetup 2.6.1) over 300 blocks, block i filled with i.
    #[test]
    fn same_as_veritysetup() {
        let mut leaves = Leaves::new(&[0x00, 0x11, 0x22, 0x33]);
        (0..300).for_each(|i| leaves.add(&[i as u8; BLOCK]));
        let (tree, root_hash) = leaves.finish();
        assert_eq!(crate::trust::hex(&root_hash), GOLDEN_ROOT_HASH);
        let digest = ring::digest::digest(&SHA256, &tree);
        assert_eq!(crate::trust::hex(digest.as_ref()), GOLDEN_TREE_SHA256);
    }
    const GOLDEN_ROOT_HASH: &str = "bed871db89be4b26a5290d8921526e0dbd28859ee209e0191f05924286673a76";
    const GOLDEN_TREE_SHA256: &str = "38820a1a62fb46cacd4b8de8a8f1e9f07d6e2d99f71dd76964036998d896082e";

    #[test]
    fn finds_every_flipped_bit() {
        let (id, bytes) = image(130);
        let good = Recorder::new(bytes.clone());
        assert!(id.is_on(&good));
        id.check(&good).unwrap();
        for at in (0..bytes.len()).step_by(3001) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            id.check(&Recorder::new(bad)).unwrap_err();
        }
    }
}
