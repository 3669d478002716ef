//! Disks and bundles for the tests, and a reader of disks that shares no code with the product: crates `gpt` and `fatfs`.
#![allow(dead_code, unreachable_pub)]

use basalt_upgrade::bundle::{Bundle, Checked, Recipe, build};
use basalt_upgrade::manifest::{Node, Version};
use basalt_upgrade::media::{Media, Recorder, Step};
use basalt_upgrade::node::Disk;
use basalt_upgrade::trust::{Root, SigningKey};
use basalt_upgrade::uki;
use basalt_upgrade::verity::{BLOCK, Leaves, RootId};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::ops::Range;
use std::sync::Arc;

pub const NOW: u64 = 1_800_000_000;
const MIB: u64 = 1 << 20;
const ESP_BYTES: u64 = 34 * MIB;
const ROOT_BYTES: u64 = 2 * MIB;

/// A version: its kernel image and what its root partition begins with.
#[derive(Clone)]
pub struct Release {
    pub version: Version,
    pub uki: Vec<u8>,
    pub root: Vec<u8>,
    pub id: RootId,
}

impl Release {
    pub fn new(version: &str, root_blocks: usize, kernel_bytes: usize) -> Release {
        let seed = version.bytes().fold(7u8, |a, b| a.wrapping_mul(31).wrapping_add(b));
        let data: Vec<u8> =
            (0..root_blocks * BLOCK).map(|i| (i as u8).wrapping_mul(seed) ^ (i >> 9) as u8 ^ seed).collect();
        let mut leaves = Leaves::new(&[seed, 1]);
        leaves.add(&data);
        let (tree, root_hash) = leaves.finish();
        let id = RootId { root_hash, data_blocks: root_blocks as u64, salt: vec![seed, 1] };
        let kernel: Vec<u8> = (0..kernel_bytes).map(|i| (i >> 3) as u8 ^ seed).collect();
        Release {
            version: version.parse().unwrap(),
            uki: uki::sample(version, Some(&id), &kernel),
            root: [data, tree].concat(),
            id,
        }
    }

    pub fn recipe(&self) -> Recipe {
        Recipe {
            version: self.version,
            architecture: "x86_64".into(),
            created: NOW - 1000,
            expires: NOW + 1000,
            minimum_version: Version(1, 0, 0),
            hardware: vec!["*".into()],
            notes: String::new(),
            root_id: self.id.clone(),
            key_chain: Vec::new(),
        }
    }

    pub fn bundle(&self) -> Vec<u8> {
        bundle_of(self.recipe(), self, &[SigningKey::from_seed(1)])
    }
}

pub fn bundle_of(recipe: Recipe, release: &Release, signers: &[SigningKey]) -> Vec<u8> {
    let mut out = Vec::new();
    build(recipe, Cursor::new(&release.uki), Cursor::new(&release.root), signers, &mut out).unwrap();
    out
}

/// Believes the key with seed 1.
pub fn trusted() -> Root {
    Root::of_keys(&[SigningKey::from_seed(1).public()])
}

pub fn node(version: &str) -> Node {
    Node { version: version.parse().ok(), architecture: "x86_64".into(), hardware: "QEMU/Standard PC".into() }
}

pub fn checked(bytes: Vec<u8>) -> Checked<Vec<u8>> {
    Bundle::open(bytes).unwrap().authenticate(&trusted(), NOW).unwrap().check_payload(&mut |_, _| ()).unwrap()
}

