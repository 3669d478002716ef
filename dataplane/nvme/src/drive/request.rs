//! One command from start to end: what its status means to the caller, and what is worth another try.

use super::channel::Channel;
use crate::controller::Mode;
use crate::io::{Ended, Keep};
use crate::pointer::Segment;
use crate::spec::status::Meaning;
use crate::spec::{Sqe, Status};
use basalt_bdev::{BdevError, Result};
use std::time::Duration;

/// Tries of a command that ends as "may succeed when sent again".
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// The request that a command belongs to, for its error.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) op: &'static str,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Channel {
    /// Sends a command that may be sent twice, until it ends for good; gives `keep` back.
    #[inline]
    pub(super) async fn run(&self, at: Place, sqe: Sqe, data: &[Segment], keep: Keep) -> Result<Keep> {
        let (ended, keep) = self.queue.submit(sqe, data, keep).await.await;
        match ended {
            Ended::Answered { status: Status::SUCCESS } => Ok(keep),
            // In a box of its own, as are other rare ways: a request's future stays small enough for the allocator's fast path.
            _ => Box::pin(self.run_again(at, sqe, data, keep, ended)).await,
        }
    }

    #[cold]
    pub(super) async fn run_again(
        &self,
        at: Place,
        sqe: Sqe,
        data: &[Segment],
        keep: Keep,
        ended: Ended,
    ) -> Result<Keep> {
        let (mut ended, mut keep) = (ended, keep);
        for tried in 1.. {
            let again = match ended {
                Ended::Answered { status } => match status.meaning() {
                    Meaning::Success => return Ok(keep),
                    Meaning::Transient | Meaning::Aborted => true,
                    _ => false,
                },
                Ended::Reset | Ended::Over | Ended::Undescribable => false,
            };
            if !again || tried >= TRIES {
                break;
            }
            basalt_reactor::sleep(PAUSE * tried).await;
            (ended, keep) = self.queue.submit(sqe, data, keep).await.await;
        }
        Err(self.error(at, ended))
    }

    #[cold]
    pub(super) fn error(&self, at: Place, ended: Ended) -> BdevError {
        let drive = self.shared.info.name.clone();
        let Place { op, offset, len } = at;
        let io = |cause: String| BdevError::Io { drive: drive.clone(), op, offset, len, cause };
        match ended {
            Ended::Answered { status } => match status.meaning() {
                Meaning::Unreadable if op == "read" => BdevError::Unreadable { drive, offset, len },
                Meaning::Unsupported => io(format!("{status}; the drive's firmware may be at fault")),
                Meaning::Aborted => io("it ran out of time again and again and was aborted".to_owned()),
                _ => io(status.to_string()),
            },
            Ended::Over if self.shared.controller.mode() == Mode::Gone => BdevError::Gone { drive },
            Ended::Over => {
                let why = self.shared.controller.trouble().map_or_else(String::new, |t| t.to_string());
                io(format!("the drive has failed: {why}"))
            }
            Ended::Reset => {
                io("the drive was reset meanwhile; whether it was carried out is unknown".to_owned())
            }
            Ended::Undescribable => io("the request cannot be described to the drive".to_owned()),
        }
    }
}
