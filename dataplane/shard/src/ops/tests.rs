//! A file system of several shards in the simulator, over stores in memory whose power cuts the test makes.

mod crash;
mod model;
mod names;
mod open;
mod permissions;
mod replay;
mod store;

use super::Shard;
use crate::fs::{FileSystem, Shared};
use crate::index::{Index, Tuning};
use crate::vfs::*;
use basalt_pool::Uuid;
use basalt_reactor::sim::{NodeId, Sim};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use store::{Media, MemoryStore};

thread_local! {
    /// All reactors of a simulated world are on this thread; media survive its crashes.
    static MEDIA: RefCell<BTreeMap<u16, Rc<RefCell<Media>>>> = const { RefCell::new(BTreeMap::new()) };
    static EPOCH: Cell<u64> = const { Cell::new(1) };
}

async fn open_shard(shared: Arc<Shared>, slot: u16) -> FsResult<Rc<Shard>> {
    let media = MEDIA.with_borrow_mut(|m| m.entry(slot).or_default().clone());
    let (store, recovery) = MemoryStore::open(&media);
    let index = Index::over(store, recovery, Tuning::default());
    EPOCH.set(EPOCH.get() + 1);
    Shard::over(index, EPOCH.get(), shared, slot).await
}

pub(crate) struct World {
    sim: Sim,
    node: NodeId,
    slots: u16,
    fs: Option<FileSystem>,
}

impl World {
    pub(crate) fn new(seed: u64, cores: u16, slots: u16) -> World {
        MEDIA.take();
        crate::planted::set(None);
        let mut sim = Sim::new(seed);
        let node = sim.add_node(cores);
        let mut world = World { sim, node, slots, fs: None };
        world.mount();
        world
    }
    fn mount(&mut self) {
        let slots = self.slots;
        let fs =
            self.sim.block_on(self.node, move || FileSystem::mount_over(Uuid([1; 16]), slots, open_shard));
        self.fs = Some(fs.expect("mounts"));
    }
    pub(crate) fn fs(&self) -> FileSystem {
        self.fs.clone().expect("is mounted")
    }
    /// Runs a client to its end.
    pub(crate) fn run<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        client: impl FnOnce(FileSystem) -> F,
    ) -> T {
        let fs = self.fs();
        self.sim.block_on(self.node, || client(fs))
    }
    /// Starts a client; what it answers, if it gets to.
    pub(crate) fn start<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        client: impl FnOnce(FileSystem) -> F,
    ) -> Rc<RefCell<Option<T>>> {
        let fs = self.fs();
        let answer = Rc::new(RefCell::new(None));
        let slot = answer.clone();
        self.sim.spawn_on(self.node, || {
            let client = client(fs);
            async move {
                let value = client.await;
                slot.replace(Some(value));
            }
        });
        answer
    }
    pub(crate) fn let_pass_us(&mut self, us: u64) {
        self.sim.run_until(Duration::from_micros(us), || false);
    }
    pub(crate) fn draw(&mut self, n: u64) -> u64 {
        self.sim.random_u64() % n
    }
    /// Power cut of everything, and a start with another number of cores.
    pub(crate) fn crash(&mut self, cores: u16) {
        self.fs = None;
        self.sim.crash(self.node);
        let media: Vec<_> = MEDIA.with_borrow(|m| m.values().cloned().collect());
        for m in media {
            let keep = self.sim.random_u64();
            m.borrow_mut().power_cut(keep);
        }
        self.sim.restart(self.node, cores);
        self.mount();
    }
    pub(crate) fn check(&mut self) -> Vec<String> {
        self.run(|fs| async move { fs.check().await })
    }
    pub(crate) fn assert_sound(&mut self) {
        let faults = self.check();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// Short forms for tests.
impl FileSystem {
    pub(crate) async fn mkdir_at(&self, dir: Ino, name: &str) -> FsResult<Ino> {
        self.make(&Context::root(), dir, name, NodeKind::Directory).await
    }
    pub(crate) async fn create_at(&self, dir: Ino, name: &str) -> FsResult<Ino> {
        self.make(&Context::root(), dir, name, NodeKind::Regular).await
    }
    pub(crate) async fn make(&self, cx: &Context, dir: Ino, name: &str, kind: NodeKind) -> FsResult<Ino> {
        let set = SetAttr { mode: Some(0o755), ..SetAttr::default() };
        let made = self.create(cx, dir, name.as_bytes(), kind, CreateHow::Guarded, set).await?;
        assert!(made.created);
        Ok(made.attr.ino)
    }
    pub(crate) async fn find_at(&self, dir: Ino, name: &str) -> FsResult<Attr> {
        Ok(self.lookup(&Context::root(), dir, name.as_bytes()).await?.0)
    }
    pub(crate) async fn mv(&self, from_dir: Ino, from: &str, to_dir: Ino, to: &str) -> FsResult<()> {
        let (a, b) = self.rename(&Context::root(), from_dir, from.as_bytes(), to_dir, to.as_bytes()).await?;
        assert!(a.atomic && b.atomic);
        Ok(())
    }
    pub(crate) async fn rm(&self, dir: Ino, name: &str) -> FsResult<()> {
        self.remove(&Context::root(), dir, name.as_bytes(), None).await.map(drop)
    }
    pub(crate) async fn put(&self, ino: Ino, text: &str) -> FsResult<()> {
        let data = vec![Bytes::copy_from_slice(text.as_bytes())];
        self.write(&Context::root(), ino, 0, data, Stability::FileSync, false).await.map(drop)
    }
    pub(crate) async fn text(&self, ino: Ino) -> FsResult<String> {
        let read = self.read(&Context::root(), ino, 0, 1 << 16, false).await?;
        Ok(String::from_utf8(read.data.concat()).expect("is text"))
    }
    /// All names, in cookie order, a few at a time.
    pub(crate) async fn ls(&self, dir: Ino) -> FsResult<Vec<DirEntry>> {
        let (mut all, mut cookie) = (Vec::new(), 0);
        loop {
            let page = self.readdir(&Context::root(), dir, cookie, 7, true).await?;
            all.extend(page.entries);
            if page.eof {
                return Ok(all);
            }
            cookie = all.last().expect("a page that is not the last has entries").cookie;
        }
    }
}
