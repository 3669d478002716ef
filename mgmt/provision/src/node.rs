//! A server of the list: who it is, what it shall become, how far it came and why.

use crate::error::{ProvisionError, Result};
use crate::fault::{Failure, Fault, FaultKind};
use crate::state::State;
use basalt_boot::decision::Action;
use basalt_boot::node::{Mac, NodeId, Uuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The newest steps of a node's history that are kept.
pub const MAX_HISTORY: usize = 200;
const MAX_CAUSE_BYTES: usize = 1024;
/// A step may be taken up again so often without getting further.
pub const MAX_RESUMES: u32 = 10;

/// Lower-case letters, digits, `-` and `.`, as in host names; it becomes a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    pub fn new(text: &str) -> Result<NodeName> {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let all = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
        if text.len() > 63 || !all || !edge(text.chars().next()) || !edge(text.chars().last()) {
            return Err(ProvisionError::Invalid(format!(
                "{text:?} is no name for a node: 1 to 63 lower-case letters, digits, '-' and '.'"
            )));
        }
        Ok(NodeName(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::str::FromStr for NodeName {
    type Err = ProvisionError;
    fn from_str(text: &str) -> Result<NodeName> {
        NodeName::new(text)
    }
}
impl TryFrom<String> for NodeName {
    type Error = ProvisionError;
    fn try_from(text: String) -> Result<NodeName> {
        NodeName::new(&text)
    }
}
impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}
impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How its BMC is reached, and how to know that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcAddress {
    /// `https://10.0.0.7`, with a port where it is another than 443.
    pub url: String,
    /// The entry of the secrets that opens it.
    pub credential: String,
    /// SHA-256 of the certificate that was accepted when the node was added, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
}

/// What makes a server this server. Taken from the first answer, compared with every later one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manufacturer: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
}

impl Identity {
    pub fn is_known(&self) -> bool {
        !self.serial.is_empty() || self.uuid.is_some()
    }

    /// Why `other` cannot be this server; None where nothing speaks against it.
    pub fn differs(&self, other: &Identity) -> Option<String> {
        if !self.serial.is_empty() && !other.serial.is_empty() {
            return (self.serial != other.serial)
                .then(|| format!("serial number {}, expected {}", other.serial, self.serial));
        }
        // Firmware updates of some vendors change the UUID: it counts only where there is no serial number.
        match (self.uuid, other.uuid) {
            (Some(mine), Some(theirs)) if mine != theirs => Some(format!("UUID {theirs}, expected {mine}")),
            _ => None,
        }
    }

    /// The same by serial number or UUID, whatever the maker is called.
    pub fn same_machine(&self, other: &Identity) -> bool {
        let serial = !self.serial.is_empty() && self.serial == other.serial;
        serial || self.uuid.is_some() && self.uuid == other.uuid
    }

    /// Certainly the same server.
    pub fn same(&self, other: &Identity) -> bool {
        match (self.serial.as_str(), other.serial.as_str()) {
            ("", _) | (_, "") => self.uuid.is_some() && self.uuid == other.uuid,
            (mine, theirs) => mine == theirs && self.manufacturer == other.manufacturer,
        }
    }
}

/// What a node shall become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// [`Action::Install`] or [`Action::Diskless`].
    pub action: Action,
    /// None: the newest image there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default)]
    pub boot: BootVia,
    /// Boot MAC addresses; those of the inventory by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Mac>,
    /// Serial number of the drive to install on; needed only where there is more than one candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_drive: Option<String>,
    /// Serial numbers of drives whose contents may go.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub wipe: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<FirmwareWanted>,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted {
            action: Action::Diskless,
            version: None,
            boot: BootVia::default(),
            macs: Vec::new(),
            install_drive: None,
            wipe: BTreeSet::new(),
            firmware: Vec::new(),
        }
    }
}

/// How the firmware fetches the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootVia {
    /// PXE, by UEFI.
    #[default]
    Pxe,
    /// PXE of old servers without UEFI.
    BiosPxe,
    /// UEFI HTTP boot; the boot service's address comes by DHCP.
    Http,
    /// UEFI HTTP boot from this address.
    HttpUrl(String),
}

