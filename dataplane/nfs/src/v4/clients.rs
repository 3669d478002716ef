//! Client ids and sessions of one reactor, and the operations that make and end them (RFC 8881, sections 18.34 to
//! 18.37 and 18.50). Every record is stored before the reply that makes it matter.

use super::records::{Channel, ClientRecord, SessionRecord};
use super::session::{SLOTS_MAX, Session};
use super::state::{Client, SessionId};
use super::types::{OpResult, Status};
use crate::auth::Auth;
use crate::rpc::RECORD_MAX_BYTES;
use crate::server::Local;
use crate::store::{client_key, session_key};
use crate::xdr::{Reader, Writer};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const OPAQUE_LIMIT: usize = 1024;
/// Client records of one reactor; at the bound EXCHANGE_ID answers DELAY until leases end.
const CLIENTS_MAX: usize = 16 << 10;
const SESSIONS_PER_CLIENT_MAX: usize = 64;
const DEAD_SESSIONS_MAX: usize = 1024;
/// Operations of one compound.
pub(crate) const OPERATIONS_MAX: u32 = 64;
/// The most that a slot's cached reply may be granted: the largest replies worth caching are OPEN's.
const CACHED_REPLY_MAX_BYTES: u32 = 8 << 10;
/// The least of a reply or request that can carry a compound of use.
const MESSAGE_MIN_BYTES: u32 = 512;

const FLAG_USE_NON_PNFS: u32 = 0x1_0000;
const FLAG_UPD_CONFIRMED_REC_A: u32 = 0x4000_0000;
const FLAG_CONFIRMED_R: u32 = 0x8000_0000;
/// Every flag that a client may set: MOVED_REFER, MOVED_MIGR, FENCE_OPS, BIND_PRINC_STATEID, the pNFS roles, UPDATE.
const FLAGS_OF_CLIENTS: u32 = 0x4007_0107;

#[derive(Clone, Copy, Default)]
struct ByOwner {
    confirmed: Option<u64>,
    unconfirmed: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Registry {
    by_id: RefCell<BTreeMap<u64, Rc<Client>>>,
    by_owner: RefCell<BTreeMap<Bytes, ByOwner>>,
    sessions: RefCell<BTreeMap<SessionId, Rc<Session>>>,
    counter: Cell<u32>,
    session_counter: Cell<u32>,
    /// Bytes that the replay caches of all sessions may grow to.
    cache_reserved: Cell<usize>,
}

/// Which reactor keeps a client: it follows from co_ownerid, and is part of the client id and of every session id.
pub(crate) fn home_of_owner(owner: &[u8]) -> u16 {
    siphasher::sip::SipHasher24::new_with_keys(0x686f_6d65, 0x6261_7361_6c74).hash(owner) as u16
}
pub(crate) fn home_of_client(id: u64) -> u16 {
    (id >> 48) as u16
}
pub(crate) fn home_of_session(id: &SessionId) -> u16 {
    u16::from_be_bytes([id[0], id[1]])
}

impl Registry {
    pub(crate) fn client(&self, id: u64) -> Option<Rc<Client>> {
        self.by_id.borrow().get(&id).cloned()
    }
    pub(crate) fn session(&self, id: &SessionId) -> Option<Rc<Session>> {
        self.sessions.borrow().get(id).cloned()
    }
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let states = self.by_id.borrow().values().map(|c| c.state_count()).sum();
        (self.by_id.borrow().len(), self.sessions.borrow().len(), states)
    }
    pub(crate) fn cache_reserved(&self) -> usize {
        self.cache_reserved.get()
    }

