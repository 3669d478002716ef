//! Tasks, their ready queue, and the inbox through which other cores reach a reactor.

use crate::context::{self, Reactor, World};
use async_task::{Runnable, Task};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// What one core hands to another.
pub(crate) enum Message {
    /// A task of the receiver is ready.
    Wake(Runnable),
    Call(Box<dyn FnOnce() + Send>),
}

/// The part of a reactor that other threads may touch.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// Lets the owner look without taking the lock.
    inbox_full: AtomicBool,
    /// Set by the owner before it blocks; whoever clears it must ring the bell.
    asleep: AtomicBool,
    bell: Option<Bell>,
}

/// Ends the owner's blocking wait; async-signal-safe.
pub(crate) type Bell = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inbox {
    messages: Vec<Message>,
    closed: bool,
}

impl Shared {
    pub(crate) fn new(bell: Option<Bell>) -> Arc<Shared> {
        Arc::new(Shared {
            inbox: Mutex::default(),
            inbox_full: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell,
        })
    }

    pub(crate) fn deliver(&self, message: Message) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.closed {
                drop(inbox);
                match message {
                    // Tasks belong to their thread; one that comes after its reactor has dropped them all is not ours
                    // to free here.
                    Message::Wake(r) => std::mem::forget(r),
                    Message::Call(f) => drop(f),
                }
                return;
            }
            inbox.messages.push(message);
            // SeqCst pairs with `prepare_sleep`: either we see it asleep, or it sees the inbox full.
            self.inbox_full.store(true, Ordering::SeqCst);
        }
        self.wake_if_asleep();
    }

    pub(crate) fn wake_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(bell) = &self.bell
        {
            bell();
        }
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.inbox_full.load(Ordering::SeqCst)
    }

    /// Swaps the inbox with the (empty) `out`, so that both keep their capacity.
    pub(crate) fn take_messages(&self, out: &mut Vec<Message>) {
        debug_assert!(out.is_empty());
        if self.has_messages() {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            self.inbox_full.store(false, Ordering::SeqCst);
            std::mem::swap(&mut inbox.messages, out);
        }
    }

    /// False when there is something to do after all.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.has_messages() {
            self.asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    pub(crate) fn end_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn close(&self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// A task of this reactor became ready, on whatever thread.
    fn schedule(self: &Arc<Self>, runnable: Runnable) {
        match context::try_current() {
            Some(r) if Arc::ptr_eq(&r.shared, self) => r.ready.borrow_mut().push_back(runnable),
            Some(r) => match &r.world {
                World::Sim(w) => w.wake_elsewhere(&r, self, runnable),
                World::Real(_) => self.deliver(Message::Wake(runnable)),
            },
            None => self.deliver(Message::Wake(runnable)),
        }
    }
}

/// A task of this reactor. Dropping the handle detaches the task; awaiting it yields its output.
///
/// A task that was cancelled has no output: [`cancel`](Self::cancel) takes the handle, so nobody can wait for it.
pub struct JoinHandle<T> {
    task: Option<Task<T>>,
}

impl<T> JoinHandle<T> {
    /// Drops the task at its next suspension point.
    pub fn cancel(mut self) {
        drop(self.task.take());
    }

    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(Task::is_finished)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.task.as_mut().expect("a handle has its task until it is dropped");
        Pin::new(task).poll(cx)
    }
}

/// A spawned future together with its entry in the reactor's task table.
struct Registered<F> {
    future: F,
    /// Dropped after the future: a task that is being dropped still counts.
    _entry: Entry,
}

struct Entry {
    reactor: Rc<Reactor>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let waker = self.reactor.tasks.borrow_mut().remove(self.key);
        drop(waker);
    }
}

impl<F: Future> Future for Registered<F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is structurally pinned: it is never moved out of `self`, `Registered` is Unpin only if `F`
        // is (auto trait), it has no Drop of its own and is not packed.
        let future = unsafe { self.map_unchecked_mut(|s| &mut s.future) };
        future.poll(cx)
    }
}

impl Reactor {
    pub(crate) fn spawn<F: Future + 'static>(self: &Rc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F::Output: 'static,
    {
        let key = self.tasks.borrow().vacant_key();
        let shared = self.shared.clone();
        let (runnable, task) = async_task::spawn_local(
            Registered { future, _entry: Entry { reactor: self.clone(), key } },
            move |r| shared.schedule(r),
        );
        let inserted = self.tasks.borrow_mut().insert(runnable.waker());
        debug_assert_eq!(inserted, key);
        runnable.schedule();
        JoinHandle { task: Some(task) }
    }

    /// Drops every task without polling it, and whatever they spawn while being dropped. The caller has entered.
    pub(crate) fn drop_all_tasks(&self) {
        let mut messages = Vec::new();
        loop {
            let wakers: Vec<_> = self.tasks.borrow().iter().cloned().collect();
            let none_left = wakers.is_empty();
            for w in wakers {
                w.wake();
            }
            loop {
                let next = self.ready.borrow_mut().pop_front();
                let Some(runnable) = next else { break };
                // Dropping a runnable drops its future.
                drop(runnable);
            }
            self.shared.take_messages(&mut messages);
            let quiet = messages.is_empty();
            messages.clear();
            if none_left && quiet && self.tasks.borrow().len() == 0 {
                break;
            }
            // A waker on another thread may hold a runnable that has not arrived yet: look again.
            std::thread::yield_now();
        }
        self.shared.close();
        let pollers = std::mem::take(&mut *self.pollers.borrow_mut());
        drop(pollers);
        let sources = std::mem::take(&mut *self.sources.borrow_mut());
        drop(sources);
    }
}
