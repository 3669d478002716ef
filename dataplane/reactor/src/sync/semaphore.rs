//! Counting semaphore and mutex, first come first served, for one reactor.

use std::cell::{RefCell, UnsafeCell};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct State {
    free: usize,
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
}

struct Waiter {
    wanted: usize,
    waker: Waker,
    granted: bool,
}

impl State {
    /// Grants go in order, so only the last needs a look: those granted that have not run yet do not count.
    fn somebody_waits(&self) -> bool {
        self.waiting.last_key_value().is_some_and(|(_, w)| !w.granted)
    }
}

#[derive(Default)]
struct Core {
    state: RefCell<State>,
}

impl Core {
    /// Gives permits back and hands them to those who waited longest.
    fn release(&self, n: usize) {
        self.state.borrow_mut().free += n;
        self.grant();
    }

    fn grant(&self) {
        loop {
            let mut guard = self.state.borrow_mut();
            let s = &mut *guard;
            let Some((_, first)) = s.waiting.iter_mut().find(|(_, w)| !w.granted) else { return };
            if first.wanted > s.free {
                return;
            }
            s.free -= first.wanted;
            first.granted = true;
            let waker = first.waker.clone();
            drop(guard);
            waker.wake();
        }
    }

    fn acquire(&self, wanted: usize) -> Acquire<'_> {
        Acquire { core: self, wanted, ticket: None }
    }
}

struct Acquire<'a> {
    core: &'a Core,
    wanted: usize,
    ticket: Option<u64>,
}

impl Future for Acquire<'_> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut guard = self.core.state.borrow_mut();
        let s = &mut *guard;
        if let Some(ticket) = self.ticket {
            let w = s.waiting.get_mut(&ticket).expect("a ticket is in the queue until it is used");
            if !w.granted {
                w.waker.clone_from(cx.waker());
                return Poll::Pending;
            }
            s.waiting.remove(&ticket);
            drop(guard);
            self.ticket = None;
            return Poll::Ready(());
        }
        if !s.somebody_waits() && s.free >= self.wanted {
            s.free -= self.wanted;
            return Poll::Ready(());
        }
        let ticket = s.next;
        s.next += 1;
        s.waiting.insert(ticket, Waiter { wanted: self.wanted, waker: cx.waker().clone(), granted: false });
        drop(guard);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let left = self.core.state.borrow_mut().waiting.remove(&ticket).expect("still in the queue");
            self.core.release(if left.granted { left.wanted } else { 0 });
        }
    }
}

/// Counting semaphore, FIFO, for one reactor.
#[derive(Clone)]
pub struct Semaphore {
    core: Rc<Core>,
    total: usize,
}

impl Semaphore {
    pub fn new(permits: usize) -> Semaphore {
        let core = Core::default();
        core.state.borrow_mut().free = permits;
        Semaphore { core: Rc::new(core), total: permits }
    }

    /// Waits for `n` permits (n must not exceed the initial count).
    pub async fn acquire(&self, n: usize) -> Permit {
        assert!(
            n <= self.total,
            "{n} permits wanted of a semaphore with {}: this would wait for ever",
            self.total
        );
        self.core.acquire(n).await;
        Permit { core: self.core.clone(), n }
    }

    /// Takes `n` permits if they are free and nobody waits.
    pub fn try_acquire(&self, n: usize) -> Option<Permit> {
        let mut s = self.core.state.borrow_mut();
        if s.somebody_waits() || s.free < n {
            return None;
        }
        s.free -= n;
        drop(s);
        Some(Permit { core: self.core.clone(), n })
    }

    pub fn available(&self) -> usize {
        self.core.state.borrow().free
    }
}

/// Returns its permits on drop. Holds the semaphore by `Rc`.
pub struct Permit {
    core: Rc<Core>,
    n: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.core.release(self.n);
    }
}

/// FIFO mutex for tasks of one reactor.
pub struct Mutex<T> {
    core: Core,
    value: UnsafeCell<T>,
}

impl<T> Mutex<T> {
    pub fn new(v: T) -> Self {
        let core = Core::default();
        core.state.borrow_mut().free = 1;
        Mutex { core, value: UnsafeCell::new(v) }
    }

    pub async fn lock(&self) -> MutexGuard<'_, T> {
        self.core.acquire(1).await;
        MutexGuard { mutex: self }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let mut s = self.core.state.borrow_mut();
        if s.free == 0 || s.somebody_waits() {
            return None;
        }
        s.free = 0;
        drop(s);
        Some(MutexGuard { mutex: self })
    }
}

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.core.release(1);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: a guard holds the one permit, and `Mutex` is !Sync, so no other reference to the value exists.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference made from this guard.
        unsafe { &mut *self.mutex.value.get() }
    }
}
