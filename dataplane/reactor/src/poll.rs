//! Work that is looked for rather than signalled, by sources that know how to be woken for it.

use crate::context;
use std::cell::Cell;
use std::rc::Rc;

/// A device queue or the like. Polled once per turn of the reactor while it is busy.
pub trait PollSource: 'static {
    /// Looks for work; whether it found any.
    fn poll(&self) -> bool;
    /// The reactor has found nothing to do for a while and is about to block.
    fn before_sleep(&self) -> BeforeSleep;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeSleep {
    /// Nothing will come, or it will wake the reactor by an event that a task waits for.
    Woken,
    /// Something may come unannounced: sleep a millisecond at most.
    Unannounced,
    /// There is work now.
    Busy,
}

/// Ends the polling when dropped.
pub struct PollRegistration {
    wanted: Rc<Cell<bool>>,
}

impl Drop for PollRegistration {
    fn drop(&mut self) {
        self.wanted.set(false);
    }
}

pub(crate) struct Source {
    pub(crate) source: Rc<dyn PollSource>,
    wanted: Rc<Cell<bool>>,
}

/// Polls `source` on the current reactor until the registration is dropped.
pub fn register_poll_source(source: Rc<dyn PollSource>) -> PollRegistration {
    let wanted = Rc::new(Cell::new(true));
    let registration = PollRegistration { wanted: wanted.clone() };
    context::current().sources.borrow_mut().push(Source { source, wanted });
    registration
}

impl context::Reactor {
    pub(crate) fn poll_sources(&self) -> bool {
        if self.sources.borrow().is_empty() {
            return false;
        }
        // Out of the cell while they run: a source may register another.
        let mut sources = std::mem::take(&mut *self.sources.borrow_mut());
        let mut found = false;
        let mut unwanted = false;
        for s in &sources {
            match s.wanted.get() {
                true => found |= s.source.poll(),
                false => unwanted = true,
            }
        }
        if unwanted {
            sources.retain(|s| s.wanted.get());
        }
        let mut cell = self.sources.borrow_mut();
        sources.append(&mut cell);
        *cell = sources;
        found
    }

    /// The most watchful wish of all sources.
    pub(crate) fn sources_before_sleep(&self) -> BeforeSleep {
        let mut wish = BeforeSleep::Woken;
        for s in self.sources.borrow().iter().filter(|s| s.wanted.get()) {
            match s.source.before_sleep() {
                BeforeSleep::Woken => {}
                BeforeSleep::Unannounced => wish = BeforeSleep::Unannounced,
                BeforeSleep::Busy => return BeforeSleep::Busy,
            }
        }
        wish
    }
}
