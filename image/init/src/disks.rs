//! The disks of this machine as somebody would describe them who had to choose one to install on.

use crate::block::{self, names};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the layout needs: `docs/operations/image.md`, section 2.
const LEAST_BYTES: u64 = 2562 << 20;
/// No new disk for so long: those that are there are all …
const QUIET: Duration = Duration::from_secs(3);
/// … and nobody waits longer than that.
const LONGEST: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// `nvme0n1`
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) model: String,
    pub(crate) serial: String,
    pub(crate) removable: bool,
    pub(crate) read_only: bool,
    /// Only zeroes in the first and in the last MiB.
    pub(crate) blank: bool,
}

impl Disk {
    pub(crate) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    fn read(name: &str) -> Option<Disk> {
        let dir = Path::new("/sys/block").join(name);
        let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned();
        // Physical, and not a path of a multipath NVMe namespace, which is there under its own name.
        if !dir.join("device").exists() || text("hidden") == "1" || name.starts_with("sr") {
            return None;
        }
        let size_bytes = text("size").parse::<u64>().ok()? * 512;
        let serial = [text("device/serial"), text("serial"), vpd_serial(&dir.join("device/vpd_pg80"))];
        Some(Disk {
            name: name.to_owned(),
            size_bytes,
            model: text("device/model"),
            serial: serial.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
            removable: text("removable") == "1",
            read_only: text("ro") == "1",
            // What cannot be read is not called blank.
            blank: is_blank(&Path::new("/dev").join(name), size_bytes).unwrap_or(false),
        })
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} MiB", self.device().display(), self.size_bytes >> 20)?;
        if !self.model.is_empty() {
            write!(f, " {}", self.model)?;
        }
        match self.serial.as_str() {
            "" => f.write_str(" without serial number")?,
            serial => write!(f, " serial {serial}")?,
        }
        f.write_str(if self.blank { " blank" } else { " not blank" })
    }
}

/// SCSI: four bytes of head, then the number.
fn vpd_serial(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(4..).unwrap_or_default()).trim_matches(['\0', ' ']).to_owned()
}

