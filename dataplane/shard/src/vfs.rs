//! What a front end may ask of a file system. Protocols (NFS, later volumes) speak only to [`Vfs`]; the sharded file
//! system implements it, and so does the in-memory model that tests compare it with.
//!
//! Every call returns only when what its answer shows is durable (unstable writes excepted). Permission checks follow
//! POSIX and happen inside the operation, on the caller's [`Credentials`].

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use basalt_reactor::WallTime;

/// 0 + 16-bit slot + 47-bit local id; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    pub const LOCAL_BITS: u32 = 47;
    pub fn new(slot: u16, local: u64) -> Ino {
        debug_assert!(local < 1 << Self::LOCAL_BITS);
        Ino((slot as u64) << Self::LOCAL_BITS | local)
    }
    /// Which entry of the file system's slot map owns this inode.
    pub fn slot(self) -> u16 {
        (self.0 >> Self::LOCAL_BITS) as u16
    }
    pub fn local(self) -> u64 {
        self.0 & ((1 << Self::LOCAL_BITS) - 1)
    }
}

/// Names are bytes: 1..=255 of them, no `/` and no NUL, not `.` or `..`.
pub const NAME_MAX: usize = 255;
pub const SYMLINK_MAX: usize = 4095;
pub const LINK_MAX: u32 = 65_000;
/// Largest file offset + 1.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    BlockDevice,
    CharDevice,
    Fifo,
    Socket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub generation: u32,
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky: 0o7777.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Bytes that really take space.
    pub used: u64,
    /// Major, minor; 0 unless a device.
    pub rdev: (u32, u32),
    pub atime: WallTime,
    pub mtime: WallTime,
    pub ctime: WallTime,
    /// Creation time.
    pub btime: WallTime,
    /// Grows with every change of data or metadata; derived from the LSN, not from time.
    pub change: u64,
}

/// Attributes before an operation, for NFSv3's weak cache consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreAttr {
    pub size: u64,
    pub mtime: WallTime,
    pub ctime: WallTime,
    pub change: u64,
}

