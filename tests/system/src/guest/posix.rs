//! The promises of POSIX, one small check each, on a mounted file system.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::thread;

use super::Context;
use super::model::compare;
use crate::rng::Rng;
use crate::sys;
use crate::uml::NfsVersion;

/// Seconds and nanoseconds.
type Time = (i64, i64);
type Check = fn(&Path) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    ("hard links", hard_links),
    ("symlinks", symlinks),
    ("special files", special_files),
    ("sparse files", sparse),
    ("rename replaces", rename_replaces),
    ("rename of directories", rename_directories),
    ("unlink while open", unlink_while_open),
    ("truncate", truncate),
    ("modes", modes),
    ("owners", owners),
    ("times in nanoseconds", times),
    ("change of mtime and ctime", changing_times),
    ("O_EXCL", exclusive_create),
    ("O_APPEND by two writers", append_by_two),
    ("long names", long_names),
    ("deep directories", deep),
    ("refusals", refusals),
    ("mmap", mapped),
    ("readdir while removing", readdir_while_removing),
    ("file cursor and overlapping writes", overlapping),
];

/// What NFSv4 adds: locks, and from 4.2 on holes and preallocation.
const CHECKS_V4: &[(&str, Check)] = &[
    ("flock", whole_file_locks),
    ("record locks", record_locks),
    ("locks change hands", locks_change_hands),
    ("times before 1970 and after 2106", distant_times),
];
const CHECKS_V42: &[(&str, Check)] = &[("seek for holes", seek_holes), ("fallocate and punch", allocate)];

pub(super) fn run(dir: &Path, version: NfsVersion) -> Result<String, String> {
    let mut checks = CHECKS.to_vec();
    if version != NfsVersion::V3 {
        checks.extend(CHECKS_V4);
    }
    if version == NfsVersion::V42 {
        checks.extend(CHECKS_V42);
    }
    let mut failures = Vec::new();
    for (index, (name, check)) in checks.iter().enumerate() {
        let own = dir.join(format!("check{index}"));
        let result = fs::create_dir_all(&own)
            .context(|| format!("mkdir {}", own.display()))
            .and_then(|()| check(&own));
        if let Err(error) = result {
            failures.push(format!("{name}: {error}"));
        }
    }
    if failures.is_empty() { Ok(format!("{} checks", checks.len())) } else { Err(failures.join("\n")) }
}

fn expect(condition: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what()) }
}

fn expect_errno<T>(result: io::Result<T>, expected: &[i32], what: &str) -> Result<(), String> {
    match result {
        Ok(_) => Err(format!("{what} was let through")),
        Err(error) if error.raw_os_error().is_some_and(|n| expected.contains(&n)) => Ok(()),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).context(|| format!("write {}", path.display()))
}

fn content_is(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let seen = fs::read(path).context(|| format!("read {}", path.display()))?;
    compare(&path.display().to_string(), &seen, bytes)
}

fn meta(path: &Path) -> Result<fs::Metadata, String> {
    fs::symlink_metadata(path).context(|| format!("stat {}", path.display()))
}

fn read_write(path: &Path) -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .context(|| format!("open {}", path.display()))
}

fn hard_links(dir: &Path) -> Result<(), String> {
    let (a, b) = (dir.join("a"), dir.join("b"));
    put(&a, b"one")?;
    fs::hard_link(&a, &b).context(|| "link".into())?;
    expect(meta(&a)?.ino() == meta(&b)?.ino(), || "two inode numbers".into())?;
    expect(meta(&b)?.nlink() == 2, || format!("{} links", meta(&b).map_or(0, |m| m.nlink())))?;
    put(&b, b"changed")?;
    content_is(&a, b"changed")?;
    fs::remove_file(&a).context(|| "unlink".into())?;
    super::drop_caches()?;
    expect(meta(&b)?.nlink() == 1, || "the count of links did not go down".into())?;
    content_is(&b, b"changed")?;
    expect_errno(fs::hard_link(dir, dir.join("d")), &[libc::EPERM], "a link to a directory")
}

