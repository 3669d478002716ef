//! The root log on media, one copy: two areas written by turns, each a checkpoint followed by batches of records.
//!
//! A frame (checkpoint or batch) is a 64-byte header and its records, padded to 4 KiB. Its checksum covers both, and
//! each frame names the checksum of the one before, so that neither a torn write nor what an earlier round left behind
//! the end is taken for part of the chain. When an area is full, the next checkpoint begins the other.
//!
//! Copies are compared by [`Position`]. The term is claimed on a read quorum of the root set (the claim block) before
//! its first frame is written, so no two writers ever use the same one, and a tail that one of them left on a single
//! drive can never be mistaken for what a later one acknowledged.

use crate::geometry::{CLAIM_OFFSET, Layout};
use crate::label::crc32c;
use crate::record::Record;
use crate::state::RootState;
use crate::types::*;
use basalt_bdev::Bdev;
use basalt_reactor::buf::DmaBuf;
use serde::Serialize;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const FRAME_MAGIC: [u8; 8] = *b"BASALTRL";
const CLAIM_MAGIC: [u8; 8] = *b"BASALTCL";
const VERSION: u16 = 1;
const KIND_CHECKPOINT: u16 = 1;
const KIND_BATCH: u16 = 2;
const BLOCK: usize = 4096;
pub(crate) const HEADER_BYTES: usize = size_of::<FrameHeader>();
/// How much of an area is fetched at a time, and how far behind the end of a chain is looked for frames that ought to
/// belong to it (which tells a damaged chain from one that ends).
const WINDOW_BYTES: u64 = 256 << 10;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FrameHeader {
    magic: [u8; 8],
    /// CRC-32C of header (this field zero) and payload.
    crc: U32,
    version: U16,
    kind: U16,
    pool_uuid: [u8; 16],
    term: U64,
    /// Of the last record that this frame's state includes.
    sequence: U64,
    /// In this frame.
    records: U32,
    payload_bytes: U32,
    /// `crc` of the frame before; 0 in a checkpoint.
    previous_crc: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<FrameHeader>() == 64);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ClaimBlock {
    magic: [u8; 8],
    /// CRC-32C of the block with this field zero.
    crc: U32,
    version: U16,
    reserved: U16,
    pool_uuid: [u8; 16],
    term: U64,
    rest: [u8; 4056],
}
const _: () = assert!(size_of::<ClaimBlock>() == BLOCK);

/// How new a copy is: by the writer's term first, then by the number of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) sequence: u64,
}

/// A frame ready to be written: the same bytes for every copy.
pub(crate) struct Frame {
    pub(crate) bytes: bytes::Bytes,
    pub(crate) crc: u32,
}

fn frame(
    kind: u16,
    pool: Uuid,
    position: Position,
    records: u32,
    previous_crc: u32,
    payload: &[u8],
) -> Frame {
    let mut header = FrameHeader {
        magic: FRAME_MAGIC,
        crc: U32::ZERO,
        version: VERSION.into(),
        kind: kind.into(),
        pool_uuid: pool.0,
        term: position.term.into(),
        sequence: position.sequence.into(),
        records: records.into(),
        payload_bytes: (payload.len() as u32).into(),
        previous_crc: previous_crc.into(),
        reserved: U32::ZERO,
    };
    let crc = crc32c(&[header.as_bytes(), payload]);
    header.crc = crc.into();
    let mut bytes = DmaBuf::zeroed(frame_bytes(payload.len()));
    bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    bytes[HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    Frame { bytes: bytes.freeze(), crc }
}

/// Bytes on media of a frame with this payload.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(BLOCK)
}

pub(crate) fn checkpoint_frame(pool: Uuid, position: Position, state: &RootState) -> Frame {
    let mut payload = Vec::new();
    let records = state.to_records();
    records.iter().for_each(|r| r.encode(&mut payload));
    frame(KIND_CHECKPOINT, pool, position, records.len() as u32, 0, &payload)
}

/// `position.sequence` is that of the last of `records` records.
pub(crate) fn batch_frame(
    pool: Uuid,
    position: Position,
    records: u32,
    previous_crc: u32,
    payload: &[u8],
) -> Frame {
    frame(KIND_BATCH, pool, position, records, previous_crc, payload)
}

pub(crate) fn claim_block(pool: Uuid, term: u64) -> bytes::Bytes {
    let mut block = ClaimBlock {
        magic: CLAIM_MAGIC,
        crc: U32::ZERO,
        version: VERSION.into(),
        reserved: U16::ZERO,
        pool_uuid: pool.0,
        term: term.into(),
        rest: [0; 4056],
    };
    block.crc = crc32c(&[block.as_bytes()]).into();
    DmaBuf::from_slice(block.as_bytes()).freeze()
}

