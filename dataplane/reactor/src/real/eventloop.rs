//! The loop of a reactor thread: messages, tasks, timers, pollers, completions; and when there is nothing of all
//! that, a short spin and then a blocking wait.

use crate::context::Reactor;
use crate::poll::BeforeSleep;
use crate::task::Message;
use std::rc::Rc;

/// Tasks polled before timers and completions get another look.
const TASKS_PER_TURN: usize = 256;
/// With pollers, nobody signals new work: block this long at most.
const POLLED_WAIT_NS: u64 = 1_000_000;

impl Reactor {
    pub(super) fn run_until_stopped(self: &Rc<Self>, idle_spin_us: u32) {
        let local = self.real();
        let spin_ns = u64::from(idle_spin_us) * 1000;
        let mut messages = Vec::new();
        let mut last_work_ns = super::now_ns();
        while !local.node.stopping() {
            let mut worked = self.handle_messages(&mut messages);
            worked |= self.run_ready_tasks();
            let now_ns = super::now_ns();
            worked |= self.fire_timers(now_ns);
            worked |= self.run_pollers();
            worked |= local.ring.submit_and_reap();
            if local.node.draining() {
                self.announce_drain();
            }
            if worked || !self.ready.borrow().is_empty() {
                last_work_ns = now_ns;
            } else if now_ns - last_work_ns < spin_ns {
                std::hint::spin_loop();
            } else {
                self.wait(now_ns);
                // Whatever ended the wait is found in the next turn, and counts from then.
                last_work_ns = super::now_ns().saturating_sub(spin_ns);
            }
        }
    }

    fn handle_messages(&self, messages: &mut Vec<Message>) -> bool {
        self.shared.take_messages(messages);
        let any = !messages.is_empty();
        for m in messages.drain(..) {
            match m {
                Message::Wake(runnable) => self.ready.borrow_mut().push_back(runnable),
                Message::Call(f) => f(),
            }
        }
        any
    }

    fn run_ready_tasks(&self) -> bool {
        // Those that become ready meanwhile wait for the next turn.
        let count = self.ready.borrow().len().min(TASKS_PER_TURN);
        for _ in 0..count {
            let next = self.ready.borrow_mut().pop_front();
            let Some(runnable) = next else { break };
            runnable.run();
        }
        count > 0
    }

    fn fire_timers(&self, now_ns: u64) -> bool {
        let mut any = false;
        loop {
            let due = self.real().timers.borrow_mut().pop_due(now_ns);
            let Some(waker) = due else { return any };
            waker.wake();
            any = true;
        }
    }

    fn wait(&self, now_ns: u64) {
        let local = self.real();
        let until_timer = local.timers.borrow().next_deadline_ns().map(|d| d.saturating_sub(now_ns));
        let unannounced = match self.sources_before_sleep() {
            BeforeSleep::Busy => return,
            BeforeSleep::Unannounced => true,
            BeforeSleep::Woken => !self.pollers.borrow().is_empty(),
        };
        let until_poll = unannounced.then_some(POLLED_WAIT_NS);
        let timeout_ns = [until_timer, until_poll].into_iter().flatten().min();
        if !self.shared.prepare_sleep() {
            return;
        }
        // Looked at after going to sleep was announced, as `request_stop` rings only for those asleep.
        if !local.node.stopping() && timeout_ns != Some(0) {
            local.ring.wait(timeout_ns);
        }
        self.shared.end_sleep();
    }
}
