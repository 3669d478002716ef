//! The slot that was booted, on the EFI system partition: whether it is on trial, and having it blessed.
//!
//! Names follow the Boot Loader Specification's boot counting: `basalt_VERSION+LEFT[-DONE].efi` is on trial,
//! `basalt_VERSION.efi` is blessed. systemd-boot counts down; see docs/operations/image.md.

use crate::block;
use crate::programs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ESP_LABEL: &str = "basalt-esp";
const ESP: &str = "/boot";

/// File name of this version's UKI while it is counted.
fn is_counted(name: &str, version: &str) -> bool {
    let Some(rest) = name.strip_prefix("basalt_").and_then(|r| r.strip_prefix(version)) else { return false };
    let Some(counters) = rest.strip_prefix('+').and_then(|r| r.strip_suffix(".efi")) else { return false };
    let mut parts = counters.split('-');
    let number = |p: Option<&str>| p.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    number(parts.next()) && parts.next().is_none_or(|p| number(Some(p))) && parts.next().is_none()
}

/// True if the running version still has to show that it is healthy.
pub(crate) fn on_trial(version: &str) -> Result<bool, String> {
    let partition = block::partitions(ESP_LABEL).into_iter().next().ok_or("no partition named basalt-esp")?;
    // Only looked at: what writes here is `basalt upgrade`, in an order that a power cut cannot break.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some(&partition.device()), ESP, Some("vfat"), flags, Some("umask=0077"))
        .map_err(|e| format!("{} does not mount: {e}", partition.device().display()))?;
    let names = block::names(&Path::new(ESP).join("EFI/Linux"));
    umount2(ESP, MntFlags::empty()).map_err(|e| format!("unmounting {ESP}: {e}"))?;
    Ok(names.iter().any(|n| is_counted(n, version)))
}

/// Keeps the running version from now on, if the data plane answers and takes writes and every health program agrees.
pub(crate) fn bless(settle: Duration, limit: Duration) -> Result<(), String> {
    let seconds = |d: Duration| d.as_secs().to_string();
    let mut command = Command::new("/usr/bin/basalt");
    command.args(["upgrade", "bless", "--settle", &seconds(settle), "--timeout", &seconds(limit)]);
    command.env_clear().env("PATH", "/usr/bin:/usr/sbin").env("BASALT_DIR", "/var/lib/basalt");
    programs::run(&mut command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::is_counted;

    #[test]
    fn only_counted_names_of_this_version() {
        for name in ["basalt_1.2.3+3.efi", "basalt_1.2.3+0-3.efi", "basalt_1.2.3+12-1.efi"] {
            assert!(is_counted(name, "1.2.3"), "{name}");
        }
        for name in [
            "basalt_1.2.3.efi",
            "basalt_1.2.30+3.efi",
            "basalt_1.2.3+.efi",
            "basalt_1.2.3+3-.efi",
            "basalt_1.2.3+3-1-1.efi",
            "basalt_1.2.3+x.efi",
            ".basalt_1.2.3.tmp",
            "other_1.2.3+3.efi",
        ] {
            assert!(!is_counted(name, "1.2.3"), "{name}");
        }
    }
}
