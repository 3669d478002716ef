//! The nodes at work: a table that is redrawn on a terminal, a line per step elsewhere.

use super::{ago, show};
use crate::output::{Row, colours, render};
use basalt_provision::{Node, NodeName, State};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;

const REDRAW: Duration = Duration::from_millis(250);
/// Where the terminal does not say.
const HEIGHT: usize = 24;
const WIDTH: usize = 80;

pub(super) struct Watch {
    live: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeName, Node>,
    /// Lines that the last drawing took.
    drawn: usize,
    /// As it was said last.
    said: BTreeMap<NodeName, State>,
}

impl Watch {
    /// Live only where somebody can see it.
    pub(super) fn new(live: bool) -> Watch {
        Watch { live: live && std::io::stderr().is_terminal(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn node(&self, node: &Node) {
        let mut inner = self.inner();
        let new = inner.said.insert(node.name.clone(), node.state) != Some(node.state);
        if new && !self.live {
            let last = node.history.last().map_or("", |s| s.cause.as_str());
            let cause = node.failure.as_ref().map_or_else(|| last.to_owned(), |_| show::note(node));
            say(&format!("{}: {}: {cause}\n", node.name, node.state));
        }
        inner.nodes.insert(node.name.clone(), node.clone());
    }

    pub(super) fn redraw(self: Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move {
            if self.live {
                loop {
                    self.draw();
                    tokio::time::sleep(REDRAW).await;
                }
            }
        })
    }

    /// The last picture makes room for the result.
    pub(super) fn end(&self) {
        if self.live {
            let mut inner = self.inner();
            say(&erase(inner.drawn));
            inner.drawn = 0;
        }
    }

    fn draw(&self) {
        let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
        let height = size.map_or(HEIGHT, |s| usize::from(s.ws_row)).max(6);
        let width = size.map_or(WIDTH, |s| usize::from(s.ws_col)).max(20);
        let mut inner = self.inner();
        let picture = picture(&inner.nodes, height - 1, width, basalt_boot::now_s());
        let lines = picture.lines().count();
        let painted: String = picture.lines().map(|line| format!("{}\n", paint(line))).collect();
        say(&format!("{}{painted}", erase(inner.drawn)));
        inner.drawn = lines;
    }
}

fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// A line that says how many are where, then those at work and those that failed, as many as fit.
fn picture(nodes: &BTreeMap<NodeName, Node>, height: usize, width: usize, now_s: u64) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for node in nodes.values() {
        *counts.entry(node.state).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let mut sorted: Vec<&Node> = nodes.values().collect();
    // What needs a look first; what is done last.
    sorted.sort_by_key(|n| (n.state != State::Failed, n.state == State::Running, n.name.clone()));
    let mut rows: Vec<Row> = vec![["NODE", "STATE", "FOR", "NOW"].map(String::from).to_vec()];
    for node in sorted.iter().take(height.saturating_sub(3)) {
        rows.push(vec![
            node.name.to_string(),
            node.state.to_string(),
            ago(now_s.saturating_sub(node.since_s)),
            show::note(node),
        ]);
    }
    let hidden = nodes.len().saturating_sub(height.saturating_sub(3));
    let hidden = if hidden > 0 { format!("; {hidden} more not shown") } else { String::new() };
    let text = format!("{} nodes: {}{hidden}\n{}", nodes.len(), counts.join(", "), render(&rows));
    // A line that wraps would be two to erase.
    text.lines().map(|line| line.chars().take(width - 1).collect::<String>() + "\n").collect()
}

fn paint(line: &str) -> String {
    let colour = match () {
        _ if !colours(&std::io::stderr()) => return line.to_owned(),
        _ if line.contains(" failed ") && !line.contains(" nodes: ") => 31,
        _ if line.contains(" running ") && !line.contains(" nodes: ") => 32,
        _ => return line.to_owned(),
    };
    format!("\x1b[{colour}m{line}\x1b[0m")
}

/// A terminal that is gone must not end the work, as `eprint!` would.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_provision::fault::{Fault, FaultKind};
    use basalt_provision::node::{BmcAddress, Identity, Wanted};

    #[test]
    fn the_picture_fits_and_shows_trouble_first() {
        let mut nodes = BTreeMap::new();
        for i in 0..50 {
            let name = NodeName::new(&format!("node-{i:02}")).unwrap();
            let bmc =
                BmcAddress { url: "https://x".into(), credential: "d".into(), certificate_sha256: None };
            let mut node = Node::new(name.clone(), bmc, Identity::default(), Wanted::default(), 100);
            if i == 49 {
                node.fail(&Fault::new(FaultKind::Busy, "x".repeat(300)), 110).unwrap();
            }
            nodes.insert(name, node);
        }
        let text = picture(&nodes, 20, 60, 130);
        assert_eq!(text.lines().count(), 19);
        assert!(text.lines().all(|l| l.chars().count() < 60));
        assert!(text.starts_with("50 nodes: 49 discovered, 1 failed; 33 more not shown\n"), "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with("node-49  failed"), "{text}");
    }
}
