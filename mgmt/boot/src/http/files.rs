//! Files as bodies: read in pieces, at most three of them in memory per transfer.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PIECE_BYTES: u64 = 256 << 10;
/// A client that takes nothing for so long is given up.
pub(super) const STALLED: Duration = Duration::from_secs(120);

/// What goes out: bytes that are there, or a file piece by piece.
pub(super) enum Payload {
    Whole(Option<Bytes>),
    Pieces { left: u64, pieces: mpsc::Receiver<io::Result<Bytes>>, taken: Arc<AtomicBool> },
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Payload::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Payload::Pieces { left: 0, .. } => Poll::Ready(None),
            Payload::Pieces { left, pieces, taken } => pieces.poll_recv(cx).map(|piece| match piece {
                Some(Ok(bytes)) => {
                    *left -= (bytes.len() as u64).min(*left);
                    taken.store(*left == 0, Ordering::Relaxed);
                    Some(Ok(Frame::data(bytes)))
                }
                Some(Err(e)) => Some(Err(e)),
                // The reader gave up before the end: an error, so that nobody takes the file for complete.
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Payload::Whole(None) | Payload::Pieces { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Payload::Whole(bytes) => bytes.as_ref().map_or(0, |b| b.len() as u64),
            Payload::Pieces { left, .. } => *left,
        })
    }
}

/// Sends `count` bytes of a file from `first` on. `done(whole)` is called once, when the last piece was taken or the transfer ended.
pub(super) fn send(
    file: File,
    first: u64,
    count: u64,
    moved: Arc<dyn Fn() + Send + Sync>,
    done: impl FnOnce(bool) + Send + 'static,
) -> Payload {
    let (give, pieces) = mpsc::channel(2);
    let taken = Arc::new(AtomicBool::new(false));
    let all_taken = taken.clone();
    let file = Arc::new(file);
    tokio::spawn(async move {
        let mut at = first;
        while at < first + count {
            let len = PIECE_BYTES.min(first + count - at) as usize;
            let source = file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; len];
                source.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
            });
            let piece = read.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            let failed = piece.is_err();
            let sent = timeout(STALLED, give.send(piece)).await;
            if failed || !matches!(sent, Ok(Ok(()))) {
                return done(false);
            }
            moved();
            at += len as u64;
        }
        // The last pieces are in the channel: it is empty, or closed by the connection, once they were taken or never will be.
        let capacity = give.max_capacity();
        let _ = timeout(STALLED, give.reserve_many(capacity)).await;
        done(all_taken.load(Ordering::Relaxed));
    });
    Payload::Pieces { left: count, pieces, taken }
}
