//! A client that speaks just enough NFS, and a world to run it in.
#![allow(dead_code, unreachable_pub)]

pub mod memfs;

use basalt_nfs::auth::Auth;
use basalt_nfs::rpc;
use basalt_nfs::v4::types::{Status, op};
use basalt_nfs::xdr::{Reader, Writer};
use basalt_nfs::{ClientStore, Config, ExportSpec, ExportTable, MemoryStore, Server, Squash};
use basalt_reactor::net::{self, Stream};
use basalt_reactor::sim::{NodeId, Sim};
use basalt_shard::vfs::Vfs;
use bytes::{Bytes, BytesMut};
use memfs::MemFs;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

/// What outlives a server's crash.
#[derive(Clone)]
pub struct World {
    pub fs: MemFs,
    pub store: MemoryStore,
    pub exports: ExportTable,
}

impl World {
    pub fn new() -> World {
        let world = World { fs: MemFs::new(), store: MemoryStore::default(), exports: ExportTable::new() };
        let mut spec = ExportSpec::new(1, "/data");
        spec.squash = Squash::None;
        world.export(spec);
        world
    }
    pub fn export(&self, spec: ExportSpec) {
        let fs = self.fs.clone();
        self.exports.add(spec, move || Rc::new(fs.clone()) as Rc<dyn Vfs>).unwrap();
    }
    pub fn config() -> Config {
        Config::new(SocketAddr::from(([10, 0, 0, 1], 20490)), [7; 16], b"basalt test")
    }
    pub async fn serve(&self, config: Config) -> Server {
        let store = self.store.clone();
        let factory = move || Rc::new(store.clone()) as Rc<dyn ClientStore>;
        Server::start(config, self.exports.clone(), factory).await.unwrap()
    }
    /// Starts a server on the node; it lives until the node crashes.
    pub fn start(&self, sim: &mut Sim, node: NodeId) {
        let world = self.clone();
        sim.block_on(node, || async move { std::mem::forget(world.serve(World::config()).await) });
    }
}

/// A simulated server node and a client node.
pub fn sim(seed: u64, cores: u16) -> (Sim, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let server = sim.add_node(cores);
    let client = sim.add_node(1);
    (sim, server, client)
}

/// One TCP connection; calls one at a time.
pub struct Wire {
    stream: Stream,
    xid: Cell<u32>,
    input: RefCell<BytesMut>,
    pub auth: Auth,
}

