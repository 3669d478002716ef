//! nfs-ganesha over a local directory: a counterpart known to be right, to test the tests with. Needs root.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Server, free_port};

/// A ganesha of our own.
pub struct GaneshaServer {
    dir: PathBuf,
    port: u16,
    mount_port: u16,
    child: Option<Child>,
}

impl GaneshaServer {
    /// Prepares one that keeps its data below `dir`.
    pub fn new(dir: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(dir.join("data")).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
        Ok(Self { dir, port: free_port()?, mount_port: free_port()?, child: None })
    }

    fn config(&self) -> String {
        format!(
            "NFS_CORE_PARAM {{ NFS_Port = {}; MNT_Port = {}; Rquota_Port = 0; Bind_addr = 127.0.0.1;\n\
               Enable_NLM = false; Enable_RQUOTA = false; Protocols = 3,4; mount_path_pseudo = true; }}\n\
             NFSv4 {{ Graceless = true; Lease_Lifetime = 20; Minor_Versions = 1,2; Only_Numeric_Owners = true;\n\
               RecoveryRoot = \"{dir}\"; }}\n\
             EXPORT {{ Export_Id = 1; Path = \"{dir}/data\"; Pseudo = /data; Access_Type = RW;\n\
               Squash = No_Root_Squash; SecType = sys; Protocols = 3,4; Transports = TCP;\n\
               PrivilegedPort = false; FSAL {{ Name = VFS; }} }}\n\
             LOG {{ Default_Log_Level = EVENT; }}\n",
            self.port,
            self.mount_port,
            dir = self.dir.display()
        )
    }
}

impl Server for GaneshaServer {
    fn start(&mut self) -> Result<Duration, String> {
        let started = Instant::now();
        let config = self.dir.join("ganesha.conf");
        fs::write(&config, self.config()).map_err(|e| e.to_string())?;
        let output = File::create(self.dir.join("ganesha.out")).map_err(|e| e.to_string())?;
        let child = Command::new("ganesha.nfsd")
            .args(["-F", "-f"])
            .arg(&config)
            .arg("-L")
            .arg(self.dir.join("ganesha.log"))
            .arg("-p")
            .arg(self.dir.join("ganesha.pid"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(|e| e.to_string())?)
            .stderr(output)
            .spawn()
            .map_err(|e| format!("ganesha.nfsd: {e}"))?;
        self.child = Some(child);
        while started.elapsed() < Duration::from_secs(20) {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(started.elapsed());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(format!(
            "ganesha does not serve (does rpcbind run?); see {}",
            self.dir.join("ganesha.log").display()
        ))
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn mount_port(&self) -> u16 {
        self.mount_port
    }

    fn export(&self) -> String {
        "/data".into()
    }
}

impl Drop for GaneshaServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(self.dir.join("data"));
    }
}
