//! Events that something outside rings (a device's interrupt, another process): eventfds that a task waits for.

use crate::context::{self, World};
use crate::real::ring::{Keep, start};
use io_uring::opcode;
use io_uring::types::Fd;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An eventfd(2). Anyone may ring it, one task at a time waits.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        crate::real::eventfd().map(|fd| EventFd { fd })
    }

    pub fn ring(&self) {
        crate::real::ring_eventfd(self.fd.as_raw_fd());
    }

    /// Whether it has been rung, which is forgotten; never blocks.
    pub fn clear(&self) -> bool {
        crate::real::drain_eventfd(self.fd.as_raw_fd())
    }

    /// Resolves once it has been rung, and clears it. Real world only (`Unsupported` in the simulator).
    pub async fn rung(&self) -> io::Result<()> {
        if let World::Sim(_) = context::current().world {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let entry = opcode::PollAdd::new(Fd(self.fd.as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: the entry points to no memory; `self` keeps the fd open until this future ends, and a dropped one is
        // cancelled at once.
        let (result, _) = unsafe { start(entry, Keep::Nothing) }.await;
        result?;
        self.clear();
        Ok(())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
