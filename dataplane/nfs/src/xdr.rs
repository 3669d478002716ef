//! XDR (RFC 4506), bounded: every length is checked against its limit and against what is left before anything is
//! taken, and bulk data is sliced out of the record and spliced into replies without a copy.

use bytes::{BufMut, Bytes, BytesMut};

/// The input is not what the protocol's XDR description allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR")]
pub struct Malformed;

pub type XdrResult<T> = Result<T, Malformed>;

/// Reads from the front of a record.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

/// Bytes that round `len` up to the next multiple of four.
pub fn padding(len: usize) -> usize {
    (4 - len % 4) % 4
}

impl Reader {
    pub fn new(data: Bytes) -> Reader {
        Reader { rest: data }
    }
    /// What has not been read yet.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
    pub fn u32(&mut self) -> XdrResult<u32> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }
    pub fn u64(&mut self) -> XdrResult<u64> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }
    pub fn i64(&mut self) -> XdrResult<i64> {
        Ok(self.u64()? as i64)
    }
    pub fn bool(&mut self) -> XdrResult<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
    /// A fixed opaque; `N` must be a multiple of four.
    pub fn fixed<const N: usize>(&mut self) -> XdrResult<[u8; N]> {
        const { assert!(N.is_multiple_of(4)) };
        let bytes = self.rest.get(..N).ok_or(Malformed)?;
        let out = bytes.try_into().map_err(|_| Malformed)?;
        let _ = self.rest.split_to(N);
        Ok(out)
    }
    /// A variable opaque of at most `max` bytes, sliced, not copied.
    pub fn opaque(&mut self, max: usize) -> XdrResult<Bytes> {
        let len = self.u32()? as usize;
        if len > max || len + padding(len) > self.rest.len() {
            return Err(Malformed);
        }
        let out = self.rest.split_to(len);
        let _ = self.rest.split_to(padding(len));
        Ok(out)
    }
    /// The element count of a variable array, refused above `max`.
    pub fn count(&mut self, max: usize) -> XdrResult<usize> {
        let n = self.u32()? as usize;
        // Every XDR element takes at least four bytes.
        if n > max || n > self.rest.len() / 4 { Err(Malformed) } else { Ok(n) }
    }
}

/// Pieces below this are copied: a separate iovec costs more than the copy.
const SPLICE_MIN_BYTES: usize = 512;

/// Builds a message as a list of pieces.
#[derive(Debug, Default)]
pub struct Writer {
    done: Vec<Bytes>,
    done_len: usize,
    tail: BytesMut,
}

impl Writer {
    pub fn new() -> Writer {
        Writer { done: Vec::new(), done_len: 0, tail: BytesMut::with_capacity(512) }
    }
    pub fn len(&self) -> usize {
        self.done_len + self.tail.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn u32(&mut self, v: u32) {
        self.tail.put_u32(v);
    }
    pub fn u64(&mut self, v: u64) {
        self.tail.put_u64(v);
    }
    pub fn i64(&mut self, v: i64) {
        self.tail.put_i64(v);
    }
    pub fn bool(&mut self, v: bool) {
        self.tail.put_u32(v as u32);
    }
    /// A fixed opaque, padded.
    pub fn fixed(&mut self, v: &[u8]) {
        self.tail.put_slice(v);
        self.tail.put_bytes(0, padding(v.len()));
    }
    /// A variable opaque.
    pub fn opaque(&mut self, v: &[u8]) {
        self.u32(v.len() as u32);
        self.fixed(v);
    }
    /// A variable opaque made of `pieces`, which join the message without a copy.
    pub fn opaque_pieces(&mut self, pieces: Vec<Bytes>) {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        self.u32(len as u32);
        for piece in pieces {
            self.raw(piece);
        }
        self.tail.put_bytes(0, padding(len));
    }
    /// Bytes that are XDR already.
    pub fn raw(&mut self, piece: Bytes) {
        if piece.len() < SPLICE_MIN_BYTES {
            self.tail.put_slice(&piece);
            return;
        }
        self.flush_tail();
        self.done_len += piece.len();
        self.done.push(piece);
    }
    /// Everything that `other` holds.
    pub fn append(&mut self, other: Writer) {
        for piece in other.finish() {
            self.raw(piece);
        }
    }
    /// Overwrites a word written earlier; ignored when it has been sealed by a spliced piece meanwhile.
    pub fn patch_u32(&mut self, at: usize, v: u32) {
        let at = at.wrapping_sub(self.done_len);
        if let Some(slot) = self.tail.get_mut(at..at.wrapping_add(4)) {
            slot.copy_from_slice(&v.to_be_bytes());
        }
    }
    /// Drops everything from `len` on.
    pub fn truncate(&mut self, len: usize) {
        while len < self.done_len {
            self.tail.clear();
            let Some(last) = self.done.pop() else { break };
            self.done_len -= last.len();
            if self.done_len < len {
                self.tail.put_slice(&last[..len - self.done_len]);
            }
        }
        self.tail.truncate(len - self.done_len);
    }
    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.done_len += self.tail.len();
            self.done.push(self.tail.split().freeze());
        }
    }
    pub fn finish(mut self) -> Vec<Bytes> {
        self.flush_tail();
        self.done
    }
    /// As one contiguous buffer, for small messages.
    pub fn finish_contiguous(self) -> Bytes {
        let mut pieces = self.finish();
        if pieces.len() == 1 {
            return pieces.remove(0);
        }
        pieces.concat().into()
    }
}

