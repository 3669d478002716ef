//! A disk as bytes. Everything that an upgrade writes goes through [`Media`], so a test can record every write, cut the
//! power after any of them, or make one fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Random access. Writes may be reordered by a power cut until [`Media::flush`] has returned; a sector is never torn.
pub trait Media: Send + Sync {
    fn len_bytes(&self) -> u64;
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when everything written before is durable.
    fn flush(&self) -> io::Result<()>;
    /// Lets go of cached contents, so that the next read asks the drive.
    fn drop_caches(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A block device or a file with a disk's image.
pub struct FileMedia {
    file: File,
    len_bytes: u64,
}

impl FileMedia {
    /// Opens for writing. A block device that somebody has mounted is refused by the kernel (`O_EXCL`).
    pub fn open(path: &Path) -> io::Result<FileMedia> {
        let device = std::fs::metadata(path)?.file_type().is_block_device();
        let flags = libc::O_CLOEXEC | if device { libc::O_EXCL } else { 0 };
        Self::with(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?)
    }

    /// Opens for writing, used or not: for the partition table of a disk that runs.
    pub fn open_shared(path: &Path) -> io::Result<FileMedia> {
        Self::with(OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path)?)
    }

    /// What the drive calls a sector; 512 for a file.
    pub fn sector_bytes(&self) -> io::Result<u64> {
        if self.file.metadata()?.file_type().is_block_device() {
            return Ok(u64::from(rustix::fs::ioctl_blksszget(&self.file)?));
        }
        Ok(512)
    }

    /// Opens for reading, mounted or not.
    pub fn open_read_only(path: &Path) -> io::Result<FileMedia> {
        Self::with(OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)?)
    }

    fn with(file: File) -> io::Result<FileMedia> {
        // Seeking to the end is how a block device tells its size; `metadata` says 0.
        let len_bytes = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        Ok(FileMedia { file, len_bytes })
    }
}

impl Media for FileMedia {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        in_bounds(self.len_bytes, offset, data.len())?;
        self.file.write_all_at(data, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn drop_caches(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}

/// A part of a disk, from the partition table.
#[derive(Clone)]
pub struct Slice {
    disk: Arc<dyn Media>,
    start: u64,
    len_bytes: u64,
}

impl Slice {
    pub fn new(disk: Arc<dyn Media>, start: u64, len_bytes: u64) -> io::Result<Slice> {
        match start.checked_add(len_bytes) {
            Some(end) if end <= disk.len_bytes() => Ok(Slice { disk, start, len_bytes }),
            _ => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a partition ends behind the end of the disk"))
            }
        }
    }
}

impl Media for Slice {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        in_bounds(self.len_bytes, offset, buf.len())?;
        self.disk.read_at(self.start + offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        in_bounds(self.len_bytes, offset, data.len())?;
        self.disk.write_at(self.start + offset, data)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
    fn drop_caches(&self) -> io::Result<()> {
        self.disk.drop_caches()
    }
}

fn in_bounds(have: u64, offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= have => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at {offset} of {have}"))),
    }
}

/// What a recording disk was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Write { offset: u64, data: Vec<u8> },
    Flush,
}

/// A disk in memory that records every write and, if told so, fails after a number of them. For tests of crash safety,
/// here and in the whole-system tests.
pub struct Recorder {
    inner: Mutex<Recording>,
    len_bytes: u64,
}

struct Recording {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    writes_left: Option<u64>,
}

impl Recorder {
    pub fn new(bytes: Vec<u8>) -> Recorder {
        let len_bytes = bytes.len() as u64;
        Recorder { inner: Mutex::new(Recording { bytes, steps: Vec::new(), writes_left: None }), len_bytes }
    }

    /// After so many writes every further one fails, as if the drive had gone.
    pub fn fail_after(self, writes: u64) -> Recorder {
        self.lock().writes_left = Some(writes);
        self
    }

    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recording> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Media for Recorder {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        in_bounds(self.len_bytes, offset, buf.len())?;
        buf.copy_from_slice(&self.lock().bytes[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        in_bounds(self.len_bytes, offset, data.len())?;
        let mut inner = self.lock();
        if let Some(left) = &mut inner.writes_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the drive does not answer"))?;
        }
        inner.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        inner.steps.push(Step::Write { offset, data: data.to_vec() });
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.lock().steps.push(Step::Flush);
        Ok(())
    }
}

/// From the kernel's generator; None where it has none.
pub fn random() -> Option<[u8; 16]> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}
