//! The inside of the guest: this executable as process 1 of the User-Mode Linux kernel.
//!
//! It brings the machine up (`init`), connects to the harness and does what it is told ([`protocol`]). What is
//! heavy runs inside this one process, because fork and exec are slow in User-Mode Linux.

pub mod bench;
pub mod chaos;
mod files;
mod init;
mod model;
mod posix;
pub mod protocol;

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::sys;
use crate::uml::{CONTROL_PORT, GUEST_ADDRESS, GUEST_NFS_PORT, HOST_ADDRESS, NfsVersion};
use protocol::{Operation, Outcome, Request};

/// First argument that turns this executable into the guest's init.
pub(crate) const GUEST_ARGUMENT: &str = "__uml-guest";

/// Runs as process 1 of the guest; never returns.
pub(crate) fn main() -> ! {
    if let Err(error) = init::bring_up().and_then(|()| serve()) {
        eprintln!("guest: {error}");
    }
    sys::power_off()
}

fn serve() -> io::Result<()> {
    let stream = connect()?;
    stream.set_nodelay(true)?;
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    for line in BufReader::new(stream).lines() {
        let request: Request = serde_json::from_str(&line?).map_err(io::Error::other)?;
        let writer = Arc::clone(&writer);
        thread::spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| perform(request.operation)))
                .unwrap_or_else(|_| Err("the guest's program panicked; see its console".into()));
            let (ok, text) = match result {
                Ok(text) => (true, text),
                Err(text) => (false, text),
            };
            let outcome = Outcome { id: request.id, ok, text };
            let mut line = serde_json::to_string(&outcome).expect("an outcome is plain text");
            line.push('\n');
            let _ = writer.lock().expect("no writer panics").write_all(line.as_bytes());
        });
    }
    Ok(())
}

fn connect() -> io::Result<TcpStream> {
    let mut last = io::Error::other("never tried");
    for _ in 0..100 {
        match TcpStream::connect((HOST_ADDRESS, CONTROL_PORT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::new(last.kind(), format!("the harness does not answer: {last}")))
}

/// Says which call on which path failed: every check's error goes through this.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, String>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, String> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}

fn perform(operation: Operation) -> Result<String, String> {
    match operation {
        Operation::Mount { version, export, target, extra, mount_port } => {
            mount(version, &export, &target, &extra, mount_port)
        }
        Operation::Unmount { target } => {
            sys::umount(Path::new(&target), 0).context(|| format!("umount {target}"))?;
            Ok(String::new())
        }
        Operation::DropCaches => drop_caches(),
        Operation::Shell { script } => shell(&script),
        Operation::Posix { dir, version } => posix::run(Path::new(&dir), version),
        Operation::ManyFiles { dir, count } => files::many(Path::new(&dir), count),
        Operation::WriteSeeded { path, len_bytes, seed } => {
            files::write_seeded(Path::new(&path), len_bytes, seed)
        }
        Operation::VerifySeeded { path, len_bytes, seed } => {
            files::verify_seeded(Path::new(&path), len_bytes, seed)
        }
        Operation::FillUp { dir } => files::fill_up(Path::new(&dir)),
        Operation::Load { dir, seconds } => files::load(Path::new(&dir), Duration::from_secs(seconds)),
        Operation::FsSize { path } => {
            let size = sys::fs_size(Path::new(&path)).context(|| format!("statvfs {path}"))?;
            Ok(format!("{} {}", size.total_bytes - size.free_bytes, size.total_bytes))
        }
        Operation::Chaos(plan) => chaos::run(&plan),
        Operation::Bench(plan) => bench::run(&plan),
        Operation::PowerOff => sys::power_off(),
    }
}

/// What the kernel client is told; `hard` is what the promises are about.
fn mount(
    version: NfsVersion,
    export: &str,
    target: &str,
    extra: &str,
    mount_port: u16,
) -> Result<String, String> {
    std::fs::create_dir_all(target).context(|| format!("mkdir {target}"))?;
    let options = match version {
        NfsVersion::V3 => format!(
            "vers=3,proto=tcp,port={GUEST_NFS_PORT},mountproto=tcp,mountport={mount_port},mountaddr={HOST_ADDRESS},nolock"
        ),
        NfsVersion::V41 => format!("vers=4.1,proto=tcp,port={GUEST_NFS_PORT},clientaddr={GUEST_ADDRESS}"),
        NfsVersion::V42 => format!("vers=4.2,proto=tcp,port={GUEST_NFS_PORT},clientaddr={GUEST_ADDRESS}"),
    };
    let data = format!("{options},addr={HOST_ADDRESS},hard,timeo=100,retrans=3{extra}");
    sys::mount(&format!("{HOST_ADDRESS}:{export}"), Path::new(target), "nfs", 0, &data)
        .context(|| format!("mount -t nfs -o {data} {HOST_ADDRESS}:{export} {target}"))?;
    Ok(data)
}

pub(crate) fn drop_caches() -> Result<String, String> {
    sys::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context(|| "drop_caches".into())?;
    Ok(String::new())
}

fn shell(script: &str) -> Result<String, String> {
    let output = Command::new("/bin/sh")
        .args(["-ec", &format!("exec 2>&1; {script}")])
        .stdin(Stdio::null())
        .output()
        .context(|| "start /bin/sh".into())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}\n{text}", output.status)) }
}
