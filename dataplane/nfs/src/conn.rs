//! One connection: records in, many requests at a time, replies out as they are ready.

use crate::rpc::{self, Accept, Call, Deframer, PROGRAM_MOUNT, PROGRAM_NFS, Refused};
use crate::server::{BUDGET_UNIT_BYTES, Local, Peer, core_of};
use crate::stats::bump;
use crate::v4::compound;
use crate::xdr::pieces_len;
use crate::{v3, v4};
use basalt_reactor::net::Stream;
use basalt_reactor::sync::Notify;
use basalt_reactor::{Instant, now};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Replies that wait for the peer to read them; beyond it no further requests are taken from the connection.
const SEND_QUEUE_MAX_BYTES: usize = 8 << 20;
/// How long a stop waits for requests that are under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Conn {
    stream: Stream,
    peer: Peer,
    queue: RefCell<VecDeque<Vec<Bytes>>>,
    queued_bytes: Cell<usize>,
    in_flight: Cell<usize>,
    closed: Cell<bool>,
    active: Cell<Instant>,
    /// There is something to send, or the end has come.
    send: Notify,
    /// A request has ended, or bytes have left.
    progress: Notify,
}

impl Conn {
    fn enqueue(&self, message: Vec<Bytes>) {
        if self.closed.get() {
            return;
        }
        let framed = rpc::framed(message);
        self.queued_bytes.set(self.queued_bytes.get() + pieces_len(&framed));
        self.queue.borrow_mut().push_back(framed);
        self.send.notify_all();
    }
    fn close(&self) {
        if !self.closed.replace(true) {
            self.stream.shutdown();
            self.send.notify_all();
            self.progress.notify_all();
        }
    }
    fn idle(&self) -> bool {
        self.in_flight.get() == 0 && self.queued_bytes.get() == 0
    }
    /// Waits until everything begun is answered, or the connection is closed.
    async fn until_idle(&self) {
        loop {
            let changed = self.progress.notified();
            if self.idle() || self.closed.get() {
                return;
            }
            changed.await;
        }
    }
    /// Waits until there is room for one more request; false when the connection is closed.
    async fn room(&self, max_in_flight: usize) -> bool {
        loop {
            let changed = self.progress.notified();
            if self.closed.get() {
                return false;
            }
            if self.in_flight.get() < max_in_flight && self.queued_bytes.get() < SEND_QUEUE_MAX_BYTES {
                return true;
            }
            changed.await;
        }
    }
}

/// Starts serving a connection on the current reactor.
pub(crate) fn serve(local: Rc<Local>, stream: Stream, peer: Peer) {
    let conn = Rc::new(Conn {
        stream,
        peer,
        queue: RefCell::default(),
        queued_bytes: Cell::new(0),
        in_flight: Cell::new(0),
        closed: Cell::new(false),
        active: Cell::new(now()),
        send: Notify::new(),
        progress: Notify::new(),
    });
    let id = local.add_connection(&conn);
    basalt_reactor::spawn(write_replies(conn.clone()));
    basalt_reactor::spawn(async move {
        read_requests(&local, &conn).await;
        conn.close();
        local.remove_connection(id);
    });
}

async fn read_requests(local: &Rc<Local>, conn: &Rc<Conn>) {
    let mut input = BytesMut::with_capacity(rpc::READ_CHUNK_BYTES);
    let mut deframer = Deframer::default();
    loop {
        loop {
            match deframer.next(&mut input) {
                Ok(Some(record)) => {
                    if !conn.room(local.shared.config.requests_per_connection).await {
                        return;
                    }
                    if local.stopping() {
                        // Not begun, so it is as if it had not come; what was begun is still answered.
                        conn.until_idle().await;
                        return;
                    }
                    start_request(local, conn, record).await;
                }
                Ok(None) => break,
                Err(e) => {
                    bump(&local.stats.malformed, 1);
                    tracing::warn!(peer = %conn.peer.address, "closing a connection: {e}");
                    return;
                }
            }
        }
        let (outcome, buffer) = conn.stream.read(input).await;
        input = buffer;
        match outcome {
            Ok(0) => return,
            Ok(_) => conn.active.set(now()),
            Err(e) => {
                tracing::debug!(peer = %conn.peer.address, "a connection ended: {e}");
                return;
            }
        }
    }
}