    /// Puts back what an earlier incarnation stored.
    pub(crate) fn restore_client(&self, r: &ClientRecord) {
        let client = Client::new(r.id, r.owner.clone(), r.verifier, r.principal, true, basalt_reactor::now());
        client.create_sequence.set(r.create_sequence);
        *client.create_reply.borrow_mut() = Some(r.create_reply.clone());
        self.by_owner.borrow_mut().entry(r.owner.clone()).or_default().confirmed = Some(r.id);
        self.by_id.borrow_mut().insert(r.id, Rc::new(client));
    }
    /// False when its client is unknown.
    pub(crate) fn restore_session(&self, r: &SessionRecord) -> bool {
        let Some(client) = self.client(r.client) else { return false };
        self.add_session(&client, Rc::new(Session::new(r.id, r.client, r.channel, true)));
        true
    }

    fn add_session(&self, client: &Client, session: Rc<Session>) {
        self.cache_reserved.set(self.cache_reserved.get() + Session::cache_bytes(&session.channel));
        client.sessions.borrow_mut().insert(session.id);
        self.sessions.borrow_mut().insert(session.id, session);
    }

    fn drop_session(&self, id: &SessionId) {
        if let Some(s) = self.sessions.borrow_mut().remove(id) {
            self.cache_reserved
                .set(self.cache_reserved.get().saturating_sub(Session::cache_bytes(&s.channel)));
        }
    }

    fn forget(&self, client: &Client) {
        client.gone.set(true);
        for id in client.sessions.borrow().iter() {
            self.drop_session(id);
        }
        self.by_id.borrow_mut().remove(&client.id);
        let mut owners = self.by_owner.borrow_mut();
        if let Some(entry) = owners.get_mut(&client.owner) {
            for slot in [&mut entry.confirmed, &mut entry.unconfirmed] {
                if *slot == Some(client.id) {
                    *slot = None;
                }
            }
            if entry.confirmed.is_none() && entry.unconfirmed.is_none() {
                owners.remove(&client.owner);
            }
        }
    }

    fn all(&self) -> Vec<Rc<Client>> {
        self.by_id.borrow().values().cloned().collect()
    }
}

/// EXCHANGE_ID4args up to what decides where it runs.
pub(crate) fn peek_exchange_id_owner(r: &mut Reader) -> OpResult<Bytes> {
    let _verifier: [u8; 8] = r.fixed()?;
    Ok(r.opaque(OPAQUE_LIMIT)?)
}

pub(crate) fn exchange_id(local: &Local, auth: &Auth, r: &mut Reader, w: &mut Writer) -> OpResult {
    let verifier: [u8; 8] = r.fixed()?;
    let owner = r.opaque(OPAQUE_LIMIT)?;
    let flags = r.u32()?;
    match r.u32()? {
        0 => {}
        // SP4_MACH_CRED and SP4_SSV need RPCSEC_GSS, which is never advertised (section 2.10.8.3).
        1 => return Err(Status::INVAL),
        2 => return Err(Status::ENCR_ALG_UNSUPP),
        _ => return Err(Status::BADXDR),
    }
    for _ in 0..r.count(1)? {
        r.opaque(OPAQUE_LIMIT)?;
        r.opaque(OPAQUE_LIMIT)?;
        r.i64()?;
        r.u32()?;
    }
    if flags & !FLAGS_OF_CLIENTS != 0 {
        return Err(Status::INVAL);
    }
    let client = choose_record(local, auth, &owner, verifier, flags & FLAG_UPD_CONFIRMED_REC_A != 0)?;
    client.renewed.set(basalt_reactor::now());
    w.u64(client.id);
    w.u32(client.create_sequence.get().wrapping_add(1));
    w.u32(FLAG_USE_NON_PNFS | if client.confirmed.get() { FLAG_CONFIRMED_R } else { 0 });
    w.u32(0); // SP4_NONE
    let server_id = &local.shared.config.server_id;
    w.u64(0);
    w.opaque(server_id);
    w.opaque(server_id);
    w.u32(1);
    w.opaque(b"basalt");
    w.opaque(concat!("basalt ", env!("CARGO_PKG_VERSION")).as_bytes());
    w.i64(0);
    w.u32(0);
    Ok(())
}

