//! Random file-system operations against a model, while the server is killed under them.
//!
//! Every thread has a subtree of its own, so that its model is exact. At a hard mount no call may fail other than
//! by the rules of POSIX, whatever happens to the server; between rounds the caches are dropped, so that the
//! comparison reads what the server kept.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Context;
use super::model::{Entry, Model, compare};
use crate::rng::Rng;
use crate::sys;

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChaosPlan {
    /// A directory on the mount; it is made.
    pub dir: String,
    /// The same directory through another mount, for the last comparison.
    pub verify_dir: Option<String>,
    /// Seed of all operations.
    pub seed: u64,
    /// For how long.
    pub seconds: u64,
    /// How many threads.
    pub threads: u32,
    /// Whether locks are tried (not over v3 without NLM).
    pub locks: bool,
}

const ROUND: Duration = Duration::from_secs(13);
const MAX_ENTRIES: usize = 250;
const MAX_FILE_BYTES: usize = 2 << 20;
const MAX_TOTAL_BYTES: usize = 24 << 20;
const OPEN_HANDLES: usize = 8;
const TRACE_LINES: usize = 25;

pub(super) fn run(plan: &ChaosPlan) -> Result<String, String> {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(plan.seconds);
    fs::create_dir(&plan.dir).context(|| format!("mkdir {}", plan.dir))?;
    let mut actors = Vec::new();
    for index in 0..plan.threads {
        let root = Path::new(&plan.dir).join(format!("t{index}"));
        fs::create_dir(&root).context(|| format!("mkdir {}", root.display()))?;
        actors.push(Actor::new(root, plan.seed.wrapping_add(u64::from(index)), plan.locks)?);
    }
    let mut rounds = 0;
    while Instant::now() < deadline {
        let until = deadline.min(Instant::now() + ROUND);
        on_all(&mut actors, |actor| actor.work(until))?;
        super::drop_caches()?;
        on_all(&mut actors, |actor| actor.model.verify(&actor.root))?;
        rounds += 1;
    }
    for actor in &mut actors {
        actor.handles.clear();
    }
    super::drop_caches()?;
    if let Some(dir) = &plan.verify_dir {
        for (index, actor) in actors.iter().enumerate() {
            let root = Path::new(dir).join(format!("t{index}"));
            actor.model.verify(&root).map_err(|e| format!("through the other mount: {e}"))?;
        }
    }
    let operations: u64 = actors.iter().map(|a| a.operations).sum();
    let slowest = actors.iter().map(|a| a.slowest).max().unwrap_or_default();
    Ok(format!(
        "{operations} operations in {rounds} rounds, {} names and {} MiB at the end, slowest call {:.1} s",
        actors.iter().map(|a| a.model.entries.len()).sum::<usize>(),
        actors.iter().map(|a| a.model.total_bytes()).sum::<usize>() >> 20,
        slowest.as_secs_f64()
    ))
}

fn on_all(actors: &mut [Actor], job: impl Fn(&mut Actor) -> Result<(), String> + Sync) -> Result<(), String> {
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let job = &job;
        let running: Vec<_> = actors
            .iter_mut()
            .map(|actor| {
                scope.spawn(move || {
                    job(actor).map_err(|e| {
                        format!("{e}\nlast operations in {}:\n{}", actor.root.display(), actor.trace())
                    })
                })
            })
            .collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n---\n")) }
}

/// A file kept open, perhaps after its last name went.
struct Handle {
    file: File,
    content: Vec<u8>,
}

struct Actor {
    root: PathBuf,
    rng: Rng,
    model: Model,
    /// Files without a name; the server knows them by the client's rename alone.
    handles: Vec<Handle>,
    lock_file: Option<File>,
    operations: u64,
    slowest: Duration,
    trace: VecDeque<String>,
    started: Instant,
}

