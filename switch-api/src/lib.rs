//! The storage fabric as intent. `fabric.yaml` says what the storage network shall be ([`intent`]); for each switch that becomes
//! a set of typed objects ([`desired`](mod@desired), [`state`]); the difference to what the switch has is a [`plan`]; a [`Switch`]
//! driver carries it out; the [`engine`] does so for a whole fabric without cutting the branch it sits on; [`verify`] says in
//! plain words where the fabric is not as it should be.
//!
//! The crate knows neither agent nor command line: both call [`engine::Engine`].

pub mod connection;
pub mod desired;
pub mod drivers;
pub mod engine;
mod error;
pub mod fake;
pub mod intent;
mod names;
pub mod plan;
pub mod retry;
pub mod state;
mod switch;
pub mod tls;
pub mod verify;

pub use basalt_trust::Secret;
pub use error::{Cause, Result, SwitchError, WayBack};
pub use names::{DeviceName, InterfaceName, PortRef, VlanId};
pub use switch::{
    ApplyOptions, Capabilities, Counters, Identity, LinkStatus, Neighbour, Observed, Pending, PortCounters,
    QueueCounters, Switch, Transaction,
};
