//! One driver per system, all behind [`Switch`].

mod dell_sonic;
mod eos;
mod http;
mod nvue;
pub mod ovs;
mod sonic;

use crate::connection::Connection;
use crate::error::Result;
use crate::intent::DriverKind;
use crate::switch::Switch;
use std::sync::Arc;

/// The driver for `connection.kind`. Nothing is sent yet.
pub fn connect(connection: Connection) -> Result<Arc<dyn Switch>> {
    match connection.kind {
        DriverKind::SonicGnmi | DriverKind::SonicRedis => sonic::connect(connection),
        DriverKind::DellSonic => dell_sonic::connect(connection),
        DriverKind::Eos => eos::connect(connection),
        DriverKind::Nvue => nvue::connect(connection),
        DriverKind::Ovs => ovs::connect(connection),
    }
}
