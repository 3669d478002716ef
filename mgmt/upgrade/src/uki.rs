//! What a unified kernel image says about itself: the PE sections `.cmdline` and `.osrel`
//! (UAPI Unified Kernel Image specification; PE format by Microsoft, section table).

use crate::error::{Result, UpgradeError};
use crate::manifest::Version;
use crate::verity::RootId;

/// A command line or an os-release beyond that is nothing we make.
const MAX_SECTION_BYTES: u64 = 64 << 10;
const MAX_SECTIONS: usize = 64;

/// The parts of a UKI that an upgrade needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    pub version: Version,
    /// None in a whole-OS image, which carries its root itself.
    pub root: Option<RootId>,
}

impl Uki {
    /// Reads it through `read(offset, buffer)`.
    pub fn read(read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Uki> {
        let (os_release, cmdline) = (section(read, b".osrel")?, section(read, b".cmdline")?);
        let version = field(&os_release, "VERSION_ID=")
            .ok_or_else(|| damaged("its .osrel has no VERSION_ID"))?
            .parse()
            .map_err(|e| damaged(&format!("VERSION_ID in its .osrel: {e}")))?;
        Ok(Uki { version, root: root_of(&cmdline)? })
    }
}

/// The root that a kernel command line asks for.
pub fn root_of(cmdline: &str) -> Result<Option<RootId>> {
    let Some(root) = cmdline.split_whitespace().find_map(|w| w.strip_prefix("basalt.root=")) else {
        return Ok(None);
    };
    root.parse().map(Some).map_err(|e: String| damaged(&e))
}

fn field<'a>(os_release: &'a str, key: &str) -> Option<&'a str> {
    os_release.lines().find_map(|l| l.trim().strip_prefix(key)).map(|v| v.trim_matches(['"', '\'']))
}

fn section(read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>, name: &[u8]) -> Result<String> {
    let mut dos = [0; 64];
    read(0, &mut dos)?;
    if &dos[..2] != b"MZ" {
        return Err(damaged("it does not begin like a program for UEFI"));
    }
    let pe_at = u64::from(u32_at(&dos, 60));
    let mut coff = [0; 24];
    read(pe_at, &mut coff)?;
    if &coff[..4] != b"PE\0\0" {
        return Err(damaged("it has no PE header"));
    }
    let sections = usize::from(u16::from_le_bytes([coff[6], coff[7]])).min(MAX_SECTIONS);
    let table_at = pe_at + 24 + u64::from(u16::from_le_bytes([coff[20], coff[21]]));
    for i in 0..sections {
        let mut header = [0; 40];
        read(table_at + 40 * i as u64, &mut header)?;
        let padded = header[..8].iter().position(|b| *b == 0).unwrap_or(8);
        if &header[..padded] != name {
            continue;
        }
        let len = u64::from(u32_at(&header, 8).min(u32_at(&header, 16)));
        if len > MAX_SECTION_BYTES {
            return Err(damaged("a section is longer than it may be"));
        }
        let mut bytes = vec![0; len as usize];
        read(u64::from(u32_at(&header, 20)), &mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("a section is not UTF-8"))?;
        return Ok(text.trim_end_matches(['\0', '\n']).to_owned());
    }
    Err(damaged(&format!("it has no section {}", String::from_utf8_lossy(name))))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
fn damaged(why: &str) -> UpgradeError {
    UpgradeError::Damaged(format!("kernel image: {why}"))
}

/// The smallest file that [`Uki::read`] understands; `filler` stands for the kernel. For tests.
#[doc(hidden)]
pub fn sample(version: &str, root: Option<&RootId>, filler: &[u8]) -> Vec<u8> {
    let cmdline = root.map_or_else(String::new, |r| format!("quiet basalt.root={r} panic=10"));
    let os_release = format!("ID=basalt\nVERSION_ID={version}\n");
    let mut file = vec![0; 512];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file[64..68].copy_from_slice(b"PE\0\0");
    file[70] = 3;
    let mut at = 512;
    let parts: [(&[u8], &[u8]); 3] =
        [(b".osrel", os_release.as_bytes()), (b".cmdline", cmdline.as_bytes()), (b".linux", filler)];
    for (i, (name, body)) in parts.iter().enumerate() {
        let header = &mut file[88 + 40 * i..][..40];
        header[..name.len()].copy_from_slice(name);
        header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(at as u32).to_le_bytes());
        at += body.len();
    }
    parts.iter().for_each(|(_, body)| file.extend_from_slice(body));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Uki> {
        Uki::read(&mut |at, buf| {
            let end = usize::try_from(at).ok().and_then(|at| Some(at..at.checked_add(buf.len())?));
            let found = end.and_then(|range| bytes.get(range)).ok_or_else(|| damaged("too short"))?;
            buf.copy_from_slice(found);
            Ok(())
        })
    }

    #[test]
    fn reads_what_it_says() {
        let root = RootId { root_hash: [7; 32], data_blocks: 12, salt: vec![1, 2] };
        let uki = parse(&sample("1.2.3", Some(&root), b"kernel")).unwrap();
        assert_eq!((uki.version.to_string().as_str(), uki.root), ("1.2.3", Some(root)));
        assert_eq!(parse(&sample("1.2.3", None, b"")).unwrap().root, None);
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in Just(sample("1.2.3", None, b"kernel")), flips in prop::collection::vec((0usize..600, any::<u8>()), 0..8), cut in 0usize..700) {
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            }
            bytes.truncate(cut);
            let _ = parse(&bytes);
        }
    }
}
