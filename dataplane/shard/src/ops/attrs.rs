//! SETATTR.

use super::replay::{Step, Stored};
use super::view::{View, pre};
use super::{Shard, perm};
use crate::inode::Inode;
use crate::vfs::*;
use std::rc::Rc;

impl Shard {
    pub(crate) async fn setattr(
        self: Rc<Self>,
        cx: Context,
        ino: Ino,
        set: SetAttr,
        guard: Option<WallTime>,
        opened_for_write: bool,
    ) -> FsResult<(PreAttr, Attr)> {
        let guarded = |ctime: WallTime| match guard {
            Some(g) if g != ctime => Err(FsError::NotSync),
            _ => Ok(()),
        };
        let step = self
            .mutate(
                &cx,
                |v: &mut View<'_, '_>| {
                    let mut inode = v.live(ino)?;
                    let before = self.attr(&inode);
                    guarded(before.ctime)?;
                    // The size, and times over those of unstable writes, are for the contents to set.
                    let overlaid = inode.kind == FileType::Regular && self.data.overlay(ino).is_some();
                    if set.size.is_some() && inode.kind == FileType::Regular
                        || overlaid && set.mtime.is_some()
                    {
                        return Ok(Step::Across(()));
                    }
                    perm::apply_setattr(&mut inode, &set, &cx.cred, v.time(), opened_for_write)?;
                    v.touch(&mut inode);
                    v.put_inode(&inode);
                    Ok(Step::Done((pre(&before), self.attr(&inode))))
                },
                |_| Stored::of(ino),
            )
            .await?;
        match step {
            Step::Done(done) => Ok(done),
            Step::Replayed(_) => {
                let after = self.getattr(ino, 0).await?;
                Ok((pre(&after), after))
            }
            Step::Across(()) => {
                self.data
                    .resize(ino, &|inode: &mut Inode, txn| {
                        self.require_live(inode)?;
                        guarded(inode.ctime)?;
                        perm::apply_setattr(inode, &set, &cx.cred, txn.time(), opened_for_write)?;
                        inode.ctime = txn.time();
                        Ok(())
                    })
                    .await
            }
        }
    }
}
