//! Our own data plane as a process, with the command line tool beside it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Server, free_port};
/// How long a start may take at all, creating a pool included.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `basalt-dataplane`.
    pub dataplane: PathBuf,
    /// `basalt`.
    pub cli: PathBuf,
}

impl Binaries {
    /// The programs beside this one, where cargo builds them.
    pub fn beside_this_one() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let dir = own.parent().ok_or("this program lies nowhere")?;
        Ok(Self { dataplane: dir.join("basalt-dataplane"), cli: dir.join("basalt") })
    }
}

/// A start that came to nothing.
#[derive(Debug)]
pub struct FailedStart {
    /// How it ended; `None` if by a signal, or not at all.
    pub code: Option<i32>,
    /// What it said on standard error.
    pub text: String,
}

/// A data plane with its own directory and port.
pub struct BasaltServer {
    binaries: Binaries,
    dir: PathBuf,
    port: u16,
    export: String,
    settings: BTreeMap<String, String>,
    child: Option<Child>,
    wrapper: Vec<String>,
    /// What it writes to standard error, over all its starts.
    pub log: PathBuf,
}

impl BasaltServer {
    /// Prepares a data plane that keeps everything below `dir`.
    pub fn new(binaries: Binaries, dir: PathBuf, log: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
        let port = free_port()?;
        let settings = BTreeMap::from([
            ("BASALT_DIR".to_owned(), dir.display().to_string()),
            ("BASALT_NFS_PORT".to_owned(), port.to_string()),
            ("BASALT_LISTEN".to_owned(), "127.0.0.1".to_owned()),
        ]);
        Ok(Self {
            binaries,
            dir,
            port,
            export: "/data".into(),
            settings,
            child: None,
            wrapper: Vec::new(),
            log,
        })
    }

    /// Sets an environment variable for the next starts.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.insert(name.into(), value.to_string());
    }

    /// Starts it through another program, which must turn into it by exec.
    pub fn start_through(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|w| (*w).to_owned()).collect();
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its drive files, in order.
    pub fn drives(&self) -> Result<Vec<PathBuf>, String> {
        let dir = self.dir.join("drives");
        let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut drives: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|x| x == "img"))
            .collect();
        drives.sort();
        Ok(drives)
    }

    /// The command that starts it, to run it in other ways.
    pub fn command(&self) -> Command {
        let mut words =
            self.wrapper.iter().map(OsString::from).chain([self.binaries.dataplane.clone().into()]);
        let mut command = Command::new(words.next().expect("the program is the last of them"));
        command.args(words);
        command.envs(&self.settings).stdin(Stdio::null());
        command
    }

    /// Runs the command line tool against it; its output, or what it said as an error.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.cli_output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(format!("basalt {}: {}: {text}{error}", arguments.join(" "), output.status))
        }
    }

    /// Runs the command line tool and hands back everything.
    pub fn cli_output(&self, arguments: &[&str]) -> Result<Output, String> {
        Command::new(&self.binaries.cli)
            .arg("--socket")
            .arg(self.dir.join("run/dataplane.sock"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("{}: {e}", self.binaries.cli.display()))
    }

    /// Starts it and waits until it is ready, or has ended.
    pub fn attempt(&mut self) -> Result<Duration, FailedStart> {
        let unable = |e: std::io::Error| FailedStart { code: None, text: e.to_string() };
        let started = Instant::now();
        let log = File::options().create(true).append(true).open(&self.log).map_err(unable)?;
        let said_before = log.metadata().map_err(unable)?.len();
        let mut child = self.command().stdout(Stdio::piped()).stderr(log).spawn().map_err(|e| {
            FailedStart { code: None, text: format!("{}: {e}", self.binaries.dataplane.display()) }
        })?;
        let stdout = child.stdout.take().expect("it was asked for");
        self.child = Some(child);
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            // Whatever it prints later is read and dropped, so that its pipe never fills.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        loop {
            match receive.recv_timeout(START_LIMIT.saturating_sub(started.elapsed())) {
                Ok(line) if line.starts_with("ready ") => {
                    if let Some(export) =
                        line.split_whitespace().find_map(|word| word.strip_prefix("export="))
                    {
                        self.export = export.to_owned();
                    }
                    return Ok(started.elapsed());
                }
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.kill();
                    let text = format!("not ready within {START_LIMIT:?}:\n{}", self.log_from(said_before));
                    return Err(FailedStart { code: None, text });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let code =
                        self.child.take().and_then(|mut c| c.wait().ok()).and_then(|status| status.code());
                    return Err(FailedStart { code, text: self.log_from(said_before) });
                }
            }
        }
    }

    /// Its log from a position on.
    fn log_from(&self, position: u64) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(position as usize..).unwrap_or_default()).into_owned()
    }

    /// Ends it politely and waits; its exit code.
    pub fn stop(&mut self) -> Result<i32, String> {
        let mut child = self.child.take().ok_or("it does not run")?;
        crate::sys::kill(child.id(), libc::SIGTERM).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status.code().unwrap_or(-1));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        Err("it did not end within 30 s of SIGTERM".into())
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }
}

impl Server for BasaltServer {
    fn start(&mut self) -> Result<Duration, String> {
        self.attempt().map_err(|failed| {
            let code = failed.code.map_or("no exit code".into(), |c| format!("exit code {c}"));
            format!("the data plane did not start ({code}):\n{}", failed.text)
        })
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
        self.port
    }

    fn export(&self) -> String {
        self.export.clone()
    }

    fn as_basalt(&mut self) -> Option<&mut BasaltServer> {
        Some(self)
    }
}

impl Drop for BasaltServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command that should end by itself soon: its exit code and all it said.
pub fn run_to_end(mut command: Command, limit: Duration) -> Result<(i32, String), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let collect = |stream: Option<Box<dyn std::io::Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = std::io::Read::read_to_end(&mut stream, &mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = collect(child.stdout.take().map(|s| Box::new(s) as _));
    let err = collect(child.stderr.take().map(|s| Box::new(s) as _));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it still ran after {limit:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = format!("{}{}", out.join().unwrap_or_default(), err.join().unwrap_or_default());
    Ok((status.code().unwrap_or(-1), text))
}
