//! Data pointers: where a command's bytes lie, as PRP entries (Base 4.1.1) or SGL descriptors (Base 4.1.2).

use crate::dma::{Iova, PAGE_BYTES};
use crate::spec::command::{FLAG_SGL, Sqe};

/// One piece of a command's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub iova: Iova,
    pub len: u32,
}

/// The slot's own memory for a PRP list or an SGL segment.
pub struct ListMemory<'a> {
    /// 64-bit words; little-endian on the wire.
    pub words: &'a mut [u64],
    /// Of the first word; a multiple of 8. Where the memory spans pages, their boundaries hold the chain.
    pub iova: Iova,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    #[error("no data")]
    Empty,
    #[error("only the first piece of a command may start, and only the last may end, within a page")]
    Alignment,
    #[error("too many pages or pieces for one command")]
    TooMany,
}

/// SGL descriptor types (Base figure 106).
const SGL_DATA_BLOCK: u64 = 0x0 << 60;
const SGL_LAST_SEGMENT: u64 = 0x3 << 60;

/// Fills the data pointer of `sqe` with PRP entries.
pub fn build_prp(sqe: &mut Sqe, segments: &[Segment], list: &mut ListMemory<'_>) -> Result<(), PointerError> {
    let mut pages = Pages::new(segments)?;
    let Some(first) = pages.next() else { return Err(PointerError::Empty) };
    sqe.data[0] = first?.into();
    let Some(second) = pages.next() else {
        sqe.data[1] = 0.into();
        return Ok(());
    };
    let second = second?;
    let Some(third) = pages.next() else {
        sqe.data[1] = second.into();
        return Ok(());
    };
    sqe.data[1] = list.iova.0.into();
    let mut at = 0;
    let mut next = Some(Ok(second));
    let mut after = Some(third);
    while let Some(entry) = next {
        let entry = entry?;
        next = after;
        after = pages.next();
        if at >= list.words.len() {
            return Err(PointerError::TooMany);
        }
        // The last word of a list page points to the next list page, unless it is the very last entry.
        let address = list.iova.0 + 8 * at as u64;
        if next.is_some() && address % PAGE_BYTES == PAGE_BYTES - 8 {
            list.words[at] = (address + 8).to_le();
            at += 1;
            if at >= list.words.len() {
                return Err(PointerError::TooMany);
            }
        }
        list.words[at] = entry.to_le();
        at += 1;
    }
    Ok(())
}

/// The page addresses of a request, the first with its offset.
struct Pages<'a> {
    segments: &'a [Segment],
    index: usize,
    done: u64,
}

impl<'a> Pages<'a> {
    fn new(segments: &'a [Segment]) -> Result<Pages<'a>, PointerError> {
        // A dword is the unit of every pointer (Base 4.1.1).
        if segments.iter().any(|s| s.len == 0 || !s.len.is_multiple_of(4) || !s.iova.0.is_multiple_of(4)) {
            return Err(if segments.iter().any(|s| s.len == 0) {
                PointerError::Empty
            } else {
                PointerError::Alignment
            });
        }
        Ok(Pages { segments, index: 0, done: 0 })
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<u64, PointerError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let segment = self.segments.get(self.index)?;
        let at = segment.iova.0 + self.done;
        let first = self.index == 0 && self.done == 0;
        if !first && !at.is_multiple_of(PAGE_BYTES) {
            return Some(Err(PointerError::Alignment));
        }
        let left = u64::from(segment.len) - self.done;
        let step = left.min(PAGE_BYTES - at % PAGE_BYTES);
        if step == left {
            let last = self.index + 1 == self.segments.len();
            if !last && !(at + step).is_multiple_of(PAGE_BYTES) {
                return Some(Err(PointerError::Alignment));
            }
            self.index += 1;
            self.done = 0;
        } else {
            self.done += step;
        }
        Some(Ok(at))
    }
}

/// Fills the data pointer of `sqe` with an SGL: one data block, or a last segment of them in the list memory.
pub fn build_sgl(sqe: &mut Sqe, segments: &[Segment], list: &mut ListMemory<'_>) -> Result<(), PointerError> {
    if segments.iter().any(|s| s.len == 0) {
        return Err(PointerError::Empty);
    }
    sqe.flags |= FLAG_SGL;
    match segments {
        [] => Err(PointerError::Empty),
        [one] => {
            sqe.data = [one.iova.0.into(), (SGL_DATA_BLOCK | u64::from(one.len)).into()];
            Ok(())
        }
        many => {
            if list.words.len() < 2 * many.len() {
                return Err(PointerError::TooMany);
            }
            for (descriptor, s) in list.words.chunks_exact_mut(2).zip(many) {
                descriptor[0] = s.iova.0.to_le();
                descriptor[1] = (SGL_DATA_BLOCK | u64::from(s.len)).to_le();
            }
            sqe.data = [list.iova.0.into(), (SGL_LAST_SEGMENT | (16 * many.len() as u64)).into()];
            Ok(())
        }
    }
}
