//! All planted faults under one name space, and the family that is to find each.

use crate::Family;
use basalt_pool::planted as pool;
use basalt_shard::planted as shard;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Pool(pool::Planted),
    Shard(shard::Planted),
}

impl Planted {
    pub(crate) fn all() -> impl Iterator<Item = Planted> {
        let pool = pool::Planted::ALL.iter().copied().map(Planted::Pool);
        pool.chain(shard::Planted::ALL.iter().copied().map(Planted::Shard))
    }
    pub(crate) fn name(self) -> String {
        match self {
            Planted::Pool(f) => format!("{f:?}"),
            Planted::Shard(f) => format!("{f:?}"),
        }
    }
    pub(crate) fn family(self) -> Family {
        match self {
            Planted::Pool(_) => Family::Pool,
            Planted::Shard(_) => Family::Fs,
        }
    }
}

impl std::str::FromStr for Planted {
    type Err = String;
    fn from_str(name: &str) -> Result<Planted, String> {
        let mut all = Planted::all();
        all.find(|f| f.name() == name)
            .ok_or_else(|| format!("no planted fault {name}; `basalt-sim planted` names them"))
    }
}

/// Switches one on for this thread, or all off.
pub(crate) fn switch(fault: Option<Planted>) {
    pool::set(match fault {
        Some(Planted::Pool(f)) => Some(f),
        _ => None,
    });
    shard::set(match fault {
        Some(Planted::Shard(f)) => Some(f),
        _ => None,
    });
}
