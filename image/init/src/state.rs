//! The state partition, mounted at `/var`; memory where the node has none.

use crate::block::{self, wait_for};
use crate::console::say;
use nix::mount::{MsFlags, mount};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LABEL: &str = "basalt-state";
const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts `/var`; true if what is in it outlives a power-off. `on_disk`: this boot came from a slot, so the partition belongs there and
/// is waited for.
pub(crate) fn mount_var(on_disk: bool) -> Result<bool, String> {
    let limit = if on_disk { Duration::from_secs(30) } else { Duration::ZERO };
    let partition = wait_for(limit, || block::partitions(LABEL).into_iter().next());
    match &partition {
        Some(partition) => {
            let device = partition.device();
            if is_blank(&device).map_err(|e| format!("{}: {e}", device.display()))? {
                make_file_system(&device)?;
            }
            mount(Some(&device), "/var", Some("ext4"), FLAGS, Some("errors=remount-ro")).map_err(|e| {
                format!(
                    "state partition {} does not mount: {e}; it was not formatted, since it is not blank",
                    device.display()
                )
            })?;
            say(&format_args!("state on {}", device.display()));
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
