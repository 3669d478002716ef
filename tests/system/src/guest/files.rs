//! Work on files in bulk: many in one directory, large seeded ones, filling up, loading the journal.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Context;
use super::model::compare;
use crate::rng::Rng;

const CHUNK_BYTES: usize = 1 << 20;

/// Creates, lists, stats and removes `count` files in one directory.
pub(super) fn many(dir: &Path, count: u32) -> Result<String, String> {
    fs::create_dir(dir).context(|| format!("mkdir {}", dir.display()))?;
    let names: BTreeSet<String> = (0..count).map(|i| format!("file-{i:06}")).collect();
    let mut times = Vec::new();
    let mut lap = Instant::now();
    let mut done = |what: &str| {
        times.push(format!("{what} {:.0}/s", f64::from(count) / lap.elapsed().as_secs_f64()));
        lap = Instant::now();
    };
    for name in &names {
        let path = dir.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .context(|| format!("create {}", path.display()))?;
        file.write_all(name.as_bytes()).context(|| format!("write {}", path.display()))?;
        crate::sys::close(file).context(|| format!("close {}", path.display()))?;
    }
    done("create");
    super::drop_caches()?;
    expect_listing(dir, &names)?;
    done("list");
    for name in &names {
        let path = dir.join(name);
        let meta = fs::symlink_metadata(&path).context(|| format!("stat {}", path.display()))?;
        if meta.len() != name.len() as u64 || meta.nlink() != 1 {
            return Err(format!("{}: {} bytes, {} links", path.display(), meta.len(), meta.nlink()));
        }
    }
    done("stat");
    for name in names.iter().step_by(7) {
        let seen = fs::read(dir.join(name)).context(|| format!("read {name}"))?;
        compare(name, &seen, name.as_bytes())?;
    }
    // Every other one first: a listing in the middle of a removal must be neither short nor double.
    let (gone, kept): (Vec<_>, Vec<_>) = names.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    for (_, name) in gone {
        fs::remove_file(dir.join(name)).context(|| format!("unlink {name}"))?;
    }
    super::drop_caches()?;
    expect_listing(dir, &kept.iter().map(|(_, name)| (*name).clone()).collect())?;
    for (_, name) in kept {
        fs::remove_file(dir.join(name)).context(|| format!("unlink {name}"))?;
    }
    fs::remove_dir(dir).context(|| format!("rmdir {}", dir.display()))?;
    done("unlink");
    Ok(times.join(", "))
}

fn expect_listing(dir: &Path, names: &BTreeSet<String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut listed = 0;
    for entry in fs::read_dir(dir).context(|| format!("readdir {}", dir.display()))? {
        let entry = entry.context(|| format!("readdir {}", dir.display()))?;
        seen.insert(entry.file_name().to_string_lossy().into_owned());
        listed += 1;
    }
    if seen != *names || listed != names.len() {
        return Err(format!(
            "{} lists {listed} names, {} of them distinct, not {}",
            dir.display(),
            seen.len(),
            names.len()
        ));
    }
    Ok(())
}

/// Writes a file of seeded bytes and syncs it.
pub(super) fn write_seeded(path: &Path, len_bytes: u64, seed: u64) -> Result<String, String> {
    let started = Instant::now();
    let mut rng = Rng::new(seed);
    let mut file = File::create(path).context(|| format!("create {}", path.display()))?;
    let mut left = len_bytes as usize;
    while left > 0 {
        let chunk = rng.bytes(left.min(CHUNK_BYTES));
        file.write_all(&chunk).context(|| format!("write {}", path.display()))?;
        left -= chunk.len();
    }
    file.sync_all().context(|| format!("fsync {}", path.display()))?;
    crate::sys::close(file).context(|| format!("close {}", path.display()))?;
    Ok(rate(len_bytes, started))
}

/// Reads a seeded file back.
pub(super) fn verify_seeded(path: &Path, len_bytes: u64, seed: u64) -> Result<String, String> {
    let started = Instant::now();
    let mut rng = Rng::new(seed);
    let mut file = File::open(path).context(|| format!("open {}", path.display()))?;
    let size = file.metadata().context(|| "fstat".into())?.len();
    if size != len_bytes {
        return Err(format!("{} has {size} bytes, not {len_bytes}", path.display()));
    }
    let mut left = len_bytes as usize;
    let mut buffer = vec![0; CHUNK_BYTES];
    while left > 0 {
        let chunk = rng.bytes(left.min(CHUNK_BYTES));
        let seen = &mut buffer[..chunk.len()];
        file.read_exact(seen).context(|| format!("read {}", path.display()))?;
        compare(&format!("{} from byte {}", path.display(), len_bytes as usize - left), seen, &chunk)?;
        left -= chunk.len();
    }
    Ok(rate(len_bytes, started))
}

fn rate(len_bytes: u64, started: Instant) -> String {
    format!("{:.0} MB/s", len_bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// Writes files until a write fails; how many bytes went in, and the error's number.
pub(super) fn fill_up(dir: &Path) -> Result<String, String> {
    fs::create_dir_all(dir).context(|| format!("mkdir {}", dir.display()))?;
    let mut rng = Rng::new(1);
    let mut written = 0u64;
    for index in 0..100_000 {
        let path = dir.join(format!("fill-{index}"));
        // Each file is closed and synced: over NFS that is where a full disk shows.
        let result = File::create(&path).and_then(|mut file| {
            for _ in 0..16 {
                let chunk = rng.bytes(CHUNK_BYTES);
                file.write_all(&chunk)?;
                written += chunk.len() as u64;
            }
            file.sync_all()?;
            crate::sys::close(file)
        });
        if let Err(error) = result {
            return Ok(format!("{written} {}", error.raw_os_error().unwrap_or(0)));
        }
    }
    Err(format!("wrote {written} bytes and the file system is still not full"))
}

/// Small synchronous operations: the journal takes them all, and little is written elsewhere.
pub(super) fn load(dir: &Path, time: Duration) -> Result<String, String> {
    fs::create_dir_all(dir).context(|| format!("mkdir {}", dir.display()))?;
    let until = Instant::now() + time;
    let mut rng = Rng::new(2);
    let mut count = 0u64;
    while Instant::now() < until {
        let path = dir.join(format!("l{count}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_SYNC)
            .open(&path)
            .context(|| format!("create {}", path.display()))?;
        let len = 100 + rng.below(8000) as usize;
        file.write_all(&rng.bytes(len)).context(|| format!("write {}", path.display()))?;
        count += 1;
        if count.is_multiple_of(5) {
            let other = dir.join(format!("l{}", count - 3));
            fs::rename(&other, dir.join(format!("r{count}")))
                .context(|| format!("rename {}", other.display()))?;
        }
    }
    Ok(count.to_string())
}
