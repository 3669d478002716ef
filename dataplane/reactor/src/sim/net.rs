//! The simulated network: connections as pairs of byte pipes with delay, bounded windows, resets and partitions.
//!
//! Bytes of one direction keep their order and arrive in pieces cut at random. A partition holds them back; a
//! connection that has had bytes held back for `HELD_LIMIT_NS` is reset at both ends.

use super::NodeId;
use super::world::{Local, World};
use bytes::{Buf, Bytes, BytesMut};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes that one direction holds, in flight and unread together.
const WINDOW_BYTES: usize = 256 << 10;
const PIECE_MAX_BYTES: u64 = 64 << 10;
const BACKLOG: usize = 128;
const CONNECT_TIMEOUT_NS: u64 = 3_000_000_000;
const HELD_LIMIT_NS: u64 = 15_000_000_000;
const MICROSECOND_NS: u64 = 1000;

/// Delays and errors of the whole network.
#[derive(Clone, Debug)]
pub struct NetFaults {
    pub delay_min_us: u32,
    pub delay_max_us: u32,
    /// Probability per piece sent that the connection is reset instead.
    pub reset_ppm: u32,
    /// Probability per piece sent that it takes `slow_us` longer.
    pub slow_ppm: u32,
    pub slow_us: u32,
}

impl Default for NetFaults {
    fn default() -> Self {
        NetFaults { delay_min_us: 10, delay_max_us: 60, reset_ppm: 0, slow_ppm: 0, slow_us: 0 }
    }
}

#[derive(Default)]
pub(crate) struct Net {
    pub(super) faults: NetFaults,
    tcp: BTreeMap<(NodeId, u16), u64>,
    unix: BTreeMap<(NodeId, PathBuf), u64>,
    listeners: BTreeMap<u64, ListenerState>,
    conns: BTreeMap<u64, Conn>,
    partitions: BTreeSet<(NodeId, NodeId)>,
    next_id: u64,
    next_port: u16,
}

struct ListenerState {
    node: NodeId,
    loopback_only: bool,
    backlog: VecDeque<(u64, SocketAddr)>,
    accepting: Vec<Waker>,
}

struct Conn {
    ends: [End; 2],
}

/// One side of a connection: what it may read, and its sending window.
struct End {
    node: NodeId,
    /// The owner dropped it or its node died.
    gone: bool,
    shut: bool,
    reset: bool,
    arrived: VecDeque<Bytes>,
    fin: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Sent by this end and not yet read by the other.
    outstanding_bytes: usize,
    last_arrival_ns: u64,
    /// Sent by the other end, held back by a partition.
    held: VecDeque<Packet>,
}

enum Packet {
    Data(Bytes),
    Fin,
    Reset,
}

impl End {
    fn new(node: NodeId) -> End {
        End {
            node,
            gone: false,
            shut: false,
            reset: false,
            arrived: VecDeque::new(),
            fin: false,
            reader: None,
            writer: None,
            outstanding_bytes: 0,
            last_arrival_ns: 0,
            held: VecDeque::new(),
        }
    }

    fn take_wakers(&mut self) -> [Option<Waker>; 2] {
        [self.reader.take(), self.writer.take()]
    }
}

fn wake(wakers: impl IntoIterator<Item = Option<Waker>>) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// 10.0.0.(id+1), counting on into 10.0.1.x.
fn ip_of(node: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + node.0))
}

/// The node that `ip` means to `own`.
fn node_of(ip: IpAddr, own: NodeId) -> Option<NodeId> {
    match ip {
        ip if ip.is_loopback() || ip.is_unspecified() => Some(own),
        IpAddr::V4(v4) if v4.octets()[0] == 10 => v4.to_bits().checked_sub(0x0a00_0001).map(NodeId),
        _ => None,
    }
}

impl Net {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn ephemeral_port(&mut self) -> u16 {
        self.next_port =
            if self.next_port < 32768 { 32768 } else { self.next_port.wrapping_add(1).max(32768) };
        self.next_port
    }

    fn cut_off(&self, a: NodeId, b: NodeId) -> bool {
        self.partitions.contains(&pair(a, b))
    }

