//! A transaction as a journal record: what it put and deleted, the stripes it made live, the blocks it let go.
//!
//! Little-endian: `version u8 = 1, features u8 = 0`, then items until the end, each led by its kind:
//!
//! | kind | item |
//! |---|---|
//! | 1 put | key bytes `u16`, value bytes `u32`, key, value |
//! | 2 delete | key bytes `u16`, key |
//! | 3 stripe | bytes `u32`, the pool's stripe record |
//! | 4 dead | segment `u64`, column `u8`, block `u32`, blocks `u32` |

use basalt_pool::store::StripeRecord;
use basalt_pool::{BlockAddr, SegmentId};

const VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const STRIPE: u8 = 3;
const DEAD: u8 = 4;

pub(crate) enum Item<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    Stripe(StripeRecord),
    Dead { at: BlockAddr, blocks: u32 },
}

pub(crate) struct Writer {
    bytes: Vec<u8>,
}
impl Writer {
    pub(crate) fn new() -> Writer {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&[VERSION, 0]);
        Writer { bytes }
    }
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.push(PUT);
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.bytes.push(DELETE);
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(key);
    }
    pub(crate) fn stripe(&mut self, s: &StripeRecord) {
        self.bytes.push(STRIPE);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        s.encode(&mut self.bytes);
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    pub(crate) fn dead(&mut self, at: BlockAddr, blocks: u32) {
        self.bytes.push(DEAD);
        self.bytes.extend_from_slice(&at.segment.0.to_le_bytes());
        self.bytes.push(at.column);
        self.bytes.extend_from_slice(&at.block.to_le_bytes());
        self.bytes.extend_from_slice(&blocks.to_le_bytes());
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Calls `each` for every item in order. `None` when the record is not one this code knows; some items may have been seen.
pub(crate) fn read<'a>(record: &'a [u8], mut each: impl FnMut(Item<'a>)) -> Option<()> {
    let mut rest = record.strip_prefix(&[VERSION, 0])?;
    while let Some((&kind, tail)) = rest.split_first() {
        rest = tail;
        each(match kind {
            PUT => {
                let key_bytes = take_u16(&mut rest)? as usize;
                let value_bytes = take_u32(&mut rest)? as usize;
                Item::Put { key: take(&mut rest, key_bytes)?, value: take(&mut rest, value_bytes)? }
            }
            DELETE => {
                let key_bytes = take_u16(&mut rest)? as usize;
                Item::Delete { key: take(&mut rest, key_bytes)? }
            }
            STRIPE => {
                let len = take_u32(&mut rest)? as usize;
                let mut bytes = take(&mut rest, len)?;
                let s = StripeRecord::decode(&mut bytes)?;
                if !bytes.is_empty() {
                    return None;
                }
                Item::Stripe(s)
            }
            DEAD => {
                let segment = SegmentId(u64::from_le_bytes(*rest.split_first_chunk()?.0));
                take(&mut rest, 8)?;
                let column = take(&mut rest, 1)?[0];
                let block = take_u32(&mut rest)?;
                Item::Dead { at: BlockAddr { segment, column, block }, blocks: take_u32(&mut rest)? }
            }
            _ => return None,
        });
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}
fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(rest, 2)?.try_into().ok()?))
}
fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Owned {
        Put(Vec<u8>, Vec<u8>),
        Delete(Vec<u8>),
        Dead(BlockAddr, u32),
    }
    fn owned(record: &[u8]) -> Option<Vec<Owned>> {
        let mut out = Vec::new();
        read(record, |i| {
            out.push(match i {
                Item::Put { key, value } => Owned::Put(key.to_vec(), value.to_vec()),
                Item::Delete { key } => Owned::Delete(key.to_vec()),
                Item::Dead { at, blocks } => Owned::Dead(at, blocks),
                Item::Stripe(_) => unreachable!("none was written"),
            })
        })?;
        Some(out)
    }
    fn item() -> impl Strategy<Value = Owned> {
        let bytes = |n| prop::collection::vec(any::<u8>(), 0..n);
        prop_oneof![
            (bytes(300), bytes(5000)).prop_map(|(k, v)| Owned::Put(k, v)),
            bytes(300).prop_map(Owned::Delete),
            any::<(u64, u8, u32, u32)>().prop_map(|(s, column, block, n)| Owned::Dead(
                BlockAddr { segment: SegmentId(s), column, block },
                n
            )),
        ]
    }
    proptest! {
        #[test]
        fn survives_the_journal(items in prop::collection::vec(item(), 0..8)) {
            let mut w = Writer::new();
            for i in &items {
                match i {
                    Owned::Put(k, v) => w.put(k, v),
                    Owned::Delete(k) => w.delete(k),
                    Owned::Dead(at, n) => w.dead(*at, *n),
                }
            }
            prop_assert_eq!(owned(w.bytes()), Some(items));
        }
        #[test]
        fn any_bytes_are_an_answer(b in prop::collection::vec(0u8..3, 0..100)) {
            let mut r = vec![VERSION, 0];
            r.extend(b);
            let _ = read(&r, |_| ());
        }
    }

    /// The layout is on media: this test changes only together with `VERSION`.
    #[test]
    fn golden_bytes() {
        let mut w = Writer::new();
        w.put(b"key", b"value");
        w.delete(b"gone");
        w.dead(BlockAddr { segment: SegmentId(0x0102), column: 3, block: 4 }, 5);
        let mut expect = vec![1, 0];
        expect.extend(b"\x01\x03\0\x05\0\0\0keyvalue");
        expect.extend(b"\x02\x04\0gone");
        expect.extend(b"\x04\x02\x01\0\0\0\0\0\0\x03\x04\0\0\0\x05\0\0\0");
        assert_eq!(w.bytes(), expect);
        assert_eq!(read(&[2, 0], |_| ()), None);
    }
}
