//! What an operator sees of a pool.

use crate::catalogue;
use crate::pool::{Capacity, DriveState};
use crate::state::RootState;
use crate::types::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    pub name: String,
    pub uuid: Uuid,
    pub scheme: Scheme,
    /// What new segments get now; `None` while writes are stopped for lack of drives.
    pub effective_scheme: Option<Scheme>,
    /// "healthy", "degraded", "degraded, no spare" or "writes stopped: ...".
    pub health: String,
    /// What may fail in the pool's scheme, in words.
    pub may_fail: String,
    /// Why it is not healthy, and anything else worth knowing.
    pub reasons: Vec<String>,
    pub drives: Vec<DriveStatus>,
    pub segments: SegmentCounts,
    pub journal_slots: u64,
    pub journal_slots_used: u64,
    pub shards: usize,
    pub capacity: Capacity,
    pub geometry: Geometry,
    /// Drives that hold copies of the root log.
    pub root_copies: Vec<DriveIndex>,
    pub root_sequence: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriveStatus {
    pub index: DriveIndex,
    pub uuid: Uuid,
    /// As the node calls it; empty when missing.
    pub name: String,
    pub domain: String,
    pub state: DriveState,
    /// Why it is out.
    pub cause: Option<String>,
    /// Root sequence since which it is out.
    pub out_since: Option<u64>,
    pub size_bytes: u64,
    pub aus: u32,
    pub aus_used: u32,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct SegmentCounts {
    pub open: usize,
    pub sealed: usize,
    /// That can still be granted at the effective scheme, reserve included.
    pub free: u64,
    pub reserve: u64,
    /// Readable with the help of parity only.
    pub reduced: usize,
    /// With more members gone than parity makes up for.
    pub lost: usize,
}

/// `name_of` gives the node's name of a drive that is present.
pub(crate) fn status_of(
    state: &RootState,
    root_sequence: u64,
    stopped: Option<&str>,
    notes: &[String],
    name_of: impl Fn(DriveIndex) -> Option<String>,
) -> PoolStatus {
    let drives: Vec<DriveStatus> = state
        .drives
        .iter()
        .map(|(&index, d)| {
            let name = name_of(index);
            DriveStatus {
                index,
                uuid: d.uuid,
                domain: d.domain.clone(),
                state: match (&d.out, &name) {
                    (None, _) => DriveState::Live,
                    (Some(_), Some(_)) => DriveState::Out,
                    (Some(_), None) => DriveState::Missing,
                },
                name: name.unwrap_or_default(),
                cause: d.out.as_ref().map(|o| o.cause.clone()),
                out_since: d.out.as_ref().map(|o| o.since),
                size_bytes: d.size_bytes,
                aus: d.aus.count(),
                aus_used: d.aus.used(),
            }
        })
        .collect();
    let mut segments = SegmentCounts {
        free: state.free_segments(),
        reserve: state.reserve_segments(),
        ..Default::default()
    };
    for s in state.segments.values() {
        match s.state {
            SegmentState::Open => segments.open += 1,
            SegmentState::Sealed => segments.sealed += 1,
        }
        match s.members.iter().filter(|a| !state.is_live(a.drive)).count() {
            0 => {}
            gone if gone <= s.scheme.m as usize => segments.reduced += 1,
            _ => segments.lost += 1,
        }
    }

    let scheme = state.pool.scheme;
    let live = state.live_drives().count();
    let stop = stopped.map(str::to_string).or_else(|| state.stop_reason());
    let mut reasons = Vec::new();
    for d in &drives {
        if let Some(cause) = &d.cause {
            let name = if d.name.is_empty() { String::new() } else { format!(" ({})", d.name) };
            reasons.push(format!("drive {}{name} is out: {cause}", d.index));
        }
    }
    if segments.reduced > 0 {
        reasons.push(format!("{} segments are read with the help of parity", segments.reduced));
    }
    if segments.lost > 0 {
        reasons.push(format!("{} segments have lost more than their parity makes up for", segments.lost));
    }
    let health = match (&stop, state.effective_scheme()) {
        (Some(why), _) => format!("writes stopped: {why}"),
        (None, Some(effective)) if effective != scheme => {
            reasons.push(format!(
                "{live} live drives are fewer than {scheme} needs, so new segments are {effective}"
            ));
            "degraded, no spare".to_string()
        }
        (None, _) if live < drives.len() => "degraded".to_string(),
        (None, _) => "healthy".to_string(),
    };
    reasons.extend(notes.iter().cloned());
    PoolStatus {
        name: state.pool.name.clone(),
        uuid: state.pool.uuid,
        scheme,
        effective_scheme: state.effective_scheme(),
        health,
        may_fail: catalogue::may_fail(scheme, drives.len()),
        reasons,
        drives,
        segments,
        journal_slots: state.live_drives().map(|(_, d)| d.slots.count() as u64).sum(),
        journal_slots_used: state.live_drives().map(|(_, d)| d.slots.used() as u64).sum(),
        shards: state.shards.len(),
        capacity: state.capacity(),
        geometry: state.pool.geometry,
        root_copies: state.root_set.members.clone(),
        root_sequence,
    }
}
