//! firmware -> boot set -> booting -> installed or diskless -> running.

use super::{Engine, Feed, Halt, Next, Turn};
use crate::boot::{BootDesk, Seen};
use crate::fault::{Fault, FaultKind};
use crate::node::Node;
use crate::server::{BootSource, Power};
use crate::state::State;
use basalt_boot::decision::Action;
use std::time::Duration;
use tokio::time::Instant;

/// Some BMCs drop the first power-on while they start themselves: a server that is off this long after its reset is switched on again.
const OFF_TOO_LONG: Duration = Duration::from_secs(60);
const MAX_POWER_ONS: u32 = 2;
/// How often a data plane is tried for an answer.
const PROBE: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) async fn set_boot(&self, node: &mut Node, turn: &Turn) -> Next {
        let server = self.connect(node, turn).await?;
        let action = node.wanted.action;
        // The boot service first: a server that came up early would otherwise get nothing, or too much.
        self.parts.boot.decide(node, action, self.now_s()).await.map_err(Halt::from)?;
        let source =
            BootSource::Network { via: node.wanted.boot.clone(), always: action == Action::Diskless };
        turn.ask("boot from the network", server.set_boot(&source)).await?;
        if !turn.ask("show its boot source", server.boots_from(&source)).await? {
            let cause = "its BMC accepted the boot source and did not keep it";
            return Err(Fault::new(FaultKind::Refused, cause).into());
        }
        Ok((State::BootSet, format!("{} from the network", action.name())))
    }

    pub(super) async fn reset(&self, node: &mut Node, turn: &Turn, feed: &Feed) -> Next {
        let seen = self.seen(node, feed);
        if node.work.reset_at_s.is_some() && seen.last.is_some() {
            // It was reset before a crash here, and is on its way: another reset would cut it short.
            return Ok((State::Booting, "it boots already".into()));
        }
        let server = self.connect(node, turn).await?;
        if node.work.reset_at_s.is_none() {
            self.mark_reset(node, turn).await?;
        }
        turn.ask("reset the server", server.start_anew()).await?;
        loop {
            if turn.ask("say whether it is on", server.power()).await? != Power::Off {
                return Ok((State::Booting, "reset".into()));
            }
            turn.wait(self.times.poll, || "it was switched on and stays off".into()).await?;
        }
    }

    /// Durable before the reset: what the boot service hears from this second on is of the new boot.
    async fn mark_reset(&self, node: &mut Node, turn: &Turn) -> Result<(), Halt> {
        let before = self.now_s();
        while self.now_s() == before {
            turn.wait(Duration::from_millis(100), || "the clock stands still".into()).await?;
        }
        node.work.reset_at_s = Some(self.now_s());
        self.save(node).await?;
        Ok(())
    }

    pub(super) async fn watch_boot(&self, node: &mut Node, turn: &Turn, feed: &Feed) -> Next {
        let install = node.wanted.action == Action::Install;
        let mut off = OffGuard::new();
        let mut probe = Instant::now();
        loop {
            let seen = self.seen(node, feed);
            if let Some(why) = &seen.failed {
                let why = if why.is_empty() { "it gave up" } else { why };
                return Err(Fault::new(FaultKind::Boot, format!("its boot failed: {why}")).into());
            }
            match install {
                true if seen.installed => {
                    // What was allowed for this installation does not hold for the next one.
                    node.wanted.wipe.clear();
                    return Ok((State::Installed, "the image is on its disk".into()));
                }
                true if seen.ready => {
                    let cause = "it started from its disk and installed nothing: its boot order goes before the network";
                    return Err(Fault::new(FaultKind::Boot, cause).into());
                }
                false if seen.ready || seen.image_up => {
                    return Ok((State::Diskless, "the image runs from memory".into()));
                }
                false if self.probed(&seen, &mut probe).await => {
                    return Ok((State::Diskless, "its data plane answers".into()));
                }
                _ => {}
            }
            if let Some(last) = &seen.last {
                self.note(node, format!("{} {}", last.step.name(), last.detail).trim()).await?;
            } else if off.look() {
                self.power_on_again(node, turn, &mut off).await?;
            }
            let now_s = self.now_s();
            turn.wait(self.times.poll, || seen.text(now_s)).await?;
        }
    }

    /// From here on the disk is what it starts from, whatever becomes of this program.
    pub(super) async fn start_installed(&self, node: &mut Node, turn: &Turn, feed: &Feed) -> Next {
        let server = self.connect(node, turn).await?;
        self.parts.boot.decide(node, Action::Local, self.now_s()).await.map_err(Halt::from)?;
        turn.ask("boot from its disk", server.set_boot(&BootSource::Normal)).await?;
        if node.work.reset_at_s.is_none() {
            // Tried again after a failure: the image is there, it only has to start.
            self.mark_reset(node, turn).await?;
            turn.ask("reset the server", server.start_anew()).await?;
        }
        drop(server);
        self.watch_until_ready(node, turn, feed).await
    }

    pub(super) async fn watch_until_ready(&self, node: &mut Node, turn: &Turn, feed: &Feed) -> Next {
        let mut probe = Instant::now();
        loop {
            let seen = self.seen(node, feed);
            if let Some(why) = &seen.failed {
                return Err(Fault::new(FaultKind::Boot, format!("it came up and gave up: {why}")).into());
            }
            if seen.ready {
                return Ok((State::Running, "it says that it serves".into()));
            }
            if self.probed(&seen, &mut probe).await {
                return Ok((State::Running, "its data plane answers".into()));
            }
            if let Some(last) = &seen.last {
                self.note(node, format!("{} {}", last.step.name(), last.detail).trim()).await?;
            }
            let now_s = self.now_s();
            turn.wait(self.times.poll, || seen.text(now_s)).await?;
        }
    }

    fn seen(&self, node: &Node, feed: &Feed) -> Seen {
        let since_s = node.work.reset_at_s.unwrap_or(node.since_s);
        BootDesk::of_node(&feed.borrow(), node, since_s)
    }

    async fn probed(&self, seen: &Seen, last: &mut Instant) -> bool {
        match seen.address {
            // A data plane of before the reset must not answer for the new one: it has to have fetched something since.
            Some(address) if last.elapsed() >= PROBE && seen.fetched => {
                *last = Instant::now();
                self.parts.reach.serves(address).await
            }
            _ => false,
        }
    }

    async fn power_on_again(&self, node: &mut Node, turn: &Turn, off: &mut OffGuard) -> Result<(), Halt> {
        let asked = match self.connect(node, turn).await {
            Ok(server) => match turn.ask("say whether it is on", server.power()).await {
                Ok(Power::Off) if off.times < MAX_POWER_ONS => {
                    off.times += 1;
                    node.remember(self.now_s(), "it is off: switched on again");
                    self.save(node).await?;
                    turn.ask("switch the server on", server.start_anew()).await
                }
                other => other.map(|_| ()),
            },
            Err(fault) => Err(fault),
        };
        match asked {
            // The boot may go well without the BMC.
            Err(fault) if fault.kind.passes() => Ok(self.note(node, &fault.cause).await?),
            other => Ok(other?),
        }
    }
}

struct OffGuard {
    looked: Instant,
    times: u32,
}

impl OffGuard {
    fn new() -> OffGuard {
        OffGuard { looked: Instant::now(), times: 0 }
    }
    fn look(&mut self) -> bool {
        let due = self.looked.elapsed() >= OFF_TOO_LONG;
        if due {
            self.looked = Instant::now();
        }
        due
    }
}
