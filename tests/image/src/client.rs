//! A real Linux NFS client (User-Mode Linux, as in the whole-system tests) that mounts the node, writes and verifies.

use crate::lan::Lan;
use crate::work::Scratch;
use basalt_system::uml::{Guest, GuestConfig, NfsVersion};
use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

const MOUNT: &str = "/mnt/basalt";
const LIMIT: Duration = Duration::from_secs(240);

/// Files of many sizes, and their digests beside them; 24 MiB in all.
const WRITE: &str = "set -e; mkdir -p D; cd D;
    for n in $(seq 1 40); do head -c $((n * n * 500)) /dev/urandom >small-$n; done
    head -c 12000000 /dev/urandom >large; mkdir -p deep/er; ln large deep/er/hard; ln -s ../small-1 deep/soft
    find . -type f ! -name digests | sort | xargs sha256sum >digests; sync; wc -l <digests";
const VERIFY: &str = "set -e; cd D; sha256sum --quiet --check digests; [ deep/er/hard -ef large ]; readlink deep/soft; wc -l <digests";

pub(crate) enum Work {
    Write,
    Verify,
}

/// Does it in directory `name` of the export, through the kernel's client with NFS 4.2.
pub(crate) fn through_kernel(
    lan: &Lan,
    node: &str,
    scratch: &Scratch,
    work: &[(Work, &str)],
) -> Result<(), String> {
    // The guest's relay reaches loopback ports; this one leads on into the node's network.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                match listener.accept() {
                    Ok((near, _)) => match lan.connect(node, 20490) {
                        Ok(far) => relay(near, far),
                        Err(e) => eprintln!("relay: {e}"),
                    },
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        let result = in_guest(port, scratch, work);
        drop(stop);
        result
    })
}

fn relay(near: TcpStream, far: TcpStream) {
    let _ = near.set_nonblocking(false);
    let pairs = [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))];
    for (from, to) in pairs {
        let (Ok(mut from), Ok(mut to)) = (from, to) else { return };
        std::thread::spawn(move || {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}

fn in_guest(port: u16, scratch: &Scratch, work: &[(Work, &str)]) -> Result<(), String> {
    let config = GuestConfig {
        server_port: port,
        mount_port: port,
        log_dir: scratch.dir.clone(),
        name: "client".into(),
    };
    let mut guest = Guest::boot(&config).map_err(|e| e.to_string())?;
    guest.mount(NfsVersion::V42, "/data", MOUNT)?;
    for (work, name) in work {
        let (script, what) = match work {
            Work::Write => (WRITE, "writing"),
            Work::Verify => (VERIFY, "verifying"),
        };
        guest.drop_caches()?;
        let done = guest.shell(&script.replace("D;", &format!("{MOUNT}/{name};")), LIMIT);
        let lines = done.map_err(|e| format!("{what} {name}: {e}"))?;
        if lines.trim().lines().last() != Some("42") {
            return Err(format!("{what} {name}: {lines:?}, wanted 42 files"));
        }
    }
    guest.unmount(MOUNT)
}
