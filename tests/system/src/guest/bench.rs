//! Rows of the benchmark, as threads of the guest: the kernel client is what is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Context;
use crate::rng::Rng;

/// A small file.
pub const SMALL_BYTES: usize = 16 << 10;
const CHUNK_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// What is measured. Rows of one directory build on each other: `Create` or `WriteSmall` before what uses their
/// files, `WriteLarge` before the reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BenchKind {
    /// Empty files, created and closed.
    Create,
    /// stat of each, nothing cached.
    Stat,
    /// unlink of each.
    Unlink,
    /// Files of 16 KiB: create, write, fsync, close.
    WriteSmall,
    /// Open, read, close each, nothing cached.
    ReadSmall,
    /// 1 MiB writes one after the other, one fsync at the end.
    WriteLarge,
    /// The same back, nothing cached by the client.
    ReadLarge,
    /// 4 KiB at random places of the large file, past the client's cache.
    ReadRandom,
}

/// One row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BenchPlan {
    /// A directory on the mount; made if missing.
    pub dir: String,
    /// What is measured.
    pub kind: BenchKind,
    /// Threads, each with one call under way.
    pub threads: usize,
    /// For how long at most.
    pub milliseconds: u64,
    /// Files of `Create` and `WriteSmall`, bytes of `WriteLarge` (over all threads): a bound, or what there is.
    pub limit: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BenchResult {
    /// Calls that were finished.
    pub operations: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Time from the first call to the end of the last.
    pub seconds: f64,
}

pub(super) fn run(plan: &BenchPlan) -> Result<String, String> {
    if plan.threads == 0 || plan.threads > 256 {
        return Err(format!("{} threads", plan.threads));
    }
    fs::create_dir_all(&plan.dir).context(|| format!("mkdir {}", plan.dir))?;
    for thread in 0..plan.threads {
        // A directory for each: the kernel client holds a directory's lock while it changes it.
        fs::create_dir_all(thread_dir(plan, thread)).context(|| "mkdir".into())?;
    }
    if !matches!(plan.kind, BenchKind::Create | BenchKind::WriteSmall | BenchKind::WriteLarge) {
        super::drop_caches()?;
    }
    let started = Instant::now();
    let until = started + Duration::from_millis(plan.milliseconds);
    let parts: Vec<Result<(u64, u64), String>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..plan.threads).map(|t| scope.spawn(move || one_thread(plan, t, until))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let mut result = BenchResult { operations: 0, bytes: 0, seconds: started.elapsed().as_secs_f64() };
    for part in parts {
        let (operations, bytes) = part?;
        result.operations += operations;
        result.bytes += bytes;
    }
    serde_json::to_string(&result).map_err(|e| e.to_string())
}

fn thread_dir(plan: &BenchPlan, thread: usize) -> PathBuf {
    Path::new(&plan.dir).join(format!("t{thread}"))
}

/// Operations and bytes.
fn one_thread(plan: &BenchPlan, thread: usize, until: Instant) -> Result<(u64, u64), String> {
    let dir = thread_dir(plan, thread);
    let share = plan.limit / plan.threads as u64;
    match plan.kind {
        BenchKind::WriteLarge => write_large(&dir, share),
        BenchKind::ReadLarge => read_large(&dir, until),
        BenchKind::ReadRandom => read_random(&dir, thread, until),
        kind => small_files(kind, &dir, share, until),
    }
}

fn small_files(kind: BenchKind, dir: &Path, share: u64, until: Instant) -> Result<(u64, u64), String> {
    let content = Rng::new(share).bytes(SMALL_BYTES);
    let mut buffer = vec![0; SMALL_BYTES];
    let (mut operations, mut bytes) = (0, 0);
    while operations < share && Instant::now() < until {
        let path = dir.join(format!("{}{operations}", if is_small(kind) { "s" } else { "c" }));
        let result = match kind {
            BenchKind::Create => create(&path).and_then(crate::sys::close),
            BenchKind::Stat => fs::symlink_metadata(&path).map(drop),
            BenchKind::Unlink => fs::remove_file(&path),
            BenchKind::WriteSmall => create(&path).and_then(|mut file| {
                file.write_all(&content)?;
                file.sync_all()?;
                crate::sys::close(file)
            }),
            _ => File::open(&path).and_then(|mut file| file.read_exact(&mut buffer)),
        };
        match result {
            // A row before this one made no more files within its time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && operations > 0 => break,
            result => result.context(|| format!("{kind:?} {}", path.display()))?,
        }
        operations += 1;
        bytes += if is_small(kind) { SMALL_BYTES as u64 } else { 0 };
    }
    Ok((operations, bytes))
}

fn is_small(kind: BenchKind) -> bool {
    matches!(kind, BenchKind::WriteSmall | BenchKind::ReadSmall)
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn write_large(dir: &Path, share: u64) -> Result<(u64, u64), String> {
    let chunk = Rng::new(1).bytes(CHUNK_BYTES);
    let path = dir.join("large");
    let mut file = File::create(&path).context(|| format!("create {}", path.display()))?;
    let chunks = share.div_ceil(CHUNK_BYTES as u64);
    for _ in 0..chunks {
        file.write_all(&chunk).context(|| format!("write {}", path.display()))?;
    }
    file.sync_all().context(|| format!("fsync {}", path.display()))?;
    Ok((chunks, chunks * CHUNK_BYTES as u64))
}

fn read_large(dir: &Path, until: Instant) -> Result<(u64, u64), String> {
    let path = dir.join("large");
    let mut file = File::open(&path).context(|| format!("open {}", path.display()))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut operations, mut bytes) = (0, 0);
    while Instant::now() < until {
        let n = file.read(&mut chunk).context(|| format!("read {}", path.display()))?;
        if n == 0 {
            break;
        }
        operations += 1;
        bytes += n as u64;
    }
    Ok((operations, bytes))
}

fn read_random(dir: &Path, thread: usize, until: Instant) -> Result<(u64, u64), String> {
    let path = dir.join("large");
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .context(|| format!("open {}", path.display()))?;
    let pages = file.metadata().context(|| "fstat".into())?.len() / PAGE_BYTES as u64;
    if pages == 0 {
        return Err(format!("{} is empty", path.display()));
    }
    // O_DIRECT wants the memory aligned too.
    let mut memory = vec![0; 2 * PAGE_BYTES];
    let skip = memory.as_ptr().align_offset(PAGE_BYTES);
    let page = &mut memory[skip..skip + PAGE_BYTES];
    let mut rng = Rng::new(thread as u64 + 1);
    let mut operations = 0;
    while Instant::now() < until {
        let at = rng.below(pages) * PAGE_BYTES as u64;
        file.read_exact_at(page, at).context(|| format!("read {} at {at}", path.display()))?;
        operations += 1;
    }
    Ok((operations, operations * PAGE_BYTES as u64))
}
