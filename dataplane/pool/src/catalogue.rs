//! Which schemes a set of drives can keep, what each costs and survives, and which one to take.

use crate::geometry::{self, MIN_DRIVE_BYTES};
use crate::types::*;
use serde::{Deserialize, Serialize};

/// One drive to plan with. Drives of one domain (a server, a shelf) may fail together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanDrive {
    pub size_bytes: u64,
    /// `None`: the drive is its own domain.
    pub domain: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedScheme {
    pub scheme: Scheme,
    /// Raw bytes per byte of data, less one, in percent: 4+2 has 50.
    pub overhead_percent: u32,
    /// Bytes of user data, reserve and checksums taken off.
    pub usable_bytes: u64,
    /// In words.
    pub may_fail: String,
    /// What to know before taking it.
    pub notes: Vec<String>,
    pub recommended: bool,
}

/// Most data and parity units of a segment, as the erasure code and the formats have them.
pub const MAX_K: u8 = 32;
pub const MAX_M: u8 = 4;

/// The scheme for this many equal drives.
///
/// | drives | scheme | why |
/// |---|---|---|
/// | 1 | 1+0 | scratch: there is nothing to survive on |
/// | 2, 3, 4 | 1+1, 2+1, 2+1 | one failure; with four drives one is spare |
/// | 5 | 3+2 | from here on two failures |
/// | 6, 7 | 4+2 | seven: one spare |
/// | 8, 9 | 5+2, 6+2 | one spare, so that a failure does not narrow new segments |
/// | 10 and more | 8+2 | a wider stripe gains little and costs longer rebuilds |
///
/// Four drives get 2+1 and not 2+2: root copies on four drives do not survive two missing ones at import.
pub fn recommended(drives: usize) -> Scheme {
    let (k, m) = match drives {
        0 | 1 => (1, 0),
        2 => (1, 1),
        3 | 4 => (2, 1),
        5 => (3, 2),
        6 | 7 => (4, 2),
        8 => (5, 2),
        9 => (6, 2),
        _ => (8, 2),
    };
    Scheme { k, m }
}

/// `Err` says why `scheme` cannot be kept on this many drives, and what can.
pub fn check(scheme: Scheme, drives: usize) -> Result<()> {
    let Scheme { k, m } = scheme;
    let refuse = |why: String| Err(PoolError::Refused(why));
    let advice =
        format!("with {drives} drive{} take {}", if drives == 1 { "" } else { "s" }, recommended(drives));
    if drives == 0 {
        return refuse("no drives were given; name at least one".into());
    }
    if k == 0 {
        return refuse(format!("scheme {scheme}: at least one data unit is needed; {advice}"));
    }
    if k > MAX_K {
        return refuse(format!("scheme {scheme}: at most {MAX_K} data units are supported; {advice}"));
    }
    if m > MAX_M {
        return refuse(format!("scheme {scheme}: at most {MAX_M} parity units are supported; {advice}"));
    }
    if m == 0 && k > 1 {
        return refuse(format!(
            "scheme {scheme}: one failed drive of {drives} would lose everything; {advice}, or 1+0 for scratch data"
        ));
    }
    if scheme.width() > drives {
        return refuse(format!(
            "scheme {scheme} needs {} drives, one for each unit, and there are {drives}; {advice}, or add {}",
            scheme.width(),
            scheme.width() - drives
        ));
    }
    Ok(())
}

/// What a scheme survives on so many drives, in words.
pub fn may_fail(scheme: Scheme, drives: usize) -> String {
    match scheme.m {
        0 => "nothing: any failed drive loses data".to_string(),
        1 => "any one drive".to_string(),
        m if drives >= scheme.width() => format!("any {m} drives at once"),
        m => format!("any {m} drives"),
    }
}

/// All schemes worth listing for the drives, the recommended one first.
pub fn plan(drives: &[PlanDrive]) -> Result<Vec<PlannedScheme>> {
    if drives.is_empty() {
        return Err(PoolError::Refused("no drives were given; name at least one".into()));
    }
    if let Some((n, d)) = drives.iter().enumerate().find(|(_, d)| d.size_bytes < MIN_DRIVE_BYTES) {
        return Err(PoolError::Refused(too_small(&format!("drive {}", n + 1), d.size_bytes)));
    }
    let count = drives.len();
    let best = recommended(count);
    let mut schemes = vec![best, Scheme { k: 1, m: 0 }];
    for m in 1..=MAX_M.min(count.saturating_sub(1) as u8) {
        for spare in 0..2 {
            let k = count.saturating_sub(m as usize + spare).min(if count > 20 { 16 } else { 8 });
            // More parity than data is not worth its price but on the fewest drives.
            if k >= 1 && (k >= m as usize || count <= 2) {
                schemes.push(Scheme { k: k as u8, m });
            }
        }
    }
    schemes.sort_by_key(|s| (*s != best, s.m == 0, s.m, s.k));
    schemes.dedup();
    Ok(schemes.into_iter().map(|s| describe(s, drives, s == best)).collect())
}

