//! Opening a shard's journal: find the longest valid chain on any member, and decide what a new owner rewrites.
//!
//! Every chunk's first block links back to where the journal stood before, so the chain is found from its newest chunk
//! (highest epoch, then highest sequence within it) backwards, as far as the newest checkpoint needs. A new owner's first
//! blocks count only when the one that ends its takeover is there: until then it had served nothing, and the older
//! chain still stands.
//!
//! What ends a chain is a tail only if nothing durable lies beyond: a block that states a committed LSN past the end
//! proves damage, and that is reported.

use super::Root;
use super::account::Checkpoint;
use super::checksum::BLOCK;
use super::journal::BLOCKS_IN_FLIGHT;
use super::journal_block::*;
use crate::planted::{self, Planted};
use crate::types::*;
use basalt_bdev::Bdev;
use basalt_reactor::sync::join_all;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Read of every member of every chunk at first: the first block's header and some more, in case that one is bad.
const HEAD_BYTES: usize = 64 << 10;
const WINDOW_BYTES: usize = 2 << 20;
const _: () = assert!(WINDOW_BYTES >= MAX_BLOCK_BYTES);

/// A chunk's place on one drive.
struct Member {
    channel: Rc<dyn Bdev>,
    base: u64,
    chunk_bytes: u32,
    /// Last window read.
    window: Option<(u32, Bytes)>,
}

impl Member {
    /// `None` when that range cannot be read.
    async fn read(&mut self, offset: u32, len: usize) -> Option<Bytes> {
        let end = offset as usize + len;
        if end > self.chunk_bytes as usize {
            return None;
        }
        if let Some((at, bytes)) = &self.window
            && offset >= *at
            && end <= *at as usize + bytes.len()
        {
            return Some(bytes.slice((offset - at) as usize..end - *at as usize));
        }
        let window = WINDOW_BYTES.min((self.chunk_bytes - offset) as usize);
        if let Ok(buf) = self.channel.read(self.base + offset as u64, window).await {
            let bytes = buf.freeze();
            self.window = Some((offset, bytes.clone()));
            return Some(bytes.slice(..len));
        }
        // One bad block must not hide its neighbours.
        Some(self.channel.read(self.base + offset as u64, len).await.ok()?.freeze())
    }

    /// The block at `offset` if it is whole.
    async fn block(&mut self, offset: u32, identity: &Identity, fits: &Fits) -> Option<Block> {
        let head = self.read(offset, BLOCK).await?;
        let header = Header::decode(&head, identity).filter(|h| fits.fits(h))?;
        let bytes = self.read(offset, header.block_bytes()).await?;
        let records = decode_records(&header, &bytes)?;
        let end = offset + header.block_bytes() as u32;
        Some(Block { header, records, end, missing_somewhere: false })
    }
}

/// What the next block of a chain must be.
enum Fits {
    First(ChunkId, Option<(Epoch, u64)>),
    After { chunk: ChunkId, epoch: Epoch, index: u32, crc: u32, last_lsn: Lsn },
}
impl Fits {
    fn fits(&self, h: &Header) -> bool {
        match self {
            Fits::First(chunk, at) => {
                h.chunk == *chunk && h.index == 0 && at.is_none_or(|at| at == (h.epoch, h.chunk_seq))
            }
            Fits::After { chunk, epoch, index, crc, last_lsn } => {
                let follows = h.first_lsn.0 == last_lsn.0 + 1 || (h.flags.jump && h.first_lsn > *last_lsn);
                h.chunk == *chunk
                    && h.epoch == *epoch
                    && h.index == *index
                    && h.previous_crc == *crc
                    && follows
            }
        }
    }
}

pub(crate) struct Block {
    pub(crate) header: Header,
    pub(crate) records: Vec<Record>,
    /// Offset in the chunk where it ends.
    pub(crate) end: u32,
    /// A member that can be read lacks it.
    pub(crate) missing_somewhere: bool,
}

