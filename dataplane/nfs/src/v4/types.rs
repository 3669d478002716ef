//! Numbers of NFSv4.1 and 4.2 (RFC 8881, 7862, 5662) used here.

use basalt_shard::vfs::{FileType, FsError};

/// nfsstat4, as an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($name:ident = $value:expr;)*) => {
        impl Status { $(pub const $name: Status = Status($value);)* }
    };
}
statuses! {
    OK = 0; PERM = 1; NOENT = 2; IO = 5; NXIO = 6; ACCESS = 13; EXIST = 17; XDEV = 18; NOTDIR = 20; ISDIR = 21;
    INVAL = 22; FBIG = 27; NOSPC = 28; ROFS = 30; MLINK = 31; NAMETOOLONG = 63; NOTEMPTY = 66; STALE = 70;
    BADHANDLE = 10001; BAD_COOKIE = 10003; NOTSUPP = 10004; TOOSMALL = 10005; SERVERFAULT = 10006; BADTYPE = 10007;
    DELAY = 10008; SAME = 10009; DENIED = 10010; LOCKED = 10012; SHARE_DENIED = 10015; WRONGSEC = 10016;
    CLID_INUSE = 10017; NOFILEHANDLE = 10020; MINOR_VERS_MISMATCH = 10021; STALE_CLIENTID = 10022;
    OLD_STATEID = 10024; BAD_STATEID = 10025; NOT_SAME = 10027; LOCK_RANGE = 10028; SYMLINK = 10029; ATTRNOTSUPP = 10032;
    NO_GRACE = 10033; BADXDR = 10036; LOCKS_HELD = 10037; OPENMODE = 10038; BADOWNER = 10039; BADCHAR = 10040;
    BADNAME = 10041; BAD_RANGE = 10042; OP_ILLEGAL = 10044; BADSESSION = 10052; BADSLOT = 10053;
    COMPLETE_ALREADY = 10054; CONN_NOT_BOUND_TO_SESSION = 10055; SEQ_MISORDERED = 10063; SEQUENCE_POS = 10064;
    REQ_TOO_BIG = 10065; REP_TOO_BIG = 10066; REP_TOO_BIG_TO_CACHE = 10067; RETRY_UNCACHED_REP = 10068;
    TOO_MANY_OPS = 10070; OP_NOT_IN_SESSION = 10071; CLIENTID_BUSY = 10074; SEQ_FALSE_RETRY = 10076;
    BAD_HIGH_SLOT = 10077; DEADSESSION = 10078; ENCR_ALG_UNSUPP = 10079; NOT_ONLY_OP = 10081; WRONG_CRED = 10082;
    WRONG_TYPE = 10083; DIRDELEG_UNAVAIL = 10084; UNION_NOTSUPP = 10090;
}

pub type OpResult<T = ()> = Result<T, Status>;

impl From<crate::xdr::Malformed> for Status {
    fn from(_: crate::xdr::Malformed) -> Status {
        Status::BADXDR
    }
}

impl From<FsError> for Status {
    fn from(e: FsError) -> Status {
        match e {
            FsError::NotPermitted => Status::PERM,
            FsError::Access => Status::ACCESS,
            FsError::NotFound => Status::NOENT,
            FsError::Io => Status::IO,
            FsError::Exists => Status::EXIST,
            FsError::NotDirectory => Status::NOTDIR,
            FsError::IsDirectory => Status::ISDIR,
            FsError::Invalid => Status::INVAL,
            FsError::WrongType => Status::WRONG_TYPE,
            FsError::IsSymlink => Status::SYMLINK,
            FsError::FileTooBig => Status::FBIG,
            FsError::NoSpace => Status::NOSPC,
            FsError::ReadOnly => Status::ROFS,
            FsError::TooManyLinks => Status::MLINK,
            FsError::NameTooLong => Status::NAMETOOLONG,
            FsError::NotEmpty => Status::NOTEMPTY,
            FsError::Stale => Status::STALE,
            FsError::BadCookie => Status::BAD_COOKIE,
            FsError::NotSync => Status::NOT_SAME,
            FsError::ShareDenied => Status::SHARE_DENIED,
            FsError::NoMoreData => Status::NXIO,
            // NFS4ERR_RESOURCE is not a 4.1 error (RFC 8881, 15.1.16.2).
            FsError::Resource => Status::SERVERFAULT,
            FsError::Delay => Status::DELAY,
            FsError::NotSupported => Status::NOTSUPP,
        }
    }
}