fn symlinks(dir: &Path) -> Result<(), String> {
    put(&dir.join("target"), b"t")?;
    symlink("target", dir.join("short")).context(|| "symlink".into())?;
    let long = "x/".repeat(500);
    symlink(&long, dir.join("long")).context(|| "a symlink of 1000 bytes".into())?;
    super::drop_caches()?;
    content_is(&dir.join("short"), b"t")?;
    let seen = fs::read_link(dir.join("long")).context(|| "readlink".into())?;
    expect(seen.as_os_str() == long.as_str(), || "a long target changed".into())?;
    expect(meta(&dir.join("long"))?.len() == 1000, || "size of a symlink".into())?;
    symlink("loop", dir.join("loop")).context(|| "symlink".into())?;
    expect_errno(File::open(dir.join("loop")), &[libc::ELOOP], "a loop of symlinks")
}

fn special_files(dir: &Path) -> Result<(), String> {
    let device = libc::makedev(1, 3);
    for (name, kind, number) in [
        ("fifo", libc::S_IFIFO, 0),
        ("socket", libc::S_IFSOCK, 0),
        ("char", libc::S_IFCHR, device),
        ("block", libc::S_IFBLK, libc::makedev(7, 300)),
    ] {
        sys::mknod(&dir.join(name), kind | 0o640, number).context(|| format!("mknod {name}"))?;
    }
    super::drop_caches()?;
    expect(meta(&dir.join("fifo"))?.file_type().is_fifo(), || "no fifo".into())?;
    expect(meta(&dir.join("socket"))?.file_type().is_socket(), || "no socket".into())?;
    let char_meta = meta(&dir.join("char"))?;
    expect(char_meta.file_type().is_char_device() && char_meta.rdev() == device, || {
        "not the null device".into()
    })?;
    let block = meta(&dir.join("block"))?;
    expect(block.file_type().is_block_device() && block.rdev() == libc::makedev(7, 300), || {
        format!("block device {:#x}", block.rdev())
    })?;
    // A fifo works between two threads of this client.
    let path = dir.join("fifo");
    let writer = thread::spawn(move || fs::write(path, b"through the pipe"));
    content_is(&dir.join("fifo"), b"through the pipe")?;
    writer.join().map_err(|_| "the writer panicked".to_owned())?.context(|| "write to a fifo".into())
}

fn sparse(dir: &Path) -> Result<(), String> {
    let path = dir.join("sparse");
    let file = read_write(&path)?;
    file.write_all_at(b"end", (5 << 30) - 3).context(|| "write at 5 GiB".into())?;
    file.write_all_at(b"middle", 1 << 30).context(|| "write at 1 GiB".into())?;
    file.sync_all().context(|| "fsync".into())?;
    super::drop_caches()?;
    let seen = meta(&path)?;
    expect(seen.len() == 5 << 30, || format!("{} bytes long", seen.len()))?;
    expect(seen.blocks() * 512 < 64 << 20, || format!("{} bytes in use", seen.blocks() * 512))?;
    let mut part = [1u8; 4096];
    file.read_exact_at(&mut part, 3 << 30).context(|| "read a hole".into())?;
    compare("a hole", &part, &[0; 4096])?;
    let mut part = [1u8; 8];
    file.read_exact_at(&mut part, (1 << 30) - 1).context(|| "read over an edge".into())?;
    compare("the edge of a hole", &part, b"\0middle\0")
}

fn rename_replaces(dir: &Path) -> Result<(), String> {
    let (a, b) = (dir.join("a"), dir.join("b"));
    put(&a, b"new")?;
    put(&b, b"old")?;
    let old = File::open(&b).context(|| "open".into())?;
    fs::rename(&a, &b).context(|| "rename".into())?;
    expect_errno(fs::metadata(&a), &[libc::ENOENT], "the old name")?;
    content_is(&b, b"new")?;
    let mut seen = Vec::new();
    (&old).read_to_end(&mut seen).context(|| "read the replaced file".into())?;
    compare("the replaced file, still open", &seen, b"old")?;
    fs::hard_link(&b, &a).context(|| "link".into())?;
    fs::rename(&a, &b).context(|| "rename over another name of the same file".into())?;
    expect(a.exists() && b.exists(), || "renaming onto the same file removed a name".into())
}

