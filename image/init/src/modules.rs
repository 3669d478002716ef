//! Kernel modules: loading with dependencies, and for the devices that are there.
//!
//! Reads depmod's `modules.dep` and `modules.alias`; files are uncompressed in the image, since the root is compressed
//! as a whole and the kernel checks each module's signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) struct Modules {
    dir: PathBuf,
    /// Name to file and the files it needs, as in `modules.dep`.
    dep: BTreeMap<String, Vec<String>>,
    alias: Vec<(String, String)>,
    /// Already loaded or tried.
    seen: BTreeSet<String>,
    /// Devices already looked up.
    known: BTreeSet<String>,
}

/// Modules that a device would pull in and that are loaded only on purpose.
const NOT_FOR_DEVICES: &[&str] = &["rdma_rxe"];

impl Modules {
    /// The index of the running kernel's modules below `/lib/modules`.
    pub(crate) fn open() -> Result<Modules, String> {
        let release =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| format!("osrelease: {e}"))?;
        let dir = Path::new("/lib/modules").join(release.trim());
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| {
                format!("{}: {e}; kernel and modules of this image do not belong together", path.display())
            })
        };
        let (dep, alias) = (parse_dep(&read("modules.dep")?), parse_alias(&read("modules.alias")?));
        Ok(Modules { dir, dep, alias, seen: BTreeSet::new(), known: BTreeSet::new() })
    }

    /// Loads `name` and what it needs. A module the image lacks, or the kernel has built in, is no error.
    pub(crate) fn load(&mut self, name: &str) {
        let name = name.replace('-', "_");
        let Some(files) = self.dep.get(&name).cloned() else { return };
        // modules.dep lists what is needed after the module, the innermost last.
        for file in files.iter().rev() {
            if !self.seen.insert(module_name(file)) {
                continue;
            }
            if let Err(e) = insert(&self.dir.join(file)) {
                crate::console::say(&format_args!("module {file}: {e}"));
            }
        }
    }

    /// Loads drivers for every device on every bus until no new device appears.
    pub(crate) fn load_for_devices(&mut self) {
        // Each driver may bring a bus with devices of its own; nesting deeper than this does not exist.
        for _ in 0..8 {
            let mut found = Vec::new();
            walk(Path::new("/sys/devices"), &mut found, 0);
            let fresh: Vec<String> = found.into_iter().filter(|a| self.known.insert(a.clone())).collect();
            if fresh.is_empty() {
                return;
            }
            for alias in fresh {
                for name in self.matching(&alias) {
                    self.load(&name);
                }
            }
        }
    }

    /// Modules for one modalias.
    pub(crate) fn matching(&self, modalias: &str) -> Vec<String> {
        let hits = self.alias.iter().filter(|(pattern, _)| glob(pattern.as_bytes(), modalias.as_bytes()));
        hits.map(|(_, name)| name.clone()).filter(|n| !NOT_FOR_DEVICES.contains(&n.as_str())).collect()
    }
}

fn insert(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    match nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()) {
        // ENODEV: a driver for a CPU feature that this CPU lacks.
        Ok(()) | Err(nix::errno::Errno::EEXIST | nix::errno::Errno::ENODEV) => Ok(()),
        Err(nix::errno::Errno::EKEYREJECTED) => {
            Err("refused: its signature is not by this kernel's key".to_owned())
        }
        Err(e) => Err(e.to_string()),
    }
}

fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.trim_end_matches(".ko").replace('-', "_")
}

fn parse_dep(text: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(file, needs)| {
            let files = std::iter::once(file).chain(needs.split_ascii_whitespace()).map(str::to_owned);
            (module_name(file), files.collect())
        })
        .collect()
}

fn parse_alias(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
    lines.map(|(pattern, name)| (pattern.to_owned(), name.to_owned())).collect()
}

fn walk(dir: &Path, aliases: &mut Vec<String>, depth: u32) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < 24 {
            walk(&entry.path(), aliases, depth + 1);
        } else if entry.file_name() == "modalias"
            && let Ok(alias) = std::fs::read_to_string(entry.path())
        {
            aliases.push(alias.trim().to_owned());
        }
    }
}

/// Shell patterns as in `modules.alias`: `*`, `?` and `[a-z]`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            let rest = &pattern[1..];
            // The usual pattern ends in a star or has fixed text after it, so this does not explode.
            rest.is_empty() || (0..=text.len()).any(|n| glob(rest, &text[n..]))
        }
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(b'['), Some(&c)) => {
            let Some(end) = pattern.iter().position(|&b| b == b']') else { return false };
            in_class(&pattern[1..end], c) && glob(&pattern[end + 1..], &text[1..])
        }
        (Some(p), Some(c)) => p == c && glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn in_class(class: &[u8], c: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&c) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_modprobe() {
        for (pattern, text, wanted) in [
            ("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", true),
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", "pci:v00008086d000010D3sv0sd0bc02sc00i00", true),
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", "pci:v00008086d000010D4sv0sd0bc02sc00i00", false),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00", true),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0099*",
                "cpu:type:x86,ven1fam2mod3:feature:,0001,0099,",
                true,
            ),
            ("x[0-3a]", "xa", true),
            ("x[0-3a]", "x4", false),
            ("x[", "x4", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn dependencies_are_read_in_order() {
        let dep = parse_dep(
            "kernel/a/dm-verity.ko: kernel/a/dm-bufio.ko kernel/a/dm-mod.ko\nkernel/a/dm-mod.ko:\n",
        );
        assert_eq!(dep["dm_verity"], ["kernel/a/dm-verity.ko", "kernel/a/dm-bufio.ko", "kernel/a/dm-mod.ko"]);
        assert_eq!(dep["dm_mod"], ["kernel/a/dm-mod.ko"]);
    }
}