/// A component whose firmware shall be at least this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareWanted {
    /// Id or name in the BMC's firmware inventory.
    pub component: String,
    pub version: String,
    /// File to hand to the BMC.
    pub file: String,
}

/// A moment in a node's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub at_s: u64,
    pub state: State,
    pub cause: String,
}

/// What has to survive a crash in the middle of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// When the work on this state was begun or taken up again.
    #[serde(default)]
    pub begun_s: u64,
    /// How often it was taken up again.
    #[serde(default)]
    pub resumes: u32,
    /// Written before the server is reset: what the boot service saw since then belongs to this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at_s: Option<u64>,
    /// The BMC's task for the update that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_task: Option<String>,
    /// Components whose update was begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updated: Vec<String>,
    /// The last thing that was seen to happen, and passing faults.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    pub bmc: BmcAddress,
    #[serde(default)]
    pub identity: Identity,
    /// Ports that it may boot from.
    #[serde(default)]
    pub macs: Vec<Mac>,
    pub wanted: Wanted,
    pub state: State,
    pub since_s: u64,
    #[serde(default)]
    pub work: Work,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default)]
    pub history: Vec<Step>,
    /// Counts changes, so that two commands cannot overwrite each other's.
    pub revision: u64,
}

impl Node {
    pub fn new(name: NodeName, bmc: BmcAddress, identity: Identity, wanted: Wanted, now_s: u64) -> Node {
        let mut node = Node {
            name,
            bmc,
            identity,
            macs: wanted.macs.clone(),
            wanted,
            state: State::Discovered,
            since_s: now_s,
            work: Work::default(),
            failure: None,
            history: Vec::new(),
            revision: 0,
        };
        node.remember(now_s, "added to the list");
        node
    }

    /// As the boot service knows it, port by port: the UUID with the first one.
    pub fn boot_ids(&self) -> Vec<NodeId> {
        let uuid = self.identity.uuid;
        let mut ids: Vec<NodeId> = self.macs.iter().map(|mac| NodeId::from(*mac)).collect();
        match ids.first_mut() {
            Some(first) => first.uuid = uuid,
            None if uuid.is_some() => ids.push(NodeId { mac: None, uuid }),
            None => {}
        }
        ids
    }

    /// Into the next state, with the cause. A way that [`State::exits`] does not have is a programming error and is refused.
    pub fn become_state(&mut self, next: State, cause: &str, now_s: u64) -> Result<()> {
        if !self.state.may_become(next) {
            return Err(ProvisionError::Invalid(format!(
                "node {} is {} and cannot become {next} from there",
                self.name, self.state
            )));
        }
        self.state = next;
        self.since_s = now_s;
        let booted = matches!(next, State::Booting | State::Installed | State::Diskless | State::Running);
        let reset_at_s = self.work.reset_at_s.filter(|_| booted);
        self.work = Work { reset_at_s, ..Work::default() };
        self.failure = None;
        self.remember(now_s, cause);
        Ok(())
    }

    /// Gives up on the state's work.
    pub fn fail(&mut self, fault: &Fault, now_s: u64) -> Result<()> {
        let at = self.state;
        let cause = clipped(&format!("{} (while {})", fault.cause, at.work()));
        self.become_state(State::Failed, &cause, now_s)?;
        self.failure = Some(Failure { at, kind: fault.kind, cause, at_s: now_s });
        Ok(())
    }

    /// Out of failed: back to where it can safely begin again.
    pub fn retry(&mut self, now_s: u64) -> Result<()> {
        // What is on the disk stays there: such a node only has to start.
        let written = self.failure.as_ref().is_some_and(|f| f.at == State::Installed);
        let next = if written { State::Installed } else { State::Discovered };
        self.become_state(next, "an operator asked to try again", now_s)?;
        self.work.reset_at_s = None;
        Ok(())
    }

