//! I/O commands, and following data pointers.

use super::{Mock, State};
use crate::dma::PAGE_BYTES;
use crate::spec::command::{DsmRange, FLAG_FUSED_FIRST, FLAG_FUSED_SECOND, FLAG_SGL, io};
use crate::spec::{Sqe, Status};
use zerocopy::FromBytes;

const INVALID_FIELD: Status = Status::new(0, 0x02);
const INVALID_OPCODE: Status = Status::new(0, 0x01);
const LBA_RANGE: Status = Status::new(0, 0x80);

impl Mock {
    pub(super) fn execute(&self, state: &mut State, sqe: &Sqe) -> Status {
        if sqe.flags & FLAG_SGL != 0 {
            state.log.sgl += 1;
            if !self.config.sgl {
                return INVALID_FIELD;
            }
        }
        if sqe.flags & (FLAG_FUSED_FIRST | FLAG_FUSED_SECOND) != 0 && !self.config.fused {
            return INVALID_FIELD;
        }
        let index = (sqe.nsid.get() as usize).wrapping_sub(1);
        if sqe.flags & FLAG_FUSED_SECOND != 0 && Self::fused_partner_failed(state) {
            return Status::new(0, 0x0a);
        }
        if sqe.opcode == io::FLUSH {
            state.log.flushes += 1;
            return Status::SUCCESS;
        }
        let Some(namespace) = self.config.namespaces.get(index).cloned() else { return Status::new(0, 0x0b) };
        let block = u64::from(namespace.block_bytes);
        if sqe.opcode == io::DATASET_MANAGEMENT {
            return self.deallocate(state, sqe, index, block);
        }
        let lba = u64::from(sqe.cdw11.get()) << 32 | u64::from(sqe.cdw10.get());
        let count = u64::from(sqe.cdw12.get() & 0xffff) + 1;
        let Some(end) = lba.checked_add(count).and_then(|e| e.checked_mul(block)) else { return LBA_RANGE };
        if end > namespace.size_bytes {
            return LBA_RANGE;
        }
        let range = (lba * block) as usize..end as usize;
        if self.config.max_transfer_shift > 0
            && range.len() as u64 > PAGE_BYTES << self.config.max_transfer_shift
            && sqe.opcode != io::WRITE_ZEROES
        {
            return INVALID_FIELD;
        }
        let mut bytes = vec![0; range.len()];
        match sqe.opcode {
            io::READ => {
                state.log.reads += 1;
                bytes.copy_from_slice(&state.media[index][range]);
                self.transfer(sqe, bytes.len(), |memory, at, iova, len| {
                    memory.write(iova, &bytes[at..at + len])
                });
            }
            io::WRITE => {
                state.log.writes += 1;
                self.transfer(sqe, range.len(), |memory, at, iova, len| {
                    memory.read(iova, &mut bytes[at..at + len])
                });
                state.media[index][range].copy_from_slice(&bytes);
            }
            io::COMPARE if self.config.compare || self.config.fused => {
                self.transfer(sqe, range.len(), |memory, at, iova, len| {
                    memory.read(iova, &mut bytes[at..at + len])
                });
                if state.media[index][range] != bytes[..] {
                    if sqe.flags & FLAG_FUSED_FIRST != 0 {
                        // Its other half is aborted with it, and finds this out by the mark.
                        state.swallowed.push((u16::MAX, 0));
                    }
                    return Status::new(2, 0x85);
                }
            }
            io::WRITE_ZEROES if self.config.write_zeroes => state.media[index][range].fill(0),
            _ => return INVALID_OPCODE,
        }
        Status::SUCCESS
    }

    /// The second half of a fused pair whose first has failed.
    fn fused_partner_failed(state: &mut State) -> bool {
        let before = state.swallowed.len();
        state.swallowed.retain(|s| s.0 != u16::MAX);
        before != state.swallowed.len()
    }

    fn deallocate(&self, state: &mut State, sqe: &Sqe, index: usize, block: u64) -> Status {
        let count = (sqe.cdw10.get() & 0xff) as usize + 1;
        let mut bytes = vec![0; count * 16];
        self.transfer(sqe, bytes.len(), |memory, at, iova, len| memory.read(iova, &mut bytes[at..at + len]));
        for range in bytes.chunks_exact(16).filter_map(|c| DsmRange::read_from_bytes(c).ok()) {
            let (from, len) = (range.first_lba.get() * block, u64::from(range.blocks.get()) * block);
            match state.media[index].get_mut(from as usize..(from + len) as usize) {
                Some(bytes) => bytes.fill(0),
                None => return LBA_RANGE,
            }
        }
        Status::SUCCESS
    }

    /// Calls `each` with every piece of the data: where in the transfer, address, length.
    pub(super) fn transfer(
        &self,
        sqe: &Sqe,
        len: usize,
        mut each: impl FnMut(&super::MockMemory, usize, u64, usize),
    ) {
        let mut done = 0;
        let mut piece = |iova: u64, most: u64| {
            let n = (len - done).min(most as usize);
            if n > 0 {
                each(&self.memory, done, iova, n);
            }
            done += n;
            len - done
        };
        let [first, second] = [sqe.data[0].get(), sqe.data[1].get()];
        if sqe.flags & FLAG_SGL != 0 {
            match second >> 60 {
                0 => assert_eq!(piece(first, second & 0xffff_ffff), 0, "an SGL shorter than its command"),
                3 => {
                    let count = (second & 0xffff_ffff) / 16;
                    let mut left = len;
                    for i in 0..count {
                        let [at, info] = self.memory.read_struct::<[u64; 2]>(first + 16 * i);
                        assert_eq!(info >> 60, 0);
                        left = piece(at, info & 0xffff_ffff);
                    }
                    assert_eq!(left, 0, "an SGL shorter than its command");
                }
                other => panic!("SGL descriptor of type {other}"),
            }
            return;
        }
        let mut left = piece(first, PAGE_BYTES - first % PAGE_BYTES);
        if left == 0 {
            return;
        }
        if left as u64 <= PAGE_BYTES {
            piece(second, PAGE_BYTES);
            return;
        }
        let mut list = second;
        while left > 0 {
            let entry: u64 = self.memory.read_struct(list);
            // The last entry of a list page points on when more than one page is left.
            if list % PAGE_BYTES == PAGE_BYTES - 8 && left as u64 > PAGE_BYTES {
                list = entry;
                continue;
            }
            assert_eq!(entry % PAGE_BYTES, 0, "a PRP list entry within a page");
            left = piece(entry, PAGE_BYTES);
            list += 8;
        }
    }
}