    /// Forgets a connection that neither side holds any more.
    fn reap(&mut self, conn: u64) {
        if self.conns.get(&conn).is_some_and(|c| c.ends.iter().all(|e| e.gone)) {
            self.conns.remove(&conn);
        }
    }
}

impl World {
    fn net_delay_ns(&self) -> u64 {
        let faults = self.net.borrow().faults.clone();
        let mut rng = self.rng.borrow_mut();
        let (lo, hi) =
            (u64::from(faults.delay_min_us), u64::from(faults.delay_max_us.max(faults.delay_min_us)));
        let mut ns = rng.between(lo * MICROSECOND_NS, hi * MICROSECOND_NS);
        if rng.chance_ppm(faults.slow_ppm) {
            ns += u64::from(faults.slow_us) * MICROSECOND_NS;
        }
        ns
    }

    /// Puts a packet on its way to side `to` of a connection.
    fn send_packet(self: &Rc<Self>, conn: u64, to: usize, packet: Packet) {
        let delay_ns = self.net_delay_ns();
        let at_ns = {
            let mut net = self.net.borrow_mut();
            let Some(c) = net.conns.get_mut(&conn) else { return };
            let end = &mut c.ends[to];
            end.last_arrival_ns = end.last_arrival_ns.max(self.now_ns.get() + delay_ns);
            end.last_arrival_ns
        };
        self.at(at_ns, move |w| w.packet_arrives(conn, to, packet));
    }

    fn packet_arrives(self: &Rc<Self>, conn: u64, to: usize, packet: Packet) {
        let mut net = self.net.borrow_mut();
        let Some(c) = net.conns.get(&conn) else { return };
        let cut_off = net.cut_off(c.ends[0].node, c.ends[1].node);
        let Some(c) = net.conns.get_mut(&conn) else { return };
        let end = &mut c.ends[to];
        // What is held back keeps its place before later packets.
        if cut_off || !end.held.is_empty() {
            if end.held.is_empty() {
                self.at(self.now_ns.get() + HELD_LIMIT_NS, move |w| w.held_too_long(conn));
            }
            end.held.push_back(packet);
            return;
        }
        drop(net);
        self.deliver_packet(conn, to, packet);
    }

    fn deliver_packet(self: &Rc<Self>, conn: u64, to: usize, packet: Packet) {
        let mut net = self.net.borrow_mut();
        let Some(c) = net.conns.get_mut(&conn) else { return };
        let end = &mut c.ends[to];
        match packet {
            // Nobody reads here any more: answer with a reset, as TCP does.
            Packet::Data(_) if end.gone || end.shut => {
                drop(net);
                self.send_packet(conn, 1 - to, Packet::Reset);
            }
            Packet::Data(bytes) => {
                end.arrived.push_back(bytes);
                let waker = end.reader.take();
                drop(net);
                wake([waker]);
            }
            Packet::Fin => {
                end.fin = true;
                let waker = end.reader.take();
                drop(net);
                wake([waker]);
            }
            Packet::Reset => {
                end.reset = true;
                end.arrived.clear();
                let wakers = end.take_wakers();
                drop(net);
                wake(wakers);
            }
        }
    }

    fn held_too_long(self: &Rc<Self>, conn: u64) {
        let still_held =
            self.net.borrow().conns.get(&conn).is_some_and(|c| c.ends.iter().any(|e| !e.held.is_empty()));
        if still_held {
            self.reset_both_ends(conn);
        }
    }

    fn reset_both_ends(self: &Rc<Self>, conn: u64) {
        let mut wakers = Vec::new();
        if let Some(c) = self.net.borrow_mut().conns.get_mut(&conn) {
            for end in &mut c.ends {
                end.reset = true;
                end.arrived.clear();
                end.held.clear();
                wakers.extend(end.take_wakers());
            }
        }
        wake(wakers);
    }

    pub(super) fn partition(&self, a: NodeId, b: NodeId) {
        self.mix(3, u64::from(a.0) << 32 | u64::from(b.0));
        self.net.borrow_mut().partitions.insert(pair(a, b));
    }