impl Actor {
    fn new(root: PathBuf, seed: u64, locks: bool) -> Result<Self, String> {
        let mut model = Model::default();
        let lock_file = if locks {
            let path = root.join("lock");
            model.new_file("lock", 0o644);
            let file = options()
                .create_new(true)
                .mode(0o644)
                .open(&path)
                .context(|| format!("create {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).context(|| "chmod lock".into())?;
            Some(file)
        } else {
            None
        };
        Ok(Self {
            root,
            rng: Rng::new(seed),
            model,
            handles: Vec::new(),
            lock_file,
            operations: 0,
            slowest: Duration::ZERO,
            trace: VecDeque::new(),
            started: Instant::now(),
        })
    }

    fn trace(&self) -> String {
        self.trace.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn note(&mut self, what: String) {
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("  {:8.3} s  {what}", self.started.elapsed().as_secs_f64()));
    }

    fn work(&mut self, until: Instant) -> Result<(), String> {
        while Instant::now() < until {
            let before = Instant::now();
            self.step()?;
            self.slowest = self.slowest.max(before.elapsed());
            self.operations += 1;
        }
        Ok(())
    }

    fn full(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn some_dir(&mut self) -> String {
        let dirs = self.model.dirs();
        self.rng.pick(&dirs).cloned().unwrap_or_default()
    }

    fn some_file(&mut self) -> Option<String> {
        let mut paths = self.model.file_paths();
        paths.retain(|p| p != "lock");
        self.rng.pick(&paths).cloned()
    }

    fn new_path(&mut self) -> String {
        let dir = self.some_dir();
        let salt = self.rng.bits();
        self.model.fresh_name(&dir, salt)
    }

    fn step(&mut self) -> Result<(), String> {
        let crowded = self.model.entries.len() > MAX_ENTRIES || self.model.total_bytes() > MAX_TOTAL_BYTES;
        match self.rng.below(100) {
            _ if crowded && self.rng.one_in(2) => self.unlink(),
            0..=11 => self.create(),
            12..=27 => self.write(),
            28..=33 => self.append(),
            34..=45 => self.read(),
            46..=51 => self.truncate(),
            52..=58 => self.rename_file(),
            59..=60 => self.rename_dir(),
            61..=64 => self.link(),
            65..=70 => self.unlink(),
            71..=75 => self.mkdir(),
            76..=77 => self.rmdir(),
            78..=80 => self.symlink(),
            81..=84 => self.list(),
            85..=87 => self.chmod(),
            88..=89 => self.sync_dir(),
            90..=92 => self.refused(),
            93..=94 => self.unlink_open(),
            95..=97 => self.use_handle(),
            _ => self.lock(),
        }
    }

    fn create(&mut self) -> Result<(), String> {
        let path = self.new_path();
        let full = self.full(&path);
        let mode = 0o600 | (self.rng.below(0o100) as u32 & 0o044);
        self.note(format!("create {path}"));
        let mut file = options()
            .create_new(true)
            .mode(mode)
            .open(&full)
            .context(|| format!("create {}", full.display()))?;
        let id = self.model.new_file(&path, mode);
        if !self.rng.one_in(4) {
            let len = self.some_len();
            let bytes = self.rng.bytes(len);
            file.write_all(&bytes).context(|| format!("write {}", full.display()))?;
            self.state(id).content = bytes;
        }
        if self.rng.one_in(3) {
            file.sync_all().context(|| format!("fsync {}", full.display()))?;
        }
        close(file, &full)
    }

    fn some_len(&mut self) -> usize {
        let limit = match self.rng.below(20) {
            0 => MAX_FILE_BYTES as u64 / 2,
            1..=3 => 200_000,
            4..=9 => 20_000,
            _ => 3000,
        };
        self.rng.below(limit) as usize
    }

    fn state(&mut self, id: u64) -> &mut super::model::FileState {
        self.model.files.entry(id).or_default()
    }

    fn write(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return self.create() };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        let full = self.full(&path);
        let size = self.state(id).content.len();
        let past_end = if self.rng.one_in(4) { 70_000 } else { 1 };
        let offset = (self.rng.below((size + past_end) as u64) as usize).min(MAX_FILE_BYTES);
        let len = self.some_len().min(MAX_FILE_BYTES - offset);
        let bytes = self.rng.bytes(len);
        let how = self.rng.below(4);
        self.note(format!("write {path} at {offset} len {len} how {how}"));
        let mut opts = options();
        if how == 0 {
            opts.custom_flags(libc::O_SYNC);
        }
        let file = opts.open(&full).context(|| format!("open {}", full.display()))?;
        // Some writes come in pieces, as programs do it.
        let piece = if self.rng.one_in(3) { 1 + self.rng.below(9000) as usize } else { len.max(1) };
        let mut at = offset;
        for part in bytes.chunks(piece) {
            file.write_all_at(part, at as u64).context(|| format!("write {}", full.display()))?;
            at += part.len();
        }
        if how == 1 {
            file.sync_data().context(|| format!("fdatasync {}", full.display()))?;
        }
        let content = &mut self.state(id).content;
        if len > 0 {
            let end = content.len().max(offset + len);
            content.resize(end, 0);
            content[offset..offset + len].copy_from_slice(&bytes);
        }
        close(file, &full)
    }

    fn append(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return self.create() };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        let full = self.full(&path);
        let room = MAX_FILE_BYTES - self.state(id).content.len().min(MAX_FILE_BYTES);
        let len = self.some_len().min(room);
        let bytes = self.rng.bytes(len);
        self.note(format!("append {path} len {len}"));
        let mut file =
            OpenOptions::new().append(true).open(&full).context(|| format!("open {}", full.display()))?;
        file.write_all(&bytes).context(|| format!("append {}", full.display()))?;
        if self.rng.one_in(2) {
            file.sync_all().context(|| format!("fsync {}", full.display()))?;
        }
        self.state(id).content.extend_from_slice(&bytes);
        close(file, &full)
    }

    fn read(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        let full = self.full(&path);
        self.note(format!("read {path}"));
        let mut file = File::open(&full).context(|| format!("open {}", full.display()))?;
        let size = self.state(id).content.len();
        let start = if self.rng.one_in(2) { 0 } else { self.rng.below(size as u64 + 1) as usize };
        file.seek(SeekFrom::Start(start as u64)).context(|| "seek".into())?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen).context(|| format!("read {}", full.display()))?;
        compare(&full.display().to_string(), &seen, &self.state(id).content[start..])
    }

