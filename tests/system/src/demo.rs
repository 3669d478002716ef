//! The demonstration of `make run`, for machines without an NFS client of their own, and without root.
//!
//! A data plane of its own, with small drives in a directory that is thrown away afterwards: losing a drive and
//! being killed is not for a pool that somebody keeps data in.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::server::{BasaltServer, Binaries, Server};
use crate::uml::{Guest, GuestConfig, NfsVersion};

const LIMIT: Duration = Duration::from_secs(300);
const MOUNT: &str = "/mnt/basalt";

/// What to show.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The programs.
    pub binaries: Binaries,
    /// A directory for drives and logs; made, and removed if all went well.
    pub dir: PathBuf,
    /// The tree that is copied.
    pub tree: PathBuf,
    /// Size of each of the six sparse drive files.
    pub drive_size: String,
}

/// Shows it; the error says what went wrong.
pub fn run(demo: &Demo) -> Result<(), String> {
    let started = Instant::now();
    let _ = fs::remove_dir_all(&demo.dir);
    fs::create_dir_all(&demo.dir).map_err(|e| format!("{}: {e}", demo.dir.display()))?;
    let dir = demo.dir.canonicalize().map_err(|e| e.to_string())?;
    let tree = demo.tree.canonicalize().map_err(|e| format!("{}: {e}", demo.tree.display()))?;

    step("Six drives, one pool of 4+2, one file system, one export");
    let mut server = BasaltServer::new(demo.binaries.clone(), dir.join("data"), dir.join("dataplane.log"))?;
    server.set("BASALT_DRIVE_SIZE", &demo.drive_size);
    let took = server.start()?;
    done(&format!("serving {} on port {} after {:.1} s", server.export(), server.port(), took.as_secs_f64()));

    step("A Linux kernel boots beside it, in user space, and mounts with its own NFS client");
    let before = Instant::now();
    let mut guest = Guest::boot(&GuestConfig {
        server_port: server.port(),
        mount_port: server.mount_port(),
        log_dir: dir.clone(),
        name: "guest".into(),
    })
    .map_err(|e| e.to_string())?;
    guest.mount(NfsVersion::V42, &server.export(), MOUNT)?;
    let release = guest.shell("uname -sr", LIMIT)?;
    done(&format!(
        "{} mounted it with NFS 4.2 after {:.1} s",
        release.trim(),
        before.elapsed().as_secs_f64()
    ));

    step(&format!(
        "{} is copied in; meanwhile the data plane is killed (SIGKILL) and one drive removed",
        tree.display()
    ));
    let copy = guest.start(crate::guest::protocol::Operation::Shell { script: copy_script(&tree) })?;
    let mut outcome = guest.poll(copy, Duration::from_secs(2))?;
    server.kill();
    let removed = remove_drive(&server)?;
    let took = server.start()?;
    if outcome.is_none() {
        outcome = Some(guest.finish(copy, LIMIT));
    }
    let copied = outcome.unwrap_or_else(|| Err("the copy never ended".into()))?;
    done(&format!(
        "{removed} is gone, the data plane was back in {:.2} s, copied: {}",
        took.as_secs_f64(),
        copied.trim()
    ));

    step("The tree is compared with what the server kept, byte by byte");
    compare(&mut guest, &tree)?;
    done("equal");

    step("The data plane is killed once more, and the tree compared again, through NFS 3");
    server.kill();
    let took = server.start()?;
    guest.unmount(MOUNT)?;
    guest.mount(NfsVersion::V3, &server.export(), MOUNT)?;
    compare(&mut guest, &tree)?;
    done(&format!("back in {:.2} s, and equal", took.as_secs_f64()));

    guest.unmount(MOUNT)?;
    drop(guest);
    server.stop()?;
    drop(server);
    let _ = fs::remove_dir_all(&dir);
    println!(
        "Nothing was lost: one drive of six gone, two kills, every file as it was ({:.0} s).",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn step(what: &str) {
    print!("* {what} ... ");
    let _ = std::io::stdout().flush();
}

fn done(what: &str) {
    println!("\n    {what}");
}

/// What is left out of a source tree: what builds leave, and data of a pool.
const LEFT_OUT: &str = "--exclude=target --exclude=.git --exclude=var";

fn copy_script(tree: &Path) -> String {
    format!(
        "mkdir {MOUNT}/tree; tar cf - -C '{}' {LEFT_OUT} . | tar xf - --no-same-owner -C {MOUNT}/tree; sync
         echo $(find {MOUNT}/tree -type f | wc -l) files, $(du -sm {MOUNT}/tree | cut -f1) MiB",
        tree.display()
    )
}

fn compare(guest: &mut Guest, tree: &Path) -> Result<(), String> {
    guest.drop_caches()?;
    guest
        .shell(&format!("diff -r {LEFT_OUT} --no-dereference '{}' {MOUNT}/tree", tree.display()), LIMIT)
        .map(drop)
        .map_err(|e| format!("the copy differs from the tree:\n{e}"))
}

fn remove_drive(server: &BasaltServer) -> Result<String, String> {
    let drives = server.drives()?;
    let drive = drives.get(2).ok_or("there are fewer than three drives")?;
    fs::remove_file(drive).map_err(|e| format!("{}: {e}", drive.display()))?;
    Ok(drive.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
