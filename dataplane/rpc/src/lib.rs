//! JSON-RPC 2.0 as SPDK speaks it, so that SPDK's own client drives Basalt's data plane unchanged.
//!
//! On the wire there is no delimiter: a request is one JSON value (an object, or an array for a batch), however it is
//! indented; the answer is one JSON value. [`Registry`] holds the methods, [`serve`] answers a listener, [`Client`]
//! is the blocking counterpart for command-line tools, [`types`] are the parameters both share.

mod client;
mod registry;
mod server;
pub mod size;
pub mod types;

pub use client::{Client, ClientError};
pub use registry::Registry;
pub use server::serve;

use serde::{Deserialize, Serialize};

/// A request or an answer larger than this is refused.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// JSON-RPC 2.0, section 5.1; codes from -32000 on are Basalt's, and the command line's exit codes follow them.
pub mod code {
    pub const PARSE: i32 = -32700;
    pub const INVALID_REQUEST: i32 = -32600;
    pub const METHOD_NOT_FOUND: i32 = -32601;
    pub const INVALID_PARAMS: i32 = -32602;
    pub const INTERNAL: i32 = -32603;
    /// The request cannot be granted as things are; the message names the cause and the next step.
    pub const REFUSED: i32 = -32000;
    pub const NOT_FOUND: i32 = -32001;
    pub const ALREADY_EXISTS: i32 = -32002;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    pub code: i32,
    pub message: String,
}

impl RpcError {
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into() }
    }
    pub fn refused(message: impl Into<String>) -> RpcError {
        RpcError::new(code::REFUSED, message)
    }
    pub fn not_found(message: impl Into<String>) -> RpcError {
        RpcError::new(code::NOT_FOUND, message)
    }
}
