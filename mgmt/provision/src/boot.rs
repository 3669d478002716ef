//! The boot service as provisioning uses it: what each node gets, and what was seen of its boot since it was reset.

use crate::error::Result;
use crate::node::Node;
use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::event::{Event, Events, Step};
use std::net::IpAddr;
use std::sync::Arc;

/// Events of one boot that are looked at; a boot has about ten.
pub(crate) const MAX_EVENTS: usize = 20_000;

#[derive(Clone)]
pub struct BootDesk {
    pub decisions: Arc<dyn Decisions>,
    pub events: Arc<dyn Events>,
}

/// A boot as the boot service saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub last: Option<Event>,
    pub installed: bool,
    /// Its system asked what to do.
    pub image_up: bool,
    pub ready: bool,
    /// The boot service handed out a file since the reset.
    pub fetched: bool,
    pub failed: Option<String>,
    /// The last address it was given.
    pub address: Option<IpAddr>,
}

impl Seen {
    /// From events, oldest first, that came since the reset.
    fn of(events: &[Event]) -> Seen {
        let mut seen = Seen::default();
        for event in events {
            match event.step {
                Step::Decided | Step::TokenUsed => continue,
                // It starts anew, or its system asks for an address as its firmware did: what it has got stays got.
                Step::Asked => seen.ready = false,
                Step::Leased => {
                    let words = event.detail.split_whitespace();
                    seen.address = words.filter_map(|w| w.parse().ok()).next_back().or(seen.address);
                }
                Step::Plan => {
                    (seen.image_up, seen.fetched) = (true, true);
                }
                Step::Fetched => seen.fetched = true,
                Step::Installed => seen.installed = true,
                Step::Ready => seen.ready = true,
                Step::Failed | Step::Ignored => seen.failed = Some(event.detail.clone()),
                _ => {}
            }
            if !matches!(event.step, Step::Failed | Step::Ignored) {
                seen.failed = None;
            }
            seen.last = Some(event.clone());
        }
        seen
    }

    /// `leased 10.0.0.7, 40 s ago`, with what usually is wrong there.
    pub fn text(&self, now_s: u64) -> String {
        let Some(last) = &self.last else {
            return "the boot service heard nothing of it: check its boot order, and VLAN and cable of the boot port"
                .into();
        };
        let hung = basalt_boot::event::nodes(std::slice::from_ref(last), now_s).pop().and_then(|n| n.hung);
        let hint = hung.map_or(String::new(), |h| format!(" ({h})"));
        format!("it got as far as {} {}{hint}", last.step.name(), last.detail)
    }
}

impl BootDesk {
    /// What every port of the node gets from now on. Again is the same.
    pub async fn decide(&self, node: &Node, action: Action, now_s: u64) -> Result<()> {
        for id in node.boot_ids() {
            let version = node.wanted.version.clone();
            let note = format!("node {}", node.name);
            let (disk, wipe) = install_on(node, action);
            let wanted = Decision { node: id, action, version, disk, wipe, note, decided_s: now_s };
            let known = self.decisions.for_node(&id).await?;
            // When it was decided says nothing about what was decided.
            if known.is_none_or(|d| Decision { decided_s: now_s, ..d } != wanted) {
                self.decisions.decide(wanted).await?;
            }
        }
        Ok(())
    }

    pub async fn forget(&self, node: &Node) -> Result<()> {
        for id in node.boot_ids() {
            self.decisions.forget(&id).await?;
        }
        Ok(())
    }

    /// What came since `since_s`.
    pub async fn seen(&self, node: &Node, since_s: u64) -> Result<Seen> {
        let all = self.events.recent(None, MAX_EVENTS).await?;
        Ok(Self::of_node(&all, node, since_s))
    }

    pub(crate) fn of_node(all: &[Event], node: &Node, since_s: u64) -> Seen {
        let ids = node.boot_ids();
        let mine: Vec<Event> = all
            .iter()
            .filter(|e| e.at_s >= since_s && ids.iter().any(|id| id.is(&e.node)))
            .cloned()
            .collect();
        Seen::of(&mine)
    }
}

