//! Finding a pool on drives and taking it up: the drives describe themselves, nothing else is needed.
//!
//! Nothing is written before it is sure that the newest state is known and that what it promises can be kept.

use crate::allocate::apply_own;
use crate::geometry::{CLAIM_OFFSET, Layout};
use crate::label::{Label, LabelError};
use crate::planted::{self, Planted};
use crate::pool::Pool;
use crate::probe::foreign_contents;
use crate::record::Record;
use crate::root::{Root, RootDrive};
use crate::rootlog::{self, Chosen, Position, RootCopy, claim_block};
use crate::scan::{Scanned, refuse_duplicates, scan};
use crate::shared::{Shared, SharedDrive};
use crate::state::RootState;
use crate::types::*;
use basalt_bdev::{DriveRef, Durability};
use basalt_reactor::sync::join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// A pool seen on drives, as `pool import` lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundPool {
    pub name: String,
    pub uuid: Uuid,
    pub scheme: Scheme,
    /// Drives the pool had when the labels were written.
    pub drive_count: u16,
    /// Names of those that were found.
    pub drives: Vec<String>,
}

/// Pools whose labels are on `drives`. Reads only.
pub async fn discover(drives: Vec<DriveRef>) -> Vec<FoundPool> {
    let (scanned, _) = scan(drives).await;
    pools_on(&scanned)
}

fn pools_on(scanned: &[Scanned]) -> Vec<FoundPool> {
    let mut pools: BTreeMap<Uuid, FoundPool> = BTreeMap::new();
    for s in scanned {
        let Ok(label) = &s.label else { continue };
        let pool = pools.entry(label.pool_uuid).or_insert_with(|| FoundPool {
            name: label.pool_name.clone(),
            uuid: label.pool_uuid,
            scheme: label.scheme,
            drive_count: label.drive_count,
            drives: Vec::new(),
        });
        pool.drive_count = pool.drive_count.max(label.drive_count);
        pool.drives.push(s.name().to_string());
    }
    pools.into_values().collect()
}

struct Member {
    index: DriveIndex,
    label: Label,
    scanned: Scanned,
    copy: Option<RootCopy>,
}

/// `which` picks one of several pools by name or UUID.
pub(crate) async fn import(drives: Vec<DriveRef>, which: Option<&str>) -> Result<Pool> {
    let count = drives.len();
    let (mut scanned, mut notes) = scan(drives).await;
    if let Some(which) = which {
        scanned.retain(|s| {
            s.label.as_ref().map_or(true, |l| l.pool_name == which || l.pool_uuid.to_string() == which)
        });
    }
    refuse_duplicates(&scanned)?;
    let pool = the_one_pool(&scanned, count, &notes)?;
    let members = members_of(pool.uuid, scanned, &mut notes).await?;
    let copies: Vec<(DriveIndex, RootCopy)> =
        members.iter().filter_map(|m| Some((m.index, m.copy.clone()?))).collect();
    let Chosen { position, mut state, next_term } = rootlog::choose(&copies)
        .map_err(|why| PoolError::Refused(format!("pool {} cannot be imported: {why}", pool.name)))?;
    if !state.pool.ready {
        return Err(PoolError::Refused(format!(
            "the creation of pool {} was cut short and nothing is in it; create it again with force",
            pool.name
        )));
    }
    refuse_strangers(&state, &members)?;

    let missing: Vec<DriveIndex> =
        state.live_drives().map(|(i, _)| i).filter(|i| !members.iter().any(|m| m.index == *i)).collect();
    refuse_when_too_many_are_missing(&state, &missing)?;
    for m in &members {
        if let Some(out) = state.drives.get_mut(&m.index).and_then(|d| {
            if planted::is(Planted::ReturnedDriveTrusted) {
                d.out = None;
            }
            d.out.as_ref()
        }) {
            notes.push(format!(
                "drive {} ({}) is back after it went out ({}): what it holds is stale and is not used",
                m.index,
                m.scanned.name(),
                out.cause
            ));
        }
    }

    claim(&state, &members, next_term).await?;
    start(state, position.sequence, next_term, members, missing, notes).await
}

