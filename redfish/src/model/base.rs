//! What every resource has.

use super::model;
use super::words::{Health, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a resource is within its service, `/redfish/v1/…`, perhaps with a JSON pointer (`#/Fans/0`). Never another host: a link
/// elsewhere is not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourcePath(String);

impl ResourcePath {
    pub const ROOT: &str = "/redfish/v1/";

    /// None: not a path within a Redfish service. A full URL (some BMCs give one in `Location`) loses its host.
    pub fn new(text: &str) -> Option<Self> {
        let path = match text.split_once("://") {
            Some(("http" | "https", rest)) => rest.find('/').map(|at| &rest[at..])?,
            Some(_) => return None,
            None => text,
        };
        // Update images go to paths of the vendor's own (iDRAC: /api, Supermicro: /redfish), so the prefix is not demanded.
        let fits = path.starts_with('/')
            && !path.starts_with("//")
            && path.len() <= 2048
            && path.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(path.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last segment: most services use the resource's Id.
    pub fn last(&self) -> &str {
        self.0.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// A resource below this one.
    pub fn join(&self, below: &str) -> Self {
        Self(format!("{}/{}", self.0.trim_end_matches('/'), below.trim_start_matches('/')))
    }

    /// The document, and the pointer within it where there is one.
    pub(crate) fn split_pointer(&self) -> (&str, Option<&str>) {
        match self.0.split_once('#') {
            Some((document, pointer)) => (document, Some(pointer)),
            None => (&self.0, None),
        }
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A POST target and the values its parameters may have, as far as the service says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Action {
    pub target: ResourcePath,
    pub allowed: BTreeMap<String, Vec<String>>,
    /// Where the service describes the parameters instead.
    pub info: Option<ResourcePath>,
}

model! {
    /// How a thing is.
    Status {
        state: Option<State> = word("State"),
        health: Option<Health> = word("Health"),
        /// With all that is below it.
        health_rollup: Option<Health> = word("HealthRollup"),
    }

    /// Where a thing is. Racks and slots, as far as somebody entered them.
    Location {
        info: Option<String> = text("Info"),
        rack: Option<String> = text("Placement>Rack|PostalAddress>Rack"),
        row: Option<String> = text("Placement>Row"),
        rack_offset: Option<u64> = whole("Placement>RackOffset"),
        label: Option<String> = text("PartLocation>ServiceLabel"),
        slot: Option<u64> = whole("PartLocation>LocationOrdinalValue"),
        building: Option<String> = text("PostalAddress>Building"),
        room: Option<String> = text("PostalAddress>Room"),
    }

    /// What a service says about a request or a task.
    Message {
        id: Option<String> = text("MessageId|MessageID"),
        text: Option<String> = text("Message"),
        severity: Option<Health> = word("MessageSeverity|Severity"),
        resolution: Option<String> = text("Resolution"),
        args: Vec<String> = texts("MessageArgs"),
        related: Vec<String> = texts("RelatedProperties"),
    }
}

impl Status {
    /// The slot is there, the thing is not.
    pub fn is_absent(&self) -> bool {
        self.state == Some(State::Absent)
    }

    /// The worst that is said.
    pub fn worst(&self) -> Option<&Health> {
        let rank = |health: &&Health| match health {
            Health::Critical => 3,
            Health::Warning => 2,
            Health::Other(_) => 1,
            Health::Ok => 0,
        };
        [&self.health, &self.health_rollup].into_iter().flatten().max_by_key(rank)
    }
}
