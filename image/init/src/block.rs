//! Block devices as sysfs shows them: partitions by name, whole disks with what makes them unfit to be used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// `vda2`
    pub(crate) kernel_name: String,
    /// The name in the GPT.
    pub(crate) label: String,
}

impl Partition {
    pub(crate) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.kernel_name)
    }
}

/// All partitions whose GPT name is `label`.
pub(crate) fn partitions(label: &str) -> Vec<Partition> {
    let mut found = Vec::new();
    for name in names(Path::new("/sys/class/block")) {
        let text =
            fs::read_to_string(Path::new("/sys/class/block").join(&name).join("uevent")).unwrap_or_default();
        if uevent(&text).get("PARTNAME") == Some(&label) {
            found.push(Partition { kernel_name: name, label: label.to_owned() });
        }
    }
    found
}

/// Whole disks that could hold data: NVMe namespaces, virtio and SCSI disks without partitions and not read-only.
pub(crate) fn whole_disks() -> Vec<PathBuf> {
    let sys = Path::new("/sys/block");
    let fit = |name: &String| {
        let dir = sys.join(name);
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let physical = dir.join("device").exists();
        // 256 MiB, the least that a pool takes.
        let large = read("size").trim().parse::<u64>().is_ok_and(|sectors| sectors >= 256 << 11);
        let partitioned = names(&dir).iter().any(|n| n.starts_with(name.as_str()));
        physical && large && !partitioned && read("ro").trim() == "0" && read("removable").trim() == "0"
    };
    names(sys).into_iter().filter(fit).map(|n| Path::new("/dev").join(n)).collect()
}

/// Asks `look` until it answers or `limit` has passed; devices appear when their drivers are done.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Entries of a directory, sorted; empty where there is none.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn uevent(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_partition_name_is_in_the_uevent() {
        let u = super::uevent("MAJOR=254\nDEVTYPE=partition\nPARTN=2\nPARTNAME=basalt-root-a\n");
        assert_eq!(u["PARTNAME"], "basalt-root-a");
    }
}
