//! Single-reactor synchronisation: no atomics, no locks. Only [`oneshot`] crosses cores.

pub mod oneshot;
mod semaphore;

pub use semaphore::{Mutex, MutexGuard, Permit, Semaphore};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes waiters; `!Send`. Remembers nothing: a notify with nobody waiting has no effect.
#[derive(Default)]
pub struct Notify {
    waiters: Rc<RefCell<Waiters>>,
}

#[derive(Default)]
struct Waiters {
    /// In order of registration; the value is empty until the waiter is first polled.
    waiting: BTreeMap<u64, Option<Waker>>,
    next: u64,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes all that wait now.
    pub fn notify_all(&self) {
        let woken = std::mem::take(&mut self.waiters.borrow_mut().waiting);
        for waker in woken.into_values().flatten() {
            waker.wake();
        }
    }

    /// Wakes the one that has waited longest.
    pub fn notify_one(&self) {
        let first = self.waiters.borrow_mut().waiting.pop_first();
        if let Some((_, Some(waker))) = first {
            waker.wake();
        }
    }

    /// Registered when called, not when first polled, so a notify between the two is not lost.
    pub fn notified(&self) -> Notified {
        let mut w = self.waiters.borrow_mut();
        let ticket = w.next;
        w.next += 1;
        w.waiting.insert(ticket, None);
        Notified { waiters: self.waiters.clone(), ticket, done: false }
    }

    pub fn waiter_count(&self) -> usize {
        self.waiters.borrow().waiting.len()
    }
}

/// See [`Notify::notified`].
pub struct Notified {
    waiters: Rc<RefCell<Waiters>>,
    ticket: u64,
    done: bool,
}

impl Future for Notified {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let old = match self.waiters.borrow_mut().waiting.get_mut(&self.ticket) {
            Some(Some(w)) if w.will_wake(cx.waker()) => Some(None),
            Some(slot) => Some(slot.replace(cx.waker().clone())),
            None => None,
        };
        if old.is_none() {
            self.done = true;
            return Poll::Ready(());
        }
        drop(old);
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        if !self.done {
            let waker = self.waiters.borrow_mut().waiting.remove(&self.ticket);
            drop(waker);
        }
    }
}

/// Polls all futures concurrently on this task, results in order. Each wake polls all that are left: meant for the
/// columns of a stripe and the members of a mirror, not for thousands.
pub async fn join_all<F: Future>(futs: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futs: Vec<_> = futs.into_iter().map(|f| Some(Box::pin(f))).collect();
    let mut outputs: Vec<_> = futs.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut left = false;
        for (slot, output) in futs.iter_mut().zip(&mut outputs) {
            if let Some(f) = slot {
                match f.as_mut().poll(cx) {
                    Poll::Ready(v) => {
                        *output = Some(v);
                        *slot = None;
                    }
                    Poll::Pending => left = true,
                }
            }
        }
        if left { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().map(|o| o.expect("all futures are ready")).collect()
}