/// A chunk with the members that can be reached.
pub(crate) struct ChunkReader {
    pub(crate) entry: ChunkEntry,
    members: Vec<Member>,
    /// Its newest first block.
    first: Option<(Epoch, u64)>,
    /// Not every member is there, or one cannot be read.
    degraded: bool,
}

impl ChunkReader {
    pub(crate) fn new(root: &dyn Root, entry: ChunkEntry) -> ChunkReader {
        let chunk_bytes = root.geometry().chunk_bytes as u32;
        let channels = entry.members.iter().filter_map(|(drive, slot)| {
            let channel = root.channel(*drive)?;
            Some(Member { channel, base: root.chunk_offset(*slot), chunk_bytes, window: None })
        });
        let members: Vec<Member> = channels.collect();
        let degraded = members.len() < entry.members.len();
        ChunkReader { entry, members, first: None, degraded }
    }

    /// Finds the newest first block on any member. Returns sound headers of other blocks; `Err`: no member can be read.
    pub(crate) async fn find_first(&mut self, identity: &Identity) -> std::result::Result<Vec<Header>, ()> {
        let len = HEAD_BYTES.min(self.members.first().map_or(0, |m| m.chunk_bytes as usize));
        let reads = self.members.iter().map(|m| async move {
            match m.channel.read(m.base, len).await {
                Ok(buf) => Some(buf.freeze()),
                Err(_) => Some(m.channel.read(m.base, BLOCK).await.ok()?.freeze()),
            }
        });
        let heads: Vec<Bytes> = join_all(reads).await.into_iter().flatten().collect();
        self.degraded |= heads.len() < self.members.len();
        if heads.is_empty() {
            return Err(());
        }
        let mut strays = Vec::new();
        for bytes in heads {
            for block in bytes.chunks(BLOCK) {
                let Some(h) = Header::decode(block, identity).filter(|h| h.chunk == self.entry.id) else {
                    continue;
                };
                if h.index == 0 {
                    self.first = self.first.max(Some((h.epoch, h.chunk_seq)));
                } else {
                    strays.push(h);
                }
            }
        }
        Ok(strays)
    }

    /// The chain in this chunk: from its first block to `until`, or as far as it goes.
    pub(crate) async fn chain(&mut self, identity: &Identity, until: Option<u32>) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut fits = Fits::First(self.entry.id, self.first);
        let mut offset = 0;
        while until.is_none_or(|until| offset < until) {
            let mut found = None;
            for (i, member) in self.members.iter_mut().enumerate() {
                found = member.block(offset, identity, &fits).await;
                if let Some(found) = &mut found {
                    found.missing_somewhere = i > 0;
                    break;
                }
            }
            let Some(block) = found else { break };
            let h = &block.header;
            fits = Fits::After {
                chunk: h.chunk,
                epoch: h.epoch,
                index: h.index + 1,
                crc: h.header_crc,
                last_lsn: h.last_lsn(),
            };
            offset = block.end;
            blocks.push(block);
        }
        blocks
    }

    /// Looks beyond the end of a chain for a block of the same epoch that says something after it was committed. Were
    /// the block at the end committed, the one that says so would be among the next few: no more are in flight
    /// at a time.
    async fn committed_beyond(
        &mut self,
        identity: &Identity,
        epoch: Epoch,
        end: u32,
        last: Lsn,
    ) -> Option<Header> {
        let reach = (BLOCKS_IN_FLIGHT + 2) * MAX_BLOCK_BYTES;
        for member in &mut self.members {
            let mut offset = end;
            while offset < member.chunk_bytes.min(end.saturating_add(reach as u32)) {
                if let Some(bytes) = member.read(offset, BLOCK).await
                    && let Some(h) = Header::decode(&bytes, identity)
                    && (h.chunk, h.epoch) == (self.entry.id, epoch)
                    && h.committed_lsn > last
                {
                    return Some(h);
                }
                offset += BLOCK as u32;
            }
        }
        None
    }
}

