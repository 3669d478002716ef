//! What people do with a mounted file system.

use std::time::Duration;

use super::{Fixture, Verdict};
use crate::guest::protocol::Operation;
use crate::uml::NfsVersion;

/// How long one test's part in the guest may take.
const LIMIT: Duration = Duration::from_secs(180);

/// A source tree that every machine with the tests has: a few thousand small files in many directories.
const TREE: &str = "/usr/lib/uml/modules /usr/share/zoneinfo /usr/share/perl";

/// Mounts all versions; the second mount of each must work as well as the first.
pub(super) fn mounts(fixture: &mut Fixture) -> Verdict {
    let (server, guest) = fixture.both()?;
    let export = server.export();
    for _ in 0..2 {
        for version in [NfsVersion::V42, NfsVersion::V41, NfsVersion::V3] {
            let target = format!("/mnt/try-{}", version.name());
            guest.mount(version, &export, &target)?;
            guest.shell(&format!("ls -la {target} > /dev/null; grep {target} /proc/mounts"), LIMIT)?;
            guest.unmount(&target)?;
        }
    }
    // The pseudo-root shows the way to the export.
    guest.mount(NfsVersion::V42, "/", "/mnt/root")?;
    guest.shell(&format!("ls -d /mnt/root{export} && ls /mnt/root{export} > /dev/null"), LIMIT)?;
    guest.shell(&format!("umount /mnt/root{export} 2>/dev/null || true"), LIMIT)?;
    guest.unmount("/mnt/root")?;
    let missing = guest.mount(NfsVersion::V42, "/no-such-export", "/mnt/none");
    match missing {
        Err(error) if error.contains("No such file") => Ok(String::new()),
        other => Err(format!("mounting what is not exported: {other:?}")),
    }
}

pub(super) fn posix(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = fixture.directory(version, "posix")?;
    fixture.guest()?.call(Operation::Posix { dir, version }, LIMIT)
}

/// Prints a checksum over names, kinds, modes, owners, times and contents of a tree.
fn digest(dir: &str) -> String {
    format!(
        "(cd '{dir}' && find . -mindepth 1 -type f -printf '%p %m %s %T@\\n' | sort && find . -type l -printf '%p %l\\n' | sort \
         && find . -type d -printf '%p %m\\n' | sort && find . -type f -print0 | sort -z | xargs -0 cat | cksum) | cksum"
    )
}

/// The first of the trees that is there, copied into the guest's memory so that owners and times are plain.
fn source_tree(fixture: &mut Fixture) -> Result<String, String> {
    let tree = "/run/tree";
    let script = format!(
        "[ -d {tree} ] && exit 0; mkdir {tree}; for d in {TREE} /usr/include; do [ -d $d ] || continue; \
         (cd $d && find . -type f -size -200k | head -n 300 | tar cf - -T -) | tar xf - -C {tree}; done; \
         ln -s $(cd {tree}; find . -type f | head -n 1) {tree}/link; chmod 640 $(find {tree} -type f | head -n 5)"
    );
    fixture.guest()?.shell(&script, LIMIT)?;
    Ok(tree.into())
}

pub(super) fn tar(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = fixture.directory(version, "tar")?;
    let tree = source_tree(fixture)?;
    let guest = fixture.guest()?;
    guest.shell(&format!("tar cf - -C {tree} . | tar xpf - -C {dir}"), LIMIT)?;
    guest.drop_caches()?;
    let (there, here) = (guest.shell(&digest(&tree), LIMIT)?, guest.shell(&digest(&dir), LIMIT)?);
    if there != here {
        let diff = guest.shell(&format!("diff -r {tree} {dir} | head -n 20 || true"), LIMIT)?;
        return Err(format!("the unpacked tree differs: {there} {here}\n{diff}"));
    }
    // And out again, through an archive on the mount itself.
    guest.shell(
        &format!("tar cf {dir}.tar -C {dir} . && mkdir /run/out && tar xpf {dir}.tar -C /run/out && diff -r {tree} /run/out"),
        LIMIT,
    )?;
    guest
        .shell(&format!("rm -rf /run/out {dir} {dir}.tar && find {tree} -type f | wc -l"), LIMIT)
        .map(|n| format!("{} files", n.trim()))
}

