//! Field upgrade: a version that cannot run falls back by itself, the same one mended is kept, and the data stays.

use crate::disk::Disk;
use crate::firmware::secure_boot;
use crate::machine::{Machine, nfs_answers};
use crate::work::{Image, Scratch, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 20_993;
const ONE_BOOT: Duration = Duration::from_secs(240);
/// Three panics, each followed by ten seconds and a boot, and then the old version.
const FALL_BACK: Duration = Duration::from_secs(600);

/// The command line tool as the image has it; the host's C library runs it as well.
fn basalt(image: &Image) -> Command {
    Command::new(image.dir.join("programs/basalt"))
}

fn machine(image: &Image, scratch: &Scratch, disk: &Disk, drives: &[PathBuf]) -> Result<Machine, String> {
    let machine = secure_boot(Machine::new(1024, None), image, scratch)?.boot_disk(&disk.path);
    Ok(drives.iter().fold(machine, |m, d| m.virtio(d)).user_network(PORT))
}

fn install(image: &Image, disk: &Path, bundle: &Path) -> Result<String, String> {
    let keys = image.dir.join("test-keys/public");
    let mut command = basalt(image);
    command.args(["upgrade", "install"]).arg(bundle).arg("--disk").arg(disk).arg("--keys").arg(keys);
    run(&mut command)
}

pub(crate) fn broken_then_good(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let next = Image::open(&image.dir.join("next"))?;
    let keys = image.dir.join("test-keys/public");
    std::fs::create_dir_all(&keys).map_err(|e| e.to_string())?;
    std::fs::copy(image.key("manifest.pub"), keys.join("manifest.pem")).map_err(|e| e.to_string())?;
    let bundle = scratch.dir.join("bundle");
    let mut make = basalt(image);
    make.args(["upgrade", "bundle", "--image"])
        .arg(next.dir.join("out"))
        .arg("--sign")
        .arg(image.key("manifest.key"));
    run(make.arg("--out").arg(&bundle))?;

    let disk = Disk::copy(image, scratch)?;
    let drives = [scratch.drive("d0")?, scratch.drive("d1")?, scratch.drive("d2")?];
    let (old, new) = (format!("Basalt {},", image.version), format!("Basalt {},", next.version));
    let blessed = |version: &str| format!("blessed as basalt_{version}.efi");

    let mut node = machine(image, scratch, &disk, &drives)?.one_boot().start(scratch)?;
    node.expect(&[&blessed(&image.version)], &["refused:"], ONE_BOOT)
        .map_err(|e| format!("first boot: {e}"))?;
    drop(node);

    install(image, &disk.path, &bundle)?;
    // Early enough that every mount reads it, so the new version panics before anything of it runs.
    disk.damage_root_b(40)?;
    let mut node = machine(image, scratch, &disk, &drives)?.start(scratch)?;
    node.expect(&[&old], &[&new], FALL_BACK).map_err(|e| format!("broken version: {e}"))?;
    let panics = node.console().matches("dm-verity device corrupted").count();
    if panics < 3 {
        return Err(format!("the old version came back after {panics} panics of the new one, wanted 3"));
    }
    node.ready_s(ONE_BOOT).map_err(|e| format!("after falling back: {e}"))?;
    nfs_answers(&format!("127.0.0.1:{PORT}"))?;
    drop(node);

    install(image, &disk.path, &bundle).map_err(|e| format!("mending: {e}"))?;
    let mut node = machine(image, scratch, &disk, &drives)?.one_boot().start(scratch)?;
    node.expect(&[&new], &["Kernel panic"], ONE_BOOT).map_err(|e| format!("mended version: {e}"))?;
    let seconds = node.ready_s(ONE_BOOT)?;
    node.expect(&["export=/data"], &[], Duration::from_secs(1))?;
    nfs_answers(&format!("127.0.0.1:{PORT}"))?;
    node.expect(&[&blessed(&next.version)], &["could not be blessed"], ONE_BOOT)?;
    drop(node);
    let names = disk.slot_names(image)?;
    if ![&image.version, &next.version].iter().all(|v| names.contains(&format!("basalt_{v}.efi"))) {
        return Err(format!("the ESP holds {names:?}, wanted both versions blessed"));
    }
    Ok(format!(
        "{panics} panics, back by itself; mended: ready after {seconds:.1} guest seconds, blessed, pool there"
    ))
}
