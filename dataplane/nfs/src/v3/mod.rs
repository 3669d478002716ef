//! NFSv3 (RFC 1813) and MOUNT version 3 (its appendix I), on the same port and without a portmapper.

pub(crate) mod cache;
pub(crate) mod mount;
mod ops;
mod ops_dir;
mod types;

use crate::auth::Auth;
use crate::rpc::{self, Accept, AuthStat, Call};
use crate::server::{Local, Peer};
use crate::stats::bump;
use crate::xdr::Reader;
use basalt_shard::vfs::ReplayId;
use bytes::Bytes;
use cache::{Begin, Key};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::net::IpAddr;
use std::rc::Rc;

const NAMES: [&str; 22] = [
    "v3.null",
    "v3.getattr",
    "v3.setattr",
    "v3.lookup",
    "v3.access",
    "v3.readlink",
    "v3.read",
    "v3.write",
    "v3.create",
    "v3.mkdir",
    "v3.symlink",
    "v3.mknod",
    "v3.remove",
    "v3.rmdir",
    "v3.rename",
    "v3.link",
    "v3.readdir",
    "v3.readdirplus",
    "v3.fsstat",
    "v3.fsinfo",
    "v3.pathconf",
    "v3.commit",
];

/// SETATTR, CREATE to RENAME, LINK: what must not be done twice.
fn non_idempotent(procedure: u32) -> bool {
    matches!(procedure, 2 | 8..=15)
}

/// One NFSv3 call being executed.
pub(crate) struct Request<'a> {
    local: &'a Local,
    peer: &'a Peer,
    auth: &'a Auth,
    replay: Option<ReplayId>,
}

/// `None` when the same call is being executed already: that one answers.
pub(crate) async fn call(local: &Rc<Local>, peer: &Peer, call: Call) -> Option<Vec<Bytes>> {
    let Some(name) = NAMES.get(call.procedure as usize) else {
        return Some(rpc::not_executed(call.xid, Accept::ProcUnavail));
    };
    if call.procedure == 0 {
        return Some(rpc::success(call.xid, Vec::new()));
    }
    // FSINFO without credentials is how some clients probe (RFC 2623, section 2.3.2).
    if call.auth == Auth::None && call.procedure != 19 {
        return Some(rpc::auth_error(call.xid, AuthStat::TooWeak));
    }
    let key =
        non_idempotent(call.procedure).then(|| Key::new(peer, call.xid, call.procedure, call.args.rest()));
    if let Some(key) = &key {
        match local.duplicates.begin(key) {
            Begin::New => {}
            Begin::InProgress => return None,
            Begin::Done(reply) => {
                bump(&local.stats.replays, 1);
                return Some(rpc::success(call.xid, reply));
            }
        }
    }
    let replay = key.as_ref().filter(|_| !crate::planted::lost_replay_slot()).map(|k| ReplayId::V3 {
        client: client_hash(peer.address),
        xid: call.xid,
        checksum: k.checksum,
    });
    let request = Request { local, peer, auth: &call.auth, replay };
    let started = basalt_reactor::now();
    let outcome = request.execute(call.procedure, call.args.clone()).await;
    let failed = !matches!(&outcome, Ok((types::Status::OK, _)));
    local.stats.record(name, started, failed);
    Some(match outcome {
        Ok((_, body)) => {
            let reply = body.finish();
            if let Some(key) = &key {
                local.duplicates.finish(key, &reply);
            }
            rpc::success(call.xid, reply)
        }
        Err(_) => {
            if let Some(key) = &key {
                local.duplicates.abandon(key);
            }
            bump(&local.stats.malformed, 1);
            rpc::not_executed(call.xid, Accept::GarbageArgs)
        }
    })
}

/// Names a client by its address: a retry may come over a new connection, from another port.
fn client_hash(address: IpAddr) -> u64 {
    let mut h = SipHasher24::new_with_keys(0x7633, 0x636c_6965_6e74);
    match address.to_canonical() {
        IpAddr::V4(a) => h.write(&a.octets()),
        IpAddr::V6(a) => h.write(&a.octets()),
    }
    h.finish()
}

fn args_checksum(procedure: u32, args: &Bytes) -> u32 {
    let mut h = SipHasher24::new_with_keys(0x7633, 0x6172_6773);
    h.write_u32(procedure);
    h.write(args);
    h.finish() as u32
}

/// nfs_fh3.
fn handle_bytes(r: &mut Reader) -> crate::xdr::XdrResult<Bytes> {
    r.opaque(64)
}
