//! One event for each step that a node takes, so that a boot that hangs is seen, and where.

use crate::error::Result;
use crate::node::NodeId;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// In the order of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An operator decided what it is to do.
    Decided,
    /// It asked for an address, or for a boot server.
    Asked,
    /// It got no answer: quarantine.
    Ignored,
    /// It has an address.
    Leased,
    /// It was told what to fetch (proxyDHCP).
    Offered,
    /// It fetched the iPXE script.
    Script,
    /// It began to fetch a file.
    Fetching,
    /// It has the whole file, or the last piece of it.
    Fetched,
    /// A transfer broke off.
    FetchFailed,
    /// Its kernel runs and it asked what to do.
    Plan,
    /// It writes its disk.
    Installing,
    Installed,
    /// It serves.
    Ready,
    /// It booted with a token, or joined with one.
    TokenUsed,
    /// It gave up and says why.
    Failed,
}

impl Step {
    /// So long may the next step take before the boot counts as hung. Firmware takes up to two minutes to show up again after
    /// a step; a whole-OS image of 80 MB by TFTP took 90 s in emulation.
    pub fn patience_s(self) -> Option<u64> {
        match self {
            Step::Asked | Step::Offered | Step::Leased | Step::Script => Some(120),
            Step::Fetching | Step::Fetched | Step::Plan => Some(300),
            Step::Installing => Some(900),
            // It reboots into what it installed.
            Step::Installed => Some(600),
            Step::FetchFailed => Some(120),
            Step::Decided | Step::Ignored | Step::Ready | Step::TokenUsed | Step::Failed => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Step::Decided => "decided",
            Step::Asked => "asked",
            Step::Ignored => "ignored",
            Step::Leased => "leased",
            Step::Offered => "offered",
            Step::Script => "script",
            Step::Fetching => "fetching",
            Step::Fetched => "fetched",
            Step::FetchFailed => "fetch_failed",
            Step::Plan => "plan",
            Step::Installing => "installing",
            Step::Installed => "installed",
            Step::Ready => "ready",
            Step::TokenUsed => "token_used",
            Step::Failed => "failed",
        }
    }

    /// What usually is wrong when it goes no further.
    fn hint(self) -> &'static str {
        match self {
            Step::Asked | Step::Offered => {
                "another DHCP server may have answered, or the boot order goes on to a disk"
            }
            Step::Leased => {
                "it did not ask for a file: check its boot mode (UEFI or BIOS) and that the port reaches this server"
            }
            Step::Script | Step::Fetching => {
                "the transfer stands still: check the link, its MTU, and free memory on the node"
            }
            Step::Fetched => {
                "the image does not start: see its console for Secure Boot refusals; has it 1 GiB of memory?"
            }
            Step::FetchFailed => "the node broke the transfer off: see its console",
            Step::Plan => "the system came up and went no further: see its console",
            Step::Installing => "writing its disk takes too long: see its console",
            Step::Installed => "it does not come back from its disk: check its boot order",
            _ => "",
        }
    }
}

/// Text that nodes send is cut to this length.
pub const MAX_DETAIL_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at_s: u64,
    #[serde(flatten)]
    pub node: NodeId,
    pub step: Step,
    /// File, address, cause. Printable, at most [`MAX_DETAIL_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Event {
    /// Makes `detail` fit to be shown and kept, whoever sent it.
    pub fn new(at_s: u64, node: NodeId, step: Step, detail: &str) -> Event {
        let mut clean = String::new();
        for c in detail.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if clean.len() + c.len_utf8() > MAX_DETAIL_BYTES {
                break;
            }
            clean.push(c);
        }
        Event { at_s, node, step, detail: clean }
    }
}

/// A bounded record of what happened: the oldest events go first.
#[async_trait]
pub trait Events: Send + Sync {
    async fn record(&self, event: Event) -> Result<()>;
    /// The newest `limit` events, oldest first; of one node if that is given.
    async fn recent(&self, node: Option<&NodeId>, limit: usize) -> Result<Vec<Event>>;
}

/// A node as its events show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeState {
    #[serde(flatten)]
    pub node: NodeId,
    pub step: Step,
    pub detail: String,
    pub first_s: u64,
    pub last_s: u64,
    /// Why this boot counts as hung, and what to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hung: Option<String>,
}

/// Folds events, oldest first, into one line per node.
pub fn nodes(events: &[Event], now_s: u64) -> Vec<NodeState> {
    let mut nodes: Vec<NodeState> = Vec::new();
    for event in events.iter().filter(|e| !e.node.is_empty()) {
        let known = nodes.iter_mut().find(|n| n.node.is(&event.node));
        let fresh = || NodeState {
            node: event.node,
            step: event.step,
            detail: String::new(),
            first_s: event.at_s,
            last_s: 0,
            hung: None,
        };
        let state = match known {
            Some(state) => state,
            None => {
                nodes.push(fresh());
                let last = nodes.len() - 1;
                &mut nodes[last]
            }
        };
        // A node that asks again boots anew.
        if event.step == Step::Asked && state.step != Step::Asked {
            state.first_s = event.at_s;
        }
        state.node = state.node.with(&event.node);
        // Using a token or being decided about is no step of the boot itself.
        if !matches!(event.step, Step::TokenUsed | Step::Decided) || state.last_s == 0 {
            state.step = event.step;
            state.detail.clone_from(&event.detail);
            state.last_s = event.at_s;
        }
    }
    for state in &mut nodes {
        let silent_s = now_s.saturating_sub(state.last_s);
        if state.step.patience_s().is_some_and(|patience| silent_s > patience) {
            state.hung = Some(format!("nothing for {silent_s} s; {}", state.step.hint()));
        }
    }
    nodes
}
