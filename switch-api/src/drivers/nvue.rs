//! NVIDIA Cumulus Linux by NVUE: revisions.

use super::not_built;
use crate::connection::Connection;
use crate::error::Result;
use crate::switch::Switch;
use std::sync::Arc;

/// A driver for the switch at the other end of `connection`; connects when first asked.
pub(super) fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    not_built(&connection)
}
