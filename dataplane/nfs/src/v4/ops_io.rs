//! READ, WRITE, COMMIT, SEEK, DEALLOCATE, and which stateids allow them.

use super::compound::{Compound, Object};
use super::state::State;
use super::stateid::{Special, Stateid};
use super::types::{OpResult, Status};
use crate::rpc::IO_MAX_BYTES;
use crate::stats::bump;
use crate::xdr::{Reader, Writer};
use basalt_shard::vfs::*;

const READ: u32 = 1;
const WRITE: u32 = 2;
/// Around READ's data: eof, length, padding.
const READ_OVERHEAD_BYTES: usize = 16;

/// ALLOCATE tries this often to grow a file that others keep changing.
const ALLOCATE_ATTEMPTS: u32 = 16;

/// What a stateid says about an I/O.
pub(crate) struct IoRight {
    /// Permission was checked at open.
    pub(crate) checked: bool,
    /// A special stateid: share reservations apply to it.
    pub(crate) anonymous: bool,
}

impl IoRight {
    /// Share reservations hold off I/O without an open with LOCKED (section 9.7).
    fn error(&self, e: FsError) -> Status {
        if self.anonymous && e == FsError::ShareDenied { Status::LOCKED } else { e.into() }
    }
}

impl Compound<'_> {
    pub(crate) async fn io_stateid(&self, id: Stateid, o: &Object, write: bool) -> OpResult<IoRight> {
        match self.substitute_current(id)?.special() {
            Some(Special::Anonymous | Special::ReadBypass) => {
                return Ok(IoRight { checked: false, anonymous: true });
            }
            Some(_) => return Err(Status::BAD_STATEID),
            None => {}
        }
        let open = match self.state(id, o).await? {
            State::Open(open) => open,
            State::Lock(lock) => {
                let open =
                    lock.open.and_then(|other| self.client().ok()?.find(Stateid { seqid: 0, other }).ok()?);
                match open {
                    Some(State::Open(open)) => open,
                    // A lock that outlived a restart: its open may not have been seen again.
                    _ => return Ok(IoRight { checked: false, anonymous: false }),
                }
            }
        };
        let need = if write { WRITE } else { READ };
        // A file open for writing only may still be read, with permission (section 9.1.2).
        if write && open.access() & WRITE == 0 {
            return Err(Status::OPENMODE);
        }
        Ok(IoRight { checked: open.checked_access.get() & need != 0, anonymous: false })
    }

    pub(crate) async fn op_read(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let id = Stateid::decode(r)?;
        let offset = r.u64()?;
        let count = r.u32()?;
        let o = self.object(Status::ISDIR)?;
        let right = self.io_stateid(id, &o, false).await?;
        let room = self.room.saturating_sub(READ_OVERHEAD_BYTES).min(IO_MAX_BYTES as usize) as u32;
        let reply = o.vfs().read(&self.context(&o), o.ino, offset, count.min(room), right.checked).await;
        let reply = reply.map_err(|e| right.error(e))?;
        bump(&self.local.stats.bytes_read, crate::xdr::pieces_len(&reply.data) as u64);
        w.bool(reply.eof);
        w.opaque_pieces(reply.data);
        self.fresh = Some(reply.attr);
        Ok(())
    }

    pub(crate) async fn op_write(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let id = Stateid::decode(r)?;
        let offset = r.u64()?;
        let stability = match r.u32()? {
            0 => Stability::Unstable,
            1 => Stability::DataSync,
            2 => Stability::FileSync,
            _ => return Err(Status::BADXDR),
        };
        let data = r.opaque(crate::rpc::RECORD_MAX_BYTES)?;
        let o = self.object(Status::ISDIR)?;
        o.writable()?;
        let right = self.io_stateid(id, &o, true).await?;
        // Longer ones are written in part; the client sends the rest again.
        let data = data.slice(..data.len().min(IO_MAX_BYTES as usize));
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(Status::FBIG);
        }
        let reply =
            o.vfs().write(&self.context(&o), o.ino, offset, vec![data], stability, right.checked).await;
        let reply = reply.map_err(|e| right.error(e))?;
        bump(&self.local.stats.bytes_written, reply.count as u64);
        w.u32(reply.count);
        w.u32(stable_how(reply.committed));
        w.fixed(&reply.verifier);
        self.fresh = Some(reply.after);
        Ok(())
    }

    pub(crate) async fn op_commit(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let offset = r.u64()?;
        let count = r.u32()? as u64;
        let o = self.object(Status::ISDIR)?;
        o.writable()?;
        let (verifier, _, attr) = o.vfs().commit(&self.context(&o), o.ino, offset, count).await?;
        w.fixed(&verifier);
        self.fresh = Some(attr);
        Ok(())
    }

    pub(crate) async fn op_seek(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        let id = Stateid::decode(r)?;
        let offset = r.u64()?;
        let what = match r.u32()? {
            0 => SeekWhat::Data,
            1 => SeekWhat::Hole,
            _ => return Err(Status::UNION_NOTSUPP),
        };
        let o = self.object(Status::WRONG_TYPE)?;
        self.io_stateid(id, &o, false).await?;
        let attr = o.vfs().getattr(o.ino, o.generation).await?;
        if offset >= attr.size {
            return Err(Status::NXIO);
        }
        let found = match o.vfs().seek(&self.context(&o), o.ino, offset, what).await {
            Ok(at) => Some(at),
            // "No more data" is an answer (RFC 7862, section 15.11.3).
            Err(FsError::NoMoreData) => None,
            Err(e) => return Err(e.into()),
        };
        w.bool(found.is_none());
        w.u64(found.unwrap_or(attr.size));
        Ok(())
    }

    pub(crate) async fn op_deallocate(&mut self, r: &mut Reader) -> OpResult {
        let id = Stateid::decode(r)?;
        let (offset, len) = (r.u64()?, r.u64()?);
        let o = self.object(Status::WRONG_TYPE)?;
        o.writable()?;
        self.io_stateid(id, &o, true).await?;
        if len == 0 || offset.checked_add(len).is_none() {
            return Err(Status::INVAL);
        }
        let attr = o.vfs().deallocate(&self.once(&o), o.ino, offset, len).await?;
        self.fresh = Some(attr);
        Ok(())
    }

    /// ALLOCATE on storage that never writes in place cannot set blocks aside: later writes take new ones anyhow. As others
    /// of that kind do (OpenZFS), it answers whether there is room now, and grows the file.
    pub(crate) async fn op_allocate(&mut self, r: &mut Reader) -> OpResult {
        let id = Stateid::decode(r)?;
        let (offset, len) = (r.u64()?, r.u64()?);
        let o = self.object(Status::WRONG_TYPE)?;
        o.writable()?;
        self.io_stateid(id, &o, true).await?;
        let end = offset.checked_add(len).filter(|_| len > 0).ok_or(Status::INVAL)?;
        if end > FILE_SIZE_MAX {
            return Err(Status::FBIG);
        }
        if len > o.vfs().statfs().await?.available_bytes {
            return Err(Status::NOSPC);
        }
        for _ in 0..ALLOCATE_ATTEMPTS {
            let attr = o.vfs().getattr(o.ino, o.generation).await?;
            if attr.size >= end {
                return Ok(());
            }
            // Guarded, so that it never cuts what somebody appends meanwhile.
            let set = SetAttr { size: Some(end), ..SetAttr::default() };
            match o.vfs().setattr(&self.context(&o), o.ino, set, Some(attr.ctime), true).await {
                Err(FsError::NotSync) => {}
                other => return other.map(|_| ()).map_err(Status::from),
            }
        }
        Err(Status::DELAY)
    }

    /// Hints are taken note of by taking none (RFC 7862, section 15.5.3).
    pub(crate) fn op_io_advise(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        Stateid::decode(r)?;
        let (_offset, _count) = (r.u64()?, r.u64()?);
        for _ in 0..r.count(8)? {
            r.u32()?;
        }
        self.object(Status::WRONG_TYPE)?;
        w.u32(0);
        Ok(())
    }
}

pub(crate) fn stable_how(s: Stability) -> u32 {
    match s {
        Stability::Unstable => 0,
        Stability::DataSync => 1,
        Stability::FileSync => 2,
    }
}
