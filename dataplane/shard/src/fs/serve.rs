//! The face that protocols see: every operation goes to the shard that owns its first inode.

use super::FileSystem;
use crate::ops::ROOT;
use crate::vfs::*;
use async_trait::async_trait;
use basalt_reactor::sync::join_all;
use bytes::Bytes;

#[async_trait(?Send)]
impl Vfs for FileSystem {
    fn fsid(&self) -> [u8; 16] {
        self.shared.uuid.0
    }
    fn root(&self) -> Ino {
        ROOT
    }
    fn write_verifier(&self) -> [u8; 8] {
        self.shared.verifier
    }
    async fn statfs(&self) -> FsResult<FsStat> {
        let Some(pool) = self.core.as_ref().and_then(|core| core.pool.as_ref()) else {
            return Err(FsError::Delay);
        };
        let capacity = pool.capacity().await.map_err(|_| FsError::Io)?;
        // Inodes are made as needed; what limits them is room, at about a block each.
        Ok(FsStat {
            total_bytes: capacity.total_bytes,
            free_bytes: capacity.available_bytes,
            available_bytes: capacity.available_bytes,
            total_files: capacity.total_bytes / 4096,
            free_files: capacity.available_bytes / 4096,
        })
    }

    async fn getattr(&self, ino: Ino, generation: u32) -> FsResult<Attr> {
        self.on(ino, move |shard| async move { shard.getattr(ino, generation).await }).await
    }
    async fn access(&self, cx: &Context, ino: Ino, mask: u32) -> FsResult<(u32, Attr)> {
        let cred = cx.cred.clone();
        self.on(ino, move |shard| async move { shard.access(&cred, ino, mask).await }).await
    }
    async fn lookup(&self, cx: &Context, dir: Ino, name: &[u8]) -> FsResult<(Attr, Attr)> {
        let (cred, name) = (cx.cred.clone(), Bytes::copy_from_slice(name));
        self.on(dir, move |shard| async move { shard.lookup(&cred, dir, &name).await }).await
    }
    async fn lookup_parent(&self, cx: &Context, dir: Ino) -> FsResult<Attr> {
        let cred = cx.cred.clone();
        self.on(dir, move |shard| async move { shard.lookup_parent(&cred, dir).await }).await
    }
    async fn setattr(
        &self,
        cx: &Context,
        ino: Ino,
        set: SetAttr,
        guard: Option<WallTime>,
        opened_for_write: bool,
    ) -> FsResult<(PreAttr, Attr)> {
        let cx = cx.clone();
        self.on(ino, move |shard| shard.setattr(cx, ino, set, guard, opened_for_write)).await
    }

    async fn create(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        kind: NodeKind,
        how: CreateHow,
        set: SetAttr,
    ) -> FsResult<Created> {
        let (cx, name) = (cx.clone(), Bytes::copy_from_slice(name));
        self.on(dir, move |shard| shard.create(cx, dir, name, kind, how, set)).await
    }
    async fn remove(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        directory: Option<bool>,
    ) -> FsResult<DirChange> {
        let (cx, name) = (cx.clone(), Bytes::copy_from_slice(name));
        self.on(dir, move |shard| shard.remove(cx, dir, name, directory)).await
    }
    async fn rename(
        &self,
        cx: &Context,
        from_dir: Ino,
        from: &[u8],
        to_dir: Ino,
        to: &[u8],
    ) -> FsResult<(DirChange, DirChange)> {
        let (cx, from, to) = (cx.clone(), Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        self.on(from_dir, move |shard| shard.rename(cx, from_dir, from, to_dir, to)).await
    }
    async fn link(&self, cx: &Context, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<(Attr, DirChange)> {
        let (cx, name) = (cx.clone(), Bytes::copy_from_slice(name));
        self.on(dir, move |shard| shard.link(cx, ino, dir, name)).await
    }
    async fn readlink(&self, _cx: &Context, ino: Ino) -> FsResult<(Bytes, Attr)> {
        self.on(ino, move |shard| async move { shard.readlink(ino).await }).await
    }
    async fn readdir(
        &self,
        cx: &Context,
        dir: Ino,
        cookie: u64,
        max_entries: usize,
        want_attrs: bool,
    ) -> FsResult<ReadDir> {
        let cred = cx.cred.clone();
        self.on(
            dir,
            move |shard| async move { shard.readdir(&cred, dir, cookie, max_entries, want_attrs).await },
        )
        .await
    }

    async fn read(&self, cx: &Context, ino: Ino, offset: u64, len: u32, opened: bool) -> FsResult<ReadReply> {
        let cred = cx.cred.clone();
        self.on(ino, move |shard| shard.read(cred, ino, offset, len, opened)).await
    }
    async fn write(
        &self,
        cx: &Context,
        ino: Ino,
        offset: u64,
        data: Vec<Bytes>,
        stability: Stability,
        opened: bool,
    ) -> FsResult<WriteReply> {
        let cred = cx.cred.clone();
        self.on(ino, move |shard| shard.write(cred, ino, offset, data, stability, opened)).await
    }
    async fn commit(
        &self,
        _cx: &Context,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> FsResult<([u8; 8], PreAttr, Attr)> {
        self.on(ino, move |shard| shard.commit(ino, offset, len)).await
    }
    async fn seek(&self, _cx: &Context, ino: Ino, offset: u64, what: SeekWhat) -> FsResult<u64> {
        self.on(ino, move |shard| shard.seek(ino, offset, what)).await
    }
    async fn deallocate(&self, cx: &Context, ino: Ino, offset: u64, len: u64) -> FsResult<Attr> {
        let cred = cx.cred.clone();
        self.on(ino, move |shard| shard.deallocate(cred, ino, offset, len)).await
    }

    async fn open(&self, cx: &Context, ino: Ino, client: u64, share: Share, check: bool) -> FsResult<Attr> {
        let cred = cx.cred.clone();
        self.on(ino, move |shard| async move { shard.open_file(&cred, ino, client, share, check).await })
            .await
    }
    async fn close(&self, ino: Ino, client: u64, share: Share) -> FsResult<()> {
        self.on(ino, move |shard| async move { shard.close_file(ino, client, share).await }).await
    }
    async fn lock(
        &self,
        _cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Result<(), LockConflict>> {
        let owner = owner.clone();
        self.on(ino, move |shard| async move { shard.lock(ino, &owner, range).await }).await
    }
    async fn unlock(
        &self,
        _cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        offset: u64,
        length: u64,
    ) -> FsResult<()> {
        let owner = owner.clone();
        self.on(ino, move |shard| async move { shard.unlock(ino, &owner, offset, length).await }).await
    }
    async fn test_lock(
        &self,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Option<LockConflict>> {
        let owner = owner.clone();
        self.on(ino, move |shard| async move { shard.test_lock(ino, &owner, range).await }).await
    }
    async fn holds_locks(&self, ino: Ino, owner: &LockOwner) -> FsResult<bool> {
        let owner = owner.clone();
        self.on(ino, move |shard| async move { shard.holds_locks(ino, &owner).await }).await
    }
    async fn release_client(&self, client: u64, sessions: &[[u8; 16]]) -> FsResult<()> {
        let everywhere = join_all((0..self.shared.shards.len() as u16).map(|slot| {
            let sessions = sessions.to_vec();
            self.shared.on(slot, move |shard| async move { shard.release_client(client, &sessions).await })
        }));
        everywhere.await.into_iter().collect()
    }
}
