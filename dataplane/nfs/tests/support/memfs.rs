//! A file system in memory behind [`Vfs`]: just enough for protocol tests. It outlives the servers that export it.

use async_trait::async_trait;
use basalt_shard::vfs::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

const ROOT: u64 = 2;

#[derive(Clone, Default)]
pub struct MemFs {
    state: Arc<Mutex<State>>,
}

struct Node {
    attr: Attr,
    data: Vec<u8>,
    target: Bytes,
    names: BTreeMap<Vec<u8>, u64>,
    parent: u64,
    verifier: Option<[u8; 8]>,
    opens: Vec<(u64, Share)>,
}

#[derive(Clone)]
enum Done {
    Created(Created),
    Dir(DirChange),
    Dirs(DirChange, DirChange),
    Linked(Attr, DirChange),
}

#[derive(Default)]
pub struct State {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    clock: u64,
    locks: Vec<(u64, LockOwner, LockRange)>,
    replays: BTreeMap<String, Done>,
    /// Operations answered from `replays`.
    pub deduplicated: u64,
    pub released: Vec<u64>,
}

impl MemFs {
    pub fn new() -> MemFs {
        let fs = MemFs::default();
        {
            let mut s = fs.lock();
            s.next = ROOT;
            let root = s.make(NodeKind::Directory, ROOT, &Credentials::root(), &SetAttr::default());
            assert_eq!(root, ROOT);
            s.nodes.get_mut(&ROOT).unwrap().attr.mode = 0o777;
        }
        fs
    }
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
    pub fn locks(&self) -> usize {
        self.lock().locks.len()
    }
    /// Opens registered, as a restart of the data plane forgets them.
    pub fn opens(&self) -> usize {
        self.lock().nodes.values().map(|n| n.opens.len()).sum()
    }
    pub fn forget_opens(&self) {
        self.lock().nodes.values_mut().for_each(|n| n.opens.clear());
    }
}

