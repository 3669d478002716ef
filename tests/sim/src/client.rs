//! A simulated client: makes up operations on its own subtree, does them through [`Vfs`], and compares every answer with
//! its model. Like an NFS client it sends a request again, under the same identity, until it is answered, and keeps
//! uncommitted data until COMMIT.

use crate::model::{Kind, Model, NodeId, PAGE, ROOT};
use basalt_reactor::{random_u64, sleep};
use basalt_shard::vfs::*;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const NODES_MAX: usize = 60;
const FILE_BYTES_MAX: usize = 1 << 20;

pub(crate) type Shared = Rc<RefCell<State>>;

/// Outlives crashes of the server.
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) model: Model,
    session: [u8; 16],
    sequence: u32,
    /// Sent and not yet answered.
    pending: Option<Op>,
    pub(crate) operations: u64,
    pub(crate) no_space: u64,
    pub(crate) retried: u64,
    /// Newest change attribute seen of each inode.
    changes: BTreeMap<Ino, u64>,
    verifier: [u8; 8],
}

/// One request, in terms of the model.
#[derive(Clone, Debug)]
enum Op {
    Create { dir: NodeId, name: Vec<u8>, kind: Make, mode: u32 },
    Remove { dir: NodeId, name: Vec<u8>, directory: bool },
    Rename { from: (NodeId, Vec<u8>), to: (NodeId, Vec<u8>) },
    Link { id: NodeId, dir: NodeId, name: Vec<u8> },
    Chmod { id: NodeId, mode: u32 },
    Write { id: NodeId, offset: usize, data: Vec<u8>, stability: Stability },
    Commit { id: NodeId },
    Resize { id: NodeId, size: usize },
    Punch { id: NodeId, offset: usize, len: usize },
    Read { id: NodeId },
    List { dir: NodeId },
    Stat { id: NodeId },
}

#[derive(Clone, Debug)]
enum Make {
    Dir,
    File,
    Symlink(Vec<u8>),
    Fifo,
}

pub(crate) type Check = Result<(), String>;

fn below(n: usize) -> usize {
    (random_u64() % n.max(1) as u64) as usize
}

impl State {
    pub(crate) fn new(number: u8, root: &Attr) -> State {
        State {
            name: format!("client-{number}"),
            model: Model::new(root.ino, root.mode),
            session: [number + 1; 16],
            sequence: 0,
            pending: None,
            operations: 0,
            no_space: 0,
            retried: 0,
            changes: BTreeMap::new(),
            verifier: [0; 8],
        }
    }

    fn name(&self) -> Vec<u8> {
        format!("n{}", below(24)).into_bytes()
    }
    fn pick(&self, want: impl Fn(&Kind) -> bool) -> Option<NodeId> {
        let ids = self.model.ids(want);
        (!ids.is_empty()).then(|| ids[below(ids.len())])
    }
    fn dir(&self) -> NodeId {
        self.pick(|k| matches!(k, Kind::Dir(_))).unwrap_or(ROOT)
    }
    /// A name that exists, most of the time.
    fn entry(&self) -> (NodeId, Vec<u8>) {
        let dir = self.dir();
        let entries = self.model.entries(dir);
        let name = match below(8) {
            0 => None,
            _ => entries.keys().nth(below(entries.len())).cloned(),
        };
        (dir, name.unwrap_or_else(|| self.name()))
    }

