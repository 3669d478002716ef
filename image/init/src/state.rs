//! The state partition, mounted at `/var`; memory where the node has none. It takes the room behind it: an image that was written to a
//! larger disk leaves some.

use crate::block::{self, Partition, wait_for};
use crate::console::say;
use crate::{boot, disks, programs, sys};
use nix::mount::{MsFlags, mount};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LABEL: &str = "basalt-state";
/// Less than that behind it is the copy of the partition table, and what is lost to whole MiB.
const LEAST_GAIN_BYTES: u64 = 3 << 20;
const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts `/var`; true if what is in it outlives a power-off. `on_disk`: this boot came from a slot, so the partition belongs there and
/// is waited for.
pub(crate) fn mount_var(on_disk: bool) -> Result<bool, String> {
    let limit = if on_disk { Duration::from_secs(30) } else { Duration::ZERO };
    let partition = wait_for(limit, || block::partitions(LABEL).into_iter().next());
    match &partition {
        Some(partition) => {
            let device = partition.device();
            if on_disk && let Err(e) = grow(partition) {
                say(&format_args!("state partition {} stays as large as it is: {e}", device.display()));
            }
            if is_blank(&device).map_err(|e| format!("{}: {e}", device.display()))? {
                make_file_system(&device)?;
            }
            mount(Some(&device), "/var", Some("ext4"), FLAGS, Some("errors=remount-ro")).map_err(|e| {
                format!(
                    "state partition {} does not mount: {e}; it was not formatted, since it is not blank",
                    device.display()
                )
            })?;
            say(&format_args!(
                "state on {}, {} MiB",
                device.display(),
                disks::partition_bytes(partition) >> 20
            ));
            if on_disk {
                fill(partition);
            }
        }
        None => {
            let what = if on_disk { format!("no partition named {LABEL}: ") } else { String::new() };
            say(&format_args!("{what}state in memory, lost at power-off"));
            mount(Some("tmpfs"), "/var", Some("tmpfs"), FLAGS, Some("mode=0755,size=50%"))
                .map_err(|e| format!("tmpfs on /var: {e}"))?;
        }
    }
    for dir in ["/var/lib/basalt", "/var/log/basalt", "/var/tmp"] {
        std::fs::create_dir_all(dir).map_err(|e| format!("{dir}: {e}"))?;
    }
    Ok(partition.is_some())
}

/// Extends the partition to the end of its disk, where there is room. The table is written by `basalt`, in an order that a power
/// cut cannot break.
fn grow(partition: &Partition) -> Result<(), String> {
    let Some((disk, room)) = disks::room_behind(&partition.kernel_name) else { return Ok(()) };
    if room < LEAST_GAIN_BYTES {
        return Ok(());
    }
    let path = disk.display().to_string();
    let output = boot::basalt(&["--output", "json", "upgrade", "grow", "--disk", &path])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("basalt: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let grown: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let number = |key: &str| grown[key].as_u64();
    let (Some(index), Some(start), Some(length)) =
        (number("number"), number("start_bytes"), number("len_bytes"))
    else {
        return Ok(());
    };
    let disk = std::fs::File::open(&disk).map_err(|e| format!("{path}: {e}"))?;
    sys::resize_partition(&disk, index as u32, start, length)
        .map_err(|e| format!("the kernel takes its new size at the next boot: {e}"))?;
    say(&format_args!("state partition {}: now to the end of the disk", partition.device().display()));
    Ok(())
}

/// Lets the mounted file system have all of its partition; also after a power cut between the two. Takes its time on a large disk,
/// and nobody waits for it.
fn fill(partition: &Partition) {
    let device = partition.device();
    let have = file_system_bytes(&device);
    if have.is_none_or(|have| have + LEAST_GAIN_BYTES > disks::partition_bytes(partition)) {
        return;
    }
    std::thread::spawn(move || {
        let mut command = Command::new("/usr/sbin/resize2fs");
        match programs::run(command.arg(&device).env_clear().env("PATH", "/usr/bin:/usr/sbin")) {
            Ok(_) => {
                let mib = file_system_bytes(&device).unwrap_or(0) >> 20;
                say(&format_args!("state on {} grew to {mib} MiB", device.display()));
            }
            Err(why) => say(&format_args!("resize2fs {}: {why}", device.display())),
        }
    });
}

/// Of an ext4 file system, as its superblock says (Documentation/filesystems/ext4/super.rst of Linux).
fn file_system_bytes(device: &Path) -> Option<u64> {
    let mut start = vec![0; 4096];
    std::fs::File::open(device).ok()?.read_exact(&mut start).ok()?;
    let superblock = &start[1024..2048];
    let word = |at: usize| superblock[at..at + 4].try_into().ok().map(u32::from_le_bytes).map(u64::from);
    let blocks = word(4)? | word(0x150)? << 32;
    let bytes = blocks.checked_mul(1024u64.checked_shl(word(24)? as u32)?);
    bytes.filter(|_| superblock[56..58] == [0x53, 0xef])
}

/// Only zeroes where every file system, volume manager and RAID would have its mark.
fn is_blank(device: &Path) -> std::io::Result<bool> {
    let mut start = vec![0; 1 << 20];
    std::fs::File::open(device)?.read_exact(&mut start)?;
    Ok(start.iter().all(|&b| b == 0))
}

fn make_file_system(device: &Path) -> Result<(), String> {
    say(&format_args!("state partition {} is blank: making a file system", device.display()));
    let made = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-L", LABEL, "-O", "^metadata_csum_seed", "-E", "lazy_itable_init=1"])
        .arg(device)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("mke2fs: {e}"))?;
    if !made.status.success() {
        return Err(format!("mke2fs {}: {}", device.display(), String::from_utf8_lossy(&made.stderr).trim()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_size_of_a_file_system_is_in_its_superblock() {
        let path = std::env::temp_dir().join(format!("basalt-init-ext4-{}", std::process::id()));
        let mut bytes = vec![0; 4096];
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(super::file_system_bytes(&path), None);
        bytes[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        bytes[1024 + 4..1024 + 8].copy_from_slice(&131_072u32.to_le_bytes());
        bytes[1024 + 24] = 2;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(super::file_system_bytes(&path), Some(512 << 20));
        std::fs::remove_file(&path).unwrap();
    }
}