/// The cases of section 18.35.4, by number.
fn choose_record(
    local: &Local,
    auth: &Auth,
    owner: &Bytes,
    verifier: [u8; 8],
    update: bool,
) -> OpResult<Rc<Client>> {
    let registry = &local.clients;
    let entry = registry.by_owner.borrow().get(owner).copied().unwrap_or_default();
    let confirmed = entry.confirmed.and_then(|id| registry.client(id));
    let principal = auth.principal();
    if update {
        let Some(c) = confirmed else { return Err(Status::NOENT) }; // 7
        if c.verifier != verifier {
            return Err(Status::NOT_SAME); // 8
        }
        return if c.principal == principal { Ok(c) } else { Err(Status::PERM) }; // 6, 9
    }
    if let Some(c) = confirmed {
        if c.principal != principal {
            // 3: a collision, unless the other is only a memory.
            if c.state_count() > 0 || !local.lease_over(&c) {
                return Err(Status::CLID_INUSE);
            }
        } else if c.verifier == verifier {
            return Ok(c); // 2
        }
        // 5: the client restarted. Its old record stays until CREATE_SESSION confirms the new one.
    }
    if let Some(old) = entry.unconfirmed.and_then(|id| registry.client(id)) {
        registry.forget(&old); // 4
    }
    if registry.by_id.borrow().len() >= CLIENTS_MAX {
        return Err(Status::DELAY);
    }
    let id = loop {
        registry.counter.set(registry.counter.get().wrapping_add(1) & 0xff_ffff);
        let boot = local.shared.boot as u64 & 0xff_ffff;
        let id = (home_of_owner(owner) as u64) << 48 | boot << 24 | registry.counter.get() as u64;
        if !registry.by_id.borrow().contains_key(&id) {
            break id;
        }
    };
    let client = Rc::new(Client::new(id, owner.clone(), verifier, principal, false, basalt_reactor::now()));
    registry.by_id.borrow_mut().insert(id, client.clone());
    registry.by_owner.borrow_mut().entry(owner.clone()).or_default().unconfirmed = Some(id);
    Ok(client)
}

struct ChannelArgs {
    max_request: u32,
    max_response: u32,
    max_response_cached: u32,
    max_operations: u32,
    max_requests: u32,
}

fn channel_args(r: &mut Reader) -> OpResult<ChannelArgs> {
    let _header_pad = r.u32()?;
    let a = ChannelArgs {
        max_request: r.u32()?,
        max_response: r.u32()?,
        max_response_cached: r.u32()?,
        max_operations: r.u32()?,
        max_requests: r.u32()?,
    };
    for _ in 0..r.count(1)? {
        r.u32()?; // RDMA inline read depth
    }
    Ok(a)
}

pub(crate) async fn create_session(local: &Local, auth: &Auth, r: &mut Reader, w: &mut Writer) -> OpResult {
    let client_id = r.u64()?;
    let sequence = r.u32()?;
    let flags = r.u32()?;
    let fore = channel_args(r)?;
    let back = channel_args(r)?;
    let _callback_program = r.u32()?;
    for _ in 0..r.count(8)? {
        match r.u32()? {
            0 => {}
            1 => drop(Auth::parse_sys_inline(r)?),
            6 => {
                r.u32()?;
                r.opaque(OPAQUE_LIMIT)?;
                r.opaque(OPAQUE_LIMIT)?;
            }
            _ => return Err(Status::BADXDR),
        }
    }
    let client = local.clients.client(client_id).ok_or(Status::STALE_CLIENTID)?;
    // Phase 2 of section 18.36.4: the sequence, before anything else may fail.
    if let (true, Some(reply)) =
        (sequence == client.create_sequence.get(), client.create_reply.borrow().as_ref())
    {
        w.raw(reply.clone());
        return Ok(());
    }
    if sequence != client.create_sequence.get().wrapping_add(1) {
        return Err(Status::SEQ_MISORDERED);
    }
    if client.principal != auth.principal() {
        return Err(Status::CLID_INUSE);
    }
    if flags & !0x7 != 0 {
        return Err(Status::INVAL);
    }
    if client.creating.replace(true) {
        return Err(Status::DELAY);
    }
    let outcome = make_session(local, &client, sequence, &fore, &back).await;
    client.creating.set(false);
    w.raw(outcome?);
    Ok(())
}

