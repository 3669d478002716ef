//! The file system in this process, on drives in memory: everything but the network, the protocol and real drives.

use super::codec::content;
use super::lanes::lanes;
use super::{one_core, pool_in_memory};
use crate::Environment;
use crate::row::{Durable, NOTHING, Report};
use basalt_pool::Pool;
use basalt_shard::vfs::*;
use basalt_shard::{FileSystem, FsSpec};
use basalt_system::rng::Rng;
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// All the journal chunks that drives this small have, so that the rows run where journals cannot grow.
const SHARDS: u16 = 8;
const PAGE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 1 << 20;
const SMALL_FILE_BYTES: u64 = 16 << 20;
/// Larger than the page cache of a reactor, so that a read from the start finds nothing of it.
const LARGE_FILE_BYTES: u64 = 256 << 20;

/// What the reactor tells while it measures.
enum Event {
    /// Names what comes next, so that a row without an end has a name.
    Starting(&'static str),
    /// Metric, unit, value.
    Figure(&'static str, &'static str, f64, Durable),
    Ended(Result<(), String>),
}

/// Preparing the drives included, nothing here takes so long on any machine.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

const JOURNALLED: Durable =
    Durable { ours: "the change, in the journal on all its mirrors (memory)", peer: "" };
const COMMITTED: Durable = Durable { ours: "nothing until COMMIT, then all (memory)", peer: "" };

pub(super) fn run(environment: &Environment, report: &mut Report) {
    if !environment.wants("in process") {
        return;
    }
    for in_flight in [1, 32] {
        let time = environment.row_time();
        let (send, receive) = mpsc::channel();
        // On a thread of its own, which is left behind should it never end.
        std::thread::spawn(move || {
            let events = send.clone();
            let outcome = basalt_reactor::real::run(one_core(), move || async move {
                // Fresh for each depth, so that both find the same.
                let pool = pool_in_memory().await.map_err(|e| e.to_string())?;
                let spec = FsSpec { name: "bench".into(), shards: SHARDS };
                FileSystem::create(&pool, &spec).await.map_err(|e| e.to_string())?;
                rows(&pool, in_flight, time, &events).await
            });
            let _ = send.send(Event::Ended(outcome));
        });
        let mut under_way = "preparing";
        loop {
            match receive.recv_timeout(SILENCE_LIMIT + time) {
                Ok(Event::Starting(what)) => under_way = what,
                Ok(Event::Figure(metric, unit, value, durable)) => {
                    let name = format!("in process: {metric}, {in_flight} in flight");
                    report.row(&name, unit, value, None, durable);
                }
                Ok(Event::Ended(Ok(()))) => break,
                Ok(Event::Ended(Err(error))) => {
                    report.failed(&format!("in process: {under_way}, {in_flight} in flight"), &error);
                    break;
                }
                Err(_) => {
                    let name = format!("in process: {under_way}, {in_flight} in flight");
                    return report
                        .failed(&name, "it does not end: a call never returned, or its thread died");
                }
            }
        }
    }
}

async fn rows(
    pool: &Pool,
    in_flight: usize,
    time: Duration,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let starting = |what| {
        let _ = events.send(Event::Starting(what));
    };
    let tell = |metric, unit, value, durable| {
        let _ = events.send(Event::Figure(metric, unit, value, durable));
    };
    let named = |what: &'static str| move |e: FsError| format!("{what}: {e}");
    let fs = mount(pool).await?;
    let bench = Bench { vfs: fs.vfs(), in_flight, time };
    let dir = bench.directory().await.map_err(named("mkdir"))?;

    starting("create");
    let (rate, count) = bench.create(dir).await.map_err(named("create"))?;
    tell("create", "op/s", rate, JOURNALLED);
    starting("lookup and getattr");
    let rate = bench.lookup(dir, count).await.map_err(named("lookup and getattr"))?;
    tell("lookup and getattr", "op/s", rate, NOTHING);
    starting("writing a small file");
    let small = bench.file(dir, b"small", SMALL_FILE_BYTES).await.map_err(named("write"))?.0;
    starting("4 KiB synchronous writes");
    let rate = bench.synchronous(small).await.map_err(named("4 KiB synchronous writes"))?;
    tell("4 KiB synchronous writes", "op/s", rate, JOURNALLED);
    starting("1 MiB writes and COMMIT");
    let (large, rate) = bench.file(dir, b"large", LARGE_FILE_BYTES).await.map_err(named("1 MiB writes"))?;
    tell("1 MiB writes and COMMIT", "MB/s", rate / 1e6, COMMITTED);
    starting("1 MiB reads, cached");
    let rate = bench.read(small, SMALL_FILE_BYTES, true).await.map_err(named("1 MiB reads"))?;
    tell("1 MiB reads, cached", "MB/s", rate / 1e6, NOTHING);
    starting("unmount");
    fs.unmount().await.map_err(|e| e.to_string())?;

    let fs = mount(pool).await?;
    let bench = Bench { vfs: fs.vfs(), in_flight, time };
    starting("1 MiB reads, nothing cached");
    let rate = bench.read(large, LARGE_FILE_BYTES, false).await.map_err(named("1 MiB reads"))?;
    tell("1 MiB reads, nothing cached", "MB/s", rate / 1e6, NOTHING);
    starting("unmount");
    fs.unmount().await.map_err(|e| e.to_string())?;
    pool.close().await.map_err(|e| e.to_string())
}

async fn mount(pool: &Pool) -> Result<FileSystem, String> {
    FileSystem::mount(&pool.to_ref(), "bench").await.map_err(|e| e.to_string())
}

struct Bench {
    vfs: Rc<dyn Vfs>,
    in_flight: usize,
    time: Duration,
}

impl Bench {
    async fn directory(&self) -> FsResult<Ino> {
        let (cx, set) = (Context::root(), SetAttr { mode: Some(0o755), ..Default::default() });
        let made = self
            .vfs
            .create(&cx, self.vfs.root(), b"bench", NodeKind::Directory, CreateHow::Guarded, set)
            .await?;
        Ok(made.attr.ino)
    }

