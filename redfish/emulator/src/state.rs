//! What a BMC remembers.

use crate::deviation::Deviation;
use crate::emulator::Options;
use crate::tree::Tree;
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Requests remembered for [`Emulator::seen`](crate::Emulator::seen).
const SEEN: usize = 10_000;

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub body: Value,
    pub if_match: Option<String>,
    pub status: u16,
}

/// A boot of the server, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub system: String,
    /// `BootSourceOverrideTarget`, `None` for the boot order.
    pub target: String,
    pub mode: String,
    /// For UefiHttp.
    pub uri: Option<String>,
    /// Images in the virtual media.
    pub media: Vec<String>,
}

pub(crate) struct State {
    tree: Arc<Tree>,
    /// What differs from the tree; None: removed.
    changed: BTreeMap<String, Option<Value>>,
    pub(crate) options: Options,
    /// Token to session path.
    pub(crate) sessions: BTreeMap<String, String>,
    pub(crate) passwords: BTreeMap<String, String>,
    pub(crate) wrong_passwords: usize,
    pub(crate) locked: bool,
    pub(crate) seen: VecDeque<Seen>,
    pub(crate) boots: Vec<Boot>,
    pub(crate) requests: usize,
    pub(crate) connections: Connections,
    pub(crate) tasks: BTreeMap<String, RunningTask>,
    /// Servers that turn on (or off) when this moment comes.
    pub(crate) switching: Vec<(Instant, String, bool)>,
    /// BIOS settings that come into force at the next boot.
    pub(crate) armed_bios: BTreeSet<String>,
    pub(crate) tagged_once: BTreeSet<String>,
    pub(crate) changes: u64,
    pub(crate) gone_until: Option<Instant>,
    streams: Vec<mpsc::Sender<Bytes>>,
    next: u64,
    /// Ends every connection when it changes.
    pub(crate) end: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Connections {
    pub(crate) now: usize,
    pub(crate) most: usize,
}

/// A task and what it does when it is done.
pub(crate) struct RunningTask {
    pub(crate) began: Instant,
    pub(crate) effects: Vec<(String, String, Value)>,
    pub(crate) fails: Option<String>,
}

impl State {
    pub(crate) fn new(tree: Arc<Tree>, options: Options) -> Self {
        let passwords = BTreeMap::from([(options.user.clone(), options.password.clone())]);
        Self {
            tree,
            changed: BTreeMap::new(),
            options,
            sessions: BTreeMap::new(),
            passwords,
            wrong_passwords: 0,
            locked: false,
            seen: VecDeque::new(),
            boots: Vec::new(),
            requests: 0,
            connections: Connections::default(),
            tasks: BTreeMap::new(),
            switching: Vec::new(),
            armed_bios: BTreeSet::new(),
            tagged_once: BTreeSet::new(),
            changes: 0,
            gone_until: None,
            streams: Vec::new(),
            next: 1,
            end: watch::Sender::new(0),
        }
    }

    pub(crate) fn deviates(&self, deviation: Deviation) -> bool {
        self.options.deviations.contains(&deviation)
    }

    pub(crate) fn metadata(&self) -> String {
        self.tree.metadata_text()
    }

    pub(crate) fn resource(&self, path: &str) -> Option<&Value> {
        match self.changed.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.tree.resources.get(path),
        }
    }

    pub(crate) fn resource_mut(&mut self, path: &str) -> Option<&mut Value> {
        if !self.changed.contains_key(path) {
            let copy = self.tree.resources.get(path)?.clone();
            self.changed.insert(path.to_owned(), Some(copy));
        }
        let resource = self.changed.get_mut(path)?.as_mut()?;
        // A tree may be spoilt on purpose; what is changed in it is an object from then on.
        if !resource.is_object() {
            *resource = json!({});
        }
        Some(resource)
    }

    pub(crate) fn insert(&mut self, path: &str, mut resource: Value) {
        resource["@odata.id"] = path.into();
        self.changed.insert(path.to_owned(), Some(resource));
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.changed.insert(path.to_owned(), None);
    }

    /// Paths right below `path`, as its members.
    pub(crate) fn add_member(&mut self, collection: &str, path: &str) {
        if let Some(collection) = self.resource_mut(collection) {
            if let Some(members) = collection["Members"].as_array_mut() {
                members.push(json!({ "@odata.id": path }));
            }
            let count = collection["Members"].as_array().map_or(0, Vec::len);
            collection["Members@odata.count"] = json!(count);
        }
    }

    pub(crate) fn remove_member(&mut self, path: &str) {
        self.remove(path);
        let collection = path.rsplit_once('/').map_or("", |(collection, _)| collection).to_owned();
        if let Some(collection) = self.resource_mut(&collection) {
            if let Some(members) = collection["Members"].as_array_mut() {
                members.retain(|member| member["@odata.id"] != path);
            }
            let count = collection["Members"].as_array().map_or(0, Vec::len);
            collection["Members@odata.count"] = json!(count);
        }
    }

    /// A number that was not used yet.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn note(&mut self, seen: Seen) {
        self.requests += 1;
        self.seen.push_back(seen);
        if self.seen.len() > SEEN {
            self.seen.pop_front();
        }
    }

    /// The resource of a type that is below `prefix`, the first.
    pub(crate) fn find(&self, prefix: &str, kind: &str) -> Option<String> {
        let marker = format!("#{kind}.");
        let is = |value: &Value| value["@odata.type"].as_str().is_some_and(|t| t.starts_with(&marker));
        let tree = self.tree.resources.iter().filter(|(path, _)| !self.changed.contains_key(*path));
        let changed =
            self.changed.iter().filter_map(|(path, value)| value.as_ref().map(|value| (path, value)));
        let mut all: Vec<&String> = tree
            .chain(changed)
            .filter(|(path, value)| path.starts_with(prefix) && is(value))
            .map(|(path, _)| path)
            .collect();
        all.sort();
        all.first().map(|path| (*path).clone())
    }

    pub(crate) fn end_sessions(&mut self) {
        for path in std::mem::take(&mut self.sessions).into_values() {
            self.remove_member(&path);
        }
    }

    pub(crate) fn open_stream(&mut self) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(64);
        sender.try_send(Bytes::from_static(b": connected\n\n")).ok();
        self.streams.push(sender);
        receiver
    }

    pub(crate) fn emit(&mut self, kind: &str, message: &str, severity: &str, origin: Option<&str>) {
        let id = self.fresh();
        let mut record = json!({
            "@odata.type": "#Event.v1_7_0.EventRecord",
            "MemberId": "0",
            "EventId": id.to_string(),
            "EventType": kind,
            "EventTimestamp": "2026-01-01T00:00:00Z",
            "Severity": severity,
            "MessageSeverity": severity,
            "Message": message,
            "MessageId": "ResourceEvent.1.3.ResourceStatusChangedOK",
        });
        if let Some(origin) = origin {
            record["OriginOfCondition"] = json!({ "@odata.id": origin });
        }
        let event = json!({
            "@odata.type": "#Event.v1_7_0.Event", "Id": id.to_string(), "Name": "Event", "Events": [record],
        });
        let text = Bytes::from(format!("id: {id}\ndata: {event}\n\n"));
        // A stream that does not read loses events.
        self.streams.retain(|stream| {
            !matches!(stream.try_send(text.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    /// Ends everything that is open.
    pub(crate) fn stop(&mut self) {
        self.streams.clear();
        self.end.send_modify(|count| *count += 1);
    }
}
