//! What all reactors of the node share of a pool: which drives there are and may be used. Written by the root's owner, read
//! anywhere without asking it.

use crate::geometry::Layout;
use crate::root::Root;
use crate::types::*;
use basalt_bdev::DriveRef;
use basalt_reactor::CoreId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) struct SharedDrive {
    /// `None` when it was not found at import.
    pub(crate) drive: Option<DriveRef>,
    pub(crate) usable: AtomicBool,
}

pub(crate) struct Shared {
    /// Reactor that owns the root.
    pub(crate) owner: CoreId,
    /// Under which the owner's thread knows the root.
    pub(crate) key: u64,
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) scheme: Scheme,
    /// Of any drive: what is read of it here is the same on all.
    pub(crate) layout: Layout,
    /// By drive index.
    pub(crate) drives: Vec<SharedDrive>,
    generation: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        uuid: Uuid,
        name: String,
        scheme: Scheme,
        layout: Layout,
        drives: Vec<SharedDrive>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            owner: basalt_reactor::current_core(),
            key: next_key(),
            uuid,
            name,
            scheme,
            layout,
            drives,
            generation: AtomicU64::new(1),
        })
    }
    pub(crate) fn usable(&self, drive: DriveIndex) -> Option<&DriveRef> {
        let d = self.drives.get(drive.0 as usize)?;
        if d.usable.load(Ordering::Acquire) { d.drive.as_ref() } else { None }
    }
    pub(crate) fn take_out(&self, drive: DriveIndex) {
        if let Some(d) = self.drives.get(drive.0 as usize)
            && d.usable.swap(false, Ordering::AcqRel)
        {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
    /// Grows whenever a drive becomes unusable.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

thread_local! {
    static NEXT_KEY: Cell<u64> = const { Cell::new(1) };
    /// The roots that this thread's reactors own. Weak: a crashed node's roots go with its tasks.
    static ROOTS: RefCell<BTreeMap<u64, Weak<Root>>> = const { RefCell::new(BTreeMap::new()) };
}

fn next_key() -> u64 {
    let key = NEXT_KEY.get();
    NEXT_KEY.set(key + 1);
    key
}

pub(crate) fn register(root: &Rc<Root>) {
    ROOTS.with_borrow_mut(|roots| {
        roots.retain(|_, r| r.strong_count() > 0);
        roots.insert(root.shared.key, Rc::downgrade(root));
    });
}

pub(crate) fn find_root(key: u64) -> Option<Rc<Root>> {
    ROOTS.with_borrow(|roots| roots.get(&key)?.upgrade())
}

/// Requests from now on find no root.
pub(crate) fn deregister(key: u64) {
    ROOTS.with_borrow_mut(|roots| roots.remove(&key));
}