/// A disk as the installer makes it, with these files in `EFI/Linux` and these roots.
pub fn disk(files: &[(&str, &[u8])], roots: [&[u8]; 2]) -> Vec<u8> {
    let total = 2 * MIB + ESP_BYTES + 2 * ROOT_BYTES + 2 * MIB;
    let mut bytes = vec![0; total as usize];
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(Cursor::new(&mut bytes[..]), None)
        .unwrap();
    for (name, len, kind) in [
        ("basalt-esp", ESP_BYTES, gpt::partition_types::EFI),
        ("basalt-root-a", ROOT_BYTES, gpt::partition_types::LINUX_ROOT_X64),
        ("basalt-root-b", ROOT_BYTES, gpt::partition_types::LINUX_ROOT_X64),
        ("basalt-state", MIB, gpt::partition_types::LINUX_FS),
    ] {
        table.add_partition(name, len, kind, 0, Some(2048)).unwrap();
    }
    table.write().unwrap();
    let places = partitions(&bytes);
    let esp = places["basalt-esp"].clone();
    let esp_range = esp.clone();
    let mut window = Cursor::new(&mut bytes[esp]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut window, options).unwrap();
    let fs = fatfs::FileSystem::new(window, fatfs::FsOptions::new()).unwrap();
    let root = fs.root_dir();
    for directory in ["EFI", "EFI/Linux", "EFI/BOOT", "loader"] {
        root.create_dir(directory).unwrap();
    }
    root.create_file("EFI/BOOT/BOOTX64.EFI").unwrap().write_all(b"systemd-boot").unwrap();
    for (name, contents) in files {
        root.create_file(&format!("EFI/Linux/{name}")).unwrap().write_all(contents).unwrap();
    }
    drop(root);
    fs.unmount().unwrap();
    // fatfs 0.3 gives `.` and `..` long names and the root its number, which fsck.fat does not forgive.
    for cluster in bytes[esp_range].chunks_exact_mut(512) {
        let (first, rest) = cluster.split_at_mut(32);
        if first[11] == 0x0f && first[1] == b'.' && rest.starts_with(b".          ") {
            first.copy_from_slice(&rest[..32]);
            rest.copy_within(64..96, 0);
            rest[32] = 0xe5;
            rest[64] = 0xe5;
            if rest[26..28] == [2, 0] {
                rest[26] = 0;
            }
        }
    }
    for (name, root) in ["basalt-root-a", "basalt-root-b"].iter().zip(roots) {
        let at = places[*name].start;
        bytes[at..at + root.len()].copy_from_slice(root);
    }
    bytes
}

/// Name -> bytes of the disk, read by crate `gpt`.
pub fn partitions(disk: &[u8]) -> BTreeMap<String, std::ops::Range<usize>> {
    partitions_of(disk, gpt::disk::LogicalBlockSize::Lb512)
}

pub fn partitions_of(
    disk: &[u8],
    sector: gpt::disk::LogicalBlockSize,
) -> BTreeMap<String, std::ops::Range<usize>> {
    let table = gpt::GptConfig::new()
        .logical_block_size(sector)
        .open_from_device(Cursor::new(disk.to_vec()))
        .unwrap();
    let ranges = table.partitions().values().map(|p| {
        let start = p.bytes_start(*table.logical_block_size()).unwrap() as usize;
        (p.name.clone(), start..start + p.bytes_len(*table.logical_block_size()).unwrap() as usize)
    });
    ranges.collect()
}

/// Files of `EFI/Linux`, read by crate `fatfs`.
pub fn files(disk: &[u8], esp: std::ops::Range<usize>) -> BTreeMap<String, Vec<u8>> {
    let fs = fatfs::FileSystem::new(ReadOnly(Cursor::new(&disk[esp])), fatfs::FsOptions::new()).unwrap();
    let linux = fs.root_dir().open_dir("EFI/Linux").unwrap();
    let mut found = BTreeMap::new();
    for entry in linux.iter() {
        let entry = entry.unwrap();
        if entry.is_file() {
            let mut contents = Vec::new();
            // A chain that is broken is a file that firmware cannot load.
            let _ = entry.to_file().read_to_end(&mut contents);
            found.insert(entry.file_name(), contents);
        }
    }
    found
}

/// One file of the ESP, read by crate `fatfs`.
pub fn file(disk: &[u8], esp: Range<usize>, path: &str) -> Vec<u8> {
    let fs = fatfs::FileSystem::new(ReadOnly(Cursor::new(&disk[esp])), fatfs::FsOptions::new()).unwrap();
    let mut contents = Vec::new();
    fs.root_dir().open_file(path).unwrap().read_to_end(&mut contents).unwrap();
    contents
}

/// fatfs wants to be able to write.
struct ReadOnly<'a>(Cursor<&'a [u8]>);
impl Read for ReadOnly<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}
impl std::io::Seek for ReadOnly<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}
impl Write for ReadOnly<'_> {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        panic!("the reader of the tests writes")
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn recorder(bytes: Vec<u8>) -> (Arc<Recorder>, Disk) {
    let recorder = Arc::new(Recorder::new(bytes));
    let media: Arc<dyn Media> = recorder.clone();
    (recorder, Disk::Whole(media))
}

/// Reads disks again and again without copying what did not change.
pub struct Reader {
    pub esp: Range<usize>,
    pub roots: [Range<usize>; 2],
    releases: Vec<Release>,
}

impl Reader {
    pub fn new(bytes: &[u8], releases: &[&Release]) -> Reader {
        let places = partitions(bytes);
        let roots = ["basalt-root-a", "basalt-root-b"].map(|n| places[n].clone());
        Reader {
            esp: places["basalt-esp"].clone(),
            roots,
            releases: releases.iter().map(|r| (*r).clone()).collect(),
        }
    }

