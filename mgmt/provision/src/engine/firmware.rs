//! inspected -> firmware: each component at least at the version that is wanted, one after the other.

use super::{Engine, Next, Turn};
use crate::fault::{Fault, FaultKind};
use crate::node::{FirmwareWanted, Node};
use crate::server::{Server, UpdateState};
use crate::state::State;
use basalt_inventory::profile::version_at_least;
use std::time::Duration;

/// BMCs that flash are best left alone.
const POLL: Duration = Duration::from_secs(5);
/// An update that was begun without a task to watch shows its version within this time.
const SETTLE: Duration = Duration::from_secs(600);

impl Engine {
    pub(super) async fn update_firmware(&self, node: &mut Node, turn: &Turn) -> Next {
        if node.wanted.firmware.is_empty() {
            return Ok((State::Firmware, "no firmware is asked for".into()));
        }
        let mut done = Vec::new();
        for wanted in node.wanted.firmware.clone() {
            let server = self.connect(node, turn).await?;
            let had = self.version(server.as_ref(), &wanted, turn).await?;
            if !version_at_least(&had, &wanted.version) {
                self.update(node, server, &wanted, turn).await?;
                done.push(format!("{} {had} -> {}", wanted.component, wanted.version));
            }
        }
        let cause = if done.is_empty() { "as wanted".into() } else { done.join(", ") };
        Ok((State::Firmware, cause))
    }

    async fn version(
        &self,
        server: &dyn Server,
        wanted: &FirmwareWanted,
        turn: &Turn,
    ) -> Result<String, Fault> {
        let version = turn.ask("read its firmware", server.firmware_version(&wanted.component)).await?;
        version.ok_or_else(|| {
            let cause = format!("its BMC knows no firmware named {}", wanted.component);
            Fault::new(FaultKind::NotAsExpected, cause)
        })
    }

    async fn update(
        &self,
        node: &mut Node,
        server: Box<dyn Server>,
        wanted: &FirmwareWanted,
        turn: &Turn,
    ) -> Result<(), super::Halt> {
        let begun = node.work.updated.contains(&wanted.component);
        if node.work.firmware_task.is_none() && !begun {
            // Written first: after a crash an update that may run is watched, not begun a second time.
            node.work.updated.push(wanted.component.clone());
            self.save(node).await?;
            let task = server.begin_update(&wanted.component, &wanted.file);
            // Sending the file takes its time.
            let task = turn.ask_within(turn.left(), &format!("take {}", wanted.file), task).await?;
            node.work.firmware_task = Some(task);
            self.save(node).await?;
        }
        drop(server);
        let doubtful = begun && node.work.firmware_task.is_none();
        if let Some(task) = node.work.firmware_task.clone() {
            self.watch_update(node, wanted, &task, turn).await?;
            node.work.firmware_task = None;
            self.save(node).await?;
        }
        let since = tokio::time::Instant::now();
        loop {
            // A BMC that updates itself is away for minutes.
            let now = match self.connect(node, turn).await {
                Ok(server) => self.version(server.as_ref(), wanted, turn).await,
                Err(fault) => Err(fault),
            };
            match now {
                Ok(version) if version_at_least(&version, &wanted.version) => break,
                Err(fault) if !fault.kind.passes() => return Err(fault.into()),
                Ok(_) if doubtful && since.elapsed() > SETTLE => {
                    // A crash came before the BMC had it: the next attempt begins it.
                    node.work.updated.retain(|c| *c != wanted.component);
                    self.save(node).await?;
                    let cause = format!("the update of {} was not begun before a crash", wanted.component);
                    return Err(Fault::new(FaultKind::Busy, cause).into());
                }
                Ok(version) if since.elapsed() > SETTLE => {
                    let cause = format!("the update of {} left version {version}", wanted.component);
                    return Err(Fault::new(FaultKind::Refused, cause).into());
                }
                _ => {}
            }
            turn.wait(POLL, || format!("{} does not show version {}", wanted.component, wanted.version))
                .await?;
        }
        node.work.updated.retain(|c| *c != wanted.component);
        let (component, version) = (&wanted.component, &wanted.version);
        node.remember(self.now_s(), &format!("{component} updated to {version}"));
        Ok(())
    }

    async fn watch_update(
        &self,
        node: &mut Node,
        wanted: &FirmwareWanted,
        task: &str,
        turn: &Turn,
    ) -> Result<(), super::Halt> {
        loop {
            let asked = match self.connect(node, turn).await {
                Ok(server) => turn.ask("say how the update goes", server.update_state(task)).await,
                Err(fault) => Err(fault),
            };
            match asked {
                Ok(UpdateState::Done) => return Ok(()),
                Ok(UpdateState::Failed { why }) => {
                    let cause = format!("the update of {} failed: {why}", wanted.component);
                    return Err(Fault::new(FaultKind::Refused, cause).into());
                }
                Ok(UpdateState::Running { percent }) => {
                    let percent = percent.map_or(String::new(), |p| format!(" {p} %"));
                    self.note(node, &format!("updating {}{percent}", wanted.component)).await?;
                }
                // It restarts itself with its new firmware.
                Err(fault) if fault.kind.passes() => self.note(node, &fault.cause).await?,
                Err(fault) => return Err(fault.into()),
            }
            turn.wait(POLL, || format!("the update of {} still runs", wanted.component)).await?;
        }
    }
}
