//! `manifest.json`; its fields are those of `docs/operations/image.md`.

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Facts {
    #[arg(long)]
    version: String,
    /// Seconds since 1970
    #[arg(long)]
    time: u64,
    /// Until when it may be booted from the network, seconds since 1970
    #[arg(long)]
    not_after: u64,
    #[arg(long)]
    kernel: String,
    /// HASH:DATA_BLOCKS:SALT
    #[arg(long)]
    root: String,
    /// The oldest version that may be upgraded to this one
    #[arg(long)]
    minimum_version: String,
    /// Patterns of hardware names, separated by commas
    #[arg(long)]
    hardware: String,
    files: Vec<PathBuf>,
}

impl Facts {
    pub(crate) fn manifest(self) -> Result<Value, String> {
        let mut root = self.root.split(':');
        let (Some(hash), Some(blocks), Some(salt)) = (root.next(), root.next(), root.next()) else {
            return Err(format!("--root {} is not HASH:DATA_BLOCKS:SALT", self.root));
        };
        let blocks: u64 = blocks.parse().map_err(|e| format!("--root: {blocks}: {e}"))?;
        let mut files = self.files.iter().map(|f| file(f)).collect::<Result<Vec<_>, _>>()?;
        files.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        Ok(json!({
            "format": 1,
            "product": "basalt",
            "version": self.version,
            "architecture": "x86_64",
            "created": self.time,
            "not_after": self.not_after,
            "kernel": self.kernel,
            "root_hash": hash,
            "root_data_blocks": blocks,
            "root_salt": salt,
            "minimum_version": self.minimum_version,
            "hardware": self.hardware.split(',').collect::<Vec<_>>(),
            "files": files,
        }))
    }
}

fn file(path: &Path) -> Result<Value, String> {
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut source = std::fs::File::open(path).map_err(at)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0u64;
    loop {
        let length = std::io::Read::read(&mut source, &mut buffer).map_err(at)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        size += length as u64;
    }
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let name =
        path.file_name().and_then(|n| n.to_str()).ok_or_else(|| format!("{}: no name", path.display()))?;
    Ok(json!({"name": name, "size": size, "sha256": digest}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_measured_and_digested() {
        let path = std::env::temp_dir().join(format!("basalt-image-{}", std::process::id()));
        std::fs::write(&path, "abc").unwrap();
        let entry = file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(entry["size"], 3);
        assert_eq!(entry["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(file(&path).unwrap_err().contains("basalt-image-"));
    }
}
