//! Every prefix of what was written to a boot disk, as QEMU recorded it, has a slot that boots: names read from the ESP by a
//! FAT of other people (crate `fatfs`), kernel images and roots compared byte for byte with those that were built, and
//! systemd-boot's choice by a model of it.

use crate::disk::Disk;
use crate::work::Image;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 4096;
/// Linux, drivers/md/dm-log-writes.c.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const DISCARD: u64 = 4;

/// What was built, to compare with.
struct Release {
    version: String,
    uki: Vec<u8>,
    root: Vec<u8>,
}

/// The recorded disk as it was after some writes.
pub(crate) struct Replay {
    file: File,
    disk: Disk,
    releases: Vec<Release>,
    /// For each root partition and release: which blocks differ, and how many.
    differing: Vec<[(Vec<bool>, usize); 2]>,
    slots: Vec<(String, Option<u32>, Option<usize>)>,
}

/// A write of the record: where, and where its bytes are in the log.
struct Entry {
    offset: u64,
    length: u64,
    data: u64,
}

/// What the walk saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) prefixes: usize,
    /// How many prefixes boot which version.
    pub(crate) boots: BTreeMap<String, usize>,
    /// Three disks to boot, with the version that each should come up with: in the middle of the new root, in the
    /// middle of the new kernel image, and with its name just there.
    pub(crate) samples: Vec<(&'static str, String, Disk)>,
}

impl Replay {
    /// `disk` as it was when the record began.
    pub(crate) fn new(disk: Disk, images: &[&Image]) -> Result<Replay, String> {
        let read = |path: std::path::PathBuf| fs::read(&path).map_err(|e| format!("{}: {e}", path.display()));
        let mut releases = Vec::new();
        for image in images {
            let (uki, root) = (read(image.output(".efi"))?, read(image.output(".root"))?);
            releases.push(Release { version: image.version.clone(), uki, root });
        }
        let file = OpenOptions::new().read(true).write(true).open(&disk.path).map_err(|e| e.to_string())?;
        let mut replay = Replay { file, disk, releases, differing: Vec::new(), slots: Vec::new() };
        for release in 0..replay.releases.len() {
            let blocks = (replay.releases[release].root.len() as u64).div_ceil(BLOCK) as usize;
            replay.differing.push([(vec![false; blocks], 0), (vec![false; blocks], 0)]);
        }
        for partition in 0..2 {
            let whole = replay.disk.roots[partition].clone();
            replay.compare(partition, whole.start, whole.end - whole.start).map_err(|e| e.to_string())?;
        }
        replay.read_slots()?;
        Ok(replay)
    }

    /// Looks at the blocks of a root partition that `length` bytes at `offset` of the disk touch.
    fn compare(&mut self, partition: usize, offset: u64, length: u64) -> io::Result<()> {
        let start = self.disk.roots[partition].start;
        let mut block = vec![0; BLOCK as usize];
        for (release, differing) in self.releases.iter().zip(&mut self.differing) {
            let (flags, count) = &mut differing[partition];
            let first = ((offset - start) / BLOCK) as usize;
            let end = ((offset - start + length).div_ceil(BLOCK) as usize).min(flags.len());
            for (index, flag) in flags.iter_mut().enumerate().take(end).skip(first) {
                let wanted = &release.root[index * BLOCK as usize..];
                let wanted = &wanted[..wanted.len().min(BLOCK as usize)];
                self.file.read_exact_at(&mut block[..wanted.len()], start + index as u64 * BLOCK)?;
                let differs = &block[..wanted.len()] != wanted;
                *count += usize::from(differs);
                *count -= usize::from(*flag);
                *flag = differs;
            }
        }
        Ok(())
    }

    /// Names on the ESP, with the release that each file is, byte for byte.
    fn read_slots(&mut self) -> Result<(), String> {
        let esp = Window {
            file: &self.file,
            start: self.disk.esp.start,
            len: self.disk.esp.end - self.disk.esp.start,
            at: 0,
        };
        let fs = fatfs::FileSystem::new(esp, fatfs::FsOptions::new())
            .map_err(|e| format!("the ESP cannot be read: {e}"))?;
        let linux = fs.root_dir().open_dir("EFI/Linux").map_err(|e| format!("EFI/Linux: {e}"))?;
        let mut slots = Vec::new();
        for entry in linux.iter() {
            let entry = entry.map_err(|e| format!("EFI/Linux: {e}"))?;
            let name = entry.file_name();
            let Some(middle) = name.strip_prefix("basalt_").and_then(|n| n.strip_suffix(".efi")) else {
                continue;
            };
            let (version, left) = match middle.split_once('+') {
                None => (middle, None),
                Some((version, count)) => (version, count.split('-').next().and_then(|c| c.parse().ok())),
            };
            let mut contents = Vec::new();
            // A chain that is broken is a file that firmware cannot load.
            let _ = entry.to_file().read_to_end(&mut contents);
            let release = self.releases.iter().position(|r| r.version == version && r.uki == contents);
            slots.push((version.to_owned(), left, release));
        }
        self.slots = slots;
        Ok(())
    }

