//! Answers' bodies, broken ones too.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::Receiver;

pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    /// Announces more than it gives.
    Cut {
        bytes: Option<Bytes>,
        announced: u64,
    },
    Endless,
    Events(Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = |bytes: Bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match &mut *self {
            Self::Whole(bytes) => match bytes.take() {
                Some(bytes) if !bytes.is_empty() => frame(bytes),
                _ => Poll::Ready(None),
            },
            Self::Cut { bytes, .. } => match bytes.take() {
                Some(bytes) => frame(bytes),
                None => Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
            },
            Self::Endless => frame(Bytes::from_static(&[b' '; 65536])),
            Self::Events(events) => {
                events.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None)) || matches!(self, Self::Whole(Some(bytes)) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Cut { announced, .. } => SizeHint::with_exact(*announced),
            _ => SizeHint::default(),
        }
    }
}
