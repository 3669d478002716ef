//! What a client holds: opens and locks. Lives on the client's home reactor; changes happen between suspension points.

use super::stateid::{FileKey, Kind, Minted, Other, Stateid};
use super::types::{OpResult, Status};
use crate::auth::Principal;
use crate::handle::Secret;
use basalt_reactor::Instant;
use basalt_shard::vfs::Share;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Opens and locks of one client; at the bound OPEN and LOCK answer DELAY until it closes some.
const STATES_PER_CLIENT_MAX: usize = 1 << 20;

/// Ended states remembered after a restart; a client that presents one of more than that many is confused already.
const ENDED_MAX: usize = 64 << 10;

pub(crate) type SessionId = [u8; 16];

/// A client record (RFC 8881, section 18.35).
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) owner: Bytes,
    pub(crate) verifier: [u8; 8],
    pub(crate) principal: Principal,
    pub(crate) confirmed: Cell<bool>,
    /// Came from a stored record: an earlier incarnation's stateids may be presented.
    pub(crate) restored: bool,
    pub(crate) create_sequence: Cell<u32>,
    pub(crate) create_reply: RefCell<Option<Bytes>>,
    pub(crate) creating: Cell<bool>,
    pub(crate) sessions: RefCell<BTreeSet<SessionId>>,
    /// Sessions destroyed; their replay records go with the client.
    pub(crate) dead_sessions: RefCell<Vec<SessionId>>,
    pub(crate) renewed: Cell<Instant>,
    /// Requests in progress; a client is not expired under them.
    pub(crate) busy: Cell<u32>,
    pub(crate) reclaim_complete: Cell<bool>,
    pub(crate) gone: Cell<bool>,
    states: RefCell<BTreeMap<Other, State>>,
    opens: RefCell<BTreeMap<(FileKey, Bytes), Other>>,
    locks: RefCell<BTreeMap<(FileKey, Bytes), Other>>,
    counter: Cell<u32>,
    /// Rebuilt states that have ended: their stateids would be believed again.
    ended: RefCell<BTreeSet<Other>>,
}

#[derive(Clone)]
pub(crate) enum State {
    Open(Rc<OpenState>),
    Lock(Rc<LockState>),
}

pub(crate) struct OpenState {
    pub(crate) other: Other,
    pub(crate) file: FileKey,
    /// The open-owner; unknown for a state that was rebuilt from its stateid, until that owner opens again.
    owner: RefCell<Option<Bytes>>,
    owner_hash: u16,
    pub(crate) seqid: Cell<u32>,
    /// The opens registered with the file system.
    pub(crate) shares: RefCell<Vec<Share>>,
    /// Access whose permission was checked at open. A rebuilt state knows only what its stateid says; anything beyond
    /// is checked at each use.
    pub(crate) checked_access: Cell<u32>,
}

pub(crate) struct LockState {
    pub(crate) other: Other,
    pub(crate) file: FileKey,
    owner: Option<Bytes>,
    pub(crate) open: Option<Other>,
    pub(crate) seqid: Cell<u32>,
    /// A lock was granted once; until then a refused LOCK takes the state back.
    pub(crate) established: Cell<bool>,
    /// LOCKs under way.
    pub(crate) pending: Cell<u32>,
}

impl OpenState {
    pub(crate) fn access(&self) -> u32 {
        self.shares.borrow().iter().fold(0, |a, s| a | s.access)
    }
    pub(crate) fn deny(&self) -> u32 {
        self.shares.borrow().iter().fold(0, |a, s| a | s.deny)
    }
    pub(crate) fn stateid(&self) -> Stateid {
        Stateid { seqid: self.seqid.get(), other: self.other }
    }
    pub(crate) fn bump(&self) -> Stateid {
        self.seqid.set(next_seqid(self.seqid.get()));
        self.stateid()
    }
}

impl LockState {
    pub(crate) fn stateid(&self) -> Stateid {
        Stateid { seqid: self.seqid.get(), other: self.other }
    }
    pub(crate) fn bump(&self) -> Stateid {
        self.seqid.set(next_seqid(self.seqid.get()));
        self.stateid()
    }
}

impl State {
    pub(crate) fn file(&self) -> FileKey {
        match self {
            State::Open(o) => o.file,
            State::Lock(l) => l.file,
        }
    }
    fn seqid(&self) -> u32 {
        match self {
            State::Open(o) => o.seqid.get(),
            State::Lock(l) => l.seqid.get(),
        }
    }
}

/// Seqids skip zero when they wrap (RFC 8881, section 8.2.2).
fn next_seqid(s: u32) -> u32 {
    s.wrapping_add(1).max(1)
}

pub(crate) fn owner_hash(owner: &[u8]) -> u16 {
    siphasher::sip::SipHasher24::new_with_keys(0x6f77_6e65, 0x7273).hash(owner) as u16
}

