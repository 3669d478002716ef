//! What is going on, on standard error: a line that is redrawn while switches are asked, a line per step while they are changed.

use super::count;
use crate::output::colours;
use basalt_switch_api::DeviceName;
use basalt_switch_api::engine::{Engine, Step};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};

/// Names of waiting switches that fit on the line.
const NAMES_SHOWN: usize = 3;

pub(super) struct Progress {
    total: usize,
    style: Style,
    steps: Mutex<BTreeMap<DeviceName, Step>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Silent,
    /// One line, redrawn.
    Line,
    /// A line per step.
    Log,
}

impl Progress {
    /// For commands that only read: nothing to say unless somebody looks.
    pub(super) fn of_questions(total: usize) -> Self {
        let style = if std::io::stderr().is_terminal() { Style::Line } else { Style::Silent };
        Self { total, style, steps: Mutex::default() }
    }

    /// For changes: every step is worth a line in a log as well.
    pub(super) fn of_changes(total: usize) -> Self {
        Self { total, style: Style::Log, steps: Mutex::default() }
    }

    pub(super) fn watch(self: &Arc<Self>, engine: Engine) -> Engine {
        let progress = Arc::clone(self);
        engine.watched_by(move |switch, step| progress.step(switch, step))
    }

    /// The switches on which a change may be in force that is not confirmed.
    pub(super) fn open(&self) -> Vec<DeviceName> {
        self.steps().iter().filter(|(_, step)| step.is_open()).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn clear(&self) {
        if self.style == Style::Line {
            say("\r\x1b[K");
        }
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<DeviceName, Step>> {
        self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn step(&self, switch: &DeviceName, step: Step) {
        let mut steps = self.steps();
        steps.insert(switch.clone(), step);
        match self.style {
            Style::Silent => {}
            Style::Line => say(&format!("\r\x1b[K{}", line(&steps, self.total))),
            Style::Log if matches!(step, Step::Begun | Step::Done) => {}
            Style::Log => say(&format!("{}{switch}: {step}{}\n", paint(step), reset(step))),
        }
    }
}

/// `62 of 64 switches answered, waiting for leaf-9, leaf-12`.
fn line(steps: &BTreeMap<DeviceName, Step>, total: usize) -> String {
    let over = |step: &Step| matches!(step, Step::Done | Step::Failed);
    let answered = steps.values().filter(|step| over(step)).count();
    let waiting: Vec<&str> =
        steps.iter().filter(|(_, step)| !over(step)).map(|(name, _)| name.as_str()).collect();
    let mut text = format!("{answered} of {} answered", count(total, "switch", "switches"));
    if !waiting.is_empty() && waiting.len() <= NAMES_SHOWN {
        text.push_str(&format!(", waiting for {}", waiting.join(", ")));
    }
    text
}

fn paint(step: Step) -> &'static str {
    match step {
        _ if !colours(&std::io::stderr()) => "",
        Step::Confirmed => "\x1b[32m",
        Step::TakingBack | Step::Failed => "\x1b[31m",
        _ => "",
    }
}

fn reset(step: Step) -> &'static str {
    if paint(step).is_empty() { "" } else { "\x1b[0m" }
}

/// A terminal that is gone must not end a change in the middle, as `eprint!` would.
pub(super) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_last_ones() {
        let mut steps: BTreeMap<DeviceName, Step> =
            (0..8).map(|i| (DeviceName(format!("leaf-{i}")), Step::Begun)).collect();
        assert_eq!(line(&steps, 8), "0 of 8 switches answered");
        for i in 0..6 {
            steps.insert(DeviceName(format!("leaf-{i}")), Step::Done);
        }
        assert_eq!(line(&steps, 8), "6 of 8 switches answered, waiting for leaf-6, leaf-7");
    }
}