impl State {
    fn now(&mut self) -> WallTime {
        self.clock += 1;
        WallTime { sec: 1_700_000_000 + self.clock as i64, nsec: 5 }
    }
    fn make(&mut self, kind: NodeKind, parent: u64, cred: &Credentials, set: &SetAttr) -> u64 {
        let now = self.now();
        let ino = self.next;
        self.next += 1;
        let (kind, rdev, target) = match kind {
            NodeKind::Regular => (FileType::Regular, (0, 0), Bytes::new()),
            NodeKind::Directory => (FileType::Directory, (0, 0), Bytes::new()),
            NodeKind::Symlink(t) => (FileType::Symlink, (0, 0), t),
            NodeKind::BlockDevice(a, b) => (FileType::BlockDevice, (a, b), Bytes::new()),
            NodeKind::CharDevice(a, b) => (FileType::CharDevice, (a, b), Bytes::new()),
            NodeKind::Fifo => (FileType::Fifo, (0, 0), Bytes::new()),
            NodeKind::Socket => (FileType::Socket, (0, 0), Bytes::new()),
        };
        let attr = Attr {
            ino: Ino(ino),
            generation: 1,
            kind,
            mode: set.mode.unwrap_or(0o644),
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: set.uid.unwrap_or(cred.uid),
            gid: set.gid.unwrap_or(cred.gid),
            size: target.len() as u64,
            used: 0,
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            change: self.clock,
        };
        let node = Node {
            attr,
            data: vec![],
            target,
            names: BTreeMap::new(),
            parent,
            verifier: None,
            opens: vec![],
        };
        self.nodes.insert(ino, node);
        ino
    }
    fn node(&mut self, ino: Ino) -> FsResult<&mut Node> {
        self.nodes.get_mut(&ino.0).ok_or(FsError::Stale)
    }
    fn attr(&mut self, ino: u64) -> FsResult<Attr> {
        Ok(self.node(Ino(ino))?.attr.clone())
    }
    fn dir(&mut self, ino: Ino) -> FsResult<&mut Node> {
        let n = self.node(ino)?;
        if n.attr.kind == FileType::Directory { Ok(n) } else { Err(FsError::NotDirectory) }
    }
    fn file(&mut self, ino: Ino) -> FsResult<&mut Node> {
        let n = self.node(ino)?;
        match n.attr.kind {
            FileType::Regular => Ok(n),
            FileType::Directory => Err(FsError::IsDirectory),
            FileType::Symlink => Err(FsError::IsSymlink),
            _ => Err(FsError::WrongType),
        }
    }
    fn allowed(a: &Attr, cred: &Credentials) -> u32 {
        if cred.uid == 0 {
            return 7;
        }
        let shift = if cred.uid == a.uid {
            6
        } else if cred.in_group(a.gid) {
            3
        } else {
            0
        };
        a.mode >> shift & 7
    }
    fn check(&mut self, ino: Ino, cred: &Credentials, need: u32) -> FsResult<()> {
        let a = self.attr(ino.0)?;
        if Self::allowed(&a, cred) & need == need { Ok(()) } else { Err(FsError::Access) }
    }
    fn touch(&mut self, ino: u64) {
        let now = self.now();
        let change = self.clock;
        if let Some(n) = self.nodes.get_mut(&ino) {
            n.attr.mtime = now;
            n.attr.ctime = now;
            n.attr.change = change;
        }
    }
    fn pre(&mut self, ino: Ino) -> FsResult<PreAttr> {
        let a = self.attr(ino.0)?;
        Ok(PreAttr { size: a.size, mtime: a.mtime, ctime: a.ctime, change: a.change })
    }
    fn change(&mut self, dir: Ino, edit: impl FnOnce(&mut State)) -> FsResult<DirChange> {
        let before = self.pre(dir)?;
        edit(self);
        self.touch(dir.0);
        Ok(DirChange { before, after: self.attr(dir.0)?, atomic: true })
    }
    fn replayed(&mut self, cx: &Context) -> Option<Done> {
        let found = self.replays.get(&format!("{:?}", cx.replay?)).cloned();
        self.deduplicated += found.is_some() as u64;
        found
    }
    fn remember(&mut self, cx: &Context, done: Done) {
        if let Some(id) = cx.replay {
            self.replays.insert(format!("{id:?}"), done);
        }
    }
    fn unlink(&mut self, ino: u64) {
        let gone = self.nodes.get_mut(&ino).is_some_and(|n| {
            n.attr.nlink = n.attr.nlink.saturating_sub(1);
            (n.attr.nlink == 0 || n.attr.kind == FileType::Directory) && n.opens.is_empty()
        });
        if gone {
            self.nodes.remove(&ino);
        }
    }
    fn conflict(&self, ino: Ino, owner: &LockOwner, r: LockRange) -> Option<LockConflict> {
        let end = |r: &LockRange| r.offset.saturating_add(r.length);
        self.locks
            .iter()
            .find(|(i, o, l)| {
                *i == ino.0 && o != owner && (l.write || r.write) && l.offset < end(&r) && r.offset < end(l)
            })
            .map(|(_, o, l)| LockConflict { owner: o.clone(), range: *l })
    }
}