fn rename_directories(dir: &Path) -> Result<(), String> {
    let make = |name: &str| fs::create_dir_all(dir.join(name)).context(|| format!("mkdir {name}"));
    make("from/sub")?;
    make("empty")?;
    make("full/x")?;
    put(&dir.join("from/sub/f"), b"f")?;
    fs::rename(dir.join("from"), dir.join("empty")).context(|| "rename over an empty directory".into())?;
    content_is(&dir.join("empty/sub/f"), b"f")?;
    expect_errno(
        fs::rename(dir.join("empty"), dir.join("full")),
        &[libc::ENOTEMPTY, libc::EEXIST],
        "rename over a full directory",
    )?;
    expect_errno(
        fs::rename(dir.join("empty"), dir.join("empty/sub/below")),
        &[libc::EINVAL],
        "rename of a directory into itself",
    )?;
    fs::rename(dir.join("empty/sub"), dir.join("full/x/moved"))
        .context(|| "rename to another parent".into())?;
    content_is(&dir.join("full/x/moved/../moved/f"), b"f")?;
    super::drop_caches()?;
    expect(meta(&dir.join("empty"))?.nlink() == 2, || "links of the old parent".into())?;
    expect(meta(&dir.join("full/x"))?.nlink() == 3, || "links of the new parent".into())?;
    expect_errno(
        fs::rename(dir.join("full"), dir.join("full/x/moved/f")),
        &[libc::ENOTDIR, libc::EINVAL],
        "directory over file",
    )?;
    put(&dir.join("file"), b"")?;
    expect_errno(fs::rename(dir.join("file"), dir.join("empty")), &[libc::EISDIR], "file over directory")
}

fn unlink_while_open(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let mut file = read_write(&path)?;
    file.write_all(b"kept").context(|| "write".into())?;
    fs::remove_file(&path).context(|| "unlink".into())?;
    expect(!path.exists(), || "the name is still there".into())?;
    super::drop_caches()?;
    file.write_all(b" and more").context(|| "write after unlink".into())?;
    file.sync_all().context(|| "fsync after unlink".into())?;
    file.seek(SeekFrom::Start(0)).context(|| "seek".into())?;
    let mut seen = Vec::new();
    file.read_to_end(&mut seen).context(|| "read after unlink".into())?;
    compare("the unlinked file", &seen, b"kept and more")
}

fn truncate(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let mut expected = Rng::new(3).bytes(300_000);
    put(&path, &expected)?;
    let file = read_write(&path)?;
    for size in [299_999, 131_072, 131_071, 4096, 4095, 1, 70_000, 0, 5] {
        file.set_len(size as u64).context(|| format!("truncate to {size}"))?;
        expected.resize(size, 0);
        super::drop_caches()?;
        content_is(&path, &expected)?;
    }
    expect_errno(file.set_len(u64::MAX >> 1), &[libc::EFBIG, libc::EINVAL, libc::ENOSPC], "a size of 8 EiB")
        .or_else(|_| {
            // A server may keep files of any size; then it must do it.
            expect(meta(&path)?.len() == u64::MAX >> 1, || {
                "a size of 8 EiB was neither refused nor set".into()
            })
        })
}

fn modes(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, b"")?;
    for mode in [0o000, 0o777, 0o644, 0o1755, 0o2755, 0o4755] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).context(|| format!("chmod {mode:o}"))?;
        super::drop_caches()?;
        let seen = meta(&path)?.mode() & 0o7777;
        expect(seen == mode, || format!("mode {seen:o}, not {mode:o}"))?;
    }
    let sticky = dir.join("d");
    fs::create_dir(&sticky).context(|| "mkdir".into())?;
    fs::set_permissions(&sticky, Permissions::from_mode(0o1777)).context(|| "chmod".into())?;
    expect(meta(&sticky)?.mode() & 0o7777 == 0o1777, || "mode of a directory".into())
}

