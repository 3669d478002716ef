//! What has to change on one switch: an ordered list of typed changes, to be shown, applied and taken back.

use crate::desired::Desired;
use crate::error::Cause;
use crate::names::DeviceName;
use crate::state::{FieldChange, Key, Kind, Object, Owner, Port, SwitchState};
use crate::switch::Capabilities;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

/// One object made, changed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    Create {
        after: Object,
    },
    /// `fields` are those that differ; what `after` leaves unsaid stays as it is.
    Update {
        before: Object,
        after: Object,
        fields: Vec<FieldChange>,
    },
    Delete {
        before: Object,
    },
}

impl Change {
    /// The object concerned: as it will be, or as it was where it goes.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create { after } | Self::Update { after, .. } => after,
            Self::Delete { before } => before,
        }
    }

    pub fn key(&self) -> Key {
        self.object().key()
    }

    /// Whether a driver has to say this field: all of what comes or goes, of what stays only what differs.
    pub fn says(&self, field: &str) -> bool {
        match self {
            Self::Update { fields, .. } => fields.iter().any(|f| f.field == field),
            Self::Create { .. } | Self::Delete { .. } => true,
        }
    }

    fn update(before: Object, after: Object) -> Self {
        let fields = before.differences(&after);
        Self::Update { before, after, fields }
    }

    /// The change that takes this one back.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Create { after } => Self::Delete { before: after },
            Self::Update { before, after, .. } => Self::update(after, before),
            Self::Delete { before } => Self::Create { after: before },
        }
    }

    /// `+`, `~` or `-`, as the first character of its line.
    pub fn sign(&self) -> char {
        match self {
            Self::Create { .. } => '+',
            Self::Update { .. } => '~',
            Self::Delete { .. } => '-',
        }
    }

    /// Deletions first, from what hangs on others to what they hang on; then the rest the other way round.
    fn rank(&self) -> (bool, Reverse<Option<Kind>>, Option<Kind>) {
        let kind = Some(self.object().kind());
        match self {
            Self::Delete { .. } => (false, Reverse(kind), None),
            _ => (true, Reverse(None), kind),
        }
    }
}

/// One line: `~ port Ethernet12: mtu_bytes 1500 -> 9100`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        write!(f, "{} {key}", self.sign())?;
        let parts: Vec<String> = match self {
            Self::Update { fields, .. } => {
                fields.iter().map(|c| format!("{} {} -> {}", c.field, c.before, c.after)).collect()
            }
            Self::Create { after: object } | Self::Delete { before: object } => {
                let in_key = |value: &str| key.name.split(' ').any(|word| word == value);
                let fields = object.fields().into_iter().filter(|(_, value)| !in_key(value));
                fields.map(|(field, value)| format!("{field} {value}")).collect()
            }
        };
        if parts.is_empty() { Ok(()) } else { write!(f, ": {}", parts.join(", ")) }
    }
}

/// Everything that has to change on one switch, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub switch: DeviceName,
    pub changes: Vec<Change>,
    /// What the intent wants and belongs to someone else. A plan with refusals is shown and not applied.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// What the switch cannot do and was left out of the plan, and what is left to a person.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// An object that is there and not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub object: Key,
    pub reason: String,
}

impl Refusal {
    pub fn cause(&self) -> Cause {
        Cause::NotOwned { object: self.object.to_string(), reason: self.reason.clone() }
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.refusals.is_empty()
    }

    /// The way back, in the opposite order.
    pub fn inverse(&self) -> Self {
        let changes = self.changes.iter().rev().map(Change::inverse).collect();
        Self { switch: self.switch.clone(), changes, refusals: Vec::new(), notes: Vec::new() }
    }

    /// The part to be applied before the rest is planned anew: breakouts alone, where there are any, since they delete and make
    /// ports.
    pub fn first_stage(&self) -> Self {
        let alone = |c: &&Change| c.object().kind() == Kind::Breakout;
        let breakouts: Vec<Change> = self.changes.iter().filter(alone).cloned().collect();
        if breakouts.is_empty() { self.clone() } else { Self { changes: breakouts, ..self.clone() } }
    }
}