/// A used chunk of the chain, oldest first.
pub(crate) struct ChainChunk {
    pub(crate) entry: ChunkEntry,
    pub(crate) blocks: Vec<Block>,
    pub(crate) degraded: bool,
}

impl ChainChunk {
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|b| b.header.block_bytes()).sum()
    }
}

pub(crate) struct Recovered {
    pub(crate) chain: Vec<ChainChunk>,
    /// Chunks that are not part of it.
    pub(crate) unused: Vec<ChunkEntry>,
    pub(crate) checkpoint: Option<(Lsn, Bytes)>,
    pub(crate) replay_from: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) committed_lsn: Lsn,
    pub(crate) chunk_seq: u64,
}

impl Recovered {
    /// Whether the part that was acknowledged is not whole on every member.
    pub(crate) fn is_degraded(&self) -> bool {
        self.chain.iter().any(|c| {
            let mut committed = c.blocks.iter().filter(|b| b.header.last_lsn() <= self.committed_lsn);
            c.degraded || committed.any(|b| b.missing_somewhere)
        })
    }
    /// The first of the chunks at the chain's end that together have no more than `limit_bytes`; the chain's length when the
    /// last one alone has more.
    pub(crate) fn first_of_short_end(&self, limit_bytes: usize) -> usize {
        let mut bytes = 0;
        let long = self.chain.iter().rposition(|c| {
            bytes += c.bytes();
            bytes > limit_bytes
        });
        long.map_or(0, |n| n + 1)
    }
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.chain.iter().flat_map(|c| &c.blocks).flat_map(|b| &b.records)
    }
}

fn corrupt(identity: &Identity, what: std::fmt::Arguments<'_>) -> PoolError {
    PoolError::Corrupt(format!("journal of shard {}: {what}", identity.shard))
}

/// Reads the journal in `chunks`. Writes nothing.
pub(crate) async fn recover(
    root: &dyn Root,
    identity: &Identity,
    chunks: Vec<ChunkEntry>,
) -> Result<Recovered> {
    let mut readers: BTreeMap<ChunkId, ChunkReader> =
        chunks.into_iter().map(|c| (c.id, ChunkReader::new(root, c))).collect();
    let heads = join_all(readers.values_mut().map(|r| r.find_first(identity))).await;
    let mut candidates = Vec::new();
    let mut strays = Vec::new();
    for (reader, head) in readers.values().zip(heads) {
        let Ok(found) = head else {
            return Err(PoolError::DataLost(format!(
                "journal of shard {}: no member of chunk {} can be read; bring back one of drives {:?}",
                identity.shard,
                reader.entry.id,
                reader.entry.members.iter().map(|(d, _)| d.0).collect::<Vec<_>>()
            )));
        };
        candidates.extend(reader.first.map(|first| (first, reader.entry.id)));
        strays.extend(found);
    }
    candidates.sort();
    let mut chain = Vec::new();
    while let Some((first, id)) = candidates.pop() {
        let Some(reader) = readers.get_mut(&id) else { continue };
        let blocks = reader.chain(identity, None).await;
        let Some(newest) = blocks.last() else { continue };
        let complete = !blocks[0].header.flags.takeover || blocks.iter().any(|b| b.header.flags.taken_over);
        if !complete {
            continue;
        }
        let (last, end) = (newest.header.last_lsn(), newest.end);
        let beyond = reader.committed_beyond(identity, first.0, end, last).await;
        let beyond = beyond.or_else(|| {
            let newer =
                |h: &&Header| (h.epoch, h.chunk_seq) > first && h.committed_lsn > last && !h.flags.takeover;
            strays.iter().find(newer).cloned()
        });
        if let Some(h) = beyond.filter(|_| !planted::is(Planted::TailCutsCommitted)) {
            return Err(corrupt(
                identity,
                format_args!(
                    "chunk {id} ends at {end} with record {last}, but a block of chunk {} says record {} is committed",
                    h.chunk, h.committed_lsn
                ),
            ));
        }
        chain.push(ChainChunk { entry: reader.entry.clone(), degraded: reader.degraded, blocks });
        break;
    }
    let mut recovered = Recovered {
        chain,
        unused: Vec::new(),
        checkpoint: None,
        replay_from: Lsn(1),
        last_lsn: Lsn(0),
        committed_lsn: Lsn(0),
        chunk_seq: 0,
    };
    if let Some(newest) = recovered.chain.last().and_then(|c| c.blocks.last()) {
        recovered.last_lsn = newest.header.last_lsn();
        recovered.committed_lsn = newest.header.committed_lsn;
        recovered.chunk_seq = newest.header.chunk_seq;
    }
    walk_back(&mut recovered, &mut readers, identity).await?;
    recovered.chain.reverse();
    let used: Vec<ChunkId> = recovered.chain.iter().map(|c| c.entry.id).collect();
    recovered.unused = readers.into_values().map(|r| r.entry).filter(|c| !used.contains(&c.id)).collect();
    Ok(recovered)
}

