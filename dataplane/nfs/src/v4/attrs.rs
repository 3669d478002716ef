//! Attributes (RFC 8881, section 5; RFC 7862, section 12.2; RFC 8275).

use super::types::{OpResult, Status, ftype4};
use crate::rpc::IO_MAX_BYTES;
use crate::xdr::{Reader, Writer, XdrResult};
use basalt_shard::vfs::{Attr, FILE_SIZE_MAX, FsStat, LINK_MAX, NAME_MAX, SetAttr, SetTime, WallTime};
use bytes::Bytes;

/// bitmap4, as far as any attribute here goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: [u32; 3],
    /// A bit beyond the words kept was set.
    beyond: bool,
}

const BITMAP_WORDS_MAX: usize = 16;

impl Bitmap {
    pub(crate) const fn of(attributes: &[u32]) -> Bitmap {
        let mut words = [0; 3];
        let mut i = 0;
        while i < attributes.len() {
            words[attributes[i] as usize / 32] |= 1 << (attributes[i] % 32);
            i += 1;
        }
        Bitmap { words, beyond: false }
    }
    pub(crate) fn decode(r: &mut Reader) -> XdrResult<Bitmap> {
        let mut b = Bitmap::default();
        for i in 0..r.count(BITMAP_WORDS_MAX)? {
            let word = r.u32()?;
            match b.words.get_mut(i) {
                Some(w) => *w = word,
                None => b.beyond |= word != 0,
            }
        }
        Ok(b)
    }
    pub(crate) fn encode(&self, w: &mut Writer) {
        let n = self.words.iter().rposition(|w| *w != 0).map_or(0, |i| i + 1);
        w.u32(n as u32);
        for word in &self.words[..n] {
            w.u32(*word);
        }
    }
    pub(crate) fn has(&self, attribute: u32) -> bool {
        self.words[attribute as usize / 32] & 1 << (attribute % 32) != 0
    }
    pub(crate) fn set(&mut self, attribute: u32) {
        self.words[attribute as usize / 32] |= 1 << (attribute % 32);
    }
    pub(crate) fn and(&self, o: &Bitmap) -> Bitmap {
        Bitmap { words: std::array::from_fn(|i| self.words[i] & o.words[i]), beyond: false }
    }
    pub(crate) fn intersects(&self, o: &Bitmap) -> bool {
        self.and(o).words != [0; 3]
    }
    /// Every bit of `self` is in `o`.
    pub(crate) fn within(&self, o: &Bitmap) -> bool {
        !self.beyond && self.and(o).words == self.words
    }
}

pub(crate) const SIZE: u32 = 4;
const RDATTR_ERROR: u32 = 11;
pub(crate) const MODE: u32 = 33;
const OWNER: u32 = 36;
const OWNER_GROUP: u32 = 37;
const TIME_ACCESS_SET: u32 = 48;
const TIME_MODIFY_SET: u32 = 54;
const MODE_UMASK: u32 = 81;
const FILEHANDLE: u32 = 19;

const SUPPORTED_4_1: Bitmap = Bitmap::of(&[
    0,
    1,
    2,
    3,
    SIZE,
    5,
    6,
    7,
    8,
    9,
    10,
    RDATTR_ERROR,
    13,
    15,
    16,
    17,
    18,
    FILEHANDLE,
    20,
    21,
    22,
    23,
    26,
    27,
    28,
    29,
    30,
    31,
    MODE,
    34,
    35,
    OWNER,
    OWNER_GROUP,
    41,
    42,
    43,
    44,
    45,
    47,
    TIME_ACCESS_SET,
    50,
    51,
    52,
    53,
    TIME_MODIFY_SET,
    55,
    75,
]);
const ONLY_4_2: Bitmap = Bitmap::of(&[79, MODE_UMASK, 82]);
const SETTABLE: Bitmap =
    Bitmap::of(&[SIZE, MODE, OWNER, OWNER_GROUP, TIME_ACCESS_SET, TIME_MODIFY_SET, MODE_UMASK]);
