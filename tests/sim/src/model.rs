//! What a POSIX file system should hold, in memory: the oracle that the real one is compared with.
//!
//! One model belongs to one simulated client and covers that client's own subtree. Contents remember, page by page, what
//! a crash may leave of writes that were not yet committed.

use basalt_shard::vfs::{FsError, Ino};
use std::collections::BTreeMap;

pub(crate) const PAGE: usize = 4096;

pub(crate) type NodeId = u64;
pub(crate) const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) ino: Ino,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Dir(BTreeMap<Vec<u8>, NodeId>),
    File(Content),
    Symlink(Vec<u8>),
    Fifo,
}

/// A file's bytes, and what is still allowed to be lost of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// Pages with uncommitted writes: every content such a page has had since it was last known durable.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Sizes the file has had since then.
    sizes: Vec<usize>,
}

impl Content {
    fn page(&self, n: usize) -> Vec<u8> {
        let start = (n * PAGE).min(self.bytes.len());
        let end = ((n + 1) * PAGE).min(self.bytes.len());
        let mut page = self.bytes[start..end].to_vec();
        page.resize(PAGE, 0);
        page
    }

    pub(crate) fn write(&mut self, offset: usize, data: &[u8], durable: bool) {
        let end = offset + data.len();
        if !durable {
            if self.sizes.is_empty() {
                self.sizes.push(self.bytes.len());
            }
            for n in offset / PAGE..end.div_ceil(PAGE) {
                if !self.versions.contains_key(&n) {
                    self.versions.insert(n, vec![self.page(n)]);
                }
            }
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
        for n in offset / PAGE..end.div_ceil(PAGE) {
            let now = self.page(n);
            if let Some(versions) = self.versions.get_mut(&n) {
                versions.push(now);
            }
        }
        if !self.sizes.is_empty() {
            self.sizes.push(self.bytes.len());
        }
    }

    /// A write is sent again to a server that may have forgotten those before it: pages it covers in part become a mixture with
    /// whatever has survived, until what was forgotten is sent again too.
    pub(crate) fn sent_again(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        for n in offset / PAGE..end.div_ceil(PAGE) {
            let Some(versions) = self.versions.get_mut(&n) else { continue };
            let start = n * PAGE;
            let (from, to) = (offset.max(start), end.min(start + PAGE));
            let mixtures: Vec<Vec<u8>> = versions
                .iter()
                .map(|version| {
                    let mut page = version.clone();
                    page[from - start..to - start].copy_from_slice(&data[from - offset..to - offset]);
                    page
                })
                .collect();
            versions.extend(mixtures);
        }
    }

    pub(crate) fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
    }

    pub(crate) fn punch(&mut self, offset: usize, len: usize) {
        let end = (offset + len).min(self.bytes.len());
        if offset < end {
            self.bytes[offset..end].fill(0);
        }
    }

    /// All of it is durable now.
    pub(crate) fn commit(&mut self) {
        self.versions.clear();
        self.sizes.clear();
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.sizes.is_empty()
    }

    /// Ranges to send again after the server lost its memory: what a client holds until COMMIT.
    pub(crate) fn unstable(&self) -> Vec<(usize, Vec<u8>)> {
        let pages = self.versions.keys().map(|n| n * PAGE).filter(|start| *start < self.bytes.len());
        pages.map(|start| (start, self.bytes[start..(start + PAGE).min(self.bytes.len())].to_vec())).collect()
    }

    /// Takes what the server shows as the newest content; what went before stays possible after a crash.
    pub(crate) fn adopt(&mut self, found: Vec<u8>) {
        self.bytes = found;
        self.sizes.push(self.bytes.len());
        // Cut in the middle of a page, the rest of that page is zeroes when the file grows again.
        let end = self.bytes.len() / PAGE;
        let now = self.page(end);
        if let Some(versions) = self.versions.get_mut(&end) {
            versions.push(now);
        }
    }

    /// Whether a crash may have left `found`.
    pub(crate) fn admits(&self, found: &[u8]) -> Result<(), String> {
        let size_ok = if self.sizes.is_empty() {
            found.len() == self.bytes.len()
        } else {
            // Gathered writes leave in pieces and long truncations go in steps: what is between may be left too.
            let (least, most) = (self.sizes.iter().min(), self.sizes.iter().max());
            least.is_some_and(|n| *n <= found.len()) && most.is_some_and(|n| found.len() <= *n)
        };
        if !size_ok {
            return Err(format!(
                "size {} instead of {} (or one of {:?})",
                found.len(),
                self.bytes.len(),
                self.sizes
            ));
        }
        for (n, got) in found.chunks(PAGE).enumerate() {
            let fits = |version: &Vec<u8>| version[..got.len()] == *got;
            let ok = match self.versions.get(&n) {
                Some(versions) => versions.iter().any(fits),
                None => fits(&self.page(n)),
            };
            if !ok {
                let expect = self.page(n);
                let at = got.iter().zip(&expect).position(|(a, b)| a != b).unwrap_or(0);
                return Err(format!(
                    "page {n}, byte {at}: {:#04x} instead of {:#04x}{}",
                    got[at],
                    expect[at],
                    if self.versions.contains_key(&n) { " or any earlier version" } else { "" }
                ));
            }
        }
        Ok(())
    }
}

/// What an operation is expected to answer.
pub(crate) type Expected = Result<(), FsError>;

