//! Directory entries of 32 bytes: a short one, with the long name in entries before it.

pub(super) const BYTES: usize = 32;
pub(super) const FREE: u8 = 0xe5;
pub(super) const LONG_NAME: u8 = 0x0f;
pub(super) const DIRECTORY: u8 = 0x10;
pub(super) const VOLUME_LABEL: u8 = 0x08;
const ARCHIVE: u8 = 0x20;
/// 1980-01-01, the first day FAT knows: images are reproducible and nobody reads it.
const DATE: [u8; 2] = 0x0021_u16.to_le_bytes();
/// Where the 13 UTF-16 units of a long-name entry stand.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

pub(super) type Raw = [u8; BYTES];

/// A short entry for a file.
pub(super) fn short(alias: [u8; 11], first_cluster: u32, size_bytes: u32) -> Raw {
    any(alias, ARCHIVE, first_cluster, size_bytes)
}

/// A short entry for a directory, whose size is not kept here.
pub(super) fn directory(alias: [u8; 11], first_cluster: u32) -> Raw {
    any(alias, DIRECTORY, first_cluster, 0)
}

fn any(alias: [u8; 11], kind: u8, first_cluster: u32, size_bytes: u32) -> Raw {
    let mut raw = [0; BYTES];
    raw[..11].copy_from_slice(&alias);
    raw[11] = kind;
    for at in [16, 18, 24] {
        raw[at..at + 2].copy_from_slice(&DATE);
    }
    raw[20..22].copy_from_slice(&((first_cluster >> 16) as u16).to_le_bytes());
    raw[26..28].copy_from_slice(&(first_cluster as u16).to_le_bytes());
    raw[28..32].copy_from_slice(&size_bytes.to_le_bytes());
    raw
}

/// A name as a short entry holds it, if it fits one but for its case: `EFI`, `loader`, `BOOTX64.EFI`.
pub(super) fn as_short(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fine = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !(1..=8).contains(&base.len()) || extension.len() > 3 || !fine(base) || !fine(extension) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.to_ascii_uppercase().as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.to_ascii_uppercase().as_bytes());
    Some(short)
}

/// The entries of a name as they stand in a directory: long name backwards, then `short`, which is enough where it says the same.
pub(super) fn set(name: &str, short: Raw) -> Vec<Raw> {
    if short_name(&short) == name {
        return vec![short];
    }
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(13) {
        units.push(0);
        units.resize(units.len().next_multiple_of(13), 0xffff);
    }
    let sum = checksum(&short[..11]);
    let count = units.len() / 13;
    let longs = units.chunks(13).enumerate().rev().map(|(i, piece)| {
        let mut raw = [0; BYTES];
        raw[0] = (i + 1) as u8 | if i + 1 == count { 0x40 } else { 0 };
        raw[11] = LONG_NAME;
        raw[13] = sum;
        for (unit, at) in piece.iter().zip(UNITS) {
            raw[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        raw
    });
    longs.chain([short]).collect()
}

/// The long name in `longs` (in the order of the directory), if they belong to this short entry.
pub(super) fn long_name(longs: &[Raw], short: &Raw) -> Option<String> {
    let sum = checksum(&short[..11]);
    let mut units = Vec::new();
    for (i, raw) in longs.iter().rev().enumerate() {
        let last = i + 1 == longs.len();
        if raw[0] != (i + 1) as u8 | if last { 0x40 } else { 0 } || raw[13] != sum {
            return None;
        }
        units.extend(UNITS.map(|at| u16::from_le_bytes([raw[at], raw[at + 1]])));
    }
    let end = units.iter().position(|u| *u == 0).unwrap_or(units.len());
    (!longs.is_empty()).then(|| String::from_utf16_lossy(&units[..end]))
}

/// `NAME.EXT`, in the case that Windows NT's bits of byte 12 say.
pub(super) fn short_name(raw: &Raw) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_lowercase() } else { text }
    };
    let (base, extension) = (part(&raw[..8], raw[12] & 0x08 != 0), part(&raw[8..11], raw[12] & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

fn checksum(alias: &[u8]) -> u8 {
    alias.iter().fold(0, |sum: u8, b| sum.rotate_right(1).wrapping_add(*b))
}
