//! Plays a BMC for tests: serves a tree of resources ([`Tree`]) over HTTP(S), keeps the stateful parts (power, boot, BIOS settings,
//! tasks, media, sessions, events, accounts), and differs and fails on demand ([`Deviation`], [`Fault`]).
//!
//! It shares no code with the client, and independent clients and the DMTF's service validator hold it to the standard
//! (`tests/independent.rs` of `basalt-redfish`).

mod actions;
mod body;
mod certificate;
mod deviation;
mod emulator;
mod fault;
mod patch;
mod query;
mod reply;
mod respond;
mod serve;
mod state;
mod tree;
pub mod vendors;

pub use deviation::Deviation;
pub use emulator::{Emulator, Options, Tls};
pub use fault::Fault;
pub use state::{Boot, Seen};
pub use tree::Tree;
