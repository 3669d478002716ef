//! The server that firmware, iPXE and booted nodes fetch from and report to: HTTP/1.1, with TLS where a certificate is given.
//!
//! Everything has a bound: connections, header bytes, body bytes, bytes in flight per transfer, and the time in which nothing moves.

mod files;
mod range;
mod routes;
mod server;

pub use range::{Wanted, wanted};
pub use routes::Desk;
pub use server::{Listening, serve, tls};
