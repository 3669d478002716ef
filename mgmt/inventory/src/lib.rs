//! What hardware there is, what is wrong with it, and what changed.
//!
//! | | |
//! |---|---|
//! | [`record`] | everything known of one node, with stable identities |
//! | [`redfish`] | a BMC's view |
//! | [`local`] | the node's own view, from `/sys` and `/proc` under any root |
//! | [`merge`] | its BMC's view and its own made one |
//! | [`profile`] | what is expected, in YAML; [`check`]: each difference in plain words |
//! | [`drift`] | what changed between two records |
//! | [`health`] | one word for a node, with its causes |
//! | [`wear`] | when drives wear out, and which ones are about to fail |
//! | [`domain`] | racks and power feeds, and what they can lose |
//! | [`store`] | records and trends on disk |

pub mod check;
pub mod domain;
pub mod drift;
pub mod health;
pub mod local;
pub mod merge;
pub mod profile;
pub mod record;
pub mod redfish;
pub mod store;
pub mod wear;

mod units;

pub use health::Health;
pub use profile::Profile;
pub use record::Record;
pub use units::{bytes_text, memory_text};