fn describe(scheme: Scheme, drives: &[PlanDrive], recommended: bool) -> PlannedScheme {
    let sizes: Vec<u64> = drives.iter().map(|d| d.size_bytes).collect();
    let (count, width) = (drives.len(), scheme.width());
    let mut notes = Vec::new();
    if count > width {
        notes.push(format!(
            "{} of {count} drives may be out before new segments become narrower",
            count - width
        ));
    } else if scheme.m > 0 {
        notes.push("no spare: after a failure new segments are narrower".to_string());
    }
    if scheme.m > 0 && count < 2 * scheme.m as usize + 1 {
        let at_import = count - (count / 2 + 1);
        notes.push(format!(
            "a failure of {} of the {count} drives leaves too few for new copies, so writes stop then while reads go on; an import needs {} drives, so at most {at_import} may be missing then",
            scheme.m,
            count - at_import
        ));
    }
    if sizes.iter().min() != sizes.iter().max() {
        notes.push(
            "the drives differ in size: what the larger ones have more is used only as far as units pair up"
                .into(),
        );
    }
    if scheme.m > 0 {
        notes.extend(domain_note(scheme, drives));
    }
    PlannedScheme {
        scheme,
        overhead_percent: (scheme.m as u32 * 100).div_ceil(scheme.k.max(1) as u32),
        usable_bytes: usable_bytes(&sizes, scheme),
        may_fail: may_fail(scheme, count),
        notes,
        recommended,
    }
}

fn domain_note(scheme: Scheme, drives: &[PlanDrive]) -> Option<String> {
    let mut shared: Vec<&str> = drives.iter().filter_map(|d| d.domain.as_deref()).collect();
    shared.sort_unstable();
    let largest = shared.chunk_by(|a, b| a == b).max_by_key(|c| c.len())?;
    (largest.len() > scheme.m as usize).then(|| {
        format!(
            "domain {} holds {} drives, more than {scheme} makes up for: the domain as a whole must not fail",
            largest[0],
            largest.len()
        )
    })
}

fn usable_bytes(sizes: &[u64], scheme: Scheme) -> u64 {
    use crate::record::Record;
    use crate::state::{PoolRecord, RootState};
    let layouts = geometry::layouts(sizes, scheme);
    let Some(first) = layouts.first() else { return 0 };
    let pool = PoolRecord {
        uuid: Uuid([0; 16]),
        name: String::new(),
        scheme,
        geometry: first.geometry,
        ready: true,
    };
    let mut state = RootState::new(pool);
    for (n, l) in layouts.iter().enumerate() {
        let added = state.apply(&Record::DriveAdded {
            index: DriveIndex(n as u16),
            uuid: Uuid([0; 16]),
            domain: String::new(),
            size_bytes: l.size_bytes,
            au_count: l.au_count,
            journal_slots: l.journal_slots,
        });
        if added.is_err() {
            return 0;
        }
    }
    state.capacity().total_bytes
}

pub(crate) fn too_small(name: &str, size_bytes: u64) -> String {
    format!(
        "{name} has {} MiB and a pool drive needs at least {} MiB; leave it out or take a larger one",
        size_bytes / geometry::MIB,
        MIN_DRIVE_BYTES / geometry::MIB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(count: usize) -> Vec<PlanDrive> {
        vec![PlanDrive { size_bytes: 2 << 30, domain: None }; count]
    }

    #[test]
    fn every_recommendation_can_be_kept() {
        for count in 1..100 {
            check(recommended(count), count).unwrap();
            let planned = plan(&equal(count)).unwrap();
            assert!(planned[0].recommended);
            assert_eq!(planned.iter().filter(|p| p.recommended).count(), 1);
            for p in planned {
                check(p.scheme, count).unwrap();
                assert!(p.usable_bytes > 0);
                assert!(
                    p.usable_bytes < count as u64 * (2 << 30) * p.scheme.k as u64 / p.scheme.width() as u64
                );
            }
        }
        assert_eq!(recommended(6), Scheme { k: 4, m: 2 });
    }

    #[test]
    fn impossible_schemes_are_refused_with_a_way_out() {
        for (text, drives, expect) in [
            ("4+2", 5, "needs 6 drives"),
            ("0+2", 5, "at least one data unit"),
            ("33+2", 50, "at most 32"),
            ("8+5", 50, "at most 4"),
            ("4+0", 4, "would lose everything"),
            ("1+0", 0, "no drives"),
        ] {
            let error = check(text.parse().unwrap(), drives).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(drives == 0 || error.contains("take "), "{error}");
        }
        check(Scheme { k: 1, m: 0 }, 4).unwrap();
    }

    #[test]
    fn small_drives_and_shared_domains_are_named() {
        assert!(
            plan(&[PlanDrive { size_bytes: 1 << 20, domain: None }])
                .unwrap_err()
                .to_string()
                .contains("256 MiB")
        );
        let mut drives = equal(6);
        drives.iter_mut().take(3).for_each(|d| d.domain = Some("shelf-1".into()));
        assert!(plan(&drives).unwrap()[0].notes.iter().any(|n| n.contains("shelf-1")));
    }
}