    fn make_up(&self) -> Op {
        let file = self.pick(|k| matches!(k, Kind::File(_)));
        let full = self.model.ids(|_| true).len() >= NODES_MAX;
        let dice = below(100);
        match (dice, file) {
            (0..=9, _) if !full => Op::Create {
                dir: self.dir(),
                name: self.name(),
                kind: Make::Dir,
                mode: 0o700 | below(64) as u32,
            },
            (0..=26, _) if !full => {
                let kind = match below(8) {
                    0 => Make::Symlink(vec![b'x'; 1 + below(200)]),
                    1 => Make::Fifo,
                    _ => Make::File,
                };
                Op::Create { dir: self.dir(), name: self.name(), kind, mode: 0o600 | below(64) as u32 }
            }
            (0..=26, _) => {
                let (dir, name) = self.entry();
                let directory = self.model.lookup(dir, &name).is_some_and(|id| self.model.is_dir(id));
                Op::Remove { dir, name, directory }
            }
            (27..=33, _) => {
                let (dir, name) = self.entry();
                Op::Remove { dir, name, directory: below(3) == 0 }
            }
            (34..=45, _) => {
                let to = if below(3) == 0 { self.entry() } else { (self.dir(), self.name()) };
                Op::Rename { from: self.entry(), to }
            }
            (46..=49, Some(id)) => Op::Link { id, dir: self.dir(), name: self.name() },
            (50..=72, Some(id)) => self.make_up_write(id),
            (73..=79, Some(id)) => Op::Commit { id },
            (80..=83, Some(id)) => Op::Resize { id, size: self.odd_size() },
            (84..=85, Some(id)) => Op::Punch { id, offset: self.odd_size(), len: 1 + self.odd_size() },
            (86..=91, Some(id)) => Op::Read { id },
            (92..=94, _) => Op::Chmod {
                id: self.pick(|k| !matches!(k, Kind::Symlink(_))).unwrap_or(ROOT),
                mode: below(0o1000) as u32 | 0o600,
            },
            (95..=97, _) => Op::List { dir: self.dir() },
            _ => Op::Stat { id: self.pick(|_| true).unwrap_or(ROOT) },
        }
    }

    /// Small most of the time, on page boundaries some of the time.
    fn odd_size(&self) -> usize {
        let size = match below(4) {
            0 => below(200),
            1 => below(5 * PAGE),
            2 => below(64) * PAGE,
            _ => below(FILE_BYTES_MAX),
        };
        size.min(FILE_BYTES_MAX)
    }

    fn make_up_write(&self, id: NodeId) -> Op {
        let offset = self.odd_size() / 2;
        let len = (1 + self.odd_size() / 2).min(256 << 10);
        let mut data = vec![0; len];
        // Never all zeroes: a hole must not pass for data.
        let fill = random_u64() | 1;
        data.iter_mut().enumerate().for_each(|(i, b)| *b = (fill >> (8 * (i % 8))) as u8 ^ (i / 512) as u8);
        let stability = if below(3) == 0 { Stability::FileSync } else { Stability::Unstable };
        Op::Write { id, offset, data, stability }
    }

    /// What a client has to do first: data that a later request could outrun is committed before it.
    fn must_commit_first(&self, op: &Op) -> Option<NodeId> {
        match op {
            Op::Resize { id, .. } | Op::Punch { id, .. } => match &self.model.node(*id).kind {
                Kind::File(content) if content.is_dirty() => Some(*id),
                _ => None,
            },
            _ => None,
        }
    }

    fn expect(&self, op: &Op) -> Result<(), FsError> {
        let model = &self.model;
        match op {
            Op::Create { dir, name, .. } | Op::Link { dir, name, .. } => {
                if model.lookup(*dir, name).is_some() { Err(FsError::Exists) } else { Ok(()) }
            }
            Op::Remove { dir, name, directory } => model.expect_remove(*dir, name, *directory),
            Op::Rename { from, to } => model.expect_rename((from.0, &from.1), (to.0, &to.1)),
            _ => Ok(()),
        }
    }