async fn start_request(local: &Rc<Local>, conn: &Rc<Conn>, record: Bytes) {
    let permit = local.budget.acquire(record.len() / BUDGET_UNIT_BYTES + 1).await;
    conn.in_flight.set(conn.in_flight.get() + 1);
    let (local, conn) = (local.clone(), conn.clone());
    // Not bound to the connection: what was begun is finished, and its slot kept, whether or not the reply can be sent.
    basalt_reactor::spawn(async move {
        match answer(&local, &conn.peer, record).await {
            Ok(Some(reply)) => conn.enqueue(reply),
            Ok(None) => {}
            Err(Hopeless) => {
                bump(&local.stats.malformed, 1);
                tracing::warn!(peer = %conn.peer.address, "closing a connection: a record that is no RPC call");
                conn.close();
            }
        }
        drop(permit);
        conn.in_flight.set(conn.in_flight.get() - 1);
        conn.progress.notify_all();
    });
}

async fn write_replies(conn: Rc<Conn>) {
    loop {
        let more = conn.send.notified();
        let batch: Vec<Bytes> = conn.queue.borrow_mut().drain(..).flatten().collect();
        if batch.is_empty() {
            if conn.closed.get() {
                return;
            }
            more.await;
            continue;
        }
        let len = pieces_len(&batch);
        let outcome = conn.stream.write_all(batch).await;
        conn.queued_bytes.set(conn.queued_bytes.get() - len);
        conn.active.set(now());
        conn.progress.notify_all();
        if let Err(e) = outcome {
            tracing::debug!(peer = %conn.peer.address, "a connection ended: {e}");
            conn.close();
            return;
        }
    }
}

/// The record is not RPC at all.
#[derive(Debug)]
pub(crate) struct Hopeless;

/// From a record to the reply's message; `None`: no reply is due.
pub(crate) async fn answer(
    local: &Rc<Local>,
    peer: &Peer,
    record: Bytes,
) -> Result<Option<Vec<Bytes>>, Hopeless> {
    let call = match rpc::parse_call(record) {
        Ok(c) => c,
        Err(Refused::Answered(reply)) => {
            bump(&local.stats.malformed, 1);
            return Ok(Some(reply));
        }
        Err(Refused::Hopeless) => return Err(Hopeless),
    };
    let xid = call.xid;
    Ok(match (call.program, call.version) {
        (PROGRAM_NFS, 4) => compound_call(local, peer, call).await,
        (PROGRAM_NFS, 3) => v3::call(local, peer, call).await,
        (PROGRAM_MOUNT, 3) => Some(v3::mount::call(local, peer, call).await),
        (PROGRAM_NFS, _) => Some(rpc::not_executed(xid, Accept::ProgMismatch { low: 3, high: 4 })),
        (PROGRAM_MOUNT, _) => Some(rpc::not_executed(xid, Accept::ProgMismatch { low: 3, high: 3 })),
        _ => Some(rpc::not_executed(xid, Accept::ProgUnavail)),
    })
}

async fn compound_call(local: &Rc<Local>, peer: &Peer, call: Call) -> Option<Vec<Bytes>> {
    let xid = call.xid;
    match call.procedure {
        0 => return Some(rpc::success(xid, Vec::new())),
        1 => {}
        _ => return Some(rpc::not_executed(xid, Accept::ProcUnavail)),
    }
    let core = compound::home(&call.args).map(core_of).filter(|c| *c != basalt_reactor::current_core());
    let outcome = match core {
        None => v4::compound::execute(local, peer, &call.auth, call.args).await,
        Some(core) => {
            let (uid, peer) = (local.uid(), *peer);
            let done = basalt_reactor::call_on(core, move || async move {
                let local = crate::server::Local::of(uid)?;
                Some(v4::compound::execute(&local, &peer, &call.auth, call.args).await)
            });
            done.await?
        }
    };
    Some(match outcome {
        Ok(results) => rpc::success(xid, results),
        Err(_) => {
            bump(&local.stats.malformed, 1);
            rpc::not_executed(xid, Accept::GarbageArgs)
        }
    })
}

/// Closes connections that nobody uses, or whose peer has stopped reading.
pub(crate) async fn close_idle(local: Rc<Local>) {
    let limit = Duration::from_secs(local.shared.config.idle_s.max(1) as u64);
    loop {
        basalt_reactor::sleep(limit / 4).await;
        let all: Vec<Rc<Conn>> = local.connections.borrow().values().filter_map(|c| c.upgrade()).collect();
        for conn in all {
            let stuck = conn.queued_bytes.get() > 0 || conn.in_flight.get() == 0;
            if stuck && conn.active.get().elapsed() > limit {
                tracing::debug!(peer = %conn.peer.address, "closing an idle connection");
                conn.close();
            }
        }
    }
}

/// Answers what this reactor's connections have under way, then closes them.
pub(crate) async fn drain(local: &Local) {
    let started = now();
    let all: Vec<Rc<Conn>> = local.connections.borrow().values().filter_map(|c| c.upgrade()).collect();
    for conn in all {
        let left = DRAIN_LIMIT.saturating_sub(started.elapsed());
        basalt_reactor::timeout(left, conn.until_idle()).await;
        conn.close();
    }
}
