//! Logs.

use super::Client;
use crate::error::Result;
use crate::json::{Read, View};
use crate::model::{LogEntry, LogService, Manager, ResourcePath, System};
use serde_json::json;

/// Entries read of one log to find the newest: services disagree on which end is first.
const READ: usize = 10_000;

impl Client {
    pub(super) async fn logs_of(&self, system: &ResourcePath) -> Result<Vec<LogService>> {
        let system: System = self.read(system).await?;
        let mut found: Vec<LogService> = self.optional_collection(system.log_services.as_ref()).await?;
        let managers: Vec<Manager> = self.linked(&system.managers).await?;
        for manager in managers {
            found.extend(self.optional_collection::<LogService>(manager.log_services.as_ref()).await?);
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|log| seen.insert(log.entries.clone()));
        Ok(found)
    }

    pub(super) async fn entries_of(&self, log: &LogService, limit: usize) -> Result<Vec<LogEntry>> {
        let Some(path) = &log.entries else { return Ok(Vec::new()) };
        // Entries come with the collection nearly everywhere; those that are links are read one by one, as few as are wanted.
        let mut all = Vec::new();
        for member in self.pages(path, READ).await? {
            let entry = LogEntry::read(View(&member));
            all.push(entry);
        }
        // Stable: those without a time keep the service's order.
        all.sort_by_key(|entry| std::cmp::Reverse(entry.created));
        all.truncate(limit);
        for entry in &mut all {
            if entry.message.is_none() && entry.message_id.is_none() && !entry.path.is_empty() {
                *entry = self.read(&entry.path.clone()).await?;
            }
        }
        all.sort_by_key(|entry| std::cmp::Reverse(entry.created));
        Ok(all)
    }

    pub(super) async fn clear(&self, log: &LogService) -> Result<()> {
        let action = self.need(log.clear.as_ref(), "clearing this log")?;
        self.post(&action.target, json!({})).await?;
        Ok(())
    }
}