    pub(super) fn heal(self: &Rc<Self>, a: NodeId, b: NodeId) {
        self.mix(4, u64::from(a.0) << 32 | u64::from(b.0));
        let mut released = Vec::new();
        {
            let mut net = self.net.borrow_mut();
            net.partitions.remove(&pair(a, b));
            for (id, c) in &mut net.conns {
                if pair(c.ends[0].node, c.ends[1].node) == pair(a, b) {
                    for (side, end) in c.ends.iter_mut().enumerate() {
                        released.extend(std::mem::take(&mut end.held).into_iter().map(|p| (*id, side, p)));
                    }
                }
            }
        }
        // At once, so that nothing sent from now on overtakes.
        for (conn, side, packet) in released {
            self.deliver_packet(conn, side, packet);
        }
    }

    pub(super) fn reset_connections(self: &Rc<Self>, a: NodeId, b: NodeId) {
        let hit = |c: &Conn| pair(c.ends[0].node, c.ends[1].node) == pair(a, b);
        let conns: Vec<_> =
            self.net.borrow().conns.iter().filter(|(_, c)| hit(c)).map(|(id, _)| *id).collect();
        for conn in conns {
            self.reset_both_ends(conn);
        }
    }

    /// The node's tasks are dropped already; its peers learn of it by resets.
    pub(super) fn net_crash(self: &Rc<Self>, node: NodeId) {
        let mut bereaved = Vec::new();
        let mut doomed = Vec::new();
        {
            let mut net = self.net.borrow_mut();
            net.tcp.retain(|k, _| k.0 != node);
            net.unix.retain(|k, _| k.0 != node);
            let gone: Vec<_> =
                net.listeners.iter().filter(|(_, l)| l.node == node).map(|(id, _)| *id).collect();
            doomed.extend(gone.iter().filter_map(|id| net.listeners.remove(id)));
            for (id, c) in &mut net.conns {
                for side in 0..2 {
                    if c.ends[side].node == node {
                        c.ends[side].gone = true;
                        c.ends[side].arrived.clear();
                        bereaved.push((*id, 1 - side));
                    }
                }
            }
        }
        drop(doomed);
        for (conn, side) in bereaved {
            self.send_packet(conn, side, Packet::Reset);
            self.net.borrow_mut().reap(conn);
        }
    }

    /// A connection request arrives; returns whether somebody listens.
    fn syn_arrives(
        &self,
        listener: Option<u64>,
        to: NodeId,
        from: SocketAddr,
        from_node: NodeId,
    ) -> Option<u64> {
        let mut net = self.net.borrow_mut();
        let l = net.listeners.get(&listener?)?;
        if l.backlog.len() >= BACKLOG || (l.loopback_only && from_node != to) {
            return None;
        }
        let conn = net.new_id();
        net.conns.insert(conn, Conn { ends: [End::new(from_node), End::new(to)] });
        let l = net.listeners.get_mut(&listener?)?;
        l.backlog.push_back((conn, from));
        let wakers = std::mem::take(&mut l.accepting);
        drop(net);
        wakers.into_iter().for_each(Waker::wake);
        Some(conn)
    }
}

