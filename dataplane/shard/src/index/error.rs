//! What the pool's errors mean to a client of the file system.

use crate::vfs::FsError;
use basalt_bdev::BdevError;
use basalt_pool::PoolError;
use std::cell::RefCell;

thread_local! {
    /// Last thing said, so that a full pool fills no log.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Says the pool's words in the log, once, and picks the client's error.
pub(crate) fn fs_error(e: PoolError) -> FsError {
    let words = e.to_string();
    SAID.with_borrow_mut(|said| {
        if *said != words {
            tracing::error!("{words}");
            *said = words;
        }
    });
    match e {
        // To a writer the host's full disk is no other than a full pool: free space and write again.
        PoolError::NoSpace(_) | PoolError::Bdev(BdevError::HostFull { .. }) => FsError::NoSpace,
        // Both pass: drives come back, a fenced shard has a new owner. The client asks again.
        PoolError::Stopped(_) | PoolError::Fenced { .. } => FsError::Delay,
        PoolError::DataLost(_) | PoolError::Corrupt(_) | PoolError::Refused(_) | PoolError::Bdev(_) => {
            FsError::Io
        }
    }
}
