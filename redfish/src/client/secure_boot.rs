//! Secure boot and its key databases.

use super::Client;
use crate::bmc::Accepted;
use crate::error::{Cause, Result};
use crate::model::{ResourcePath, SecureBoot, SecureBootDatabase, System};
use serde_json::json;

impl Client {
    async fn secure_boot_path(&self, system: &ResourcePath) -> Result<ResourcePath> {
        let system: System = self.read(system).await?;
        self.need(system.secure_boot, "secure boot")
    }

    pub(super) async fn secure_boot_of(&self, system: &ResourcePath) -> Result<SecureBoot> {
        let path = self.secure_boot_path(system).await?;
        self.read(&path).await
    }

    pub(super) async fn change_secure_boot(&self, system: &ResourcePath, enabled: bool) -> Result<Accepted> {
        let tagged = self.tagged(&self.secure_boot_path(system).await?).await?;
        let reply = self.patch(&tagged, json!({ "SecureBootEnable": enabled })).await?;
        Ok(Accepted { after_reset: true, ..self.accepted(&reply) })
    }

    pub(super) async fn databases_of(&self, system: &ResourcePath) -> Result<Vec<SecureBootDatabase>> {
        let secure_boot = self.secure_boot_of(system).await?;
        self.collection(secure_boot.databases.as_ref()).await
    }

    pub(super) async fn enrol(&self, system: &ResourcePath, database: &str, pem: &str) -> Result<Accepted> {
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            let reason = "this is no certificate in PEM".to_owned();
            return Err(self.fail(Cause::Settings { what: "secure boot key".to_owned(), reason }));
        }
        let all = self.databases_of(system).await?;
        let found = all.into_iter().find(|one| {
            let id = one.id.as_deref().unwrap_or(one.path.last());
            id.eq_ignore_ascii_case(database)
        });
        let certificates = found.and_then(|found| found.certificates);
        let certificates =
            self.need(certificates, &format!("enrolling keys into the database {database}"))?;
        let body = json!({"CertificateString": pem, "CertificateType": "PEM"});
        let reply = self.post(&certificates, body).await?;
        Ok(Accepted { after_reset: true, ..self.accepted(&reply) })
    }

    pub(super) async fn reset_keys(&self, system: &ResourcePath, kind: &str) -> Result<Accepted> {
        let secure_boot = self.secure_boot_of(system).await?;
        let action = self.need(secure_boot.reset_keys, "resetting secure boot keys")?;
        let reply = self.post(&action.target, json!({ "ResetKeysType": kind })).await?;
        Ok(Accepted { after_reset: true, ..self.accepted(&reply) })
    }
}
