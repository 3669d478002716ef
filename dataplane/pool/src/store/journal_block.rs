//! The journal block on media: a 256-byte header, then records, padded to 4 KiB.
//!
//! Everything that decides whether a block belongs is in its header: pool, shard, chunk id, epoch, place in the chunk, the LSN
//! it starts with and the CRC of the header before it. The first block of a chunk links back: which chunk the journal
//! came from, where it ended there and who holds it.

use super::checksum::{BLOCK, crc32c};
use crate::types::{ChunkId, DriveIndex, Epoch, Lsn, ShardId, Uuid};
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const HEADER_BYTES: usize = 256;
/// Largest block, header included. Two fit in no 2 MiB chunk but one always does.
pub(crate) const MAX_BLOCK_BYTES: usize = (1 << 20) + (128 << 10);
/// Framing of one record.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// Members a link can name; the pool's m is at most [`basalt_erasure::MAX_PARITY`].
pub(crate) const MAX_MEMBERS: usize = 8;
const _: () = assert!(basalt_erasure::MAX_PARITY < MAX_MEMBERS);

const MAGIC: [u8; 8] = *b"BSLTJBLK";
const VERSION: u16 = 1;

/// First block of its chunk; the link fields hold.
const FLAG_FIRST: u16 = 1;
/// Part of what a new owner rewrites under its epoch before it serves. Worth nothing until the block flagged
/// [`FLAG_TAKEN_OVER`] is there too.
const FLAG_TAKEOVER: u16 = 2;
/// The last block of that.
const FLAG_TAKEN_OVER: u16 = 4;
/// The block's first LSN is beyond its predecessor's last plus one: a new epoch leaves a gap.
const FLAG_JUMP: u16 = 8;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawMember {
    drive: U16,
    reserved: U16,
    slot: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    header_bytes: U16,
    members: U16,
    pool: [u8; 16],
    chunk: U64,
    epoch: U64,
    /// Counts the chunks of an epoch in the order they were begun.
    chunk_seq: U64,
    shard: U32,
    /// Place among the blocks of the chunk.
    index: U32,
    first_lsn: U64,
    committed_lsn: U64,
    count: U32,
    payload_bytes: U32,
    payload_crc: U32,
    /// `header_crc` of the block before, in this chunk or the linked one; 0 at the journal's beginning.
    previous_crc: U32,
    link_chunk: U64,
    link_last_lsn: U64,
    link_end: U32,
    reserved: U32,
    link_members: [RawMember; MAX_MEMBERS],
    reserved_2: [u8; 68],
    header_crc: U32,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// What every block of a journal must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pool: Uuid,
    pub(crate) shard: ShardId,
}

/// Where a journal has come to: the end of its newest block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// `None` at the very beginning.
    pub(crate) chunk: Option<ChunkId>,
    pub(crate) members: Vec<(DriveIndex, u32)>,
    /// Byte offset in the chunk.
    pub(crate) end: u32,
    pub(crate) last_lsn: Lsn,
    /// Header CRC of that block.
    pub(crate) crc: u32,
}

impl Tail {
    pub(crate) fn beginning() -> Tail {
        Tail { chunk: None, members: Vec::new(), end: 0, last_lsn: Lsn(0), crc: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RecordKind {
    /// The caller's.
    Plain,
    Checkpoint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) lsn: Lsn,
    pub(crate) kind: RecordKind,
    pub(crate) data: Bytes,
}
impl Record {
    pub(crate) fn framed_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.data.len()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) takeover: bool,
    pub(crate) taken_over: bool,
    pub(crate) jump: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) chunk: ChunkId,
    pub(crate) epoch: Epoch,
    pub(crate) chunk_seq: u64,
    pub(crate) index: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) committed_lsn: Lsn,
    pub(crate) count: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) previous_crc: u32,
    pub(crate) flags: Flags,
    /// First block of a chunk only; its `crc` is `previous_crc`.
    pub(crate) link: Option<Tail>,
    pub(crate) header_crc: u32,
}

