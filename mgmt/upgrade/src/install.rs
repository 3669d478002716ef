//! Writes a bundle into the idle slot.
//!
//! The order, and what a power cut leaves at each point:
//!
//! | step | a power cut in it leaves |
//! |---|---|
//! | 1. sweep the ESP | what was there before |
//! | 2. remove the kernel image of the idle slot | the slot that runs, and perhaps the old one, whose root is still whole |
//! | 3. write the idle root partition, flush, read it back | the slot that runs |
//! | 4. write the kernel image, read it back, then its name: one sector | the slot that runs; with the name, also the new one |
//!
//! It goes on where it stopped by looking: a piece of the root that is there already is not written again.

use crate::bundle::{Checked, Source};
use crate::error::{Result, UpgradeError};
use crate::fat::Fat;
use crate::manifest::{CHUNK_BYTES, Kind, Version};
use crate::media::Media;
use crate::node::{Disk, ESP, ROOTS};
use crate::slots::{DIRECTORY, Name, Slot, State, TRIES, drop_first, survey};
use crate::trust::hex;
use crate::verity::RootId;
use ring::digest::{SHA256, digest};
use serde::Serialize;

/// So much is written before the drive is asked to make it durable; bounds what the page cache holds.
const FLUSH_EVERY_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    WriteRoot,
    ReadBackRoot,
    WriteKernel,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    pub version: Version,
    pub partition: &'static str,
    pub file: String,
    /// It was there already, complete.
    pub was_there: bool,
    pub bytes_written: u64,
}

/// Installs `bundle` on `disk`. `running` is the root that runs from that disk, if one does. `progress` hears the stage, bytes
/// done and bytes in all.
pub fn install<S: Source>(
    bundle: &Checked<S>,
    disk: &Disk,
    running: Option<&RootId>,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Installed> {
    let version = bundle.manifest().version;
    let esp = disk.write(ESP)?;
    let mut fat = Fat::open(&*esp)?;
    let directory = fat.directory(DIRECTORY)?;
    fat.sweep(&drop_first)?;

    let slots = survey(&fat, disk, running)?;
    let kept = what_to_keep(&slots, disk, running, version)?;
    let idle = kept.and_then(|k| k.partition).map_or(0, |kept| 1 - kept);
    let partition = ROOTS[idle];
    let name = Name { version, counter: Some((TRIES, 0)) };
    let mut installed =
        Installed { version, partition, file: name.to_string(), was_there: false, bytes_written: 0 };

    if let Some(there) = slots.iter().find(|s| is_complete(s, bundle, idle))
        && same_uki(&fat, there, bundle)?
        && bundle.root_id().check(&*disk.read(partition)?).is_ok()
    {
        return Ok(Installed { was_there: true, file: there.entry.name.clone(), ..installed });
    }
    check_room(bundle, &fat, &slots, kept, disk, partition)?;

    let kept_file = kept.map(|k| k.entry.name.clone());
    for slot in slots.iter().filter(|s| Some(&s.entry.name) != kept_file.as_ref()) {
        fat.remove(&slot.entry)?;
    }
    installed.bytes_written += write_root(bundle, &*disk.write(partition)?, progress)?;
    installed.bytes_written += write_kernel(bundle, &mut fat, directory, &name, progress)?;
    Ok(installed)
}

/// The slot that must stay bootable throughout. None on a disk that has none.
fn what_to_keep<'a>(
    slots: &'a [Slot],
    disk: &Disk,
    running: Option<&RootId>,
    version: Version,
) -> Result<Option<&'a Slot>> {
    let kept = match running {
        Some(_) => slots.iter().find(|s| s.running),
        None => None,
    };
    let kept = match kept {
        Some(kept) => kept,
        None if running.is_some_and(|r| disk.root_slot(r).is_ok_and(|s| s.is_some())) => {
            return Err(UpgradeError::NoWayBack(
                "the ESP has no kernel image for the version that runs, so it could not be booted again; run `basalt upgrade install` \
                 from a node that was booted over the network, or set the disk up anew with the installer"
                    .into(),
            ));
        }
        // Nothing runs from this disk: the best slot whose root is whole is kept.
        None => {
            let blessed = slots.iter().filter(|s| s.name.state() == State::Blessed);
            for slot in blessed {
                if let (Some(root), Some(partition)) = (slot.root(), slot.partition)
                    && root.check(&*disk.read(ROOTS[partition])?).is_ok()
                {
                    return newer(slot, version).map(Some);
                }
            }
            return match slots.iter().find(|s| s.is_whole() && s.name.state() != State::Bad) {
                None => Ok(None),
                Some(slot) => Err(not_blessed(slot)),
            };
        }
    };
    if kept.name.state() != State::Blessed {
        return Err(not_blessed(kept));
    }
    newer(kept, version).map(Some)
}

fn not_blessed(slot: &Slot) -> UpgradeError {
    UpgradeError::NoWayBack(format!(
        "version {} has not been found healthy yet, and the other slot is the only way back from it; wait until `basalt upgrade status` \
         says blessed, or go back with `basalt upgrade rollback`",
        slot.name.version
    ))
}