    /// The version that such a disk ends up running, after as many failed tries as it takes; None: it never boots.
    pub fn boots(&self, bytes: &[u8]) -> Option<String> {
        let mut names: Vec<(String, Option<u32>, bool)> = Vec::new();
        for (name, contents) in files(bytes, self.esp.clone()) {
            if !name.ends_with(".efi") {
                continue;
            }
            let middle = name.strip_prefix("basalt_").unwrap().strip_suffix(".efi").unwrap();
            let (version, left) = match middle.split_once('+') {
                None => (middle, None),
                Some((version, count)) => (version, Some(count.split('-').next().unwrap().parse().unwrap())),
            };
            let release =
                self.releases.iter().find(|r| r.uki == contents && r.version.to_string() == version);
            let boots =
                release.is_some_and(|r| self.roots.iter().any(|p| bytes[p.clone()].starts_with(&r.root)));
            names.push((version.to_owned(), left, boots));
        }
        for _ in 0..100 {
            // Bad ones last, then the newest (all versions of these tests have one digit each).
            names.sort_by_key(|(version, left, _)| (*left != Some(0), version.clone()));
            let (version, left, boots) = names.last_mut()?;
            match left {
                _ if *boots => return Some(version.clone()),
                // A blessed one that does not boot is tried for ever, and so is the last bad one.
                None | Some(0) => return None,
                Some(left) => *left -= 1,
            }
        }
        None
    }

    /// What boots after each cut, and how many cuts there were.
    pub fn walk(&self, start: &[u8], steps: &[Step]) -> (usize, BTreeMap<String, usize>) {
        let mut seen = BTreeMap::new();
        let cuts = every_cut(start, steps, &mut |bytes, what, i| {
            let version =
                self.boots(bytes).unwrap_or_else(|| panic!("{what} {i} of {} does not boot", steps.len()));
            *seen.entry(version).or_insert(0) += 1;
        });
        (cuts, seen)
    }
}

/// Applies the steps one by one and looks after each. Between two flushes any subset of the writes may have reached the drive: some of
/// them are looked at too. Returns how many cuts that were.
pub fn every_cut(start: &[u8], steps: &[Step], look: &mut dyn FnMut(&[u8], &str, usize)) -> usize {
    // What stands on the drive: everything before the last flush, then as many of the pending writes as wanted.
    let mut bytes = start.to_vec();
    let mut pending: Vec<Undone> = Vec::new();
    let mut cuts = 0;
    look(&bytes, "prefix", 0);
    for (i, step) in steps.iter().enumerate() {
        let Step::Write { offset, data } = step else {
            pending.clear();
            continue;
        };
        let at = *offset as usize;
        if data.len() > 512 {
            let half = data.len() / 1024 * 512;
            let torn = Undone::apply(&mut bytes, at, &data[..half]);
            look(&bytes, "torn write", i);
            torn.undo(&mut bytes);
            cuts += 1;
        }
        // This one alone reached the drive, none of those before it since the last flush.
        pending.iter().rev().for_each(|p| p.undo(&mut bytes));
        let alone = Undone::apply(&mut bytes, at, data);
        look(&bytes, "reordered", i);
        alone.undo(&mut bytes);
        pending.iter().for_each(|p| p.redo(&mut bytes));
        pending.push(Undone::apply(&mut bytes, at, data));
        look(&bytes, "prefix", i + 1);
        cuts += 2;
    }
    cuts
}

/// A write with what it covered.
struct Undone {
    at: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Undone {
    fn apply(bytes: &mut [u8], at: usize, data: &[u8]) -> Undone {
        let before = bytes[at..at + data.len()].to_vec();
        bytes[at..at + data.len()].copy_from_slice(data);
        Undone { at, before, after: data.to_vec() }
    }
    fn undo(&self, bytes: &mut [u8]) {
        bytes[self.at..][..self.before.len()].copy_from_slice(&self.before);
    }
    fn redo(&self, bytes: &mut [u8]) {
        bytes[self.at..][..self.after.len()].copy_from_slice(&self.after);
    }
}

/// dosfstools, where it is installed: the third opinion.
pub fn check_with_fsck(bytes: &[u8], esp: Range<usize>) {
    let path = std::env::temp_dir().join(format!(
        "basalt-fsck-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, &bytes[esp]).unwrap();
    let checked = ["/usr/sbin/fsck.fat", "/sbin/fsck.fat"]
        .iter()
        .find(|p| std::path::Path::new(p).exists())
        .map(|fsck| std::process::Command::new(fsck).arg("-n").arg(&path).output().unwrap());
    std::fs::remove_file(&path).unwrap();
    match checked {
        Some(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        None => assert!(std::env::var_os("BASALT_REQUIRE_FSCK").is_none(), "fsck.fat is not installed"),
    }
}