/// The diff for people; colours are the command line's.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "{}: as wanted", self.switch);
        }
        writeln!(f, "{}:", self.switch)?;
        for change in &self.changes {
            writeln!(f, "  {change}")?;
        }
        for refusal in &self.refusals {
            writeln!(f, "  ! {}", refusal.cause())?;
        }
        for note in &self.notes {
            writeln!(f, "  # {note}")?;
        }
        Ok(())
    }
}

/// What turns `actual` into `desired`, touching only what is ours, or nobody's and named by the intent.
///
/// * Wanted and absent: created. Wanted and different: changed if ours or free, refused if foreign (unless `adopt`).
/// * Not wanted and ours: deleted. Not wanted and hanging on an interface that the intent names: deleted, since a port that is
///   claimed is claimed whole (its old VLANs must not leak into the storage network).
/// * Everything else is not even looked at.
pub fn plan(actual: &SwitchState, desired: &Desired, capabilities: &Capabilities) -> Plan {
    let able = |kind: Kind| !capabilities.unsupported.contains(&kind);
    let missing: BTreeSet<&str> =
        desired.state.iter().map(|(key, _)| key.kind).filter(|kind| !able(*kind)).map(Kind::words).collect();
    let mut plan = Plan {
        switch: desired.switch.clone(),
        changes: Vec::new(),
        refusals: Vec::new(),
        notes: missing.iter().map(|words| format!("this switch has no {words}; left out")).collect(),
    };
    for (key, wanted) in desired.state.iter().filter(|(key, _)| able(key.kind)) {
        let Some(found) = actual.get(key) else {
            plan.changes.push(Change::Create { after: wanted.clone() });
            continue;
        };
        let change = Change::update(found.clone(), wanted.clone());
        if matches!(&change, Change::Update { fields, .. } if fields.is_empty()) {
            continue;
        }
        // What hangs on a foreign port is refused with the port itself.
        if actual.owner(key) == Owner::Foreign && !desired.adopt {
            if found.interface().is_none() {
                plan.refusals
                    .push(Refusal { object: key.clone(), reason: change.to_string()[2..].to_owned() });
            }
        } else {
            plan.changes.push(change);
        }
    }
    for (key, found) in actual.iter().filter(|(key, _)| able(key.kind) && !desired.state.contains(key)) {
        let on_claimed = actual.root_of(found).is_some_and(|root| {
            desired.state.contains(&root) && (actual.owner(&root) != Owner::Foreign || desired.adopt)
        });
        if actual.owner(key) == Owner::Ours || on_claimed {
            plan.changes.push(Change::Delete { before: found.clone() });
        }
    }
    plan.changes.sort_by_key(Change::rank);
    plan
}

impl SwitchState {
    /// What the state is once `change` is in force: for stand-ins of switches, and to foresee a result.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Create { after } => self.put(after.clone()),
            Change::Update { after, .. } => {
                let merged = self.get(&after.key()).map_or(after.clone(), |before| before.overlaid(after));
                self.put(merged);
            }
            // A port is always there; what goes is our use of it.
            Change::Delete { before: Object::Port(port) } => {
                let freed = Port { description: String::new(), ..port.clone() };
                self.insert_owned(freed, Owner::Free);
            }
            Change::Delete { before } => {
                self.remove(&before.key());
            }
        }
    }

    fn put(&mut self, object: Object) {
        let described = match &object {
            Object::Port(port) => !port.description.is_empty(),
            Object::Lag(lag) => !lag.description.is_empty(),
            _ => true,
        };
        match object.interface() {
            Some(_) => self.insert(object),
            None => self.insert_owned(object, if described { Owner::Ours } else { Owner::Free }),
        }
    }
}
