//! `fabric.yaml`: what the storage network shall be, said once, for all its switches.
//!
//! ```yaml
//! version: 1
//! name: rack-a
//! vlans: [{name: storage-a, id: 100}]
//! switches:
//!   - name: leaf-1
//!     role: leaf
//!     driver: eos
//!     management: {address: 192.0.2.11, user: basalt, credentials: {file: /etc/basalt/leaf-1.password}, tls: {ca_file: /etc/basalt/ca.pem}}
//! nodes: [{name: node-1}]
//! links:
//!   - {ends: [node-1/p0, leaf-1/Ethernet1], speed_gbps: 100, vlans: {untagged: storage-a}}
//! ```
//!
//! [`Fabric::from_yaml`] parses and validates; what is wrong comes as a list of [`Problem`]s, each with field, line, cause and next
//! step. [`generate()`] drafts one from inventory and LLDP. [`schema`] is the published JSON Schema (`switch-api/schema/fabric.schema.json`).

mod generate;
mod lines;
mod model;
mod read;
mod validate;

pub use generate::{Draft, Inventory, SeenNeighbour, SeenNode, SeenPort, generate};
pub use model::*;
pub use read::{IntentError, Problem, schema};
