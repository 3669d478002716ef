//! PRP lists and SGLs: what is built is read back by a walker written from the specification.

use basalt_nvme::dma::{Iova, PAGE_BYTES};
use basalt_nvme::pointer::{ListMemory, PointerError, Segment, build_prp, build_sgl};
use basalt_nvme::spec::Sqe;
use proptest::prelude::*;

/// A request whose pieces obey the rule for PRPs: (first page's offset, lengths in pages), then byte lengths.
fn aligned_request() -> impl Strategy<Value = Vec<Segment>> {
    let pieces = proptest::collection::vec((1u64..1 << 30, 1u64..9), 1..40);
    (pieces, 0u64..1024, 0u64..1024).prop_map(|(pieces, head_words, tail_words)| {
        let mut segments: Vec<Segment> = pieces
            .iter()
            .map(|&(page, pages)| Segment {
                iova: Iova(page * 64 * PAGE_BYTES),
                len: (pages * PAGE_BYTES) as u32,
            })
            .collect();
        // The first may begin, and the last may end, anywhere at a multiple of four.
        segments[0].iova.0 += head_words * 4;
        segments[0].len -= (head_words * 4) as u32;
        let last = segments.len() - 1;
        let cut = (tail_words * 4) as u32;
        segments[last].len = segments[last].len.saturating_sub(cut).max(4);
        segments
    })
}

/// Byte ranges that PRP entries address, by the specification (Base 4.1.1).
fn walk_prp(sqe: &Sqe, list: &[u64], list_iova: u64, len: u64) -> Vec<(u64, u64)> {
    let word = |at: u64| {
        assert!(
            at >= list_iova && (at - list_iova) / 8 < list.len() as u64,
            "the list is read beyond its end"
        );
        u64::from_le(list[((at - list_iova) / 8) as usize])
    };
    let first = sqe.data[0].get();
    let mut ranges = vec![(first, (PAGE_BYTES - first % PAGE_BYTES).min(len))];
    let mut left = len - ranges[0].1;
    let second = sqe.data[1].get();
    if left == 0 {
        assert_eq!(second, 0);
        return ranges;
    }
    if left <= PAGE_BYTES {
        assert_eq!(second % PAGE_BYTES, 0);
        ranges.push((second, left));
        return ranges;
    }
    let mut at = second;
    while left > 0 {
        if at % PAGE_BYTES == PAGE_BYTES - 8 && left > PAGE_BYTES {
            at = word(at);
            assert_eq!(at % 8, 0);
            continue;
        }
        let entry = word(at);
        assert_eq!(entry % PAGE_BYTES, 0);
        let n = left.min(PAGE_BYTES);
        ranges.push((entry, n));
        left -= n;
        at += 8;
    }
    ranges
}

/// Adjoining ranges joined.
fn joined(ranges: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (at, len) in ranges {
        match out.last_mut() {
            Some(last) if last.0 + last.1 == at => last.1 += len,
            _ => out.push((at, len)),
        }
    }
    out
}

fn of_segments(segments: &[Segment]) -> Vec<(u64, u64)> {
    joined(segments.iter().map(|s| (s.iova.0, u64::from(s.len))))
}

proptest! {
    #[test]
    fn prp_addresses_exactly_the_data(segments in aligned_request(), list_start in 0u64..512) {
        let total: u64 = segments.iter().map(|s| u64::from(s.len)).sum();
        let mut words = vec![0; 1024];
        // Lists begin anywhere in a page, so chains happen at every length.
        let list_iova = (7 << 40) + 8 * list_start;
        let mut sqe = Sqe::default();
        let mut list = ListMemory { words: &mut words, iova: Iova(list_iova) };
        build_prp(&mut sqe, &segments, &mut list).unwrap();
        prop_assert_eq!(joined(walk_prp(&sqe, &words, list_iova, total)), of_segments(&segments));
    }

    #[test]
    fn sgl_addresses_exactly_the_data(segments in aligned_request()) {
        let mut words = vec![0; 256];
        let mut sqe = Sqe::default();
        let mut list = ListMemory { words: &mut words, iova: Iova(0x9000) };
        build_sgl(&mut sqe, &segments, &mut list).unwrap();
        prop_assert_eq!(sqe.flags, 0x40);
        let (first, second) = (sqe.data[0].get(), sqe.data[1].get());
        let found = match second >> 60 {
            0 => vec![(first, second & 0xffff_ffff)],
            3 => {
                prop_assert_eq!(first, 0x9000);
                let n = (second & 0xffff_ffff) as usize / 16;
                words.chunks(2).take(n).map(|d| (d[0], d[1] & 0xffff_ffff)).collect()
            }
            other => panic!("descriptor type {other}"),
        };
        prop_assert_eq!(joined(found), of_segments(&segments));
    }

    #[test]
    fn holes_within_pages_are_refused(segments in aligned_request(), shift in 1u64..1023) {
        prop_assume!(segments.len() > 1);
        let mut segments = segments;
        segments[1].iova.0 += shift * 4;
        let mut words = vec![0; 1024];
        let mut list = ListMemory { words: &mut words, iova: Iova(0x9000) };
        prop_assert_eq!(build_prp(&mut Sqe::default(), &segments, &mut list), Err(PointerError::Alignment));
    }

    #[test]
    fn a_list_without_room_is_refused_not_overrun(segments in aligned_request(), room in 0usize..8) {
        let mut words = vec![0; room];
        let total: u64 = segments.iter().map(|s| u64::from(s.len)).sum();
        let mut sqe = Sqe::default();
        let built = build_prp(&mut sqe, &segments, &mut ListMemory { words: &mut words, iova: Iova(0x9000) });
        match built {
            Ok(()) => prop_assert_eq!(joined(walk_prp(&sqe, &words, 0x9000, total)), of_segments(&segments)),
            Err(e) => prop_assert_eq!(e, PointerError::TooMany),
        }
    }
}

#[test]
fn golden_prp() {
    let mut words = [0; 8];
    let mut sqe = Sqe::default();
    let segment = |page: u64, len| Segment { iova: Iova(page << 12), len };
    build_prp(&mut sqe, &[segment(5, 4096)], &mut ListMemory { words: &mut words, iova: Iova(0x8000) })
        .unwrap();
    assert_eq!((sqe.data[0].get(), sqe.data[1].get(), words[0]), (0x5000, 0, 0));
    build_prp(&mut sqe, &[segment(5, 8192)], &mut ListMemory { words: &mut words, iova: Iova(0x8000) })
        .unwrap();
    assert_eq!((sqe.data[0].get(), sqe.data[1].get(), words[0]), (0x5000, 0x6000, 0));
    let three = [segment(5, 8192), segment(9, 4096)];
    build_prp(&mut sqe, &three, &mut ListMemory { words: &mut words, iova: Iova(0x8000) }).unwrap();
    assert_eq!(
        (sqe.data[0].get(), sqe.data[1].get(), &words[..3]),
        (0x5000, 0x8000, &[0x6000, 0x9000, 0][..])
    );
    assert_eq!(
        build_prp(&mut sqe, &[], &mut ListMemory { words: &mut words, iova: Iova(0) }),
        Err(PointerError::Empty)
    );
}
