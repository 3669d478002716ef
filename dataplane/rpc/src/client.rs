//! The blocking client of command-line tools; it has no reactor.

use crate::{MAX_MESSAGE_BYTES, RpcError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no data plane answers at {path} ({cause}); start it with `make run` or `basalt-dataplane`, or name its socket with --socket"
    )]
    Unreachable { path: PathBuf, cause: std::io::Error },
    #[error("the data plane closed the connection or did not answer: {0}")]
    Broken(String),
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// One connection; calls go one after the other.
pub struct Client {
    stream: UnixStream,
    next_id: u64,
}

impl Client {
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|cause| ClientError::Unreachable { path: path.to_owned(), cause })?;
        Ok(Client { stream, next_id: 1 })
    }

    /// `None` waits without end: creating a pool on large drives takes as long as it takes.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<R, ClientError> {
        let broken = |e: &dyn std::fmt::Display| ClientError::Broken(e.to_string());
        let id = self.next_id;
        self.next_id += 1;
        let request = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.stream.set_read_timeout(timeout).map_err(|e| broken(&e))?;
        self.stream.write_all(request.to_string().as_bytes()).map_err(|e| broken(&e))?;
        let limit = MAX_MESSAGE_BYTES as u64;
        let mut answers =
            serde_json::Deserializer::from_reader((&self.stream).take(limit)).into_iter::<Value>();
        let mut answer = match answers.next() {
            Some(Ok(answer)) => answer,
            Some(Err(e)) => return Err(broken(&e)),
            None => return Err(broken(&"end of stream")),
        };
        if let Some(error) = answer.get_mut("error") {
            let error = serde_json::from_value(error.take()).map_err(|e| broken(&e))?;
            return Err(ClientError::Rpc(error));
        }
        serde_json::from_value(answer["result"].take()).map_err(|e| broken(&e))
    }
}