/// The pool to import, or words for what is there instead.
fn the_one_pool(scanned: &[Scanned], count: usize, unreadable: &[String]) -> Result<FoundPool> {
    let mut pools = pools_on(scanned);
    match pools.len() {
        1 => Ok(pools.remove(0)),
        0 => {
            let mut why = format!("no pool was found on {count} drives");
            let broken = scanned.iter().filter_map(|s| match &s.label {
                Err(LabelError::Absent) | Ok(_) => None,
                Err(other) => Some(format!("drive {}: {other}", s.name())),
            });
            for reason in unreadable.iter().cloned().chain(broken).take(8) {
                why += "; ";
                why += &reason;
            }
            Err(PoolError::Refused(why + "; check that these are the right drives, or create a pool"))
        }
        _ => {
            let list: Vec<String> =
                pools.iter().map(|p| format!("{} ({}): {}", p.name, p.uuid, p.drives.join(", "))).collect();
            Err(PoolError::Refused(format!(
                "the drives belong to {} pools; give those of one. {}",
                pools.len(),
                list.join("; ")
            )))
        }
    }
}

/// The pool's drives with their root copies; others are named in `notes` and left alone.
async fn members_of(pool: Uuid, scanned: Vec<Scanned>, notes: &mut Vec<String>) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for s in scanned {
        match &s.label {
            Ok(label) => {
                let size_bytes = s.size_bytes();
                if size_bytes < label.layout.size_bytes {
                    return Err(PoolError::Refused(format!(
                        "drive {} is truncated: it has {size_bytes} bytes and its label says {}; restore its size, or leave it out to import without it",
                        s.name(),
                        label.layout.size_bytes
                    )));
                }
                members.push(Member {
                    index: label.drive_index,
                    label: label.clone(),
                    scanned: s,
                    copy: None,
                });
            }
            Err(LabelError::Absent) => {
                let what = foreign_contents(s.bdev.as_ref()).await.ok().flatten();
                let holds = what.map(|w| format!(" and holds {w}")).unwrap_or_default();
                notes.push(format!("drive {} carries no Basalt label{holds}; it is left alone", s.name()));
            }
            Err(error @ (LabelError::Features { .. } | LabelError::Version(_))) => {
                return Err(PoolError::Refused(format!("drive {}: {error}", s.name())));
            }
            Err(error) => notes.push(format!("drive {}: {error}; it is left alone", s.name())),
        }
    }
    members.sort_by_key(|m| m.index);
    let read = members.iter().map(|m| rootlog::read_copy(m.scanned.bdev.as_ref(), &m.label.layout, pool));
    let copies = join_all(read).await;
    for (m, copy) in members.iter_mut().zip(copies) {
        match copy {
            Ok(copy) => m.copy = Some(copy),
            Err(error) => notes.push(format!("the root copy of drive {} cannot be read: {error}", m.index)),
        }
    }
    Ok(members)
}

/// Drives that claim to be of the pool and that the root does not know.
fn refuse_strangers(state: &RootState, members: &[Member]) -> Result<()> {
    for m in members {
        let known = state.drives.get(&m.index);
        if known.is_none_or(|d| d.uuid != m.label.drive_uuid) {
            return Err(PoolError::Refused(format!(
                "drive {} says that it is drive {} of pool {}, and the pool does not know it; leave it out",
                m.scanned.name(),
                m.index,
                state.pool.name
            )));
        }
        let geometry = m.label.layout.geometry;
        if geometry != state.pool.geometry || known.is_some_and(|d| d.aus.count() != m.label.layout.au_count)
        {
            return Err(PoolError::Refused(format!(
                "the label of drive {} contradicts the root log; leave the drive out",
                m.scanned.name()
            )));
        }
    }
    Ok(())
}

