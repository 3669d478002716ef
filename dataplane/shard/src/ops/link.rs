//! Hard links.

use super::Shard;
use super::across;
use super::entry::{self, Entry};
use super::parts::{Part, open_dir};
use super::replay::{Step, Stored};
use super::view::Seen;
use crate::vfs::*;
use bytes::Bytes;
use std::rc::Rc;

impl Shard {
    /// On the shard of `dir`.
    pub(crate) async fn link(
        self: Rc<Self>,
        cx: Context,
        ino: Ino,
        dir: Ino,
        name: Bytes,
    ) -> FsResult<(Attr, DirChange)> {
        entry::check_name(&name)?;
        across::persist(async || {
            // What kind of file it is never changes, so it may be asked beforehand.
            let kind = self.shared.getattr(ino).await?.kind;
            let parts = || {
                vec![
                    Part::Link { ino },
                    Part::Insert {
                        dir,
                        name: name.clone(),
                        entry: Entry { ino, kind },
                        expect: None,
                        subdirs: 0,
                    },
                ]
            };
            let answer = |seen: &Seen| {
                Ok::<_, FsError>((seen.inodes.get(&ino).cloned().ok_or(FsError::Io)?, seen.dir(dir)?))
            };
            let step = self
                .mutate(
                    &cx,
                    |v| {
                        let parent = open_dir(v, dir, &cx.cred)?;
                        if kind == FileType::Directory {
                            return Err(FsError::NotPermitted.into());
                        }
                        if entry::find(v, dir, parent.hash_seed, &name)?.is_some() {
                            return Err(FsError::Exists.into());
                        }
                        if !self.is_here(ino) {
                            return Ok(Step::Across(()));
                        }
                        Ok(Step::Done(answer(&self.perform_here(v, &cx.cred, &parts())?)?))
                    },
                    |_| Stored::of(ino),
                )
                .await?;
            match step {
                Step::Done(done) => Ok(done),
                Step::Replayed(stored) => {
                    Ok((self.shared.getattr(stored.ino).await?, self.dir_as_it_is(dir).await?))
                }
                Step::Across(()) => {
                    let (shard, cx, parts) = (self.clone(), cx.clone(), parts());
                    let whole = basalt_reactor::spawn(async move {
                        shard.perform_across(&cx, parts, Stored::of(ino)).await
                    });
                    answer(&whole.await?)
                }
            }
        })
        .await
    }
}
