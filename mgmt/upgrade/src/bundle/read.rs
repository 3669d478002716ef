//! Reading a bundle: who signed it, then every byte, then piece by piece.

use super::format::{self, HEADER_BYTES, Header};
use crate::error::{Result, UpgradeError};
use crate::manifest::{CHUNK_BYTES, Kind, Manifest, Node, Part};
use crate::trust::{Root, SignedRoot, hex, unhex};
use crate::uki::Uki;
use crate::verity::{Leaves, RootId};
use ring::digest::{Context, SHA256, digest};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where a bundle is read from. Never more than [`CHUNK_BYTES`] of it is in memory.
pub trait Source {
    fn len_bytes(&self) -> io::Result<u64>;
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl Source for Vec<u8> {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file with a bundle's outline; nothing in it is believed yet.
pub struct Bundle<S> {
    source: S,
    header: Header,
    roots: Vec<u8>,
    manifest: Vec<u8>,
    signatures: Vec<u8>,
}

impl<S: Source> Bundle<S> {
    pub fn open(source: S) -> Result<Bundle<S>> {
        let have = source.len_bytes().map_err(UpgradeError::io("reading the bundle"))?;
        let mut first = vec![0; have.min(HEADER_BYTES) as usize];
        read(&source, 0, &mut first)?;
        let header = Header::parse(&first)?;
        let want = header.total_len().unwrap_or(u64::MAX);
        if have < want {
            return Err(UpgradeError::Truncated { have, want });
        }
        if have > want {
            return Err(UpgradeError::Damaged(format!("{} bytes stand behind its end", have - want)));
        }
        let mut at = HEADER_BYTES;
        let mut section = |len: u32| {
            let mut bytes = vec![0; len as usize];
            read(&source, at, &mut bytes)?;
            at += u64::from(len);
            Ok::<_, UpgradeError>(bytes)
        };
        let roots = section(header.roots_len.get())?;
        let manifest = section(header.manifest_len.get())?;
        let signatures = section(header.signatures_len.get())?;
        Ok(Bundle { source, header, roots, manifest, signatures })
    }

    /// The key chain, for those who make the next bundle.
    pub fn key_chain(&self) -> Result<Vec<SignedRoot>> {
        format::decode_roots(&self.roots)
    }

    /// Checks the signatures against what the node believes. Only then is the manifest read.
    pub fn authenticate(self, trusted: &Root, now_s: u64) -> Result<Authentic<S>> {
        use zerocopy::IntoBytes;
        let chain = format::decode_roots(&self.roots)?;
        let signatures = format::decode_signatures(&self.signatures)?;
        let root = trusted.advance(&chain)?;
        root.check_bundle(&[self.header.as_bytes(), &self.roots, &self.manifest], &signatures, now_s)?;
        let manifest: Manifest = serde_json::from_slice(&self.manifest)
            .map_err(|e| UpgradeError::Damaged(format!("its manifest: {e}")))?;
        manifest.check()?;
        let parts_len: u64 = manifest.parts.iter().map(|p| p.size_bytes).sum();
        if parts_len != self.header.payload_len.get() {
            return Err(UpgradeError::Damaged("its parts do not add up to its length".into()));
        }
        Ok(Authentic { source: self.source, payload_at: self.header.payload_at(), manifest, root, now_s })
    }
}

/// Signed by the right keys. Its payload has not been read.
pub struct Authentic<S> {
    source: S,
    payload_at: u64,
    manifest: Manifest,
    root: Root,
    now_s: u64,
}

impl<S: Source> Authentic<S> {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Expiry, hardware, version.
    pub fn suits(&self, node: &Node) -> Result<()> {
        self.manifest.suits(node, self.now_s)
    }

    /// Reads all parts and compares every hash, the hash tree, and what the kernel image says with the manifest.
    /// `progress` hears bytes done and bytes in all.
    pub fn check_payload(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Checked<S>> {
        self.manifest.not_expired(self.now_s)?;
        let salt = unhex(&self.manifest.root_salt).unwrap_or_default();
        let root_hash = unhex(&self.manifest.root_hash).and_then(|h| h.try_into().ok());
        let (Some(root_hash), data_blocks) = (root_hash, self.manifest.root_data_blocks) else {
            return Err(UpgradeError::Damaged("its manifest has a malformed root hash".into()));
        };
        let root_id = RootId { root_hash, data_blocks, salt };
        let checked = Checked { inner: self, root_id };
        let total = checked.manifest().parts.iter().map(|p| p.size_bytes).sum();
        let mut done = 0;
        let mut buf = vec![0; CHUNK_BYTES as usize];
        for part in &checked.manifest().parts {
            let mut whole = Context::new(&SHA256);
            let mut leaves = Leaves::new(&checked.root_id.salt);
            let mut tree = Context::new(&SHA256);
            let mut at = 0;
            for index in 0..part.chunks.len() {
                let bytes = checked.chunk(part, index, &mut buf)?;
                whole.update(bytes);
                if part.kind == Kind::Root {
                    let data =
                        checked.root_id.data_bytes().saturating_sub(at).min(bytes.len() as u64) as usize;
                    leaves.add(&bytes[..data]);
                    tree.update(&bytes[data..]);
                }
                at += bytes.len() as u64;
                done += bytes.len() as u64;
                progress(done, total);
            }
            if hex(whole.finish().as_ref()) != part.sha256 {
                return Err(UpgradeError::Damaged(format!("part {:?} fails its checksum", part.kind)));
            }
            if part.kind == Kind::Root {
                let blocks = leaves.blocks();
                let (wanted, root_hash) = leaves.finish();
                let same_tree = tree.finish().as_ref() == digest(&SHA256, &wanted).as_ref();
                if blocks != checked.root_id.data_blocks
                    || root_hash != checked.root_id.root_hash
                    || !same_tree
                {
                    return Err(UpgradeError::Damaged(
                        "its root and its hash tree do not fit each other".into(),
                    ));
                }
            }
        }
        let uki = checked.uki()?;
        if uki.version != checked.manifest().version || uki.root.as_ref() != Some(&checked.root_id) {
            return Err(UpgradeError::Damaged(
                "its kernel image is of another version or looks for another root than its manifest says"
                    .into(),
            ));
        }
        Ok(checked)
    }
}

/// Every byte was right when it was read. Pieces are checked again when they are taken.
pub struct Checked<S> {
    inner: Authentic<S>,
    root_id: RootId,
}

impl<S: Source> Checked<S> {
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }
    /// What the node believes after this bundle.
    pub fn root(&self) -> &Root {
        &self.inner.root
    }
    pub fn root_id(&self) -> &RootId {
        &self.root_id
    }
    pub fn part(&self, kind: Kind) -> Result<&Part> {
        self.manifest().part(kind).ok_or_else(|| UpgradeError::Damaged(format!("it has no part {kind:?}")))
    }

    /// Piece `index` of a part, into the front of `buf` ([`CHUNK_BYTES`] long).
    pub fn chunk<'a>(&self, part: &Part, index: usize, buf: &'a mut [u8]) -> Result<&'a [u8]> {
        let before = self.manifest().parts.iter().take_while(|p| p.kind != part.kind);
        let part_at = self.inner.payload_at + before.map(|p| p.size_bytes).sum::<u64>();
        let at = index as u64 * CHUNK_BYTES;
        let len = CHUNK_BYTES.min(part.size_bytes.saturating_sub(at)) as usize;
        let buf = &mut buf[..len];
        read(&self.inner.source, part_at + at, buf)?;
        let wanted = part.chunks.get(index).map(String::as_str);
        if Some(hex(digest(&SHA256, buf).as_ref()).as_str()) != wanted {
            return Err(UpgradeError::Damaged(format!(
                "part {:?} fails its checksum at byte {at}",
                part.kind
            )));
        }
        Ok(buf)
    }

    fn uki(&self) -> Result<Uki> {
        let part = self.part(Kind::Uki)?;
        let at = self.inner.payload_at;
        Uki::read(&mut |offset, buf| match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= part.size_bytes => read(&self.inner.source, at + offset, buf),
            _ => Err(UpgradeError::Damaged("its kernel image ends early".into())),
        })
    }
}

fn read(source: &impl Source, at: u64, buf: &mut [u8]) -> Result<()> {
    source.read_at(at, buf).map_err(UpgradeError::io("reading the bundle"))
}
