//! Servers by way of their BMCs, over Redfish (DMTF DSP0266). [`Bmc`] is what can be asked and done; [`Client`] does it over HTTPS
//! on one connection per BMC; [`quirks`] says as data where vendors differ; [`discovery`] finds the BMCs of a network.
//!
//! Everything a BMC says is read leniently into the typed [`model`]: a field that is missing, `null` or of another type is "not
//! said" and takes nothing else with it. What a BMC may cost is bounded ([`Limits`]): time, bytes, pages, members.
//!
//! The crate knows nothing of the rest of Basalt.

mod bmc;
mod client;
mod connection;
mod credentials;
pub mod discovery;
mod error;
mod http;
mod json;
pub mod model;
pub mod quirks;
mod time;
mod tls;

pub use basalt_trust::{Fingerprint, Secret, Trust};
pub use bmc::{Accepted, Bmc, BootOverride, PowerAction, TaskWait, UpdateImage, UpdateRequest};
pub use client::{Client, EventStream};
pub use connection::{Auth, Connection, Limits};
pub use credentials::Credentials;
pub use error::{Cause, RedfishError, Result};
pub use quirks::{Quirk, QuirkChoice, Quirks};
pub use time::Timestamp;
