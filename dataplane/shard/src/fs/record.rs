//! The file system's record in the root log, under `fs/NAME`.

use basalt_pool::{ShardId, Uuid};

pub(crate) const PREFIX: &[u8] = b"fs/";
const MAGIC: [u8; 4] = *b"BSFS";
const VERSION: u16 = 1;

/// Little-endian: magic, version u16, incompatible features u16, uuid, root inode u64, shard count u16, then the shards as
/// u32 in slot order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FsRecord {
    pub(crate) uuid: Uuid,
    pub(crate) root_ino: u64,
    /// Entry i owns the inodes of slot i.
    pub(crate) slots: Vec<ShardId>,
}

pub(crate) fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

impl FsRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut v = MAGIC.to_vec();
        v.extend_from_slice(&VERSION.to_le_bytes());
        v.extend_from_slice(&0u16.to_le_bytes());
        v.extend_from_slice(&self.uuid.0);
        v.extend_from_slice(&self.root_ino.to_le_bytes());
        v.extend_from_slice(&(self.slots.len() as u16).to_le_bytes());
        self.slots.iter().for_each(|s| v.extend_from_slice(&s.0.to_le_bytes()));
        v
    }
    /// `None` when it is not of a version that this code knows.
    pub(crate) fn decode(v: &[u8]) -> Option<FsRecord> {
        let (head, shards) = v.split_at_checked(34)?;
        if head[..4] != MAGIC || head[4..6] != VERSION.to_le_bytes() || head[6..8] != [0, 0] {
            return None;
        }
        let count = u16::from_le_bytes(head[32..34].try_into().ok()?);
        let (ids, rest) = shards.as_chunks::<4>();
        if !rest.is_empty() || ids.len() != count as usize || count == 0 {
            return None;
        }
        Some(FsRecord {
            uuid: Uuid(head[8..24].try_into().ok()?),
            root_ino: u64::from_le_bytes(head[24..32].try_into().ok()?),
            slots: ids.iter().map(|id| ShardId(u32::from_le_bytes(*id))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let r = FsRecord { uuid: Uuid([7; 16]), root_ino: 1, slots: vec![ShardId(3), ShardId(0x0102)] };
        let mut golden = b"BSFS\x01\0\0\0".to_vec();
        golden.extend_from_slice(&[7; 16]);
        golden.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(r.encode(), golden);
        assert_eq!(FsRecord::decode(&golden), Some(r));
        for cut in 0..golden.len() {
            assert_eq!(FsRecord::decode(&golden[..cut]), None);
        }
        golden[4] = 2;
        assert_eq!(FsRecord::decode(&golden), None);
    }
}