    fn truncate(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        let full = self.full(&path);
        let size = self.state(id).content.len();
        let to = match self.rng.below(4) {
            0 => 0,
            1 => (size + self.rng.below(50_000) as usize).min(MAX_FILE_BYTES),
            _ => self.rng.below(size as u64 + 1) as usize,
        };
        self.note(format!("truncate {path} from {size} to {to}"));
        if to == 0 && self.rng.one_in(2) {
            let file = options()
                .truncate(true)
                .open(&full)
                .context(|| format!("open O_TRUNC {}", full.display()))?;
            self.state(id).content.clear();
            return close(file, &full);
        }
        let file = options().open(&full).context(|| format!("open {}", full.display()))?;
        file.set_len(to as u64).context(|| format!("truncate {}", full.display()))?;
        self.state(id).content.resize(to, 0);
        close(file, &full)
    }

    fn rename_file(&mut self) -> Result<(), String> {
        let Some(from) = self.some_file() else { return Ok(()) };
        let to = match self.some_file() {
            Some(other) if self.rng.one_in(3) => other,
            _ => self.new_path(),
        };
        self.note(format!("rename {from} to {to}"));
        fs::rename(self.full(&from), self.full(&to)).context(|| format!("rename {from} to {to}"))?;
        // Two names of the same file: POSIX says that nothing happens.
        if from != to && (self.model.file_at(&from) != self.model.file_at(&to)) {
            self.model.rename(&from, &to);
        }
        Ok(())
    }