/// On which disk, and whether its contents may go. A drive that was not named for it is wiped only where just one was named at all.
fn install_on(node: &Node, action: Action) -> (Option<String>, bool) {
    if action != Action::Install {
        return (None, false);
    }
    let told = &node.wanted.wipe;
    let only_told = told.first().filter(|_| told.len() == 1);
    let disk = node.wanted.install_drive.as_ref().or(only_told).cloned();
    let wipe = disk.as_ref().is_some_and(|d| told.contains(d));
    (disk, wipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{BmcAddress, Identity, NodeName, Wanted};
    use basalt_boot::node::NodeId;

    #[test]
    fn a_drive_is_wiped_only_where_it_was_named() {
        let of = |drive: Option<&str>, wipe: &[&str], action| {
            let wanted = Wanted {
                install_drive: drive.map(str::to_owned),
                wipe: wipe.iter().map(|w| (*w).to_owned()).collect(),
                ..Wanted::default()
            };
            let bmc = BmcAddress { url: String::new(), credential: String::new(), certificate_sha256: None };
            let node = Node::new(NodeName::new("n").unwrap(), bmc, Identity::default(), wanted, 0);
            install_on(&node, action)
        };
        let (a, b) = (Some("A".to_owned()), Some("B".to_owned()));
        assert_eq!(of(None, &[], Action::Install), (None, false));
        assert_eq!(of(Some("A"), &[], Action::Install), (a.clone(), false));
        assert_eq!(of(Some("A"), &["A", "B"], Action::Install), (a.clone(), true));
        assert_eq!(of(Some("B"), &["A"], Action::Install), (b, false));
        assert_eq!(of(None, &["A"], Action::Install), (a, true));
        assert_eq!(of(None, &["A", "B"], Action::Install), (None, false), "which of two is not guessed");
        assert_eq!(of(Some("A"), &["A"], Action::Local), (None, false));
    }

    fn events(steps: &[(Step, &str)]) -> Vec<Event> {
        let node: NodeId = "52:54:00:00:00:01".parse().unwrap();
        steps
            .iter()
            .enumerate()
            .map(|(i, (step, detail))| Event::new(i as u64, node, *step, detail))
            .collect()
    }

    #[test]
    fn a_boot_is_read_from_its_events() {
        let seen = Seen::of(&events(&[
            (Step::Asked, ""),
            (Step::Leased, "10.0.0.7"),
            (Step::FetchFailed, "x"),
            (Step::Asked, ""),
            (Step::Leased, "10.0.0.8"),
            (Step::Plan, "install"),
            (Step::Installed, ""),
        ]));
        assert_eq!((seen.installed, seen.ready, seen.failed.as_ref()), (true, false, None));
        assert_eq!(seen.address, Some("10.0.0.8".parse().unwrap()));
        // The firmware asks, then the system that it fetched.
        let seen = Seen::of(&events(&[
            (Step::Asked, ""),
            (Step::Fetched, "x"),
            (Step::Asked, ""),
            (Step::Leased, "10.0.0.7"),
        ]));
        assert!(seen.fetched && !seen.ready && seen.address.is_some());
        let seen = Seen::of(&events(&[(Step::Plan, ""), (Step::Failed, "no disk")]));
        assert_eq!(seen.failed.as_deref(), Some("no disk"));
        let seen = Seen::of(&events(&[(Step::Failed, "no disk"), (Step::Asked, "")]));
        assert_eq!(seen.failed, None, "it tries again by itself");
    }

    #[test]
    fn where_it_hangs_is_said() {
        let seen = Seen::of(&events(&[(Step::Leased, "10.0.0.7")]));
        let text = seen.text(500);
        assert!(text.contains("leased 10.0.0.7") && text.contains("boot mode"), "{text}");
        assert!(Seen::default().text(0).contains("heard nothing"));
    }
}
