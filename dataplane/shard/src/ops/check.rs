//! Does a file system hold together? Every name leads to an inode, every inode has the links it counts, nothing is left over.

use super::orphan::Record;
use super::{ROOT, Shard, entry};
use crate::data::Extent;
use crate::fs::Shared;
use crate::inode::Inode;
use crate::keys::tag;
use crate::vfs::*;
use basalt_pool::BlockAddr;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Faults named in one report.
const REPORT_MAX: usize = 100;
/// How long background work may take to come to rest.
const REST_MAX: Duration = Duration::from_secs(60);

/// What one shard holds, as sent to the checker.
#[derive(Default)]
struct Contents {
    inodes: Vec<Inode>,
    names: Vec<(Ino, Bytes, u64, entry::Entry)>,
    orphans: Vec<(Ino, Record)>,
    extents: Vec<(Ino, u64, Extent)>,
    transactions: usize,
    faults: Vec<String>,
}

pub(crate) async fn check(shared: &Arc<Shared>) -> Vec<String> {
    let mut all = Vec::new();
    for slot in 0..shared.shards.len() as u16 {
        match shared.on(slot, |shard| async move { shard.contents().await }).await {
            Ok(contents) => all.push(contents),
            Err(error) => return vec![format!("slot {slot} cannot be read: {error}")],
        }
    }
    let mut faults = Vec::new();
    judge(all, &mut faults);
    if faults.len() > REPORT_MAX {
        let more = faults.len() - REPORT_MAX;
        faults.truncate(REPORT_MAX);
        faults.push(format!("and {more} more"));
    }
    faults
}

impl Shard {
    async fn contents(self: Rc<Self>) -> FsResult<Contents> {
        // Decisions are forgotten and removed files deleted in the background.
        let rest = async {
            self.across.quiet().await;
            while !self.orphans.idle() {
                basalt_reactor::sleep(Duration::from_millis(1)).await;
            }
        };
        let rested = basalt_reactor::timeout(REST_MAX, rest).await.is_some();
        let mut c = Contents::default();
        if !rested {
            c.faults.push(format!("slot {}: background work does not come to an end", self.slot));
        }
        let mut faults = Vec::new();
        let mut bad = |what: &str, key: &[u8]| faults.push(format!("{what} cannot be read: key {key:02x?}"));
        self.each(&[tag::INODE], |key, value| {
            let ino = ino_of(key)?;
            match Inode::decode(ino, value) {
                Some(inode) => c.inodes.push(inode),
                None => bad("inode", key),
            }
            Some(())
        })
        .await?;
        self.each(&[tag::DIRENT], |key, value| {
            match (entry::split_key(key), entry::Entry::decode(value)) {
                (Some((dir, hash, name)), Ok(e)) => {
                    c.names.push((dir, Bytes::copy_from_slice(name), hash, e))
                }
                _ => bad("entry", key),
            }
            Some(())
        })
        .await?;
        self.each(&[tag::ORPHAN], |key, value| {
            match Record::decode(value) {
                Some(r) => c.orphans.push((ino_of(key)?, r)),
                None => bad("orphan record", key),
            }
            Some(())
        })
        .await?;
        self.each(&[tag::EXTENT], |key, value| {
            let end = u64::from_be_bytes(key.get(9..17)?.try_into().ok()?);
            match Extent::decode(value) {
                Some(e) => c.extents.push((ino_of(key)?, end, e)),
                None => bad("extent", key),
            }
            Some(())
        })
        .await?;
        self.each(&[tag::TX], |_, _| {
            c.transactions += 1;
            Some(())
        })
        .await?;
        c.faults.append(&mut faults);
        for inode in &c.inodes {
            if inode.ino.slot() != self.slot {
                c.faults.push(format!("inode {} lies in slot {}", inode.ino.0, self.slot));
            }
        }
        if c.transactions > 0 {
            c.faults.push(format!("slot {}: {} transactions left over", self.slot, c.transactions));
        }
        Ok(c)
    }
}

fn ino_of(key: &[u8]) -> Option<Ino> {
    Some(Ino(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?)))
}