    fn rename_dir(&mut self) -> Result<(), String> {
        let from = self.some_dir();
        let to = self.new_path();
        if from.is_empty() || to.starts_with(&format!("{from}/")) {
            return Ok(());
        }
        self.note(format!("rename directory {from} to {to}"));
        fs::rename(self.full(&from), self.full(&to)).context(|| format!("rename {from} to {to}"))?;
        self.model.rename(&from, &to);
        Ok(())
    }

    fn link(&mut self) -> Result<(), String> {
        let Some(from) = self.some_file() else { return Ok(()) };
        let Some(id) = self.model.file_at(&from) else { return Ok(()) };
        let to = self.new_path();
        self.note(format!("link {from} to {to}"));
        fs::hard_link(self.full(&from), self.full(&to)).context(|| format!("link {from} to {to}"))?;
        self.model.entries.insert(to, Entry::File(id));
        Ok(())
    }

    fn unlink(&mut self) -> Result<(), String> {
        let names: Vec<String> = self
            .model
            .entries
            .iter()
            .filter(|(p, e)| **e != Entry::Dir && p.as_str() != "lock")
            .map(|(p, _)| p.clone())
            .collect();
        let Some(path) = self.rng.pick(&names).cloned() else { return Ok(()) };
        self.note(format!("unlink {path}"));
        fs::remove_file(self.full(&path)).context(|| format!("unlink {path}"))?;
        self.model.remove(&path);
        Ok(())
    }

    fn mkdir(&mut self) -> Result<(), String> {
        let path = self.new_path();
        if path.matches('/').count() > 4 || path.len() > 900 {
            return Ok(());
        }
        self.note(format!("mkdir {path}"));
        fs::create_dir(self.full(&path)).context(|| format!("mkdir {path}"))?;
        self.model.entries.insert(path, Entry::Dir);
        Ok(())
    }