    async fn create(&self, dir: Ino) -> FsResult<(f64, u64)> {
        let vfs = self.vfs.clone();
        let (meter, count) = lanes(self.in_flight, self.time, async move |n| {
            let cx = Context::root();
            let set = SetAttr { mode: Some(0o644), ..Default::default() };
            let name = format!("file{n}");
            vfs.create(&cx, dir, name.as_bytes(), NodeKind::Regular, CreateHow::Guarded, set).await?;
            Ok(1)
        })
        .await?;
        Ok((meter.rate(), count))
    }

    async fn lookup(&self, dir: Ino, count: u64) -> FsResult<f64> {
        let cx = Context::root();
        let rng = RefCell::new(Rng::new(1));
        let vfs = self.vfs.clone();
        let (meter, _) = lanes(self.in_flight, self.time, async move |_| {
            let name = format!("file{}", rng.borrow_mut().below(count));
            let (found, _) = vfs.lookup(&cx, dir, name.as_bytes()).await?;
            vfs.getattr(found.ino, found.generation).await?;
            Ok(1)
        })
        .await?;
        Ok(meter.rate())
    }

    /// A file written in order, and the rate, COMMIT included.
    async fn file(&self, dir: Ino, name: &[u8], len: u64) -> FsResult<(Ino, f64)> {
        let cx = Context::root();
        let set = SetAttr { mode: Some(0o644), ..Default::default() };
        let ino = self.vfs.create(&cx, dir, name, NodeKind::Regular, CreateHow::Guarded, set).await?.attr.ino;
        let chunk = Bytes::from(content(CHUNK_BYTES, 1));
        let (vfs, cx_of_lane) = (self.vfs.clone(), cx.clone());
        let (meter, _) = lanes(self.in_flight, Duration::from_secs(3600), async move |n| {
            let offset = n * CHUNK_BYTES as u64;
            if offset >= len {
                return Ok(0);
            }
            let data = vec![chunk.clone()];
            let reply = vfs.write(&cx_of_lane, ino, offset, data, Stability::Unstable, true).await?;
            Ok(u64::from(reply.count))
        })
        .await?;
        self.vfs.commit(&cx, ino, 0, 0).await?;
        Ok((ino, meter.total_rate()))
    }

    async fn synchronous(&self, ino: Ino) -> FsResult<f64> {
        let cx = Context::root();
        let page = Bytes::from(content(PAGE_BYTES, 2));
        let rng = RefCell::new(Rng::new(2));
        let vfs = self.vfs.clone();
        let (meter, _) = lanes(self.in_flight, self.time, async move |_| {
            let offset = rng.borrow_mut().below(SMALL_FILE_BYTES / PAGE_BYTES as u64) * PAGE_BYTES as u64;
            let data = vec![page.clone()];
            vfs.write(&cx, ino, offset, data, Stability::FileSync, true).await?;
            Ok(1)
        })
        .await?;
        Ok(meter.rate())
    }

    /// In order; from the start again when `again`.
    async fn read(&self, ino: Ino, len: u64, again: bool) -> FsResult<f64> {
        let cx = Context::root();
        let vfs = self.vfs.clone();
        let (meter, _) = lanes(self.in_flight, self.time, async move |n| {
            let offset = n * CHUNK_BYTES as u64;
            if offset >= len && !again {
                return Ok(0);
            }
            let reply = vfs.read(&cx, ino, offset % len, CHUNK_BYTES as u32, true).await?;
            let bytes = reply.data.iter().map(|d| d.len() as u64).sum::<u64>();
            if bytes == 0 { Err(FsError::Io) } else { Ok(bytes) }
        })
        .await?;
        Ok(if again { meter.rate() } else { meter.total_rate() })
    }
}
