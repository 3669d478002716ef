//! The whole story of a node: from the network, to its disk, to the next version, and back from one that is broken; its data
//! verified at every station by a real Linux client.

use crate::client::{Work, through_kernel};
use crate::cuts::{Replay, Seen};
use crate::disk::Disk;
use crate::firmware::{plain, secure_boot};
use crate::install::{WRITTEN, blank_disk, serve};
use crate::lan::BootService;
use crate::machine::{Machine, Running};
use crate::upgrade::{MAC, blessed, both_blessed};
use crate::work::{Image, Scratch};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ONE_BOOT: Duration = Duration::from_secs(400);
/// Three tries of 30 s each, with a boot and the draining of each, and the old version's boot.
const FALL_BACK: Duration = Duration::from_secs(900);
const MEMORY_MIB: u32 = 1280;

struct Node<'a> {
    image: &'a Image,
    scratch: &'a Scratch,
    service: &'a BootService,
    drives: Vec<PathBuf>,
}

impl Node<'_> {
    /// Its NVMe drives behind an IOMMU.
    fn machine(&self) -> Result<Machine, String> {
        Ok(self.drives.iter().fold(self.bare()?, |m, d| m.nvme(d)))
    }

    /// The same beside a disk to install on, whose serial number is `s0`; the network is tried first.
    fn installer(&self, disk: &Path) -> Result<Machine, String> {
        let machine = self.bare()?.boot_tap(MAC).boot_disk_after_network(disk);
        Ok(self.drives.iter().fold(machine, |m, d| m.nvme(d)))
    }

    fn bare(&self) -> Result<Machine, String> {
        let machine = Machine::new(MEMORY_MIB, Some(&self.service.lan.netns)).iommu();
        secure_boot(machine, self.image, self.scratch)
    }

    /// With a disk whose writes are recorded in `log`.
    fn boot_disk(&self, disk: &Disk, log: &Path) -> Result<Running, String> {
        std::fs::File::create(log).map_err(|e| e.to_string())?;
        self.machine()?.tap(MAC).recorded_boot_disk(&disk.path, log).start(self.scratch)
    }

    fn client(&self, machine: &Running, work: &[(Work, &str)]) -> Result<(), String> {
        through_kernel(&self.service.lan, &machine.address()?, self.scratch, work)
    }
}

fn say(text: &str) {
    println!("        {text}");
}

pub(crate) fn whole_story(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let (next, broken) = (Image::open(&image.dir.join("next"))?, Image::open(&image.dir.join("broken"))?);
    let served = serve(scratch, image, &[image, &next, &broken])?;
    let service = BootService::start(image, scratch, &served)?;
    let drives = (0..3).map(|n| scratch.drive(&format!("d{n}"))).collect::<Result<Vec<_>, _>>()?;
    let node = Node { image, scratch, service: &service, drives };
    let wrong = ["Kernel panic", "cannot go on", "refused:", "stays with the kernel", "did not stop within"];

    service.decide(MAC, "diskless", &image.version)?;
    let mut machine = node.machine()?.boot_tap(MAC).one_boot().start(scratch)?;
    let seconds = machine.ready_s(ONE_BOOT)?;
    machine.expect(&["drives: nvme:"], &wrong, Duration::from_secs(1))?;
    machine.expect(&["boot service http://10.99.0.1:8069/: diskless"], &wrong, Duration::from_secs(20))?;
    node.client(&machine, &[(Work::Write, "first"), (Work::Verify, "first")])?;
    // As by a power cut: what the client was told is durable has to be.
    drop(machine);
    service.went_through(MAC, &["asked", "leased", "fetched", "plan", "ready"])?;
    say(&format!(
        "from the network: ready after {seconds:.1} guest seconds, drives by VFIO, data written; power cut"
    ));

    // The pool's drives are there and not blank; the disk is.
    service.decide_install(MAC, &image.version, "s0", false)?;
    let path = blank_disk(scratch)?;
    let mut machine = node.installer(&path)?.one_boot().start(scratch)?;
    machine.expect(&[WRITTEN], &wrong, ONE_BOOT)?;
    machine.ended(Duration::from_secs(60))?;
    drop(machine);
    service.went_through(MAC, &["plan", "installing", "fetched", "installed", "decided"])?;
    say("from the network again: wrote its disk, told the boot service, rebooted");

    service.decide(MAC, "local", &next.version)?;
    let disk = Disk::open(image, path)?;
    let before = disk.duplicate(scratch.dir.join("before"))?;
    let log = scratch.dir.join("writes");
    let mut machine = node.boot_disk(&disk, &log)?;
    machine.expect(&[&blessed(image)], &wrong, ONE_BOOT)?;
    machine.expect(&["is written: rebooting to try it"], &wrong, ONE_BOOT)?;
    machine.expect(&[&blessed(&next)], &wrong, ONE_BOOT)?;
    node.client(&machine, &[(Work::Verify, "first"), (Work::Write, "second")])?;
    drop(machine);
    both_blessed(&disk, image, &next)?;
    service.went_through(MAC, &["installing", "installed", "plan", "ready"])?;
    say("from its disk: upgraded itself, data intact; power cut");
    let seen = Replay::new(before, &[image, &next])?.walk(&log)?;
    check_prefixes(&seen, image, &next)?;
    say(&format!(
        "{} prefixes of what was written to the disk, all bootable: {:?}",
        seen.prefixes, seen.boots
    ));
    boot_samples(&seen, image, scratch)?;

    service.decide(MAC, "local", &broken.version)?;
    let mut machine = node.boot_disk(&disk, &log)?;
    machine.expect(&["is written: rebooting to try it"], &wrong, ONE_BOOT)?;
    let (trying, given_up) =
        (format!("Basalt {},", broken.version), "is on trial and was not healthy within");
    machine.expect_times(given_up, 3, &wrong, FALL_BACK)?;
    let tries = machine.console().matches(&trying).count();
    let refused = format!("version {} was found bad on this node", broken.version);
    machine.expect(&[&refused], &wrong, ONE_BOOT)?;
    node.client(&machine, &[(Work::Verify, "first"), (Work::Verify, "second")])?;
    drop(machine);
    service.went_through(MAC, &["installed", "failed", "plan", "ready", "failed"])?;
    Ok(format!(
        "network, disk, upgrade and way back after {tries} tries of a broken version; data verified at each; {} prefixes",
        seen.prefixes
    ))
}

fn check_prefixes(seen: &Seen, image: &Image, next: &Image) -> Result<(), String> {
    let many = |version: &Image| seen.boots.get(&version.version).copied().unwrap_or(0);
    if many(image) < 50 || many(next) == 0 || seen.boots.len() != 2 || seen.samples.len() != 3 {
        return Err(format!("the record shows no upgrade: {:?}, {} samples", seen.boots, seen.samples.len()));
    }
    Ok(())
}

/// Three of the prefixes, booted.
fn boot_samples(seen: &Seen, image: &Image, scratch: &Scratch) -> Result<(), String> {
    for (what, version, disk) in &seen.samples {
        let machine = plain(Machine::new(1024, None), image, scratch)?.boot_disk(&disk.path);
        let mut machine =
            machine.one_boot().virtio(&scratch.drive("other")?).user_network(20_994).start(scratch)?;
        machine.expect(&[&format!("Basalt {version},")], &["Kernel panic", "refused:"], ONE_BOOT)?;
        machine.ready_s(ONE_BOOT).map_err(|e| format!("cut {what}: {e}"))?;
        say(&format!("cut {what}: boots {version}"));
    }
    Ok(())
}