fn grant(local: &Local, asked: &ChannelArgs) -> OpResult<Channel> {
    if asked.max_request < MESSAGE_MIN_BYTES || asked.max_response < MESSAGE_MIN_BYTES {
        return Err(Status::TOOSMALL);
    }
    let mut channel = Channel {
        max_request: asked.max_request.min(RECORD_MAX_BYTES as u32),
        max_response: asked.max_response.min(RECORD_MAX_BYTES as u32),
        max_response_cached: asked.max_response_cached.min(CACHED_REPLY_MAX_BYTES),
        max_operations: asked.max_operations.clamp(2, OPERATIONS_MAX),
        slots: asked.max_requests.clamp(1, SLOTS_MAX),
    };
    let budget = local.shared.config.replay_budget_bytes.saturating_sub(local.clients.cache_reserved());
    // Near the budget, a session that works slowly is better than none.
    for slots in [channel.slots, channel.slots.min(16), channel.slots.min(2)] {
        channel.slots = slots;
        if Session::cache_bytes(&channel) <= budget {
            return Ok(channel);
        }
    }
    tracing::warn!("the replay caches of all sessions have reached their budget; a new session is refused");
    Err(Status::NOSPC)
}

async fn make_session(
    local: &Local,
    client: &Rc<Client>,
    sequence: u32,
    fore: &ChannelArgs,
    back: &ChannelArgs,
) -> OpResult<Bytes> {
    let registry = &local.clients;
    if client.sessions.borrow().len() >= SESSIONS_PER_CLIENT_MAX {
        return Err(Status::NOSPC);
    }
    let channel = grant(local, fore)?;
    registry.session_counter.set(registry.session_counter.get().wrapping_add(1));
    let mut id: SessionId = [0; 16];
    id[..8].copy_from_slice(&client.id.to_be_bytes());
    id[8..12].copy_from_slice(&registry.session_counter.get().to_be_bytes());
    // The counter starts anew with each boot, and an id says nothing about others' ids.
    basalt_reactor::fill_random(&mut id[12..]);

    let mut w = Writer::new();
    w.fixed(&id);
    w.u32(sequence);
    // No PERSIST (replies are not stored whole), no CONN_BACK_CHAN (nothing is called back yet), no RDMA.
    w.u32(0);
    for (pad, req, resp, cached, ops, reqs) in [
        (
            0,
            channel.max_request,
            channel.max_response,
            channel.max_response_cached,
            channel.max_operations,
            channel.slots,
        ),
        (
            0,
            back.max_request,
            back.max_response,
            back.max_response_cached,
            back.max_operations,
            back.max_requests,
        ),
    ] {
        for v in [pad, req, resp, cached, ops, reqs] {
            w.u32(v);
        }
        w.u32(0);
    }
    let reply = w.finish_contiguous();

    // A confirmed record of the same owner is what the client was before its restart: its state ends here.
    let old = registry
        .by_owner
        .borrow()
        .get(&client.owner)
        .and_then(|e| e.confirmed)
        .filter(|old| *old != client.id);
    let old = old.and_then(|id| registry.client(id));
    if let Some(old) = &old {
        if old.busy.get() > 0 {
            return Err(Status::DELAY);
        }
        release(local, old).await?;
    }
    let record = ClientRecord {
        id: client.id,
        owner: client.owner.clone(),
        verifier: client.verifier,
        principal: client.principal,
        create_sequence: sequence,
        create_reply: reply.clone(),
    };
    let session_record = SessionRecord { id, client: client.id, channel };
    let mut changes = vec![
        (client_key(client.id), Some(record.encode())),
        (session_key(&id), Some(session_record.encode())),
    ];
    if let Some(old) = &old {
        changes.extend(deletions(old));
    }
    local.store.write(changes).await.map_err(|e| {
        tracing::error!("a client record cannot be stored, the client waits: {e}");
        Status::DELAY
    })?;
    if let Some(old) = &old {
        registry.forget(old);
    }
    if client.gone.get() {
        return Err(Status::STALE_CLIENTID);
    }
    client.confirmed.set(true);
    {
        let mut owners = registry.by_owner.borrow_mut();
        let entry = owners.entry(client.owner.clone()).or_default();
        if entry.unconfirmed == Some(client.id) {
            entry.unconfirmed = None;
        }
        entry.confirmed = Some(client.id);
    }
    client.create_sequence.set(sequence);
    *client.create_reply.borrow_mut() = Some(reply.clone());
    client.renewed.set(basalt_reactor::now());
    registry.add_session(client, Rc::new(Session::new(id, client.id, channel, false)));
    Ok(reply)
}

