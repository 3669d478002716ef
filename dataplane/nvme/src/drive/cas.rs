//! Compare-and-write of one block: by the drive, where it can do both in one; else one after the other, under a lock
//! that holds among the reactors of this process.

use super::channel::Channel;
use super::request::Place;
use crate::io::{Ended, Keep};
use crate::pointer::Segment;
use crate::spec::Status;
use crate::spec::command::{FORCE_UNIT_ACCESS, io};
use crate::spec::status::Meaning;
use basalt_bdev::{BLOCK_BYTES, Durability, Result, check_compare_and_write};
use bytes::Bytes;

impl Channel {
    pub(super) async fn compare_and_write_block(
        &self,
        offset: u64,
        expect: Bytes,
        new: Bytes,
    ) -> Result<bool> {
        check_compare_and_write(&self.shared.info, offset, &expect, &new)?;
        let _turn = self.shared.compare_and_write.lock().await;
        if self.shared.abilities.fused {
            return self.fused(offset, &expect, &new).await;
        }
        if !self.compare(offset, &expect).await? {
            return Ok(false);
        }
        self.write_blocks(offset, vec![new], Durability::Durable).await?;
        Ok(true)
    }

    async fn compare(&self, offset: u64, expect: &[u8]) -> Result<bool> {
        let at = Place { op: "compare", offset, len: BLOCK_BYTES };
        let piece = self.queue.bounce().take().await;
        if !self.shared.abilities.compare {
            let sqe = self.command(io::READ, offset, BLOCK_BYTES, 0);
            let piece =
                self.run_bounced(Place { op: "read", ..at }, sqe, piece, BLOCK_BYTES as usize).await?;
            let mut found = vec![0; BLOCK_BYTES as usize];
            piece.read(&mut found);
            return Ok(found == expect);
        }
        piece.write(0, expect);
        let sqe = self.command(io::COMPARE, offset, BLOCK_BYTES, 0);
        let data = [Segment { iova: piece.iova(), len: BLOCK_BYTES as u32 }];
        let (ended, keep) = self.queue.submit(sqe, &data, Keep::Bounce(piece)).await.await;
        match ended {
            Ended::Answered { status } if status.meaning() == Meaning::CompareFailed => Ok(false),
            Ended::Answered { status: Status::SUCCESS } => Ok(true),
            _ => {
                // A compare changes nothing and may be repeated; the usual way deals with the rest.
                let Keep::Bounce(piece) = keep else { return Err(self.error(at, ended)) };
                self.run_bounced(at, sqe, piece, BLOCK_BYTES as usize).await.map(|_| true)
            }
        }
    }

    /// Not repeated when it is lost: the write may have happened.
    async fn fused(&self, offset: u64, expect: &[u8], new: &[u8]) -> Result<bool> {
        let at = Place { op: "compare-and-write", offset, len: BLOCK_BYTES };
        let ours = self.queue.bounce().take().await;
        let theirs = self.queue.bounce().take().await;
        ours.write(0, expect);
        theirs.write(0, new);
        let segment = |iova| [Segment { iova, len: BLOCK_BYTES as u32 }];
        let (first, second) = (segment(ours.iova()), segment(theirs.iova()));
        let fua = if self.shared.info.volatile_cache { FORCE_UNIT_ACCESS } else { 0 };
        let sqes = [
            self.command(io::COMPARE, offset, BLOCK_BYTES, 0),
            self.command(io::WRITE, offset, BLOCK_BYTES, fua),
        ];
        let keep = [Keep::Bounce(ours), Keep::Bounce(theirs)];
        let [compare, write] = self.queue.submit_fused(sqes, [&first, &second], keep).await;
        let (compared, written) = (compare.await.0, write.await.0);
        match (compared, written) {
            (Ended::Answered { status: Status::SUCCESS }, Ended::Answered { status: Status::SUCCESS }) => {
                Ok(true)
            }
            (Ended::Answered { status }, _) if status.meaning() == Meaning::CompareFailed => Ok(false),
            (Ended::Answered { status: Status::SUCCESS }, other) | (other, _) => Err(self.error(at, other)),
        }
    }
}
