//! Sessions (DSP0266 "Redfish session login authentication"): one per client, made when it is first needed, made anew when the BMC
//! has forgotten it, ended by [`close`](crate::Bmc::close).

use super::Client;
use crate::connection::Auth;
use crate::error::{Cause, Result};
use crate::http::{Body, Method, Proof, Request};
use crate::json::View;
use crate::model::ResourcePath;
use basalt_trust::Secret;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Login<'a> {
    #[serde(rename = "UserName")]
    user: &'a str,
    password: &'a str,
}

#[derive(Default)]
pub(super) enum Session {
    #[default]
    NotYet,
    Open {
        token: Secret,
        path: Option<ResourcePath>,
    },
    /// The service has no sessions, or basic authentication was asked for.
    Basic,
}

impl Client {
    /// How the next request proves who we are.
    pub(super) async fn proof(&self) -> Result<Proof> {
        let mut session = self.0.session.lock().await;
        if let Session::NotYet = *session {
            *session = self.log_in().await?;
        }
        Ok(match &*session {
            Session::Open { token, .. } => Proof::Token(token.clone()),
            _ => Proof::Basic,
        })
    }

    /// The BMC refused `used`: whether there is another proof to try. A password is never tried twice: BMCs lock accounts.
    pub(super) async fn forget(&self, used: &Proof) -> bool {
        let Proof::Token(refused) = used else { return false };
        let mut session = self.0.session.lock().await;
        // Another request may have logged in anew meanwhile.
        if matches!(&*session, Session::Open { token, .. } if token == refused) {
            *session = Session::NotYet;
        }
        true
    }

    async fn log_in(&self) -> Result<Session> {
        let connection = &self.0.http.connection;
        if connection.auth == Auth::Basic {
            return Ok(Session::Basic);
        }
        let service = &Box::pin(self.root()).await?.service;
        let sessions = service.sessions.clone();
        let sessions = sessions.or_else(|| service.session_service.as_ref().map(|s| s.join("Sessions")));
        let Some(sessions) = sessions else {
            return match connection.auth {
                Auth::Session => Err(self.fail(Cause::Unsupported { what: "sessions".to_owned() })),
                _ => Ok(Session::Basic),
            };
        };
        let credentials = &connection.credentials;
        let login = Login { user: &credentials.user, password: credentials.password.expose() };
        let mut request = Request::new(Method::POST, sessions.as_str());
        request.body = Body::secret(&login);
        let mut result = self.send_with(&request, &Proof::None).await;
        // A session whose answer was lost ends by itself: unlike other changes this one may be made again.
        for _ in 1..connection.limits.attempts {
            if !result.as_ref().is_err_and(|error| matches!(error.cause, Cause::Unknown { .. })) {
                break;
            }
            result = self.send_with(&request, &Proof::None).await;
        }
        let reply = match result {
            Ok(reply) => reply,
            // Sessions switched off, or all of them taken: the password itself still serves.
            Err(error)
                if connection.auth == Auth::Auto
                    && matches!(
                        error.cause,
                        Cause::NotFound { .. } | Cause::Unsupported { .. } | Cause::SessionLimit
                    ) =>
            {
                return Ok(Session::Basic);
            }
            Err(error) => return Err(error),
        };
        let token = reply.headers.get("X-Auth-Token").and_then(|token| token.to_str().ok());
        let Some(token) = token.map(Secret::new) else {
            return Err(self.0.http.nonsense(&request.what(), "a session without X-Auth-Token"));
        };
        let located = reply.header(hyper::header::LOCATION).and_then(ResourcePath::new);
        let path = located.or_else(|| {
            let json: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
            Some(View(&json).path()).filter(|path| !path.is_empty())
        });
        Ok(Session::Open { token, path })
    }

    pub(super) async fn log_out(&self) {
        let session = std::mem::take(&mut *self.0.session.lock().await);
        if let Session::Open { token, path: Some(path) } = session {
            let request = Request::new(Method::DELETE, path.as_str());
            // It ends by itself if this is lost.
            let ended = self.0.http.exchange(&request, &Proof::Token(token)).await;
            tracing::debug!(bmc = %self.0.http.endpoint, ok = ended.is_ok(), "logged out");
        }
        self.0.http.disconnect().await;
    }
}
