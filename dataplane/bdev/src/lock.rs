//! A first-come-first-served lock that tasks of any core may wait for.

use basalt_reactor::sync::oneshot;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Serialises compare-and-write on one drive, for all reactors of the process.
#[derive(Clone, Default)]
pub struct DriveLock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    held: bool,
    waiting: VecDeque<oneshot::Sender<Held>>,
}

/// Passes the lock on when dropped, also from the hands of a waiter that has gone.
pub struct Held {
    lock: DriveLock,
}

impl DriveLock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn lock(&self) -> Held {
        let turn = {
            let mut s = self.state();
            if !std::mem::replace(&mut s.held, true) {
                return Held { lock: self.clone() };
            }
            let (tx, rx) = oneshot::channel();
            s.waiting.push_back(tx);
            rx
        };
        match turn.await {
            Some(held) => held,
            None => unreachable!("senders are dropped by sending only"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let next = {
            let mut s = self.lock.state();
            let next = s.waiting.pop_front();
            s.held = next.is_some();
            next
        };
        if let Some(next) = next {
            next.send(Held { lock: self.lock.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_reactor::sim::Sim;
    use basalt_reactor::{self as reactor, CoreId};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[test]
    fn one_at_a_time_and_nobody_is_forgotten() {
        for seed in 0..20 {
            let mut sim = Sim::new(seed);
            let n = sim.add_node(3);
            let lock = DriveLock::default();
            let inside = Arc::new(AtomicU32::new(0));
            sim.block_on(n, move || async move {
                let each: Vec<_> = (0..30u32)
                    .map(|i| {
                        let (lock, inside) = (lock.clone(), inside.clone());
                        reactor::spawn(reactor::call_on(CoreId((i % 3) as u16), move || async move {
                            let work = async {
                                let _held = lock.lock().await;
                                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                                reactor::sleep(Duration::from_micros(20)).await;
                                inside.fetch_sub(1, Ordering::Relaxed);
                            };
                            // Some give up while they wait.
                            if i % 4 == 0 {
                                let wait = async {
                                    let held = lock.lock().await;
                                    assert_eq!(inside.load(Ordering::Relaxed), 0);
                                    drop(held);
                                };
                                reactor::timeout(Duration::from_micros(100), wait).await;
                            } else {
                                work.await;
                            }
                        }))
                    })
                    .collect();
                for e in each {
                    e.await;
                }
                assert!(!lock.state().held);
            });
        }
    }
}
