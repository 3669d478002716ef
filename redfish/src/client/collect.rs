//! Collections: members by `$expand` where it is offered and right, else one by one; over pages; bounded.

use super::Client;
use crate::error::{Cause, RedfishError, Result};
use crate::json::{Read, View};
use crate::model::ResourcePath;
use crate::quirks::Quirk;
use serde_json::Value;

/// Pages of one collection.
const PAGES: usize = 1024;

/// The members of a collection, and those that could not be read.
pub(super) struct Members {
    pub(super) read: Vec<Value>,
    pub(super) failed: Vec<(ResourcePath, RedfishError)>,
}

impl Members {
    /// All of them, or the first error. A member that is gone by now is no error.
    pub(super) fn all(self) -> Result<Vec<Value>> {
        let failed = self.failed.into_iter().map(|(_, error)| error);
        match failed.into_iter().find(|error| !matches!(error.cause, Cause::NotFound { .. })) {
            Some(error) => Err(error),
            None => Ok(self.read),
        }
    }
}

impl Client {
    /// The members, typed; an error if one of them cannot be read.
    pub(super) async fn collection<T: Read>(&self, path: Option<&ResourcePath>) -> Result<Vec<T>> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let members = self.members(path).await?.all()?;
        Ok(members.iter().map(|json| T::read(View(json))).collect())
    }

    /// Each link, typed; an error if one of them cannot be read.
    pub(super) async fn linked<T: Read>(&self, links: &[ResourcePath]) -> Result<Vec<T>> {
        let members = self.each(links.to_vec()).await.all()?;
        Ok(members.iter().map(|json| T::read(View(json))).collect())
    }

    /// The first member, to look at.
    pub(super) async fn first_of<T: Read>(&self, path: Option<&ResourcePath>) -> Result<Option<T>> {
        let Some(path) = path else { return Ok(None) };
        let json = self.get(path).await?;
        match View(&json).links("Members").first() {
            Some(first) => self.read(first).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads a collection to its end.
    pub(super) async fn members(&self, path: &ResourcePath) -> Result<Members> {
        let whole = self.pages(path, usize::MAX).await?;
        let mut links = Vec::new();
        let mut read = Vec::new();
        for member in whole {
            match bare_link(&member) {
                Some(link) => links.push(link),
                None => read.push(member),
            }
        }
        let mut members = self.each(links).await;
        members.read.splice(0..0, read);
        Ok(members)
    }

    /// What stands in the collection itself: links, or members where they come with it. At most `enough`.
    pub(super) async fn pages(&self, path: &ResourcePath, enough: usize) -> Result<Vec<Value>> {
        if self.expands().await? {
            let mark = if path.as_str().contains('?') { '&' } else { '?' };
            let expanded = ResourcePath::new(&format!("{path}{mark}$expand=.($levels=1)"));
            let result = self.pages_plainly(&expanded.unwrap_or_default(), enough).await;
            // Offered, and not for this one; or all members together are too much.
            let refused = result.as_ref().is_err_and(|error| {
                use Cause::{BadReply, NotFound, Rejected, ReplyTooLarge, ServerError, Unsupported};
                let cause = &error.cause;
                matches!(cause, Rejected { .. } | ServerError { .. } | Unsupported { .. })
                    || matches!(cause, BadReply { .. } | NotFound { .. } | ReplyTooLarge { .. })
            });
            if !refused {
                return result;
            }
        }
        self.pages_plainly(path, enough).await
    }

    async fn pages_plainly(&self, path: &ResourcePath, enough: usize) -> Result<Vec<Value>> {
        let limit = self.http().connection.limits.members;
        let too_many = || {
            let request = format!("GET {path}");
            self.fail(Cause::TooManyMembers { request, limit })
        };
        let mut found = Vec::new();
        let mut next = Some(path.clone());
        let mut seen = std::collections::BTreeSet::new();
        while let Some(page) = next.take() {
            if seen.len() >= PAGES {
                return Err(too_many());
            }
            if !seen.insert(page.clone()) {
                return Err(self.http().nonsense(&format!("GET {path}"), "its pages go in a circle"));
            }
            let mut json = self.get(&page).await?;
            next = View(&json).link("Members@odata.nextLink|@odata.nextLink|Members@odata.nextlink");
            let members = match json.get_mut("Members").map(Value::take) {
                Some(Value::Array(members)) => members,
                // A resource where a collection is meant (some have one boot option without a collection).
                _ => Vec::new(),
            };
            found.extend(members.into_iter().filter(Value::is_object));
            if found.len() >= enough {
                found.truncate(enough);
                break;
            }
            if found.len() > limit {
                return Err(too_many());
            }
        }
        Ok(found)
    }

    /// Reads each link. A BMC that is gone is not asked for all the others.
    pub(super) async fn each(&self, links: Vec<ResourcePath>) -> Members {
        let mut members = Members { read: Vec::new(), failed: Vec::new() };
        let mut gone: Option<RedfishError> = None;
        for link in links.into_iter().take(self.http().connection.limits.members) {
            if let Some(error) = &gone {
                members.failed.push((link, error.clone()));
                continue;
            }
            match self.get(&link).await {
                Ok(json) => members.read.push(json),
                Err(error) => {
                    if error.cause.is_transient() || error.cause.needs_operator() {
                        gone = Some(error.clone());
                    }
                    members.failed.push((link, error));
                }
            }
        }
        members
    }

    async fn expands(&self) -> Result<bool> {
        let offered = self.root().await?.service.expand.as_ref().is_some_and(|expand| {
            (expand.no_links == Some(true) || expand.all == Some(true)) && expand.levels == Some(true)
        });
        Ok(offered && !self.has(Quirk::ExpandBroken).await?)
    }
}

/// A member that is nothing but its link.
fn bare_link(member: &Value) -> Option<ResourcePath> {
    let object = member.as_object()?;
    let bare = object.keys().all(|key| key.starts_with('@') || key == "href");
    bare.then(|| View(member).path()).filter(|path| !path.is_empty())
}
