//! discovered -> inspected: who it is, what it has, and whether that is as expected.

use super::{Engine, Next, Turn};
use crate::fault::{Fault, FaultKind};
use crate::node::{Identity, Node};
use crate::server::Server;
use crate::state::State;
use basalt_boot::decision::Action;
use basalt_boot::node::Mac;
use basalt_inventory::Record;
use basalt_inventory::record::{Contents, Drive};

/// Differences that fit on a line.
const MAX_SHOWN: usize = 3;

impl Engine {
    /// Opens the BMC. Another server than the list says is a fault here, before anything else is asked.
    pub(super) async fn connect(&self, node: &Node, turn: &Turn) -> Result<Box<dyn Server>, Fault> {
        let server = turn.ask("say who it is", self.parts.servers.connect(node)).await?;
        if let Some(why) = node.identity.differs(server.identity()) {
            let cause = format!("the BMC at {} answers for {why}; nothing was changed there", node.bmc.url);
            return Err(Fault::new(FaultKind::OtherServer, cause));
        }
        Ok(server)
    }

    pub(super) async fn inspect(&self, node: &mut Node, turn: &Turn) -> Next {
        let server = self.connect(node, turn).await?;
        let record = turn.ask_within(turn.left(), "read its inventory", server.inspect()).await?;
        self.unique(node, server.identity())?;
        if let Some(keep) = &self.keeper {
            keep(&node.name, &record);
        }
        if !node.identity.is_known() {
            node.identity = server.identity().clone();
        }
        if node.identity.uuid.is_none() {
            node.identity.uuid = server.identity().uuid;
        }
        node.macs = match node.wanted.macs.is_empty() {
            true => record.macs().iter().filter_map(|m| m.parse::<Mac>().ok()).collect(),
            false => node.wanted.macs.clone(),
        };
        if node.boot_ids().is_empty() {
            let cause =
                "its BMC names neither a MAC address nor a UUID: say from which port it boots with --mac";
            return Err(Fault::new(FaultKind::NotAsExpected, cause).into());
        }
        if let Some(profile) = &self.profile {
            as_expected(profile, &record)?;
        }
        may_install(node, &record)?;
        let id = &record.identity;
        let who = [id.model.trim(), id.serial.trim()].map(|w| if w.is_empty() { None } else { Some(w) });
        let who = who.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let who = if who.is_empty() { "a server without model and serial number".into() } else { who };
        let cause = format!("{who}: drives {}, ports {}", record.drives.len(), record.macs().len());
        Ok((State::Inspected, cause))
    }

    /// The first to claim an identity has it.
    fn unique(&self, node: &Node, identity: &Identity) -> Result<(), Fault> {
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let twin = known.iter().find(|(name, other)| **name != node.name && other.same(identity));
        if let Some((twin, _)) = twin {
            let what = match identity.serial.as_str() {
                "" => format!("UUID {}", identity.uuid.map_or_else(String::new, |u| u.to_string())),
                serial => format!("serial number {serial}"),
            };
            let cause =
                format!("{what} is also that of node {twin}: the same server twice, or a maker's mistake");
            return Err(Fault::new(FaultKind::Duplicate, cause));
        }
        known.insert(node.name.clone(), identity.clone());
        Ok(())
    }
}

fn as_expected(profile: &basalt_inventory::Profile, record: &Record) -> Result<(), Fault> {
    let differences = basalt_inventory::check::check(profile, record);
    if differences.is_empty() {
        return Ok(());
    }
    let mut shown: Vec<String> = differences.iter().take(MAX_SHOWN).map(|d| d.to_string()).collect();
    if differences.len() > MAX_SHOWN {
        shown.push(format!("and {} more", differences.len() - MAX_SHOWN));
    }
    Err(Fault::new(FaultKind::NotAsExpected, shown.join("; ")))
}

/// Nothing is written over unless an operator named the drive. What a BMC cannot say, the node itself looks at before it writes:
/// it refuses a drive that is not blank, as the decision allows no more.
pub(crate) fn may_install(node: &Node, record: &Record) -> Result<(), Fault> {
    if node.wanted.action != Action::Install {
        return Ok(());
    }
    let drive = match &node.wanted.install_drive {
        Some(serial) => {
            let found = record.drives.iter().find(|d| d.serial == *serial);
            found.ok_or_else(|| {
                let cause = format!("it has no drive {serial} to install on; it has {}", serials(record));
                Fault::new(FaultKind::NotAsExpected, cause)
            })?
        }
        None => match &record.drives[..] {
            [only] => only,
            [] => {
                let cause = "no drive to install on is known; `--diskless` runs from memory";
                return Err(Fault::new(FaultKind::NotAsExpected, cause));
            }
            _ => {
                let cause =
                    format!("say with --drive SERIAL on which drive to install; it has {}", serials(record));
                return Err(Fault::new(FaultKind::NotAsExpected, cause));
            }
        },
    };
    let told = |drive: &Drive| node.wanted.wipe.contains(&drive.serial);
    match &drive.contents {
        Contents::Holds(what) if !told(drive) => {
            let cause = format!("drive {} holds {what}; nothing was written", drive.serial);
            Err(Fault::new(FaultKind::NotBlank, cause))
        }
        _ => Ok(()),
    }
}

fn serials(record: &Record) -> String {
    let all: Vec<&str> = record.drives.iter().map(|d| d.serial.as_str()).take(32).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
