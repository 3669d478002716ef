//! What a tree of names should be, in a few lines.

use crate::fs::FileSystem;
use crate::ops::ROOT;
use crate::vfs::*;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(usize);
pub(super) const TOP: Id = Id(0);

#[derive(Clone, Debug)]
struct Node {
    dir: bool,
    nlink: u32,
    parent: Id,
    entries: BTreeMap<String, Id>,
    ino: Option<Ino>,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(Id, String),
    Mkdir(Id, String),
    Remove(Id, String),
    Rename(Id, String, Id, String),
    /// The file that the first name stands for gets the second.
    Link(Id, String, Id, String),
}

/// A path, whether it is a directory, and its links.
type Line = (String, bool, u32);

impl Model {
    pub(super) fn new() -> Model {
        let top = Node { dir: true, nlink: 2, parent: TOP, entries: BTreeMap::new(), ino: Some(ROOT) };
        Model { nodes: vec![top] }
    }
    /// Directories that have a name.
    pub(super) fn dirs(&self) -> Vec<Id> {
        let mut found = vec![TOP];
        let mut at = 0;
        while at < found.len() {
            let here = &self.nodes[found[at].0];
            found.extend(here.entries.values().filter(|id| self.nodes[id.0].dir));
            at += 1;
        }
        found
    }
    fn ino(&self, id: Id) -> Ino {
        self.nodes[id.0].ino.expect("only what exists is used")
    }

    pub(super) fn random_op(&self, mut draw: impl FnMut(u64) -> u64) -> Op {
        let dirs = self.dirs();
        let dir = |n: u64| dirs[n as usize % dirs.len()];
        let name = |n: u64| ["a", "b", "c", "d", "e"][n as usize % 5].to_string();
        let (a, b) = (dir(draw(1 << 30)), dir(draw(1 << 30)));
        let (x, y) = (name(draw(1 << 30)), name(draw(1 << 30)));
        match draw(12) {
            0..2 => Op::Create(a, x),
            2..5 => Op::Mkdir(a, x),
            5..7 => Op::Remove(a, x),
            7..10 => Op::Rename(a, x, b, y),
            10 => Op::Rename(a, x, a, y),
            _ => Op::Link(a, x, b, y),
        }
    }

    pub(super) fn apply(&mut self, op: &Op) -> FsResult<()> {
        match op {
            Op::Create(dir, name) => self.add(*dir, name, false),
            Op::Mkdir(dir, name) => self.add(*dir, name, true),
            Op::Remove(dir, name) => {
                let id = self.find(*dir, name)?;
                if self.nodes[id.0].dir && !self.nodes[id.0].entries.is_empty() {
                    return Err(FsError::NotEmpty);
                }
                self.take(*dir, name);
                Ok(())
            }
            Op::Link(from_dir, from, dir, name) => {
                let id = self.find(*from_dir, from)?;
                if self.nodes[id.0].dir {
                    return Err(FsError::NotPermitted);
                }
                if self.find(*dir, name).is_ok() {
                    return Err(FsError::Exists);
                }
                self.nodes[id.0].nlink += 1;
                self.nodes[dir.0].entries.insert(name.clone(), id);
                Ok(())
            }
            Op::Rename(from_dir, from, to_dir, to) => {
                let id = self.find(*from_dir, from)?;
                let dir = self.nodes[id.0].dir;
                if dir && from_dir != to_dir && self.is_above(id, *to_dir) {
                    return Err(FsError::Invalid);
                }
                if let Ok(old) = self.find(*to_dir, to) {
                    if old == id {
                        return Ok(());
                    }
                    match (dir, self.nodes[old.0].dir) {
                        (true, false) => return Err(FsError::NotDirectory),
                        (false, true) => return Err(FsError::IsDirectory),
                        _ => {}
                    }
                    if !self.nodes[old.0].entries.is_empty() {
                        return Err(FsError::NotEmpty);
                    }
                    self.take(*to_dir, to);
                }
                self.nodes[from_dir.0].entries.remove(from);
                self.nodes[to_dir.0].entries.insert(to.clone(), id);
                if dir {
                    self.nodes[from_dir.0].nlink -= 1;
                    self.nodes[to_dir.0].nlink += 1;
                    self.nodes[id.0].parent = *to_dir;
                }
                Ok(())
            }
        }
    }
    fn find(&self, dir: Id, name: &str) -> FsResult<Id> {
        self.nodes[dir.0].entries.get(name).copied().ok_or(FsError::NotFound)
    }
    fn is_above(&self, above: Id, mut at: Id) -> bool {
        while at != TOP {
            if at == above {
                return true;
            }
            at = self.nodes[at.0].parent;
        }
        false
    }
    fn add(&mut self, dir: Id, name: &str, is_dir: bool) -> FsResult<()> {
        if self.find(dir, name).is_ok() {
            return Err(FsError::Exists);
        }
        let id = Id(self.nodes.len());
        let nlink = if is_dir { 2 } else { 1 };
        self.nodes.push(Node { dir: is_dir, nlink, parent: dir, entries: BTreeMap::new(), ino: None });
        self.nodes[dir.0].entries.insert(name.to_string(), id);
        self.nodes[dir.0].nlink += is_dir as u32;
        Ok(())
    }
    fn take(&mut self, dir: Id, name: &str) {
        if let Some(id) = self.nodes[dir.0].entries.remove(name) {
            if self.nodes[id.0].dir {
                self.nodes[dir.0].nlink -= 1;
            } else {
                self.nodes[id.0].nlink -= 1;
            }
        }
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.walk(TOP, "", &mut lines);
        lines.sort();
        lines
    }
    fn walk(&self, id: Id, path: &str, lines: &mut Vec<Line>) {
        lines.push((path.to_string(), self.nodes[id.0].dir, self.nodes[id.0].nlink));
        for (name, child) in &self.nodes[id.0].entries {
            self.walk(*child, &format!("{path}/{name}"), lines);
        }
    }
    /// Takes the inode numbers from what was listed; names of one inode must stand for one node.
    pub(super) fn adopt(&mut self, found: &BTreeMap<String, Attr>) {
        let mut seen: BTreeMap<Ino, Id> = BTreeMap::new();
        for (path, attr) in found {
            let id = path.split('/').skip(1).fold(TOP, |at, name| self.nodes[at.0].entries[name]);
            assert_eq!(*seen.entry(attr.ino).or_insert(id), id, "{path} is another file");
            if let Some(known) = self.nodes[id.0].ino {
                assert_eq!(known, attr.ino, "{path} changed its inode");
            }
            self.nodes[id.0].ino = Some(attr.ino);
        }
    }
    pub(super) fn adopt_one(&mut self, op: &Op, ino: Ino) {
        if let Op::Create(dir, name) | Op::Mkdir(dir, name) = op {
            let id = self.nodes[dir.0].entries[name];
            self.nodes[id.0].ino = Some(ino);
        }
    }