    /// The model follows an operation that succeeded.
    fn apply(&mut self, op: &Op, ino: Option<Ino>) {
        let model = &mut self.model;
        match op {
            Op::Create { dir, name, kind, mode } => {
                // The mode of a symbolic link means nothing; it is always 0777.
                let mode = if matches!(kind, Make::Symlink(_)) { &0o777 } else { mode };
                let kind = match kind {
                    Make::Dir => Kind::Dir(BTreeMap::new()),
                    Make::File => Kind::File(Default::default()),
                    Make::Symlink(target) => Kind::Symlink(target.clone()),
                    Make::Fifo => Kind::Fifo,
                };
                model.create(*dir, name, kind, *mode, ino.unwrap_or(Ino(0)));
            }
            Op::Remove { dir, name, .. } => model.remove(*dir, name),
            Op::Rename { from, to } => model.rename((from.0, &from.1), (to.0, &to.1)),
            Op::Link { id, dir, name } => model.link(*id, *dir, name),
            Op::Chmod { id, mode } => model.node_mut(*id).mode = *mode,
            Op::Write { id, offset, data, stability } => {
                model.content_mut(*id).write(*offset, data, *stability == Stability::FileSync);
            }
            Op::Commit { id } => model.content_mut(*id).commit(),
            Op::Resize { id, size } => model.content_mut(*id).resize(*size),
            Op::Punch { id, offset, len } => model.content_mut(*id).punch(*offset, *len),
            Op::Read { .. } | Op::List { .. } | Op::Stat { .. } => {}
        }
    }

    fn saw(&mut self, attr: &Attr, changed: bool) -> Check {
        let seen = self.changes.entry(attr.ino).or_insert(0);
        if attr.change < *seen || changed && attr.change == *seen {
            return Err(format!("change attribute of {:?} went from {seen} to {}", attr.ino, attr.change));
        }
        *seen = attr.change;
        Ok(())
    }
}

/// Does `count` operations, then returns.
pub(crate) async fn run(vfs: Rc<dyn Vfs>, state: Shared, count: u64) -> Check {
    for _ in 0..count {
        let op = {
            let state = state.borrow();
            let op = state.make_up();
            state.must_commit_first(&op).map_or(op, |id| Op::Commit { id })
        };
        step(&*vfs, &state, op).await?;
        if below(4) == 0 {
            sleep(Duration::from_micros(below(500) as u64)).await;
        }
    }
    Ok(())
}

/// One operation, sent until it is answered.
async fn step(vfs: &dyn Vfs, state: &Shared, op: Op) -> Check {
    {
        let mut state = state.borrow_mut();
        state.sequence += 1;
        state.pending = Some(op.clone());
    }
    finish(vfs, state, op).await
}

async fn finish(vfs: &dyn Vfs, state: &Shared, op: Op) -> Check {
    let expected = state.borrow().expect(&op);
    let mut tries = 0;
    let answer = loop {
        match perform(vfs, state, &op).await? {
            Err(FsError::Delay) => {
                tries += 1;
                if tries > 3000 {
                    return Err(format!("{op:?}: told to come back {tries} times"));
                }
                sleep(Duration::from_millis(10)).await;
            }
            answer => break answer,
        }
    };
    if let (Op::Write { id, offset, data, .. }, Err(FsError::NoSpace)) = (&op, &answer) {
        // Nothing of it was promised, and part of it may have been taken: what is there now is what counts.
        let ino = state.borrow().model.node(*id).ino;
        let found = read_all(vfs, ino).await?;
        let mut state = state.borrow_mut();
        let content = state.model.content_mut(*id);
        content.write(*offset, data, false);
        content.admits(&found).map_err(|e| format!("after no space: {ino:?}: {e}"))?;
        content.adopt(found);
    }
    if let (Op::Resize { id, .. } | Op::Punch { id, .. }, Err(FsError::NoSpace)) = (&op, &answer) {
        // They go in steps, and some may have been taken.
        let ino = state.borrow().model.node(*id).ino;
        let found = read_all(vfs, ino).await?;
        let mut state = state.borrow_mut();
        let content = state.model.content_mut(*id);
        content.resize(found.len());
        content.write(0, &found, false);
    }
    let mut state = state.borrow_mut();
    state.pending = None;
    state.operations += 1;
    match (&expected, answer) {
        (Ok(()), Ok(ino)) => state.apply(&op, ino),
        (_, Err(FsError::NoSpace)) => state.no_space += 1,
        (Err(e), Err(got)) if *e == got => {}
        (_, answer) => {
            return Err(format!("{}: {op:?} answered {answer:?} instead of {expected:?}", state.name));
        }
    }
    Ok(())
}