    /// The version that such a disk ends up running, after as many failed tries as it takes; None: it never boots.
    fn boots(&self) -> Option<&str> {
        let mut slots: Vec<(&str, Option<u32>, bool)> = Vec::new();
        for (version, left, release) in &self.slots {
            let whole =
                release.is_some_and(|r| self.differing[r].iter().any(|(_, differing)| *differing == 0));
            slots.push((version, *left, whole));
        }
        let number = |v: &str| v.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
        for _ in 0..100 {
            // Those without a try left last, then the newest.
            slots.sort_by_key(|(version, left, _)| (*left != Some(0), number(version)));
            let (version, left, whole) = slots.last_mut()?;
            match left {
                _ if *whole => return Some(*version),
                None | Some(0) => return None,
                Some(left) => *left -= 1,
            }
        }
        None
    }

    /// Applies the record write by write.
    pub(crate) fn walk(&mut self, log: &Path) -> Result<Seen, String> {
        let at = |e: io::Error| format!("{}: {e}", log.display());
        let record = File::open(log).map_err(at)?;
        let entries = read_entries(&record).map_err(at)?;
        let mut seen = Seen::default();
        let mut names = self.slots.len();
        let (mut root_bytes, mut esp_bytes) = (0, 0);
        for (n, entry) in entries.iter().enumerate() {
            let mut data = vec![0; entry.length as usize];
            record.read_exact_at(&mut data, entry.data).map_err(at)?;
            self.file.write_all_at(&data, entry.offset).map_err(|e| e.to_string())?;
            let range = entry.offset..entry.offset + entry.length;
            let within = |part: &std::ops::Range<u64>| part.start <= range.start && range.end <= part.end;
            for partition in 0..2 {
                if within(&self.disk.roots[partition]) {
                    self.compare(partition, entry.offset, entry.length).map_err(|e| e.to_string())?;
                    root_bytes += entry.length;
                }
            }
            if within(&self.disk.esp) {
                self.read_slots().map_err(|e| format!("prefix {}: {e}", n + 1))?;
                esp_bytes += entry.length;
            }
            if range.start < self.disk.esp.start {
                return Err(format!("write {n} is to the partition table, at {}", entry.offset));
            }
            let version = self.boots().ok_or_else(|| {
                format!("prefix {} of {} does not boot: {:?}", n + 1, entries.len(), self.slots)
            })?;
            *seen.boots.entry(version.to_owned()).or_insert(0) += 1;
            seen.prefixes += 1;
            let what = match seen.samples.len() {
                0 if root_bytes > 16 << 20 => Some("in the middle of the root"),
                1 if esp_bytes > 6 << 20 => Some("in the middle of the kernel image"),
                2 if self.slots.len() > names => Some("with the new name"),
                _ => None,
            };
            if seen.samples.len() < 2 {
                names = self.slots.len();
            }
            if let Some(what) = what {
                let version = version.to_owned();
                let copy =
                    self.disk.duplicate(self.disk.path.with_extension(seen.samples.len().to_string()))?;
                seen.samples.push((what, version, copy));
            }
        }
        Ok(seen)
    }
}

fn read_entries(record: &File) -> io::Result<Vec<Entry>> {
    let mut head = [0; 512];
    record.read_exact_at(&mut head, 0)?;
    let word =
        |head: &[u8; 512], n: usize| u64::from_le_bytes(head[n * 8..][..8].try_into().expect("8 bytes"));
    let sector = u64::from(u32::from_le_bytes(head[24..28].try_into().expect("4 bytes")));
    if word(&head, 0) != MAGIC || word(&head, 1) != 1 || sector == 0 {
        return Err(io::Error::other("no record of writes"));
    }
    // The count in the head is as old as the last flush; the record itself goes on.
    let length = record.metadata()?.len();
    let (mut entries, mut at) = (Vec::new(), sector);
    let written = word(&head, 2);
    for _ in 0..written {
        if at + 512 > length {
            break;
        }
        record.read_exact_at(&mut head, at)?;
        at += sector;
        let (first, sectors, flags) = (word(&head, 0), word(&head, 1), word(&head, 2));
        if flags & DISCARD != 0 {
            // Whatever it did to the bytes, nothing relies on them.
            continue;
        }
        if sectors > 0 {
            entries.push(Entry { offset: first * sector, length: sectors * sector, data: at });
        }
        at += sectors * sector;
    }
    Ok(entries)
}

/// A part of a file, for reading only.
struct Window<'a> {
    file: &'a File,
    start: u64,
    len: u64,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = buf.len().min((self.len - self.at) as usize);
        let read = self.file.read_at(&mut buf[..length], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
impl Write for Window<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => self.len.checked_add_signed(n),
        };
        self.at = at.filter(|at| *at <= self.len).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
