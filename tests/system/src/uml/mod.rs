//! A real Linux NFS client for the tests: User-Mode Linux, booted without root.
//!
//! ```text
//!   this process                      namespace (user, net, pid)
//!   ┌────────────┐  control: TCP      ┌──────────────┬─────────────────────┐
//!   │ Guest      │◄───────────────────┤ tap 10.77.0.1│ linux.uml 10.77.0.2 │
//!   │ relay ─────┼── 127.0.0.1:PORT   │ listeners    │ init = this program │
//!   └────────────┘      (server)      └──────────────┴─────────────────────┘
//! ```
//!
//! The guest's root is the host's root, read-only (hostfs), and its init is this executable again
//! ([`crate::guest`]), so the guest needs no image and finds tar, git and the rest where the host has them.

pub mod relay;
pub(crate) mod runner;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::guest::protocol::{Operation, Outcome, Request};
use crate::sys;
use relay::RelayCounters;

/// The host's end of the guest's network.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The guest's own address.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the guest finds the NFS server.
pub const GUEST_NFS_PORT: u16 = 2049;
/// Where the guest finds a MOUNT service that has a port of its own.
pub(crate) const GUEST_MOUNT_PORT: u16 = 2050;
pub(crate) const CONTROL_PORT: u16 = 7000;
pub(crate) const TAP: &str = "tap0";

const GUEST_MEMORY_MIB: u64 = 768;
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// How to boot a guest.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    /// Loopback port of the NFS server on the host.
    pub server_port: u16,
    /// Loopback port of its v3 MOUNT service, which may be the same.
    pub mount_port: u16,
    /// Where logs go.
    pub log_dir: PathBuf,
    /// Names the log file.
    pub name: String,
}

/// A running guest. It ends when this is dropped.
pub struct Guest {
    /// Kills every process of the guest when it goes.
    _runner: Runner,
    control: BufReader<TcpStream>,
    writer: TcpStream,
    next_id: u64,
    dir: PathBuf,
    mount_port: u16,
    /// The guest's console.
    pub log: PathBuf,
    /// What the NFS relay saw.
    pub counters: Arc<RelayCounters>,
}

/// The User-Mode Linux kernel: `BASALT_UML`, or Debian's place.
pub fn kernel_path() -> Option<PathBuf> {
    let named = std::env::var_os("BASALT_UML").map(PathBuf::from);
    named
        .into_iter()
        .chain([PathBuf::from("/usr/bin/linux.uml"), PathBuf::from("/usr/bin/linux")])
        .find(|p| p.is_file())
}

