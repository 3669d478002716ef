//! Device-mapper: one read-only verity device, made without libdevmapper.

use crate::sys::{DM_HEADER_BYTES, DmCall, dm_ioctl};
use crate::verity::{RootSpec, SECTORS_PER_BLOCK};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

const READ_ONLY: u32 = 1;
const TARGET_SPEC_BYTES: usize = 40;

fn header(flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; DM_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&4u32.to_le_bytes()); // interface version 4
    bytes[16..20].copy_from_slice(&(DM_HEADER_BYTES as u32).to_le_bytes()); // data_start
    bytes[28..32].copy_from_slice(&flags.to_le_bytes());
    bytes[48..48 + 11].copy_from_slice(b"basalt-root");
    bytes
}

fn verity_target(spec: &RootSpec, device: &Path) -> Vec<u8> {
    let parameters = spec.table(device);
    let mut target = vec![0; TARGET_SPEC_BYTES];
    target[8..16].copy_from_slice(&(spec.data_blocks * SECTORS_PER_BLOCK).to_le_bytes());
    target[24..24 + 6].copy_from_slice(b"verity");
    target.extend(parameters.as_bytes());
    target.push(0);
    target.resize(target.len().next_multiple_of(8), 0);
    target
}

/// Puts dm-verity over `device`; what is read through the result is what the root hash stands for, or the node panics.
pub(crate) fn open_verity(spec: &RootSpec, device: &Path) -> std::io::Result<PathBuf> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control")?;
    let mut create = header(READ_ONLY);
    dm_ioctl(&control, DmCall::Create, &mut create)?;
    let dev = u64::from_le_bytes(create[40..48].try_into().expect("8 bytes"));
    let mut load = header(READ_ONLY);
    load[20..24].copy_from_slice(&1u32.to_le_bytes()); // target_count
    load.extend(verity_target(spec, device));
    dm_ioctl(&control, DmCall::TableLoad, &mut load)?;
    // Resume: suspend without the suspend flag.
    dm_ioctl(&control, DmCall::Suspend, &mut header(0))?;
    // The kernel's huge_encode_dev: minor in bits 0-7 and 20-31.
    let minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_laid_out_as_the_kernel_reads_it() {
        let spec = RootSpec { root_hash: [0xab; 32], data_blocks: 3, salt: vec![] };
        let target = verity_target(&spec, Path::new("/dev/vda2"));
        assert_eq!(target.len() % 8, 0);
        assert_eq!(u64::from_le_bytes(target[8..16].try_into().unwrap()), 24);
        let text = std::str::from_utf8(&target[40..]).unwrap().trim_end_matches('\0');
        let hash = "ab".repeat(32);
        assert_eq!(
            text,
            format!("1 /dev/vda2 /dev/vda2 4096 4096 3 3 sha256 {hash} - 1 panic_on_corruption")
        );
    }
}
