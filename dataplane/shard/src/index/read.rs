//! Lookups in sorted runs.

use super::{Inner, TxnResult};
use bytes::Bytes;
use std::rc::Rc;

/// Blocks that one operation has waited for: they stay until it is done, so that every attempt gets further.
#[derive(Default)]
pub(crate) struct Pins {}

pub(crate) struct Run {}

impl Pins {
    pub(crate) fn get(&self, _inner: &Rc<Inner>, _runs: &[Rc<Run>], _key: &[u8]) -> TxnResult<Option<Bytes>> {
        Ok(None)
    }
    pub(crate) fn seek(
        &self,
        _inner: &Rc<Inner>,
        _runs: &[Rc<Run>],
        _from: &[u8],
        _to: &[u8],
    ) -> TxnResult<RunScan> {
        Ok(RunScan {})
    }
}

pub(crate) struct RunScan {}
impl RunScan {
    pub(crate) fn smallest(&self) -> Option<Bytes> {
        None
    }
    pub(crate) fn take(
        &mut self,
        _inner: &Rc<Inner>,
        _pins: &Pins,
        _key: &[u8],
        _wanted: usize,
    ) -> TxnResult<Option<Option<Bytes>>> {
        Ok(None)
    }
}
