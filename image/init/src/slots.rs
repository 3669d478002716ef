//! The slot that was booted, on the EFI system partition: whether it is on trial, and blessing it.
//!
//! Names follow the Boot Loader Specification's boot counting: `basalt_VERSION+LEFT[-DONE].efi` is on trial,
//! `basalt_VERSION.efi` is blessed. systemd-boot counts down; see docs/operations/image.md.

use crate::block;
use crate::console::say;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File};
use std::path::Path;

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

fn with_esp<T>(look: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T, String> {
    let partition = block::partitions(ESP_LABEL).into_iter().next().ok_or("no partition named basalt-esp")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(&partition.device()), ESP, Some("vfat"), flags, Some("umask=0077,errors=remount-ro"))
        .map_err(|e| format!("{} does not mount: {e}", partition.device().display()))?;
    let result = look(&Path::new(ESP).join("EFI/Linux")).map_err(|e| format!("EFI/Linux: {e}"));
    umount2(ESP, MntFlags::empty()).map_err(|e| format!("unmounting {ESP}: {e}"))?;
    result
}

fn counted_names(dir: &Path, version: &str) -> Vec<String> {
    block::names(dir).into_iter().filter(|n| is_counted(n, version)).collect()
}

/// True if the running version still has to show that it is healthy.
pub(crate) fn on_trial(version: &str) -> Result<bool, String> {
    with_esp(|dir| Ok(!counted_names(dir, version).is_empty()))
}

/// Takes the counter off the running version's name: it is the one to boot from now on.
pub(crate) fn bless(version: &str) -> Result<(), String> {
    with_esp(|dir| {
        for name in counted_names(dir, version) {
            fs::rename(dir.join(&name), dir.join(format!("basalt_{version}.efi")))?;
            // FAT has no journal: the rename is in the directory's block, which has to be out before we say so.
            File::open(dir)?.sync_all()?;
            say(&format_args!("slot {name} is healthy: blessed as basalt_{version}.efi"));
        }
        Ok(())
    })
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