    fn rmdir(&mut self) -> Result<(), String> {
        let path = self.some_dir();
        if path.is_empty() {
            return Ok(());
        }
        let empty = self.model.children(&path).is_empty();
        self.note(format!("rmdir {path} (empty: {empty})"));
        match fs::remove_dir(self.full(&path)) {
            Ok(()) if empty => {
                self.model.remove(&path);
                Ok(())
            }
            Ok(()) => Err(format!("rmdir {path} removed a directory that was not empty")),
            Err(error) if !empty && matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                Ok(())
            }
            Err(error) if empty && error.raw_os_error() == Some(libc::ENOTEMPTY) => {
                self.rmdir_with_remains(&path)
            }
            Err(error) => Err(format!("rmdir {path}: {error}")),
        }
    }

    /// A removed file that is or was open lives on in its directory for a while, under a name of the client's.
    fn rmdir_with_remains(&mut self, path: &str) -> Result<(), String> {
        let full = self.full(path);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(100));
            if fs::remove_dir(&full).is_ok() {
                self.model.remove(path);
                return Ok(());
            }
        }
        let entries = fs::read_dir(&full).context(|| format!("readdir {path}"))?;
        let remains =
            entries.filter_map(Result::ok).any(|e| e.file_name().to_string_lossy().starts_with(".nfs"));
        if remains { Ok(()) } else { Err(format!("rmdir {path}: not empty, and nothing is in it")) }
    }

    fn symlink(&mut self) -> Result<(), String> {
        let path = self.new_path();
        let target = format!("somewhere/{}", self.rng.below(1_000_000));
        self.note(format!("symlink {path}"));
        symlink(&target, self.full(&path)).context(|| format!("symlink {path}"))?;
        self.model.entries.insert(path, Entry::Symlink(target));
        Ok(())
    }

    fn list(&mut self) -> Result<(), String> {
        let dir = self.some_dir();
        self.note(format!("list {dir:?}"));
        self.model.verify_listing(&self.root, &dir)
    }

    fn chmod(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        let mode = 0o600 | (self.rng.below(0o200) as u32);
        self.note(format!("chmod {mode:o} {path}"));
        fs::set_permissions(self.full(&path), fs::Permissions::from_mode(mode))
            .context(|| format!("chmod {path}"))?;
        self.state(id).mode = mode;
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), String> {
        let dir = self.some_dir();
        self.note(format!("fsync directory {dir:?}"));
        File::open(self.full(&dir)).and_then(|d| d.sync_all()).context(|| format!("fsync directory {dir:?}"))
    }

    /// What must be refused, is: a retried request must not be mistaken for this, nor this for a retry.
    fn refused(&mut self) -> Result<(), String> {
        let (what, result, expected) = match self.rng.below(4) {
            0 => {
                let dir = self.some_dir();
                if dir.is_empty() {
                    return Ok(());
                }
                (format!("mkdir {dir} again"), fs::create_dir(self.full(&dir)), libc::EEXIST)
            }
            1 => {
                let path = self.new_path();
                (
                    format!("unlink {path}, which is not there"),
                    fs::remove_file(self.full(&path)),
                    libc::ENOENT,
                )
            }
            2 => {
                let Some(path) = self.some_file() else { return Ok(()) };
                let again = options().create_new(true).open(self.full(&path)).map(drop);
                (format!("create {path} again"), again, libc::EEXIST)
            }
            _ => {
                let (Some(from), Some(to)) = (self.some_file(), self.some_file()) else { return Ok(()) };
                (
                    format!("link {from} over {to}"),
                    fs::hard_link(self.full(&from), self.full(&to)),
                    libc::EEXIST,
                )
            }
        };
        self.note(what.clone());
        match result {
            Err(error) if error.raw_os_error() == Some(expected) => Ok(()),
            Err(error) => Err(format!("{what}: {error}")),
            Ok(()) => Err(format!("{what}: it was let through")),
        }
    }

    fn unlink_open(&mut self) -> Result<(), String> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let Some(id) = self.model.file_at(&path) else { return Ok(()) };
        if self.model.links(id) > 1 {
            return Ok(());
        }
        if self.handles.len() >= OPEN_HANDLES {
            self.handles.remove(0);
        }
        self.note(format!("unlink open {path}"));
        let full = self.full(&path);
        let file = options().open(&full).context(|| format!("open {}", full.display()))?;
        fs::remove_file(&full).context(|| format!("unlink {}", full.display()))?;
        let content = std::mem::take(&mut self.state(id).content);
        self.model.remove(&path);
        self.handles.push(Handle { file, content });
        Ok(())
    }

    fn use_handle(&mut self) -> Result<(), String> {
        if self.handles.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.handles.len() as u64) as usize;
        let len = self.some_len();
        let bytes = self.rng.bytes(len);
        self.note(format!("overwrite unlinked file {index} len {len}"));
        let Handle { file, content } = &mut self.handles[index];
        file.write_all_at(&bytes, 0).context(|| "write to an unlinked file".into())?;
        let end = content.len().max(len);
        content.resize(end, 0);
        content[..len].copy_from_slice(&bytes);
        let mut seen = vec![0; end];
        file.read_exact_at(&mut seen, 0).context(|| "read an unlinked file".into())?;
        compare("an unlinked file", &seen, content)
    }

    fn lock(&mut self) -> Result<(), String> {
        if self.lock_file.is_none() {
            return Ok(());
        }
        let start = self.rng.below(1000);
        self.note(format!("lock and unlock at {start}"));
        let Some(file) = &self.lock_file else { return Ok(()) };
        sys::record_lock(file, libc::F_WRLCK, start, 10).context(|| "lock".into())?;
        sys::record_lock(file, libc::F_UNLCK, start, 10).context(|| "unlock".into())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

/// Closes with its error looked at: over NFS, close is where a failed write shows.
fn close(file: File, path: &Path) -> Result<(), String> {
    sys::close(file).context(|| format!("close {}", path.display()))
}
