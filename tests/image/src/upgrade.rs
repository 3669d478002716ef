//! Field upgrade: a version that cannot run falls back by itself, the same one mended is kept, and the data stays.

use crate::disk::Disk;
use crate::firmware::{plain, secure_boot};
use crate::lan::BootService;
use crate::machine::{Machine, nfs_answers, nfs_replies};
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

pub(crate) fn install(image: &Image, disk: &Path, bundle: &Path) -> Result<String, String> {
    let keys = image.dir.join("test-keys/public");
    let mut command = basalt(image);
    command.args(["upgrade", "install"]).arg(bundle).arg("--disk").arg(disk).arg("--keys").arg(keys);
    run(&mut command)
}

/// The next version as one signed file; what the old one carries as key is put beside the test keys.
pub(crate) fn make_bundle(image: &Image, next: &Image, to: &Path) -> Result<(), String> {
    let keys = image.dir.join("test-keys/public");
    std::fs::create_dir_all(&keys).map_err(|e| e.to_string())?;
    std::fs::copy(image.key("manifest.pub"), keys.join("manifest.pem")).map_err(|e| e.to_string())?;
    let mut make = basalt(image);
    make.args(["upgrade", "bundle", "--image"])
        .arg(next.dir.join("out"))
        .arg("--sign")
        .arg(image.key("manifest.key"));
    run(make.arg("--out").arg(to)).map(|_| ())
}

pub(crate) const MAC: &str = "52:54:00:ba:5a:17";

/// `make test`'s: the disk boots, is blessed, learns from the boot service that the next version was decided for it,
/// fetches and installs it by itself, reboots, and is blessed again with its pool there.
pub(crate) fn boot_and_upgrade(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let next = Image::open(&image.dir.join("next"))?;
    let served = scratch.dir.join("served");
    std::fs::create_dir_all(&served).map_err(|e| e.to_string())?;
    for (version, suffix) in [(image, "-netboot.efi"), (&next, "-netboot.efi")] {
        let file = version.output(suffix);
        std::os::unix::fs::symlink(&file, served.join(file.file_name().ok_or("no name")?))
            .map_err(|e| e.to_string())?;
    }
    make_bundle(image, &next, &served.join(format!("basalt_{}.bundle", next.version)))?;
    let service = BootService::start(image, scratch, &served)?;
    service.decide(MAC, "install", &next.version)?;

    let disk = Disk::copy(image, scratch)?;
    let drives = [scratch.drive("d0")?, scratch.drive("d1")?, scratch.drive("d2")?];
    let machine = plain(Machine::new(1024, Some(&service.lan.netns)), image, scratch)?.boot_disk(&disk.path);
    let mut node = drives.iter().fold(machine, |m, d| m.virtio(d)).tap(MAC).start(scratch)?;
    let first = node.ready_s(ONE_BOOT)?;
    let wrong = [
        "Kernel panic",
        "could not be blessed",
        "upgrade to the",
        "cannot go on",
        "refused:",
        "did not stop within",
    ];
    node.expect(&[&blessed(image)], &wrong, ONE_BOOT)?;
    node.expect(&["is written: rebooting to try it"], &wrong, ONE_BOOT)?;
    node.expect(&[&format!("Basalt {},", next.version)], &wrong, ONE_BOOT)?;
    node.expect_times("ready line printed", 2, &wrong, ONE_BOOT)?;
    let second = node.ready_s(ONE_BOOT)?;
    nfs_replies(service.lan.connect(&node.address()?, 20490)?)?;
    node.expect(&[&blessed(&next)], &wrong, ONE_BOOT)?;
    drop(node);
    service.went_through(
        MAC,
        &["leased", "plan", "ready", "installing", "fetched", "installed", "plan", "ready"],
    )?;
    both_blessed(&disk, image, &next)?;
    Ok(format!(
        "ready after {first:.1} guest seconds; upgraded itself, ready after {second:.1}, both slots blessed"
    ))
}

pub(crate) fn blessed(image: &Image) -> String {
    format!("blessed as basalt_{}.efi", image.version)
}

pub(crate) fn both_blessed(disk: &Disk, image: &Image, next: &Image) -> Result<(), String> {
    let names = disk.slot_names(image)?;
    if ![image, next].iter().all(|i| names.contains(&format!("basalt_{}.efi", i.version))) {
        return Err(format!("the ESP holds {names:?}, wanted both versions blessed"));
    }
    Ok(())
}

pub(crate) fn broken_then_good(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let next = Image::open(&image.dir.join("next"))?;
    let bundle = scratch.dir.join("bundle");
    make_bundle(image, &next, &bundle)?;

    let disk = Disk::copy(image, scratch)?;
    let drives = [scratch.drive("d0")?, scratch.drive("d1")?, scratch.drive("d2")?];
    let (old, new) = (format!("Basalt {},", image.version), format!("Basalt {},", next.version));

    let mut node = machine(image, scratch, &disk, &drives)?.one_boot().start(scratch)?;
    node.expect(&[&blessed(image)], &["refused:"], ONE_BOOT).map_err(|e| format!("first boot: {e}"))?;
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
    // The console still shows the panics of the new version.
    node.expect(&["ready line printed"], &["refused:"], ONE_BOOT)
        .map_err(|e| format!("after falling back: {e}"))?;
    nfs_answers(&format!("127.0.0.1:{PORT}"))?;
    drop(node);

    install(image, &disk.path, &bundle).map_err(|e| format!("mending: {e}"))?;
    let mut node = machine(image, scratch, &disk, &drives)?.one_boot().start(scratch)?;
    node.expect(&[&new], &["Kernel panic"], ONE_BOOT).map_err(|e| format!("mended version: {e}"))?;
    let seconds = node.ready_s(ONE_BOOT)?;
    node.expect(&["export=/data"], &[], Duration::from_secs(1))?;
    nfs_answers(&format!("127.0.0.1:{PORT}"))?;
    node.expect(&[&blessed(&next)], &["could not be blessed"], ONE_BOOT)?;
    drop(node);
    both_blessed(&disk, image, &next)?;
    Ok(format!(
        "{panics} panics, back by itself; mended: ready after {seconds:.1} guest seconds, blessed, pool there"
    ))
}
