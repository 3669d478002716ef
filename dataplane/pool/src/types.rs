//! Ids, entries of the root, and errors: what the root side and the shard side of the pool both speak.

use basalt_bdev::BdevError;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$m:meta])* $n:ident, $t:ty) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $n(pub $t);
        impl std::fmt::Display for $n {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
id!(/** Index of a drive within its pool; never reused. */ DriveIndex, u16);
id!(/** A segment; never reused. */ SegmentId, u64);
id!(/** A shard, unique in the pool; never reused. */ ShardId, u32);
id!(/** A journal chunk; a reused place gets a new id. */ ChunkId, u64);
id!(/** Ownership generation of a shard, minted in the root log only. */ Epoch, u64);
id!(/** Log sequence number of a shard: counts journal records, starts at 1, never restarts. */ Lsn, u64);

/// 16-byte UUID of a pool or drive (random, version 4), printed in the usual form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

/// k data and m parity units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scheme {
    pub k: u8,
    pub m: u8,
}

/// Which stock a segment comes from: metadata may use the reserve that data may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    Data,
    Meta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SegmentState {
    /// Granted to its shard, which may append.
    Open,
    /// No stripe will ever be added.
    Sealed,
}

/// One allocation unit: slice `au` of drive `drive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuRef {
    pub drive: DriveIndex,
    pub au: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    pub id: SegmentId,
    pub shard: ShardId,
    /// Epoch of the owner it was granted to; a later owner never appends.
    pub epoch: Epoch,
    pub scheme: Scheme,
    pub class: Class,
    pub state: SegmentState,
    /// Erasure code (1: Reed-Solomon, Cauchy, GF(2^8) poly 0x11d).
    pub code: u8,
    /// Encryption key; 0: none.
    pub key_id: u32,
    /// Column c's unit; columns 0..k data, k..k+m parity. Distinct drives.
    pub members: Vec<AuRef>,
}

/// A journal chunk granted to a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    pub id: ChunkId,
    pub shard: ShardId,
    /// Mirrors: (drive, slot in that drive's journal area). Distinct drives.
    pub members: Vec<(DriveIndex, u32)>,
}

/// What a shard wants a journal chunk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkWanted {
    /// So that clients have more room; refused where it would take what takeovers may need.
    Ahead,
    /// The journal cannot go on without it: a takeover, or records that a flush waits for.
    Now,
    /// Instead of this one, which goes back.
    InPlaceOf(ChunkId),
}

/// Sizes that are the same on all drives of a pool, fixed at creation and written in every label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Multiple of [`ROW_BYTES`].
    pub au_bytes: u64,
    pub chunk_bytes: u64,
}

/// 511 data blocks and their checksum block.
pub const ROW_BYTES: u64 = 2 << 20;
pub const ROW_DATA_BLOCKS: u64 = 511;

/// Address of a block inside a segment: column and block within the unit (checksum blocks counted, so it is the physical
/// block of the AU). Blocks at the same `block` of all columns form one codeword. A run of blocks from here stays in the
/// column and never crosses a checksum block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockAddr {
    pub segment: SegmentId,
    pub column: u8,
    pub block: u32,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum PoolError {
    #[error("the pool is full: {0}")]
    NoSpace(String),
    /// More units or copies are gone than the scheme can make up for.
    #[error("data lost: {0}")]
    DataLost(String),
    /// Damage that checksums found and redundancy could not repair.
    #[error("corruption: {0}")]
    Corrupt(String),
    /// This owner's epoch has been superseded.
    #[error("shard {shard}: epoch {ours} is fenced, the owner is at epoch {theirs}")]
    Fenced { shard: ShardId, ours: Epoch, theirs: Epoch },
    /// Writes have stopped (too few drives for the promise, host disk full, ...).
    #[error("writes are stopped: {0}")]
    Stopped(String),
    /// The request itself cannot be granted; the text names the cause and the next step.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Bdev(#[from] BdevError),
}
pub type Result<T> = std::result::Result<T, PoolError>;

impl Uuid {
    /// A fresh version 4 UUID from the reactor's generator.
    pub fn random() -> Uuid {
        let mut b = [0u8; 16];
        basalt_reactor::fill_random(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        Uuid(b)
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}
impl std::fmt::Debug for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Uuid {
    type Err = String;
    fn from_str(s: &str) -> std::result::Result<Uuid, String> {
        let bad = || format!("'{s}' is not a UUID such as 123e4567-e89b-42d3-a456-426614174000");
        let groups: Vec<&str> = s.split('-').collect();
        if groups.iter().map(|g| g.len()).ne([8, 4, 4, 4, 12]) {
            return Err(bad());
        }
        let digits = groups.concat();
        let mut b = [0u8; 16];
        for (i, out) in b.iter_mut().enumerate() {
            let pair = digits.as_bytes().get(2 * i..2 * i + 2).ok_or_else(bad)?;
            let (Some(high), Some(low)) = ((pair[0] as char).to_digit(16), (pair[1] as char).to_digit(16))
            else {
                return Err(bad());
            };
            *out = (high * 16 + low) as u8;
        }
        Ok(Uuid(b))
    }
}
impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Uuid, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Scheme {
    /// Units of a segment, k + m.
    pub fn width(self) -> usize {
        self.k as usize + self.m as usize
    }
}
impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.k, self.m)
    }
}
impl std::str::FromStr for Scheme {
    type Err = String;
    fn from_str(s: &str) -> std::result::Result<Scheme, String> {
        let parsed =
            s.split_once('+').and_then(|(k, m)| Some(Scheme { k: k.parse().ok()?, m: m.parse().ok()? }));
        parsed.ok_or_else(|| format!("'{s}' is not a scheme; write data+parity units, such as 4+2"))
    }
}