fn newer(kept: &Slot, version: Version) -> Result<&Slot> {
    let running = kept.name.version;
    match version.cmp(&running) {
        std::cmp::Ordering::Greater => Ok(kept),
        std::cmp::Ordering::Equal => Err(UpgradeError::SameVersion(running.to_string())),
        std::cmp::Ordering::Less => {
            Err(UpgradeError::Downgrade { bundle: version.to_string(), running: running.to_string() })
        }
    }
}

fn is_complete<S: Source>(slot: &Slot, bundle: &Checked<S>, idle: usize) -> bool {
    slot.partition == Some(idle)
        && slot.root() == Some(bundle.root_id())
        && matches!(slot.name.state(), State::New | State::Trying)
}

fn same_uki<S: Source>(fat: &Fat<'_>, slot: &Slot, bundle: &Checked<S>) -> Result<bool> {
    let part = bundle.part(Kind::Uki)?;
    if u64::from(slot.entry.size_bytes) != part.size_bytes {
        return Ok(false);
    }
    let mut buf = vec![0; CHUNK_BYTES as usize];
    for (i, wanted) in part.chunks.iter().enumerate() {
        let at = i as u64 * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(part.size_bytes - at) as usize;
        fat.read_file(&slot.entry, at, &mut buf[..len])?;
        if hex(digest(&SHA256, &buf[..len]).as_ref()) != *wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Before anything is removed.
fn check_room<S: Source>(
    bundle: &Checked<S>,
    fat: &Fat<'_>,
    slots: &[Slot],
    kept: Option<&Slot>,
    disk: &Disk,
    partition: &str,
) -> Result<()> {
    let (root, have) = (bundle.part(Kind::Root)?.size_bytes, disk.read(partition)?.len_bytes());
    if root > have {
        return Err(UpgradeError::Layout(format!(
            "its root has {root} bytes and partition {partition} has {have}; set the disk up anew with the installer of this version"
        )));
    }
    let kept = kept.map(|k| k.entry.name.as_str());
    let going = slots.iter().filter(|s| Some(s.entry.name.as_str()) != kept);
    let free = fat.free_bytes() + going.map(|s| u64::from(s.entry.size_bytes)).sum::<u64>();
    let need = bundle.part(Kind::Uki)?.size_bytes;
    // A cluster has at most 64 KiB; one for the file's end and one for the directory.
    if need > u64::from(u32::MAX) || need + (128 << 10) > free {
        return Err(UpgradeError::EspFull { need, free });
    }
    Ok(())
}

pub(crate) fn write_root<S: Source>(
    bundle: &Checked<S>,
    slot: &dyn Media,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<u64> {
    let part = bundle.part(Kind::Root)?;
    let io = || UpgradeError::io("writing the root partition");
    let (mut buf, mut there) = (vec![0; CHUNK_BYTES as usize], vec![0; CHUNK_BYTES as usize]);
    let (mut written, mut unflushed) = (0, 0);
    for (i, wanted) in part.chunks.iter().enumerate() {
        let at = i as u64 * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(part.size_bytes - at) as usize;
        // A piece that cannot be read is written: that repairs a bad sector.
        let known = slot.read_at(at, &mut there[..len]).is_ok();
        if !known || hex(digest(&SHA256, &there[..len]).as_ref()) != *wanted {
            slot.write_at(at, bundle.chunk(part, i, &mut buf)?).map_err(io())?;
            written += len as u64;
            unflushed += len as u64;
        }
        if unflushed >= FLUSH_EVERY_BYTES {
            slot.flush().map_err(io())?;
            unflushed = 0;
        }
        progress(Stage::WriteRoot, at + len as u64, part.size_bytes);
    }
    slot.flush().map_err(io())?;
    slot.drop_caches().map_err(io())?;
    for (i, wanted) in part.chunks.iter().enumerate() {
        let at = i as u64 * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(part.size_bytes - at) as usize;
        slot.read_at(at, &mut there[..len]).map_err(UpgradeError::io("reading the root partition back"))?;
        if hex(digest(&SHA256, &there[..len]).as_ref()) != *wanted {
            return Err(UpgradeError::ReadBack { what: "the root partition".into(), at });
        }
        progress(Stage::ReadBackRoot, at + len as u64, part.size_bytes);
    }
    Ok(written)
}

pub(crate) fn write_kernel<S: Source>(
    bundle: &Checked<S>,
    fat: &mut Fat<'_>,
    directory: u32,
    name: &Name,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<u64> {
    let part = bundle.part(Kind::Uki)?;
    let mut buf = vec![0; CHUNK_BYTES as usize];
    let mut in_buf = None;
    let mut read = |offset: u64, out: &mut [u8]| {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let index = (at / CHUNK_BYTES) as usize;
            if in_buf != Some(index) {
                in_buf = None;
                bundle.chunk(part, index, &mut buf)?;
                in_buf = Some(index);
            }
            let within = (at % CHUNK_BYTES) as usize;
            let len = (CHUNK_BYTES as usize - within).min(out.len() - done);
            out[done..done + len].copy_from_slice(&buf[within..within + len]);
            done += len;
        }
        progress(Stage::WriteKernel, offset + out.len() as u64, part.size_bytes);
        Ok(())
    };
    fat.create(directory, &name.to_string(), part.size_bytes as u32, &mut read)?;
    Ok(part.size_bytes)
}
