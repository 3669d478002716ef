//! Making a bundle: at the vendor's, from what `make image` put out.

use super::format::{self, Header};
use crate::error::{Result, UpgradeError};
use crate::manifest::{CHUNK_BYTES, Kind, Manifest, Part, Version};
use crate::trust::{SignedRoot, SigningKey, hex};
use crate::verity::RootId;
use ring::digest::{Context, SHA256, digest};
use std::io::{Read, Seek, SeekFrom, Write};
use zerocopy::IntoBytes;

/// What goes into the manifest beside what the parts say themselves.
pub struct Recipe {
    pub version: Version,
    pub architecture: String,
    pub created: u64,
    pub expires: u64,
    pub minimum_version: Version,
    pub hardware: Vec<String>,
    pub notes: String,
    pub root_id: RootId,
    pub key_chain: Vec<SignedRoot>,
}

/// Writes a bundle. The parts are read twice, in pieces.
pub fn build<P: Read + Seek>(
    recipe: Recipe,
    mut uki: P,
    mut root: P,
    signers: &[SigningKey],
    out: &mut dyn Write,
) -> Result<Manifest> {
    if signers.is_empty() {
        return Err(UpgradeError::Untrusted("no key to sign it with; name one with --sign".into()));
    }
    let parts = vec![describe(Kind::Uki, &mut uki)?, describe(Kind::Root, &mut root)?];
    let payload_len = parts.iter().map(|p| p.size_bytes).sum();
    let manifest = Manifest {
        product: "basalt".into(),
        version: recipe.version,
        architecture: recipe.architecture,
        created: recipe.created,
        expires: recipe.expires,
        minimum_version: recipe.minimum_version,
        hardware: recipe.hardware,
        root_hash: hex(&recipe.root_id.root_hash),
        root_data_blocks: recipe.root_id.data_blocks,
        root_salt: hex(&recipe.root_id.salt),
        notes: recipe.notes,
        chunk_bytes: CHUNK_BYTES,
        parts,
    };
    manifest.check()?;
    let text = serde_json::to_vec(&manifest).map_err(|e| UpgradeError::Damaged(e.to_string()))?;
    let roots = format::encode_roots(&recipe.key_chain);
    let signatures_len = 2 + 96 * signers.len();
    let header = Header::new(roots.len() as u32, text.len() as u32, signatures_len as u32, payload_len);
    // What a reader would refuse is not written.
    Header::parse(header.as_bytes())?;
    format::decode_roots(&roots)?;
    let covered = [header.as_bytes(), &roots[..], &text[..]];
    let signatures: Vec<_> = signers.iter().map(|s| s.sign_bundle(&covered)).collect();
    let write = |out: &mut dyn Write, bytes: &[u8]| {
        out.write_all(bytes).map_err(UpgradeError::io("writing the bundle"))
    };
    for bytes in [header.as_bytes(), &roots, &text, &format::encode_signatures(&signatures)] {
        write(out, bytes)?;
    }
    for part in [&mut uki, &mut root] {
        rewind(part)?;
        std::io::copy(part, out).map_err(UpgradeError::io("writing the bundle"))?;
    }
    out.flush().map_err(UpgradeError::io("writing the bundle"))?;
    Ok(manifest)
}

fn describe(kind: Kind, part: &mut (impl Read + Seek)) -> Result<Part> {
    rewind(part)?;
    let mut whole = Context::new(&SHA256);
    let (mut size_bytes, mut chunks) = (0, Vec::new());
    loop {
        let mut chunk = Vec::new();
        part.by_ref()
            .take(CHUNK_BYTES)
            .read_to_end(&mut chunk)
            .map_err(UpgradeError::io("reading a part of the bundle"))?;
        if chunk.is_empty() {
            break;
        }
        whole.update(&chunk);
        size_bytes += chunk.len() as u64;
        chunks.push(hex(digest(&SHA256, &chunk).as_ref()));
    }
    Ok(Part { kind, size_bytes, sha256: hex(whole.finish().as_ref()), chunks })
}

fn rewind(part: &mut impl Seek) -> Result<()> {
    part.seek(SeekFrom::Start(0)).map(drop).map_err(UpgradeError::io("reading a part of the bundle"))
}
