//! NFSv3 through libnfs: Basalt and nfs-ganesha, row by row in turn.
//!
//! libnfs resolves every path from the export's root, so a call here is two or three on the wire; that is the same for
//! both. Each row has a connection of its own.

use crate::Environment;
use crate::libnfs::{Client, Lane, Library, OpenFile};
use crate::meter::Meter;
use crate::row::{Durable, NOTHING, Report};
use crate::servers::{PEER, Servers};
use basalt_system::rng::Rng;
use basalt_system::server::Server;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::time::Duration;

const SMALL_BYTES: usize = 16 << 10;
const CHUNK_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
const LARGE_BYTES: u64 = 256 << 20;
/// Where pages are read and written at random.
const RANDOM_BYTES: u64 = 64 << 20;

const NAMES: Durable = Durable {
    ours: "the change, in the journal on three drives",
    peer: "nothing; ext4 commits its journal every 5 s",
};
const SYNCED: Durable = Durable {
    ours: "the data and its name, on drives with their redundancy",
    peer: "the data and its name, on the one disk (fsync, fdatasync)",
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Create,
    Stat,
    Unlink,
    WriteSmall,
    ReadSmall,
    WriteLarge,
    ReadLarge,
    ReadRandom,
    WriteSync,
}

/// In this order: later rows use what earlier ones made.
const ROWS: &[(Work, &str, &str, Durable)] = &[
    (Work::Create, "create", "op/s", NAMES),
    (Work::Stat, "stat", "op/s", NOTHING),
    (Work::Unlink, "unlink", "op/s", NAMES),
    (Work::WriteSmall, "16 KiB file create, write, COMMIT, close", "op/s", SYNCED),
    (Work::ReadSmall, "16 KiB file open, read, close", "op/s", NOTHING),
    (Work::WriteLarge, "1 MiB sequential writes, COMMIT at the end", "MB/s", SYNCED),
    (Work::ReadLarge, "1 MiB sequential reads", "MB/s", NOTHING),
    (Work::ReadRandom, "4 KiB random reads", "op/s", NOTHING),
    (Work::WriteSync, "4 KiB random writes, FILE_SYNC", "op/s", SYNCED),
];

pub(crate) fn run(environment: &Environment, report: &mut Report) {
    let library = match Library::load() {
        Ok(library) => library,
        Err(why) => return report.skipped("nfs3", &why),
    };
    let servers = match Servers::start(environment, report, "nfs3") {
        Ok(servers) => servers,
        Err(why) => return report.failed("nfs3", &why),
    };
    for in_flight in [1, 32] {
        let mut ours = Side::new(library, &servers.ours, in_flight);
        let mut peer = servers.peer.as_ref().map(|server| Side::new(library, server, in_flight));
        for &(work, name, unit, durable) in ROWS {
            let name = format!("{name}, {in_flight} in flight");
            if !environment.wants(&name) {
                continue;
            }
            let scale = if unit == "MB/s" { 1e6 } else { 1.0 };
            let time = environment.row_time();
            let peer_value = peer.as_mut().map(|side| side.row(work, time));
            let value = match ours.row(work, time) {
                Ok(value) => value / scale,
                Err(error) => {
                    report.failed(&name, &error);
                    continue;
                }
            };
            let peer_value = match peer_value {
                Some(Err(error)) => {
                    report.failed(&format!("{name}: {PEER}"), &error);
                    None
                }
                Some(Ok(value)) => Some((PEER, value / scale)),
                None => None,
            };
            report.row(&name, unit, value, peer_value, durable);
        }
    }
}

/// One server at one depth.
struct Side<'a> {
    library: Library,
    server: &'a dyn Server,
    in_flight: usize,
    dir: String,
    created: u64,
    small: u64,
    large: bool,
}

/// What a lane's call needs.
struct Load<'a> {
    client: &'a Client,
    dir: &'a str,
    meter: RefCell<Meter>,
    next: Cell<u64>,
    rng: RefCell<Rng>,
}

impl Load<'_> {
    fn path(&self, kind: &str, number: u64) -> CString {
        c_path(&format!("{}/{kind}{number}", self.dir))
    }
    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }
}

fn c_path(path: &str) -> CString {
    CString::new(path).expect("paths here have no NUL")
}

