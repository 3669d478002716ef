//! SATA, SAS and virtual disks, and what stands on a drive.

use super::Tree;
use crate::record::{Contents, Drive, Record};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

const BLOCK: &str = "sys/block";
/// Every label, partition table and superblock in use has its place within these of the beginning or the end.
const EDGE_BYTES: u64 = 1 << 20;
/// Places in between that must be empty as well.
const SAMPLES: u64 = 16;

pub(super) fn read(tree: &Tree, record: &mut Record) {
    for name in tree.list(BLOCK) {
        let dir = format!("{BLOCK}/{name}");
        let disk = ["sd", "vd", "xvd"].iter().any(|p| name.starts_with(p));
        if !disk || tree.text(&format!("{dir}/removable")).as_deref() == Some("1") {
            continue;
        }
        let text = |file: &str| tree.text(&format!("{dir}/{file}")).unwrap_or_default();
        let spins = text("queue/rotational") == "1";
        let sata = text("device/vendor") == "ATA";
        let serial = [text("device/serial"), text("serial"), text("device/wwid"), text("wwid")];
        record.drives.push(Drive {
            serial: serial.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
            model: text("device/model"),
            firmware: text("device/rev"),
            bytes: tree.number::<u64>(&format!("{dir}/size")).unwrap_or(0).saturating_mul(512),
            protocol: if name.starts_with("sd") { if sata { "SATA" } else { "SAS" } } else { "virtio" }
                .into(),
            media: if spins { "HDD" } else { "SSD" }.into(),
            contents: contents(tree, &dir, &name),
            numa: tree.numa(&format!("{dir}/device")),
            device: name,
            ..Drive::default()
        });
    }
}

/// Of two namespaces of one drive.
pub(super) fn worse(a: Contents, b: Contents) -> Contents {
    match (a, b) {
        (held @ Contents::Holds(_), _) | (_, held @ Contents::Holds(_)) => held,
        // The first one.
        (Contents::Unknown, b) => b,
        (a, Contents::Blank) => a,
        (_, Contents::Unknown) => Contents::Unknown,
    }
}

/// What stands on the disk whose directory in sysfs is `dir`.
pub(super) fn contents(tree: &Tree, dir: &str, name: &str) -> Contents {
    let partitions =
        tree.list(dir).into_iter().filter(|n| tree.exists(&format!("{dir}/{n}/partition"))).count();
    if partitions > 0 {
        return Contents::Holds(format!("a partition table with {partitions} partitions"));
    }
    if let Some(holder) = tree.list(&format!("{dir}/holders")).first() {
        return Contents::Holds(format!("a part of {holder}"));
    }
    // Unreadable is not blank.
    File::open(tree.path(&format!("dev/{name}")))
        .ok()
        .and_then(|mut disk| look(&mut disk).ok())
        .unwrap_or_default()
}

fn look(disk: &mut File) -> std::io::Result<Contents> {
    let size = disk.seek(SeekFrom::End(0))?;
    let mut piece = vec![0; EDGE_BYTES.min(size) as usize];
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut piece)?;
    if let Some(what) = signature(&piece) {
        return Ok(Contents::Holds(what.into()));
    }
    let used = |bytes: &[u8]| bytes.iter().any(|b| *b != 0);
    if size == 0 {
        return Ok(Contents::Unknown);
    }
    let mut holds = used(&piece);
    disk.seek(SeekFrom::Start(size - piece.len() as u64))?;
    disk.read_exact(&mut piece)?;
    holds |= used(&piece);
    for i in 1..=SAMPLES {
        let mut sample = vec![0; 4096.min(size) as usize];
        let at = (size / (SAMPLES + 1) * i).min(size - sample.len() as u64) & !4095;
        disk.seek(SeekFrom::Start(at))?;
        disk.read_exact(&mut sample)?;
        holds |= used(&sample);
    }
    Ok(if holds { Contents::Holds("data of an unknown kind".into()) } else { Contents::Blank })
}

/// What a disk begins with, by the places that `blkid` looks at.
fn signature(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 13] = [
        (0, b"BASALTLB", "a member of a Basalt pool"),
        (512, b"EFI PART", "a partition table (GPT)"),
        (4096, b"EFI PART", "a partition table (GPT)"),
        (0, b"XFSB", "an XFS file system"),
        (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
        (512, b"LABELONE", "an LVM volume"),
        (0x438, b"\x53\xef", "an ext file system"),
        (0x10040, b"_BHRfS_M", "a Btrfs file system"),
        (4096, b"\xfc\x4e\x2b\xa9", "a member of a software RAID"),
        (0xff6, b"SWAPSPACE2", "swap space"),
        (3, b"NTFS    ", "an NTFS file system"),
        (0, b"hsqs", "a squashfs image"),
        (510, b"\x55\xaa", "a partition table (MBR)"),
    ];
    let stands = |at: usize, magic: &[u8]| start.get(at..at + magic.len()) == Some(magic);
    KNOWN.iter().find(|(at, magic, _)| stands(*at, magic)).map(|(_, _, what)| *what)
}
