//! The tests.

use crate::disk::{Disk, flip};
use crate::firmware::secure_boot;
use crate::lan::{Lan, Offer};
use crate::machine::{Machine, nfs_answers};
use crate::work::{Image, Scratch, run};
use crate::{install, story, tpm, upgrade};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

type Case = fn(&Image, &Scratch) -> Result<String, String>;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("short/boot and upgrade", upgrade::boot_and_upgrade),
    ("size", size),
    ("story", story::whole_story),
    ("network/install", install::from_bare_metal),
    ("boot/kernel", boot_kernel),
    ("boot/disk with Secure Boot", boot_disk),
    ("upgrade/broken, then good", upgrade::broken_then_good),
    ("tpm/node secret", tpm::node_secret),
    ("refused/unsigned", refused_unsigned),
    ("refused/tampered UKI", refused_tampered_uki),
    ("refused/tampered hash tree", refused_tampered_tree),
    ("refused/tampered root data", refused_tampered_data),
    ("refused/expired", refused_expired),
    ("network/UEFI PXE", network_pxe),
    ("network/UEFI HTTP", network_http),
    ("network/BIOS iPXE", network_ipxe),
    ("refused/fetched root", refused_fetched_root),
];

/// A whole boot under emulation on a busy machine; wanted is a tenth of it.
const LIMIT: Duration = Duration::from_secs(240);
const WANTED_READY_S: f64 = 15.0;
const MOST_BYTES: u64 = 80_000_000;
const GIB: u32 = 1024;
const GROWTH_BYTES: u64 = 512 << 20;