impl Model {
    pub(crate) fn new(root: Ino, mode: u32) -> Model {
        let root = Node { ino: root, mode, nlink: 2, kind: Kind::Dir(BTreeMap::new()) };
        Model { nodes: BTreeMap::from([(ROOT, root)]), next: 1 }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this model")
    }
    pub(crate) fn entries(&self, dir: NodeId) -> &BTreeMap<Vec<u8>, NodeId> {
        match &self.node(dir).kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("only directories are asked for entries"),
        }
    }
    fn entries_mut(&mut self, dir: NodeId) -> &mut BTreeMap<Vec<u8>, NodeId> {
        match &mut self.node_mut(dir).kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("only directories are asked for entries"),
        }
    }
    pub(crate) fn content_mut(&mut self, id: NodeId) -> &mut Content {
        match &mut self.node_mut(id).kind {
            Kind::File(content) => content,
            _ => unreachable!("only files are asked for content"),
        }
    }
    pub(crate) fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.node(id).kind, Kind::Dir(_))
    }
    pub(crate) fn ids(&self, want: impl Fn(&Kind) -> bool) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, n)| want(&n.kind)).map(|(id, _)| *id).collect()
    }
    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries(dir).get(name).copied()
    }

    /// `ino` may be learnt later.
    pub(crate) fn create(&mut self, dir: NodeId, name: &[u8], kind: Kind, mode: u32, ino: Ino) -> NodeId {
        let id = self.next;
        self.next += 1;
        let is_dir = matches!(kind, Kind::Dir(_));
        self.nodes.insert(id, Node { ino, mode, nlink: if is_dir { 2 } else { 1 }, kind });
        self.entries_mut(dir).insert(name.to_vec(), id);
        if is_dir {
            self.node_mut(dir).nlink += 1;
        }
        id
    }

    pub(crate) fn expect_remove(&self, dir: NodeId, name: &[u8], directory: bool) -> Expected {
        let id = self.lookup(dir, name).ok_or(FsError::NotFound)?;
        match (directory, &self.node(id).kind) {
            (true, Kind::Dir(entries)) if entries.is_empty() => Ok(()),
            (true, Kind::Dir(_)) => Err(FsError::NotEmpty),
            (true, _) => Err(FsError::NotDirectory),
            (false, Kind::Dir(_)) => Err(FsError::IsDirectory),
            (false, _) => Ok(()),
        }
    }
    pub(crate) fn remove(&mut self, dir: NodeId, name: &[u8]) {
        let Some(id) = self.entries_mut(dir).remove(name) else { return };
        self.drop_name(dir, id);
    }
    fn drop_name(&mut self, dir: NodeId, id: NodeId) {
        if self.is_dir(id) {
            self.node_mut(dir).nlink -= 1;
            self.nodes.remove(&id);
            return;
        }
        let node = self.node_mut(id);
        node.nlink -= 1;
        if node.nlink == 0 {
            self.nodes.remove(&id);
        }
    }

    pub(crate) fn link(&mut self, id: NodeId, dir: NodeId, name: &[u8]) {
        self.entries_mut(dir).insert(name.to_vec(), id);
        self.node_mut(id).nlink += 1;
    }

    pub(crate) fn is_ancestor(&self, above: NodeId, below: NodeId) -> bool {
        above == below
            || match &self.node(above).kind {
                Kind::Dir(entries) => {
                    entries.values().any(|c| self.is_dir(*c) && self.is_ancestor(*c, below))
                }
                _ => false,
            }
    }

    pub(crate) fn expect_rename(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8])) -> Expected {
        let moved = self.lookup(from.0, from.1).ok_or(FsError::NotFound)?;
        let target = self.lookup(to.0, to.1);
        if target == Some(moved) {
            return Ok(());
        }
        if self.is_dir(moved) && self.is_ancestor(moved, to.0) {
            return Err(FsError::Invalid);
        }
        match target.map(|t| &self.node(t).kind) {
            None => Ok(()),
            Some(Kind::Dir(_)) if !self.is_dir(moved) => Err(FsError::IsDirectory),
            Some(Kind::Dir(entries)) if !entries.is_empty() => Err(FsError::NotEmpty),
            Some(Kind::Dir(_)) => Ok(()),
            Some(_) if self.is_dir(moved) => Err(FsError::NotDirectory),
            Some(_) => Ok(()),
        }
    }
    pub(crate) fn rename(&mut self, from: (NodeId, &[u8]), to: (NodeId, &[u8])) {
        let Some(moved) = self.lookup(from.0, from.1) else { return };
        let target = self.lookup(to.0, to.1);
        if target == Some(moved) {
            return;
        }
        if let Some(target) = target {
            self.entries_mut(to.0).remove(to.1);
            self.drop_name(to.0, target);
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.to_vec(), moved);
        if self.is_dir(moved) {
            self.node_mut(from.0).nlink -= 1;
            self.node_mut(to.0).nlink += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncommitted_pages_may_be_old_or_new_and_nothing_else() {
        let mut content = Content::default();
        content.write(0, &[1; 5000], true);
        content.write(4096, &[2; 904], false);
        let mut old = vec![1; 5000];
        assert!(content.admits(&old).is_ok());
        old[4096..].fill(2);
        assert!(content.admits(&old).is_ok());
        old[4999] = 1;
        assert!(content.admits(&old).is_err(), "half a page");
        content.commit();
        assert!(content.admits(&[1; 5000]).is_err(), "committed data lost");
    }

    #[test]
    fn a_file_cut_short_by_a_full_pool_grows_again_with_zeroes() {
        let mut content = Content::default();
        content.write(0, &[1; 2 * PAGE], false);
        content.adopt(vec![1; PAGE + 100]);
        content.write(3 * PAGE, &[2; 10], false);
        let mut found = vec![1; PAGE + 100];
        found.resize(3 * PAGE, 0);
        found.resize(3 * PAGE + 10, 2);
        assert_eq!(content.admits(&found), Ok(()));
    }
}