#[async_trait(?Send)]
impl Vfs for MemFs {
    fn fsid(&self) -> [u8; 16] {
        *b"memory fs for nf"
    }
    fn root(&self) -> Ino {
        Ino(ROOT)
    }
    fn write_verifier(&self) -> [u8; 8] {
        *b"verifier"
    }
    async fn statfs(&self) -> FsResult<FsStat> {
        let gib = 1 << 30;
        Ok(FsStat {
            total_bytes: 3 * gib,
            free_bytes: 2 * gib,
            available_bytes: gib,
            total_files: 9,
            free_files: 8,
        })
    }
    async fn getattr(&self, ino: Ino, generation: u32) -> FsResult<Attr> {
        let a = self.lock().attr(ino.0)?;
        if generation == 0 || generation == a.generation { Ok(a) } else { Err(FsError::Stale) }
    }
    async fn access(&self, cx: &Context, ino: Ino, mask: u32) -> FsResult<(u32, Attr)> {
        let a = self.lock().attr(ino.0)?;
        let p = State::allowed(&a, &cx.cred);
        let mut got = 0;
        if p & 4 != 0 {
            got |= ACCESS_READ;
        }
        if p & 2 != 0 {
            got |= ACCESS_MODIFY | ACCESS_EXTEND | ACCESS_DELETE;
        }
        if p & 1 != 0 {
            got |= ACCESS_LOOKUP | ACCESS_EXECUTE;
        }
        Ok((got & mask, a))
    }
    async fn lookup(&self, cx: &Context, dir: Ino, name: &[u8]) -> FsResult<(Attr, Attr)> {
        let mut s = self.lock();
        s.dir(dir)?;
        s.check(dir, &cx.cred, 1)?;
        let ino = *s.dir(dir)?.names.get(name).ok_or(FsError::NotFound)?;
        Ok((s.attr(ino)?, s.attr(dir.0)?))
    }
    async fn lookup_parent(&self, _cx: &Context, dir: Ino) -> FsResult<Attr> {
        let mut s = self.lock();
        let parent = s.dir(dir)?.parent;
        s.attr(parent)
    }
    async fn setattr(
        &self,
        cx: &Context,
        ino: Ino,
        set: SetAttr,
        guard: Option<WallTime>,
        opened: bool,
    ) -> FsResult<(PreAttr, Attr)> {
        let mut s = self.lock();
        let before = s.pre(ino)?;
        if guard.is_some_and(|g| g != before.ctime) {
            return Err(FsError::NotSync);
        }
        let owner = s.attr(ino.0)?.uid;
        if (set.mode.is_some() || set.uid.is_some()) && cx.cred.uid != 0 && cx.cred.uid != owner {
            return Err(FsError::NotPermitted);
        }
        if let Some(size) = set.size {
            if !opened && cx.cred.uid != owner {
                s.check(ino, &cx.cred, 2)?;
            }
            let n = s.file(ino)?;
            n.data.resize(size as usize, 0);
            n.attr.size = size;
        }
        s.touch(ino.0);
        let now = s.now();
        let n = s.node(ino)?;
        n.attr.mode = set.mode.unwrap_or(n.attr.mode);
        n.attr.uid = set.uid.unwrap_or(n.attr.uid);
        n.attr.gid = set.gid.unwrap_or(n.attr.gid);
        let time = |t: Option<SetTime>, old| match t {
            None => old,
            Some(SetTime::Now) => now,
            Some(SetTime::To(t)) => t,
        };
        n.attr.atime = time(set.atime, n.attr.atime);
        n.attr.mtime = time(set.mtime, n.attr.mtime);
        Ok((before, n.attr.clone()))
    }
    async fn create(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        kind: NodeKind,
        how: CreateHow,
        set: SetAttr,
    ) -> FsResult<Created> {
        let mut s = self.lock();
        if let Some(Done::Created(c)) = s.replayed(cx) {
            return Ok(c);
        }
        if let Some(ino) = s.dir(dir)?.names.get(name).copied() {
            let (same, attr) = {
                let n = s.node(Ino(ino))?;
                (n.verifier.is_some() && n.verifier == exclusive(how), n.attr.clone())
            };
            match how {
                CreateHow::Unchecked if attr.kind == FileType::Regular => {
                    if let Some(size) = set.size {
                        s.check(Ino(ino), &cx.cred, 2)?;
                        let n = s.file(Ino(ino))?;
                        n.data.resize(size as usize, 0);
                        n.attr.size = size;
                    }
                }
                CreateHow::Exclusive(_) if same => {}
                _ => return Err(FsError::Exists),
            }
            let d = s.change(dir, |_| ())?;
            return Ok(Created { attr: s.attr(ino)?, created: false, dir: d });
        }
        s.check(dir, &cx.cred, 3)?;
        let is_dir = kind == NodeKind::Directory;
        let ino = s.make(kind, dir.0, &cx.cred, &set);
        s.node(Ino(ino))?.verifier = exclusive(how);
        let d = s.change(dir, |s| {
            let n = s.nodes.get_mut(&dir.0).unwrap();
            n.names.insert(name.to_vec(), ino);
            n.attr.nlink += is_dir as u32;
        })?;
        let made = Created { attr: s.attr(ino)?, created: true, dir: d };
        s.remember(cx, Done::Created(made.clone()));
        Ok(made)
    }
    async fn remove(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        directory: Option<bool>,
    ) -> FsResult<DirChange> {
        let mut s = self.lock();
        if let Some(Done::Dir(d)) = s.replayed(cx) {
            return Ok(d);
        }
        let ino = *s.dir(dir)?.names.get(name).ok_or(FsError::NotFound)?;
        s.check(dir, &cx.cred, 3)?;
        let n = s.node(Ino(ino))?;
        let is_dir = n.attr.kind == FileType::Directory;
        match directory {
            Some(true) if !is_dir => return Err(FsError::NotDirectory),
            Some(false) if is_dir => return Err(FsError::IsDirectory),
            _ if !n.names.is_empty() => return Err(FsError::NotEmpty),
            _ => {}
        }
        let d = s.change(dir, |s| {
            s.nodes.get_mut(&dir.0).unwrap().names.remove(name);
            s.unlink(ino);
        })?;
        s.remember(cx, Done::Dir(d.clone()));
        Ok(d)
    }
    async fn rename(
        &self,
        cx: &Context,
        from_dir: Ino,
        from: &[u8],
        to_dir: Ino,
        to: &[u8],
    ) -> FsResult<(DirChange, DirChange)> {
        let mut s = self.lock();
        if let Some(Done::Dirs(a, b)) = s.replayed(cx) {
            return Ok((a, b));
        }
        let ino = *s.dir(from_dir)?.names.get(from).ok_or(FsError::NotFound)?;
        let old = s.dir(to_dir)?.names.get(to).copied();
        let a = s.change(from_dir, |s| {
            s.nodes.get_mut(&from_dir.0).unwrap().names.remove(from);
        })?;
        let b = s.change(to_dir, |s| {
            s.nodes.get_mut(&to_dir.0).unwrap().names.insert(to.to_vec(), ino);
            s.nodes.get_mut(&ino).unwrap().parent = to_dir.0;
            if let Some(old) = old.filter(|o| *o != ino) {
                s.unlink(old);
            }
        })?;
        s.remember(cx, Done::Dirs(a.clone(), b.clone()));
        Ok((a, b))
    }
    async fn link(&self, cx: &Context, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<(Attr, DirChange)> {
        let mut s = self.lock();
        if let Some(Done::Linked(a, d)) = s.replayed(cx) {
            return Ok((a, d));
        }
        if s.dir(dir)?.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        if s.node(ino)?.attr.kind == FileType::Directory {
            return Err(FsError::IsDirectory);
        }
        let d = s.change(dir, |s| {
            s.nodes.get_mut(&dir.0).unwrap().names.insert(name.to_vec(), ino.0);
            s.nodes.get_mut(&ino.0).unwrap().attr.nlink += 1;
        })?;
        let a = s.attr(ino.0)?;
        s.remember(cx, Done::Linked(a.clone(), d.clone()));
        Ok((a, d))
    }
    async fn readlink(&self, _cx: &Context, ino: Ino) -> FsResult<(Bytes, Attr)> {
        let mut s = self.lock();
        let n = s.node(ino)?;
        if n.attr.kind == FileType::Symlink {
            Ok((n.target.clone(), n.attr.clone()))
        } else {
            Err(FsError::Invalid)
        }
    }
    async fn readdir(
        &self,
        cx: &Context,
        dir: Ino,
        cookie: u64,
        max_entries: usize,
        want_attrs: bool,
    ) -> FsResult<ReadDir> {
        let mut s = self.lock();
        s.dir(dir)?;
        s.check(dir, &cx.cred, 4)?;
        // The inode number is the cookie; hard links in one directory are not listed twice by the tests.
        let mut all: Vec<(Vec<u8>, u64)> = s.dir(dir)?.names.iter().map(|(n, i)| (n.clone(), *i)).collect();
        all.sort_by_key(|e| e.1);
        let rest: Vec<_> = all.into_iter().filter(|e| e.1 > cookie).collect();
        let eof = rest.len() <= max_entries;
        let mut entries = Vec::new();
        for (name, ino) in rest.into_iter().take(max_entries) {
            let a = s.attr(ino)?;
            entries.push(DirEntry {
                name: name.into(),
                ino: a.ino,
                kind: a.kind,
                cookie: ino,
                attr: want_attrs.then_some(a),
            });
        }
        Ok(ReadDir { entries, eof, dir: s.attr(dir.0)? })
    }
    async fn read(&self, cx: &Context, ino: Ino, offset: u64, len: u32, opened: bool) -> FsResult<ReadReply> {
        let mut s = self.lock();
        s.file(ino)?;
        if !opened && s.attr(ino.0)?.uid != cx.cred.uid {
            s.check(ino, &cx.cred, 4)?;
        }
        let n = s.file(ino)?;
        let from = (offset as usize).min(n.data.len());
        let to = (from + len as usize).min(n.data.len());
        let data = Bytes::copy_from_slice(&n.data[from..to]);
        let half = data.len() / 2;
        let (a, b) = (data.slice(..half), data.slice(half..));
        Ok(ReadReply { data: vec![a, b], eof: to == n.data.len(), attr: n.attr.clone() })
    }
    async fn write(
        &self,
        cx: &Context,
        ino: Ino,
        offset: u64,
        data: Vec<Bytes>,
        stability: Stability,
        opened: bool,
    ) -> FsResult<WriteReply> {
        let mut s = self.lock();
        s.file(ino)?;
        if !opened && s.attr(ino.0)?.uid != cx.cred.uid {
            s.check(ino, &cx.cred, 2)?;
        }
        let before = s.pre(ino)?;
        let flat = data.concat();
        s.touch(ino.0);
        let n = s.file(ino)?;
        let end = offset as usize + flat.len();
        if n.data.len() < end {
            n.data.resize(end, 0);
        }
        n.data[offset as usize..end].copy_from_slice(&flat);
        n.attr.size = n.data.len() as u64;
        n.attr.used = n.attr.size;
        let after = n.attr.clone();
        Ok(WriteReply {
            count: flat.len() as u32,
            committed: stability,
            verifier: *b"verifier",
            before,
            after,
        })
    }
    async fn commit(
        &self,
        _cx: &Context,
        ino: Ino,
        _offset: u64,
        _len: u64,
    ) -> FsResult<([u8; 8], PreAttr, Attr)> {
        let mut s = self.lock();
        Ok((*b"verifier", s.pre(ino)?, s.attr(ino.0)?))
    }
    async fn seek(&self, _cx: &Context, ino: Ino, offset: u64, what: SeekWhat) -> FsResult<u64> {
        let mut s = self.lock();
        let size = s.file(ino)?.attr.size;
        match what {
            SeekWhat::Data if offset < size => Ok(offset),
            SeekWhat::Data => Err(FsError::NoMoreData),
            SeekWhat::Hole => Ok(size),
        }
    }
    async fn deallocate(&self, _cx: &Context, ino: Ino, offset: u64, len: u64) -> FsResult<Attr> {
        let mut s = self.lock();
        s.touch(ino.0);
        let n = s.file(ino)?;
        let end = (offset.saturating_add(len) as usize).min(n.data.len());
        let from = (offset as usize).min(end);
        n.data[from..end].fill(0);
        Ok(n.attr.clone())
    }
    async fn open(&self, cx: &Context, ino: Ino, client: u64, share: Share, check: bool) -> FsResult<Attr> {
        let mut s = self.lock();
        s.file(ino)?;
        if check && s.attr(ino.0)?.uid != cx.cred.uid {
            let need = ((share.access & 1) * 4) | (share.access & 2);
            s.check(ino, &cx.cred, need)?;
        }
        let n = s.file(ino)?;
        if n.opens.iter().any(|(_, o)| o.deny & share.access != 0 || o.access & share.deny != 0) {
            return Err(FsError::ShareDenied);
        }
        n.opens.push((client, share));
        Ok(n.attr.clone())
    }
    async fn close(&self, ino: Ino, client: u64, share: Share) -> FsResult<()> {
        let mut s = self.lock();
        let n = s.node(ino)?;
        let at = n.opens.iter().position(|o| *o == (client, share));
        n.opens.remove(at.expect("close without its open"));
        if n.opens.is_empty() && n.attr.nlink == 0 {
            s.nodes.remove(&ino.0);
        }
        Ok(())
    }
    async fn lock(
        &self,
        _cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Result<(), LockConflict>> {
        let mut s = self.lock();
        if let Some(c) = s.conflict(ino, owner, range) {
            return Ok(Err(c));
        }
        s.locks.push((ino.0, owner.clone(), range));
        Ok(Ok(()))
    }
    async fn unlock(
        &self,
        _cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        offset: u64,
        length: u64,
    ) -> FsResult<()> {
        // Whole locks only.
        let end = offset.saturating_add(length);
        self.lock()
            .locks
            .retain(|(i, o, l)| !(*i == ino.0 && o == owner && l.offset >= offset && l.offset < end));
        Ok(())
    }
    async fn test_lock(
        &self,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Option<LockConflict>> {
        Ok(self.lock().conflict(ino, owner, range))
    }
    async fn holds_locks(&self, ino: Ino, owner: &LockOwner) -> FsResult<bool> {
        Ok(self.lock().locks.iter().any(|(i, o, _)| *i == ino.0 && o == owner))
    }
    async fn release_client(&self, client: u64, _sessions: &[[u8; 16]]) -> FsResult<()> {
        let mut s = self.lock();
        s.released.push(client);
        s.locks.retain(|(_, o, _)| o.client != client);
        s.nodes.values_mut().for_each(|n| n.opens.retain(|o| o.0 != client));
        Ok(())
    }
}

fn exclusive(how: CreateHow) -> Option<[u8; 8]> {
    if let CreateHow::Exclusive(v) = how { Some(v) } else { None }
}
