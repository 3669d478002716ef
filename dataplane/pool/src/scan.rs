//! Looking at drives without changing them: labels and what else they may hold.

use crate::geometry::Layout;
use crate::label::{LABEL_BYTES, LABEL_COPIES, Label, LabelError};
use crate::types::*;
use basalt_bdev::{Bdev, DriveRef};
use basalt_reactor::sync::join_all;
use std::collections::BTreeMap;
use std::rc::Rc;

pub(crate) struct Scanned {
    pub(crate) drive: DriveRef,
    pub(crate) bdev: Rc<dyn Bdev>,
    pub(crate) label: std::result::Result<Label, LabelError>,
    /// Which copies say just that.
    pub(crate) good_copies: [bool; LABEL_COPIES],
}

impl Scanned {
    pub(crate) fn name(&self) -> &str {
        &self.drive.info().name
    }
    pub(crate) fn size_bytes(&self) -> u64 {
        self.drive.info().size_bytes
    }
}

async fn scan_drive(drive: DriveRef) -> std::result::Result<Scanned, String> {
    let name = drive.info().name.clone();
    let bdev = drive.open().map_err(|e| e.to_string())?;
    let size_bytes = drive.info().size_bytes;
    let mut copies: Vec<std::result::Result<Label, LabelError>> = Vec::new();
    let mut unreadable = 0;
    for (n, offset) in Layout::label_offsets(size_bytes).into_iter().enumerate() {
        if offset + LABEL_BYTES as u64 > size_bytes {
            copies.push(Err(LabelError::Absent));
            continue;
        }
        copies.push(match bdev.read(offset, LABEL_BYTES).await {
            Ok(bytes) => Label::decode(&bytes, n),
            Err(_) => {
                unreadable += 1;
                Err(LabelError::Damaged("unreadable"))
            }
        });
    }
    if unreadable == LABEL_COPIES {
        return Err(format!("drive {name}: nothing can be read from it"));
    }
    let best = copies.iter().flatten().max_by_key(|l| l.generation).cloned();
    let good_copies = std::array::from_fn(|n| best.is_some() && copies[n].as_ref().ok() == best.as_ref());
    let label = best.ok_or_else(|| {
        // The most telling reason: a newer format, then damage, then nothing there.
        let weight = |e: &LabelError| match e {
            LabelError::Features { .. } | LabelError::Version(_) => 2,
            LabelError::Damaged(_) => 1,
            LabelError::Absent => 0,
        };
        let errors = copies.into_iter().filter_map(std::result::Result::err);
        errors.max_by_key(weight).unwrap_or(LabelError::Absent)
    });
    Ok(Scanned { drive, bdev, label, good_copies })
}

/// Labels of all drives that can be read, and words about those that cannot.
pub(crate) async fn scan(drives: Vec<DriveRef>) -> (Vec<Scanned>, Vec<String>) {
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    for result in join_all(drives.into_iter().map(scan_drive)).await {
        match result {
            Ok(s) => found.push(s),
            Err(why) => unreadable.push(why),
        }
    }
    (found, unreadable)
}

/// One name given twice, or one drive reachable by two names.
pub(crate) fn refuse_duplicates(scanned: &[Scanned]) -> Result<()> {
    let mut names = BTreeMap::new();
    let mut uuids = BTreeMap::new();
    for s in scanned {
        if names.insert(s.name().to_string(), ()).is_some() {
            return Err(PoolError::Refused(format!(
                "drive {} is given twice; name each drive once",
                s.name()
            )));
        }
        if let Ok(label) = &s.label
            && let Some(other) = uuids.insert(label.drive_uuid, s.name().to_string())
        {
            return Err(PoolError::Refused(format!(
                "drives {other} and {} are duplicates: both carry the label of drive {} of pool {}; leave one of them out",
                s.name(),
                label.drive_index,
                label.pool_name
            )));
        }
    }
    Ok(())
}
