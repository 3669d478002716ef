//! Timers: a map by deadline, and the futures on top of it.

use crate::context::{self, Reactor};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wakers by deadline; equal deadlines fire in the order they were set.
#[derive(Default)]
pub(crate) struct Timers {
    by_deadline: BTreeMap<(u64, u64), Waker>,
    next_seq: u64,
}

impl Timers {
    pub(crate) fn insert(&mut self, deadline_ns: u64, waker: Waker) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.by_deadline.insert((deadline_ns, seq), waker);
        seq
    }

    pub(crate) fn remove(&mut self, deadline_ns: u64, seq: u64) -> Option<Waker> {
        self.by_deadline.remove(&(deadline_ns, seq))
    }

    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.by_deadline.keys().next().map(|k| k.0)
    }

    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Waker> {
        let first = self.by_deadline.first_entry()?;
        (first.key().0 <= now_ns).then(|| first.remove())
    }
}

/// See [`sleep`].
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline_ns: u64,
    seq: Option<u64>,
    polled: bool,
}

/// Resolves once `d` has passed since this call. Always suspends at least once.
pub fn sleep(d: Duration) -> Sleep {
    let reactor = context::current();
    let d_ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let deadline_ns = reactor.timer_clock_ns().saturating_add(d_ns);
    Sleep { reactor, deadline_ns, seq: None, polled: false }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.reactor.timer_clock_ns() >= self.deadline_ns;
        if due && self.polled {
            self.forget_timer();
            return Poll::Ready(());
        }
        self.polled = true;
        // The waker may be another one than last time.
        self.forget_timer();
        self.seq = Some(self.reactor.add_timer(self.deadline_ns, cx.waker().clone()));
        Poll::Pending
    }
}

impl Sleep {
    fn forget_timer(&mut self) {
        if let Some(seq) = self.seq.take() {
            drop(self.reactor.remove_timer(self.deadline_ns, seq));
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget_timer();
    }
}

/// `None` when `d` passed first; the future is dropped then.
pub async fn timeout<F: Future>(d: Duration, f: F) -> Option<F::Output> {
    let mut f = pin!(f);
    let mut deadline = sleep(d);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(v) = f.as_mut().poll(cx) {
            return Poll::Ready(Some(v));
        }
        Pin::new(&mut deadline).poll(cx).map(|()| None)
    })
    .await
}

/// Lets every other ready task of this reactor run once.
pub async fn yield_now() {
    // The simulator runs ready tasks in random order within a round and puts what becomes ready meanwhile into the
    // next round: after two rounds everything that was ready has run.
    let rounds = match context::current().world {
        context::World::Real(_) => 1,
        context::World::Sim(_) => 2,
    };
    for _ in 0..rounds {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
