//! Makes a disk that boots a bundle: what `basalt upgrade disk` and the installer of the image do.
//!
//! The order, and what a power cut leaves at each point:
//!
//! | step | a power cut in it leaves |
//! |---|---|
//! | 1. where it may be wiped: clear the last MiB, then the first | a disk that has to be wiped, or a blank one |
//! | 2. ESP, kernel image and boot loader, root A; each read back | a blank disk: there is no partition table |
//! | 3. the first MiB of root B and state cleared | a blank disk |
//! | 4. both copies of the table but for one sector | a blank disk: [`Contents::Interrupted`] counts as one |
//! | 5. the protective MBR: one sector | a disk that boots |
//!
//! So there is nothing to go on with: the next try begins anew, and finds most of the root there already.

use crate::bundle::{Checked, Source};
use crate::error::{Result, UpgradeError};
use crate::fat::{Fat, format, zero};
use crate::gpt::{self, Sizes, Table};
use crate::install::{Stage, write_kernel, write_root};
use crate::manifest::{Kind, Version};
use crate::media::{Media, Slice};
use crate::node::{ESP, ROOTS, STATE};
use crate::slots::{Name, TRIES};
use serde::Serialize;
use std::sync::Arc;

/// What stands in the first and in the last of these decides whether a disk is blank: every file system, volume manager, RAID and
/// partition table has its mark there.
const MIB: u64 = 1 << 20;
/// As `image/steps/70-disk.sh` writes it. No editor: the command line is part of what is signed.
const LOADER_CONF: &[u8] = b"timeout 0\neditor no\nauto-firmware no\nconsole-mode keep\n";
const LABEL: &[u8; 11] = b"BASALT-ESP ";

/// What there is beside the bundle.
pub struct Recipe<'a> {
    /// systemd-boot, signed for the firmware's Secure Boot.
    pub boot_loader: &'a [u8],
    /// The disk's contents may go.
    pub wipe: bool,
    /// Of the disk: 512 or 4096.
    pub sector_bytes: u64,
    pub sizes: Sizes,
    /// Random; identifiers of disk and partitions come from it.
    pub seed: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    pub version: Version,
    pub file: String,
    pub state_bytes: u64,
    /// What was there before and is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wiped: Option<String>,
}

/// What is on a disk, as far as its first and last MiB tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    Blank,
    /// A table of ours without the sector that makes it count.
    Interrupted,
    Holds(String),
}

/// Lays `disk` out and writes the bundle to its first slot. `progress` hears the stage, bytes done and bytes in all.
pub fn make_disk<S: Source>(
    bundle: &Checked<S>,
    disk: &Arc<dyn Media>,
    recipe: &Recipe<'_>,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Made> {
    let table = Table::new(disk.len_bytes(), recipe.sector_bytes, &recipe.sizes, &recipe.seed)?;
    check(bundle, recipe)?;
    let found = contents(&**disk, recipe.sector_bytes)?;
    let wiped = match &found {
        Contents::Blank => None,
        Contents::Interrupted => Some("the beginnings of an installation".to_owned()),
        Contents::Holds(what) if recipe.wipe => Some(what.clone()),
        Contents::Holds(what) => return Err(UpgradeError::NotBlank(what.clone())),
    };
    let io = || UpgradeError::io("writing the disk");
    if wiped.is_some() {
        for at in [disk.len_bytes() - MIB, 0] {
            zero(&**disk, at, MIB)?;
            disk.flush().map_err(io())?;
        }
    }
    let slice = |name: &str| {
        let (start, len) = table.place(name).unwrap_or_default();
        Slice::new(disk.clone(), start, len).map_err(io())
    };
    let file = write_esp(bundle, &slice(ESP)?, recipe, progress)?;
    write_root(bundle, &slice(ROOTS[0])?, progress)?;
    let state = slice(STATE)?;
    // Init makes the file system where it finds nothing but zeroes.
    for blank in [&slice(ROOTS[1])?, &state] {
        zero(blank, 0, MIB)?;
    }
    disk.flush().map_err(io())?;
    table.write_new(&**disk).map_err(io())?;
    disk.drop_caches().map_err(io())?;
    let all = gpt::partitions(&**disk)?;
    if all.len() != 4 || all.iter().any(|p| table.place(&p.name) != Some((p.start_bytes, p.len_bytes))) {
        return Err(UpgradeError::ReadBack { what: "the partition table".into(), at: 0 });
    }
    let version = bundle.manifest().version;
    Ok(Made { version, file, state_bytes: state.len_bytes(), wiped })
}