/// Total bytes of a message.
pub fn pieces_len(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip_with_padding() {
        let mut w = Writer::new();
        w.u32(7);
        w.opaque(b"abcde");
        w.u64(1 << 40);
        w.bool(true);
        let bytes = w.finish_contiguous();
        assert_eq!(&bytes[..], b"\0\0\0\x07\0\0\0\x05abcde\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x01");
        let mut r = Reader::new(bytes);
        assert_eq!(r.u32(), Ok(7));
        assert_eq!(&r.opaque(5).unwrap()[..], b"abcde");
        assert_eq!(r.u64(), Ok(1 << 40));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.u32(), Err(Malformed));
    }

    #[test]
    fn limits_hold() {
        let mut r = Reader::new(Bytes::from_static(b"\0\0\0\x05abcde"));
        assert_eq!(r.opaque(16), Err(Malformed), "padding missing");
        let mut r = Reader::new(Bytes::from_static(b"\0\0\0\x04abcd"));
        assert_eq!(r.opaque(3), Err(Malformed));
        let mut r = Reader::new(Bytes::from_static(b"\xff\xff\xff\xff"));
        assert_eq!(r.opaque(usize::MAX), Err(Malformed));
        let mut r = Reader::new(Bytes::from_static(b"\x7f\xff\xff\xff\0\0\0\0"));
        assert_eq!(r.count(usize::MAX), Err(Malformed));
    }

    #[test]
    fn patch_and_truncate_across_splices() {
        let mut w = Writer::new();
        w.u32(1);
        let at = w.len();
        w.u32(0);
        w.patch_u32(at, 9);
        w.opaque_pieces(vec![Bytes::from(vec![3; 1000]), Bytes::from(vec![4; 3])]);
        assert_eq!(w.len(), 8 + 4 + 1004);
        w.truncate(8 + 4 + 600);
        w.u32(5);
        let all = w.finish().concat();
        assert_eq!(all.len(), 8 + 4 + 604);
        assert_eq!(&all[4..8], &[0, 0, 0, 9]);
        assert_eq!(&all[8 + 4 + 600..], &[0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn pieces_equal_a_plain_opaque(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..5)) {
            let flat: Vec<u8> = parts.concat();
            let mut a = Writer::new();
            a.u32(1);
            a.opaque(&flat);
            a.u32(2);
            let mut b = Writer::new();
            b.u32(1);
            b.opaque_pieces(parts.into_iter().map(Bytes::from).collect());
            b.u32(2);
            prop_assert_eq!(a.len(), b.len());
            prop_assert_eq!(a.finish_contiguous(), b.finish_contiguous());
        }
    }
}
