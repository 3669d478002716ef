//! Reading and writing: the checks; `data` does the rest.

use super::{Shard, perm};
use crate::inode::Inode;
use crate::vfs::*;
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;

impl Shard {
    fn check(&self, inode: &Inode) -> FsResult<()> {
        self.require_live(inode)?;
        perm::require_regular(inode)
    }

    pub(crate) async fn read(
        self: Rc<Self>,
        cred: Credentials,
        ino: Ino,
        offset: u64,
        len: u32,
        opened: bool,
    ) -> FsResult<ReadReply> {
        self.data
            .read(ino, offset, len, &|inode| {
                self.check(inode)?;
                if opened { Ok(()) } else { perm::may_read(inode, &cred) }
            })
            .await
    }

    pub(crate) async fn write(
        self: Rc<Self>,
        cred: Credentials,
        ino: Ino,
        offset: u64,
        data: Vec<Bytes>,
        stability: Stability,
        opened: bool,
    ) -> FsResult<WriteReply> {
        let privileged = Cell::new(false);
        let mut reply = self
            .data
            .write(ino, offset, data, stability, self.shared.verifier, &|inode| {
                self.check(inode)?;
                privileged.set(perm::carries_privileges(inode));
                if opened { Ok(()) } else { perm::may_write(inode, &cred) }
            })
            .await?;
        if privileged.get() && cred.uid != 0 {
            reply.after = self.drop_privileges(ino).await?;
        }
        Ok(reply)
    }

    /// Set-user-id and set-group-id go when an ordinary user changes the contents.
    async fn drop_privileges(&self, ino: Ino) -> FsResult<Attr> {
        self.run(|v| {
            let mut inode = v.live(ino)?;
            if perm::carries_privileges(&inode) {
                inode.mode = perm::without_privileges(inode.mode);
                v.touch(&mut inode);
                v.put_inode(&inode);
            }
            Ok(self.attr(&inode))
        })
        .await
    }

    pub(crate) async fn commit(
        self: Rc<Self>,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> FsResult<([u8; 8], PreAttr, Attr)> {
        self.run(|v| {
            let inode = v.live(ino)?;
            Ok(self.check(&inode)?)
        })
        .await?;
        let (before, after) = self.data.commit(ino, offset, len).await?;
        Ok((self.shared.verifier, before, after))
    }

    pub(crate) async fn seek(self: Rc<Self>, ino: Ino, offset: u64, what: SeekWhat) -> FsResult<u64> {
        self.run(|v| {
            let inode = v.live(ino)?;
            Ok(self.check(&inode)?)
        })
        .await?;
        self.data.seek(ino, offset, what).await
    }

    pub(crate) async fn deallocate(
        self: Rc<Self>,
        cred: Credentials,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> FsResult<Attr> {
        self.data
            .deallocate(ino, offset, len, &|inode| {
                self.check(inode)?;
                perm::may_write(inode, &cred)
            })
            .await
    }
}
