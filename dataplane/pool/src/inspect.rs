//! A pool's metadata as it lies on the drives, for people: reads only, imports nothing.

use crate::label::{Label, LabelError};
use crate::rootlog::{self, RootCopy};
use crate::scan::scan;
use crate::status::{PoolStatus, status_of};
use crate::types::*;
use basalt_bdev::DriveRef;
use serde::{Deserialize, Serialize};

pub use crate::store::inspect::{
    ChunkView, ColumnView, FooterEntryView, JournalBlockView, JournalView, SegmentView, journal, segment,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelView {
    pub drive: String,
    /// What is wrong, if nothing can be said.
    pub error: Option<String>,
    pub label: Option<LabelFields>,
    /// Which of the four copies agree with it.
    pub good_copies: [bool; 4],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelFields {
    pub pool_uuid: Uuid,
    pub pool_name: String,
    pub drive_uuid: Uuid,
    pub drive_index: DriveIndex,
    pub drive_count: u16,
    pub domain: String,
    pub scheme: Scheme,
    pub size_bytes: u64,
    pub geometry: Geometry,
    pub root_area_offset: [u64; 2],
    pub root_area_bytes: u64,
    pub journal_offset: u64,
    pub journal_slots: u32,
    pub au_offset: u64,
    pub au_count: u32,
    pub generation: u64,
    pub root_set_generation: u64,
    pub root_set: Vec<DriveIndex>,
}

impl From<&Label> for LabelFields {
    fn from(l: &Label) -> LabelFields {
        LabelFields {
            pool_uuid: l.pool_uuid,
            pool_name: l.pool_name.clone(),
            drive_uuid: l.drive_uuid,
            drive_index: l.drive_index,
            drive_count: l.drive_count,
            domain: l.domain.clone(),
            scheme: l.scheme,
            size_bytes: l.layout.size_bytes,
            geometry: l.layout.geometry,
            root_area_offset: l.layout.root_area_offset,
            root_area_bytes: l.layout.root_area_bytes,
            journal_offset: l.layout.journal_offset,
            journal_slots: l.layout.journal_slots,
            au_offset: l.layout.au_offset,
            au_count: l.layout.au_count,
            generation: l.generation,
            root_set_generation: l.root_set_generation,
            root_set: l.root_set.clone(),
        }
    }
}

/// The label of one drive.
pub async fn labels(drive: DriveRef) -> LabelView {
    let name = drive.info().name.clone();
    let (scanned, unreadable) = scan(vec![drive]).await;
    match scanned.first() {
        None => LabelView {
            drive: name,
            error: unreadable.into_iter().next(),
            label: None,
            good_copies: [false; 4],
        },
        Some(s) => LabelView {
            drive: name,
            error: s.label.as_ref().err().map(LabelError::to_string),
            label: s.label.as_ref().ok().map(LabelFields::from),
            good_copies: s.good_copies,
        },
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootCopyView {
    pub drive: String,
    pub index: DriveIndex,
    pub claimed_term: u64,
    /// Of the newest state on it; 0 where there is none.
    pub term: u64,
    pub sequence: u64,
    pub area: Option<usize>,
    /// Checkpoint and batches of the chain.
    pub frames: usize,
    pub bytes: u64,
    pub damaged: bool,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardView {
    pub id: ShardId,
    pub epoch: Epoch,
    pub segments: Vec<SegmentId>,
    pub chunks: Vec<ChunkEntry>,
}

/// The root as an import of the same drives would find it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootView {
    pub copies: Vec<RootCopyView>,
    /// Why an import would not trust what follows; it is then the newest that is there.
    pub error: Option<String>,
    pub status: Option<PoolStatus>,
    pub shards: Vec<ShardView>,
    pub segments: Vec<SegmentEntry>,
    /// (key, length of the value).
    pub meta: Vec<(String, usize)>,
}

/// Reads all root copies on `drives`; those of the first pool found when there are several.
pub async fn root(drives: Vec<DriveRef>) -> RootView {
    let (scanned, _) = scan(drives).await;
    let mut view = RootView {
        copies: vec![],
        error: None,
        status: None,
        shards: vec![],
        segments: vec![],
        meta: vec![],
    };
    let Some(pool) = scanned.iter().find_map(|s| Some(s.label.as_ref().ok()?.pool_uuid)) else {
        view.error = Some("no Basalt label was found on the drives".into());
        return view;
    };
    let mut copies: Vec<(DriveIndex, RootCopy)> = Vec::new();
    let mut names = Vec::new();
    for s in &scanned {
        let Ok(label) = &s.label else { continue };
        if label.pool_uuid != pool {
            continue;
        }
        names.push((label.drive_index, s.name().to_string()));
        let read = rootlog::read_copy(s.bdev.as_ref(), &label.layout, pool).await;
        let copy = read.as_ref().ok();
        let newest = copy.and_then(|c| c.newest.as_ref());
        view.copies.push(RootCopyView {
            drive: s.name().to_string(),
            index: label.drive_index,
            claimed_term: copy.map_or(0, |c| c.claimed_term),
            term: newest.map_or(0, |n| n.position.term),
            sequence: newest.map_or(0, |n| n.position.sequence),
            area: newest.map(|n| n.area),
            frames: newest.map_or(0, |n| n.frames),
            bytes: newest.map_or(0, |n| n.bytes),
            damaged: copy.is_some_and(|c| c.damaged),
            error: read.as_ref().err().map(ToString::to_string),
        });
        if let Ok(copy) = read {
            copies.push((label.drive_index, copy));
        }
    }
    let (state, sequence) = match rootlog::choose(&copies) {
        Ok(chosen) => (chosen.state, chosen.position.sequence),
        Err(why) => {
            view.error = Some(why);
            let newest = copies.into_iter().filter_map(|(_, c)| c.newest).max_by_key(|n| n.position);
            match newest {
                Some(n) => (n.state, n.position.sequence),
                None => return view,
            }
        }
    };
    let name_of = |index| names.iter().find(|(i, _)| *i == index).map(|(_, name)| name.clone());
    view.status = Some(status_of(&state, sequence, None, &[], name_of));
    view.shards = state
        .shards
        .iter()
        .map(|(&id, s)| ShardView {
            id,
            epoch: Epoch(s.epoch),
            segments: s.segments.iter().copied().collect(),
            chunks: s.chunks.iter().filter_map(|c| state.chunks.get(c).cloned()).collect(),
        })
        .collect();
    view.segments = state.segments.into_values().collect();
    view.meta = state.meta.iter().map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), v.len())).collect();
    view
}
