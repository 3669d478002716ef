//! dm-verity's hash tree: format version 1, SHA-256, 4 KiB blocks, no superblock.
//!
//! A root file is `data_blocks` blocks of squashfs followed by the tree, its top level first, so the root hash can be
//! compared with one block read before anything of the file is trusted.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(crate) const BLOCK_BYTES: u64 = 4096;
pub(crate) const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;

/// What a boot image says of its root: `basalt.root=HASH:DATA_BLOCKS:SALT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootSpec {
    pub(crate) root_hash: [u8; 32],
    pub(crate) data_blocks: u64,
    pub(crate) salt: Vec<u8>,
}

impl RootSpec {
    pub(crate) fn parse(text: &str) -> Result<RootSpec, String> {
        let malformed =
            || format!("basalt.root={text} is not HASH:DATA_BLOCKS:SALT; the boot image was built wrong");
        let mut parts = text.split(':');
        let (Some(hash), Some(blocks), Some(salt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let root_hash = unhex(hash).and_then(|h| h.try_into().ok()).ok_or_else(malformed)?;
        let data_blocks = blocks.parse().ok().filter(|n| (1..1 << 32).contains(n)).ok_or_else(malformed)?;
        let salt = unhex(salt).filter(|s| s.len() <= 256).ok_or_else(malformed)?;
        Ok(RootSpec { root_hash, data_blocks, salt })
    }

    pub(crate) fn hex_hash(&self) -> String {
        hex(&self.root_hash)
    }

    /// True where the tree that follows the data on `path` has this root hash at its top.
    pub(crate) fn is_on(&self, path: &Path) -> std::io::Result<bool> {
        let mut block = [0; BLOCK_BYTES as usize];
        match File::open(path)?.read_exact_at(&mut block, self.data_blocks * BLOCK_BYTES) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
        let mut hash = Sha256::new();
        hash.update(&self.salt);
        hash.update(block);
        Ok(<[u8; 32]>::from(hash.finalize()) == self.root_hash)
    }

    /// The device-mapper table line's parameters.
    pub(crate) fn table(&self, device: &Path) -> String {
        let device = device.display();
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex(&self.salt) };
        // Corruption panics, and the panic reboots: on a trial boot the counter then runs down.
        format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {} {} sha256 {} {salt} 1 panic_on_corruption",
            self.data_blocks,
            self.data_blocks,
            self.hex_hash()
        )
    }
}

/// SHA-256 of a whole file.
pub(crate) fn file_sha256(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hash.finalize().into())
}

struct HashWriter<'a>(&'a mut Sha256);
impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_parse_or_say_why() {
        let hash = "ab".repeat(32);
        let spec = RootSpec::parse(&format!("{hash}:7:0102")).unwrap();
        assert_eq!((spec.data_blocks, spec.salt.as_slice(), spec.hex_hash()), (7, &[1, 2][..], hash.clone()));
        for wrong in
            ["", "ab:7:01", &format!("{hash}:0:01"), &format!("{hash}:7:1"), &format!("{hash}:7:01:9")]
        {
            assert!(RootSpec::parse(wrong).unwrap_err().contains("HASH:DATA_BLOCKS:SALT"));
        }
    }

    #[test]
    fn a_changed_tree_is_not_taken() {
        let path = std::env::temp_dir().join(format!("basalt-verity-{}", std::process::id()));
        let top = [7u8; BLOCK_BYTES as usize];
        let mut hash = Sha256::new();
        hash.update([9]);
        hash.update(top);
        let spec = RootSpec { root_hash: hash.finalize().into(), data_blocks: 2, salt: vec![9] };
        let mut bytes = vec![0; 2 * BLOCK_BYTES as usize];
        std::fs::write(&path, &bytes).unwrap();
        assert!(!spec.is_on(&path).unwrap(), "too short");
        bytes.extend(top);
        std::fs::write(&path, &bytes).unwrap();
        assert!(spec.is_on(&path).unwrap());
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(!spec.is_on(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