/// What an EXCLUSIVE4_1 create may set: the verifier lies in the inode, so nothing is used up by it.
const SETTABLE_EXCLUSIVE: Bitmap = SETTABLE;
const WRITE_ONLY: Bitmap = Bitmap::of(&[TIME_ACCESS_SET, TIME_MODIFY_SET, MODE_UMASK]);
const OF_FILE_SYSTEM: Bitmap = Bitmap::of(&[21, 22, 23, 42, 43, 44]);
/// Attributes that need the inode: without any of them READDIR is spared reading it.
const OF_INODE: Bitmap =
    Bitmap::of(&[3, SIZE, FILEHANDLE, MODE, 35, OWNER, OWNER_GROUP, 41, 45, 47, 50, 52, 53]);

fn supported(minor: u32) -> Bitmap {
    let mut b = SUPPORTED_4_1;
    if minor >= 2 {
        for (w, more) in b.words.iter_mut().zip(ONLY_4_2.words) {
            *w |= more;
        }
    }
    b
}

pub(crate) fn needs_statfs(want: &Bitmap) -> bool {
    want.intersects(&OF_FILE_SYSTEM)
}
pub(crate) fn needs_inode(want: &Bitmap) -> bool {
    want.intersects(&OF_INODE)
}
pub(crate) fn wants_rdattr_error(want: &Bitmap) -> bool {
    want.has(RDATTR_ERROR)
}
/// Only rdattr_error, for an entry whose attributes cannot be had.
pub(crate) fn encode_rdattr_error(w: &mut Writer, why: Status) {
    Bitmap::of(&[RDATTR_ERROR]).encode(w);
    w.u32(4);
    w.u32(why.0);
}

/// All that an fattr4 is made of.
pub(crate) struct Source<'a> {
    pub(crate) attr: &'a Attr,
    pub(crate) handle: &'a [u8],
    pub(crate) fsid: (u64, u64),
    pub(crate) mounted_on: u64,
    pub(crate) lease_s: u32,
    pub(crate) stat: Option<FsStat>,
    pub(crate) minor: u32,
}

/// GETATTR and READDIR ask for anything and get what is supported; write-only attributes are an error.
pub(crate) fn readable(want: &Bitmap) -> OpResult {
    if want.has(TIME_ACCESS_SET) || want.has(TIME_MODIFY_SET) { Err(Status::INVAL) } else { Ok(()) }
}
/// VERIFY and NVERIFY compare only what is supported and comparable (section 18.30.3).
pub(crate) fn comparable(want: &Bitmap, minor: u32) -> OpResult {
    if !want.within(&supported(minor)) {
        return Err(Status::ATTRNOTSUPP);
    }
    if want.intersects(&WRITE_ONLY) || want.has(RDATTR_ERROR) { Err(Status::INVAL) } else { Ok(()) }
}

fn time(w: &mut Writer, t: WallTime) {
    w.i64(t.sec);
    w.u32(t.nsec);
}

