//! Layout of a bundle's first bytes. Little-endian. Pinned by golden bytes in `tests/format.rs`.

use crate::error::{Result, UpgradeError};
use crate::trust::{MAX_ROOT_BYTES, Signature, SignedRoot};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const MAGIC: [u8; 8] = *b"BSLTUPGR";
pub const VERSION: u16 = 1;
pub const HEADER_BYTES: u64 = 64;
/// Rotations that one bundle can carry; nodes further behind install an older bundle first.
pub const MAX_ROOTS: u16 = 16;
pub const MAX_SIGNATURES: u16 = 16;
pub const MAX_ROOTS_BYTES: u32 = 256 << 10;
/// 4,096 chunk hashes of a part of 4 GiB take 275 KiB.
pub const MAX_MANIFEST_BYTES: u32 = 1 << 20;
const SIGNATURE_BYTES: usize = 32 + 64;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    pub magic: [u8; 8],
    pub version: U16,
    /// A reader that does not know one of these refuses the bundle. None is defined yet.
    pub incompatible_features: U16,
    pub roots_len: U32,
    pub manifest_len: U32,
    pub signatures_len: U32,
    pub payload_len: U64,
    pub reserved: [u8; 28],
    /// CRC-32C of everything before it: tells a damaged file from one of another kind.
    pub crc32c: U32,
}
const _: () = assert!(size_of::<Header>() as u64 == HEADER_BYTES);

impl Header {
    pub fn new(roots_len: u32, manifest_len: u32, signatures_len: u32, payload_len: u64) -> Header {
        let mut header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            incompatible_features: 0.into(),
            roots_len: roots_len.into(),
            manifest_len: manifest_len.into(),
            signatures_len: signatures_len.into(),
            payload_len: payload_len.into(),
            reserved: [0; 28],
            crc32c: 0.into(),
        };
        header.crc32c = header.crc().into();
        header
    }

    fn crc(&self) -> u32 {
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &self.as_bytes()[..60]) as u32
    }

    pub fn parse(bytes: &[u8]) -> Result<Header> {
        let header = Header::read_from_bytes(bytes)
            .map_err(|_| UpgradeError::NotABundle("it is shorter than a bundle's first 64 bytes".into()))?;
        if header.magic != MAGIC {
            return Err(UpgradeError::NotABundle("it does not begin with BSLTUPGR".into()));
        }
        if header.crc32c.get() != header.crc() {
            return Err(UpgradeError::Damaged("its header fails its checksum".into()));
        }
        if header.version.get() != VERSION || header.incompatible_features.get() != 0 {
            let (version, features) = (header.version, header.incompatible_features);
            return Err(UpgradeError::NewerFormat(format!("format {version}, features {features:#x}")));
        }
        let lengths = [
            (header.roots_len.get(), MAX_ROOTS_BYTES),
            (header.manifest_len.get(), MAX_MANIFEST_BYTES),
            (header.signatures_len.get(), (2 + usize::from(MAX_SIGNATURES) * SIGNATURE_BYTES) as u32),
        ];
        if header.reserved != [0; 28]
            || lengths.iter().any(|(have, most)| have > most)
            || header.total_len().is_none()
        {
            return Err(UpgradeError::Damaged("its header holds impossible values".into()));
        }
        Ok(header)
    }

    pub fn payload_at(&self) -> u64 {
        let lengths = [self.roots_len, self.manifest_len, self.signatures_len];
        HEADER_BYTES + lengths.iter().map(|l| u64::from(l.get())).sum::<u64>()
    }

    pub fn total_len(&self) -> Option<u64> {
        self.payload_at().checked_add(self.payload_len.get())
    }
}

/// Count (2 bytes), then key id (32) and signature (64) of each.
pub fn encode_signatures(signatures: &[Signature]) -> Vec<u8> {
    let mut out = (signatures.len() as u16).to_le_bytes().to_vec();
    for signature in signatures {
        out.extend_from_slice(&signature.key);
        out.extend_from_slice(&signature.bytes);
    }
    out
}

pub fn decode_signatures(mut bytes: &[u8]) -> Result<Vec<Signature>> {
    let signatures = take_signatures(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(damaged("bytes behind its signatures"));
    }
    Ok(signatures)
}

/// Count (2 bytes), then of each: length (4 bytes), JSON, signatures as above.
pub fn encode_roots(roots: &[SignedRoot]) -> Vec<u8> {
    let mut out = (roots.len() as u16).to_le_bytes().to_vec();
    for root in roots {
        out.extend_from_slice(&(root.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&root.payload);
        out.extend_from_slice(&encode_signatures(&root.signatures));
    }
    out
}

pub fn decode_roots(mut bytes: &[u8]) -> Result<Vec<SignedRoot>> {
    let count = take_u16(&mut bytes)?;
    if count > MAX_ROOTS {
        return Err(damaged("too many roots in its key chain"));
    }
    let mut roots = Vec::new();
    for _ in 0..count {
        let len = u32::from_le_bytes(take(&mut bytes)?) as usize;
        if len > MAX_ROOT_BYTES || len > bytes.len() {
            return Err(damaged("its key chain does not end where it should"));
        }
        let (payload, rest) = bytes.split_at(len);
        bytes = rest;
        roots.push(SignedRoot { payload: payload.to_vec(), signatures: take_signatures(&mut bytes)? });
    }
    if !bytes.is_empty() {
        return Err(damaged("bytes behind its key chain"));
    }
    Ok(roots)
}

fn take_signatures(bytes: &mut &[u8]) -> Result<Vec<Signature>> {
    let count = take_u16(bytes)?;
    if count > MAX_SIGNATURES {
        return Err(damaged("too many signatures"));
    }
    (0..count).map(|_| Ok(Signature { key: take(bytes)?, bytes: take(bytes)? })).collect()
}
fn take_u16(bytes: &mut &[u8]) -> Result<u16> {
    Ok(u16::from_le_bytes(take(bytes)?))
}
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) =
        bytes.split_first_chunk().ok_or_else(|| damaged("its key chain or signatures end early"))?;
    *bytes = rest;
    Ok(*head)
}
fn damaged(why: &str) -> UpgradeError {
    UpgradeError::Damaged(why.into())
}
