//! OPEN, OPEN_DOWNGRADE, CLOSE, and stateids that are presented (RFC 8881, sections 8.2 and 9).

use super::attrs;
use super::compound::{Compound, Object, component};
use super::ops_name::change_info;
use super::state::{OpenState, State};
use super::stateid::{BOOT_MASK, Kind, Special, Stateid};
use super::types::{OpResult, Status};
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::*;
use bytes::Bytes;
use std::rc::Rc;

const OWNER_MAX: usize = 1024;
const SHARE_ACCESS_BITS: u32 = 3;
const WANT_MASK: u32 = 0xff00;
const WANT_NONE_STATED: u32 = 0;
const WANT_NO_DELEG: u32 = 0x400;
const WANT_CANCEL: u32 = 0x500;
/// Signal flags (section 18.16.1), which only matter where delegations are granted.
const SIGNAL_MASK: u32 = 0x3_0000;

const CLAIM_NULL: u32 = 0;
const CLAIM_PREVIOUS: u32 = 1;
const CLAIM_FH: u32 = 4;

const RESULT_LOCKTYPE_POSIX: u32 = 4;

enum How {
    NoCreate,
    Create(CreateHow, SetAttr, attrs::Bitmap),
}

struct OpenArgs {
    share: Share,
    want: u32,
    owner: Bytes,
    how: How,
}

fn open_args(r: &mut Reader, minor: u32) -> OpResult<OpenArgs> {
    let _seqid = r.u32()?;
    let access = r.u32()?;
    let deny = r.u32()?;
    let _client = r.u64()?; // the session says who it is (section 18.16.3)
    let owner = r.opaque(OWNER_MAX)?;
    if access & !(SHARE_ACCESS_BITS | WANT_MASK | SIGNAL_MASK) != 0
        || access & SHARE_ACCESS_BITS == 0
        || deny > 3
    {
        return Err(Status::INVAL);
    }
    let how = match r.u32()? {
        0 => How::NoCreate,
        1 => match r.u32()? {
            mode @ (0 | 1) => {
                let (set, bits) = attrs::decode_settable(r, minor)?;
                How::Create(if mode == 0 { CreateHow::Unchecked } else { CreateHow::Guarded }, set, bits)
            }
            2 => How::Create(CreateHow::Exclusive(r.fixed()?), SetAttr::default(), attrs::Bitmap::default()),
            3 => {
                let verifier = r.fixed()?;
                let (set, bits) = attrs::decode_settable(r, minor)?;
                How::Create(CreateHow::Exclusive(verifier), set, bits)
            }
            _ => return Err(Status::BADXDR),
        },
        _ => return Err(Status::BADXDR),
    };
    let share = Share { access: access & SHARE_ACCESS_BITS, deny };
    Ok(OpenArgs { share, want: access & WANT_MASK, owner, how })
}

/// What OPEN found or made.
struct Opened {
    object: Object,
    dir: Option<DirChange>,
    /// Whether the caller's permission is still to be checked: not on what it just made.
    check: bool,
    set: attrs::Bitmap,
}