impl Client {
    pub(crate) fn new(
        id: u64,
        owner: Bytes,
        verifier: [u8; 8],
        principal: Principal,
        restored: bool,
        now: Instant,
    ) -> Client {
        Client {
            id,
            owner,
            verifier,
            principal,
            confirmed: Cell::new(restored),
            restored,
            create_sequence: Cell::new(0),
            create_reply: RefCell::new(None),
            creating: Cell::new(false),
            sessions: RefCell::default(),
            dead_sessions: RefCell::default(),
            renewed: Cell::new(now),
            busy: Cell::new(0),
            reclaim_complete: Cell::new(restored),
            gone: Cell::new(false),
            states: RefCell::default(),
            opens: RefCell::default(),
            locks: RefCell::default(),
            counter: Cell::new(0),
            ended: RefCell::default(),
        }
    }

    pub(crate) fn state_count(&self) -> usize {
        self.states.borrow().len()
    }

    fn mint(&self, kind: Kind, owner: &[u8], file: FileKey, secret: &Secret, boot: u32) -> OpResult<Other> {
        let states = self.states.borrow();
        if states.len() >= STATES_PER_CLIENT_MAX {
            return Err(Status::DELAY);
        }
        loop {
            self.counter.set(self.counter.get().wrapping_add(1));
            let minted = Minted { kind, boot, owner_hash: owner_hash(owner), counter: self.counter.get() };
            let other = minted.encode(secret, self.id, file);
            // The counter may have wrapped onto a state that is still held.
            if !states.contains_key(&other) {
                return Ok(other);
            }
        }
    }

    /// The open of this owner on this file, a rebuilt one included.
    pub(crate) fn find_open(&self, owner: &Bytes, file: FileKey) -> Option<Rc<OpenState>> {
        let known = self.opens.borrow().get(&(file, owner.clone())).copied();
        let states = self.states.borrow();
        if let Some(State::Open(o)) = known.and_then(|other| states.get(&other)) {
            return Some(o.clone());
        }
        None
    }

    /// Lets `owner` take over a rebuilt state of that file whose stateid was minted for an owner of the same hash.
    pub(crate) fn adopt_open(&self, owner: &Bytes, file: FileKey) -> Option<Rc<OpenState>> {
        if !self.restored {
            return None;
        }
        let hash = owner_hash(owner);
        let found = self
            .opens
            .borrow()
            .range((file, Bytes::new())..)
            .take_while(|(k, _)| k.0 == file)
            .find_map(|(_, other)| match self.states.borrow().get(other) {
                Some(State::Open(o)) if o.owner.borrow().is_none() && o.owner_hash == hash => Some(o.clone()),
                _ => None,
            })?;
        let mut opens = self.opens.borrow_mut();
        opens.remove(&(file, rebuilt_owner(found.other)));
        opens.insert((file, owner.clone()), found.other);
        *found.owner.borrow_mut() = Some(owner.clone());
        Some(found)
    }

    pub(crate) fn add_open(
        &self,
        owner: &Bytes,
        file: FileKey,
        share: Share,
        secret: &Secret,
        boot: u32,
    ) -> OpResult<Rc<OpenState>> {
        let other = self.mint(Kind::Open(share), owner, file, secret, boot)?;
        let state = Rc::new(OpenState {
            other,
            file,
            owner: RefCell::new(Some(owner.clone())),
            owner_hash: owner_hash(owner),
            seqid: Cell::new(1),
            shares: RefCell::new(vec![share]),
            checked_access: Cell::new(share.access),
        });
        self.opens.borrow_mut().insert((file, owner.clone()), other);
        self.states.borrow_mut().insert(other, State::Open(state.clone()));
        Ok(state)
    }

    /// Puts back an open that an earlier incarnation granted; `registered` is what the file system holds for it.
    pub(crate) fn rebuild_open(
        &self,
        id: Stateid,
        minted: &Minted,
        file: FileKey,
        registered: Share,
    ) -> Rc<OpenState> {
        if let Some(State::Open(o)) = self.states.borrow().get(&id.other) {
            return o.clone();
        }
        let checked = if let Kind::Open(s) = minted.kind { s.access } else { 0 };
        let state = Rc::new(OpenState {
            other: id.other,
            file,
            owner: RefCell::new(None),
            owner_hash: minted.owner_hash,
            seqid: Cell::new(id.seqid.max(1)),
            shares: RefCell::new(vec![registered]),
            checked_access: Cell::new(checked),
        });
        self.opens.borrow_mut().insert((file, rebuilt_owner(id.other)), id.other);
        self.states.borrow_mut().insert(id.other, State::Open(state.clone()));
        state
    }

