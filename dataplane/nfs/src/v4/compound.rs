//! COMPOUND: routing to the session's home reactor, SEQUENCE and its replay, then operation after operation.

use super::clients;
use super::session::{Begin, SequenceArgs, Session};
use super::state::Client;
use super::stateid::{FileKey, Stateid};
use super::types::{OpResult, Status, last_op, op, op_name};
use crate::auth::Auth;
use crate::export::LocalExport;
use crate::handle::Handle;
use crate::server::{Local, Peer};
use crate::stats::bump;
use crate::xdr::{Malformed, Reader, Writer, XdrResult};
use basalt_shard::vfs::{Attr, Context, Ino, ReplayId, Vfs};
use bytes::Bytes;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::rc::Rc;

const TAG_MAX: usize = 1024;
/// A retry is compared by this much of its beginning and by its length: what differs in requests that a client mixes up
/// lies there, and a 1 MiB WRITE is not hashed whole.
const REQUEST_HASH_BYTES: usize = 1024;

struct Header {
    tag: Bytes,
    minor: u32,
    operations: u32,
}

fn header(r: &mut Reader) -> XdrResult<Header> {
    Ok(Header { tag: r.opaque(TAG_MAX)?, minor: r.u32()?, operations: r.u32()? })
}

/// The home (see `clients`) of what a compound works on; `None`: any reactor will do.
pub(crate) fn home(args: &Reader) -> Option<u16> {
    let mut r = args.clone();
    let h = header(&mut r).ok()?;
    if h.minor == 0 || h.operations == 0 {
        return None;
    }
    match r.u32().ok()? {
        op::SEQUENCE | op::BIND_CONN_TO_SESSION | op::DESTROY_SESSION => {
            Some(clients::home_of_session(&r.fixed().ok()?))
        }
        op::CREATE_SESSION | op::DESTROY_CLIENTID => Some(clients::home_of_client(r.u64().ok()?)),
        op::EXCHANGE_ID => Some(clients::home_of_owner(&clients::peek_exchange_id_owner(&mut r).ok()?)),
        _ => None,
    }
}

/// What a file handle was resolved to on this reactor.
#[derive(Clone)]
pub(crate) enum Node {
    Pseudo(u64),
    Object(Object),
}

#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) export: Rc<LocalExport>,
    pub(crate) ino: Ino,
    pub(crate) generation: u32,
}

impl Object {
    pub(crate) fn of(export: &Rc<LocalExport>, attr: &Attr) -> Object {
        Object { export: export.clone(), ino: attr.ino, generation: attr.generation }
    }
    pub(crate) fn vfs(&self) -> &Rc<dyn Vfs> {
        &self.export.vfs
    }
    pub(crate) fn key(&self) -> FileKey {
        FileKey { export: self.export.id(), ino: self.ino.0, generation: self.generation }
    }
    pub(crate) fn handle(&self) -> Handle {
        Handle::Object {
            export: self.export.id(),
            fsid: self.export.fsid,
            snapshot: 0,
            ino: self.ino,
            generation: self.generation,
        }
    }
    pub(crate) fn is_export_root(&self) -> bool {
        self.ino == self.export.root
    }
    pub(crate) fn writable(&self) -> OpResult {
        if self.export.read_only() { Err(Status::ROFS) } else { Ok(()) }
    }
}

/// The session part of a compound being executed.
pub(crate) struct Slotted {
    pub(crate) session: Rc<Session>,
    pub(crate) client: Rc<Client>,
    pub(crate) args: SequenceArgs,
}

/// One compound being executed.
pub(crate) struct Compound<'a> {
    pub(crate) local: &'a Rc<Local>,
    pub(crate) peer: &'a Peer,
    pub(crate) auth: &'a Auth,
    pub(crate) minor: u32,
    pub(crate) slotted: Option<Slotted>,
    /// Index of the operation being executed.
    pub(crate) index: u16,
    pub(crate) operations: u32,
    pub(crate) current: Option<Node>,
    pub(crate) saved: Option<Node>,
    pub(crate) stateid: Option<Stateid>,
    pub(crate) saved_stateid: Option<Stateid>,
    /// Attributes of the current object as the operation just before left them.
    pub(crate) fresh: Option<Attr>,
    /// Bytes that the reply may still grow by.
    pub(crate) room: usize,
}

fn request_hash(args: &Bytes, auth: &Auth) -> u64 {
    let mut h = SipHasher24::new_with_keys(0x7265_7472, 0x79);
    h.write(&args[..args.len().min(REQUEST_HASH_BYTES)]);
    h.write_usize(args.len());
    h.write_u32(auth.principal().uid);
    h.finish()
}

