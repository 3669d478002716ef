//! Accounts, the manager's own settings, its restart.

use super::Client;
use crate::credentials::Credentials;
use crate::error::{Cause, Result};
use crate::http::Body;
use crate::json::{Read, View};
use crate::model::{Account, Manager, ResetType, ResourcePath};
use basalt_trust::Secret;
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
struct NewAccount<'a> {
    #[serde(rename = "UserName")]
    user: &'a str,
    #[serde(rename = "Password")]
    password: &'a str,
    #[serde(rename = "RoleId")]
    role: &'a str,
    #[serde(rename = "Enabled")]
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewPassword<'a> {
    password: &'a str,
}

impl Client {
    async fn accounts_path(&self) -> Result<ResourcePath> {
        let path = self.root().await?.service.account_service.clone();
        let path = self.need(path, "an account service")?;
        let json = self.get(&path).await?;
        self.need(View(&json).link("Accounts"), "accounts")
    }

    pub(super) async fn all_accounts(&self) -> Result<Vec<Account>> {
        let path = self.accounts_path().await?;
        let all: Vec<Account> = self.collection(Some(&path)).await?;
        // iDRACs show every slot; those without a name are free.
        Ok(all.into_iter().filter(|account| account.user.is_some()).collect())
    }

    pub(super) async fn new_account(&self, credentials: &Credentials, role: &str) -> Result<Account> {
        let path = self.accounts_path().await?;
        let body = Body::secret(&NewAccount {
            user: &credentials.user,
            password: credentials.password.expose(),
            role,
            enabled: true,
        });
        let reply = match self.post_body(&path, body.clone()).await {
            // Fixed slots: a free one is filled.
            Err(error)
                if matches!(
                    error.cause,
                    Cause::Unsupported { .. } | Cause::Rejected { status: 405 | 400, .. }
                ) =>
            {
                return self.fill_slot(&path, body).await?.ok_or(error);
            }
            other => other?,
        };
        let json: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let account = Account::read(View(&json));
        match reply.header(hyper::header::LOCATION).and_then(ResourcePath::new) {
            Some(path) if account.user.is_none() => self.read(&path).await,
            _ => Ok(account),
        }
    }

    async fn fill_slot(&self, path: &ResourcePath, body: Body) -> Result<Option<Account>> {
        let slots: Vec<Account> = self.collection(Some(path)).await?;
        // The first slot of an iDRAC is reserved and takes nothing.
        let free = slots.iter().find(|slot| slot.user.is_none() && slot.path.last() != "1");
        let Some(free) = free else { return Ok(None) };
        let etag = self.tagged(&free.path).await?.etag;
        self.patch_at(&free.path, etag, body).await?;
        self.read(&free.path).await.map(Some)
    }

    /// Our own password changes with it: later requests of this client go by what they have, and the session stays.
    pub(super) async fn change_password(&self, account: &ResourcePath, password: &Secret) -> Result<()> {
        let body = Body::secret(&NewPassword { password: password.expose() });
        self.patch_at(account, None, body).await?;
        Ok(())
    }

    pub(super) async fn restart_manager(&self, path: &ResourcePath) -> Result<()> {
        let manager: Manager = self.read(path).await?;
        let reset = self.need(manager.reset, "resetting this manager")?;
        let wanted = [ResetType::GracefulRestart, ResetType::ForceRestart];
        match self.reset_by(&reset, &wanted, "restarting").await {
            // It went down before it could answer: that is what was asked for.
            Err(error) if matches!(error.cause, Cause::Unknown { .. }) => Ok(()),
            other => other,
        }
    }
}
