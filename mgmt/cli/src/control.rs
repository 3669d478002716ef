//! How commands reach a node: today over the data plane's socket, tomorrow over the agent's REST API as well.

use basalt_rpc::{Client, ClientError, code};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Boot(#[from] basalt_boot::BootError),
    #[error(transparent)]
    Upgrade(#[from] basalt_upgrade::UpgradeError),
    #[error(transparent)]
    Fabric(#[from] crate::fabric::Outcome),
    #[error(transparent)]
    Node(#[from] crate::node::Outcome),
    #[error(transparent)]
    Provision(#[from] basalt_provision::ProvisionError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl CliError {
    /// Documented at the top of `main.rs`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            CliError::Usage(_) => 2,
            CliError::Boot(basalt_boot::BootError::NotFound(_)) => 4,
            CliError::Upgrade(e) => e.exit_code(),
            CliError::Fabric(outcome) => outcome.exit_code(),
            CliError::Node(outcome) => outcome.exit_code(),
            CliError::Provision(basalt_provision::ProvisionError::NoSuchNode(_)) => 4,
            CliError::Client(ClientError::Unreachable { .. }) => 3,
            CliError::Client(ClientError::Rpc(e)) if e.code == code::NOT_FOUND => 4,
            _ => 1,
        })
    }
}

/// One request, one answer.
pub(crate) trait Control {
    fn request(&mut self, method: &str, params: Value, timeout: Option<Duration>) -> Result<Value, CliError>;
}

/// The data plane's JSON-RPC socket.
pub(crate) struct Socket(Client);

impl Socket {
    pub(crate) fn connect(path: &Path) -> Result<Socket, CliError> {
        Ok(Socket(Client::connect(path)?))
    }
}
impl Control for Socket {
    fn request(&mut self, method: &str, params: Value, timeout: Option<Duration>) -> Result<Value, CliError> {
        Ok(self.0.call(method, params, timeout)?)
    }
}

/// A typed call that should answer soon.
pub(crate) fn call<R: DeserializeOwned>(
    control: &mut dyn Control,
    method: &str,
    params: impl Serialize,
) -> Result<R, CliError> {
    typed(control.request(method, to_value(params)?, Some(Duration::from_secs(60)))?)
}

/// A typed call that takes as long as it takes.
pub(crate) fn call_long<R: DeserializeOwned>(
    control: &mut dyn Control,
    method: &str,
    params: impl Serialize,
) -> Result<R, CliError> {
    typed(control.request(method, to_value(params)?, None)?)
}

fn to_value(params: impl Serialize) -> Result<Value, CliError> {
    serde_json::to_value(params).map_err(|e| CliError::Failed(e.to_string()))
}
fn typed<R: DeserializeOwned>(value: Value) -> Result<R, CliError> {
    serde_json::from_value(value).map_err(|e| {
        CliError::Failed(format!("the data plane is of another version; its answer is odd: {e}"))
    })
}