fn results(status: Status, tag: &[u8], count: u32, body: Writer) -> Vec<Bytes> {
    let mut w = Writer::new();
    w.u32(status.0);
    w.opaque(tag);
    w.u32(count);
    w.append(body);
    w.finish()
}

/// Executes a COMPOUND; the answer is a COMPOUND4res, whatever carries it. `Malformed` only when not even the header
/// can be read.
pub(crate) async fn execute(
    local: &Rc<Local>,
    peer: &Peer,
    auth: &Auth,
    mut r: Reader,
) -> Result<Vec<Bytes>, Malformed> {
    let request = r.rest().clone();
    let h = header(&mut r)?;
    if !(1..=2).contains(&h.minor) {
        return Ok(results(Status::MINOR_VERS_MISMATCH, &h.tag, 0, Writer::new()));
    }
    if h.operations == 0 {
        return Ok(results(Status::OK, &h.tag, 0, Writer::new()));
    }
    let mut c = Compound {
        local,
        peer,
        auth,
        minor: h.minor,
        slotted: None,
        index: 0,
        operations: h.operations,
        current: None,
        saved: None,
        stateid: None,
        saved_stateid: None,
        fresh: None,
        room: crate::rpc::RECORD_MAX_BYTES,
    };
    let mut body = Writer::new();
    let first = r.clone().u32()?;
    if first == op::SEQUENCE {
        let started = basalt_reactor::now();
        r.u32()?;
        body.u32(op::SEQUENCE);
        let outcome = c.sequence(&mut r, &request, &mut body);
        local.stats.record(op_name(op::SEQUENCE), started, outcome.is_err());
        match outcome {
            Ok(None) => {}
            Ok(Some(replayed)) => {
                bump(&local.stats.replays, 1);
                return Ok(replayed);
            }
            Err(e) => {
                body.truncate(4);
                body.u32(e.0);
                return Ok(results(e, &h.tag, 1, body));
            }
        }
        if let Some(answer) = c.retry_uncached(&h, &mut body) {
            return Ok(answer);
        }
    } else if let Err(e) = c.allowed_outside_a_session(first) {
        body.u32(if first > last_op(c.minor) || first < op::ACCESS { op::ILLEGAL } else { first });
        body.u32(e.0);
        return Ok(results(e, &h.tag, 1, body));
    }
    let reply = c.operations(&h, &mut r, body).await;
    if let Some(s) = &c.slotted {
        s.session.finish(&s.args, &reply);
        s.client.busy.set(s.client.busy.get() - 1);
        s.client.renewed.set(basalt_reactor::now());
    }
    Ok(reply)
}