impl Guest {
    /// Boots a guest and waits until its agent answers.
    pub fn boot(config: &GuestConfig) -> io::Result<Self> {
        let kernel = kernel_path().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no User-Mode Linux kernel: apt-get install user-mode-linux",
            )
        })?;
        fs::create_dir_all(&config.log_dir)?;
        let log_dir = config.log_dir.canonicalize()?;
        let log = log_dir.join(format!("{}.console.log", config.name));
        let dir = log_dir.join(format!("{}.uml", config.name));
        fs::create_dir_all(&dir)?;
        let console = File::create(&log)?;
        let executable = std::env::current_exe()?;

        let (ours, theirs) = UnixStream::pair()?;
        sys::keep_over_exec(theirs.as_raw_fd())?;
        let runner = Command::new(&executable)
            .arg(runner::RUNNER_ARGUMENT)
            .arg(theirs.as_raw_fd().to_string())
            .arg(&kernel)
            .args(kernel_arguments(&dir, &executable))
            .env("TMPDIR", memory_dir(&dir))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()?;
        drop(theirs);
        Self::connect(Runner(runner), &ours, config, log, dir)
    }

    fn connect(
        mut runner: Runner,
        ours: &UnixStream,
        config: &GuestConfig,
        log: PathBuf,
        dir: PathBuf,
    ) -> io::Result<Self> {
        let failed =
            |what: String| io::Error::other(format!("{what}; the guest's console:\n{}", tail(&log, 30)));
        let mut fds = sys::receive_fds(ours.as_raw_fd()).map_err(|e| failed(e.to_string()))?.into_iter();
        let (Some(nfs), Some(mount), Some(control)) = (fds.next(), fds.next(), fds.next()) else {
            return Err(io::Error::other("the namespace process sent no sockets"));
        };
        let counters = Arc::new(RelayCounters::default());
        relay::serve(listener(nfs), config.server_port, Arc::clone(&counters));
        relay::serve(listener(mount), config.mount_port, Arc::default());
        let mount_port =
            if config.mount_port == config.server_port { GUEST_NFS_PORT } else { GUEST_MOUNT_PORT };

        let control = listener(control);
        control.set_nonblocking(true)?;
        let deadline = Instant::now() + BOOT_LIMIT;
        let stream = loop {
            match control.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(status) = runner.0.try_wait()? {
                        return Err(failed(format!("the guest ended while booting ({status})")));
                    }
                    if Instant::now() > deadline {
                        return Err(failed("the guest did not boot in time".into()));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let writer = stream.try_clone()?;
        Ok(Self {
            _runner: runner,
            control: BufReader::new(stream),
            writer,
            next_id: 0,
            dir,
            mount_port,
            log,
            counters,
        })
    }

    /// Runs one operation in the guest and waits for it, at most `limit`.
    pub fn call(&mut self, operation: Operation, limit: Duration) -> Result<String, String> {
        let id = self.start(operation)?;
        self.finish(id, limit)
    }

    /// Starts an operation without waiting; one may run at a time beside [`Guest::finish`].
    pub fn start(&mut self, operation: Operation) -> Result<u64, String> {
        self.next_id += 1;
        let request = Request { id: self.next_id, operation };
        let mut line = serde_json::to_string(&request).map_err(|e| e.to_string())?;
        line.push('\n');
        self.writer.write_all(line.as_bytes()).map_err(|e| self.lost(&e))?;
        Ok(self.next_id)
    }

    /// Waits for an operation that was started.
    pub fn finish(&mut self, id: u64, limit: Duration) -> Result<String, String> {
        self.poll(id, limit)?.unwrap_or_else(|| {
            Err(format!("no answer within {limit:?}; the guest's console:\n{}", tail(&self.log, 30)))
        })
    }

    /// Waits at most `limit` for an operation; `None` if it still runs. The outer error means the guest is gone.
    pub fn poll(&mut self, id: u64, limit: Duration) -> Result<Option<Result<String, String>>, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // `fill_buf` keeps what came before a timeout, `read_line` would lose half a line.
            self.writer.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
            match self.control.fill_buf() {
                Ok([]) => return Err(self.lost(&io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(e) => return Err(self.lost(&e)),
            }
            self.writer.set_read_timeout(None).map_err(|e| e.to_string())?;
            let mut line = String::new();
            self.control.read_line(&mut line).map_err(|e| self.lost(&e))?;
            let outcome: Outcome =
                serde_json::from_str(&line).map_err(|e| format!("the guest's agent said {line:?}: {e}"))?;
            if outcome.id == id {
                return Ok(Some(if outcome.ok { Ok(outcome.text) } else { Err(outcome.text) }));
            }
        }
    }

    fn lost(&self, error: &io::Error) -> String {
        format!("the guest is gone ({error}); its console:\n{}", tail(&self.log, 40))
    }

    /// Runs a shell script in the guest; its output.
    pub fn shell(&mut self, script: &str, limit: Duration) -> Result<String, String> {
        self.call(Operation::Shell { script: script.into() }, limit)
    }

    /// Mounts an export of the server.
    pub fn mount(&mut self, version: NfsVersion, export: &str, target: &str) -> Result<(), String> {
        self.call(
            Operation::Mount {
                version,
                export: export.into(),
                target: target.into(),
                extra: String::new(),
                mount_port: self.mount_port,
            },
            Duration::from_secs(60),
        )
        .map(drop)
    }

    /// Unmounts.
    pub fn unmount(&mut self, target: &str) -> Result<(), String> {
        self.call(Operation::Unmount { target: target.into() }, Duration::from_secs(120)).map(drop)
    }

    /// Makes the next reads come from the server.
    pub fn drop_caches(&mut self) -> Result<(), String> {
        self.call(Operation::DropCaches, Duration::from_secs(120)).map(drop)
    }
}

struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The protocol versions the kernel client speaks to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NfsVersion {
    /// NFSv3, with MOUNT on the same port, without NLM.
    V3,
    /// NFSv4.1.
    V41,
    /// NFSv4.2.
    V42,
}

impl NfsVersion {
    /// The name used in test names and directories.
    pub fn name(self) -> &'static str {
        match self {
            Self::V3 => "v3",
            Self::V41 => "v4.1",
            Self::V42 => "v4.2",
        }
    }
}

fn listener(fd: OwnedFd) -> TcpListener {
    TcpListener::from(fd)
}

fn kernel_arguments(dir: &Path, executable: &Path) -> Vec<String> {
    vec![
        format!("mem={GUEST_MEMORY_MIB}M"),
        "root=/dev/root".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "ro".into(),
        "con0=null,fd:1".into(),
        "con=null".into(),
        "ssl=null".into(),
        format!("vec0:transport=tap,ifname={TAP},depth=128,gro=1"),
        format!("uml_dir={}", dir.display()),
        "umid=guest".into(),
        "panic=-1".into(),
        "noreboot".into(),
        "quiet".into(),
        format!("init={}", executable.display()),
        "--".into(),
        crate::guest::GUEST_ARGUMENT.into(),
    ]
}

/// Where the guest's memory file lies: `/dev/shm` if there is room, else beside the logs.
fn memory_dir(fallback: &Path) -> PathBuf {
    let shm = Path::new("/dev/shm");
    match sys::fs_size(shm) {
        Ok(size) if size.available_bytes > (GUEST_MEMORY_MIB + 64) << 20 => shm.to_path_buf(),
        _ => fallback.to_path_buf(),
    }
}

/// The last lines of a log.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
