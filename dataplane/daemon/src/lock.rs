//! One data plane per directory.

use std::fs::{File, TryLockError};
use std::path::Path;

/// Held for the life of the process; the kernel gives it back however the process ends.
pub(crate) struct DirectoryLock(#[allow(dead_code)] File);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("{dir} is in use by another data plane{pid}; stop it first, or give this one its own BASALT_DIR")]
    Held { dir: String, pid: String },
    #[error("{path}: {cause}")]
    Io { path: String, cause: std::io::Error },
}

pub(crate) fn acquire(run_dir: &Path) -> Result<DirectoryLock, LockError> {
    let path = run_dir.join("lock");
    let io = |cause| LockError::Io { path: path.display().to_string(), cause };
    std::fs::create_dir_all(run_dir).map_err(io)?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            let pid = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            let dir = run_dir.parent().unwrap_or(run_dir).display().to_string();
            return Err(LockError::Held { dir, pid });
        }
        Err(TryLockError::Error(cause)) => return Err(io(cause)),
    }
    // Only now: the file of a running data plane must keep its pid.
    std::fs::write(&path, std::process::id().to_string()).map_err(io)?;
    Ok(DirectoryLock(file))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_second_is_refused_and_told_by_whom() {
        let dir = std::env::temp_dir().join(format!("basalt-lock-{}", std::process::id()));
        let run = dir.join("run");
        let first = super::acquire(&run).unwrap();
        let error = super::acquire(&run).err().expect("a second lock was granted").to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        super::acquire(&run).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
