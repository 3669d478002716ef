//! Taking names away.

use super::Shard;
use super::parts::{Part, open_dir};
use super::replay::{Step, Stored};
use super::view::View;
use super::{across, entry, perm};
use crate::index::TxnResult;
use crate::vfs::*;
use bytes::Bytes;
use std::rc::Rc;

impl Shard {
    pub(crate) async fn remove(
        self: Rc<Self>,
        cx: Context,
        dir: Ino,
        name: Bytes,
        directory: Option<bool>,
    ) -> FsResult<DirChange> {
        entry::check_name(&name)?;
        across::persist(async || {
            let step = self
                .mutate(
                    &cx,
                    |v| {
                        let parts = self.plan_remove(v, &cx.cred, dir, &name, directory)?;
                        if parts.iter().any(|p| p.slot() != self.slot) {
                            return Ok(Step::Across(parts));
                        }
                        let seen = self.perform_here(v, &cx.cred, &parts)?;
                        Ok(Step::Done(seen.dir(dir)?))
                    },
                    |_| Stored::NOTHING,
                )
                .await?;
            match step {
                Step::Done(change) => Ok(change),
                Step::Replayed(_) => self.dir_as_it_is(dir).await,
                Step::Across(parts) => {
                    let (shard, cx) = (self.clone(), cx.clone());
                    let whole = basalt_reactor::spawn(async move {
                        shard.perform_across(&cx, parts, Stored::NOTHING).await
                    });
                    whole.await?.dir(dir)
                }
            }
        })
        .await
    }

    fn plan_remove(
        &self,
        v: &mut View<'_, '_>,
        cred: &Credentials,
        dir: Ino,
        name: &Bytes,
        directory: Option<bool>,
    ) -> TxnResult<Vec<Part>> {
        let parent = open_dir(v, dir, cred)?;
        let found = entry::find(v, dir, parent.hash_seed, name)?.ok_or(FsError::NotFound)?;
        let is_dir = found.kind == FileType::Directory;
        match directory {
            Some(true) if !is_dir => return Err(FsError::NotDirectory.into()),
            Some(false) if is_dir => return Err(FsError::IsDirectory.into()),
            _ => {}
        }
        let sticky = perm::sticky_owner(&parent);
        let ino = found.ino;
        Ok(vec![
            if is_dir { Part::RemoveDir { ino, sticky } } else { Part::Unlink { ino, sticky } },
            Part::Remove { dir, name: name.clone(), expect: ino, subdirs: -(is_dir as i32) },
        ])
    }
}
