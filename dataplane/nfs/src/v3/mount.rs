//! MOUNT version 3 (RFC 1813, appendix I).

use crate::auth::Auth;
use crate::export::{LocalExport, LocalExports};
use crate::rpc::{self, Accept, Call};
use crate::server::{Local, Peer};
use crate::stats::bump;
use crate::v4::compound::Object;
use crate::xdr::{Writer, XdrResult};
use basalt_shard::vfs::{Attr, FileType, FsError};
use bytes::Bytes;
use std::rc::Rc;

const PATH_MAX: usize = 1024;
const NAMES: [&str; 6] =
    ["mount.null", "mount.mnt", "mount.dump", "mount.umnt", "mount.umntall", "mount.export"];

/// mountstat3.
const NOENT: u32 = 2;
const IO: u32 = 5;
const ACCES: u32 = 13;
const NOTDIR: u32 = 20;
const SERVERFAULT: u32 = 10006;
const AUTH_SYS: u32 = 1;

pub(crate) async fn call(local: &Local, peer: &Peer, mut call: Call) -> Vec<Bytes> {
    let Some(name) = NAMES.get(call.procedure as usize) else {
        return rpc::not_executed(call.xid, Accept::ProcUnavail);
    };
    let started = basalt_reactor::now();
    let mut w = Writer::new();
    let outcome = execute(local, peer, &mut call, &mut w).await;
    local.stats.record(name, started, outcome.is_err());
    match outcome {
        Ok(()) => rpc::success(call.xid, w.finish()),
        Err(_) => {
            bump(&local.stats.malformed, 1);
            rpc::not_executed(call.xid, Accept::GarbageArgs)
        }
    }
}

async fn execute(local: &Local, peer: &Peer, call: &mut Call, w: &mut Writer) -> XdrResult<()> {
    match call.procedure {
        1 => {
            let path = call.args.opaque(PATH_MAX)?;
            match mnt(local, peer, &call.auth, &path).await {
                Ok((export, attr)) => {
                    tracing::info!(peer = %peer.address, path = %String::from_utf8_lossy(&path), "mounted with NFSv3");
                    w.u32(0);
                    w.opaque(&Object::of(&export, &attr).handle().encode(&local.shared.secret));
                    w.u32(1);
                    w.u32(AUTH_SYS);
                }
                Err(status) => w.u32(status),
            }
        }
        // Who has mounted what is known to clients alone: the list of DUMP is empty, UMNT has nothing to take off it.
        2 => w.bool(false),
        3 => drop(call.args.opaque(PATH_MAX)?),
        5 => {
            let exports = local.exports();
            for e in exports.by_id.values().filter(|e| e.export.admits(peer.address)) {
                w.bool(true);
                w.opaque(e.export.spec.path.as_bytes());
                for client in &e.export.spec.clients {
                    w.bool(true);
                    w.opaque(client.as_bytes());
                }
                w.bool(false);
            }
            w.bool(false);
        }
        _ => {}
    }
    Ok(())
}

/// The export that a path lies in, and the rest of the path.
fn find<'p>(exports: &LocalExports, path: &'p [u8]) -> Option<(Rc<LocalExport>, &'p [u8])> {
    exports.by_id.values().find_map(|e| {
        let root = e.export.spec.path.trim_end_matches('/').as_bytes();
        let rest = path.strip_prefix(root)?;
        (rest.is_empty() || rest[0] == b'/').then(|| (e.clone(), rest))
    })
}

/// An export's root or a directory below it.
async fn mnt(local: &Local, peer: &Peer, auth: &Auth, path: &[u8]) -> Result<(Rc<LocalExport>, Attr), u32> {
    let fs_error = |e| match e {
        FsError::NotFound | FsError::Stale => NOENT,
        FsError::Access | FsError::NotPermitted => ACCES,
        FsError::NotDirectory => NOTDIR,
        FsError::Io => IO,
        _ => SERVERFAULT,
    };
    let (export, rest) = find(&local.exports(), path).ok_or(NOENT)?;
    if !export.export.admits(peer.address) {
        tracing::warn!(peer = %peer.address, path = %export.export.spec.path, "mount refused: not among the export's clients");
        return Err(ACCES);
    }
    let cx = export.context(auth, None);
    let mut at = export.vfs.getattr(export.root, 0).await.map_err(fs_error)?;
    for part in rest.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        if part == b"." || part == b".." {
            return Err(NOENT);
        }
        at = export.vfs.lookup(&cx, at.ino, part).await.map_err(fs_error)?.0;
        if at.kind != FileType::Directory {
            return Err(NOTDIR);
        }
    }
    Ok((export, at))
}
