//! NFSv4.1 and 4.2 (RFC 8881, RFC 7862).
//!
//! * [`compound`]: a request from its first operation to its reply.
//! * [`clients`], [`session`]: client ids, sessions, the replay cache; [`records`]: how they are stored.
//! * [`state`], [`stateid`]: opens and locks.
//! * `ops_*`: the operations; [`attrs`]: attributes; [`types`]: the protocol's numbers.

pub(crate) mod attrs;
pub(crate) mod clients;
pub(crate) mod compound;
mod ops_handle;
mod ops_io;
mod ops_lock;
mod ops_name;
mod ops_open;
mod ops_session;
pub(crate) mod records;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod stateid;
pub mod types;

pub(crate) use ops_handle::resolve;
pub(crate) use ops_io::stable_how;
