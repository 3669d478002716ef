//! From bare metal to a node that runs from its own disk, by one decision.

use crate::disk::Disk;
use crate::firmware::secure_boot;
use crate::lan::BootService;
use crate::machine::{Machine, nfs_replies};
use crate::upgrade::{MAC, blessed, make_bundle};
use crate::work::{Image, Scratch, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ONE_BOOT: Duration = Duration::from_secs(400);
/// The firmware waits a minute for an offer that does not come before it goes on to the disk.
const NETWORK_THEN_DISK: Duration = Duration::from_secs(600);
const DISK_BYTES: u64 = 3 << 30;
pub(crate) const WRITTEN: &str = "telling the boot service, then starting from it";

/// A directory with what a network boot and an installation of `versions` need.
pub(crate) fn serve(scratch: &Scratch, image: &Image, versions: &[&Image]) -> Result<PathBuf, String> {
    let served = scratch.dir.join("served");
    std::fs::create_dir_all(&served).map_err(|e| e.to_string())?;
    for version in versions {
        let file = version.output("-netboot.efi");
        std::os::unix::fs::symlink(&file, served.join(file.file_name().ok_or("no name")?))
            .map_err(|e| e.to_string())?;
        make_bundle(image, version, &served.join(format!("basalt_{}.bundle", version.version)))?;
    }
    Ok(served)
}

/// A disk that is large enough, with nothing on it.
pub(crate) fn blank_disk(scratch: &Scratch) -> Result<PathBuf, String> {
    let path = scratch.dir.join("disk");
    let made = std::fs::File::create(&path).and_then(|f| f.set_len(DISK_BYTES));
    made.map(|()| path.clone()).map_err(|e| format!("{}: {e}", path.display()))
}

fn same(a: &Path, b: &Path) -> Result<(), String> {
    run(Command::new("cmp").args([a, b])).map(|_| ()).map_err(|e| format!("the disk was changed: {e}"))
}

/// The disk that the node was decided to install on holds a file system of somebody: refused, nothing changed. Decided again with
/// `--wipe`, which the node hears by itself, it installs, reboots, goes by the network (now `local`) to its disk, is blessed, and
/// makes its pool of the other drives.
pub(crate) fn from_bare_metal(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let served = serve(scratch, image, &[image])?;
    let service = BootService::start(image, scratch, &served)?;
    let path = blank_disk(scratch)?;
    run(image.builder_program("usr/sbin/mke2fs").args(["-q", "-t", "ext4", "-F"]).arg(&path))?;
    let before = scratch.dir.join("before");
    run(Command::new("cp").arg("--sparse=always").args([&path, &before]))?;
    let drives = (0..3).map(|n| scratch.drive(&format!("d{n}"))).collect::<Result<Vec<_>, _>>()?;

    service.decide_install(MAC, &image.version, "s0", false)?;
    let machine = Machine::new(1024, Some(&service.lan.netns)).iommu();
    let machine = secure_boot(machine, image, scratch)?.boot_tap(MAC).boot_disk_after_network(&path);
    let mut node = drives.iter().fold(machine, |m, d| m.nvme(d)).start(scratch)?;
    let never = ["Kernel panic", "refused:", "cannot go on"];
    node.expect(&["holds an ext2, ext3 or ext4 file system; nothing was written"], &never, ONE_BOOT)?;
    same(&path, &before)?;
    let console = node.console();
    if console.contains("drives: ") || console.contains("ready line printed") {
        return Err("a node that could not install went on".to_owned());
    }
    let began = Instant::now();
    service.decide_install(MAC, &image.version, "s0", true)?;
    node.expect(&[WRITTEN], &never, ONE_BOOT)?;
    let installed_s = began.elapsed().as_secs();
    node.expect(&[&blessed(image)], &never, NETWORK_THEN_DISK)?;
    node.expect(&["root from /dev/nvme"], &never, Duration::from_secs(1))?;
    let console = node.console();
    let pool = console.lines().find(|l| l.contains("drives: ")).ok_or("no drives")?;
    if pool.matches("nvme:").count() != 3 || console.matches("boots version").count() > 1 {
        return Err(format!("the pool should be made of the three other drives: {pool}"));
    }
    nfs_replies(service.lan.connect(&node.address()?, 20490)?)?;
    drop(node);
    service.went_through(
        MAC,
        &[
            "asked",
            "leased",
            "fetched",
            "plan",
            "failed",
            "decided",
            "plan",
            "installing",
            "fetched",
            "installed",
            "decided",
            "asked",
            "plan",
            "ready",
        ],
    )?;
    let names = Disk::open(image, path)?.slot_names(image)?;
    if names.trim() != format!("::/EFI/Linux/basalt_{}.efi", image.version) {
        return Err(format!("the ESP holds {names:?}"));
    }
    Ok(format!(
        "a disk with data refused and unchanged; decided with --wipe: on its disk after {installed_s} s, blessed, pool of the other three, NFS answers; 1 GiB"
    ))
}