fn is_blank(device: &Path, size_bytes: u64) -> std::io::Result<bool> {
    let mut file = fs::File::open(device)?;
    let mut buffer = vec![0; MIB];
    for at in [0, size_bytes.saturating_sub(MIB as u64)] {
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer)?;
        if buffer.iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All disks, once no more appear; at once where `enough` says so. Only from a thread that may sleep.
pub(crate) fn settled(enough: impl Fn(&[Disk]) -> bool) -> Vec<Disk> {
    let start = Instant::now();
    let (mut known, mut since) = (Vec::new(), Instant::now());
    loop {
        let now: Vec<String> =
            names(Path::new("/sys/block")).into_iter().filter(|n| Disk::read_quick(n)).collect();
        if now != known {
            (known, since) = (now, Instant::now());
        }
        let quiet = since.elapsed() >= QUIET && !known.is_empty();
        let disks = || -> Vec<Disk> { known.iter().filter_map(|n| Disk::read(n)).collect() };
        if quiet || start.elapsed() >= LONGEST {
            return disks();
        }
        if since.elapsed() < Duration::from_millis(200) {
            let found = disks();
            if enough(&found) {
                return found;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Disk {
    fn read_quick(name: &str) -> bool {
        Path::new("/sys/block").join(name).join("device").exists() && Path::new("/dev").join(name).exists()
    }
}

/// True if every disk that could be a pool's is blank, and there is one.
pub(crate) fn all_blank(disks: &[Disk]) -> bool {
    let mut pool = disks.iter().filter(|d| !d.removable && !d.read_only).peekable();
    pool.peek().is_some() && pool.all(|d| d.blank)
}

/// The disk to install on: the one that was named; else the only one; else the smallest that is blank, if it is smaller than
/// every other.
pub(crate) fn choose<'a>(disks: &'a [Disk], named: Option<&str>) -> Result<&'a Disk, String> {
    let all = || match disks {
        [] => "there is none".to_owned(),
        _ => format!("there are {}", disks.iter().map(Disk::to_string).collect::<Vec<_>>().join("; ")),
    };
    if let Some(named) = named {
        let is = |d: &&Disk| d.serial == named || d.device() == Path::new(named);
        let mut found = disks.iter().filter(is);
        return match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(format!("no disk {named}: {}", all())),
            _ => Err(format!("several disks are {named}, name a path: {}", all())),
        };
    }
    let fit = |d: &&Disk| !d.removable && !d.read_only && d.size_bytes >= LEAST_BYTES;
    let fit: Vec<&Disk> = disks.iter().filter(fit).collect();
    if let [only] = fit[..] {
        return Ok(only);
    }
    let mut blank: Vec<&Disk> = fit.iter().copied().filter(|d| d.blank).collect();
    blank.sort_by_key(|d| d.size_bytes);
    match blank[..] {
        [one] => Ok(one),
        [smallest, next, ..] if smallest.size_bytes < next.size_bytes => Ok(smallest),
        _ => Err(format!(
            "which disk to install on is not clear, name one: basalt boot decide NODE install --disk SERIAL; {}",
            all()
        )),
    }
}

/// Whole disk of a partition, and how many bytes the disk has behind it.
pub(crate) fn room_behind(partition: &str) -> Option<(PathBuf, u64)> {
    let dir = fs::canonicalize(Path::new("/sys/class/block").join(partition)).ok()?;
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let disk = dir.parent()?;
    let end = number(dir.join("start"))? + number(dir.join("size"))?;
    let room = number(disk.join("size"))?.checked_sub(end)? * 512;
    Some((Path::new("/dev").join(disk.file_name()?), room))
}

/// The size of a partition as the kernel knows it.
pub(crate) fn partition_bytes(partition: &block::Partition) -> u64 {
    let path = Path::new("/sys/class/block").join(&partition.kernel_name).join("size");
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, gib: u64, blank: bool) -> Disk {
        Disk {
            name: name.to_owned(),
            size_bytes: gib << 30,
            model: "M".into(),
            serial: format!("S-{name}"),
            removable: false,
            read_only: false,
            blank,
        }
    }

    #[test]
    fn the_disk_to_install_on_is_never_guessed() {
        let [a, b, c] = [disk("a", 100, true), disk("b", 4000, true), disk("c", 4000, true)];
        let of = |disks: &[Disk], named: Option<&str>| choose(disks, named).map(|d| d.name.clone());
        assert_eq!(of(&[c.clone(), a.clone(), b.clone()], None).as_deref(), Ok("a"), "the smallest");
        assert_eq!(of(std::slice::from_ref(&b), None).as_deref(), Ok("b"), "the only one");
        let why = of(&[b.clone(), c.clone()], None).unwrap_err();
        assert!(why.contains("--disk SERIAL") && why.contains("S-b") && why.contains("4096000 MiB"), "{why}");
        assert_eq!(of(&[b.clone(), c.clone()], Some("S-c")).as_deref(), Ok("c"));
        assert_eq!(of(&[b.clone(), c.clone()], Some("/dev/b")).as_deref(), Ok("b"));
        assert!(
            of(&[b.clone(), c.clone()], Some("S")).unwrap_err().starts_with("no disk S: there are /dev/b")
        );
        let twin = Disk { serial: b.serial.clone(), ..c.clone() };
        assert!(of(&[b.clone(), twin], Some("S-b")).is_err());
        // What holds something, is a stick, is read-only or too small is not chosen, unless nothing else is there.
        let full = Disk { blank: false, ..a.clone() };
        assert_eq!(of(&[full.clone(), b.clone()], None).as_deref(), Ok("b"));
        assert!(of(&[full.clone(), Disk { blank: false, ..b.clone() }], None).is_err());
        for odd in [
            Disk { removable: true, ..a.clone() },
            Disk { read_only: true, ..a.clone() },
            Disk { size_bytes: 1 << 30, ..a.clone() },
        ] {
            assert_eq!(of(&[odd, b.clone()], None).as_deref(), Ok("b"));
        }
        assert!(of(&[], None).unwrap_err().contains("there is none"));
    }

    #[test]
    fn blank_drives_wait_and_others_do_not() {
        let (a, full) = (disk("a", 1, true), disk("b", 1, false));
        let stick = Disk { removable: true, blank: false, ..a.clone() };
        assert!(all_blank(&[a.clone(), stick.clone()]));
        assert!(!all_blank(&[a, full]) && !all_blank(&[stick]) && !all_blank(&[]));
    }

    #[test]
    fn blank_means_both_ends() {
        let path = std::env::temp_dir().join(format!("basalt-init-blank-{}", std::process::id()));
        for (at, blank) in [(None, true), (Some(3 * MIB - 1), false), (Some(0), false), (Some(MIB + 5), true)]
        {
            let mut bytes = vec![0; 3 * MIB];
            if let Some(at) = at {
                bytes[at] = 1;
            }
            fs::write(&path, &bytes).unwrap();
            assert_eq!(is_blank(&path, bytes.len() as u64).unwrap(), blank, "{at:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}
