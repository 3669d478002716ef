//! What gRPC's status codes mean for us (gNMI specification 3.1.1; grpc/doc/statuscodes.md).

use crate::connection::Connection;
use crate::error::Cause;
use std::error::Error;
use std::time::Duration;
use tonic::{Code, Status};

/// Stands for the path where a Get found nothing.
pub(super) const NOT_FOUND: &str = "(not found)";

/// A failure with what it came from.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

pub(super) fn cause(status: &Status, connection: &Connection, request: &str, got_bytes: u64) -> Cause {
    let said = connection.secret.redact(status.message());
    // Made on this side, not said by the switch.
    let local = status.source().is_some();
    let user = connection.user.clone();
    let request = request.to_owned();
    let endpoint = connection.endpoint();
    let unreachable = if local { connection.secret.redact(&chain(status)) } else { said.clone() };
    match status.code() {
        Code::Unauthenticated => Cause::Unauthorised { user },
        Code::PermissionDenied => Cause::Forbidden { user, request },
        Code::ResourceExhausted => {
            let seconds = status.metadata().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
            Cause::RateLimited { retry_after: seconds.map(Duration::from_secs), attempts: 1 }
        }
        Code::DeadlineExceeded => Cause::TimedOut { request, after: connection.limits.request },
        // tonic's own time-out.
        Code::Cancelled if said.contains("imeout") => {
            Cause::TimedOut { request, after: connection.limits.request }
        }
        Code::OutOfRange if said.contains("message length too large") => {
            Cause::ReplyTooLarge { request, limit_bytes: connection.limits.body_bytes }
        }
        Code::Unimplemented => {
            let needed = format!("gNMI {request} with the origin sonic-db (SONiC 202305 or newer)");
            Cause::VersionMismatch { found: format!("a gNMI server that says '{said}'"), needed }
        }
        Code::Aborted => Cause::Conflict { reason: said },
        Code::NotFound if request == "Get" => Cause::Rejected { path: NOT_FOUND.to_owned(), reason: said },
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
            Cause::Rejected { path: format!("the {request}"), reason: said }
        }
        Code::OutOfRange if !local => Cause::Rejected { path: format!("the {request}"), reason: said },
        Code::Unavailable => Cause::Unreachable { endpoint, reason: unreachable },
        Code::Internal | Code::Unknown | Code::Cancelled | Code::DataLoss if broke_off(status) => {
            if got_bytes > 0 {
                Cause::PartialReply { request, got_bytes }
            } else {
                Cause::Unreachable { endpoint, reason: unreachable }
            }
        }
        // What sonic-gnmi says of a patch that the configuration's own models refuse.
        Code::Internal | Code::Unknown if request == "Set" && !local => {
            Cause::Rejected { path: "the Set".to_owned(), reason: said }
        }
        code => Cause::BadReply { request, reason: format!("{code:?}: {said}"), expected: "SONiC" },
    }
}

/// The transport ended under the answer.
fn broke_off(status: &Status) -> bool {
    let text = chain(status).to_lowercase();
    status.source().is_some()
        || ["h2 protocol error", "connection", "broken pipe", "unexpected eof", "stream closed", "body"]
            .iter()
            .any(|sign| text.contains(sign))
}