/// The outer result is a broken promise, the inner one the answer.
async fn perform(vfs: &dyn Vfs, state: &Shared, op: &Op) -> Result<FsResult<Option<Ino>>, String> {
    let ino = |id: &NodeId| state.borrow().model.node(*id).ino;
    let cx = {
        let state = state.borrow();
        let replay = ReplayId::V4 { session: state.session, slot: 0, sequence: state.sequence, op: 1 };
        Context { cred: Credentials::root(), replay: Some(replay) }
    };
    let saw = |attr: &Attr, changed: bool| state.borrow_mut().saw(attr, changed);
    Ok(match op {
        Op::Create { dir, name, kind, mode } => {
            let node = match kind {
                Make::Dir => NodeKind::Directory,
                Make::File => NodeKind::Regular,
                Make::Symlink(target) => NodeKind::Symlink(Bytes::from(target.clone())),
                Make::Fifo => NodeKind::Fifo,
            };
            let set = SetAttr { mode: Some(*mode), ..Default::default() };
            match vfs.create(&cx, ino(dir), name, node, CreateHow::Guarded, set).await {
                Ok(made) if state.borrow().changes.contains_key(&made.attr.ino) && made.dir.atomic => {
                    return Err(format!("{op:?} was given {:?}, which has been used before", made.attr.ino));
                }
                Ok(made) => {
                    saw(&made.attr, false)?;
                    saw(&made.dir.after, made.dir.atomic)?;
                    Ok(Some(made.attr.ino))
                }
                Err(e) => Err(e),
            }
        }
        Op::Remove { dir, name, directory } => {
            vfs.remove(&cx, ino(dir), name, Some(*directory)).await.map(|_| None)
        }
        Op::Rename { from, to } => {
            vfs.rename(&cx, ino(&from.0), &from.1, ino(&to.0), &to.1).await.map(|_| None)
        }
        Op::Link { id, dir, name } => vfs.link(&cx, ino(id), ino(dir), name).await.map(|_| None),
        Op::Chmod { id, mode } => {
            let set = SetAttr { mode: Some(*mode), ..Default::default() };
            match vfs.setattr(&cx, ino(id), set, None, false).await {
                Ok((_, after)) => {
                    saw(&after, false)?;
                    Ok(None)
                }
                Err(e) => Err(e),
            }
        }
        Op::Write { id, offset, data, stability } => {
            let ino = ino(id);
            // As the kernel client's, data arrives in odd pieces.
            let cut = below(data.len());
            let pieces = vec![Bytes::copy_from_slice(&data[..cut]), Bytes::copy_from_slice(&data[cut..])];
            match vfs.write(&cx, ino, *offset as u64, pieces, *stability, true).await {
                Ok(reply) if reply.count as usize != data.len() => {
                    return Err(format!("{} of {} bytes written", reply.count, data.len()));
                }
                Ok(reply) => {
                    saw(&reply.after, true)?;
                    if reply.committed < *stability {
                        return Err(format!("asked for {stability:?}, got {:?}", reply.committed));
                    }
                    state.borrow_mut().verifier = reply.verifier;
                    Ok(None)
                }
                Err(e) => Err(e),
            }
        }
        Op::Commit { id } => match vfs.commit(&cx, ino(id), 0, 0).await {
            Ok((verifier, _, _)) => {
                let dirty = matches!(&state.borrow().model.node(*id).kind, Kind::File(c) if c.is_dirty());
                if dirty && verifier != state.borrow().verifier {
                    return Err("the write verifier changed although the server did not restart".to_owned());
                }
                Ok(None)
            }
            Err(e) => Err(e),
        },
        Op::Resize { id, size } => {
            let set = SetAttr { size: Some(*size as u64), ..Default::default() };
            match vfs.setattr(&cx, ino(id), set, None, true).await {
                Ok((_, after)) => {
                    saw(&after, false)?;
                    Ok(None)
                }
                Err(e) => Err(e),
            }
        }
        Op::Punch { id, offset, len } => {
            vfs.deallocate(&cx, ino(id), *offset as u64, *len as u64).await.map(|_| None)
        }
        Op::Read { id } => {
            let (found, node) = (read_all(vfs, ino(id)).await?, state.borrow().model.node(*id).clone());
            let Kind::File(content) = node.kind else { return Err("not a file".to_owned()) };
            if found != content.bytes {
                let at = found.iter().zip(&content.bytes).position(|(a, b)| a != b);
                return Err(format!(
                    "read {} bytes of {:?}, expected {}, first difference at {at:?}",
                    found.len(),
                    node.ino,
                    content.bytes.len()
                ));
            }
            Ok(None)
        }
        Op::List { dir } => {
            let model = state.borrow().model.clone();
            compare_directory(vfs, &model, *dir).await?;
            Ok(None)
        }
        Op::Stat { id } => {
            let node = state.borrow().model.node(*id).clone();
            let attr = vfs.getattr(node.ino, 0).await.map_err(|e| format!("stat of {:?}: {e}", node.ino))?;
            saw(&attr, false)?;
            compare_attr(&node, &attr, true)?;
            Ok(None)
        }
    })
}

