//! Virtual media.

use super::Client;
use crate::bmc::Accepted;
use crate::error::{Cause, Result};
use crate::model::{Manager, ResourcePath, System, VirtualMedia};
use crate::quirks::Quirk;
use serde_json::json;

impl Client {
    /// Since 2020.3 they are the system's; before, the manager's; some show them in both places.
    pub(super) async fn media_of(&self, system: &System, managers: &[Manager]) -> Result<Vec<VirtualMedia>> {
        let mut places: Vec<&ResourcePath> = system.virtual_media.iter().collect();
        for manager in managers {
            places.extend(&manager.virtual_media);
        }
        for place in places {
            let found: Vec<VirtualMedia> = self.optional_collection(Some(place)).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn slots(&self, system: &ResourcePath) -> Result<Vec<VirtualMedia>> {
        let system: System = self.read(system).await?;
        let managers: Vec<Manager> = self.linked(&system.managers).await?;
        self.media_of(&system, &managers).await
    }

    pub(super) async fn insert(&self, slot: &VirtualMedia, image: &str) -> Result<Accepted> {
        let by_patch = self.has(Quirk::MediaByPatch).await?;
        match &slot.insert {
            Some(action) if !by_patch => {
                let body = json!({"Image": image, "Inserted": true, "WriteProtected": true});
                let reply = match self.post(&action.target, body).await {
                    // The two flags have defaults, and some services refuse to be told them.
                    Err(error) if matches!(error.cause, Cause::Rejected { status: 400, .. }) => {
                        self.post(&action.target, json!({"Image": image})).await?
                    }
                    other => other?,
                };
                Ok(self.accepted(&reply))
            }
            _ if by_patch => {
                let tagged = self.tagged(&slot.path).await?;
                let body = json!({"Image": image, "Inserted": true, "WriteProtected": true});
                let reply = self.patch(&tagged, body).await?;
                Ok(self.accepted(&reply))
            }
            _ => Err(self.fail(Cause::Unsupported { what: format!("inserting media at {}", slot.path) })),
        }
    }

    pub(super) async fn eject(&self, slot: &VirtualMedia) -> Result<Accepted> {
        let by_patch = self.has(Quirk::MediaByPatch).await?;
        let reply = match &slot.eject {
            Some(action) if !by_patch => self.post(&action.target, json!({})).await?,
            _ if by_patch => {
                let tagged = self.tagged(&slot.path).await?;
                self.patch(&tagged, json!({"Image": null, "Inserted": false})).await?
            }
            _ => {
                return Err(
                    self.fail(Cause::Unsupported { what: format!("ejecting media at {}", slot.path) })
                );
            }
        };
        Ok(self.accepted(&reply))
    }
}
