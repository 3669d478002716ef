//! Which slots a disk has. All of it is read from the media: names on the ESP, hashes on the root partitions. Nothing is kept in
//! EFI variables, which firmware loses (Talos 12300, 14002).

use crate::error::Result;
use crate::fat::{Entry, Fat};
use crate::manifest::Version;
use crate::node::{Disk, ESP, ROOTS};
use crate::uki::Uki;
use crate::verity::RootId;
use serde::Serialize;
use std::cmp::Reverse;

pub const DIRECTORY: &str = "EFI/Linux";
const PREFIX: &str = "basalt_";
const SUFFIX: &str = ".efi";
/// What a new slot gets; a server that hangs once for another reason does not lose its upgrade.
pub const TRIES: u32 = 3;

/// Boot counting as in the Boot Loader Specification: none once blessed, else tries left and tries begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub version: Version,
    pub counter: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Was healthy once; boots without counting.
    Blessed,
    /// Not booted yet.
    New,
    /// Booted, and not found healthy yet.
    Trying,
    /// No tries left; taken only if there is nothing else.
    Bad,
}

impl Name {
    pub fn parse(file: &str) -> Option<Name> {
        let middle = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (version, counter) = match middle.split_once('+') {
            None => (middle, None),
            Some((version, counter)) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                (version, Some((left.parse().ok()?, done.parse().ok()?)))
            }
        };
        Some(Name { version: version.parse().ok()?, counter })
    }

    pub fn state(&self) -> State {
        match self.counter {
            None => State::Blessed,
            Some((0, _)) => State::Bad,
            Some((_, 0)) => State::New,
            Some(_) => State::Trying,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", self.version)?;
        match self.counter {
            None => {}
            Some((left, 0)) => write!(f, "+{left}")?,
            Some((left, done)) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(SUFFIX)
    }
}

/// One kernel image of ours on the ESP.
#[derive(Clone, Debug)]
pub struct Slot {
    pub entry: Entry,
    pub name: Name,
    /// None if the file cannot be read as a UKI.
    pub uki: Option<Uki>,
    /// Which root partition holds the root that it looks for.
    pub partition: Option<usize>,
    pub running: bool,
}

impl Slot {
    pub fn root(&self) -> Option<&RootId> {
        self.uki.as_ref()?.root.as_ref()
    }
    /// Its root is there. Says nothing about its health.
    pub fn is_whole(&self) -> bool {
        self.partition.is_some()
    }
}

/// All slots, in the order in which systemd-boot takes them: those with tries left before the bad ones, then the newest.
pub fn survey(fat: &Fat<'_>, disk: &Disk, running: Option<&RootId>) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for entry in fat.list(fat.directory(DIRECTORY)?)? {
        let Some(name) = Name::parse(&entry.name).filter(|_| !entry.is_directory) else { continue };
        let uki = Uki::read(&mut |at, buf| fat.read_file(&entry, at, buf)).ok();
        let root = uki.as_ref().and_then(|u| u.root.as_ref());
        let partition = root.map(|r| disk.root_slot(r)).transpose()?.flatten();
        let running = root.is_some() && root == running;
        slots.push(Slot { entry, name, uki, partition, running });
    }
    slots.sort_by_key(|s| (s.name.state() == State::Bad, Reverse(s.name.version), s.entry.name.clone()));
    Ok(slots)
}

/// What `basalt upgrade status` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub slots: Vec<SlotStatus>,
    /// The partition that the next upgrade will overwrite.
    pub idle: Option<&'static str>,
    pub esp_free_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct SlotStatus {
    pub version: Version,
    pub state: State,
    pub tries_left: Option<u32>,
    pub tries_begun: Option<u32>,
    pub file: String,
    /// None: its root is on neither partition, it cannot boot.
    pub partition: Option<&'static str>,
    pub running: bool,
    /// What the boot loader takes next.
    pub next: bool,
}

/// Reads a disk; writes nothing.
pub fn status(disk: &Disk, running: Option<&RootId>) -> Result<Status> {
    let esp = disk.read(ESP)?;
    let fat = Fat::open(&*esp)?;
    let slots = survey(&fat, disk, running)?;
    let kept = slots.iter().find(|s| s.running).or_else(|| slots.iter().find(|s| s.is_whole()));
    Ok(Status {
        idle: kept.and_then(|k| k.partition).map(|kept| ROOTS[1 - kept]).or(Some(ROOTS[0])),
        esp_free_bytes: fat.free_bytes(),
        slots: slots
            .iter()
            .enumerate()
            .map(|(i, s)| SlotStatus {
                version: s.name.version,
                state: s.name.state(),
                tries_left: s.name.counter.map(|c| c.0),
                tries_begun: s.name.counter.map(|c| c.1),
                file: s.entry.name.clone(),
                partition: s.partition.map(|p| ROOTS[p]),
                running: s.running,
                next: i == 0,
            })
            .collect(),
    })
}

/// The root of the slot that boots next; None where no slot of the disk is whole.
pub fn next_root(disk: &Disk) -> Result<Option<RootId>> {
    let esp = disk.read(ESP)?;
    let slots = survey(&Fat::open(&*esp)?, disk, None)?;
    Ok(slots.iter().find(|s| s.is_whole()).and_then(|s| s.root().cloned()))
}

/// Of two names for one file, left by a power cut: the one that counts goes, the blessed one stays.
pub(crate) fn drop_first(a: &str, b: &str) -> bool {
    let counted = |n: &str| Name::parse(n).is_some_and(|n| n.counter.is_some());
    counted(a) && !counted(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (file, state) in [
            ("basalt_1.2.3+3.efi", State::New),
            ("basalt_1.2.3+2-1.efi", State::Trying),
            ("basalt_1.2.3+0-3.efi", State::Bad),
            ("basalt_1.2.3.efi", State::Blessed),
        ] {
            let name = Name::parse(file).unwrap();
            assert_eq!((name.state(), name.to_string().as_str()), (state, file));
        }
        for other in [
            "basalt_1.2.efi",
            "other_1.2.3.efi",
            "basalt_1.2.3+x.efi",
            "basalt_1.2.3.tmp",
            "basalt_1.2.3+3+3.efi",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
