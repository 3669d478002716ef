//! Making a pool: everything is checked before the first byte is written.

use crate::catalogue;
use crate::geometry::{self, HEAD_BYTES, Layout, MIN_DRIVE_BYTES, TAIL_BYTES};
use crate::label::{LabelError, MAX_NAME_BYTES};
use crate::pool::{Pool, PoolSpec};
use crate::probe::foreign_contents;
use crate::record::Record;
use crate::root::{Root, RootDrive};
use crate::rootlog::{Position, claim_block};
use crate::scan::{Scanned, refuse_duplicates, scan};
use crate::shared::{Shared, SharedDrive};
use crate::state::{PoolRecord, RootState};
use crate::types::*;
use basalt_bdev::{Bdev, DriveRef, Durability};
use basalt_reactor::buf::zeroes;
use basalt_reactor::sync::join_all;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// Most drives in a pool.
pub const MAX_DRIVES: usize = 1024;
/// Zeroes are written in pieces of this size.
const PREWRITE_BYTES: u64 = 2 << 20;
const ZEROES_BYTES: usize = 128 << 10;
/// The first term of a pool.
const FIRST_TERM: u64 = 1;

fn check_name(name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits {
        return Ok(());
    }
    Err(PoolError::Refused(format!(
        "'{name}' is no pool name; take 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', a letter or digit first"
    )))
}

/// What stands against overwriting the drive, if anything.
async fn occupied(s: &Scanned) -> Result<Option<String>> {
    Ok(match &s.label {
        Ok(label) => Some(format!(
            "drive {} belongs to pool {} ({}) as its drive {}",
            s.name(),
            label.pool_name,
            label.pool_uuid,
            label.drive_index
        )),
        Err(LabelError::Absent) => {
            foreign_contents(s.bdev.as_ref()).await?.map(|what| format!("drive {} holds {what}", s.name()))
        }
        Err(why) => Some(format!("drive {}: {why}", s.name())),
    })
}

pub(crate) async fn create(
    drives: Vec<DriveRef>,
    spec: &PoolSpec,
    progress: impl Fn(u64, u64),
) -> Result<Pool> {
    let refuse = |why: String| Err(PoolError::Refused(why));
    check_name(&spec.name)?;
    if drives.len() > MAX_DRIVES {
        return refuse(format!("{} drives were given and a pool takes at most {MAX_DRIVES}", drives.len()));
    }
    let scheme = spec.scheme.unwrap_or_else(|| catalogue::recommended(drives.len()));
    catalogue::check(scheme, drives.len())?;
    if let Some(small) = drives.iter().find(|d| d.info().size_bytes < MIN_DRIVE_BYTES) {
        return refuse(catalogue::too_small(
            &format!("drive {}", small.info().name),
            small.info().size_bytes,
        ));
    }
    let (scanned, unreadable) = scan(drives).await;
    if let Some(why) = unreadable.into_iter().next() {
        return refuse(format!("{why}; leave it out or replace it"));
    }
    refuse_duplicates(&scanned)?;
    if !spec.force {
        for s in &scanned {
            if let Some(what) = occupied(s).await? {
                return refuse(format!(
                    "{what}; nothing was changed. Give other drives, or force to overwrite what is there"
                ));
            }
        }
    }

    let sizes: Vec<u64> = scanned.iter().map(Scanned::size_bytes).collect();
    let layouts = geometry::layouts(&sizes, scheme);
    let pool_uuid = Uuid::random();
    prepare(&scanned, &layouts, pool_uuid, &progress).await?;

    let (state, root_drives, shared_drives) = first_state(&scanned, &layouts, pool_uuid, scheme, spec);
    let shared = Shared::new(pool_uuid, spec.name.clone(), scheme, layouts[0], shared_drives);
    let first = Position { term: FIRST_TERM, sequence: 0 };
    let root = Root::new(shared.clone(), root_drives, state, first, (0, 0), size_notes(&sizes));
    let finish = async {
        root.settled().await?;
        // Labels come when the root can be read, and the pool counts as made when all have one.
        root.write_labels().await;
        root.mark_ready().await
    };
    if let Err(error) = finish.await {
        root.close().await;
        return Err(error);
    }
    Pool::attach(shared).await
}