/// Follows links from the newest chunk (alone in `recovered.chain`) as far as replay needs; newest first.
async fn walk_back(
    recovered: &mut Recovered,
    readers: &mut BTreeMap<ChunkId, ChunkReader>,
    identity: &Identity,
) -> Result<()> {
    while let Some(oldest) = recovered.chain.last() {
        if recovered.checkpoint.is_none() {
            let mut records = oldest.blocks.iter().flat_map(|b| &b.records).rev();
            if let Some(r) = records.find(|r| r.kind == RecordKind::Checkpoint) {
                let Some(checkpoint) = Checkpoint::decode(&r.data) else {
                    return Err(corrupt(identity, format_args!("checkpoint {} is malformed", r.lsn)));
                };
                recovered.replay_from = checkpoint.replay_from.min(Lsn(r.lsn.0 + 1));
                recovered.checkpoint = Some((r.lsn, r.data.clone()));
            }
        }
        let Some(link) = oldest.blocks[0].header.link.clone() else {
            return Err(corrupt(identity, format_args!("chunk {} has no link", oldest.entry.id)));
        };
        let enough = recovered.checkpoint.is_some() && recovered.replay_from > link.last_lsn;
        let Some(previous) = link.chunk.filter(|_| !enough) else { return Ok(()) };
        let Some(reader) = readers.get_mut(&previous) else {
            return Err(corrupt(
                identity,
                format_args!("chunk {previous}, with records up to {}, is needed and missing", link.last_lsn),
            ));
        };
        if recovered.chain.iter().any(|c| c.entry.id == previous) {
            return Err(corrupt(identity, format_args!("chunk {previous} is linked twice")));
        }
        let blocks = reader.chain(identity, Some(link.end)).await;
        let reached = blocks.last().is_some_and(|b| {
            (b.end, b.header.last_lsn(), b.header.header_crc) == (link.end, link.last_lsn, link.crc)
        });
        if !reached {
            if planted::is(Planted::TailCutsCommitted) && !blocks.is_empty() {
                // What the fault stands for: the damaged block and all after it are forgotten.
                let last = blocks[blocks.len() - 1].header.last_lsn();
                recovered.chain.clear();
                (recovered.last_lsn, recovered.committed_lsn, recovered.checkpoint) = (last, last, None);
            } else {
                let end = blocks.last().map_or(0, |b| b.end);
                return Err(corrupt(
                    identity,
                    format_args!(
                        "chunk {previous} is damaged at {end} on every member; records up to {} were committed",
                        link.last_lsn
                    ),
                ));
            }
        }
        recovered.chain.push(ChainChunk { entry: reader.entry.clone(), degraded: reader.degraded, blocks });
    }
    Ok(())
}