fn judge(all: Vec<Contents>, faults: &mut Vec<String>) {
    let mut inodes = BTreeMap::new();
    let mut orphans = BTreeMap::new();
    let mut names = Vec::new();
    let mut extents = Vec::new();
    for c in all {
        faults.extend(c.faults);
        inodes.extend(c.inodes.into_iter().map(|i| (i.ino, i)));
        orphans.extend(c.orphans);
        names.extend(c.names);
        extents.push(c.extents);
    }

    let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut subdirs: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut entries: BTreeMap<Ino, u64> = BTreeMap::new();
    for (dir, name, hash, e) in &names {
        let text = String::from_utf8_lossy(name);
        *entries.entry(*dir).or_default() += 1;
        *links.entry(e.ino).or_default() += 1;
        match inodes.get(dir) {
            None => faults.push(format!("{text:?} is in directory {}, which is not there", dir.0)),
            Some(d) if d.kind != FileType::Directory => {
                faults.push(format!("{text:?} is in {}, which is no directory", dir.0));
            }
            Some(d) if entry::name_hash(d.hash_seed, name) != *hash => {
                faults.push(format!("{text:?} in {} is at a wrong hash", dir.0));
            }
            Some(_) => {}
        }
        match inodes.get(&e.ino) {
            None => faults.push(format!("{text:?} in {} names inode {}, which is not there", dir.0, e.ino.0)),
            Some(i) if i.kind != e.kind => {
                faults.push(format!(
                    "{text:?} in {} says {:?}, inode {} is {:?}",
                    dir.0, e.kind, e.ino.0, i.kind
                ));
            }
            Some(i) if i.kind == FileType::Directory => {
                *subdirs.entry(*dir).or_default() += 1;
                if i.parent != *dir {
                    faults.push(format!("directory {} is in {}, says {}", e.ino.0, dir.0, i.parent.0));
                }
            }
            Some(_) => {}
        }
    }

    for (ino, inode) in &inodes {
        let named = links.get(ino).copied().unwrap_or(0);
        let record = orphans.get(ino);
        if inode.kind == FileType::Directory {
            let want = 2 + subdirs.get(ino).copied().unwrap_or(0);
            if inode.nlink != want {
                faults.push(format!("directory {}: {} links, should be {want}", ino.0, inode.nlink));
            }
            let want = entries.get(ino).copied().unwrap_or(0);
            if inode.entries != want {
                faults.push(format!("directory {}: counts {} entries, has {want}", ino.0, inode.entries));
            }
            let names_wanted = (*ino != ROOT) as u32;
            if named != names_wanted {
                faults.push(format!("directory {} has {named} names", ino.0));
            }
            if record.is_some() {
                faults.push(format!("directory {}: an intent is left over", ino.0));
            }
        } else {
            if inode.nlink != named {
                faults.push(format!("inode {}: {} links, {named} names", ino.0, inode.nlink));
            }
            match record {
                None if inode.nlink == 0 => {
                    faults.push(format!("inode {} has no name and is no orphan", ino.0))
                }
                Some(_) if inode.nlink > 0 => {
                    faults.push(format!("inode {} has a name and is an orphan", ino.0))
                }
                _ => {}
            }
        }
    }
    for ino in orphans.keys().filter(|ino| !inodes.contains_key(ino)) {
        faults.push(format!("orphan record of inode {}, which is not there", ino.0));
    }
    reachable(&inodes, faults);
    extents.into_iter().for_each(|e| judge_extents(&inodes, e, faults));
}

/// Every directory leads up to the root.
fn reachable(inodes: &BTreeMap<Ino, Inode>, faults: &mut Vec<String>) {
    let mut good: BTreeSet<Ino> = [ROOT].into();
    for inode in inodes.values().filter(|i| i.kind == FileType::Directory) {
        let mut path = BTreeSet::new();
        let mut at = inode.ino;
        while !good.contains(&at) {
            if !path.insert(at) {
                faults.push(format!("directory {} is in a circle", inode.ino.0));
                return;
            }
            match inodes.get(&at) {
                Some(i) => at = i.parent,
                None => {
                    faults
                        .push(format!("directory {} leads up to {}, which is not there", inode.ino.0, at.0));
                    return;
                }
            }
        }
        good.append(&mut path);
    }
}

/// Of one shard: no byte of a file in two extents, no block in two extents.
fn judge_extents(inodes: &BTreeMap<Ino, Inode>, extents: Vec<(Ino, u64, Extent)>, faults: &mut Vec<String>) {
    let mut last: Option<(Ino, u64)> = None;
    let mut used: BTreeMap<BlockAddr, (u64, Ino)> = BTreeMap::new();
    for (ino, end, e) in extents {
        if !inodes.contains_key(&ino) {
            faults.push(format!("extent of inode {}, which is not there", ino.0));
        }
        let start = end.saturating_sub(e.len);
        if let Some((i, before)) = last
            && i == ino
            && start < before
        {
            faults.push(format!("inode {}: extents overlap at {start}", ino.0));
        }
        last = Some((ino, end));
        if let Some((_, other)) = used.insert(e.at, (e.stored_len.div_ceil(4096), ino)) {
            faults.push(format!("inodes {} and {} share blocks at {:?}", ino.0, other.0, e.at));
        }
    }
    let mut before: Option<(BlockAddr, u64, Ino)> = None;
    for (at, (blocks, ino)) in used {
        if let Some((b, n, other)) = before
            && b.segment == at.segment
            && b.column == at.column
            && b.block as u64 + n > at.block as u64
        {
            faults.push(format!("inodes {} and {} share blocks at {at:?}", ino.0, other.0));
        }
        before = Some((at, blocks, ino));
    }
}