fn owners(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, b"")?;
    for (uid, gid) in [(1000, 1001), (0, 5), (4_000_000_000, 3_999_999_999)] {
        chown(&path, Some(uid), Some(gid)).context(|| format!("chown {uid}:{gid}"))?;
        super::drop_caches()?;
        let seen = meta(&path)?;
        expect((seen.uid(), seen.gid()) == (uid, gid), || {
            format!("{}:{}, not {uid}:{gid}", seen.uid(), seen.gid())
        })?;
    }
    // An ordinary user may not.
    chown(&path, Some(0), Some(0)).context(|| "chown back".into())?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).context(|| "chmod".into())?;
    expect_errno(sys::as_user(1000, || File::open(&path)), &[libc::EACCES], "reading another user's file")?;
    expect_errno(
        sys::as_user(1000, || fs::set_permissions(&path, Permissions::from_mode(0o777))),
        &[libc::EPERM],
        "changing the mode of another user's file",
    )?;
    fs::set_permissions(dir, Permissions::from_mode(0o777)).context(|| "chmod".into())?;
    let mine = dir.join("mine");
    sys::as_user(1000, || fs::write(&mine, b"x")).context(|| "a user creates a file".into())?;
    expect(meta(&mine)?.uid() == 1000, || {
        format!("the file belongs to {}", meta(&mine).map_or(0, |m| m.uid()))
    })
}

fn times(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, b"")?;
    // NFSv3 counts seconds in 32 bits without a sign, so it ends in 2106.
    set_and_compare_times(
        &path,
        &[((1, 1), (2, 999_999_999)), ((4_000_000_000, 123_456_789), (3_900_000_000, 987_654_321))],
    )
}

fn distant_times(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, b"")?;
    set_and_compare_times(
        &path,
        &[((5_000_000_000, 1), (9_999_999_999, 999_999_999)), ((-1_000_000, 5), (-1, 999_999_999))],
    )
}

fn set_and_compare_times(path: &Path, times: &[(Time, Time)]) -> Result<(), String> {
    for &(atime, mtime) in times {
        sys::set_times(path, atime, mtime).context(|| "utimensat".into())?;
        super::drop_caches()?;
        let seen = meta(path)?;
        let got = ((seen.atime(), seen.atime_nsec()), (seen.mtime(), seen.mtime_nsec()));
        expect(got == (atime, mtime), || format!("{got:?}, not {:?}", (atime, mtime)))?;
    }
    Ok(())
}

fn changing_times(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, b"1")?;
    let stamp = |path: &Path| meta(path).map(|m| ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())));
    let (dir_before, before) = (stamp(dir)?, stamp(&path)?);
    thread::sleep(std::time::Duration::from_millis(30));
    fs::set_permissions(&path, Permissions::from_mode(0o611)).context(|| "chmod".into())?;
    super::drop_caches()?;
    let after = stamp(&path)?;
    expect(after.0 == before.0 && after.1 > before.1, || format!("chmod: {before:?} became {after:?}"))?;
    thread::sleep(std::time::Duration::from_millis(30));
    put(&path, b"22")?;
    put(&dir.join("g"), b"")?;
    super::drop_caches()?;
    let (dir_after, last) = (stamp(dir)?, stamp(&path)?);
    expect(last.0 > after.0, || format!("write: {after:?} became {last:?}"))?;
    expect(dir_after.0 > dir_before.0, || {
        format!("create in a directory: {dir_before:?} became {dir_after:?}")
    })
}

fn exclusive_create(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
    create().context(|| "the first O_EXCL".into())?;
    expect_errno(create(), &[libc::EEXIST], "the second O_EXCL")?;
    super::drop_caches()?;
    let seen = meta(&path)?;
    expect(seen.mode() & 0o7777 == 0o640, || format!("mode {:o}", seen.mode()))?;
    // Servers may keep the exclusive verifier in the times; then the client must have set them right.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    expect((now - seen.mtime()).abs() < 3600, || format!("mtime {} at {now}", seen.mtime()))
}

