//! Journals and segments as they lie on the drives, for people: reads only, owns nothing.

use super::Root;
use super::checksum::{BLOCK, decode_block};
use super::footer::{self, FooterEntry};
use super::journal_block::{Header, Identity, RecordKind};
use super::layout::{Layout, ROW_BLOCKS, ROW_DATA};
use super::recovery::{self, ChunkReader};
use crate::inspect::RootView;
use crate::pool::ShardGrant;
use crate::scan::{Scanned, scan};
use crate::types::*;
use async_trait::async_trait;
use basalt_bdev::{Bdev, DriveRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalBlockView {
    pub offset: u32,
    pub bytes: u32,
    pub epoch: u64,
    pub first_lsn: u64,
    pub records: u32,
    pub committed_lsn: u64,
    /// Part of a new owner's takeover; `taken_over`: its end.
    pub takeover: bool,
    pub taken_over: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChunkView {
    pub id: u64,
    /// (drive, slot)
    pub members: Vec<(u16, u32)>,
    /// Members that cannot be reached.
    pub missing: usize,
    /// Where this chunk says the journal stood before: (chunk, offset, last LSN).
    pub continues: Option<(u64, u32, u64)>,
    /// The chain from the chunk's beginning, from whichever member has each block.
    pub blocks: Vec<JournalBlockView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalView {
    pub shard: u32,
    pub epoch: u64,
    /// Why the shard would not open.
    pub error: Option<String>,
    /// What an open would replay.
    pub last_lsn: u64,
    pub committed_lsn: u64,
    pub checkpoint_lsn: Option<u64>,
    pub replay_from: u64,
    pub replay_records: usize,
    pub replay_bytes: u64,
    /// The chain's chunks, oldest first.
    pub chain: Vec<u64>,
    pub chunks: Vec<ChunkView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColumnView {
    pub drive: u16,
    pub au: u32,
    pub reachable: bool,
    /// Rows whose checksum block is there and sound.
    pub checksum_rows: u32,
    /// Blocks that have a checksum there and match it, or do not.
    pub good_blocks: u64,
    pub bad_blocks: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SegmentView {
    pub entry: SegmentEntry,
    pub rows: u32,
    pub columns: Vec<ColumnView>,
    /// `None`: sealed early or still open.
    pub footer: Option<Vec<FooterEntryView>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FooterEntryView {
    pub inode: u64,
    pub offset: u64,
    pub column: u8,
    pub block: u32,
    pub blocks: u16,
}
impl From<FooterEntry> for FooterEntryView {
    fn from(e: FooterEntry) -> FooterEntryView {
        let FooterEntry { inode, offset, column, block, blocks } = e;
        FooterEntryView { inode, offset, column, block, blocks }
    }
}

/// Drives that may be read, with no root behind them.
struct Offline {
    uuid: Uuid,
    layout: crate::geometry::Layout,
    drives: BTreeMap<DriveIndex, Rc<dyn Bdev>>,
}

impl Offline {
    fn new(scanned: &[Scanned]) -> Result<Offline> {
        let labels = || scanned.iter().filter_map(|s| Some((s, s.label.as_ref().ok()?)));
        let Some((_, first)) = labels().next() else {
            return Err(PoolError::Refused("no Basalt label was found on the drives".into()));
        };
        let of_pool = labels().filter(|(_, l)| l.pool_uuid == first.pool_uuid);
        let drives = of_pool.map(|(s, l)| (l.drive_index, s.bdev.clone())).collect();
        Ok(Offline { uuid: first.pool_uuid, layout: first.layout, drives })
    }
}

fn read_only<T>() -> Result<T> {
    Err(PoolError::Refused("inspection changes nothing".into()))
}
#[async_trait(?Send)]
impl Root for Offline {
    fn uuid(&self) -> Uuid {
        self.uuid
    }
    fn geometry(&self) -> Geometry {
        self.layout.geometry
    }
    async fn grant_shard(&self, _: ShardId) -> Result<ShardGrant> {
        read_only()
    }
    async fn grant_segments(&self, _: ShardId, _: Epoch, _: Class, _: usize) -> Result<Vec<SegmentEntry>> {
        read_only()
    }
    async fn seal_segment(&self, _: ShardId, _: Epoch, _: SegmentId) -> Result<()> {
        read_only()
    }
    async fn free_segments(&self, _: ShardId, _: Epoch, _: Vec<SegmentId>) -> Result<()> {
        read_only()
    }
    async fn grant_chunk(&self, _: ShardId, _: Epoch, _: ChunkWanted) -> Result<ChunkEntry> {
        read_only()
    }
    async fn drive_out(&self, _: DriveIndex, _: &str) -> Result<()> {
        read_only()
    }
    fn channel(&self, drive: DriveIndex) -> Option<Rc<dyn Bdev>> {
        self.drives.get(&drive).cloned()
    }
    fn au_offset(&self, au: u32) -> u64 {
        self.layout.au_offset + au as u64 * self.layout.geometry.au_bytes
    }
    fn chunk_offset(&self, slot: u32) -> u64 {
        self.layout.journal_offset + slot as u64 * self.layout.geometry.chunk_bytes
    }
}

/// A shard's journal: every chunk, and what an open would make of them.
pub async fn journal(drives: Vec<DriveRef>, shard: ShardId) -> Result<JournalView> {
    let view: RootView = crate::inspect::root(drives.clone()).await;
    let Some(of_shard) = view.shards.into_iter().find(|s| s.id == shard) else {
        return Err(PoolError::Refused(format!(
            "shard {shard} is not in the root log{}",
            view.error.map(|e| format!(" ({e})")).unwrap_or_default()
        )));
    };
    let (scanned, _) = scan(drives).await;
    let root = Offline::new(&scanned)?;
    let identity = Identity { pool: root.uuid, shard };
    let mut chunks = Vec::new();
    for entry in &of_shard.chunks {
        chunks.push(chunk(&root, &identity, entry).await);
    }
    let mut out = JournalView {
        shard: shard.0,
        epoch: of_shard.epoch.0,
        error: None,
        last_lsn: 0,
        committed_lsn: 0,
        checkpoint_lsn: None,
        replay_from: 0,
        replay_records: 0,
        replay_bytes: 0,
        chain: Vec::new(),
        chunks,
    };
    match recovery::recover(&root, &identity, of_shard.chunks).await {
        Err(e) => out.error = Some(e.to_string()),
        Ok(r) => {
            out.last_lsn = r.last_lsn.0;
            out.committed_lsn = r.committed_lsn.0;
            out.checkpoint_lsn = r.checkpoint.as_ref().map(|(lsn, _)| lsn.0);
            out.replay_from = r.replay_from.0;
            let replayed = r.records().filter(|x| x.lsn >= r.replay_from && x.kind == RecordKind::Plain);
            (out.replay_records, out.replay_bytes) =
                replayed.fold((0, 0), |(n, bytes), x| (n + 1, bytes + x.data.len() as u64));
            out.chain = r.chain.iter().map(|c| c.entry.id.0).collect();
        }
    }
    Ok(out)
}

async fn chunk(root: &Offline, identity: &Identity, entry: &ChunkEntry) -> ChunkView {
    let mut reader = ChunkReader::new(root, entry.clone());
    let missing = entry.members.iter().filter(|(d, _)| root.channel(*d).is_none()).count();
    let found = reader.find_first(identity).await;
    let blocks = match found {
        Ok(_) => reader.chain(identity, None).await,
        Err(()) => Vec::new(),
    };
    let link = blocks.first().and_then(|b| b.header.link.as_ref());
    let continues = link.and_then(|l| Some((l.chunk?.0, l.end, l.last_lsn.0)));
    let view = |b: &recovery::Block| {
        let h: &Header = &b.header;
        JournalBlockView {
            offset: b.end - h.block_bytes() as u32,
            bytes: h.block_bytes() as u32,
            epoch: h.epoch.0,
            first_lsn: h.first_lsn.0,
            records: h.count,
            committed_lsn: h.committed_lsn.0,
            takeover: h.flags.takeover,
            taken_over: h.flags.taken_over,
        }
    };
    ChunkView {
        id: entry.id.0,
        members: entry.members.iter().map(|(d, s)| (d.0, *s)).collect(),
        missing,
        continues,
        blocks: blocks.iter().map(view).collect(),
    }
}

/// A segment: its footer, and every block that has a checksum on media checked against it.
pub async fn segment(drives: Vec<DriveRef>, id: SegmentId) -> Result<SegmentView> {
    let view: RootView = crate::inspect::root(drives.clone()).await;
    let Some(entry) = view.segments.into_iter().find(|s| s.id == id) else {
        return Err(PoolError::Refused(format!(
            "segment {id} is not in the root log; it is free or never was"
        )));
    };
    let (scanned, _) = scan(drives).await;
    let root = Offline::new(&scanned)?;
    let layout = Layout::new(&root.geometry(), entry.scheme);
    let rows = layout.column_blocks() / ROW_DATA;
    let mut columns = Vec::new();
    for (column, member) in entry.members.iter().enumerate() {
        let mut v = ColumnView {
            drive: member.drive.0,
            au: member.au,
            reachable: false,
            checksum_rows: 0,
            good_blocks: 0,
            bad_blocks: 0,
        };
        if let Some(channel) = root.channel(member.drive) {
            v.reachable = true;
            for row in 0..rows {
                check_row(&*channel, root.au_offset(member.au), id, column as u8, row, &mut v).await;
            }
        }
        columns.push(v);
    }
    let footer = read_footer(&root, &entry, &layout).await;
    let footer = footer.map(|entries| entries.into_iter().map(FooterEntryView::from).collect());
    Ok(SegmentView { entry, rows, columns, footer })
}

async fn check_row(channel: &dyn Bdev, base: u64, id: SegmentId, column: u8, row: u32, v: &mut ColumnView) {
    let at = base + (row * ROW_BLOCKS) as u64 * BLOCK as u64;
    let Ok(bytes) = channel.read(at, ROW_BLOCKS as usize * BLOCK).await else { return };
    let Some(sums) = decode_block(&bytes[ROW_DATA as usize * BLOCK..], id, column, row) else { return };
    v.checksum_rows += 1;
    for i in 0..ROW_DATA {
        if let Some(crc) = sums.get(i) {
            let block = &bytes[i as usize * BLOCK..(i as usize + 1) * BLOCK];
            match super::checksum::crc32c(block) == crc {
                true => v.good_blocks += 1,
                false => v.bad_blocks += 1,
            }
        }
    }
}

/// Reads only data columns: inspection shows what is there and reconstructs nothing.
async fn read_footer(root: &Offline, entry: &SegmentEntry, layout: &Layout) -> Option<Vec<FooterEntry>> {
    let mut linear = layout.data_end();
    let first = read_block(root, entry, 0, Layout::physical(linear)).await?;
    let total = footer::total_bytes(&first, entry.id)?;
    let mut left = total.div_ceil(BLOCK);
    let mut bytes = Vec::with_capacity(left.min(1 << 16) * BLOCK);
    while left > 0 && linear < layout.column_blocks() {
        let height = layout.stripe_height(linear, layout.column_blocks(), left);
        let count = left.min((height * layout.k) as usize);
        for i in 0..count as u32 {
            let block =
                read_block(root, entry, (i / height) as usize, Layout::physical(linear + i % height)).await?;
            bytes.extend_from_slice(&block);
        }
        linear += height;
        left -= count;
    }
    footer::decode(&bytes, entry.id)
}
async fn read_block(
    root: &Offline,
    entry: &SegmentEntry,
    column: usize,
    physical: u32,
) -> Option<basalt_reactor::buf::DmaBuf> {
    let member = entry.members.get(column)?;
    let at = root.au_offset(member.au) + physical as u64 * BLOCK as u64;
    root.channel(member.drive)?.read(at, BLOCK).await.ok()
}
