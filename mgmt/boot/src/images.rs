//! The images that can be booted: what `make image` puts out, in one directory (`docs/operations/image.md`, section 1).

use crate::error::{BootError, Result};
use std::path::{Path, PathBuf};

/// A kernel command line may have 2,048 bytes on x86-64.
const MAX_CMDLINE_BYTES: usize = 2048;
const MAX_VERSIONS: usize = 64;

#[derive(Clone, Debug)]
pub struct Images {
    dir: PathBuf,
}

/// `MAJOR.MINOR.PATCH`, sorted by its numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        let numbers: Vec<u32> = text.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let version = Version(numbers.try_into().ok()?);
        // One spelling only: it becomes part of names and of dnsmasq's configuration.
        (version.to_string() == text).then_some(version)
    }
}
impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0[0], self.0[1], self.0[2])
    }
}

impl Images {
    pub fn new(dir: &Path) -> Images {
        Images { dir: dir.to_owned() }
    }

    /// Versions with a whole-OS image, oldest first.
    pub fn versions(&self) -> Result<Vec<Version>> {
        let listed =
            std::fs::read_dir(&self.dir).map_err(BootError::io(format!("reading {}", self.dir.display())))?;
        let mut versions: Vec<Version> = listed
            .flatten()
            .filter_map(|e| {
                Version::parse(e.file_name().to_str()?.strip_prefix("basalt_")?.strip_suffix("-netboot.efi")?)
            })
            .collect();
        versions.sort();
        Ok(versions.split_off(versions.len().saturating_sub(MAX_VERSIONS)))
    }

    /// The version a decision names if it is there; the newest for one that names none.
    pub fn choose(&self, wanted: Option<&str>) -> Result<Version> {
        let versions = self.versions()?;
        let found = match wanted {
            Some(text) => versions.into_iter().find(|v| v.to_string() == text),
            None => versions.into_iter().last(),
        };
        found.ok_or_else(|| match wanted {
            Some(text) => BootError::Config(format!(
                "version {text} has no image in {}: put basalt_{text}-netboot.efi and its companions there, or decide for another version",
                self.dir.display()
            )),
            None => BootError::Config(format!(
                "there is no image in {}: copy the output of `make image` there",
                self.dir.display()
            )),
        })
    }

    /// A file that may be served: of this directory itself, of ours by its name.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let safe = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        (name.starts_with("basalt_") && name.len() <= 128 && name.chars().all(safe))
            .then(|| self.dir.join(name))
    }

    pub fn netboot(version: &Version) -> String {
        format!("basalt_{version}-netboot.efi")
    }

    /// The command line for a kernel that is booted over the network: that of the image's own script for iPXE, which pins the root's
    /// digest and the expiry.
    pub fn cmdline(&self, version: &Version) -> Result<String> {
        let path = self.dir.join(format!("basalt_{version}.ipxe"));
        let script =
            std::fs::read_to_string(&path).map_err(BootError::io(format!("reading {}", path.display())))?;
        let kernel =
            script.lines().find_map(|l| l.strip_prefix("kernel ")).and_then(|l| l.trim().split_once(' '));
        let text = kernel.map(|(_, cmdline)| cmdline).unwrap_or_default();
        let text = text.trim();
        if text.is_empty()
            || text.len() > MAX_CMDLINE_BYTES
            || text.chars().any(|c| c.is_control() || "${}".contains(c))
        {
            return Err(BootError::Config(format!(
                "{} has no line `kernel FILE COMMAND-LINE`; build the image again",
                path.display()
            )));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_files_and_only_from_there() {
        let images = Images::new(Path::new("/images"));
        assert_eq!(images.file("basalt_1.2.3.root"), Some("/images/basalt_1.2.3.root".into()));
        for bad in [
            "",
            ".",
            "..",
            "../basalt_1.2.3.root",
            "basalt_/../../etc/passwd",
            "basalt_\0",
            "manifest.key",
            "basalt_a b",
            "basalt_%2e",
        ] {
            assert_eq!(images.file(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_sort_by_number() {
        let v = |t| Version::parse(t).unwrap();
        assert!(v("1.10.0") > v("1.9.0"));
        for bad in ["1.2", "1.2.3.4", "01.2.3", "1.2.3-netboot", "", "1.2.x", "+1.2.3"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
