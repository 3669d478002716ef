//! What the NVM Express specifications define: registers, commands, completions, identify structures, logs.
//!
//! Section numbers are those of the NVM Express Base Specification 2.0c ("Base") and the NVM Command Set Specification
//! 1.0c ("NVM"). Everything on the wire is little-endian; the structs have no padding and no alignment.

pub mod command;
pub mod identify;
pub mod log;
pub mod registers;
pub mod status;

pub use command::{Cqe, Sqe};
pub use status::Status;
