//! Memory to copy through where a request's own memory is not mapped for the controller.

use crate::dma::{DmaError, DmaRegion, DmaSpace, Iova};
use basalt_reactor::sync::{Permit, Semaphore};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// One piece.
pub(crate) const BOUNCE_BYTES: usize = 128 << 10;
/// Pieces per queue: 1 MiB, enough to keep a drive busy with what should be rare.
const PIECES: usize = 8;

pub(crate) struct Bounce {
    region: Arc<DmaRegion>,
    free: Rc<RefCell<Vec<usize>>>,
    count: Semaphore,
}

pub(crate) struct BouncePiece {
    region: Arc<DmaRegion>,
    free: Rc<RefCell<Vec<usize>>>,
    offset: usize,
    _permit: Permit,
}

impl Bounce {
    pub(super) fn new(dma: &dyn DmaSpace) -> Result<Bounce, DmaError> {
        let region = Arc::new(dma.allocate(PIECES * BOUNCE_BYTES)?);
        let free = (0..PIECES).map(|i| i * BOUNCE_BYTES).collect();
        Ok(Bounce { region, free: Rc::new(RefCell::new(free)), count: Semaphore::new(PIECES) })
    }

    pub(crate) async fn take(&self) -> BouncePiece {
        let permit = self.count.acquire(1).await;
        let offset = self.free.borrow_mut().pop().expect("as many pieces as permits");
        BouncePiece { region: self.region.clone(), free: self.free.clone(), offset, _permit: permit }
    }
}

impl BouncePiece {
    pub(crate) fn iova(&self) -> Iova {
        self.region.iova_at(self.offset)
    }
    pub(crate) fn read(&self, out: &mut [u8]) {
        assert!(out.len() <= BOUNCE_BYTES);
        self.region.read(self.offset, out);
    }
    pub(crate) fn write(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= BOUNCE_BYTES);
        self.region.write(self.offset + at, data);
    }
    pub(crate) fn zero(&self, len: usize) {
        assert!(len <= BOUNCE_BYTES);
        self.region.zero(self.offset, len);
    }
}

impl Drop for BouncePiece {
    fn drop(&mut self) {
        self.free.borrow_mut().push(self.offset);
    }
}