    /// The same operation in words of the file system. Returns the inode that was made.
    pub(super) fn ask(
        &self,
        op: &Op,
        cx: Context,
    ) -> impl FnOnce(FileSystem) -> basalt_reactor::LocalBoxFuture<'static, FsResult<Option<Ino>>> + use<>
    {
        let op = op.clone();
        let (a, b) = match &op {
            Op::Create(a, _) | Op::Mkdir(a, _) | Op::Remove(a, _) => (self.ino(*a), self.ino(*a)),
            Op::Rename(a, _, b, _) | Op::Link(a, _, b, _) => (self.ino(*a), self.ino(*b)),
        };
        move |fs| {
            Box::pin(async move {
                match op {
                    Op::Create(_, name) => fs.make(&cx, a, &name, NodeKind::Regular).await.map(Some),
                    Op::Mkdir(_, name) => fs.make(&cx, a, &name, NodeKind::Directory).await.map(Some),
                    Op::Remove(_, name) => fs.remove(&cx, a, name.as_bytes(), None).await.map(|_| None),
                    Op::Rename(_, from, _, to) => {
                        fs.rename(&cx, a, from.as_bytes(), b, to.as_bytes()).await.map(|_| None)
                    }
                    Op::Link(_, from, _, to) => {
                        let ino = fs.lookup(&cx, a, from.as_bytes()).await?.0.ino;
                        fs.link(&cx, ino, b, to.as_bytes()).await.map(|_| None)
                    }
                }
            })
        }
    }
}

/// Everything there is, by path.
pub(super) async fn listed(fs: FileSystem) -> BTreeMap<String, Attr> {
    let mut found = BTreeMap::new();
    let top = fs.getattr(ROOT, 0).await.expect("the root is there");
    let mut todo = vec![(String::new(), top)];
    while let Some((path, attr)) = todo.pop() {
        if attr.kind == FileType::Directory {
            for e in fs.ls(attr.ino).await.expect("lists") {
                let name = String::from_utf8(e.name.to_vec()).expect("names are text here");
                let attr = e.attr.expect("has attributes");
                assert_eq!((attr.ino, attr.kind), (e.ino, e.kind));
                todo.push((format!("{path}/{name}"), attr));
            }
        }
        found.insert(path, attr);
    }
    found
}

pub(super) fn lines_of(found: &BTreeMap<String, Attr>) -> Vec<Line> {
    let line = |(path, a): (&String, &Attr)| (path.clone(), a.kind == FileType::Directory, a.nlink);
    found.iter().map(line).collect()
}