/// Before anything is written.
fn check<S: Source>(bundle: &Checked<S>, recipe: &Recipe<'_>) -> Result<()> {
    if !recipe.boot_loader.starts_with(b"MZ") {
        return Err(UpgradeError::Layout(
            "the boot loader is no program for UEFI; name systemd-boot's".into(),
        ));
    }
    let (root, uki) = (bundle.part(Kind::Root)?.size_bytes, bundle.part(Kind::Uki)?.size_bytes);
    if root > recipe.sizes.root_bytes {
        return Err(UpgradeError::Layout(format!(
            "the root has {root} bytes and a root partition {}; a newer version of this command lays out larger ones",
            recipe.sizes.root_bytes
        )));
    }
    let need = uki + 2 * recipe.boot_loader.len() as u64 + MIB;
    if need > recipe.sizes.esp_bytes {
        return Err(UpgradeError::EspFull { need, free: recipe.sizes.esp_bytes });
    }
    Ok(())
}

/// The same files as in the disk image, in the same places.
fn write_esp<S: Source>(
    bundle: &Checked<S>,
    esp: &Slice,
    recipe: &Recipe<'_>,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<String> {
    let [a, b, c, d, ..] = recipe.seed;
    format(esp, recipe.sector_bytes, LABEL, u32::from_le_bytes([a, b, c, d]))?;
    let mut fat = Fat::open(esp)?;
    let root = fat.directory("")?;
    let efi = fat.make_directory(root, "EFI")?;
    let put = |fat: &mut Fat<'_>, directory: u32, name: &str, bytes: &[u8]| {
        fat.create(directory, name, bytes.len() as u32, &mut |at, out| {
            out.copy_from_slice(&bytes[at as usize..][..out.len()]);
            Ok(())
        })
    };
    for (directory, name) in [("BOOT", "BOOTX64.EFI"), ("systemd", "systemd-bootx64.efi")] {
        let directory = fat.make_directory(efi, directory)?;
        put(&mut fat, directory, name, recipe.boot_loader)?;
    }
    let loader = fat.make_directory(root, "loader")?;
    put(&mut fat, loader, "loader.conf", LOADER_CONF)?;
    let linux = fat.make_directory(efi, "Linux")?;
    let name = Name { version: bundle.manifest().version, counter: Some((TRIES, 0)) };
    write_kernel(bundle, &mut fat, linux, &name, progress)?;
    Ok(name.to_string())
}

/// Reads the first and the last MiB.
pub fn contents(disk: &dyn Media, sector_bytes: u64) -> Result<Contents> {
    let len = disk.len_bytes();
    let read = |at: u64, bytes: u64| {
        let mut buf = vec![0; bytes as usize];
        disk.read_at(at, &mut buf).map(|()| buf).map_err(UpgradeError::io("reading the disk"))
    };
    let (first, last) = (read(0, MIB.min(len))?, read(len.saturating_sub(MIB), MIB.min(len))?);
    if first.iter().chain(&last).all(|b| *b == 0) {
        return Ok(Contents::Blank);
    }
    if gpt::is_begun(&first, &last, sector_bytes as usize) {
        return Ok(Contents::Interrupted);
    }
    Ok(Contents::Holds(describe(disk, &first)))
}

/// For people: whose disk this is.
fn describe(disk: &dyn Media, first: &[u8]) -> String {
    if let Ok(all) = gpt::partitions(disk)
        && !all.is_empty()
    {
        let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).take(8).collect();
        let basalt = [ESP, ROOTS[0], ROOTS[1]].iter().all(|n| names.contains(n));
        let what = if basalt { "Basalt already" } else { "a partition table" };
        return format!("{what} (partitions {})", names.join(", "));
    }
    let marks: [(usize, &[u8], &str); 10] = [
        (0, b"BASALTLB", "a drive of a Basalt pool"),
        (0x438, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
        (0, b"XFSB", "an XFS file system"),
        (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
        (512, b"LABELONE", "an LVM physical volume"),
        (0, b"LUKS", "an encrypted volume (LUKS)"),
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a Linux RAID"),
        (3, b"NTFS", "an NTFS file system"),
        (0x8001, b"CD001", "an ISO image"),
        (510, &[0x55, 0xaa], "a boot sector or an MBR"),
    ];
    let found = marks.iter().find(|(at, mark, _)| first.get(*at..at + mark.len()) == Some(*mark));
    found
        .map_or_else(|| "data of a kind that is not known here".to_owned(), |(_, _, what)| (*what).to_owned())
}
