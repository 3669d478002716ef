//! The label: what a drive says about itself, in four copies at fixed addresses of which one is enough.
//!
//! One block, so that a copy is either the old or the new one after a power cut.

use crate::geometry::Layout;
use crate::types::*;
use basalt_reactor::buf::DmaBuf;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) const LABEL_BYTES: usize = 4096;
pub(crate) const LABEL_COPIES: usize = 4;
const MAGIC: [u8; 8] = *b"BASALTLB";
const VERSION: u32 = 1;
/// Longest pool name and domain name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 63;
/// Root copies: 2m + 1 with m at most 4.
pub(crate) const MAX_ROOT_COPIES: usize = 9;

/// Features of this version. A reader that meets an unknown bit may ignore it (compatible), may only read
/// (read-only), or must leave the pool alone (incompatible).
const KNOWN_READ_ONLY: u64 = 0;
const KNOWN_INCOMPATIBLE: u64 = 0;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LabelBlock {
    magic: [u8; 8],
    version: U32,
    /// CRC-32C of the block with this field zero.
    crc: U32,
    features_compatible: U64,
    features_read_only: U64,
    features_incompatible: U64,
    /// Which of the four copies this is; catches a copy written to another's place.
    copy: U32,
    drive_index: U16,
    /// Drives of the pool when this was written.
    drive_count: U16,
    pool_uuid: [u8; 16],
    drive_uuid: [u8; 16],
    /// UTF-8, padded with zeroes, at least one.
    pool_name: [u8; 64],
    domain: [u8; 64],
    size_bytes: U64,
    au_bytes: U64,
    chunk_bytes: U64,
    root_area_offset: [U64; 2],
    root_area_bytes: U64,
    journal_offset: U64,
    au_offset: U64,
    journal_slots: U32,
    au_count: U32,
    /// Grows with every rewrite; the highest of the valid copies counts.
    generation: U64,
    root_set_generation: U64,
    scheme_k: u8,
    scheme_m: u8,
    root_set_len: U16,
    root_set: [U16; MAX_ROOT_COPIES + 1],
    reserved: [u8; 3776],
}
const _: () = assert!(size_of::<LabelBlock>() == LABEL_BYTES);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) pool_uuid: Uuid,
    pub(crate) pool_name: String,
    pub(crate) drive_uuid: Uuid,
    pub(crate) drive_index: DriveIndex,
    pub(crate) drive_count: u16,
    pub(crate) domain: String,
    pub(crate) scheme: Scheme,
    pub(crate) layout: Layout,
    pub(crate) features_compatible: u64,
    pub(crate) generation: u64,
    pub(crate) root_set_generation: u64,
    pub(crate) root_set: Vec<DriveIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelError {
    /// Nothing of ours.
    #[error("no Basalt label")]
    Absent,
    #[error("damaged Basalt label ({0})")]
    Damaged(&'static str),
    #[error("label version {0} is newer than this program (it knows {VERSION}); use a newer Basalt")]
    Version(u32),
    #[error("the pool uses features this program does not know ({kind} bits {bits:#x}); use a newer Basalt")]
    Features { kind: &'static str, bits: u64 },
}

pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

fn padded(s: &str) -> [u8; 64] {
    let mut out = [0; 64];
    let len = s.len().min(MAX_NAME_BYTES);
    out[..len].copy_from_slice(&s.as_bytes()[..len]);
    out
}
fn unpadded(b: &[u8; 64]) -> Option<String> {
    let end = b.iter().position(|&c| c == 0)?;
    Some(std::str::from_utf8(&b[..end]).ok()?.to_string())
}

impl Label {
    pub(crate) fn encode(&self, copy: usize) -> DmaBuf {
        let l = &self.layout;
        let mut root_set = [U16::ZERO; MAX_ROOT_COPIES + 1];
        for (out, d) in root_set.iter_mut().zip(&self.root_set) {
            *out = d.0.into();
        }
        let mut block = LabelBlock {
            magic: MAGIC,
            version: VERSION.into(),
            crc: U32::ZERO,
            features_compatible: self.features_compatible.into(),
            features_read_only: U64::ZERO,
            features_incompatible: U64::ZERO,
            copy: (copy as u32).into(),
            drive_index: self.drive_index.0.into(),
            drive_count: self.drive_count.into(),
            pool_uuid: self.pool_uuid.0,
            drive_uuid: self.drive_uuid.0,
            pool_name: padded(&self.pool_name),
            domain: padded(&self.domain),
            size_bytes: l.size_bytes.into(),
            au_bytes: l.geometry.au_bytes.into(),
            chunk_bytes: l.geometry.chunk_bytes.into(),
            root_area_offset: l.root_area_offset.map(U64::from),
            root_area_bytes: l.root_area_bytes.into(),
            journal_offset: l.journal_offset.into(),
            au_offset: l.au_offset.into(),
            journal_slots: l.journal_slots.into(),
            au_count: l.au_count.into(),
            generation: self.generation.into(),
            root_set_generation: self.root_set_generation.into(),
            scheme_k: self.scheme.k,
            scheme_m: self.scheme.m,
            root_set_len: (self.root_set.len().min(MAX_ROOT_COPIES) as u16).into(),
            root_set,
            reserved: [0; 3776],
        };
        block.crc = crc32c(&[block.as_bytes()]).into();
        DmaBuf::from_slice(block.as_bytes())
    }

    pub(crate) fn decode(bytes: &[u8], copy: usize) -> std::result::Result<Label, LabelError> {
        let Ok((block, _)) = LabelBlock::ref_from_prefix(bytes) else {
            return Err(LabelError::Absent);
        };
        if block.magic != MAGIC {
            return Err(LabelError::Absent);
        }
        let crc = crc32c(&[&bytes[..12], &[0; 4], &bytes[16..LABEL_BYTES]]);
        if crc != block.crc.get() {
            return Err(LabelError::Damaged("checksum"));
        }
        if block.version.get() != VERSION {
            return Err(LabelError::Version(block.version.get()));
        }
        let unknown = block.features_incompatible.get() & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return Err(LabelError::Features { kind: "incompatible", bits: unknown });
        }
        // There is no read-only import yet, so these refuse as well.
        let unknown = block.features_read_only.get() & !KNOWN_READ_ONLY;
        if unknown != 0 {
            return Err(LabelError::Features { kind: "read-only", bits: unknown });
        }
        if block.copy.get() as usize != copy {
            return Err(LabelError::Damaged("it belongs at another place"));
        }
        let layout = Layout {
            geometry: Geometry { au_bytes: block.au_bytes.get(), chunk_bytes: block.chunk_bytes.get() },
            size_bytes: block.size_bytes.get(),
            root_area_offset: block.root_area_offset.map(U64::get),
            root_area_bytes: block.root_area_bytes.get(),
            journal_offset: block.journal_offset.get(),
            journal_slots: block.journal_slots.get(),
            au_offset: block.au_offset.get(),
            au_count: block.au_count.get(),
        };
        if !layout.is_sound() {
            return Err(LabelError::Damaged("its addresses contradict each other"));
        }
        let root_set_len = block.root_set_len.get() as usize;
        if root_set_len > MAX_ROOT_COPIES {
            return Err(LabelError::Damaged("root set"));
        }
        let (Some(pool_name), Some(domain)) = (unpadded(&block.pool_name), unpadded(&block.domain)) else {
            return Err(LabelError::Damaged("a name is not text"));
        };
        Ok(Label {
            pool_uuid: Uuid(block.pool_uuid),
            pool_name,
            drive_uuid: Uuid(block.drive_uuid),
            drive_index: DriveIndex(block.drive_index.get()),
            drive_count: block.drive_count.get(),
            domain,
            scheme: Scheme { k: block.scheme_k, m: block.scheme_m },
            layout,
            features_compatible: block.features_compatible.get(),
            generation: block.generation.get(),
            root_set_generation: block.root_set_generation.get(),
            root_set: block.root_set[..root_set_len].iter().map(|d| DriveIndex(d.get())).collect(),
        })
    }
}
