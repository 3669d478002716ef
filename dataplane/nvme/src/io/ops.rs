//! Commands as tasks see them: futures over a table of what each keeps alive and how it ended.

use super::IoQueue;
use super::bounce::BouncePiece;
use crate::spec::Status;
use basalt_reactor::buf::DmaBuf;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Memory that the controller uses, held until it is done.
#[allow(dead_code, reason = "held for their drop alone")]
pub(crate) enum Keep {
    Nothing,
    Buf(DmaBuf),
    /// Part of a request that was cut.
    Shared(Rc<DmaBuf>),
    Bytes(Rc<Vec<Bytes>>),
    Bounce(BouncePiece),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered {
        status: Status,
    },
    /// A reset came between, and it was not sent again: whether it happened is unknown.
    Reset,
    /// The controller has failed or gone.
    Over,
    Undescribable,
}

enum State {
    InFlight(Option<Waker>),
    Ended(Ended),
    /// Nobody waits any more.
    Orphaned,
}

struct Op {
    state: State,
    keep: Keep,
}

#[derive(Default)]
pub(super) struct Ops {
    /// As many as there are commands in flight and futures that have not been looked at since theirs ended.
    entries: Vec<Option<Op>>,
    free: Vec<u32>,
}

impl Ops {
    #[inline]
    pub(super) fn insert(&mut self, keep: Keep) -> u32 {
        let op = Some(Op { state: State::InFlight(None), keep });
        match self.free.pop() {
            Some(key) => {
                self.entries[key as usize] = op;
                key
            }
            None => {
                self.entries.push(op);
                self.entries.len() as u32 - 1
            }
        }
    }

    #[inline]
    fn remove(&mut self, key: u32) -> Option<Op> {
        let op = self.entries.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(op)
    }

    pub(super) fn take_back(&mut self, key: u32) -> Keep {
        self.remove(key).map_or(Keep::Nothing, |op| op.keep)
    }

    #[inline]
    pub(super) fn finish(&mut self, key: u32, how: Ended) {
        let Some(Some(op)) = self.entries.get_mut(key as usize) else {
            unreachable!("command table and operations agree")
        };
        match std::mem::replace(&mut op.state, State::Ended(how)) {
            State::InFlight(Some(waker)) => waker.wake(),
            State::InFlight(None) => {}
            State::Orphaned => drop(self.remove(key)),
            State::Ended(_) => unreachable!("a command ends once"),
        }
    }
}

/// A command in the queue. Dropped early, it leaves the command to the controller and its memory with it.
pub(crate) struct Command {
    queue: Rc<IoQueue>,
    state: CommandState,
}

enum CommandState {
    Sent(u32),
    Never(Ended, Keep),
    Taken,
}

impl Command {
    #[inline]
    pub(super) fn new(queue: Rc<IoQueue>, key: u32) -> Command {
        Command { queue, state: CommandState::Sent(key) }
    }
    pub(super) fn ended(queue: Rc<IoQueue>, how: Ended, keep: Keep) -> Command {
        Command { queue, state: CommandState::Never(how, keep) }
    }
}

impl Future for Command {
    type Output = (Ended, Keep);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Command { queue, state } = &mut *self;
        let CommandState::Sent(key) = *state else {
            return match std::mem::replace(state, CommandState::Taken) {
                CommandState::Never(how, keep) => Poll::Ready((how, keep)),
                _ => Poll::Pending,
            };
        };
        let mut ops = queue.ops.borrow_mut();
        let Some(Some(op)) = ops.entries.get_mut(key as usize) else { return Poll::Pending };
        match &mut op.state {
            State::InFlight(waker) => {
                match waker {
                    Some(w) => w.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Ended(how) => {
                let how = *how;
                let keep = ops.take_back(key);
                *state = CommandState::Taken;
                Poll::Ready((how, keep))
            }
            State::Orphaned => unreachable!("orphaned only when this is dropped"),
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let CommandState::Sent(key) = self.state else { return };
        let mut ops = self.queue.ops.borrow_mut();
        let ended = match ops.entries.get_mut(key as usize) {
            Some(Some(op)) => match &op.state {
                State::Ended(_) => true,
                _ => {
                    op.state = State::Orphaned;
                    false
                }
            },
            _ => return,
        };
        if ended {
            let op = ops.remove(key);
            drop(ops);
            drop(op);
        }
    }
}
