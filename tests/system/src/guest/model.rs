//! What the random operations should have left behind, kept in memory and compared byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::Context;

/// A name in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    File(u64),
    Symlink(String),
}

/// A file, which may have several names.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
}

/// One thread's tree. Paths are relative to the thread's directory, without a leading slash.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) files: BTreeMap<u64, FileState>,
    next_file: u64,
    next_name: u64,
}

impl Model {
    pub(super) fn total_bytes(&self) -> usize {
        self.files.values().map(|f| f.content.len()).sum()
    }

    pub(super) fn new_file(&mut self, path: &str, mode: u32) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, FileState { content: Vec::new(), mode });
        self.entries.insert(path.to_owned(), Entry::File(self.next_file));
        self.next_file
    }

    /// A name that was never used, in the given directory; lengths vary, some are long.
    pub(super) fn fresh_name(&mut self, dir: &str, salt: u64) -> String {
        self.next_name += 1;
        let name = match salt % 8 {
            0 => format!("{}-{}", "long".repeat(40), self.next_name),
            1 => format!("{}é{}", self.next_name, salt % 97),
            _ => format!("n{}", self.next_name),
        };
        if dir.is_empty() { name } else { format!("{dir}/{name}") }
    }

    pub(super) fn dirs(&self) -> Vec<String> {
        std::iter::once(String::new())
            .chain(self.entries.iter().filter(|(_, e)| **e == Entry::Dir).map(|(p, _)| p.clone()))
            .collect()
    }

    pub(super) fn file_paths(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, e)| matches!(e, Entry::File(_))).map(|(p, _)| p.clone()).collect()
    }

    pub(super) fn file_at(&self, path: &str) -> Option<u64> {
        match self.entries.get(path) {
            Some(Entry::File(id)) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn links(&self, id: u64) -> u64 {
        self.entries.values().filter(|e| **e == Entry::File(id)).count() as u64
    }

    /// Names directly inside a directory.
    pub(super) fn children(&self, dir: &str) -> BTreeSet<String> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        self.entries
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter_map(|(path, _)| {
                let rest = &path[prefix.len()..];
                (!rest.is_empty() && !rest.contains('/')).then(|| rest.to_owned())
            })
            .collect()
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Some(Entry::File(id)) = self.entries.remove(path)
            && self.links(id) == 0
        {
            self.files.remove(&id);
        }
    }

    /// Moves a name and, for a directory, everything below it.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.remove(to);
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.entries.keys().filter(|p| p.as_str() == from || p.starts_with(&below)).cloned().collect();
        for path in moved {
            if let Some(entry) = self.entries.remove(&path) {
                self.entries.insert(format!("{to}{}", &path[from.len()..]), entry);
            }
        }
    }

    /// Compares the whole tree with what a mount shows.
    pub(super) fn verify(&self, root: &Path) -> Result<(), String> {
        for dir in self.dirs() {
            self.verify_listing(root, &dir)?;
        }
        for (path, entry) in &self.entries {
            let full = root.join(path);
            let meta = fs::symlink_metadata(&full).context(|| format!("lstat {}", full.display()))?;
            match entry {
                Entry::Dir if meta.is_dir() => {}
                Entry::Symlink(target) if meta.is_symlink() => {
                    let seen = fs::read_link(&full).context(|| format!("readlink {}", full.display()))?;
                    if seen.as_os_str() != target.as_str() {
                        return Err(format!("symlink {} leads to {seen:?}, not {target:?}", full.display()));
                    }
                }
                Entry::File(id) if meta.is_file() => self.verify_file(&full, &meta, *id)?,
                _ => {
                    return Err(format!(
                        "{} should be {entry:?} and is {:?}",
                        full.display(),
                        meta.file_type()
                    ));
                }
            }
        }
        Ok(())
    }

    fn verify_file(&self, full: &Path, meta: &fs::Metadata, id: u64) -> Result<(), String> {
        let state = self.files.get(&id).ok_or_else(|| format!("the model lost file {id}"))?;
        let name = full.display();
        if meta.len() != state.content.len() as u64 {
            return Err(format!("{name} has {} bytes, not {}", meta.len(), state.content.len()));
        }
        if meta.permissions().mode() & 0o7777 != state.mode {
            return Err(format!(
                "{name} has mode {:o}, not {:o}",
                meta.permissions().mode() & 0o7777,
                state.mode
            ));
        }
        if meta.nlink() != self.links(id) {
            return Err(format!("{name} has {} links, not {}", meta.nlink(), self.links(id)));
        }
        let mut seen = Vec::with_capacity(state.content.len());
        fs::File::open(full).and_then(|mut f| f.read_to_end(&mut seen)).context(|| format!("read {name}"))?;
        compare(&name.to_string(), &seen, &state.content)
    }

    pub(super) fn verify_listing(&self, root: &Path, dir: &str) -> Result<(), String> {
        let full = root.join(dir);
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(&full).context(|| format!("readdir {}", full.display()))? {
            let entry = entry.context(|| format!("readdir {}", full.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // The client keeps removed files that are open under such a name.
            if !name.starts_with(".nfs") && !seen.insert(name.clone()) {
                return Err(format!("{} lists {name} twice", full.display()));
            }
        }
        let expected = self.children(dir);
        if seen != expected {
            let missing: Vec<_> = expected.difference(&seen).collect();
            let extra: Vec<_> = seen.difference(&expected).collect();
            return Err(format!("{}: missing {missing:?}, too many {extra:?}", full.display()));
        }
        Ok(())
    }
}

/// Says where two contents differ.
pub(super) fn compare(name: &str, seen: &[u8], expected: &[u8]) -> Result<(), String> {
    if seen.len() != expected.len() {
        return Err(format!("{name}: read {} bytes, not {}", seen.len(), expected.len()));
    }
    match seen.iter().zip(expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => {
            let wrong = seen.iter().zip(expected).filter(|(a, b)| a != b).count();
            let zero = seen[at..].iter().take_while(|b| **b == 0).count();
            Err(format!(
                "{name}: byte {at} of {} is {:#04x}, not {:#04x}; {wrong} bytes differ; {zero} zero bytes from there",
                seen.len(),
                seen[at],
                expected[at]
            ))
        }
    }
}