impl Header {
    /// LSN before the first when the block is empty.
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.count as u64 - 1)
    }
    pub(crate) fn block_bytes(&self) -> usize {
        (HEADER_BYTES + self.payload_bytes as usize).next_multiple_of(BLOCK)
    }

    /// Reads a header that is sound and of this journal.
    pub(crate) fn decode(bytes: &[u8], identity: &Identity) -> Option<Header> {
        let (raw, _) = RawHeader::read_from_prefix(bytes).ok()?;
        let flags = raw.flags.get();
        let known = FLAG_FIRST | FLAG_TAKEOVER | FLAG_TAKEN_OVER | FLAG_JUMP;
        let members = raw.members.get() as usize;
        let sound = raw.magic == MAGIC
            && raw.header_crc.get() == crc32c(&raw.as_bytes()[..HEADER_BYTES - 4])
            && raw.version.get() == VERSION
            && raw.header_bytes.get() as usize == HEADER_BYTES
            && flags & !known == 0
            && raw.pool == identity.pool.0
            && raw.shard.get() == identity.shard.0
            && members <= MAX_MEMBERS
            && raw.first_lsn.get() >= 1
            && raw.first_lsn.get() < u64::MAX / 2
            && raw.payload_bytes.get() as usize <= MAX_BLOCK_BYTES - HEADER_BYTES
            && raw.count.get() as usize * RECORD_HEADER_BYTES <= raw.payload_bytes.get() as usize
            && (flags & FLAG_FIRST != 0) == (raw.index.get() == 0);
        if !sound {
            return None;
        }
        let link = (flags & FLAG_FIRST != 0).then(|| Tail {
            chunk: (raw.link_chunk.get() != 0).then(|| ChunkId(raw.link_chunk.get())),
            members: raw.link_members[..members]
                .iter()
                .map(|m| (DriveIndex(m.drive.get()), m.slot.get()))
                .collect(),
            end: raw.link_end.get(),
            last_lsn: Lsn(raw.link_last_lsn.get()),
            crc: raw.previous_crc.get(),
        });
        Some(Header {
            chunk: ChunkId(raw.chunk.get()),
            epoch: Epoch(raw.epoch.get()),
            chunk_seq: raw.chunk_seq.get(),
            index: raw.index.get(),
            first_lsn: Lsn(raw.first_lsn.get()),
            committed_lsn: Lsn(raw.committed_lsn.get()),
            count: raw.count.get(),
            payload_bytes: raw.payload_bytes.get(),
            payload_crc: raw.payload_crc.get(),
            previous_crc: raw.previous_crc.get(),
            flags: Flags {
                takeover: flags & FLAG_TAKEOVER != 0,
                taken_over: flags & FLAG_TAKEN_OVER != 0,
                jump: flags & FLAG_JUMP != 0,
            },
            link,
            header_crc: raw.header_crc.get(),
        })
    }

    fn encode(&mut self, identity: &Identity) -> [u8; HEADER_BYTES] {
        let mut flags = 0;
        for (set, flag) in [
            (self.link.is_some(), FLAG_FIRST),
            (self.flags.takeover, FLAG_TAKEOVER),
            (self.flags.taken_over, FLAG_TAKEN_OVER),
            (self.flags.jump, FLAG_JUMP),
        ] {
            if set {
                flags |= flag;
            }
        }
        let mut raw = RawHeader {
            magic: MAGIC,
            version: U16::new(VERSION),
            flags: U16::new(flags),
            header_bytes: U16::new(HEADER_BYTES as u16),
            members: U16::new(0),
            pool: identity.pool.0,
            chunk: U64::new(self.chunk.0),
            epoch: U64::new(self.epoch.0),
            chunk_seq: U64::new(self.chunk_seq),
            shard: U32::new(identity.shard.0),
            index: U32::new(self.index),
            first_lsn: U64::new(self.first_lsn.0),
            committed_lsn: U64::new(self.committed_lsn.0),
            count: U32::new(self.count),
            payload_bytes: U32::new(self.payload_bytes),
            payload_crc: U32::new(self.payload_crc),
            previous_crc: U32::new(self.previous_crc),
            link_chunk: U64::new(0),
            link_last_lsn: U64::new(0),
            link_end: U32::new(0),
            reserved: U32::new(0),
            link_members: [RawMember { drive: U16::new(0), reserved: U16::new(0), slot: U32::new(0) };
                MAX_MEMBERS],
            reserved_2: [0; 68],
            header_crc: U32::new(0),
        };
        if let Some(link) = &self.link {
            raw.link_chunk.set(link.chunk.map_or(0, |c| c.0));
            raw.link_last_lsn.set(link.last_lsn.0);
            raw.link_end.set(link.end);
            raw.members.set(link.members.len().min(MAX_MEMBERS) as u16);
            for (to, (drive, slot)) in raw.link_members.iter_mut().zip(&link.members) {
                to.drive.set(drive.0);
                to.slot.set(*slot);
            }
        }
        self.header_crc = crc32c(&raw.as_bytes()[..HEADER_BYTES - 4]);
        raw.header_crc.set(self.header_crc);
        let mut out = [0; HEADER_BYTES];
        out.copy_from_slice(raw.as_bytes());
        out
    }
}

/// Builds a block. Fills in `count`, payload and CRCs of `header`.
pub(crate) fn encode_block<'a>(
    header: &mut Header,
    identity: &Identity,
    records: impl Iterator<Item = &'a Record> + Clone,
) -> Bytes {
    let payload: usize = records.clone().map(Record::framed_bytes).sum();
    let mut buf = DmaBuf::zeroed((HEADER_BYTES + payload).next_multiple_of(BLOCK));
    let mut at = HEADER_BYTES;
    header.count = 0;
    for r in records {
        buf[at..at + 4].copy_from_slice(&(r.data.len() as u32).to_le_bytes());
        buf[at + 4] = match r.kind {
            RecordKind::Plain => 0,
            RecordKind::Checkpoint => 1,
        };
        at += RECORD_HEADER_BYTES;
        buf[at..at + r.data.len()].copy_from_slice(&r.data);
        at += r.data.len();
        header.count += 1;
    }
    header.payload_bytes = payload as u32;
    header.payload_crc = crc32c(&buf[HEADER_BYTES..at]);
    let encoded = header.encode(identity);
    buf[..HEADER_BYTES].copy_from_slice(&encoded);
    buf.freeze()
}