impl Compound<'_> {
    /// RFC 8881, section 2.10.6 and 2.3: which operations may start a compound without SEQUENCE, and only alone.
    fn allowed_outside_a_session(&self, first: u32) -> OpResult {
        match first {
            op::EXCHANGE_ID
            | op::CREATE_SESSION
            | op::BIND_CONN_TO_SESSION
            | op::DESTROY_SESSION
            | op::DESTROY_CLIENTID => {
                if self.operations == 1 {
                    Ok(())
                } else {
                    Err(Status::NOT_ONLY_OP)
                }
            }
            _ if first < op::ACCESS || first > last_op(self.minor) => Err(Status::OP_ILLEGAL),
            _ => Err(Status::OP_NOT_IN_SESSION),
        }
    }

    /// SEQUENCE; `Some` is the stored reply of a retry.
    fn sequence(&mut self, r: &mut Reader, request: &Bytes, w: &mut Writer) -> OpResult<Option<Vec<Bytes>>> {
        let args = SequenceArgs {
            session: r.fixed()?,
            sequence: r.u32()?,
            slot: r.u32()?,
            highest_slot: r.u32()?,
            cache_this: r.bool()?,
        };
        let session = self.local.clients.session(&args.session).ok_or(Status::BADSESSION)?;
        let client = self.local.clients.client(session.client).ok_or(Status::BADSESSION)?;
        if client.gone.get() {
            return Err(Status::BADSESSION);
        }
        client.renewed.set(basalt_reactor::now());
        if self.operations > session.channel.max_operations {
            return Err(Status::TOO_MANY_OPS);
        }
        if request.len() > session.channel.max_request as usize {
            return Err(Status::REQ_TOO_BIG);
        }
        let begin = session.begin(&args, request_hash(request, self.auth))?;
        if let Begin::Replay(reply) = begin {
            return Ok(Some(reply));
        }
        w.u32(0);
        w.fixed(&args.session);
        w.u32(args.sequence);
        w.u32(args.slot);
        w.u32(session.channel.slots - 1);
        w.u32(session.channel.slots - 1);
        w.u32(0);
        self.room = session.channel.max_response as usize;
        if let Begin::New = begin {
            client.busy.set(client.busy.get() + 1);
            self.slotted = Some(Slotted { session, client, args });
        }
        Ok(None)
    }

    /// A retry whose reply was not kept: SEQUENCE is answered as before, the next operation says so (section 2.10.6.1.3).
    fn retry_uncached(&self, h: &Header, body: &mut Writer) -> Option<Vec<Bytes>> {
        if self.slotted.is_some() {
            return None;
        }
        let body = std::mem::take(body);
        if self.operations == 1 {
            return Some(results(Status::OK, &h.tag, 1, body));
        }
        Some(results(Status::RETRY_UNCACHED_REP, &h.tag, 1, body))
    }

    async fn operations(&mut self, h: &Header, r: &mut Reader, mut body: Writer) -> Vec<Bytes> {
        let mut count = if self.slotted.is_some() { 1 } else { 0 };
        let max_response = self.room;
        let mut status = Status::OK;
        while count < self.operations {
            // Every operation takes at least its number.
            let Ok(number) = r.u32() else {
                status = Status::BADXDR;
                body.u32(op::ILLEGAL);
                body.u32(status.0);
                count += 1;
                break;
            };
            self.index = count as u16;
            count += 1;
            let known = (op::ACCESS..=last_op(self.minor)).contains(&number);
            let at = body.len();
            body.u32(if known { number } else { op::ILLEGAL });
            body.u32(0);
            self.room = max_response.saturating_sub(body.len() + 64);
            let started = basalt_reactor::now();
            let mut outcome =
                if known { self.operation(number, r, &mut body).await } else { Err(Status::OP_ILLEGAL) };
            if outcome.is_ok() {
                outcome = self.reply_fits(body.len(), max_response);
            }
            self.local.stats.record(op_name(number), started, outcome.is_err());
            if let Err(e) = outcome {
                status = e;
                // A failed operation that has results wrote them, with its status, itself.
                if body.len() == at + 8 || !has_error_results(number, e) {
                    body.truncate(at + 4);
                    body.u32(e.0);
                    if number == op::SETATTR {
                        body.u32(0); // attrsset
                    }
                }
                break;
            }
        }
        results(status, &h.tag, count, body)
    }

    fn reply_fits(&self, len: usize, max_response: usize) -> OpResult {
        let Some(s) = &self.slotted else { return Ok(()) };
        if len > max_response {
            return Err(Status::REP_TOO_BIG);
        }
        if s.args.cache_this && len > s.session.channel.max_response_cached as usize {
            return Err(Status::REP_TOO_BIG_TO_CACHE);
        }
        Ok(())
    }

    async fn operation(&mut self, number: u32, r: &mut Reader, w: &mut Writer) -> OpResult {
        let fresh = self.fresh.take();
        match number {
            op::ACCESS => self.op_access(r, w).await,
            op::CLOSE => self.op_close(r, w).await,
            op::COMMIT => self.op_commit(r, w).await,
            op::CREATE => self.op_create(r, w).await,
            op::GETATTR => self.op_getattr(fresh, r, w).await,
            op::GETFH => {
                self.fresh = fresh;
                self.op_getfh(w)
            }
            op::LINK => self.op_link(r, w).await,
            op::LOCK => self.op_lock(r, w).await,
            op::LOCKT => self.op_lockt(r, w).await,
            op::LOCKU => self.op_locku(r, w).await,
            op::LOOKUP => self.op_lookup(r).await,
            op::LOOKUPP => self.op_lookupp().await,
            op::NVERIFY => self.op_verify(r, false).await,
            op::OPEN => self.op_open(r, w).await,
            op::OPEN_DOWNGRADE => self.op_open_downgrade(r, w).await,
            op::PUTFH => self.op_putfh(r),
            op::PUTPUBFH | op::PUTROOTFH => self.op_putrootfh(),
            op::READ => self.op_read(r, w).await,
            op::READDIR => self.op_readdir(r, w).await,
            op::READLINK => self.op_readlink(w).await,
            op::REMOVE => self.op_remove(r, w).await,
            op::RENAME => self.op_rename(r, w).await,
            op::RESTOREFH => self.op_restorefh(),
            op::SAVEFH => {
                self.fresh = fresh;
                self.op_savefh()
            }
            op::SECINFO => self.op_secinfo(r, w).await,
            op::SECINFO_NO_NAME => self.op_secinfo_no_name(r, w).await,
            op::SETATTR => self.op_setattr(r, w).await,
            op::VERIFY => self.op_verify(r, true).await,
            op::WRITE => self.op_write(r, w).await,
            op::BACKCHANNEL_CTL => Err(Status::NOTSUPP),
            op::BIND_CONN_TO_SESSION => self.op_bind_conn(r, w),
            op::EXCHANGE_ID => {
                self.alone()?;
                clients::exchange_id(self.local, self.auth, r, w)
            }
            op::CREATE_SESSION => {
                self.alone_or_slotted()?;
                clients::create_session(self.local, self.auth, r, w).await
            }
            op::DESTROY_SESSION => {
                let id = r.fixed()?;
                let own = self.slotted.as_ref().is_some_and(|s| s.session.id == id);
                if own && self.index as u32 + 1 != self.operations {
                    return Err(Status::NOT_ONLY_OP);
                }
                self.same_home(clients::home_of_session(&id), Status::BADSESSION)?;
                clients::destroy_session(self.local, self.auth, id, own).await
            }
            op::DESTROY_CLIENTID => {
                let id = r.u64()?;
                self.same_home(clients::home_of_client(id), Status::STALE_CLIENTID)?;
                clients::destroy_clientid(self.local, id).await
            }
            op::FREE_STATEID => self.op_free_stateid(r).await,
            op::TEST_STATEID => self.op_test_stateid(r, w),
            op::SEQUENCE => Err(Status::SEQUENCE_POS),
            op::RECLAIM_COMPLETE => self.op_reclaim_complete(r),
            op::ALLOCATE => self.op_allocate(r).await,
            op::DEALLOCATE => self.op_deallocate(r).await,
            op::SEEK => self.op_seek(r, w).await,
            op::IO_ADVISE => self.op_io_advise(r, w),
            op::GET_DIR_DELEGATION => self.op_get_dir_delegation(w),
            // Layouts, copies, xattrs, delegations and what only 4.0 had.
            _ => Err(Status::NOTSUPP),
        }
    }

    fn alone(&self) -> OpResult {
        if self.operations == 1 { Ok(()) } else { Err(Status::NOT_ONLY_OP) }
    }
    fn alone_or_slotted(&self) -> OpResult {
        if self.slotted.is_some() { Ok(()) } else { self.alone() }
    }
    /// Inside a session only what lives on this reactor can be worked on.
    fn same_home(&self, home: u16, otherwise: Status) -> OpResult {
        if self.local.is_home(home) { Ok(()) } else { Err(otherwise) }
    }

    pub(crate) fn client(&self) -> OpResult<&Rc<Client>> {
        self.slotted.as_ref().map(|s| &s.client).ok_or(Status::OP_NOT_IN_SESSION)
    }

    pub(crate) fn node(&self) -> OpResult<&Node> {
        self.current.as_ref().ok_or(Status::NOFILEHANDLE)
    }
    /// The current object, where a pseudo directory will not do.
    pub(crate) fn object(&self, on_pseudo: Status) -> OpResult<Object> {
        match self.node()? {
            Node::Object(o) => Ok(o.clone()),
            Node::Pseudo(_) => Err(on_pseudo),
        }
    }

    pub(crate) fn context(&self, o: &Object) -> Context {
        o.export.context(self.auth, None)
    }
    /// The context of a non-idempotent operation.
    pub(crate) fn once(&self, o: &Object) -> Context {
        let replay =
            self.slotted.as_ref().filter(|_| !crate::planted::lost_replay_slot()).map(|s| ReplayId::V4 {
                session: s.session.id,
                slot: s.args.slot,
                sequence: s.args.sequence,
                op: self.index,
            });
        o.export.context(self.auth, replay)
    }

    /// The caller may use this export at all, with this flavour.
    pub(crate) fn admitted(&self, export: &LocalExport) -> OpResult {
        if *self.auth == Auth::None {
            return Err(Status::WRONGSEC);
        }
        if export.export.admits(self.peer.address) { Ok(()) } else { Err(Status::ACCESS) }
    }

    pub(crate) fn become_object(&mut self, export: &Rc<LocalExport>, attr: Attr) {
        self.current = Some(Node::Object(Object::of(export, &attr)));
        self.fresh = Some(attr);
        self.stateid = None;
    }
}

/// Failures whose results are more than the status.
fn has_error_results(number: u32, status: Status) -> bool {
    matches!(number, op::LOCK | op::LOCKT) && status == Status::DENIED
}

/// A component4 that names something in a directory.
pub(crate) fn component(r: &mut Reader) -> OpResult<Bytes> {
    // The whole compound bounds it; the limit that matters has its own error.
    let name = r.opaque(64 << 10)?;
    if name.is_empty() {
        return Err(Status::INVAL);
    }
    if name.len() > basalt_shard::vfs::NAME_MAX {
        return Err(Status::NAMETOOLONG);
    }
    if &name[..] == b"." || &name[..] == b".." {
        return Err(Status::BADNAME);
    }
    if name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Status::BADCHAR);
    }
    Ok(name)
}
