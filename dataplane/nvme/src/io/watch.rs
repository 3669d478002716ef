//! Tasks beside a queue: its watchdog, its interrupt, its end.

use super::{IoQueue, NEEDLESS_MAX};
use crate::recovery::Event;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Overdue commands reported per look.
const OVERDUE_MAX: usize = 64;

/// Runs while anything is in flight: an idle queue costs nothing.
pub(super) async fn watchdog(queue: Weak<IoQueue>) {
    loop {
        let Some(q) = queue.upgrade() else { return };
        let pause = q.controller.timing().look;
        drop(q);
        basalt_reactor::sleep(pause).await;
        let Some(q) = queue.upgrade() else { return };
        if q.over.get() || q.in_flight() == 0 {
            q.watchdog_runs.set(false);
            return;
        }
        let now_ns = basalt_reactor::now().0;
        q.coarse_now_ns.set(now_ns);
        if q.halted.get() {
            continue;
        }
        let overdue = q.pair.borrow().overdue(now_ns, OVERDUE_MAX);
        for o in overdue {
            q.controller.report(Event::Overdue { qid: q.qid, cid: o.cid, abort_sent: o.abort_sent });
        }
    }
}

/// Takes note of interrupts. Those that find the reactor awake are masked: completions are found by polling then, and
/// the vector is unmasked before the next sleep.
pub(super) async fn interrupts(queue: Weak<IoQueue>) {
    let Some(event) = queue.upgrade().and_then(|q| q.wake.as_ref().map(|w| w.event.clone())) else { return };
    while event.rung().await.is_ok() {
        let Some(q) = queue.upgrade() else { return };
        let Some(wake) = &q.wake else { return };
        if wake.wanted.replace(false) {
            wake.needless.set(0);
            continue;
        }
        wake.needless.set(wake.needless.get() + 1);
        if wake.needless.get() >= NEEDLESS_MAX && !wake.masked.get() {
            wake.needless.set(0);
            wake.masked.set(q.controller.transport().mask(wake.vector, true));
        }
    }
}

/// The last user has gone: once nothing is in flight any more the controller is told to forget the queue.
pub(super) async fn close(queue: Rc<IoQueue>) {
    while queue.in_flight() > 0 && !queue.over.get() {
        basalt_reactor::sleep(Duration::from_millis(1)).await;
        if queue.users.get() > 0 {
            return;
        }
    }
    if queue.users.get() > 0 {
        return;
    }
    queue.registration.borrow_mut().take();
    if let Some(wake) = &queue.wake {
        // Ends the task that waits for it.
        wake.event.ring();
    }
    if queue.over.get() {
        queue.controller.forget_queue(queue.qid);
    } else {
        queue.controller.close_queue(queue.qid).await;
    }
}
