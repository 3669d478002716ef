//! Finding and looking at inodes.

use super::Shard;
use super::entry;
use super::perm;
use crate::fs::Shared;
use crate::vfs::*;
use bytes::Bytes;
use std::sync::Arc;

/// A name may lead to an inode that another shard has removed meanwhile: then the name is looked up again.
const LOOKUP_ATTEMPTS: usize = 16;

impl Shared {
    /// Attributes of any inode, generation unchecked.
    pub(crate) async fn getattr(self: &Arc<Self>, ino: Ino) -> FsResult<Attr> {
        self.on(ino.slot(), move |shard| async move { shard.getattr(ino, 0).await }).await
    }
    pub(crate) async fn parent(self: &Arc<Self>, dir: Ino) -> FsResult<Ino> {
        self.on(dir.slot(), move |shard| async move { shard.run(|v| Ok(v.dir(dir)?.parent)).await }).await
    }
    pub(crate) async fn take_root_token(self: &Arc<Self>) -> FsResult<()> {
        self.on(super::ROOT.slot(), |shard| async move {
            let permit = shard.root_token.acquire(1).await;
            shard.root_token_held.replace(Some(permit));
            Ok(())
        })
        .await
    }
    pub(crate) async fn give_root_token(self: &Arc<Self>) -> FsResult<()> {
        self.on(super::ROOT.slot(), |shard| async move {
            drop(shard.root_token_held.take());
            Ok(())
        })
        .await
    }
}

impl Shard {
    pub(crate) async fn getattr(&self, ino: Ino, generation: u32) -> FsResult<Attr> {
        self.run(|v| {
            let inode = v.live(ino)?;
            if generation != 0 && generation != inode.generation {
                return Err(FsError::Stale.into());
            }
            Ok(self.attr(&inode))
        })
        .await
    }

    pub(crate) async fn access(&self, cred: &Credentials, ino: Ino, mask: u32) -> FsResult<(u32, Attr)> {
        self.run(|v| {
            let inode = v.live(ino)?;
            Ok((perm::access_bits(&inode, cred, mask), self.attr(&inode)))
        })
        .await
    }

    pub(crate) async fn lookup(&self, cred: &Credentials, dir: Ino, name: &[u8]) -> FsResult<(Attr, Attr)> {
        entry::check_name(name)?;
        for _ in 0..LOOKUP_ATTEMPTS {
            let (found, attr, dir_attr) = self
                .run(|v| {
                    let parent = v.dir(dir)?;
                    perm::require(&parent, cred, perm::EXEC)?;
                    let found = entry::find(v, dir, parent.hash_seed, name)?.ok_or(FsError::NotFound)?;
                    let attr = if self.is_here(found.ino) {
                        // Within a shard a name without its inode is damage, not a race.
                        let inode = v.inode(found.ino)?.ok_or(FsError::Io)?;
                        Some(self.attr(&inode))
                    } else {
                        None
                    };
                    Ok((found, attr, self.attr(&parent)))
                })
                .await?;
            let attr = match attr {
                Some(attr) => Ok(attr),
                None => self.shared.getattr(found.ino).await,
            };
            match attr {
                Err(FsError::Stale) => continue,
                attr => return Ok((attr?, dir_attr)),
            }
        }
        Err(FsError::Delay)
    }

    pub(crate) async fn lookup_parent(&self, cred: &Credentials, dir: Ino) -> FsResult<Attr> {
        let parent = self
            .run(|v| {
                let inode = v.dir(dir)?;
                perm::require(&inode, cred, perm::EXEC)?;
                Ok(inode.parent)
            })
            .await?;
        self.shared.getattr(parent).await
    }

    pub(crate) async fn readlink(&self, ino: Ino) -> FsResult<(Bytes, Attr)> {
        self.run(|v| {
            let inode = v.live(ino)?;
            if inode.kind != FileType::Symlink {
                return Err(FsError::Invalid.into());
            }
            Ok((Bytes::copy_from_slice(&inode.tail), self.attr(&inode)))
        })
        .await
    }
}