impl<'a> Side<'a> {
    fn new(library: Library, server: &'a dyn Server, in_flight: usize) -> Side<'a> {
        Side {
            library,
            server,
            in_flight,
            dir: format!("/depth{in_flight}"),
            created: 0,
            small: 0,
            large: false,
        }
    }

    fn row(&mut self, work: Work, time: Duration) -> Result<f64, String> {
        let client =
            Client::mount(self.library, self.server.port(), self.server.mount_port(), &self.server.export())?;
        let dir = c_path(&self.dir);
        client.run_one(async {
            match client.stat(&dir).await {
                Ok(()) => Ok(()),
                Err(_) => client.mkdir(&dir).await,
            }
        })?;
        let file = self.prepare(&client, work)?;
        let all = Duration::from_secs(3600);
        let load = Load {
            client: &client,
            dir: &self.dir,
            meter: RefCell::new(Meter::new(if work == Work::WriteLarge { all } else { time })),
            next: Cell::new(0),
            rng: RefCell::new(Rng::new(1)),
        };
        let (created, small) = (self.created, self.small);
        let chunk = Rng::new(2).bytes(CHUNK_BYTES);
        let lanes = (0..self.in_flight).map(|_| {
            let (load, chunk) = (&load, &chunk);
            let lane = async move {
                while let Some(amount) = one_call(load, work, file, chunk, created, small).await? {
                    if !load.meter.borrow_mut().add(amount) {
                        break;
                    }
                }
                Ok(())
            };
            Box::pin(lane) as Lane<'_>
        });
        client.run(lanes.collect())?;
        if work == Work::WriteLarge
            && let Some(file) = file
        {
            client.run_one(client_fsync(&client, file))?;
        }
        let meter = load.meter.borrow();
        // Where there is only so much to do, all of it counts, the end with its fsync too.
        let rate = if work == Work::WriteLarge { meter.total_rate() } else { meter.rate() };
        drop(meter);
        match work {
            Work::Create => self.created = load.next.get(),
            Work::WriteSmall => self.small = load.next.get(),
            Work::WriteLarge => self.large = true,
            _ => {}
        }
        if let Some(file) = file {
            client.run_one(client.close(file))?;
        }
        Ok(rate)
    }

    /// Opens, and makes where an earlier row did not, the file that a row needs.
    fn prepare(&mut self, client: &Client, work: Work) -> Result<Option<OpenFile>, String> {
        let path = c_path(&format!("{}/large", self.dir));
        let reads_large = matches!(work, Work::ReadLarge | Work::ReadRandom | Work::WriteSync);
        if reads_large && !self.large {
            client.run_one(write_all(client, &path, LARGE_BYTES))?;
            self.large = true;
        }
        // Pages that were written at random must not be what is read in order, and the other way round.
        let random = c_path(&format!("{}/random", self.dir));
        if work == Work::ReadRandom {
            client.run_one(write_all(client, &random, RANDOM_BYTES))?;
        }
        let (path, flags) = match work {
            Work::WriteLarge => (path, libc::O_RDWR | libc::O_CREAT),
            Work::ReadLarge => (path, libc::O_RDONLY),
            Work::ReadRandom => (random, libc::O_RDONLY),
            Work::WriteSync => (random, libc::O_RDWR | libc::O_CREAT | libc::O_SYNC),
            _ => return Ok(None),
        };
        let opened = Cell::new(None);
        client.run_one(async {
            opened.set(Some(client.open(&path, flags).await?));
            Ok(())
        })?;
        Ok(opened.get())
    }
}

async fn client_fsync(client: &Client, file: OpenFile) -> Result<(), String> {
    client.fsync(file).await
}

async fn write_all(client: &Client, path: &CStr, len: u64) -> Result<(), String> {
    let chunk = Rng::new(3).bytes(CHUNK_BYTES);
    let file = client.create(path).await?;
    for offset in (0..len).step_by(CHUNK_BYTES) {
        client.write(file, offset, &chunk).await?;
    }
    client.fsync(file).await?;
    client.close(file).await
}

/// How much it did; `None` when there is nothing left to do.
async fn one_call(
    load: &Load<'_>,
    work: Work,
    file: Option<OpenFile>,
    chunk: &[u8],
    created: u64,
    small: u64,
) -> Result<Option<u64>, String> {
    let (client, number) = (load.client, load.number());
    let file = || file.ok_or("no file was opened for this row");
    match work {
        Work::Create => {
            let file = client.create(&load.path("c", number)).await?;
            client.close(file).await?;
        }
        Work::Stat if created == 0 => return Err("no files: the row that creates them did not run".into()),
        Work::Stat => client.stat(&load.path("c", load.below(created))).await?,
        Work::Unlink if number >= created => return Ok(None),
        Work::Unlink => client.unlink(&load.path("c", number)).await?,
        Work::WriteSmall => {
            let file = client.create(&load.path("s", number)).await?;
            client.write(file, 0, &chunk[..SMALL_BYTES]).await?;
            client.fsync(file).await?;
            client.close(file).await?;
        }
        Work::ReadSmall if small == 0 => return Err("no files: the row that writes them did not run".into()),
        Work::ReadSmall => {
            let file = client.open(&load.path("s", load.below(small)), libc::O_RDONLY).await?;
            expect(client.read(file, 0, SMALL_BYTES).await?, SMALL_BYTES)?;
            client.close(file).await?;
        }
        Work::WriteLarge => {
            let offset = number * CHUNK_BYTES as u64;
            if offset >= LARGE_BYTES {
                return Ok(None);
            }
            client.write(file()?, offset, chunk).await?;
            return Ok(Some(CHUNK_BYTES as u64));
        }
        Work::ReadLarge => {
            let offset = number * CHUNK_BYTES as u64 % LARGE_BYTES;
            expect(client.read(file()?, offset, CHUNK_BYTES).await?, CHUNK_BYTES)?;
            return Ok(Some(CHUNK_BYTES as u64));
        }
        Work::ReadRandom => {
            let offset = load.below(RANDOM_BYTES / PAGE_BYTES as u64) * PAGE_BYTES as u64;
            expect(client.read(file()?, offset, PAGE_BYTES).await?, PAGE_BYTES)?;
        }
        Work::WriteSync => {
            let offset = load.below(RANDOM_BYTES / PAGE_BYTES as u64) * PAGE_BYTES as u64;
            client.write(file()?, offset, &chunk[..PAGE_BYTES]).await?;
        }
    }
    Ok(Some(1))
}

fn expect(bytes: usize, wanted: usize) -> Result<(), String> {
    if bytes == wanted { Ok(()) } else { Err(format!("read {bytes} of {wanted} bytes")) }
}
