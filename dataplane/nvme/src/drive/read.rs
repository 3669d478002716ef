//! Reads. Nearly all are one command into memory that the controller sees; the future of those is written by hand, since
//! nested `async` functions cost more than the command: they are large, and are moved as they nest.

use super::channel::{Channel, all};
use super::request::Place;
use crate::dma::Iova;
use crate::io::{BOUNCE_BYTES, Command, Ended, Keep};
use crate::pointer::Segment;
use crate::spec::command::io;
use crate::spec::{Sqe, Status};
use basalt_bdev::{Result, check_range};
use basalt_reactor::LocalBoxFuture;
use basalt_reactor::buf::DmaBuf;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

pub(super) struct Read<'a> {
    channel: &'a Channel,
    offset: u64,
    len: usize,
    stage: Stage<'a>,
}

enum Stage<'a> {
    New,
    Sent(Command),
    /// Cut, copied, waiting for room, or to be sent again.
    Long(LocalBoxFuture<'a, Result<DmaBuf>>),
}

impl<'a> Read<'a> {
    #[inline]
    pub(super) fn new(channel: &'a Channel, offset: u64, len: usize) -> Read<'a> {
        Read { channel, offset, len, stage: Stage::New }
    }

    #[inline]
    fn start(&self) -> Result<Stage<'a>> {
        let Read { channel, offset, len, .. } = *self;
        check_range(&channel.shared.info, offset, len as u64)?;
        if len as u64 <= channel.shared.abilities.transfer_max_bytes {
            let buf = DmaBuf::new(len);
            if let Some((sqe, data)) = channel.read_into(offset, &buf)
                && let Ok(command) = channel.queue.submit_now(&sqe, &data, Keep::Buf(buf))
            {
                return Ok(Stage::Sent(command));
            }
        }
        Ok(Stage::Long(Box::pin(channel.read_blocks(offset, len))))
    }

    #[cold]
    fn again(&self, ended: Ended, keep: Keep) -> Stage<'a> {
        let Read { channel, offset, len, .. } = *self;
        Stage::Long(Box::pin(async move {
            let at = Place { op: "read", offset, len: len as u64 };
            let Keep::Buf(buf) = &keep else { unreachable!("a command gives back what it was given") };
            // Mapped when it was sent first, and mappings are for good.
            let Some((sqe, data)) = channel.read_into(offset, buf) else {
                return Err(channel.error(at, ended));
            };
            match channel.run_again(at, sqe, &data, keep, ended).await? {
                Keep::Buf(buf) => Ok(buf),
                _ => unreachable!("a command gives back what it was given"),
            }
        }))
    }
}

impl Future for Read<'_> {
    type Output = Result<DmaBuf>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Stage::New = this.stage {
            this.stage = this.start()?;
        }
        if let Stage::Sent(command) = &mut this.stage {
            match ready!(Pin::new(command).poll(cx)) {
                (Ended::Answered { status: Status::SUCCESS }, Keep::Buf(buf)) => return Poll::Ready(Ok(buf)),
                (ended, keep) => this.stage = this.again(ended, keep),
            }
        }
        match &mut this.stage {
            Stage::Long(long) => long.as_mut().poll(cx),
            Stage::New | Stage::Sent(_) => unreachable!("sent, or on the long way"),
        }
    }
}

impl Channel {
    /// The command that fills `buf`; `None` where the controller does not see it.
    #[inline]
    fn read_into(&self, offset: u64, buf: &DmaBuf) -> Option<(Sqe, [Segment; 1])> {
        let iova = self.queue.translate(buf.as_ptr(), buf.len())?;
        let sqe = self.command(io::READ, offset, buf.len() as u64, 0);
        Some((sqe, [Segment { iova, len: buf.len() as u32 }]))
    }

    /// The long way: of any size, into any memory, waiting for room.
    async fn read_blocks(&self, offset: u64, len: usize) -> Result<DmaBuf> {
        check_range(&self.shared.info, offset, len as u64)?;
        let buf = DmaBuf::new(len);
        let at = Place { op: "read", offset, len: len as u64 };
        let most = self.shared.abilities.transfer_max_bytes as usize;
        let Some((sqe, data)) = self.read_into(offset, &buf) else {
            return Box::pin(self.read_copied(at, buf)).await;
        };
        if len <= most {
            return match self.run(at, sqe, &data, Keep::Buf(buf)).await? {
                Keep::Buf(buf) => Ok(buf),
                _ => unreachable!("a command gives back what it was given"),
            };
        }
        Box::pin(self.read_cut(at, buf, data[0].iova)).await
    }

    /// More than one command takes.
    async fn read_cut(&self, at: Place, buf: DmaBuf, iova: Iova) -> Result<DmaBuf> {
        let (offset, len) = (at.offset, buf.len());
        let most = self.shared.abilities.transfer_max_bytes as usize;
        let shared = Rc::new(buf);
        let parts = (0..len).step_by(most).map(|from| {
            let n = most.min(len - from);
            let sqe = self.command(io::READ, offset + from as u64, n as u64, 0);
            let data = [Segment { iova: Iova(iova.0 + from as u64), len: n as u32 }];
            let keep = Keep::Shared(shared.clone());
            async move { self.run(at, sqe, &data, keep).await.map(drop) }
        });
        all(parts.collect()).await?;
        Ok(Rc::into_inner(shared).expect("every part has ended and given its share back"))
    }

    /// Into memory that the controller does not see.
    async fn read_copied(&self, at: Place, buf: DmaBuf) -> Result<DmaBuf> {
        let most = (self.shared.abilities.transfer_max_bytes as usize).min(BOUNCE_BYTES);
        let len = buf.len();
        let buf = std::cell::RefCell::new(buf);
        let parts = (0..len).step_by(most).map(|from| {
            let buf = &buf;
            async move {
                let n = most.min(len - from);
                let sqe = self.command(io::READ, at.offset + from as u64, n as u64, 0);
                let piece = self.queue.bounce().take().await;
                let piece = self.run_bounced(at, sqe, piece, n).await?;
                piece.read(&mut buf.borrow_mut()[from..from + n]);
                Ok(())
            }
        });
        all(parts.collect()).await?;
        Ok(buf.into_inner())
    }
}