    pub(crate) fn remove_open(&self, open: &OpenState) {
        let key = open.owner.borrow().clone().unwrap_or_else(|| rebuilt_owner(open.other));
        let mut opens = self.opens.borrow_mut();
        if opens.get(&(open.file, key.clone())) == Some(&open.other) {
            opens.remove(&(open.file, key));
        }
        self.states.borrow_mut().remove(&open.other);
        self.end(open.other);
    }

    /// Notes the end of a state that an earlier incarnation may have minted.
    fn end(&self, other: Other) {
        if self.restored {
            let mut ended = self.ended.borrow_mut();
            if ended.len() >= ENDED_MAX {
                ended.pop_first();
            }
            ended.insert(other);
        }
    }
    pub(crate) fn has_ended(&self, other: Other) -> bool {
        self.ended.borrow().contains(&other)
    }

    /// Lock states of a file that hang on an open.
    pub(crate) fn locks_of(&self, open: &OpenState) -> Vec<Rc<LockState>> {
        let from = (open.file, Bytes::new());
        let locks = self.locks.borrow();
        let of_file = locks.range(from..).take_while(|(k, _)| k.0 == open.file);
        let states = self.states.borrow();
        of_file
            .filter_map(|(_, other)| match states.get(other) {
                Some(State::Lock(l)) if l.open.is_none_or(|o| o == open.other) => Some(l.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn find_lock(&self, owner: &Bytes, file: FileKey) -> Option<Rc<LockState>> {
        let other = self.locks.borrow().get(&(file, owner.clone())).copied()?;
        match self.states.borrow().get(&other) {
            Some(State::Lock(l)) => Some(l.clone()),
            _ => None,
        }
    }

    pub(crate) fn add_lock(
        &self,
        owner: &Bytes,
        open: &OpenState,
        secret: &Secret,
        boot: u32,
    ) -> OpResult<Rc<LockState>> {
        let other = self.mint(Kind::Lock, owner, open.file, secret, boot)?;
        let state = Rc::new(LockState {
            other,
            file: open.file,
            owner: Some(owner.clone()),
            open: Some(open.other),
            seqid: Cell::new(0),
            established: Cell::new(false),
            pending: Cell::new(0),
        });
        self.locks.borrow_mut().insert((open.file, owner.clone()), other);
        self.states.borrow_mut().insert(other, State::Lock(state.clone()));
        Ok(state)
    }

    pub(crate) fn rebuild_lock(&self, id: Stateid, file: FileKey) -> Rc<LockState> {
        if let Some(State::Lock(l)) = self.states.borrow().get(&id.other) {
            return l.clone();
        }
        let state = Rc::new(LockState {
            other: id.other,
            file,
            owner: None,
            open: None,
            seqid: Cell::new(id.seqid.max(1)),
            established: Cell::new(true),
            pending: Cell::new(0),
        });
        self.locks.borrow_mut().insert((file, rebuilt_owner(id.other)), id.other);
        self.states.borrow_mut().insert(id.other, State::Lock(state.clone()));
        state
    }

    pub(crate) fn remove_lock(&self, lock: &LockState) {
        let key = lock.owner.clone().unwrap_or_else(|| rebuilt_owner(lock.other));
        let mut locks = self.locks.borrow_mut();
        if locks.get(&(lock.file, key.clone())) == Some(&lock.other) {
            locks.remove(&(lock.file, key));
        }
        self.states.borrow_mut().remove(&lock.other);
        self.end(lock.other);
    }

    /// The state of a stateid, its seqid checked (RFC 8881, section 8.2.2); `None` when it is not known.
    pub(crate) fn find(&self, id: Stateid) -> OpResult<Option<State>> {
        let Some(state) = self.states.borrow().get(&id.other).cloned() else { return Ok(None) };
        check_seqid(id.seqid, state.seqid())?;
        Ok(Some(state))
    }
}

fn check_seqid(given: u32, current: u32) -> OpResult {
    if given == 0 || given == current {
        return Ok(());
    }
    // Serial-number comparison, as seqids wrap.
    if (current.wrapping_sub(given) as i32) > 0 { Err(Status::OLD_STATEID) } else { Err(Status::BAD_STATEID) }
}

/// Stands for the unknown owner of a rebuilt state; longer than any real owner's bytes could collide with.
fn rebuilt_owner(other: Other) -> Bytes {
    let mut key = vec![0xff; 1028];
    key.extend_from_slice(&other.0);
    Bytes::from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqids_compare_around_the_wrap() {
        assert_eq!(check_seqid(0, 5), Ok(()));
        assert_eq!(check_seqid(5, 5), Ok(()));
        assert_eq!(check_seqid(4, 5), Err(Status::OLD_STATEID));
        assert_eq!(check_seqid(6, 5), Err(Status::BAD_STATEID));
        assert_eq!(check_seqid(u32::MAX, 2), Err(Status::OLD_STATEID));
        assert_eq!(next_seqid(u32::MAX), 1);
    }
}
