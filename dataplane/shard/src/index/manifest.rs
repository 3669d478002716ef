//! The payload of a checkpoint: which runs make up the shard.
//!
//! Little-endian: magic `BsMf`, version `u16 = 1`, incompatible features `u16 = 0`, next run id `u64`, runs `u32`; then per run,
//! newest first: id `u64`, entries `u64`, blocks `u64`, newest LSN `u64`, smallest and largest key (each bytes `u16`, key), places of the top
//! block `u16`, each segment `u64`, column `u8`, block `u32`, blocks `u32`.

use super::run::Run;
use basalt_pool::store::Placed;
use basalt_pool::{BlockAddr, Lsn, SegmentId};
use bytes::Bytes;
use std::rc::Rc;

const MAGIC: [u8; 4] = *b"BsMf";
const VERSION: u16 = 1;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) next_run: u64,
    /// Newest first.
    pub(crate) runs: Vec<Rc<Run>>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.runs.len() * 256);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.next_run.to_le_bytes());
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for r in &self.runs {
            for n in [r.id, r.entries, r.blocks, r.newest_lsn.0] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            for key in [&r.min_key, &r.max_key] {
                out.extend_from_slice(&(key.len() as u16).to_le_bytes());
                out.extend_from_slice(key);
            }
            out.extend_from_slice(&(r.top.len() as u16).to_le_bytes());
            for p in &r.top {
                out.extend_from_slice(&p.at.segment.0.to_le_bytes());
                out.push(p.at.column);
                out.extend_from_slice(&p.at.block.to_le_bytes());
                out.extend_from_slice(&p.blocks.to_le_bytes());
            }
        }
        out
    }
    /// `None` when the bytes are not a manifest this code knows.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let mut r = bytes.strip_prefix(&MAGIC)?;
        let rest = &mut r;
        if u16::from_le_bytes(take(rest)?) != VERSION || u16::from_le_bytes(take(rest)?) != 0 {
            return None;
        }
        let next_run = u64::from_le_bytes(take(rest)?);
        let count = u32::from_le_bytes(take(rest)?);
        let mut runs = Vec::new();
        for _ in 0..count {
            let mut number = || Some(u64::from_le_bytes(take(rest)?));
            let (id, entries, blocks, newest_lsn) = (number()?, number()?, number()?, Lsn(number()?));
            let mut key = || {
                let len = u16::from_le_bytes(take(rest)?) as usize;
                let (key, tail) = rest.split_at_checked(len)?;
                *rest = tail;
                Some(Bytes::copy_from_slice(key))
            };
            let (min_key, max_key) = (key()?, key()?);
            let places = u16::from_le_bytes(take(rest)?);
            let mut top = Vec::new();
            for _ in 0..places {
                let segment = SegmentId(u64::from_le_bytes(take(rest)?));
                let [column] = take(rest)?;
                let block = u32::from_le_bytes(take(rest)?);
                let blocks = u32::from_le_bytes(take(rest)?);
                top.push(Placed { at: BlockAddr { segment, column, block }, blocks });
            }
            if top.is_empty() {
                return None;
            }
            runs.push(Rc::new(Run { id, entries, blocks, newest_lsn, min_key, max_key, top }));
        }
        rest.is_empty().then_some(Manifest { next_run, runs })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn run()(
            (id, entries, blocks, lsn) in any::<(u64, u64, u64, u64)>(),
            min in prop::collection::vec(any::<u8>(), 0..300),
            max in prop::collection::vec(any::<u8>(), 0..300),
            top in prop::collection::vec(any::<(u64, u8, u32, u32)>(), 1..5),
        ) -> Rc<Run> {
            Rc::new(Run {
                id, entries, blocks, newest_lsn: Lsn(lsn), min_key: min.into(), max_key: max.into(),
                top: top.into_iter().map(|(s, column, block, blocks)| Placed {
                    at: BlockAddr { segment: SegmentId(s), column, block }, blocks,
                }).collect(),
            })
        }
    }
    proptest! {
        #[test]
        fn survives_the_media(next_run in any::<u64>(), runs in prop::collection::vec(run(), 0..5), cut in 1usize..50) {
            let m = Manifest { next_run, runs };
            let b = m.encode();
            prop_assert_eq!(Manifest::decode(&b[..b.len().saturating_sub(cut)]), None);
            prop_assert_eq!(Manifest::decode(&b), Some(m));
        }
        #[test]
        fn any_bytes_are_an_answer(b in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut m = MAGIC.to_vec();
            m.extend([1, 0, 0, 0]);
            m.extend(b);
            let _ = Manifest::decode(&m);
        }
    }

    /// The layout is on media: this test changes only together with `VERSION`.
    #[test]
    fn golden_bytes() {
        let top = vec![Placed { at: BlockAddr { segment: SegmentId(6), column: 7, block: 8 }, blocks: 9 }];
        let run = Run {
            id: 2,
            entries: 3,
            blocks: 4,
            newest_lsn: Lsn(5),
            min_key: Bytes::from_static(b"a"),
            max_key: Bytes::from_static(b"bc"),
            top,
        };
        let got = Manifest { next_run: 10, runs: vec![Rc::new(run)] }.encode();
        let mut expect = b"BsMf\x01\0\0\0\x0a\0\0\0\0\0\0\0\x01\0\0\0".to_vec();
        for n in 2u64..6 {
            expect.extend(n.to_le_bytes());
        }
        expect.extend(b"\x01\0a\x02\0bc\x01\0\x06\0\0\0\0\0\0\0\x07\x08\0\0\0\x09\0\0\0");
        assert_eq!(got, expect);
    }
}