pub(super) fn rsync(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = fixture.directory(version, "rsync")?;
    let tree = source_tree(fixture)?;
    // ganesha does not set the times of symlinks.
    let flags = if fixture.server()?.as_basalt().is_some() { "-aH" } else { "-aHJ" };
    let guest = fixture.guest()?;
    guest.shell(&format!("rsync {flags} {tree}/ {dir}/"), LIMIT)?;
    guest.drop_caches()?;
    // A second run finds nothing to do: sizes, times, modes and owners came back as they were set.
    let again = guest.shell(&format!("rsync {flags}i {tree}/ {dir}/"), LIMIT)?;
    if !again.trim().is_empty() {
        return Err(format!("the second run still found differences:\n{again}"));
    }
    let by_content = guest.shell(&format!("rsync {flags}ic --delete {tree}/ {dir}/"), LIMIT)?;
    if !by_content.trim().is_empty() {
        return Err(format!("the contents differ:\n{by_content}"));
    }
    guest.shell(&format!("rm -rf {dir}"), LIMIT).map(|_| String::new())
}

pub(super) fn git(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = fixture.directory(version, "git")?;
    let tree = source_tree(fixture)?;
    let guest = fixture.guest()?;
    guest.shell(
        &format!(
            "export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
             [ -d /run/repository ] || (git init -q /run/repository && cd /run/repository && cp -r {tree}/. . &&
                git add -A && git commit -qm one && date > a-file && git add -A && git commit -qm two)
             git clone -q --no-local /run/repository {dir}/clone && cd {dir}/clone
             git fsck --full --strict && [ -z \"$(git status --porcelain)\" ]
             git checkout -qb side && echo line >> a-file && git commit -qam three && git gc -q && git fsck --full
             git checkout -q main && git merge -q side && git log --oneline | wc -l"
        ),
        LIMIT,
    )?;
    guest.drop_caches()?;
    guest.shell(
        &format!("cd {dir}/clone && git fsck --full && [ -z \"$(git status --porcelain)\" ] && rm -rf {dir}"),
        LIMIT,
    )?;
    Ok(String::new())
}

pub(super) fn sqlite(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = fixture.directory(version, "sqlite")?;
    let guest = fixture.guest()?;
    // Without NLM there are no locks over v3, as at any mount with `nolock`: the client keeps them to itself.
    guest.shell(
        &format!(
            "cd {dir} && sqlite3 db 'create table t(id integer primary key, a text, b blob); create index i on t(a);'
             for n in 1 2 3 4 5; do sqlite3 db \"begin; with recursive c(x) as (select 1 union all select x+1 from c where x<400)
                insert into t(a,b) select 'row '||x||'-$n', randomblob(300) from c; commit;\"; done
             sqlite3 db 'begin; delete from t where id % 7 = 0; rollback; delete from t where id % 5 = 0;'
             sqlite3 db 'pragma journal_mode=truncate; update t set b = randomblob(900) where id % 3 = 0; vacuum;'
             sqlite3 db 'select a, length(b) from t order by id' | cksum > /run/before"
        ),
        LIMIT,
    )?;
    // Two writers at once take turns by way of fcntl locks.
    guest.shell(
        &format!(
            "cd {dir}; for w in 1 2; do (for n in $(seq 10); do
               sqlite3 -cmd '.timeout 60000' db \"insert into t(a) values('writer $w')\"; done) & done; wait
             [ $(sqlite3 db \"select count(*) from t where a like 'writer%'\") = 20 ]
             sqlite3 db \"delete from t where a like 'writer%'\""
        ),
        LIMIT,
    )?;
    guest.drop_caches()?;
    let check = guest.shell(
        &format!(
            "cd {dir} && sqlite3 db 'pragma integrity_check' 'select count(*) from t'
             sqlite3 db 'select a, length(b) from t order by id' | cksum | cmp - /run/before"
        ),
        LIMIT,
    )?;
    if check.trim() != "ok\n1600" {
        Err(format!("after dropping caches: {check}"))
    } else {
        Ok(String::new())
    }
}

pub(super) fn many_files(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let dir = format!("{}/many", fixture.mount(version)?);
    fixture.guest()?.call(Operation::ManyFiles { dir, count: 10_000 }, LIMIT)
}

const LARGE_BYTES: u64 = 256 << 20;

pub(super) fn large_file(fixture: &mut Fixture, version: NfsVersion) -> Verdict {
    let path = format!("{}/large", fixture.mount(version)?);
    let guest = fixture.guest()?;
    let write = Operation::WriteSeeded { path: path.clone(), len_bytes: LARGE_BYTES, seed: 11 };
    let verify = Operation::VerifySeeded { path: path.clone(), len_bytes: LARGE_BYTES, seed: 11 };
    let wrote = guest.call(write, LIMIT)?;
    guest.drop_caches()?;
    let read = guest.call(verify, LIMIT)?;
    guest.shell(&format!("rm {path}"), LIMIT)?;
    Ok(format!("written at {wrote}, read at {read}"))
}

/// What v4.2 writes v3 reads, and the other way round; inode numbers agree.
pub(super) fn across_versions(fixture: &mut Fixture) -> Verdict {
    let four = fixture.mount(NfsVersion::V42)?;
    let three = fixture.mount(NfsVersion::V3)?;
    let guest = fixture.guest()?;
    guest.shell(
        &format!(
            "echo from four > {four}/x4; echo from three > {three}/x3; sync; echo 3 > /proc/sys/vm/drop_caches
             [ \"$(cat {three}/x4)\" = 'from four' ]; [ \"$(cat {four}/x3)\" = 'from three' ]
             [ $(stat -c %i {four}/x4) = $(stat -c %i {three}/x4) ]; [ $(stat -c %d {four}) != $(stat -c %d {three}) ]
             mv {four}/x4 {four}/x5; rm {three}/x3; sleep 1; echo 3 > /proc/sys/vm/drop_caches
             [ \"$(cat {three}/x5)\" = 'from four' ]; ! [ -e {four}/x3 ]; rm {three}/x5"
        ),
        LIMIT,
    )?;
    Ok(String::new())
}

/// Bytes in use, from statvfs.
pub(super) fn used_bytes(fixture: &mut Fixture, path: &str) -> Result<u64, String> {
    let text = fixture.guest()?.call(Operation::FsSize { path: path.into() }, LIMIT)?;
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| format!("statvfs said {text:?}"))
}

/// Writing 200 MiB makes the used space grow by about that, and removing brings it back.
pub(super) fn df(fixture: &mut Fixture) -> Verdict {
    const WRITTEN: u64 = 200 << 20;
    let dir = fixture.mount(NfsVersion::V42)?;
    let path = format!("{dir}/df");
    let before = used_bytes(fixture, &dir)?;
    let guest = fixture.guest()?;
    guest.call(Operation::WriteSeeded { path: path.clone(), len_bytes: WRITTEN, seed: 12 }, LIMIT)?;
    let grown = used_bytes(fixture, &dir)?.saturating_sub(before);
    if grown.abs_diff(WRITTEN) > WRITTEN / 8 {
        return Err(format!("200 MiB written and df shows {} MiB more in use", grown >> 20));
    }
    fixture.guest()?.shell(&format!("rm {path}; sync"), LIMIT)?;
    // Freeing is background work; it has half a minute.
    let mut left = u64::MAX;
    for _ in 0..60 {
        left = used_bytes(fixture, &dir)?.saturating_sub(before);
        if left < WRITTEN / 8 {
            return Ok(format!("+{} MiB, then +{} MiB", grown >> 20, left >> 20));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(format!("30 s after the removal df still shows {} MiB more in use", left >> 20))
}

/// Several exports of several file systems, side by side under the pseudo-root.
pub(super) fn several_exports(fixture: &mut Fixture) -> Verdict {
    let server = fixture.basalt()?;
    server.cli(&["fs", "create", "second"])?;
    server.cli(&["export", "create", "/second", "--fs", "second"])?;
    server.cli(&["export", "create", "/deep/er/readonly", "--fs", "second", "--read-only"])?;
    let guest = fixture.guest()?;
    guest.mount(NfsVersion::V42, "/", "/mnt/all")?;
    guest.shell(
        "cd /mnt/all && ls -d data second deep/er/readonly && echo two > second/two && cat deep/er/readonly/two
         ! echo x > deep/er/readonly/x; ! [ -e data/two ]; [ $(stat -c %d data) != $(stat -c %d second) ]; ls /mnt/all",
        LIMIT,
    )?;
    guest.mount(NfsVersion::V3, "/second", "/mnt/second3")?;
    guest.shell("cat /mnt/second3/two; rm /mnt/second3/two", LIMIT)?;
    guest.unmount("/mnt/second3")?;
    Ok(String::new())
}
