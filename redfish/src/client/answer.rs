//! What a status and an error body mean (DSP0266 "Error responses", registry Base).

use super::Client;
use crate::error::{Cause, Result};
use crate::http::{Reply, Request, StatusCode};
use crate::json::View;
use crate::model::{Message, ResourcePath};
use crate::quirks::Quirk;
use serde_json::Value;

/// What went wrong in the service's words.
pub(super) struct Complaint {
    pub(super) ids: Vec<String>,
    pub(super) text: String,
}

impl Complaint {
    pub(super) fn of(reply: &Reply) -> Self {
        let Ok(json) = serde_json::from_slice::<Value>(&reply.body) else {
            return Self { ids: Vec::new(), text: reply.text() };
        };
        let error = View(&json).at("error");
        let messages: Vec<Message> = error
            .parts("@Message.ExtendedInfo")
            .into_iter()
            .chain(View(&json).parts("@Message.ExtendedInfo"))
            .collect();
        let mut texts: Vec<String> = messages.iter().filter_map(|m| m.text.clone()).collect();
        if texts.is_empty() {
            texts.extend(error.text("message"));
        }
        let mut ids: Vec<String> = messages.into_iter().filter_map(|m| m.id).collect();
        ids.extend(error.text("code"));
        let text = if texts.is_empty() { ids.join(", ") } else { texts.join(" ") };
        Self { ids, text }
    }

    /// Whether a message of this key (`Base.1.8.AccessDenied`: `AccessDenied`) is among them.
    fn has(&self, key: &str) -> bool {
        self.ids.iter().any(|id| id.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(key)))
    }

    fn says(&self, words: &[&str]) -> bool {
        let text = self.text.to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    }
}

impl Client {
    /// The answer, if it is a good one.
    pub(super) fn judge(&self, request: &Request, reply: Reply) -> Result<Reply> {
        let status = reply.status;
        if status.is_success() {
            return Ok(reply);
        }
        let complaint = Complaint::of(&reply);
        let reason = self.http().quote(&complaint.text);
        let user = self.http().connection.credentials.user.clone();
        let what = request.what();
        let message_ids: Vec<String> = complaint.ids.iter().take(8).map(|id| self.http().quote(id)).collect();
        // Before the status: vendors differ in it more than in the message.
        let quirks = self.0.quirks.get();
        let has_quirk = |quirk| quirks.is_some_and(|quirks| quirks.has(quirk));
        let busy = |reason: String| Cause::Busy { reason, retry_after: reply.retry_after(), attempts: 1 };
        let cause = if complaint.has("PasswordChangeRequired") {
            Cause::PasswordChangeRequired { user }
        } else if complaint.has("AccountLocked")
            || complaint.has("UserAccountLocked")
            || (matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && complaint.says(&["account is locked", "locked out", "account locked"]))
        {
            Cause::AccountLocked { user }
        } else if complaint.has("SessionLimitExceeded") {
            Cause::SessionLimit
        } else if has_quirk(Quirk::UpdateNeedsLicence)
            && complaint.says(&["license", "licence", "oob-lic", "dcms"])
        {
            Cause::LicenceNeeded { reason }
        } else if has_quirk(Quirk::NotReadyIsTransient)
            && (complaint.has("SWC0700") || complaint.says(&["swc0700", "is not ready"]))
        {
            busy(reason)
        } else {
            match status {
                StatusCode::UNAUTHORIZED => Cause::Unauthorised { user },
                StatusCode::FORBIDDEN => Cause::Forbidden { user, request: what },
                StatusCode::NOT_FOUND | StatusCode::GONE => Cause::NotFound { path: request.path.clone() },
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Cause::Unsupported { what },
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => busy(reason),
                StatusCode::PRECONDITION_FAILED if request.if_match.is_some() => {
                    Cause::Conflict { path: request.path.clone() }
                }
                _ if status.is_redirection() || status.is_informational() => {
                    let reason = format!("status {status}");
                    Cause::BadReply { request: what, reason }
                }
                _ if complaint.has("ServiceTemporarilyUnavailable") || complaint.has("ResourceInStandby") => {
                    busy(reason)
                }
                _ if status.is_server_error() => {
                    Cause::ServerError { request: what, status: status.as_u16(), reason }
                }
                _ => Cause::Rejected { request: what, status: status.as_u16(), reason, message_ids },
            }
        };
        Err(self.fail(cause))
    }

    /// The body as JSON; nothing is an empty object.
    pub(super) fn parse(&self, request: &Request, reply: &Reply) -> Result<Value> {
        if reply.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        // serde_json bounds the depth.
        let json: Value = serde_json::from_slice(&reply.body).map_err(|error| {
            self.http().nonsense(&request.what(), format!("{error} in \"{}\"", reply.text()))
        })?;
        if json.is_object() {
            Ok(json)
        } else {
            Err(self.http().nonsense(&request.what(), "not a JSON object"))
        }
    }

    /// The ETag of the header, or of the body where there is none.
    pub(super) fn etag(reply: &Reply, json: &Value) -> Option<String> {
        let header = reply.header(hyper::header::ETAG).map(str::to_owned);
        header
            .or_else(|| json.get("@odata.etag").and_then(Value::as_str).map(str::to_owned))
            .filter(|tag| !tag.is_empty() && tag.len() <= 256)
    }

    /// What a change led to.
    pub(super) fn accepted(&self, reply: &Reply) -> crate::Accepted {
        let json: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let view = View(&json);
        let location = reply.header(hyper::header::LOCATION).and_then(ResourcePath::new);
        let is_task =
            view.text("@odata.type").is_some_and(|kind| kind.contains("Task") || kind.contains("Job"));
        let own = Some(view.path()).filter(|path| !path.is_empty() && is_task);
        let monitor = view.link("TaskMonitor");
        // The task itself says more than its monitor.
        let task = own
            .or(location.filter(|path| reply.status == StatusCode::ACCEPTED || looks_like_task(path)))
            .or(monitor);
        let messages = view.at("error").parts("@Message.ExtendedInfo").into_iter();
        let messages: Vec<Message> = messages.chain(view.parts("@Message.ExtendedInfo")).collect();
        let unattended = reply.status == StatusCode::ACCEPTED && task.is_none();
        crate::Accepted { task, after_reset: false, unattended, messages }
    }
}

fn looks_like_task(path: &ResourcePath) -> bool {
    let path = path.as_str();
    path.contains("/Tasks/") || path.contains("/Jobs/") || path.contains("/TaskMonitors/")
}