async fn read_all(vfs: &dyn Vfs, ino: Ino) -> Result<Vec<u8>, String> {
    let mut found = Vec::new();
    loop {
        let reply = retry(|| vfs.read(&ROOT_CX, ino, found.len() as u64, 1 << 20, true)).await;
        let reply = reply.map_err(|e| format!("read of {ino:?} at {}: {e}", found.len()))?;
        let before = found.len();
        reply.data.iter().for_each(|piece| found.extend_from_slice(piece));
        if reply.eof || found.len() == before {
            return Ok(found);
        }
    }
}

static ROOT_CX: Context = Context { cred: Credentials { uid: 0, gid: 0, groups: Vec::new() }, replay: None };

async fn retry<T, F: Future<Output = FsResult<T>>>(mut f: impl FnMut() -> F) -> FsResult<T> {
    for _ in 0..3000 {
        match f().await {
            Err(FsError::Delay) => sleep(Duration::from_millis(10)).await,
            answer => return answer,
        }
    }
    Err(FsError::Delay)
}

fn compare_attr(node: &crate::model::Node, attr: &Attr, with_size: bool) -> Check {
    let kind = match node.kind {
        Kind::Dir(_) => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
    };
    if (attr.kind, attr.mode, attr.nlink) != (kind, node.mode, node.nlink) {
        return Err(format!(
            "{:?} is {:?} {:o} with {} links, expected {kind:?} {:o} with {}",
            node.ino, attr.kind, attr.mode, attr.nlink, node.mode, node.nlink
        ));
    }
    match &node.kind {
        Kind::File(content) if with_size && attr.size != content.bytes.len() as u64 => {
            Err(format!("{:?} has {} bytes, expected {}", node.ino, attr.size, content.bytes.len()))
        }
        _ => Ok(()),
    }
}