/// Records of a block whose header is sound; `None` when the payload is damaged. `block` holds at least
/// `header.block_bytes()`.
pub(crate) fn decode_records(header: &Header, block: &Bytes) -> Option<Vec<Record>> {
    let end = HEADER_BYTES + header.payload_bytes as usize;
    if block.len() < end || crc32c(&block[HEADER_BYTES..end]) != header.payload_crc {
        return None;
    }
    let mut records = Vec::with_capacity(header.count as usize);
    let mut at = HEADER_BYTES;
    for i in 0..header.count as u64 {
        let framing = block[..end].get(at..at + RECORD_HEADER_BYTES)?;
        let len = u32::from_le_bytes([framing[0], framing[1], framing[2], framing[3]]) as usize;
        let kind = match framing[4] {
            0 => RecordKind::Plain,
            1 => RecordKind::Checkpoint,
            _ => return None,
        };
        at += RECORD_HEADER_BYTES;
        if len > end - at {
            return None;
        }
        records.push(Record { lsn: Lsn(header.first_lsn.0 + i), kind, data: block.slice(at..at + len) });
        at += len;
    }
    (at == end).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity { pool: Uuid([0xaa; 16]), shard: ShardId(7) };

    fn header(link: Option<Tail>) -> Header {
        Header {
            chunk: ChunkId(0x11),
            epoch: Epoch(3),
            chunk_seq: 5,
            index: if link.is_some() { 0 } else { 4 },
            first_lsn: Lsn(100),
            committed_lsn: Lsn(98),
            count: 0,
            payload_bytes: 0,
            payload_crc: 0,
            previous_crc: link.as_ref().map_or(0xdead_beef, |l| l.crc),
            flags: Flags { takeover: true, taken_over: true, jump: false },
            link,
            header_crc: 0,
        }
    }
    fn record(lsn: u64, data: &[u8]) -> Record {
        Record { lsn: Lsn(lsn), kind: RecordKind::Plain, data: Bytes::copy_from_slice(data) }
    }

    #[test]
    fn golden_block() {
        let link = Tail {
            chunk: Some(ChunkId(0x10)),
            members: vec![(DriveIndex(2), 9), (DriveIndex(4), 1)],
            end: 8192,
            last_lsn: Lsn(99),
            crc: 0x0102_0304,
        };
        let mut h = header(Some(link));
        let block = encode_block(&mut h, &IDENTITY, [record(100, b"abc")].iter());
        assert_eq!(block.len(), 4096);
        let start: Vec<u8> = [
            &b"BSLTJBLK"[..],
            &[1, 0, 7, 0, 0, 1, 2, 0],
            &[0xaa; 16],
            &[0x11, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[100, 0, 0, 0, 0, 0, 0, 0],
            &[98, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 11, 0, 0, 0],
        ]
        .concat();
        assert_eq!(&block[..start.len()], &start[..]);
        assert_eq!(&block[256..267], &[3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
        assert_eq!(crc32c(&block), 2752064930);
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..20).prop_map(
            |rs| {
                let with_lsn = rs.into_iter().enumerate();
                with_lsn
                    .map(|(i, (data, checkpoint))| Record {
                        lsn: Lsn(100 + i as u64),
                        kind: if checkpoint { RecordKind::Checkpoint } else { RecordKind::Plain },
                        data: data.into(),
                    })
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(records in records()) {
            let mut h = header(None);
            let block = encode_block(&mut h, &IDENTITY, records.iter());
            prop_assert_eq!(block.len(), h.block_bytes());
            let read = Header::decode(&block, &IDENTITY);
            prop_assert_eq!(read.as_ref(), Some(&h));
            prop_assert_eq!(decode_records(&h, &block), Some(records));
        }

        #[test]
        fn any_flip_is_found(records in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut h = header(None);
            let block = encode_block(&mut h, &IDENTITY, records.iter());
            let end = HEADER_BYTES + h.payload_bytes as usize;
            let mut bad = block.to_vec();
            bad[at.index(end)] ^= 1u8 << bit;
            let bad = Bytes::from(bad);
            let found = match Header::decode(&bad, &IDENTITY) {
                None => true,
                Some(h) => decode_records(&h, &bad).is_none(),
            };
            prop_assert!(found);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), count in 0u32..10) {
            let _ = Header::decode(&bytes, &IDENTITY);
            // Past the CRC: framing that lies.
            let mut h = header(None);
            h.count = count;
            h.payload_bytes = bytes.len().saturating_sub(HEADER_BYTES) as u32;
            h.payload_crc = crc32c(bytes.get(HEADER_BYTES..).unwrap_or_default());
            let _ = decode_records(&h, &bytes.into());
        }
    }
}
