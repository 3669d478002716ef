//! Starts, watches and restarts the node's programs: READY and WATCHDOG by sd_notify, back-off, bounded logs.

use crate::console::{raw, say};
use crate::log::{Log, follow};
use crate::services::{BASALT_GID, BASALT_UID, ServiceSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
/// A program that ran this long starts again at the shortest back-off.
const STABLE: Duration = Duration::from_secs(120);
/// Last lines of a program that ended, shown on the console.
const LAST_WORDS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting { until: Instant },
    Starting { pid: Pid, since: Instant },
    Ready { pid: Pid, since: Instant },
    Stopping { pid: Pid, kill_at: Instant },
    Stopped,
}

pub(crate) struct Service {
    spec: ServiceSpec,
    environment: Vec<(String, String)>,
    state: State,
    back_off: Duration,
    last_sign: Instant,
    notify: UnixDatagram,
    notify_path: PathBuf,
    log: Arc<Mutex<Log>>,
    last_words: Arc<Mutex<VecDeque<String>>>,
}

impl Service {
    pub(crate) fn new(spec: ServiceSpec, environment: Vec<(String, String)>) -> Result<Service, String> {
        let dir = Path::new("/run/basalt/notify");
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let notify_path = dir.join(format!("{}.sock", spec.name));
        let bound = UnixDatagram::bind(&notify_path).and_then(|socket| {
            socket.set_nonblocking(true)?;
            std::os::unix::fs::chown(&notify_path, Some(BASALT_UID), Some(BASALT_GID))?;
            Ok(socket)
        });
        Ok(Service {
            log: Arc::new(Mutex::new(Log::open(Path::new("/var/log/basalt"), spec.name))),
            notify: bound.map_err(|e| format!("{}: {e}", notify_path.display()))?,
            notify_path,
            state: State::Waiting { until: Instant::now() },
            back_off: FIRST_BACK_OFF,
            last_sign: Instant::now(),
            last_words: Arc::default(),
            spec,
            environment,
        })
    }

    /// Since when it has been ready; `None` while it is not.
    pub(crate) fn ready_since(&self) -> Option<Instant> {
        match self.state {
            State::Ready { since, .. } => Some(since),
            _ => None,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Starting { pid, .. } | State::Ready { pid, .. } | State::Stopping { pid, .. } => Some(pid),
            State::Waiting { .. } | State::Stopped => None,
        }
    }

    /// What time and its messages demand; called a few times a second.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.read_notifications(now);
        let name = self.spec.name;
        match self.state {
            State::Waiting { until } if now >= until => self.start(now),
            State::Starting { pid, since } if now > since + self.spec.start_limit => {
                say(&format_args!(
                    "{name} was not ready within {} s: killed",
                    self.spec.start_limit.as_secs()
                ));
                let _ = kill(pid, Signal::SIGKILL);
            }
            State::Ready { pid, .. }
                if self.spec.watchdog.is_some_and(|limit| now > self.last_sign + limit) =>
            {
                say(&format_args!(
                    "{name} hangs: no sign of life for {} s: killed",
                    (now - self.last_sign).as_secs()
                ));
                // SIGABRT would leave a core, for which there is no room.
                let _ = kill(pid, Signal::SIGKILL);
            }
            State::Stopping { pid, kill_at } if now > kill_at => {
                say(&format_args!("{name} did not stop within {} s: killed", self.spec.stop_limit.as_secs()));
                let _ = kill(pid, Signal::SIGKILL);
                self.state = State::Stopping { pid, kill_at: now + self.spec.stop_limit };
            }
            _ => {}
        }
    }

    fn read_notifications(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        // Bounded, so that a program gone mad cannot hold init.
        for _ in 0..64 {
            let Ok(length) = self.notify.recv(&mut buffer) else { return };
            for word in String::from_utf8_lossy(&buffer[..length]).lines() {
                match (word, self.state) {
                    ("READY=1", State::Starting { pid, .. }) => {
                        self.last_sign = now;
                        self.state = State::Ready { pid, since: now };
                    }
                    ("WATCHDOG=1", _) => self.last_sign = now,
                    _ => {}
                }
            }
        }
    }

    fn start(&mut self, now: Instant) {
        let mut command = Command::new(self.spec.program);
        command.env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.env("NOTIFY_SOCKET", &self.notify_path);
        if let Some(limit) = self.spec.watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        command.uid(BASALT_UID).gid(BASALT_GID).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match crate::sys::unblock_signals(&mut command).spawn() {
            Ok(mut child) => {
                self.last_sign = now;
                self.state = State::Starting { pid: Pid::from_raw(child.id() as i32), since: now };
                if let Some(out) = child.stdout.take() {
                    self.follow(out, true);
                }
                if let Some(err) = child.stderr.take() {
                    self.follow(err, false);
                }
                // Not waited for here: init reaps every process in one place.
            }
            Err(e) => {
                say(&format_args!("{}: {e}; next attempt in {:?}", self.spec.program, self.back_off));
                self.wait(now);
            }
        }
    }

    fn follow(&self, source: impl std::io::Read + Send + 'static, is_output: bool) {
        let (log, words) = (self.log.clone(), self.last_words.clone());
        std::thread::spawn(move || {
            follow(source, &log, |line| {
                if is_output && line.starts_with("ready ") {
                    raw(&format!("{line}\n"));
                    say(&"ready line printed");
                }
                if let Ok(mut words) = words.lock() {
                    words.push_back(line.to_owned());
                    if words.len() > LAST_WORDS {
                        words.pop_front();
                    }
                }
            });
        });
    }

    fn wait(&mut self, now: Instant) {
        self.state = State::Waiting { until: now + self.back_off };
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
    }

    /// True if `pid` was this service's; `how` says how it ended.
    pub(crate) fn ended(&mut self, pid: Pid, how: &str, now: Instant) -> bool {
        if self.pid() != Some(pid) {
            return false;
        }
        if matches!(self.state, State::Stopping { .. }) {
            say(&format_args!("{} stopped ({how})", self.spec.name));
            self.state = State::Stopped;
            return true;
        }
        if self.ready_since().is_some_and(|since| now > since + STABLE) {
            self.back_off = FIRST_BACK_OFF;
        }
        say(&format_args!(
            "{} ended ({how}); next start in {:?}. Its last words:",
            self.spec.name, self.back_off
        ));
        let mut last = String::new();
        if let Ok(mut words) = self.last_words.lock() {
            for line in words.drain(..) {
                say(&format_args!("    {line}"));
                last = line;
            }
        }
        crate::boot::failed(&format!("{} ended ({how}): {last}", self.spec.name));
        self.wait(now);
        true
    }

    /// Asks it to drain.
    pub(crate) fn stop(&mut self, now: Instant) {
        match self.pid() {
            Some(pid) => {
                let _ = kill(pid, Signal::SIGTERM);
                self.state = State::Stopping { pid, kill_at: now + self.spec.stop_limit };
            }
            None => self.state = State::Stopped,
        }
    }
}