    /// Notes that the state's work begins, or goes on after an interruption.
    pub fn begin(&mut self, now_s: u64) -> std::result::Result<(), Fault> {
        if self.work.begun_s != 0 {
            self.work.resumes += 1;
            self.remember(now_s, &format!("taken up again while {}", self.state.work()));
            if self.work.resumes > MAX_RESUMES {
                let cause = format!("taken up again {MAX_RESUMES} times without getting further");
                return Err(Fault::new(FaultKind::Stuck, cause));
            }
        }
        self.work.begun_s = now_s.max(1);
        Ok(())
    }

    pub fn remember(&mut self, at_s: u64, cause: &str) {
        self.history.push(Step { at_s, state: self.state, cause: clipped(cause) });
        if self.history.len() > MAX_HISTORY {
            // The first step says where it came from.
            self.history.drain(1..=self.history.len() - MAX_HISTORY);
        }
    }
}

/// Fit to be shown on a line and kept, whoever said it.
pub fn clipped(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if clean.len() + c.len_utf8() > MAX_CAUSE_BYTES {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let bmc = BmcAddress {
            url: "https://10.0.0.7".into(),
            credential: "default".into(),
            certificate_sha256: None,
        };
        let identity = Identity { serial: "S1".into(), ..Identity::default() };
        Node::new(NodeName::new("n1").unwrap(), bmc, identity, Wanted::default(), 100)
    }

    #[test]
    fn names_are_safe_as_files() {
        for bad in ["", ".", "..", "a/b", "A", "-a", "a-", "a b", "a\0", "ä", &"a".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "r1-u04.dc1", "7"] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn failing_keeps_place_and_cause_and_retry_knows_where() {
        let mut node = node();
        node.fail(&Fault::new(FaultKind::Busy, "line\nbreak"), 7).unwrap();
        let failure = node.failure.clone().unwrap();
        assert_eq!((failure.at, failure.at_s), (State::Discovered, 7));
        assert_eq!(failure.cause, "line break (while reading the inventory)");
        node.retry(8).unwrap();
        assert_eq!((node.state, node.failure.as_ref()), (State::Discovered, None));
        for state in [State::Inspected, State::Firmware, State::BootSet, State::Booting, State::Installed] {
            node.become_state(state, "", 9).unwrap();
        }
        node.fail(&Fault::new(FaultKind::OutOfTime, ""), 10).unwrap();
        node.retry(11).unwrap();
        assert_eq!(node.state, State::Installed, "a written disk is not written again");
        assert!(node.become_state(State::BootSet, "", 12).is_err());
    }

    #[test]
    fn history_is_bounded_and_keeps_its_beginning() {
        let mut node = node();
        for i in 0..500 {
            node.remember(i, "again");
        }
        assert_eq!(node.history.len(), MAX_HISTORY);
        assert_eq!(node.history[0].cause, "added to the list");
        assert_eq!(node.history.last().unwrap().at_s, 499);
    }

    #[test]
    fn taking_up_again_ends_somewhere() {
        let mut node = node();
        node.begin(5).unwrap();
        let ends = (0..50).find_map(|i| node.begin(i).err());
        assert_eq!(ends.unwrap().kind, FaultKind::Stuck);
    }

    #[test]
    fn identities() {
        let of = |serial: &str, uuid: Option<&str>| Identity {
            serial: serial.into(),
            uuid: uuid.map(|u| u.parse().unwrap()),
            ..Identity::default()
        };
        let (u1, u2) = ("11111111-2222-3333-4444-555555555555", "21111111-2222-3333-4444-555555555555");
        assert!(of("A", None).differs(&of("B", None)).unwrap().contains("B, expected A"));
        assert_eq!(of("A", Some(u1)).differs(&of("A", Some(u2))), None, "a serial number outweighs a UUID");
        assert!(of("", Some(u1)).differs(&of("", Some(u2))).is_some());
        assert_eq!(of("", Some(u1)).differs(&of("X", None)), None);
        assert!(of("A", None).same(&of("A", Some(u1))) && !of("", None).same(&of("", None)));
        let another_make = Identity { manufacturer: "Contoso".into(), ..of("A", None) };
        assert!(!of("A", None).same(&another_make), "two makers may give the same serial number");
    }
}