impl Compound<'_> {
    pub(crate) async fn op_open(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let args = open_args(r, self.minor)?;
        let opened = match r.u32()? {
            CLAIM_NULL => {
                let name = component(r)?;
                self.open_by_name(&name, &args).await?
            }
            CLAIM_PREVIOUS => {
                let _delegate_type = r.u32()?;
                // State survives a restart, so there is nothing that a reclaim could take from another; only a client
                // that this server never knew has nothing to reclaim (section 8.4.2).
                if !self.client()?.restored {
                    return Err(Status::NO_GRACE);
                }
                self.open_current(false).await?
            }
            CLAIM_FH => self.open_current(true).await?,
            2 | 3 | 5 | 6 => return Err(Status::NOTSUPP),
            _ => return Err(Status::BADXDR),
        };
        if args.share.access & 2 != 0 {
            opened.object.writable()?;
        }
        let client = self.client()?.clone();
        let (state, attr) = self.register_open(&opened, &args).await?;
        if client.gone.get() {
            return Err(Status::BADSESSION);
        }
        let stateid = state.stateid();
        stateid.encode(w);
        match &opened.dir {
            Some(d) => change_info(w, d),
            None => {
                w.bool(false);
                w.u64(0);
                w.u64(0);
            }
        }
        w.u32(RESULT_LOCKTYPE_POSIX);
        opened.set.encode(w);
        no_delegation(w, args.want);
        self.become_object(&opened.object.export, attr);
        self.stateid = Some(stateid);
        Ok(())
    }

    async fn open_by_name(&self, name: &[u8], args: &OpenArgs) -> OpResult<Opened> {
        let dir = self.object(Status::ROFS)?;
        match &args.how {
            How::NoCreate => {
                let (attr, dir_attr) = match dir.vfs().lookup(&self.context(&dir), dir.ino, name).await {
                    Ok(found) => found,
                    Err(e) => return Err(self.not_a_directory(&dir, e).await),
                };
                regular(&attr)?;
                let before = PreAttr {
                    size: dir_attr.size,
                    mtime: dir_attr.mtime,
                    ctime: dir_attr.ctime,
                    change: dir_attr.change,
                };
                let change = DirChange { before, after: dir_attr, atomic: true };
                let object = Object::of(&dir.export, &attr);
                Ok(Opened { object, dir: Some(change), check: true, set: attrs::Bitmap::default() })
            }
            How::Create(how, set, bits) => {
                dir.writable()?;
                let made =
                    dir.vfs().create(&self.once(&dir), dir.ino, name, NodeKind::Regular, *how, *set).await;
                let made = match made {
                    Ok(m) => m,
                    Err(e) => return Err(self.not_a_directory(&dir, e).await),
                };
                regular(&made.attr)?;
                let exclusive = matches!(how, CreateHow::Exclusive(_));
                let object = Object::of(&dir.export, &made.attr);
                let mut done = if made.created || exclusive { *bits } else { attrs::Bitmap::default() };
                if set.size.is_some() {
                    done.set(attrs::SIZE);
                }
                Ok(Opened { object, dir: Some(made.dir), check: !made.created && !exclusive, set: done })
            }
        }
    }

    async fn open_current(&self, check: bool) -> OpResult<Opened> {
        let object = self.object(Status::ISDIR)?;
        let attr = object.vfs().getattr(object.ino, object.generation).await?;
        regular(&attr)?;
        let object = Object::of(&object.export, &attr);
        Ok(Opened { object, dir: None, check, set: attrs::Bitmap::default() })
    }

    /// Registers the share with the file system and joins it to what the owner holds of the file.
    async fn register_open(&self, opened: &Opened, args: &OpenArgs) -> OpResult<(Rc<OpenState>, Attr)> {
        let o = &opened.object;
        let client = self.client()?;
        let share = args.share;
        let file = o.key();
        let held = client.find_open(&args.owner, file).or_else(|| client.adopt_open(&args.owner, file));
        // An owner does not conflict with itself: what denies is given back while the new share is asked for.
        let own_deny: Vec<Share> = match &held {
            Some(h) if h.deny() | share.deny != 0 => std::mem::take(&mut *h.shares.borrow_mut()),
            _ => Vec::new(),
        };
        for s in &own_deny {
            o.vfs().close(o.ino, client.id, *s).await?;
        }
        let attr = o.vfs().open(&self.context(o), o.ino, client.id, share, opened.check).await;
        if !own_deny.is_empty() {
            for s in &own_deny {
                // Nothing else can have taken it between the two, unless the file system was in trouble: then it is lost.
                let back = o.vfs().open(&self.context(o), o.ino, client.id, *s, false).await;
                if let (Ok(_), Some(h)) = (back, &held) {
                    h.shares.borrow_mut().push(*s);
                }
            }
        }
        let attr = attr?;
        // No suspension from here to the end: two OPENs of one owner end up in one state.
        match client.find_open(&args.owner, file) {
            Some(h) => {
                h.checked_access.set(h.checked_access.get() | share.access);
                let known = h.shares.borrow().contains(&share);
                if !known {
                    h.shares.borrow_mut().push(share);
                }
                h.bump();
                if known {
                    o.vfs().close(o.ino, client.id, share).await?;
                }
                Ok((h, attr))
            }
            None => {
                match client.add_open(
                    &args.owner,
                    file,
                    share,
                    &self.local.shared.secret,
                    self.local.shared.boot,
                ) {
                    Ok(h) => Ok((h, attr)),
                    Err(e) => {
                        o.vfs().close(o.ino, client.id, share).await?;
                        Err(e)
                    }
                }
            }
        }
    }

    pub(crate) async fn op_open_downgrade(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let id = Stateid::decode(r)?;
        let _seqid = r.u32()?;
        let (access, deny) = (r.u32()? & SHARE_ACCESS_BITS, r.u32()?);
        let o = self.object(Status::BAD_STATEID)?;
        let State::Open(open) = self.state(id, &o).await? else { return Err(Status::BAD_STATEID) };
        if access == 0 || deny > 3 || access & !open.access() != 0 || deny & !open.deny() != 0 {
            return Err(Status::INVAL);
        }
        let client = self.client()?.id;
        let old = std::mem::take(&mut *open.shares.borrow_mut());
        let target = Share { access, deny };
        let (keep, drop): (Vec<Share>, Vec<Share>) =
            old.into_iter().partition(|s| s.access & !access == 0 && s.deny & !deny == 0);
        let enough = keep.iter().fold((0, 0), |a, s| (a.0 | s.access, a.1 | s.deny)) == (access, deny);
        *open.shares.borrow_mut() = keep;
        if !enough {
            open.shares.borrow_mut().push(target);
        }
        open.checked_access.set(open.checked_access.get() & access);
        for s in drop {
            o.vfs().close(o.ino, client, s).await?;
        }
        if !enough {
            o.vfs().open(&self.context(&o), o.ino, client, target, false).await?;
        }
        let id = open.bump();
        id.encode(w);
        self.stateid = Some(id);
        Ok(())
    }

    pub(crate) async fn op_close(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let _seqid = r.u32()?;
        let id = Stateid::decode(r)?;
        let o = self.object(Status::BAD_STATEID)?;
        let State::Open(open) = self.state(id, &o).await? else { return Err(Status::BAD_STATEID) };
        let client = self.client()?.clone();
        client.remove_open(&open);
        for lock in client.locks_of(&open) {
            client.remove_lock(&lock);
            o.vfs()
                .unlock(
                    &self.context(&o),
                    o.ino,
                    &super::ops_lock::lock_owner(client.id, &lock.other),
                    0,
                    u64::MAX,
                )
                .await?;
        }
        let shares = std::mem::take(&mut *open.shares.borrow_mut());
        for s in shares {
            o.vfs().close(o.ino, client.id, s).await?;
        }
        Stateid::INVALID.encode(w);
        self.stateid = None;
        Ok(())
    }

    pub(crate) fn substitute_current(&self, id: Stateid) -> OpResult<Stateid> {
        match id.special() {
            Some(Special::Current) => self.stateid.ok_or(Status::BAD_STATEID),
            _ => Ok(id),
        }
    }

    /// The state that a stateid names, for the current file. One that an earlier incarnation minted is believed by its
    /// code, and its open registered again.
    pub(crate) async fn state(&self, id: Stateid, o: &Object) -> OpResult<State> {
        let id = self.substitute_current(id)?;
        if id.special().is_some() {
            return Err(Status::BAD_STATEID);
        }
        let client = self.client()?;
        if let Some(state) = client.find(id)? {
            let file = state.file();
            let same = file.export == o.key().export && file.ino == o.ino.0;
            return if same { Ok(state) } else { Err(Status::BAD_STATEID) };
        }
        let shared = &self.local.shared;
        // A root handle from PUTROOTFH has no generation, but no root is opened.
        let minted = id.other.verify(&shared.secret, client.id, o.key()).ok_or(Status::BAD_STATEID)?;
        if !client.restored || minted.boot == shared.boot & BOOT_MASK || client.has_ended(id.other) {
            return Err(Status::BAD_STATEID); // closed
        }
        match minted.kind {
            Kind::Lock => Ok(State::Lock(client.rebuild_lock(id, o.key()))),
            Kind::Open(share) if share.deny != 0 => {
                // Deny modes are in the shard's journal: still registered.
                Ok(State::Open(client.rebuild_open(id, &minted, o.key(), share)))
            }
            Kind::Open(share) => {
                // The open may have been widened since its stateid was minted, so both accesses are registered where
                // nobody denies them; permission beyond what the stateid says is checked at each use.
                let cx = self.context(o);
                let both = Share { access: 3, deny: 0 };
                let share = match o.vfs().open(&cx, o.ino, client.id, both, false).await {
                    Ok(_) => both,
                    Err(FsError::ShareDenied) => {
                        o.vfs().open(&cx, o.ino, client.id, share, false).await?;
                        share
                    }
                    Err(e) => return Err(e.into()),
                };
                let known = client.find(Stateid { seqid: 0, ..id })?.is_some();
                let open = client.rebuild_open(id, &minted, o.key(), share);
                if known {
                    // Another request rebuilt it meanwhile.
                    o.vfs().close(o.ino, client.id, share).await?;
                }
                Ok(State::Open(open))
            }
        }
    }

    pub(crate) fn op_test_stateid(&self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let client = self.client()?.clone();
        let n = r.count(1024)?;
        w.u32(n as u32);
        for _ in 0..n {
            let id = Stateid::decode(r)?;
            w.u32(self.test_one(&client, id).0);
        }
        Ok(())
    }

    fn test_one(&self, client: &super::state::Client, id: Stateid) -> Status {
        if id.special().is_some() {
            return Status::BAD_STATEID;
        }
        match client.find(id) {
            Ok(Some(_)) => Status::OK,
            // The file that its code covers is not known here; using it will tell.
            Ok(None) => match id.other.claims() {
                Some(m) if client.restored && m.boot != self.local.shared.boot & BOOT_MASK => Status::OK,
                _ => Status::BAD_STATEID,
            },
            Err(e) => e,
        }
    }

    pub(crate) async fn op_free_stateid(&self, r: &mut Reader) -> OpResult {
        let id = self.substitute_current(Stateid::decode(r)?)?;
        let client = self.client()?.clone();
        match client.find(id)? {
            None => Err(Status::BAD_STATEID),
            Some(State::Open(_)) => Err(Status::LOCKS_HELD),
            Some(State::Lock(l)) => {
                let exports = self.local.exports();
                if let Some(export) = exports.by_id.get(&l.file.export) {
                    let owner = super::ops_lock::lock_owner(client.id, &l.other);
                    match export.vfs.holds_locks(Ino(l.file.ino), &owner).await {
                        Ok(true) => return Err(Status::LOCKS_HELD),
                        Ok(false) | Err(FsError::Stale) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                // Lock-owners are used again: a LOCK of the next one with this name may have come while we looked, and
                // its lock must not be left without a state that can unlock it.
                if l.pending.get() > 0 || client.find(id)?.is_none() {
                    return Err(Status::LOCKS_HELD);
                }
                client.remove_lock(&l);
                Ok(())
            }
        }
    }
}

fn regular(attr: &Attr) -> OpResult {
    match attr.kind {
        FileType::Regular => Ok(()),
        FileType::Directory => Err(Status::ISDIR),
        FileType::Symlink => Err(Status::SYMLINK),
        _ => Err(Status::WRONG_TYPE),
    }
}

/// open_delegation4: none, with a reason where one was asked about (section 18.16.3).
fn no_delegation(w: &mut Writer, want: u32) {
    const OPEN_DELEGATE_NONE: u32 = 0;
    const OPEN_DELEGATE_NONE_EXT: u32 = 3;
    match want {
        WANT_NONE_STATED => w.u32(OPEN_DELEGATE_NONE),
        WANT_NO_DELEG => {
            w.u32(OPEN_DELEGATE_NONE_EXT);
            w.u32(0); // WND4_NOT_WANTED
        }
        WANT_CANCEL => {
            w.u32(OPEN_DELEGATE_NONE_EXT);
            w.u32(7); // WND4_CANCELLED
        }
        _ => {
            w.u32(OPEN_DELEGATE_NONE_EXT);
            w.u32(2); // WND4_RESOURCE
            w.bool(false); // will not be signalled
        }
    }
}