/// The claimed term, 0 where none was ever claimed for this pool; `None` when the block is damaged.
fn claimed_term(bytes: &[u8], pool: Uuid) -> Option<u64> {
    let (block, _) = ClaimBlock::ref_from_prefix(bytes).ok()?;
    if block.magic != CLAIM_MAGIC {
        // A drive that never held a copy has zeroes here, from its creation.
        return bytes.iter().all(|&b| b == 0).then_some(0);
    }
    let crc = crc32c(&[&bytes[..8], &[0; 4], &bytes[12..BLOCK]]);
    if crc != block.crc.get() || block.version.get() != VERSION {
        return None;
    }
    Some(if block.pool_uuid == pool.0 { block.term.get() } else { 0 })
}

/// What one copy holds.
#[derive(Clone, Debug)]
pub(crate) struct RootCopy {
    /// Highest term this drive was asked to honour.
    pub(crate) claimed_term: u64,
    pub(crate) newest: Option<NewestState>,
    /// Something that was written here cannot be read back: this copy cannot vouch for being complete.
    pub(crate) damaged: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct NewestState {
    pub(crate) position: Position,
    pub(crate) area: usize,
    pub(crate) frames: usize,
    pub(crate) bytes: u64,
    pub(crate) state: RootState,
}

/// A piece of an area in memory, moved along as the chain is followed.
struct Window<'a> {
    bdev: &'a dyn Bdev,
    offset: u64,
    len: u64,
    at: u64,
    buf: DmaBuf,
}

impl Window<'_> {
    /// Bytes `at..at+len` of the area; fewer at its end.
    async fn get(&mut self, at: u64, len: u64) -> basalt_bdev::Result<&[u8]> {
        let len = len.min(self.len.saturating_sub(at));
        if at < self.at || at + len > self.at + self.buf.len() as u64 {
            let fetch = len.max(WINDOW_BYTES).next_multiple_of(BLOCK as u64).min(self.len - at);
            self.buf = read_insisting(self.bdev, self.offset + at, fetch as usize).await?;
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(&self.buf[from..from + len as usize])
    }
}

/// A copy given up for one failed read may be the one that a quorum lacks.
const READ_TRIES: usize = 3;

async fn read_insisting(bdev: &dyn Bdev, offset: u64, len: usize) -> basalt_bdev::Result<DmaBuf> {
    for _ in 1..READ_TRIES {
        if let Ok(bytes) = bdev.read(offset, len).await {
            return Ok(bytes);
        }
    }
    bdev.read(offset, len).await
}

struct ReadFrame {
    kind: u16,
    position: Position,
    records: u32,
    previous_crc: u32,
    crc: u32,
    len: u64,
    payload: Vec<u8>,
}

/// The frame at `at`, if a valid one of this pool is there.
async fn read_frame(window: &mut Window<'_>, pool: Uuid, at: u64) -> basalt_bdev::Result<Option<ReadFrame>> {
    let room = window.len.saturating_sub(at);
    let Ok((h, _)) = FrameHeader::read_from_prefix(window.get(at, BLOCK as u64).await?) else {
        return Ok(None);
    };
    let payload_bytes = h.payload_bytes.get() as u64;
    let len = frame_bytes(payload_bytes as usize) as u64;
    if h.magic != FRAME_MAGIC || h.version.get() != VERSION || h.pool_uuid != pool.0 || len > room {
        return Ok(None);
    }
    let bytes = window.get(at, len).await?;
    let payload = &bytes[HEADER_BYTES..HEADER_BYTES + payload_bytes as usize];
    if crc32c(&[&bytes[..8], &[0; 4], &bytes[12..HEADER_BYTES], payload]) != h.crc.get() {
        return Ok(None);
    }
    Ok(Some(ReadFrame {
        kind: h.kind.get(),
        position: Position { term: h.term.get(), sequence: h.sequence.get() },
        records: h.records.get(),
        previous_crc: h.previous_crc.get(),
        crc: h.crc.get(),
        len,
        payload: payload.to_vec(),
    }))
}

struct Chain {
    newest: Option<NewestState>,
    /// Newest valid frame shortly behind the end of the chain.
    beyond: Option<Position>,
    /// Frames with a right checksum whose records contradict themselves.
    contradicts: bool,
}