/// fattr4 with the supported part of `want`.
pub(crate) fn encode(w: &mut Writer, want: &Bitmap, s: &Source<'_>) {
    let mut have = want.and(&supported(s.minor));
    have.words[1] &= !WRITE_ONLY.words[1];
    have.words[2] &= !WRITE_ONLY.words[2];
    have.encode(w);
    let length_at = w.len();
    w.u32(0);
    let a = s.attr;
    let stat = s.stat.unwrap_or(FsStat {
        total_bytes: 0,
        free_bytes: 0,
        available_bytes: 0,
        total_files: 0,
        free_files: 0,
    });
    for (i, word) in have.words.iter().enumerate() {
        let mut bits = *word;
        while bits != 0 {
            let n = i as u32 * 32 + bits.trailing_zeros();
            bits &= bits - 1;
            match n {
                0 => supported(s.minor).encode(w),
                1 => w.u32(ftype4(a.kind)),
                2 => w.u32(0), // FH4_PERSISTENT
                3 => w.u64(a.change),
                SIZE => w.u64(a.size),
                5 | 6 => w.bool(true),
                7 => w.bool(false),
                8 => {
                    w.u64(s.fsid.0);
                    w.u64(s.fsid.1);
                }
                9 => w.bool(true),
                10 => w.u32(s.lease_s),
                RDATTR_ERROR => w.u32(0),
                13 => w.u32(0),
                15 => w.bool(true),
                16 => w.bool(false),
                17 | 18 => w.bool(true),
                FILEHANDLE => w.opaque(s.handle),
                20 => w.u64(a.ino.0),
                21 | 22 => w.u64(stat.free_files),
                23 => w.u64(stat.total_files),
                26 => w.bool(true),
                27 => w.u64(FILE_SIZE_MAX),
                28 => w.u32(LINK_MAX),
                29 => w.u32(NAME_MAX as u32),
                30 | 31 => w.u64(IO_MAX_BYTES as u64),
                MODE => w.u32(a.mode & 0o7777),
                34 => w.bool(true),
                35 => w.u32(a.nlink),
                OWNER => w.opaque(a.uid.to_string().as_bytes()),
                OWNER_GROUP => w.opaque(a.gid.to_string().as_bytes()),
                41 => {
                    w.u32(a.rdev.0);
                    w.u32(a.rdev.1);
                }
                42 => w.u64(stat.available_bytes),
                43 => w.u64(stat.free_bytes),
                44 => w.u64(stat.total_bytes),
                45 => w.u64(a.used),
                47 => time(w, a.atime),
                50 => time(w, a.btime),
                51 => time(w, WallTime { sec: 0, nsec: 1 }),
                52 => time(w, a.ctime),
                53 => time(w, a.mtime),
                55 => w.u64(s.mounted_on),
                75 => SETTABLE_EXCLUSIVE.and(&supported(s.minor)).encode(w),
                79 => w.u32(0), // NFS4_CHANGE_TYPE_IS_MONOTONIC_INCR
                82 => w.bool(false),
                _ => {}
            }
        }
    }
    w.patch_u32(length_at, (w.len() - length_at - 4) as u32);
}

/// Just the values that `encode` would give, for VERIFY.
pub(crate) fn encoded_values(want: &Bitmap, s: &Source<'_>) -> XdrResult<Bytes> {
    let mut w = Writer::new();
    encode(&mut w, want, s);
    let mut r = Reader::new(w.finish_contiguous());
    Bitmap::decode(&mut r)?;
    r.opaque(usize::MAX)
}

const ATTRLIST_MAX: usize = 4096;

/// A bitmap and its values, not looked into.
pub(crate) fn decode_raw(r: &mut Reader) -> XdrResult<(Bitmap, Bytes)> {
    Ok((Bitmap::decode(r)?, r.opaque(ATTRLIST_MAX)?))
}

/// The attributes that SETATTR, CREATE and OPEN may set, and which were given.
pub(crate) fn decode_settable(r: &mut Reader, minor: u32) -> OpResult<(SetAttr, Bitmap)> {
    let (bits, values) = decode_raw(r)?;
    if !bits.within(&supported(minor)) {
        return Err(Status::ATTRNOTSUPP);
    }
    if !bits.within(&SETTABLE) {
        return Err(Status::INVAL); // read-only
    }
    if bits.has(MODE) && bits.has(MODE_UMASK) {
        return Err(Status::INVAL); // RFC 8275, section 4
    }
    let mut r = Reader::new(values);
    let mut set = SetAttr::default();
    if bits.has(SIZE) {
        set.size = Some(r.u64()?);
    }
    if bits.has(MODE) {
        set.mode = Some(mode(r.u32()?)?);
    }
    if bits.has(OWNER) {
        set.uid = Some(numeric_owner(&r.opaque(ATTRLIST_MAX)?)?);
    }
    if bits.has(OWNER_GROUP) {
        set.gid = Some(numeric_owner(&r.opaque(ATTRLIST_MAX)?)?);
    }
    if bits.has(TIME_ACCESS_SET) {
        set.atime = Some(settime(&mut r)?);
    }
    if bits.has(TIME_MODIFY_SET) {
        set.mtime = Some(settime(&mut r)?);
    }
    if bits.has(MODE_UMASK) {
        let (m, umask) = (mode(r.u32()?)?, r.u32()?);
        set.mode = Some(m & !(umask & 0o777));
    }
    if r.remaining() != 0 {
        return Err(Status::BADXDR);
    }
    if set.size.is_some_and(|s| s > FILE_SIZE_MAX) {
        return Err(Status::FBIG);
    }
    Ok((set, bits))
}