fn deletions(client: &Client) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut out = vec![(client_key(client.id), None)];
    out.extend(client.sessions.borrow().iter().map(|s| (session_key(s), None)));
    out
}

/// Gives back all that the client holds in the exported file systems.
async fn release(local: &Local, client: &Client) -> OpResult {
    let mut sessions: Vec<SessionId> = client.sessions.borrow().iter().copied().collect();
    sessions.extend(client.dead_sessions.borrow().iter());
    let exports = local.exports();
    let mut done: Vec<[u8; 16]> = Vec::new();
    for export in exports.by_id.values() {
        if !done.contains(&export.fsid) {
            export.vfs.release_client(client.id, &sessions).await?;
            done.push(export.fsid);
        }
    }
    Ok(())
}

/// Ends a client whose lease is over or that asked for it.
pub(crate) async fn end_client(local: &Local, client: &Client) -> OpResult {
    // From here on its sessions are refused, whatever becomes of the rest.
    client.gone.set(true);
    if client.confirmed.get() {
        release(local, client).await?;
        local.store.write(deletions(client)).await.map_err(|e| {
            tracing::error!(client = client.id, "a client record cannot be removed yet: {e}");
            Status::DELAY
        })?;
    }
    local.clients.forget(client);
    Ok(())
}

pub(crate) async fn destroy_session(local: &Local, auth: &Auth, id: SessionId, own: bool) -> OpResult {
    let session = local.clients.session(&id).ok_or(Status::BADSESSION)?;
    let client = local.clients.client(session.client).ok_or(Status::BADSESSION)?;
    if client.principal != auth.principal() {
        // Any user of the client may send on its sessions, but not end them.
        return Err(Status::PERM);
    }
    if session.busy_slots() > own as usize {
        return Err(Status::DELAY);
    }
    local.store.write(vec![(session_key(&id), None)]).await.map_err(|_| Status::DELAY)?;
    local.clients.drop_session(&id);
    client.sessions.borrow_mut().remove(&id);
    let mut dead = client.dead_sessions.borrow_mut();
    if dead.len() < DEAD_SESSIONS_MAX {
        dead.push(id);
    }
    Ok(())
}

pub(crate) async fn destroy_clientid(local: &Local, id: u64) -> OpResult {
    let client = local.clients.client(id).ok_or(Status::STALE_CLIENTID)?;
    if !client.sessions.borrow().is_empty() || client.state_count() > 0 {
        return Err(Status::CLIENTID_BUSY);
    }
    end_client(local, &client).await
}

/// Looks for ended leases, for as long as the server runs.
pub(crate) async fn expire_leases(local: Rc<Local>) {
    let period =
        Duration::from_millis(local.shared.config.lease_s as u64 * 250).max(Duration::from_millis(100));
    while !local.stopping() {
        basalt_reactor::sleep(period).await;
        for client in local.clients.all() {
            if local.lease_over(&client) && client.busy.get() == 0 && !client.creating.get() {
                if client.confirmed.get() {
                    tracing::info!(client = format_args!("{:016x}", client.id), "a client's lease has ended");
                }
                // A failure is tried again in the next round.
                let _ = end_client(&local, &client).await;
            }
        }
    }
}