async fn compare_directory(vfs: &dyn Vfs, model: &Model, dir: NodeId) -> Check {
    let node = model.node(dir);
    let mut found = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let max_entries = 1 + below(40);
        let page = retry(|| vfs.readdir(&ROOT_CX, node.ino, cookie, max_entries, true)).await;
        let page = page.map_err(|e| format!("readdir of {:?}: {e}", node.ino))?;
        for entry in &page.entries {
            if found.insert(entry.name.to_vec(), entry.ino).is_some() {
                return Err(format!("{:?} lists {:?} twice", node.ino, entry.name));
            }
            cookie = entry.cookie;
        }
        if page.eof {
            break;
        }
        if page.entries.is_empty() {
            return Err(format!("readdir of {:?} makes no progress", node.ino));
        }
    }
    let expect: BTreeMap<Vec<u8>, Ino> =
        model.entries(dir).iter().map(|(name, id)| (name.clone(), model.node(*id).ino)).collect();
    if found != expect {
        let show = |m: &BTreeMap<Vec<u8>, Ino>| {
            m.iter()
                .map(|(n, i)| format!("{}={}", String::from_utf8_lossy(n), i.0))
                .collect::<Vec<_>>()
                .join(" ")
        };
        return Err(format!("{:?} lists [{}], expected [{}]", node.ino, show(&found), show(&expect)));
    }
    Ok(())
}

/// The whole subtree against `model`, uncommitted data allowed to be lost.
async fn compare_tree(vfs: &dyn Vfs, model: &Model) -> Check {
    for id in model.ids(|_| true) {
        let node = model.node(id);
        let attr = retry(|| vfs.getattr(node.ino, 0)).await.map_err(|e| format!("{:?}: {e}", node.ino))?;
        compare_attr(node, &attr, false)?;
        match &node.kind {
            Kind::Dir(_) => compare_directory(vfs, model, id).await?,
            Kind::Symlink(target) => {
                let (found, _) =
                    vfs.readlink(&ROOT_CX, node.ino).await.map_err(|e| format!("readlink: {e}"))?;
                if found != target {
                    return Err(format!("{:?} is a link to something else", node.ino));
                }
            }
            Kind::File(content) => {
                let found = read_all(vfs, node.ino).await?;
                content.admits(&found).map_err(|e| format!("{:?}: {e}", node.ino))?;
            }
            Kind::Fifo => {}
        }
    }
    Ok(())
}

/// After a restart of the server: everything answered is there, the unanswered request is there whole or not at all;
/// then that request is sent again and uncommitted data too, and all is exactly as the model says.
pub(crate) async fn recover(vfs: Rc<dyn Vfs>, state: Shared) -> Check {
    // Uncommitted data is sent again before anything is committed, and before it is read.
    let pending = state.borrow_mut().pending.take_if(|op| !matches!(op, Op::Commit { .. } | Op::Read { .. }));
    {
        let mut state = state.borrow_mut();
        state.pending = None;
        // Attributes of lost writes may have been seen.
        state.changes.clear();
        state.verifier = vfs.write_verifier();
    }
    // With a request unanswered both outcomes are right; the comparison after it was sent again tells.
    if pending.is_none() {
        let model = state.borrow().model.clone();
        let compared = compare_tree(&*vfs, &model).await;
        compared.map_err(|e| format!("{} after restart: {e}", state.borrow().name))?;
    }
    if let Some(op) = pending {
        state.borrow_mut().retried += 1;
        let name = state.borrow().name.clone();
        if let Op::Write { id, offset, data, .. } = &op {
            state.borrow_mut().model.content_mut(*id).sent_again(*offset, data);
        }
        finish(&*vfs, &state, op.clone()).await.map_err(|e| format!("{name}, sending {op:?} again: {e}"))?;
    }
    let files = state.borrow().model.ids(|k| matches!(k, Kind::File(c) if c.is_dirty()));
    for id in files {
        let content = state.borrow_mut().model.content_mut(id).clone();
        let size = content.bytes.len();
        for (offset, data) in content.unstable() {
            step(&*vfs, &state, Op::Write { id, offset, data, stability: Stability::FileSync }).await?;
        }
        // A write that only lengthened the file by a hole cannot be: each ends in data.
        step(&*vfs, &state, Op::Commit { id }).await?;
        debug_assert_eq!(state.borrow_mut().model.content_mut(id).bytes.len(), size);
    }
    let model = state.borrow().model.clone();
    compare_tree(&*vfs, &model)
        .await
        .map_err(|e| format!("{} after restart and retry: {e}", state.borrow().name))
}