fn mode(m: u32) -> OpResult<u32> {
    if m & !0o7777 == 0 { Ok(m) } else { Err(Status::INVAL) }
}

fn settime(r: &mut Reader) -> OpResult<SetTime> {
    match r.u32()? {
        0 => Ok(SetTime::Now),
        1 => {
            let t = WallTime { sec: r.i64()?, nsec: r.u32()? };
            if t.nsec < 1_000_000_000 { Ok(SetTime::To(t)) } else { Err(Status::INVAL) }
        }
        _ => Err(Status::BADXDR),
    }
}

/// Owners are numbers in decimal; names need a mapping that is not ours (section 5.9).
fn numeric_owner(s: &[u8]) -> OpResult<u32> {
    let digits = s.len() <= 10 && !s.is_empty() && s.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(s).ok().filter(|_| digits).ok_or(Status::BADOWNER)?;
    text.parse().map_err(|_| Status::BADOWNER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_shard::vfs::{FileType, Ino};

    fn attr() -> Attr {
        let t = WallTime { sec: 1, nsec: 2 };
        Attr {
            ino: Ino(9),
            generation: 1,
            kind: FileType::Regular,
            mode: 0o644,
            nlink: 1,
            uid: 1000,
            gid: 0,
            size: 5,
            used: 4096,
            rdev: (0, 0),
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            change: 77,
        }
    }

    #[test]
    fn every_supported_attribute_is_encoded() {
        let a = attr();
        for minor in [1, 2] {
            let s = Source {
                attr: &a,
                handle: &[1; 60],
                fsid: (1, 2),
                mounted_on: 9,
                lease_s: 90,
                stat: None,
                minor,
            };
            for n in 0..96 {
                let want = Bitmap::of(&[n]);
                let mut w = Writer::new();
                encode(&mut w, &want, &s);
                let mut r = Reader::new(w.finish_contiguous());
                let got = Bitmap::decode(&mut r).unwrap();
                let values = r.opaque(4096).unwrap();
                let given = supported(minor).has(n) && !WRITE_ONLY.has(n);
                assert_eq!(got.has(n), given, "attribute {n}");
                assert_eq!(!values.is_empty(), given, "attribute {n}");
                assert_eq!(r.remaining(), 0);
            }
        }
    }

    #[test]
    fn owners_are_numbers() {
        assert_eq!(numeric_owner(b"1000"), Ok(1000));
        assert_eq!(numeric_owner(b"4294967295"), Ok(u32::MAX));
        for bad in [&b""[..], b"root", b"root@localdomain", b"+1", b"4294967296", b"-1", b"00000000001"] {
            assert_eq!(numeric_owner(bad), Err(Status::BADOWNER));
        }
    }

    #[test]
    fn settable_attributes() {
        let mut w = Writer::new();
        Bitmap::of(&[SIZE, OWNER, MODE_UMASK]).encode(&mut w);
        let mut v = Writer::new();
        v.u64(10);
        v.opaque(b"42");
        v.u32(0o666);
        v.u32(0o022);
        w.opaque(&v.finish_contiguous());
        let wire = w.finish_contiguous();
        let (set, _) = decode_settable(&mut Reader::new(wire.clone()), 2).unwrap();
        assert_eq!((set.size, set.uid, set.mode), (Some(10), Some(42), Some(0o644)));
        assert_eq!(decode_settable(&mut Reader::new(wire), 1).unwrap_err(), Status::ATTRNOTSUPP);
        let mut w = Writer::new();
        Bitmap::of(&[20]).encode(&mut w);
        w.opaque(&[0; 8]);
        assert_eq!(decode_settable(&mut Reader::new(w.finish_contiguous()), 2).unwrap_err(), Status::INVAL);
    }
}