/// nfs_ftype4.
pub(crate) fn ftype4(kind: FileType) -> u32 {
    match kind {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::BlockDevice => 3,
        FileType::CharDevice => 4,
        FileType::Symlink => 5,
        FileType::Socket => 6,
        FileType::Fifo => 7,
    }
}

macro_rules! ops {
    ($($name:ident = $value:expr, $text:expr;)*) => {
        pub mod op { $(pub const $name: u32 = $value;)* }
        /// The operation's name in statistics.
        pub(crate) fn op_name(op: u32) -> &'static str {
            match op { $($value => concat!("v4.", $text),)* _ => "v4.illegal" }
        }
    };
}
ops! {
    ACCESS = 3, "access"; CLOSE = 4, "close"; COMMIT = 5, "commit"; CREATE = 6, "create"; DELEGPURGE = 7, "delegpurge";
    DELEGRETURN = 8, "delegreturn"; GETATTR = 9, "getattr"; GETFH = 10, "getfh"; LINK = 11, "link"; LOCK = 12, "lock";
    LOCKT = 13, "lockt"; LOCKU = 14, "locku"; LOOKUP = 15, "lookup"; LOOKUPP = 16, "lookupp"; NVERIFY = 17, "nverify";
    OPEN = 18, "open"; OPENATTR = 19, "openattr"; OPEN_CONFIRM = 20, "open_confirm";
    OPEN_DOWNGRADE = 21, "open_downgrade"; PUTFH = 22, "putfh"; PUTPUBFH = 23, "putpubfh"; PUTROOTFH = 24, "putrootfh";
    READ = 25, "read"; READDIR = 26, "readdir"; READLINK = 27, "readlink"; REMOVE = 28, "remove"; RENAME = 29, "rename";
    RENEW = 30, "renew"; RESTOREFH = 31, "restorefh"; SAVEFH = 32, "savefh"; SECINFO = 33, "secinfo";
    SETATTR = 34, "setattr"; SETCLIENTID = 35, "setclientid"; SETCLIENTID_CONFIRM = 36, "setclientid_confirm";
    VERIFY = 37, "verify"; WRITE = 38, "write"; RELEASE_LOCKOWNER = 39, "release_lockowner";
    BACKCHANNEL_CTL = 40, "backchannel_ctl"; BIND_CONN_TO_SESSION = 41, "bind_conn_to_session";
    EXCHANGE_ID = 42, "exchange_id"; CREATE_SESSION = 43, "create_session"; DESTROY_SESSION = 44, "destroy_session";
    FREE_STATEID = 45, "free_stateid"; GET_DIR_DELEGATION = 46, "get_dir_delegation"; GETDEVICEINFO = 47, "getdeviceinfo";
    GETDEVICELIST = 48, "getdevicelist"; LAYOUTCOMMIT = 49, "layoutcommit"; LAYOUTGET = 50, "layoutget";
    LAYOUTRETURN = 51, "layoutreturn"; SECINFO_NO_NAME = 52, "secinfo_no_name"; SEQUENCE = 53, "sequence";
    SET_SSV = 54, "set_ssv"; TEST_STATEID = 55, "test_stateid"; WANT_DELEGATION = 56, "want_delegation";
    DESTROY_CLIENTID = 57, "destroy_clientid"; RECLAIM_COMPLETE = 58, "reclaim_complete"; ALLOCATE = 59, "allocate";
    COPY = 60, "copy"; COPY_NOTIFY = 61, "copy_notify"; DEALLOCATE = 62, "deallocate"; IO_ADVISE = 63, "io_advise";
    LAYOUTERROR = 64, "layouterror"; LAYOUTSTATS = 65, "layoutstats"; OFFLOAD_CANCEL = 66, "offload_cancel";
    OFFLOAD_STATUS = 67, "offload_status"; READ_PLUS = 68, "read_plus"; SEEK = 69, "seek"; WRITE_SAME = 70, "write_same";
    CLONE = 71, "clone"; GETXATTR = 72, "getxattr"; SETXATTR = 73, "setxattr"; LISTXATTRS = 74, "listxattrs";
    REMOVEXATTR = 75, "removexattr"; ILLEGAL = 10044, "illegal";
}

/// The last operation of a minor version.
pub(crate) fn last_op(minor: u32) -> u32 {
    if minor >= 2 { op::REMOVEXATTR } else { op::RECLAIM_COMPLETE }
}
