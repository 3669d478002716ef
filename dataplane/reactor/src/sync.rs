//! Single-reactor synchronisation: no atomics, no locks.

/// Wakes waiters; `!Send`.
#[derive(Default)]
pub struct Notify {}
impl Notify {
    pub fn new() -> Notify {
        todo!()
    }
    /// Wakes all that wait now.
    pub fn notify_all(&self) {
        todo!()
    }
    pub fn notify_one(&self) {
        todo!()
    }
    /// Registered when called, not when first polled, so a notify between the two is not lost.
    pub fn notified(&self) -> Notified {
        todo!()
    }
}
pub struct Notified {}
impl Future for Notified {
    type Output = ();
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        todo!()
    }
}

/// FIFO mutex for tasks of one reactor.
pub struct Mutex<T> {
    _v: std::cell::RefCell<T>,
}
impl<T> Mutex<T> {
    pub fn new(v: T) -> Self {
        Mutex { _v: std::cell::RefCell::new(v) }
    }
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        todo!()
    }
}
pub struct MutexGuard<'a, T> {
    _g: std::cell::RefMut<'a, T>,
}
impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self._g
    }
}
impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self._g
    }
}

/// Counting semaphore, FIFO, for one reactor.
pub struct Semaphore {}
impl Semaphore {
    pub fn new(_permits: usize) -> Semaphore {
        todo!()
    }
    /// Waits for `n` permits (n must not exceed the initial count).
    pub async fn acquire(&self, _n: usize) -> Permit {
        todo!()
    }
}
/// Returns its permits on drop. Holds the semaphore by `Rc`.
pub struct Permit {}

/// One value, once, across cores; the sender may be used from any thread.
pub mod oneshot {
    pub struct Sender<T>(std::marker::PhantomData<T>);
    pub struct Receiver<T>(std::marker::PhantomData<T>);
    pub fn channel<T: Send>() -> (Sender<T>, Receiver<T>) {
        todo!()
    }
    impl<T: Send> Sender<T> {
        pub fn send(self, _v: T) {
            todo!()
        }
    }
    /// `None` when the sender was dropped.
    impl<T> Future for Receiver<T> {
        type Output = Option<T>;
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
            todo!()
        }
    }
}

/// Polls all futures concurrently on this task, results in order.
pub async fn join_all<F: Future>(_futs: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    todo!()
}