async fn read_area(bdev: &dyn Bdev, layout: &Layout, pool: Uuid, area: usize) -> basalt_bdev::Result<Chain> {
    let offset = layout.root_area_offset[area];
    let mut window = Window { bdev, offset, len: layout.root_area_bytes, at: 0, buf: DmaBuf::zeroed(0) };
    let mut chain = Chain { newest: None, beyond: None, contradicts: false };
    let (mut at, mut last_crc) = (0, 0);
    while let Some(f) = read_frame(&mut window, pool, at).await? {
        let records = Record::decode_all(&f.payload).filter(|r| r.len() == f.records as usize);
        let applied = match (&mut chain.newest, f.kind) {
            (none @ None, KIND_CHECKPOINT) if f.previous_crc == 0 => {
                records.and_then(|r| RootState::from_records(&r).ok()).map(|state| {
                    *none = Some(NewestState { position: f.position, area, frames: 0, bytes: 0, state });
                })
            }
            (Some(newest), KIND_BATCH)
                if f.previous_crc == last_crc
                    && f.position.term == newest.position.term
                    && f.position.sequence == newest.position.sequence + f.records as u64 =>
            {
                records.and_then(|r| r.iter().try_for_each(|r| newest.state.apply(r)).ok())
            }
            // What an earlier round left here.
            _ => break,
        };
        let (Some(()), Some(newest)) = (applied, &mut chain.newest) else {
            chain.contradicts = true;
            break;
        };
        at += f.len;
        last_crc = f.crc;
        newest.position = f.position;
        newest.frames += 1;
        newest.bytes = at;
    }
    let look_until = (at + WINDOW_BYTES).min(layout.root_area_bytes);
    let mut ahead = at;
    while ahead < look_until {
        match read_frame(&mut window, pool, ahead).await? {
            Some(f) => {
                chain.beyond = chain.beyond.max(Some(f.position));
                ahead += f.len;
            }
            None => ahead += BLOCK as u64,
        }
    }
    Ok(chain)
}

/// Reads a drive's copy. A read error is the caller's: that copy is then as good as absent.
pub(crate) async fn read_copy(bdev: &dyn Bdev, layout: &Layout, pool: Uuid) -> basalt_bdev::Result<RootCopy> {
    let claim = claimed_term(&read_insisting(bdev, CLAIM_OFFSET, BLOCK).await?, pool);
    let mut chains = Vec::new();
    for area in 0..2 {
        chains.push(read_area(bdev, layout, pool, area).await?);
    }
    let beyond = chains.iter().filter_map(|c| c.beyond).max();
    let contradicts = chains.iter().any(|c| c.contradicts);
    let newest = chains.into_iter().filter_map(|c| c.newest).max_by_key(|n| n.position);
    // Older frames lie behind the end of a chain as a rule; newer ones mean that the chain is broken in between.
    let broken = beyond > newest.as_ref().map(|n| n.position);
    let term = newest.as_ref().map_or(0, |n| n.position.term);
    Ok(RootCopy {
        claimed_term: claim.unwrap_or(0).max(term),
        newest,
        damaged: claim.is_none() || broken || contradicts,
    })
}

/// Copies that must be read to be sure to see what was acknowledged.
pub(crate) fn read_quorum(copies: usize) -> usize {
    copies / 2 + 1
}
/// Copies that must be written before a change is acknowledged. With an odd number both quorums are the majority; with an even
/// one the writer, of which there is one at a time, may go on with exactly half, since every reader sees more than half.
pub(crate) fn write_quorum(copies: usize) -> usize {
    copies.div_ceil(2)
}

/// The state that a new owner goes on from.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) position: Position,
    pub(crate) state: RootState,
    /// Above every term that any copy knows of.
    pub(crate) next_term: u64,
}

/// Picks the newest state among the copies read, or says why none can be trusted to be the newest.
pub(crate) fn choose(copies: &[(DriveIndex, RootCopy)]) -> std::result::Result<Chosen, String> {
    let newest = copies
        .iter()
        .filter(|(_, c)| !c.damaged)
        .filter_map(|(_, c)| c.newest.as_ref())
        .max_by_key(|n| n.position)
        .ok_or("none of the drives holds a whole copy of the root log")?;
    let set = &newest.state.root_set;
    for members in [&set.members, &set.previous] {
        let read = members.iter().filter(|m| copies.iter().any(|(d, c)| d == *m && !c.damaged)).count();
        if !members.is_empty() && read < read_quorum(members.len()) {
            let list: Vec<String> = members.iter().map(|d| d.to_string()).collect();
            return Err(format!(
                "{read} of the {} root copies are readable and {} are needed to know the newest state; bring back some of the drives {}",
                members.len(),
                read_quorum(members.len()),
                list.join(", ")
            ));
        }
    }
    let next_term = copies.iter().map(|(_, c)| c.claimed_term).max().unwrap_or(0) + 1;
    Ok(Chosen { position: newest.position, state: newest.state.clone(), next_term })
}