impl Wire {
    pub async fn connect() -> Wire {
        Wire::connect_to(World::config().listen).await
    }
    pub async fn connect_to(address: SocketAddr) -> Wire {
        for _ in 0..100 {
            if let Ok(stream) = net::connect(address).await {
                let input = RefCell::new(BytesMut::with_capacity(4096));
                return Wire { stream, xid: Cell::new(1), input, auth: Auth::root() };
            }
            basalt_reactor::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("no connection");
    }
    pub fn user(mut self, uid: u32) -> Wire {
        self.auth = Auth::Sys { machine: Bytes::from_static(b"c"), uid, gid: uid, groups: vec![] };
        self
    }
    /// Any bytes as one record; the reply record, or `None` at the end of the connection.
    pub async fn record(&self, record: Bytes) -> Option<Bytes> {
        self.stream.write_all(rpc::framed(vec![record])).await.ok()?;
        self.reply().await
    }
    pub async fn send(&self, record: Bytes) -> bool {
        self.stream.write_all(rpc::framed(vec![record])).await.is_ok()
    }
    pub async fn raw(&self, bytes: Bytes) -> bool {
        self.stream.write_all(vec![bytes]).await.is_ok()
    }
    pub async fn reply(&self) -> Option<Bytes> {
        let mut deframer = rpc::Deframer::default();
        let mut input = self.input.take();
        loop {
            if let Some(r) = deframer.next(&mut input).ok()? {
                self.input.replace(input);
                return Some(r);
            }
            let (n, b) = self.stream.read(input).await;
            input = b;
            if n.ok()? == 0 {
                return None;
            }
        }
    }
    pub fn build(&self, program: u32, version: u32, procedure: u32, args: Writer) -> Bytes {
        self.xid.set(self.xid.get() + 1);
        rpc::build_call(self.xid.get(), program, version, procedure, &self.auth, &args.finish_contiguous())
    }
    /// A call that must be accepted; what follows accept_stat.
    pub async fn call(&self, program: u32, version: u32, procedure: u32, args: Writer) -> Reader {
        let reply =
            self.record(self.build(program, version, procedure, args)).await.expect("connection closed");
        accepted(reply)
    }
    pub async fn v3(&self, procedure: u32, args: Writer) -> Reader {
        self.call(rpc::PROGRAM_NFS, 3, procedure, args).await
    }
}

/// Results of an accepted, successful call.
pub fn accepted(reply: Bytes) -> Reader {
    let mut r = Reader::new(reply);
    r.u32().unwrap();
    assert_eq!([(); 5].map(|()| r.u32().unwrap()), [1, 0, 0, 0, 0], "not a successful reply");
    r
}

/// A compound being built.
pub struct Ops {
    pub w: Writer,
    pub n: u32,
    pub minor: u32,
}

impl Ops {
    pub fn new() -> Ops {
        Ops { w: Writer::new(), n: 0, minor: 2 }
    }
    pub fn op(mut self, number: u32, args: impl FnOnce(&mut Writer)) -> Ops {
        self.w.u32(number);
        args(&mut self.w);
        self.n += 1;
        self
    }
    pub fn plain(self, number: u32) -> Ops {
        self.op(number, |_| ())
    }
    pub fn putfh(self, fh: &[u8]) -> Ops {
        self.op(op::PUTFH, |w| w.opaque(fh))
    }
    pub fn lookup(self, name: &str) -> Ops {
        self.op(op::LOOKUP, |w| w.opaque(name.as_bytes()))
    }
    pub fn getattr(self, bits: &[u32]) -> Ops {
        self.op(op::GETATTR, |w| bitmap(w, bits))
    }
    pub fn finish(self) -> Writer {
        let mut w = Writer::new();
        w.opaque(b"tag");
        w.u32(self.minor);
        w.u32(self.n);
        w.append(self.w);
        w
    }
}

pub fn bitmap(w: &mut Writer, bits: &[u32]) {
    let mut words = [0u32; 3];
    for b in bits {
        words[*b as usize / 32] |= 1 << (b % 32);
    }
    w.u32(3);
    for word in words {
        w.u32(word);
    }
}

/// The answer to a compound.
pub struct Answer {
    pub status: Status,
    pub count: u32,
    pub r: Reader,
}

impl Answer {
    pub fn parse(mut r: Reader) -> Answer {
        let status = Status(r.u32().unwrap());
        assert_eq!(&r.opaque(64).unwrap()[..], b"tag");
        let count = r.u32().unwrap();
        Answer { status, count, r }
    }
    /// Consumes the head of the next result; its status.
    pub fn next(&mut self, number: u32) -> Status {
        assert_eq!(self.r.u32().unwrap(), number, "operation");
        Status(self.r.u32().unwrap())
    }
    pub fn ok(&mut self, number: u32) -> &mut Reader {
        assert_eq!(self.next(number), Status::OK, "status of operation {number}");
        &mut self.r
    }
    pub fn sequence(&mut self) {
        let r = self.ok(op::SEQUENCE);
        let _: [u8; 36] = r.fixed().unwrap();
    }
}

/// A v4 client: a client id and a session.
pub struct Client4 {
    pub id: u64,
    pub session: [u8; 16],
    pub slots: u32,
    sequence: RefCell<Vec<u32>>,
    pub minor: u32,
}

pub fn exchange_id(owner: &str, verifier: u64, flags: u32) -> Ops {
    Ops::new().op(op::EXCHANGE_ID, |w| {
        w.u64(verifier);
        w.opaque(owner.as_bytes());
        w.u32(flags);
        w.u32(0);
        w.u32(0);
    })
}

pub fn create_session(id: u64, sequence: u32) -> Ops {
    Ops::new().op(op::CREATE_SESSION, |w| {
        w.u64(id);
        w.u32(sequence);
        w.u32(3);
        for _ in 0..2 {
            for v in [0, 1 << 20 | 4096, 1 << 20 | 4096, 4096, 16, 64, 0] {
                w.u32(v);
            }
        }
        w.u32(0x4000_0000);
        w.u32(1);
        w.u32(0);
    })
}

pub async fn compound(wire: &Wire, ops: Ops) -> Answer {
    Answer::parse(wire.call(rpc::PROGRAM_NFS, 4, 1, ops.finish()).await)
}

impl Client4 {
    pub async fn mount(wire: &Wire, owner: &str, verifier: u64) -> Client4 {
        let mut a = compound(wire, exchange_id(owner, verifier, 0)).await;
        let r = a.ok(op::EXCHANGE_ID);
        let (id, sequence) = (r.u64().unwrap(), r.u32().unwrap());
        let mut a = compound(wire, create_session(id, sequence)).await;
        let r = a.ok(op::CREATE_SESSION);
        let session = r.fixed().unwrap();
        assert_eq!(r.u32().unwrap(), sequence);
        let _flags = r.u32().unwrap();
        let fore: [u8; 28] = r.fixed().unwrap();
        let slots = u32::from_be_bytes(fore[20..24].try_into().unwrap());
        let client =
            Client4 { id, session, slots, sequence: RefCell::new(vec![0; slots as usize]), minor: 2 };
        let mut a = client.run(wire, Ops::new().op(op::RECLAIM_COMPLETE, |w| w.bool(false))).await;
        a.ok(op::RECLAIM_COMPLETE);
        client
    }
    pub fn with_sequence(&self, ops: Ops, slot: u32, sequence: u32, cache: bool) -> Ops {
        let mut all = Ops::new();
        all.minor = self.minor;
        let mut all = all.op(op::SEQUENCE, |w| {
            w.fixed(&self.session);
            w.u32(sequence);
            w.u32(slot);
            w.u32(self.slots - 1);
            w.bool(cache);
        });
        all.n += ops.n;
        all.w.append(ops.w);
        all
    }
    pub fn next(&self, slot: u32) -> u32 {
        self.sequence.borrow_mut()[slot as usize] += 1;
        self.sequence.borrow()[slot as usize]
    }
    pub fn last(&self, slot: u32) -> u32 {
        self.sequence.borrow()[slot as usize]
    }
    /// On slot 0; SEQUENCE must succeed.
    pub async fn run(&self, wire: &Wire, ops: Ops) -> Answer {
        let mut a = compound(wire, self.with_sequence(ops, 0, self.next(0), true)).await;
        a.sequence();
        a
    }
    /// Like [`Client4::run`], for replies too large to be kept.
    pub async fn run_uncached(&self, wire: &Wire, ops: Ops) -> Answer {
        let mut a = compound(wire, self.with_sequence(ops, 0, self.next(0), false)).await;
        a.sequence();
        a
    }
    pub async fn root(&self, wire: &Wire) -> Bytes {
        let mut a = self.run(wire, Ops::new().plain(op::PUTROOTFH).lookup("data").plain(op::GETFH)).await;
        a.ok(op::PUTROOTFH);
        a.ok(op::LOOKUP);
        a.ok(op::GETFH).opaque(128).unwrap()
    }
    /// Opens (creating it unguarded when `create`) and gives stateid and handle.
    pub async fn open(
        &self,
        wire: &Wire,
        dir: &[u8],
        name: &str,
        access: u32,
        create: bool,
    ) -> ([u8; 16], Bytes) {
        let mut a = self
            .run(
                wire,
                Ops::new()
                    .putfh(dir)
                    .op(op::OPEN, |w| self.open_args(w, name, access, 0, create))
                    .plain(op::GETFH),
            )
            .await;
        a.ok(op::PUTFH);
        let r = a.ok(op::OPEN);
        let stateid = r.fixed().unwrap();
        let _: [u8; 20] = r.fixed().unwrap();
        r.u32().unwrap();
        for _ in 0..r.count(3).unwrap() {
            r.u32().unwrap();
        }
        assert_eq!(r.u32().unwrap(), 0, "no delegation");
        (stateid, a.ok(op::GETFH).opaque(128).unwrap())
    }
    pub fn open_args(&self, w: &mut Writer, name: &str, access: u32, deny: u32, create: bool) {
        w.u32(0);
        w.u32(access);
        w.u32(deny);
        w.u64(self.id);
        w.opaque(b"open owner");
        w.u32(create as u32);
        if create {
            w.u32(0);
            bitmap(w, &[33]);
            w.opaque(&0o644u32.to_be_bytes());
        }
        w.u32(0);
        w.opaque(name.as_bytes());
    }
}

pub fn write_op(ops: Ops, stateid: &[u8; 16], offset: u64, data: &[u8]) -> Ops {
    ops.op(op::WRITE, |w| {
        w.fixed(stateid);
        w.u64(offset);
        w.u32(0);
        w.opaque(data);
    })
}
pub fn read_op(ops: Ops, stateid: &[u8; 16], offset: u64, count: u32) -> Ops {
    ops.op(op::READ, |w| {
        w.fixed(stateid);
        w.u64(offset);
        w.u32(count);
    })
}
pub fn close_op(ops: Ops, stateid: &[u8; 16]) -> Ops {
    ops.op(op::CLOSE, |w| {
        w.u32(0);
        w.fixed(stateid);
    })
}