fn size(image: &Image, _: &Scratch) -> Result<String, String> {
    let bytes = |suffix: &str| {
        let path = image.output(suffix);
        fs::metadata(&path).map(|m| m.len()).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (whole, slot) = (bytes("-netboot.efi")?, bytes(".efi")? + bytes(".root")?);
    if whole > MOST_BYTES {
        return Err(format!("the whole-OS UKI has {whole} bytes, at most {MOST_BYTES} are wanted"));
    }
    Ok(format!("whole-OS UKI {:.1} MB, slot {:.1} MB", whole as f64 / 1e6, slot as f64 / 1e6))
}

/// An archive of one file for the kernel's initramfs, as iPXE makes it on the fly.
fn cpio_of(file: &Path, name: &str) -> Result<Vec<u8>, String> {
    let contents = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut out = Vec::new();
    for (name, mode, contents) in [(name, 0o100_644, contents.as_slice()), ("TRAILER!!!", 0, &[])] {
        let fields = [1, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        out.extend(b"070701");
        out.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(contents);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(out)
}

/// `-kernel` with the root in memory: `edit` changes the command line.
fn kernel_machine(image: &Image, scratch: &Scratch, root: &Path, cmdline: &str) -> Result<Machine, String> {
    let mut initrd = fs::read(image.output(".initrd")).map_err(|e| e.to_string())?;
    initrd.extend(cpio_of(root, "root.img")?);
    let path = scratch.dir.join("initrd");
    fs::write(&path, initrd).map_err(|e| e.to_string())?;
    let machine = Machine::new(GIB, None).one_boot().args(["-machine", "q35"]);
    Ok(machine.args([
        "-kernel".as_ref(),
        image.output(".vmlinuz").as_os_str(),
        "-initrd".as_ref(),
        path.as_os_str(),
        "-append".as_ref(),
        cmdline.as_ref(),
    ]))
}

fn boot_kernel(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let port = 20_991;
    let mut machine = kernel_machine(image, scratch, &image.output(".root"), &image.cmdline)?
        .nvme(&scratch.drive("d0")?)
        .virtio(&scratch.drive("d1")?)
        .virtio(&scratch.drive("d2")?)
        .user_network(port)
        .start(scratch)?;
    let seconds = machine.ready_s(LIMIT)?;
    machine.expect(&["export=/data"], &[], Duration::from_secs(1))?;
    nfs_answers(&format!("127.0.0.1:{port}"))?;
    if seconds > WANTED_READY_S {
        return Err(format!("ready {seconds:.1} guest seconds after kernel start, wanted {WANTED_READY_S}"));
    }
    Ok(format!("ready {seconds:.1} guest seconds after kernel start; NFS answers; 1 GiB"))
}

fn boot_disk(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let disk = Disk::copy(image, scratch)?;
    let (port, drives) = (20_992, [scratch.drive("d0")?, scratch.drive("d1")?, scratch.drive("d2")?]);
    let mut times = Vec::new();
    let mut states = Vec::new();
    for boot in ["first", "second"] {
        // As if it had been written to a larger disk, and then to a larger one again.
        disk.enlarge(GROWTH_BYTES)?;
        let machine = secure_boot(Machine::new(GIB, None).one_boot(), image, scratch)?.boot_disk(&disk.path);
        let machine = drives.iter().fold(machine, |m, d| m.virtio(d)).user_network(port);
        let mut machine = machine.start(scratch)?;
        times.push(machine.ready_s(LIMIT).map_err(|e| format!("{boot} boot: {e}"))?);
        nfs_answers(&format!("127.0.0.1:{port}"))?;
        machine.expect(&["lockdown integrity"], &[], Duration::from_secs(1))?;
        if boot == "first" {
            machine.expect(&["is healthy: blessed"], &["could not be blessed"], LIMIT)?;
        } else {
            machine.expect(&["state on "], &["making a file system"], Duration::from_secs(1))?;
            machine.expect(&[" grew to "], &["resize2fs"], LIMIT)?;
        }
        machine.expect(&["now to the end of the disk"], &["stays as large"], Duration::from_secs(1))?;
        let console = machine.console();
        let grown = console.lines().rev().find(|l| l.contains("basalt: [") && l.trim_end().ends_with(" MiB"));
        let mib = grown.and_then(|l| l.trim_end().rsplit(' ').nth(1)?.parse::<u64>().ok());
        states.push(mib.ok_or("the size of state is not on the console")?);
    }
    // 512 MiB in the image, with the last MiB for the table.
    let wanted = [512 + (GROWTH_BYTES >> 20), 512 + 2 * (GROWTH_BYTES >> 20)];
    if states != wanted {
        return Err(format!("state has {states:?} MiB, wanted {wanted:?}"));
    }
    let names = disk.slot_names(image)?;
    let wanted = format!("::/EFI/Linux/basalt_{}.efi", image.version);
    if names.trim() != wanted {
        return Err(format!("the ESP holds {names:?}, wanted {wanted}"));
    }
    Ok(format!(
        "ready after {:.1} and {:.1} guest seconds; blessed; pool there again; state grew with its disk",
        times[0], times[1]
    ))
}

/// Boots the disk under Secure Boot and wants `cause` on the console, and never a ready node.
fn refused_disk(image: &Image, scratch: &Scratch, disk: &Disk, causes: &[&str]) -> Result<String, String> {
    let machine = secure_boot(Machine::new(GIB, None).one_boot(), image, scratch)?.boot_disk(&disk.path);
    let mut machine = machine.start(scratch)?;
    let found = machine.expect(causes, &["ready pid="], LIMIT)?;
    let console = machine.console();
    let line = console.lines().rev().find(|l| l.contains(found)).unwrap_or_default();
    Ok(format!("console: {}", line.trim()))
}

fn refused_unsigned(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let disk = Disk::copy(image, scratch)?;
    let file = scratch.dir.join("unsigned.efi");
    fs::copy(image.output(".efi"), &file).map_err(|e| e.to_string())?;
    run(image.builder_program("usr/bin/sbattach").arg("--remove").arg(&file))?;
    disk.replace_uki(image, &file)?;
    refused_disk(
        image,
        scratch,
        &disk,
        &["Access denied", "Access Denied", "Security Violation", "Security violation"],
    )
}

fn refused_tampered_uki(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let disk = Disk::copy(image, scratch)?;
    let file = scratch.dir.join("tampered.efi");
    fs::copy(image.output(".efi"), &file).map_err(|e| e.to_string())?;
    let length = fs::metadata(&file).map_err(|e| e.to_string())?.len();
    flip(&file, length / 2)?;
    disk.replace_uki(image, &file)?;
    refused_disk(
        image,
        scratch,
        &disk,
        &["Access denied", "Access Denied", "Security Violation", "Security violation"],
    )
}

fn refused_tampered_tree(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let disk = Disk::copy(image, scratch)?;
    let blocks: u64 = image
        .cmdline
        .split("basalt.root=")
        .nth(1)
        .and_then(|t| t.split(':').nth(1))
        .and_then(|t| t.parse().ok())
        .ok_or("no root in the command line")?;
    disk.damage_root(blocks * 4096)?;
    refused_disk(image, scratch, &disk, &["refused: no root partition has the root hash"])
}

fn refused_tampered_data(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let disk = Disk::copy(image, scratch)?;
    // The superblock: read by every mount.
    disk.damage_root(40)?;
    refused_disk(image, scratch, &disk, &["is corrupted", "dm-verity device corrupted"])
}

fn refused_expired(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let cmdline = format!("{} basalt.not_after=1700000000", image.cmdline);
    let mut machine = kernel_machine(image, scratch, &image.output(".root"), &cmdline)?.start(scratch)?;
    machine.expect(&["refused: this image is expired"], &["ready pid="], LIMIT)?;
    Ok("console: refused: this image is expired …".to_owned())
}

fn served(image: &Image, scratch: &Scratch, suffixes: &[&str]) -> Result<std::path::PathBuf, String> {
    let dir = scratch.dir.join("served");
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    for suffix in suffixes {
        let file = image.output(suffix);
        symlink(&file, dir.join(file.file_name().ok_or("no name")?)).map_err(|e| e.to_string())?;
    }
    Ok(dir)
}

fn network_uefi(image: &Image, scratch: &Scratch, http: bool) -> Result<String, String> {
    let name = format!("basalt_{}-netboot.efi", image.version);
    let dir = served(image, scratch, &["-netboot.efi"])?;
    let offer = if http { Offer::UefiHttp(&name) } else { Offer::UefiPxe(&name) };
    let lan = Lan::start(scratch, &dir, &offer)?;
    let machine = secure_boot(Machine::new(GIB, Some(&lan.netns)).one_boot(), image, scratch)?;
    let mut machine = machine
        .args(["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no"])
        .args(["-device", "virtio-net-pci,netdev=n,romfile=,bootindex=1"])
        .start(scratch)?;
    let seconds = machine.ready_s(LIMIT)?;
    machine.expect(&["from 10.99.0.1"], &[], Duration::from_secs(20))?;
    Ok(format!("ready {seconds:.1} guest seconds after kernel start, diskless in 1 GiB"))
}

fn network_pxe(image: &Image, scratch: &Scratch) -> Result<String, String> {
    network_uefi(image, scratch, false)
}

fn network_http(image: &Image, scratch: &Scratch) -> Result<String, String> {
    network_uefi(image, scratch, true)
}

fn ipxe_machine(
    image: &Image,
    scratch: &Scratch,
    dir: &Path,
) -> Result<(Lan, crate::machine::Running), String> {
    let script = format!("basalt_{}.ipxe", image.version);
    let lan = Lan::start(scratch, dir, &Offer::Ipxe(&script))?;
    // QEMU's network cards carry iPXE for the BIOS.
    let machine = Machine::new(GIB, Some(&lan.netns))
        .one_boot()
        .args(["-machine", "q35", "-boot", "n"])
        .args([
            "-netdev",
            "tap,id=n,ifname=tap0,script=no,downscript=no",
            "-device",
            "virtio-net-pci,netdev=n",
        ])
        .start(scratch)?;
    Ok((lan, machine))
}

fn network_ipxe(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let dir = served(image, scratch, &[".ipxe", ".vmlinuz", ".initrd", ".root"])?;
    let (_lan, mut machine) = ipxe_machine(image, scratch, &dir)?;
    let seconds = machine.ready_s(LIMIT)?;
    Ok(format!("ready {seconds:.1} guest seconds after kernel start, root by HTTP, diskless in 1 GiB"))
}

fn refused_fetched_root(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let dir = served(image, scratch, &[".ipxe", ".vmlinuz", ".initrd"])?;
    let root = image.output(".root");
    let copy = dir.join(root.file_name().ok_or("no name")?);
    fs::copy(&root, &copy).map_err(|e| e.to_string())?;
    flip(&copy, 1_000_000)?;
    let (_lan, mut machine) = ipxe_machine(image, scratch, &dir)?;
    machine.expect(&["refused: the root image is not the one that was asked for"], &["ready pid="], LIMIT)?;
    Ok("console: refused: the root image is not the one that was asked for …".to_owned())
}