fn refuse_when_too_many_are_missing(state: &RootState, missing: &[DriveIndex]) -> Result<()> {
    let gone = |d: DriveIndex| missing.contains(&d) || !state.is_live(d);
    let segments = state
        .segments
        .values()
        .filter(|s| s.members.iter().filter(|a| gone(a.drive)).count() > s.scheme.m as usize);
    let chunks = state.chunks.values().filter(|c| c.members.iter().all(|(d, _)| gone(*d)));
    let (segments, chunks) = (segments.count(), chunks.count());
    if missing.is_empty() || segments + chunks == 0 {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(|d| format!("{d} ({})", state.drives[d].uuid)).collect();
    Err(PoolError::Refused(format!(
        "pool {}: too many drives are missing. {} survives {} failed drives; without drives {} {segments} segments and {chunks} journal chunks are lost. Nothing was changed; bring some of them back",
        state.pool.name,
        state.pool.scheme,
        state.pool.scheme.m,
        list.join(", ")
    )))
}

/// Makes sure that no earlier or later writer uses `term`: see `rootlog`.
async fn claim(state: &RootState, members: &[Member], term: u64) -> Result<()> {
    let set = &state.root_set;
    let asked = members.iter().filter(|m| set.members.contains(&m.index) || set.previous.contains(&m.index));
    let writes = asked.map(|m| async move {
        let block = claim_block(state.pool.uuid, term);
        let done = m.scanned.bdev.write(CLAIM_OFFSET, vec![block], Durability::Durable).await;
        (m.index, done)
    });
    let results = join_all(writes).await;
    for members in [&set.members, &set.previous] {
        let claimed = members.iter().filter(|d| results.iter().any(|(i, r)| i == *d && r.is_ok())).count();
        if !members.is_empty() && claimed < rootlog::read_quorum(members.len()) {
            let error = results.into_iter().find_map(|(_, r)| r.err());
            return Err(error.map_or_else(
                || PoolError::Stopped("too few root copies could be claimed".to_string()),
                PoolError::Bdev,
            ));
        }
    }
    Ok(())
}

async fn start(
    state: RootState,
    sequence: u64,
    term: u64,
    members: Vec<Member>,
    missing: Vec<DriveIndex>,
    notes: Vec<String>,
) -> Result<Pool> {
    let last = state.drives.keys().next_back().map_or(0, |d| d.0 as usize + 1);
    let mut shared_drives: Vec<SharedDrive> =
        (0..last).map(|_| SharedDrive { drive: None, usable: AtomicBool::new(false) }).collect();
    let mut root_drives = BTreeMap::new();
    let mut repair = false;
    let mut label_generation = 0;
    let mut layout: Option<Layout> = None;
    for m in members {
        shared_drives[m.index.0 as usize] = SharedDrive {
            drive: Some(m.scanned.drive.clone()),
            usable: AtomicBool::new(state.is_live(m.index)),
        };
        if !state.is_live(m.index) {
            continue;
        }
        repair |= m.scanned.good_copies.contains(&false)
            || m.label.root_set_generation != state.root_set.generation
            || m.label.root_set != state.root_set.members;
        label_generation = label_generation.max(m.label.generation);
        layout.get_or_insert(m.label.layout);
        let newest_area = m.copy.and_then(|c| c.newest).map_or(1, |n| n.area);
        let drive = RootDrive {
            bdev: m.scanned.bdev,
            layout: m.label.layout,
            uuid: m.label.drive_uuid,
            domain: m.label.domain,
            newest_area,
        };
        root_drives.insert(m.index, drive);
    }
    let Some(layout) = layout else {
        return Err(PoolError::Refused("all drives that were found are recorded as out of the pool".into()));
    };
    let pool = &state.pool;
    let shared = Shared::new(pool.uuid, pool.name.clone(), pool.scheme, layout, shared_drives);
    let mut state = state;
    let mut sequence = sequence;
    for index in missing {
        sequence += 1;
        let cause = "missing at import".to_string();
        apply_own(&mut state, &Record::DriveOut { index, since: sequence, cause });
    }
    let position = Position { term, sequence };
    // The commit task rewrites labels when the root set is not the one that they name.
    let labelled = if repair { 0 } else { state.root_set.generation };
    let root = Root::new(shared.clone(), root_drives, state, position, (label_generation, labelled), notes);
    if let Err(error) = root.settled().await {
        root.close().await;
        return Err(error);
    }
    Pool::attach(shared).await
}
