//! eAPI: `runCmds` in JSON-RPC 2.0 at `/command-api`. A list of commands is carried out in order up to the first that fails; the
//! answer then has what the ones before it said.

use crate::drivers::http::{Http, Method, Repeat, Request, StatusCode};
use crate::error::{Cause, Result, SwitchError};
use serde_json::{Value, json};

pub(super) struct Eapi {
    pub(super) http: Http,
}

impl Eapi {
    /// Answers of `commands`, one each.
    pub(super) async fn show(&self, commands: &[&str]) -> Result<Vec<Value>> {
        self.run(commands.iter().map(|c| (*c).to_owned()).collect(), Repeat::Policy).await
    }

    pub(super) async fn configure(&self, commands: &[String]) -> Result<()> {
        self.run(commands.to_vec(), Repeat::Policy).await.map(drop)
    }

    /// For what may not be done twice.
    pub(super) async fn configure_once(&self, commands: &[String]) -> Result<()> {
        self.run(commands.to_vec(), Repeat::Never).await.map(drop)
    }

    async fn run(&self, commands: Vec<String>, repeat: Repeat) -> Result<Vec<Value>> {
        let what = commands.last().cloned().unwrap_or_default();
        // Privileged mode, for users who do not log in to it.
        let all: Vec<&str> = std::iter::once("enable").chain(commands.iter().map(String::as_str)).collect();
        let body = json!({
            "jsonrpc": "2.0",
            "method": "runCmds",
            "params": {"version": 1, "cmds": all, "format": "json"},
            "id": "basalt",
        });
        let mut request = Request::new(Method::POST, "/command-api").named(what.clone()).body(body);
        request.repeat = repeat;
        let reply = self.http.send(request).await?;
        if reply.status != StatusCode::OK {
            let reason = format!("status {} (is eAPI enabled? `management api http-commands`)", reply.status);
            return Err(self.http.nonsense(&what, reason));
        }
        let mut answer = self.http.parse(&reply)?;
        if let Some(error) = answer.get("error") {
            return Err(self.refused(error, &all));
        }
        match answer.get_mut("result").map(Value::take).unwrap_or_default() {
            Value::Array(mut results) if results.len() == all.len() => {
                results.remove(0);
                Ok(results)
            }
            Value::Array(results) => {
                let reason = format!("{} answers to {} commands", results.len(), all.len());
                Err(self.http.nonsense(&what, reason))
            }
            _ => Err(self.http.nonsense(&what, "no result and no error")),
        }
    }

    /// `data` has what each command up to the failed one said; the failed one's entry has `errors`.
    fn refused(&self, error: &Value, commands: &[&str]) -> SwitchError {
        let data = error["data"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = data.iter().position(|entry| entry.get("errors").is_some());
        let index = failed.unwrap_or_else(|| data.len().saturating_sub(1));
        let path = commands.get(index).copied().unwrap_or("the request").to_owned();
        let words = |key: &str| -> Vec<&str> {
            let list = failed.and_then(|at| data[at][key].as_array());
            list.into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let message = error["message"].as_str().unwrap_or_default();
        let errors = words("errors").join("; ");
        let reason = self.http.quote(if errors.is_empty() { message } else { &errors });
        let small = reason.to_lowercase();
        let user = self.http.connection.user.clone();
        self.http.fail(match error["code"].as_i64() {
            // 1005: not authorised for the command; some versions say it in words under 1002.
            Some(1005) => Cause::Forbidden { user, request: path },
            _ if small.contains("permission denied") || small.contains("authorization denied") => {
                Cause::Forbidden { user, request: path }
            }
            // 1004: the command does not exist in the asked version of the API.
            Some(1004) => Cause::VersionMismatch {
                found: format!("an EOS that says '{reason}' to '{path}'"),
                needed: "version 1 of eAPI".to_owned(),
            },
            _ if small.contains("pending commit timer") || small.contains("config lock") => {
                Cause::Locked { held_by: format!("another configuration session ({reason})") }
            }
            _ => Cause::Rejected { path, reason },
        })
    }
}
