//! From bare metal to running nodes: a persisted state machine per server of the list.
//!
//! A server that is not in the list is never touched, one that answers for another serial number neither, and a drive that is not
//! blank is not written unless an operator named it.
//!
//! | | |
//! |---|---|
//! | [`state`] | the states, their time limits and the ways out of each |
//! | [`node`] | an entry of the list: who, what it shall become, how far it came, and its history |
//! | [`fault`] | what servers and BMCs do wrong, and what to do about it |
//! | [`store`] | the list on disk, behind a trait |
//! | [`list`] | adding, removing, replacing |
//! | [`server`] | what is asked of a server, as a trait |
//! | [`bmc`] | … and done by Redfish |
//! | [`secrets`] | users and passwords of BMCs, encrypted |
//! | [`boot`] | what is asked of the boot service, and what it saw |
//! | [`engine`] | brings nodes from state to state, many at once within [`limits`] |
//! | [`reach`] | whether a node's data plane answers |
//! | [`clock`] | time |

pub mod bmc;
pub mod boot;
pub mod clock;
pub mod engine;
mod error;
pub mod fault;
pub mod limits;
pub mod list;
pub mod node;
pub mod reach;
pub mod secrets;
pub mod server;
pub mod state;
pub mod store;

pub use engine::{Engine, Parts};
pub use error::{ProvisionError, Result};
pub use fault::{Failure, Fault, FaultKind};
pub use limits::Limits;
pub use list::List;
pub use node::{Node, NodeName};
pub use state::{State, Times};
pub use store::NodeStore;
