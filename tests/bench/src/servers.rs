//! The two servers, on the same disk: Basalt with file-backed drives, nfs-ganesha with a directory of ext4.

use crate::Environment;
use crate::row::Report;
use basalt_system::server::{BasaltServer, Binaries, GaneshaServer, Server};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const PEER: &str = "nfs-ganesha, VFS on ext4";

/// Ours, and the peer if it is there.
pub(crate) struct Servers {
    pub(crate) ours: BasaltServer,
    pub(crate) peer: Option<GaneshaServer>,
    /// Ganesha registers with it and does not start without.
    _rpcbind: Option<Running>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Servers {
    pub(crate) fn start(
        environment: &Environment,
        report: &mut Report,
        name: &str,
    ) -> Result<Servers, String> {
        let dir = environment.work_dir.join(name);
        let log = environment.log_dir.join(format!("{name}.dataplane.log"));
        let _ = std::fs::remove_file(&log);
        let mut ours = BasaltServer::new(Binaries::beside_this_one()?, dir.join("basalt"), log)?;
        ours.start()?;
        let (peer, rpcbind) = match start_ganesha(dir.join("ganesha")) {
            Ok((peer, rpcbind)) => (Some(peer), rpcbind),
            Err(why) => {
                report.skipped("nfs-ganesha", &why);
                (None, None)
            }
        };
        Ok(Servers { ours, peer, _rpcbind: rpcbind })
    }
}

fn start_ganesha(dir: PathBuf) -> Result<(GaneshaServer, Option<Running>), String> {
    let found = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/sbin", "/usr/local/bin"]
            .iter()
            .map(|dir| PathBuf::from(dir).join(name))
            .find(|path| path.is_file())
    };
    if found("ganesha.nfsd").is_none() {
        return Err("not installed (apt-get install nfs-ganesha nfs-ganesha-vfs)".into());
    }
    if basalt_system::sys::effective_ids().0 != 0 {
        return Err("it needs root".into());
    }
    let mut rpcbind = None;
    if TcpStream::connect(("127.0.0.1", 111)).is_err() {
        let program = found("rpcbind").ok_or("it needs rpcbind (apt-get install rpcbind)")?;
        let child = Command::new(program)
            // It binds 127.0.0.1 besides whatever is named here, and Debian 12's crashes when that is named itself.
            .args(["-f", "-h", "127.0.0.2"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("rpcbind: {e}"))?;
        rpcbind = Some(Running(child));
        for _ in 0..60 {
            std::thread::sleep(Duration::from_millis(50));
            if TcpStream::connect(("127.0.0.1", 111)).is_ok() {
                break;
            }
        }
    }
    let mut server = GaneshaServer::new(dir)?;
    server.start()?;
    Ok((server, rpcbind))
}