fn size_notes(sizes: &[u64]) -> Vec<String> {
    if sizes.iter().min() == sizes.iter().max() {
        return Vec::new();
    }
    vec![
        "the drives differ in size; what the larger ones have more is used only as far as units pair up"
            .to_string(),
    ]
}

/// Clears what was there, claims the root copies and prewrites the journal areas.
async fn prepare(
    scanned: &[Scanned],
    layouts: &[Layout],
    pool_uuid: Uuid,
    progress: &impl Fn(u64, u64),
) -> Result<()> {
    let all: u64 = layouts.iter().map(|l| l.journal_slots as u64 * l.geometry.chunk_bytes).sum();
    let done = Cell::new(0);
    progress(0, all);
    let each = scanned.iter().zip(layouts).map(|(s, l)| {
        let done = &done;
        async move {
            let bdev = s.bdev.as_ref();
            // Labels and magic numbers of former contents, before anything new makes sense.
            write_zeroes(bdev, 0, HEAD_BYTES, |_| ()).await?;
            write_zeroes(bdev, l.size_bytes / 4096 * 4096 - TAIL_BYTES, TAIL_BYTES, |_| ()).await?;
            // Measured: durable writes into prewritten space take two thirds of the time of those into holes.
            let journal_bytes = l.journal_slots as u64 * l.geometry.chunk_bytes;
            write_zeroes(bdev, l.journal_offset, journal_bytes, |bytes| {
                done.set(done.get() + bytes);
                progress(done.get(), all);
            })
            .await?;
            bdev.flush().await?;
            let claim = claim_block(pool_uuid, FIRST_TERM);
            bdev.write(geometry::CLAIM_OFFSET, vec![claim], Durability::Durable).await
        }
    });
    join_all(each).await.into_iter().collect::<basalt_bdev::Result<()>>()?;
    Ok(())
}

async fn write_zeroes(
    bdev: &dyn Bdev,
    offset: u64,
    len: u64,
    wrote: impl Fn(u64),
) -> basalt_bdev::Result<()> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = (end - at).min(PREWRITE_BYTES);
        let mut data = vec![zeroes(ZEROES_BYTES); piece as usize / ZEROES_BYTES];
        let rest = piece as usize % ZEROES_BYTES;
        if rest > 0 {
            data.push(zeroes(rest));
        }
        bdev.write(at, data, Durability::Cached).await?;
        at += piece;
        wrote(piece);
    }
    Ok(())
}

type FirstState = (RootState, BTreeMap<DriveIndex, RootDrive>, Vec<SharedDrive>);

fn first_state(
    scanned: &[Scanned],
    layouts: &[Layout],
    pool_uuid: Uuid,
    scheme: Scheme,
    spec: &PoolSpec,
) -> FirstState {
    let mut state = RootState::new(PoolRecord {
        uuid: pool_uuid,
        name: spec.name.clone(),
        scheme,
        geometry: layouts[0].geometry,
        ready: false,
    });
    let mut root_drives = BTreeMap::new();
    let mut shared_drives = Vec::new();
    for (n, (s, l)) in scanned.iter().zip(layouts).enumerate() {
        let index = DriveIndex(n as u16);
        // On one node every drive is a domain of its own.
        let (uuid, domain) = (Uuid::random(), format!("drive-{n}"));
        let added = Record::DriveAdded {
            index,
            uuid,
            domain: domain.clone(),
            size_bytes: l.size_bytes,
            au_count: l.au_count,
            journal_slots: l.journal_slots,
        };
        crate::allocate::apply_own(&mut state, &added);
        root_drives
            .insert(index, RootDrive { bdev: s.bdev.clone(), layout: *l, uuid, domain, newest_area: 1 });
        shared_drives.push(SharedDrive { drive: Some(s.drive.clone()), usable: AtomicBool::new(true) });
    }
    let members = state.wanted_root_set();
    crate::allocate::apply_own(&mut state, &Record::RootSet { generation: 1, members, previous: Vec::new() });
    (state, root_drives, shared_drives)
}