fn append_by_two(dir: &Path) -> Result<(), String> {
    let path = dir.join("log");
    put(&path, b"")?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || -> io::Result<()> {
                    let mut file = OpenOptions::new().append(true).open(path)?;
                    for line in 0..200 {
                        file.write_all(format!("{writer} {line:03}\n").as_bytes())?;
                    }
                    file.sync_all()
                })
            })
            .collect();
        writers.into_iter().try_for_each(|w| {
            w.join().map_err(|_| "a writer panicked".to_owned())?.context(|| "append".into())
        })
    })?;
    super::drop_caches()?;
    let text = fs::read_to_string(&path).context(|| "read".into())?;
    for writer in 0..2 {
        let own: Vec<&str> = text.lines().filter(|l| l.starts_with(&format!("{writer} "))).collect();
        let expected: Vec<String> = (0..200).map(|line| format!("{writer} {line:03}")).collect();
        expect(own == expected, || format!("writer {writer}: {} lines of 200", own.len()))?;
    }
    expect(text.lines().count() == 400, || format!("{} lines", text.lines().count()))
}

fn long_names(dir: &Path) -> Result<(), String> {
    let longest = "n".repeat(255);
    put(&dir.join(&longest), b"long")?;
    super::drop_caches()?;
    content_is(&dir.join(&longest), b"long")?;
    expect_errno(File::create(dir.join("n".repeat(256))), &[libc::ENAMETOOLONG], "a name of 256 bytes")?;
    use std::os::unix::ffi::OsStrExt;
    for odd in ["with space", "new\nline", "umlaut-äöü", "...", "-rf", "\\", "*"] {
        put(&dir.join(odd), odd.as_bytes())?;
    }
    let latin = dir.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xe4"));
    if let Err(error) = fs::write(&latin, b"x") {
        // A server may insist on UTF-8, and says so with NFS4ERR_INVAL or NFS4ERR_BADCHAR.
        expect_errno::<()>(Err(error), &[libc::EINVAL, libc::EILSEQ], "a name that is not UTF-8")?;
    }
    super::drop_caches()?;
    for odd in ["with space", "new\nline", "umlaut-äöü", "...", "-rf", "\\", "*"] {
        content_is(&dir.join(odd), odd.as_bytes())?;
    }
    Ok(())
}

fn deep(dir: &Path) -> Result<(), String> {
    let mut path = dir.to_path_buf();
    for level in 0..60 {
        path.push(format!("level{level}"));
        fs::create_dir(&path).context(|| format!("mkdir at level {level}"))?;
    }
    put(&path.join("bottom"), b"deep")?;
    super::drop_caches()?;
    content_is(&path.join("bottom"), b"deep")?;
    fs::remove_dir_all(dir.join("level0")).context(|| "remove all".into())
}

fn refusals(dir: &Path) -> Result<(), String> {
    put(&dir.join("f"), b"")?;
    fs::create_dir(dir.join("d")).context(|| "mkdir".into())?;
    put(&dir.join("d/x"), b"")?;
    expect_errno(
        fs::remove_dir(dir.join("d")),
        &[libc::ENOTEMPTY, libc::EEXIST],
        "rmdir of a full directory",
    )?;
    expect_errno(fs::remove_dir(dir.join("f")), &[libc::ENOTDIR], "rmdir of a file")?;
    expect_errno(fs::create_dir(dir.join("d")), &[libc::EEXIST], "mkdir of what exists")?;
    expect_errno(fs::remove_file(dir.join("none")), &[libc::ENOENT], "unlink of nothing")?;
    expect_errno(File::open(dir.join("f/x")), &[libc::ENOTDIR], "a path through a file")?;
    expect_errno(fs::rename(dir.join("none"), dir.join("y")), &[libc::ENOENT], "rename of nothing")?;
    expect_errno(fs::hard_link(dir.join("f"), dir.join("d")), &[libc::EEXIST], "a link over a directory")?;
    let name = CString::new("user.test").map_err(|e| e.to_string())?;
    // Extended attributes may be served or not, but nothing in between.
    match sys::set_xattr(&dir.join("f"), &name, b"value") {
        Ok(()) => {
            let seen = sys::get_xattr(&dir.join("f"), &name).context(|| "getxattr".into())?;
            compare("an extended attribute", &seen, b"value")
        }
        other => expect_errno(other, &[libc::EOPNOTSUPP], "an extended attribute"),
    }
}

