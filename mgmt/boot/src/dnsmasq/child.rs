//! The child: started, watched, started again with growing pauses, told of new hosts, taken down with us.

use super::log::{Line, parse};
use crate::error::{BootError, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A child that ran this long was well; the next pause is short again.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// dnsmasq's lines are shorter than its 1,024-byte packets' names allow.
const MAX_LINE_BYTES: u64 = 4096;

#[derive(Debug)]
pub enum News {
    Started,
    Step(Line),
    /// It ended; why, and how long until it is started again.
    Ended(String, Duration),
}

pub struct Child {
    program: PathBuf,
    config: PathBuf,
    as_root: bool,
    reload: watch::Receiver<u64>,
    news: mpsc::Sender<News>,
}

impl Child {
    /// `reload` changes whenever the hosts file did.
    pub fn new(
        program: &Path,
        config: &Path,
        user: Option<&str>,
        reload: watch::Receiver<u64>,
        news: mpsc::Sender<News>,
    ) -> Child {
        let as_root = user == Some("root");
        Child { program: program.to_owned(), config: config.to_owned(), as_root, reload, news }
    }

    /// Has dnsmasq read the configuration without acting on it.
    pub async fn check(&self) -> Result<()> {
        let output = Command::new(&self.program).arg("--test").arg("-C").arg(&self.config).output().await.map_err(|e| {
            BootError::Config(format!(
                "{} cannot be started: {e}; install dnsmasq (Debian: dnsmasq-base), or leave DHCP out with --no-dhcp",
                self.program.display()
            ))
        })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(BootError::Config(format!(
                "dnsmasq does not take its configuration {}: {}",
                self.config.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }

    /// Runs until its future is dropped; then the child is killed.
    pub async fn supervise(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let began = Instant::now();
            let why = match self.run_once().await {
                Ok(why) => why,
                Err(e) => e.to_string(),
            };
            if began.elapsed() > WELL_AFTER {
                pause = SHORTEST_PAUSE;
            }
            if self.news.send(News::Ended(why, pause)).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn run_once(&mut self) -> std::io::Result<String> {
        end_orphan(&self.config).await;
        // It reads the hosts file when it starts; and a SIGHUP before it listens to signals would end it.
        self.reload.mark_unchanged();
        let mut listens = false;
        // With no user to become (`root`, or nobody else there to be, as in a user namespace) dnsmasq must not try.
        let stay = if self.as_root { "--no-daemon" } else { "--keep-in-foreground" };
        let mut child = Command::new(&self.program)
            .arg(stay)
            .arg("-C")
            .arg(&self.config)
            .arg("--pid-file=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        let _ = std::fs::write(pid_file(&self.config), child.id().unwrap_or_default().to_string());
        let mut lines =
            BufReader::new(child.stderr.take().ok_or_else(|| std::io::Error::other("no standard error"))?);
        let _ = self.news.send(News::Started).await;
        let mut last = String::from("it said nothing");
        let mut line = Vec::new();
        loop {
            let mut limited = (&mut lines).take(MAX_LINE_BYTES);
            tokio::select! {
                read = limited.read_until(b'\n', &mut line) => {
                    // Keeps what was read so far if the other branch wins.
                    if read? == 0 && line.is_empty() {
                        break;
                    }
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    line.clear();
                    tracing::debug!(target: "dnsmasq", "{text}");
                    listens |= text.contains(": started, version");
                    if let Some(step) = parse(&text) {
                        let _ = self.news.send(News::Step(step)).await;
                    }
                    last = text;
                }
                changed = self.reload.changed(), if listens => {
                    if changed.is_err() {
                        break;
                    }
                    // SIGHUP: dnsmasq reads the hosts file again.
                    if let Some(pid) = pid {
                        let _ = kill_process(pid, Signal::HUP);
                    }
                }
            }
        }
        let status = child.wait().await?;
        Ok(format!("{status}; last: {last}"))
    }
}

fn pid_file(config: &Path) -> PathBuf {
    config.with_extension("pid")
}

/// A dnsmasq that an earlier service left behind when it was killed holds the ports: it is ended, if it is ours by its command line.
async fn end_orphan(config: &Path) {
    let Some(pid) = std::fs::read_to_string(pid_file(config)).ok().and_then(|t| t.trim().parse::<i32>().ok())
    else {
        return;
    };
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let ours = cmdline.split(|b| *b == 0).any(|word| word == config.as_os_str().as_encoded_bytes());
    if let (true, Some(target)) = (ours, Pid::from_raw(pid)) {
        tracing::warn!("ending dnsmasq {pid}, left by an earlier boot service");
        let _ = kill_process(target, Signal::TERM);
        let gone = async {
            while std::fs::metadata(format!("/proc/{pid}")).is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(Duration::from_secs(3), gone).await;
    }
}
