//! From memtable to run.

use super::Inner;
use crate::vfs::FsResult;
use std::rc::Rc;

impl Inner {
    pub(super) async fn flush(&self) -> FsResult<()> {
        Ok(())
    }
    pub(super) fn start_background(self: &Rc<Inner>) {}
}