pub(crate) struct Listener {
    world: Rc<World>,
    id: u64,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn tcp(local: &Local, addr: SocketAddr) -> io::Result<Listener> {
        let world = local.world.clone();
        if node_of(addr.ip(), local.node) != Some(local.node) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut net = world.net.borrow_mut();
        let port = if addr.port() == 0 { net.ephemeral_port() } else { addr.port() };
        if net.tcp.contains_key(&(local.node, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = net.add_listener(local.node, addr.ip().is_loopback());
        net.tcp.insert((local.node, port), id);
        let ip = if addr.ip().is_unspecified() { ip_of(local.node) } else { addr.ip() };
        drop(net);
        Ok(Listener { world, id, addr: SocketAddr::new(ip, port) })
    }

    pub(crate) fn unix(local: &Local, path: &Path) -> io::Result<Listener> {
        let world = local.world.clone();
        let mut net = world.net.borrow_mut();
        let key = (local.node, path.to_path_buf());
        if net.unix.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = net.add_listener(local.node, true);
        net.unix.insert(key, id);
        drop(net);
        Ok(Listener { world, id, addr: unspecified() })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        poll_fn(|cx| {
            let mut net = self.world.net.borrow_mut();
            let Some(l) = net.listeners.get_mut(&self.id) else { return Poll::Ready(Err(reset_error())) };
            match l.backlog.pop_front() {
                Some((conn, from)) => {
                    let peer = Some(from).filter(|a| a.port() != 0);
                    Poll::Ready(Ok(Stream {
                        world: self.world.clone(),
                        conn,
                        side: 1,
                        peer,
                        detached: Cell::new(false),
                    }))
                }
                None => {
                    l.accepting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut net = self.world.net.borrow_mut();
        let Some(l) = net.listeners.remove(&self.id) else { return };
        net.tcp.retain(|_, id| *id != self.id);
        net.unix.retain(|_, id| *id != self.id);
        let refused: Vec<_> = l.backlog.iter().map(|b| b.0).collect();
        drop(net);
        for conn in refused {
            self.world.close_end(conn, 1, Packet::Reset);
        }
    }
}

impl Net {
    fn add_listener(&mut self, node: NodeId, loopback_only: bool) -> u64 {
        let id = self.new_id();
        let state = ListenerState { node, loopback_only, backlog: VecDeque::new(), accepting: Vec::new() };
        self.listeners.insert(id, state);
        id
    }
}

fn unspecified() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
}

pub(crate) struct Stream {
    world: Rc<World>,
    conn: u64,
    side: usize,
    peer: Option<SocketAddr>,
    detached: Cell<bool>,
}

pub(crate) struct Detached {
    conn: u64,
    side: usize,
    peer: Option<SocketAddr>,
}

impl Detached {
    pub(crate) fn attach(self, local: &Local) -> Stream {
        let Detached { conn, side, peer } = self;
        Stream { world: local.world.clone(), conn, side, peer, detached: Cell::new(false) }
    }
}

impl Stream {
    pub(crate) async fn connect_tcp(local: &Local, addr: SocketAddr) -> io::Result<Stream> {
        let to = node_of(addr.ip(), local.node);
        let own_ip = if addr.ip().is_loopback() { addr.ip() } else { ip_of(local.node) };
        let from = SocketAddr::new(own_ip, local.world.net.borrow_mut().ephemeral_port());
        let key = to.map(|n| (n, addr.port()));
        let find = move |net: &Net| key.and_then(|k| net.tcp.get(&k).copied());
        Stream::connect(local, to, from, Some(addr), find).await
    }

    pub(crate) async fn connect_unix(local: &Local, path: &Path) -> io::Result<Stream> {
        let key = (local.node, path.to_path_buf());
        if !local.world.net.borrow().unix.contains_key(&key) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let find = move |net: &Net| net.unix.get(&key).copied();
        Stream::connect(local, Some(local.node), unspecified(), None, find).await
    }

    async fn connect(
        local: &Local,
        to: Option<NodeId>,
        from: SocketAddr,
        peer: Option<SocketAddr>,
        find_listener: impl Fn(&Net) -> Option<u64>,
    ) -> io::Result<Stream> {
        let world = local.world.clone();
        let one_way = || std::time::Duration::from_nanos(world.net_delay_ns());
        crate::sleep(one_way()).await;
        let reachable = to.filter(|&n| world.is_up(n) && !world.net.borrow().cut_off(n, local.node));
        let Some(to) = reachable else {
            crate::sleep(std::time::Duration::from_nanos(CONNECT_TIMEOUT_NS)).await;
            return Err(io::ErrorKind::TimedOut.into());
        };
        let listener = find_listener(&world.net.borrow());
        let conn = world.syn_arrives(listener, to, from, local.node);
        // Made before the way back, so that a dropped connect closes it.
        let stream =
            conn.map(|conn| Stream { world: world.clone(), conn, side: 0, peer, detached: Cell::new(false) });
        crate::sleep(one_way()).await;
        stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }

    pub(crate) async fn read(&self, mut buf: BytesMut) -> (io::Result<usize>, BytesMut) {
        let result = poll_fn(|cx| self.poll_read(cx, &mut buf)).await;
        (result, buf)
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut net = self.world.net.borrow_mut();
        let Some(c) = net.conns.get_mut(&self.conn) else { return Poll::Ready(Err(reset_error())) };
        let end = &mut c.ends[self.side];
        if end.reset {
            return Poll::Ready(Err(reset_error()));
        }
        if end.shut {
            return Poll::Ready(Ok(0));
        }
        let mut taken = 0;
        while let Some(front) = end.arrived.front_mut() {
            let n = front.len().min(buf.capacity() - buf.len());
            buf.extend_from_slice(&front[..n]);
            front.advance(n);
            taken += n;
            if !front.is_empty() {
                break;
            }
            end.arrived.pop_front();
        }
        if taken == 0 {
            if end.fin {
                return Poll::Ready(Ok(0));
            }
            end.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // The window opens when the other side hears of it; the way back is left out.
        let other = &mut c.ends[1 - self.side];
        other.outstanding_bytes -= taken;
        let writer = other.writer.take();
        drop(net);
        wake([writer]);
        Poll::Ready(Ok(taken))
    }

    pub(crate) async fn write_all(&self, bufs: Vec<Bytes>) -> io::Result<()> {
        for mut bytes in bufs {
            while !bytes.is_empty() {
                let room = poll_fn(|cx| self.poll_room(cx)).await?;
                let cut = self.world.rng.borrow_mut().between(1, PIECE_MAX_BYTES) as usize;
                let piece = bytes.split_to(bytes.len().min(room).min(cut));
                self.send(piece);
            }
        }
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut net = self.world.net.borrow_mut();
        let Some(c) = net.conns.get_mut(&self.conn) else { return Poll::Ready(Err(reset_error())) };
        let end = &mut c.ends[self.side];
        if end.reset {
            return Poll::Ready(Err(reset_error()));
        }
        if end.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match WINDOW_BYTES.saturating_sub(end.outstanding_bytes) {
            0 => {
                end.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    fn send(&self, piece: Bytes) {
        let reset_ppm = self.world.net.borrow().faults.reset_ppm;
        if self.world.rng.borrow_mut().chance_ppm(reset_ppm) {
            self.world.reset_both_ends(self.conn);
            return;
        }
        if let Some(c) = self.world.net.borrow_mut().conns.get_mut(&self.conn) {
            c.ends[self.side].outstanding_bytes += piece.len();
        }
        self.world.send_packet(self.conn, 1 - self.side, Packet::Data(piece));
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(crate) fn shutdown(&self) {
        let mut net = self.world.net.borrow_mut();
        let Some(c) = net.conns.get_mut(&self.conn) else { return };
        let end = &mut c.ends[self.side];
        if std::mem::replace(&mut end.shut, true) {
            return;
        }
        let wakers = end.take_wakers();
        drop(net);
        wake(wakers);
        self.world.send_packet(self.conn, 1 - self.side, Packet::Fin);
    }

    pub(crate) fn detach(self) -> Detached {
        self.detached.set(true);
        Detached { conn: self.conn, side: self.side, peer: self.peer }
    }
}

impl World {
    fn close_end(self: &Rc<Self>, conn: u64, side: usize, farewell: Packet) {
        let mut net = self.net.borrow_mut();
        let Some(c) = net.conns.get_mut(&conn) else { return };
        let end = &mut c.ends[side];
        end.gone = true;
        let node = end.node;
        let unread = std::mem::take(&mut end.arrived);
        let already_shut = end.shut;
        drop(net);
        // A dead node says no farewell: `net_crash` resets its connections.
        if self.is_up(node) && !already_shut {
            // Closing with unread bytes resets, as in TCP.
            let packet = if unread.is_empty() { farewell } else { Packet::Reset };
            self.send_packet(conn, 1 - side, packet);
        }
        if self.is_up(node) {
            self.net.borrow_mut().reap(conn);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.detached.get() {
            self.world.close_end(self.conn, self.side, Packet::Fin);
        }
    }
}