fn mapped(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let file = read_write(&path)?;
    let len = 1 << 20;
    file.set_len(len as u64).context(|| "truncate".into())?;
    let mut expected = vec![0; len];
    let mut mapping = sys::Mapping::new(&file, len).context(|| "mmap".into())?;
    let mut rng = Rng::new(4);
    for _ in 0..50 {
        let bytes = rng.bytes(3000);
        let at = rng.below((len - bytes.len()) as u64) as usize;
        mapping.store(at, &bytes);
        expected[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    mapping.sync().context(|| "msync".into())?;
    drop(mapping);
    drop(file);
    super::drop_caches()?;
    content_is(&path, &expected)
}

fn readdir_while_removing(dir: &Path) -> Result<(), String> {
    for index in 0..500 {
        put(&dir.join(format!("f{index}")), b"")?;
    }
    super::drop_caches()?;
    // As `rm -r` does it: remove each entry while the listing goes on.
    let mut removed = 0;
    for entry in fs::read_dir(dir).context(|| "readdir".into())? {
        let entry = entry.context(|| "readdir".into())?;
        fs::remove_file(entry.path()).context(|| format!("unlink {}", entry.path().display()))?;
        removed += 1;
    }
    let left = fs::read_dir(dir).context(|| "readdir".into())?.count();
    expect(removed == 500 && left == 0, || format!("{removed} removed, {left} left"))
}

fn overlapping(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let mut file = read_write(&path)?;
    let mut expected = Vec::new();
    let mut rng = Rng::new(5);
    for _ in 0..200 {
        let at = rng.below(300_000) as usize;
        let len = rng.below(20_000) as usize;
        let bytes = rng.bytes(len);
        file.seek(SeekFrom::Start(at as u64)).context(|| "seek".into())?;
        file.write_all(&bytes).context(|| "write".into())?;
        if !bytes.is_empty() {
            let end = expected.len().max(at + bytes.len());
            expected.resize(end, 0);
            expected[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        if rng.one_in(20) {
            file.sync_data().context(|| "fdatasync".into())?;
        }
    }
    file.sync_all().context(|| "fsync".into())?;
    drop(file);
    super::drop_caches()?;
    content_is(&path, &expected)
}

fn whole_file_locks(dir: &Path) -> Result<(), String> {
    let (a, b) = (read_write(&dir.join("f"))?, read_write(&dir.join("f"))?);
    sys::flock(&a, libc::LOCK_EX | libc::LOCK_NB).context(|| "LOCK_EX".into())?;
    expect_errno(sys::flock(&b, libc::LOCK_SH | libc::LOCK_NB), &[libc::EAGAIN], "a second lock")?;
    sys::flock(&a, libc::LOCK_UN).context(|| "LOCK_UN".into())?;
    sys::flock(&b, libc::LOCK_SH | libc::LOCK_NB).context(|| "LOCK_SH".into())?;
    sys::flock(&a, libc::LOCK_SH | libc::LOCK_NB).context(|| "a shared lock beside a shared lock".into())?;
    drop(b);
    sys::flock(&a, libc::LOCK_EX | libc::LOCK_NB).context(|| "upgrade after the other closed".into())
}

fn record_locks(dir: &Path) -> Result<(), String> {
    let (a, b) = (read_write(&dir.join("f"))?, read_write(&dir.join("f"))?);
    let try_lock = |file: &File, kind, start, len| sys::record_lock(file, kind, start, len);
    try_lock(&a, libc::F_WRLCK, 0, 100).context(|| "lock 0..100".into())?;
    expect_errno(
        try_lock(&b, libc::F_RDLCK, 50, 10),
        &[libc::EAGAIN, libc::EACCES],
        "a lock inside another",
    )?;
    try_lock(&b, libc::F_WRLCK, 100, 50).context(|| "lock 100..150".into())?;
    try_lock(&a, libc::F_UNLCK, 40, 20).context(|| "unlock 40..60, a split".into())?;
    try_lock(&b, libc::F_WRLCK, 45, 10).context(|| "lock in the gap".into())?;
    expect_errno(try_lock(&b, libc::F_WRLCK, 30, 5), &[libc::EAGAIN, libc::EACCES], "the lower half")?;
    try_lock(&a, libc::F_UNLCK, 0, 0).context(|| "unlock all".into())?;
    try_lock(&b, libc::F_WRLCK, 0, 0).context(|| "lock to the end of time".into())
}

/// What one has let go of, by unlocking or by closing, another gets at once.
fn locks_change_hands(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, &[0; 8])?;
    for round in 0..150u64 {
        let (a, b) = (read_write(&path)?, read_write(&path)?);
        let said = |what: &str| format!("round {round}: {what}");
        sys::record_lock(&a, libc::F_RDLCK, 0, 510).context(|| said("a shared"))?;
        sys::record_lock(&a, libc::F_WRLCK, 0, 510).context(|| said("a upgraded"))?;
        // The holder of the lock sees what the one before it wrote.
        let mut seen = [0; 8];
        a.read_exact_at(&mut seen, 0).context(|| said("a reads"))?;
        compare("what the last holder wrote", &seen, &(round * 2).to_le_bytes()).map_err(|e| said(&e))?;
        a.write_all_at(&(round * 2 + 1).to_le_bytes(), 0).context(|| said("a writes"))?;
        expect_errno(
            sys::record_lock(&b, libc::F_RDLCK, 5, 1),
            &[libc::EAGAIN, libc::EACCES],
            &said("b beside a"),
        )?;
        match round % 3 {
            0 => sys::record_lock(&a, libc::F_UNLCK, 0, 0).context(|| said("a unlocks"))?,
            1 => sys::record_lock(&a, libc::F_UNLCK, 0, 510).context(|| said("a unlocks its range"))?,
            _ => sys::close(a).context(|| said("a closes"))?,
        }
        sys::record_lock(&b, libc::F_RDLCK, 0, 510).context(|| said("b shared, after a let go"))?;
        sys::record_lock(&b, libc::F_WRLCK, 0, 510).context(|| said("b upgraded"))?;
        b.read_exact_at(&mut seen, 0).context(|| said("b reads"))?;
        compare("what the last holder wrote", &seen, &(round * 2 + 1).to_le_bytes()).map_err(|e| said(&e))?;
        b.write_all_at(&(round * 2 + 2).to_le_bytes(), 0).context(|| said("b writes"))?;
        sys::close(b).context(|| said("b closes"))?;
    }
    Ok(())
}

fn seek_holes(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    let file = read_write(&path)?;
    file.set_len(64 << 20).context(|| "truncate".into())?;
    file.write_all_at(&[7; 1 << 20], 16 << 20).context(|| "write".into())?;
    file.sync_all().context(|| "fsync".into())?;
    let seek = |at, data| sys::seek_data_or_hole(&file, at, data).context(|| "seek".into());
    let data = seek(0, true)?;
    expect(data.is_some_and(|at| at <= 16 << 20 && at > 0), || format!("data from 0: {data:?}"))?;
    let hole = seek(16 << 20, false)?;
    expect(hole.is_some_and(|at| (17 << 20..64 << 20).contains(&at)), || {
        format!("hole from 16 MiB: {hole:?}")
    })?;
    let none = seek(40 << 20, true)?;
    expect(none.is_none(), || format!("data after the last: {none:?}"))
}

fn allocate(dir: &Path) -> Result<(), String> {
    let path = dir.join("f");
    put(&path, &[9; 300_000])?;
    let file = read_write(&path)?;
    match sys::fallocate(&file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 5000, 200_000) {
        Ok(()) => {
            let mut expected = vec![9; 300_000];
            expected[5000..205_000].fill(0);
            super::drop_caches()?;
            content_is(&path, &expected)?;
            match sys::fallocate(&file, 0, 0, 1 << 20) {
                Ok(()) => expect(meta(&path)?.len() == 1 << 20, || "fallocate does not grow the file".into()),
                other => expect_errno(other, &[libc::EOPNOTSUPP], "fallocate"),
            }
        }
        other => expect_errno(other, &[libc::EOPNOTSUPP], "punching a hole"),
    }
}
