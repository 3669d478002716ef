//! The small session operations that work inside a compound.

use super::compound::Compound;
use super::types::{OpResult, Status};
use crate::xdr::{Reader, Writer};

impl Compound<'_> {
    /// Any connection may be used without being bound (section 2.10.3.1); binding is answered and changes nothing, as
    /// nothing is sent on the back channel yet.
    pub(crate) fn op_bind_conn(&mut self, r: &mut Reader, w: &mut Writer) -> OpResult {
        if self.operations != 1 {
            return Err(Status::NOT_ONLY_OP);
        }
        let id = r.fixed()?;
        let direction = match r.u32()? {
            1 | 3 => 1,                     // FORE, FORE_OR_BOTH: fore
            2 => return Err(Status::INVAL), // BACK: there is no back channel
            7 => 3,                         // BACK_OR_BOTH: both
            _ => return Err(Status::BADXDR),
        };
        let _rdma = r.bool()?;
        let session = self.local.clients.session(&id).ok_or(Status::BADSESSION)?;
        let client = self.local.clients.client(session.client).ok_or(Status::BADSESSION)?;
        client.renewed.set(basalt_reactor::now());
        w.fixed(&id);
        w.u32(direction);
        w.bool(false);
        Ok(())
    }

    pub(crate) fn op_reclaim_complete(&mut self, r: &mut Reader) -> OpResult {
        let one_fs = r.bool()?;
        let client = self.client()?;
        if one_fs {
            self.node()?;
            return Ok(());
        }
        if client.reclaim_complete.replace(true) && !client.restored {
            return Err(Status::COMPLETE_ALREADY);
        }
        Ok(())
    }

    /// Never granted (section 18.39).
    pub(crate) fn op_get_dir_delegation(&mut self, w: &mut Writer) -> OpResult {
        self.node()?;
        w.u32(1); // GDD4_UNAVAIL
        w.bool(false);
        Ok(())
    }
}