/// A directory's attributes around an operation, taken atomically with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirChange {
    pub before: PreAttr,
    pub after: Attr,
    /// False where the answer comes from a replayed request and only `after` is meaningful.
    pub atomic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    Now,
    To(#[serde(with = "wall_time")] WallTime),
}
mod wall_time {
    use super::WallTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    pub(super) fn serialize<S: Serializer>(t: &WallTime, s: S) -> Result<S::Ok, S::Error> {
        (t.sec, t.nsec).serialize(s)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<WallTime, D::Error> {
        let (sec, nsec) = Deserialize::deserialize(d)?;
        Ok(WallTime { sec, nsec })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}
impl Credentials {
    pub fn root() -> Credentials {
        Credentials { uid: 0, gid: 0, groups: Vec::new() }
    }
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Names one operation of one request, so that a retry after a crash is answered and not done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayId {
    /// NFSv4.1: the slot's next sequence id retires what the last one left.
    V4 { session: [u8; 16], slot: u32, sequence: u32, op: u16 },
    /// NFSv3: the newest few thousand of each shard are kept.
    V3 { client: u64, xid: u32, checksum: u32 },
}

/// Who asks, and under which request.
#[derive(Clone, Debug)]
pub struct Context {
    pub cred: Credentials,
    /// Set on non-idempotent operations.
    pub replay: Option<ReplayId>,
}
impl Context {
    pub fn root() -> Context {
        Context { cred: Credentials::root(), replay: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Regular,
    Directory,
    Symlink(Bytes),
    BlockDevice(u32, u32),
    CharDevice(u32, u32),
    Fifo,
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateHow {
    /// Opens what exists (regular files only); `size` of the attributes then truncates, the rest is ignored.
    Unchecked,
    /// `Exists` when the name is taken.
    Guarded,
    /// Succeeds on an existing file that was made with the same verifier. The verifier is kept in the inode, not in its times.
    Exclusive([u8; 8]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub attr: Attr,
    /// False when `Unchecked` or `Exclusive` found it there.
    pub created: bool,
    pub dir: DirChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Bytes,
    pub ino: Ino,
    pub kind: FileType,
    /// Continue after this entry with this cookie. Stable: the entry's place by keyed hash; >= 3.
    pub cookie: u64,
    /// When asked for, and the inode could be read.
    pub attr: Option<Attr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDir {
    /// Without `.` and `..`.
    pub entries: Vec<DirEntry>,
    pub eof: bool,
    pub dir: Attr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReply {
    /// Pieces of the range, in order; together at most what was asked for.
    pub data: Vec<Bytes>,
    pub eof: bool,
    pub attr: Attr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stability {
    Unstable,
    DataSync,
    FileSync,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteReply {
    pub count: u32,
    /// At least what was asked for.
    pub committed: Stability,
    pub verifier: [u8; 8],
    pub before: PreAttr,
    pub after: Attr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekWhat {
    Data,
    Hole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStat {
    pub total_bytes: u64,
    /// Free, reserve included.
    pub free_bytes: u64,
    /// Free to ordinary users.
    pub available_bytes: u64,
    pub total_files: u64,
    pub free_files: u64,
}

/// A lock owner: the client record it dies with, and the owner's own bytes (at most 1024).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner {
    pub client: u64,
    pub owner: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    pub offset: u64,
    /// `u64::MAX`: to the end of any file. Never 0.
    pub length: u64,
    pub write: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConflict {
    pub owner: LockOwner,
    pub range: LockRange,
}

/// Share access and deny bits (RFC 8881, 18.16): 1 read, 2 write, 3 both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub access: u32,
    pub deny: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FsError {
    #[error("operation not permitted")]
    NotPermitted,
    #[error("permission denied")]
    Access,
    #[error("no such file or directory")]
    NotFound,
    #[error("input/output error")]
    Io,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("invalid argument")]
    Invalid,
    #[error("wrong type of file for this operation")]
    WrongType,
    #[error("is a symbolic link")]
    IsSymlink,
    #[error("file too large")]
    FileTooBig,
    #[error("no space left on device")]
    NoSpace,
    #[error("read-only file system")]
    ReadOnly,
    #[error("too many links")]
    TooManyLinks,
    #[error("file name too long")]
    NameTooLong,
    #[error("directory not empty")]
    NotEmpty,
    #[error("stale file handle")]
    Stale,
    #[error("bad readdir cookie")]
    BadCookie,
    #[error("attributes changed meanwhile")]
    NotSync,
    #[error("conflicts with a share reservation")]
    ShareDenied,
    #[error("no data or hole beyond this offset")]
    NoMoreData,
    #[error("would exceed a limit of this server")]
    Resource,
    #[error("try again later")]
    Delay,
    #[error("not supported")]
    NotSupported,
}
pub type FsResult<T> = Result<T, FsError>;

pub const ACCESS_READ: u32 = 0x01;
pub const ACCESS_LOOKUP: u32 = 0x02;
pub const ACCESS_MODIFY: u32 = 0x04;
pub const ACCESS_EXTEND: u32 = 0x08;
pub const ACCESS_DELETE: u32 = 0x10;
pub const ACCESS_EXECUTE: u32 = 0x20;

/// A mounted file system as one reactor sees it.
#[async_trait(?Send)]
pub trait Vfs {
    /// Stable for the life of the file system.
    fn fsid(&self) -> [u8; 16];
    fn root(&self) -> Ino;
    /// Changes whenever unstable data may have been lost.
    fn write_verifier(&self) -> [u8; 8];
    async fn statfs(&self) -> FsResult<FsStat>;

    /// `Stale` when the inode is gone or of another generation (generation 0: any).
    async fn getattr(&self, ino: Ino, generation: u32) -> FsResult<Attr>;
    /// The subset of `mask` (ACCESS_*) that is allowed.
    async fn access(&self, cx: &Context, ino: Ino, mask: u32) -> FsResult<(u32, Attr)>;
    /// `name` is neither `.` nor `..`. Returns the entry's and the directory's attributes.
    async fn lookup(&self, cx: &Context, dir: Ino, name: &[u8]) -> FsResult<(Attr, Attr)>;
    /// The parent of a directory; the root's parent is the root.
    async fn lookup_parent(&self, cx: &Context, dir: Ino) -> FsResult<Attr>;
    /// `guard`: fail with `NotSync` unless ctime is this (NFSv3 sattrguard3).
    /// A size change needs write permission, or `opened_for_write` when the protocol holds an open that grants it.
    async fn setattr(
        &self,
        cx: &Context,
        ino: Ino,
        set: SetAttr,
        guard: Option<WallTime>,
        opened_for_write: bool,
    ) -> FsResult<(PreAttr, Attr)>;

    /// New inode and name. Mode, owner and times from `set`; owner defaults to the caller, group to the directory's when setgid.
    async fn create(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        kind: NodeKind,
        how: CreateHow,
        set: SetAttr,
    ) -> FsResult<Created>;
    /// `directory`: `Some(true)` rmdir only, `Some(false)` anything else only, `None` either.
    async fn remove(
        &self,
        cx: &Context,
        dir: Ino,
        name: &[u8],
        directory: Option<bool>,
    ) -> FsResult<DirChange>;
    /// POSIX rename, whole: replaces, same-inode no-op, directories, ancestors refused.
    async fn rename(
        &self,
        cx: &Context,
        from_dir: Ino,
        from: &[u8],
        to_dir: Ino,
        to: &[u8],
    ) -> FsResult<(DirChange, DirChange)>;
    async fn link(&self, cx: &Context, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<(Attr, DirChange)>;
    async fn readlink(&self, cx: &Context, ino: Ino) -> FsResult<(Bytes, Attr)>;
    /// Entries after `cookie` (0: from the start), at most `max_entries`; `want_attrs` fills [`DirEntry::attr`].
    async fn readdir(
        &self,
        cx: &Context,
        dir: Ino,
        cookie: u64,
        max_entries: usize,
        want_attrs: bool,
    ) -> FsResult<ReadDir>;

    /// With `opened`, permission was checked at open; else it is checked now (owner always allowed, as NFS servers do).
    async fn read(&self, cx: &Context, ino: Ino, offset: u64, len: u32, opened: bool) -> FsResult<ReadReply>;
    async fn write(
        &self,
        cx: &Context,
        ino: Ino,
        offset: u64,
        data: Vec<Bytes>,
        stability: Stability,
        opened: bool,
    ) -> FsResult<WriteReply>;
    /// All unstable data of the range (len 0: to the end) durable; an earlier background failure is reported here.
    async fn commit(
        &self,
        cx: &Context,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> FsResult<([u8; 8], PreAttr, Attr)>;
    async fn seek(&self, cx: &Context, ino: Ino, offset: u64, what: SeekWhat) -> FsResult<u64>;
    /// Punches a hole; size stays.
    async fn deallocate(&self, cx: &Context, ino: Ino, offset: u64, len: u64) -> FsResult<Attr>;

    /// Registers an open: permission check (`check`), share conflicts, and the inode outlives its last name until all are closed.
    async fn open(&self, cx: &Context, ino: Ino, client: u64, share: Share, check: bool) -> FsResult<Attr>;
    /// Gives back one `open` (same share).
    async fn close(&self, ino: Ino, client: u64, share: Share) -> FsResult<()>;
    /// Byte-range locks, journalled before the answer. `Err(conflict)` inside when another owner holds it.
    async fn lock(
        &self,
        cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Result<(), LockConflict>>;
    async fn unlock(
        &self,
        cx: &Context,
        ino: Ino,
        owner: &LockOwner,
        offset: u64,
        length: u64,
    ) -> FsResult<()>;
    async fn test_lock(
        &self,
        ino: Ino,
        owner: &LockOwner,
        range: LockRange,
    ) -> FsResult<Option<LockConflict>>;
    async fn holds_locks(&self, ino: Ino, owner: &LockOwner) -> FsResult<bool>;
    /// The client is gone: its locks, opens and the replay records of its `sessions` go.
    async fn release_client(&self, client: u64, sessions: &[[u8; 16]]) -> FsResult<()>;
}
