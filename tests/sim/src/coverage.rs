//! What the seeds have really exercised. A counter that stays 0 is a hole in the simulation, and an error.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(pub(crate) BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }
    pub(crate) fn merge(&mut self, other: &Coverage) {
        other.0.iter().for_each(|(what, count)| self.add(what, *count));
    }
    pub(crate) fn holes(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, count)| **count == 0).map(|(what, _)| *what).collect()
    }
}
