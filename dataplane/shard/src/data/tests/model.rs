//! A file as a plain vector of bytes, and what a crash may leave of it.

use super::super::PAGE_BYTES;
use std::collections::BTreeMap;

const PAGE: usize = PAGE_BYTES as usize;

#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) now: Vec<u8>,
    /// Contents that a page may show after a crash besides the current one: its last durable one and what was written
    /// since. A page that is not here is durable as it is.
    since: BTreeMap<usize, Vec<Vec<u8>>>,
    size_min: usize,
    size_max: usize,
}

impl Model {
    pub(super) fn page(&self, n: usize) -> Vec<u8> {
        let mut p = vec![0; PAGE];
        let from = (n * PAGE).min(self.now.len());
        let to = ((n + 1) * PAGE).min(self.now.len());
        p[..to - from].copy_from_slice(&self.now[from..to]);
        p
    }
    fn remember(&mut self, first: usize, end: usize) {
        for n in first..end {
            let old = self.page(n);
            self.since.entry(n).or_default().push(old);
        }
    }
    fn all_pages(&self) -> usize {
        self.now.len().div_ceil(PAGE)
    }
    fn track_size(&mut self) {
        self.size_min = self.size_min.min(self.now.len());
        self.size_max = self.size_max.max(self.now.len());
    }
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.remember(offset / PAGE, (offset + data.len()).div_ceil(PAGE));
        if self.now.len() < offset + data.len() {
            self.now.resize(offset + data.len(), 0);
        }
        self.now[offset..offset + data.len()].copy_from_slice(data);
        self.track_size();
    }
    pub(super) fn truncate(&mut self, size: usize) {
        let pages = self.all_pages().max(size.div_ceil(PAGE));
        self.remember((size / PAGE).min(pages), pages);
        self.now.resize(size, 0);
        self.track_size();
    }
    pub(super) fn truncated(&mut self, size_before: usize) {
        // Everything behind the end is gone for good, and the size with it; what lies before keeps its history, and when
        // the file grew that is all.
        let size = self.now.len();
        if size < size_before {
            self.since.retain(|n, _| *n < size / PAGE);
        }
        self.size_min = size;
        self.size_max = size;
    }
    pub(super) fn punch(&mut self, from: usize, to: usize) {
        let to = to.min(self.now.len());
        if from < to {
            self.remember(from / PAGE, to.div_ceil(PAGE));
            self.now[from..to].fill(0);
        }
    }
    /// What `from..to` holds is durable.
    pub(super) fn committed(&mut self, from: usize, to: usize) {
        let pages = from / PAGE..to.div_ceil(PAGE);
        self.since.retain(|n, _| !pages.contains(n));
        // Of a hole in the middle nothing is dirty and so nothing published; of the last page there is.
        if pages.contains(&(self.now.len().max(1) - 1).div_euclid(PAGE)) {
            self.size_min = self.size_min.max(to.min(self.now.len()));
        }
        if from == 0 && to >= self.now.len() {
            self.size_min = self.now.len();
            self.size_max = self.now.len();
        }
    }
    /// Looks at what a crash left, says what is wrong with it, and goes on from there.
    pub(super) fn recover(&mut self, found: Vec<u8>) -> Result<(), String> {
        if found.len() < self.size_min || found.len() > self.size_max {
            return Err(format!("{} bytes, not {}..={}", found.len(), self.size_min, self.size_max));
        }
        for n in 0..found.len().div_ceil(PAGE) {
            let shown = &found[n * PAGE..((n + 1) * PAGE).min(found.len())];
            let allowed = |p: &[u8]| p[..shown.len()] == *shown;
            let history = self.since.get(&n).map_or(&[][..], |h| h);
            if !allowed(&self.page(n)) && !history.iter().any(|p| allowed(p)) {
                return Err(format!(
                    "page {n} shows {:?}.. and should {:?}.. or one of {} older ones",
                    &shown[..shown.len().min(8)],
                    &self.page(n)[..8],
                    history.len()
                ));
            }
        }
        *self = Model { size_min: found.len(), size_max: found.len(), now: found, since: BTreeMap::new() };
        Ok(())
    }
}
