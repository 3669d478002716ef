//! The boot service: asked once what this node is to do, and told each step, so that a node that hangs is seen there.
//!
//! Where it is comes from `basalt.boot=` on the command line, or with an address by DHCP. A node without one serves all the
//! same. Nothing here waits; who may not go on without an answer asks [`heard`]. `docs/operations/boot.md` has the requests.

use crate::cmdline::Cmdline;
use crate::console::{say, uptime_s};
use crate::http::{self, Url};
use crate::programs;
use crate::services::{BASALT_GID, BASALT_UID};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What could not be told yet; more is not worth telling, and the oldest goes.
const MOST_PENDING: usize = 16;
const PLAN: &str = "/run/basalt/plan.json";
pub(crate) const BUNDLE: &str = "/var/tmp/upgrade.bundle";

static OUTBOX: OnceLock<SyncSender<News>> = OnceLock::new();
static HEARD: Mutex<Heard> = Mutex::new(Heard { leased: Vec::new(), service: None, answer: None });

/// What is known of the boot service so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Ports that got an address.
    pub(crate) leased: Vec<[u8; 6]>,
    pub(crate) service: Option<String>,
    /// The last one.
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Plan(Plan),
    /// Quarantine.
    Refused(String),
}

fn board() -> MutexGuard<'static, Heard> {
    HEARD.lock().unwrap_or_else(|e| e.into_inner())
}

pub(crate) fn heard() -> Heard {
    board().clone()
}

enum News {
    /// A port got an address, and perhaps the address of a boot service with it.
    Lease {
        mac: [u8; 6],
        service: Option<String>,
    },
    Step(Message),
    /// Ask once more what this node is to do.
    AskAgain,
    /// What runs has proved itself, so it may be replaced.
    Healthy,
}

struct Message {
    step: &'static str,
    detail: String,
    /// Hears when the service has it.
    told: Option<SyncSender<()>>,
}

/// What runs here.
pub(crate) struct Running {
    pub(crate) version: String,
    pub(crate) on_disk: bool,
}

/// Starts the client, which stays for the life of the node.
pub(crate) fn start(cmdline: &Cmdline, running: Running) {
    let given = cmdline.get("boot").map(str::to_owned);
    let (outbox, inbox) = sync_channel(64);
    if OUTBOX.set(outbox).is_ok() {
        std::thread::spawn(move || Client::new(given, running).run(&inbox));
    }
}

fn send(news: News) {
    if let Some(outbox) = OUTBOX.get() {
        // A full outbox is a client that has given up for good; what runs here goes on.
        let _ = outbox.try_send(news);
    }
}

/// A port has an address.
pub(crate) fn leased(mac: [u8; 6], service: Option<&str>) {
    send(News::Lease { mac, service: service.map(str::to_owned) });
}

/// Everything that is supervised has said that it is ready.
pub(crate) fn ready(version: &str) {
    step("ready", &format!("Basalt {version}, {:.1} s after kernel start", uptime_s()));
}

/// Something gave up, with its cause.
pub(crate) fn failed(cause: &str) {
    step("failed", cause);
}

pub(crate) fn step(step: &'static str, detail: &str) {
    send(News::Step(Message { step, detail: detail.to_owned(), told: None }));
}

/// Something to be heard when the service has been told; an end without it means that nobody will be.
pub(crate) fn told(step: &'static str, detail: &str) -> Receiver<()> {
    let (tell, told) = sync_channel(1);
    send(News::Step(Message { step, detail: detail.to_owned(), told: Some(tell) }));
    told
}

pub(crate) fn ask_again() {
    send(News::AskAgain);
}

/// The running version is blessed, or was long ago, and it serves.
pub(crate) fn healthy() {
    send(News::Healthy);
}

/// What the boot service decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) action: String,
    pub(crate) version: Option<[u32; 3]>,
    /// The version was named in the decision, and is not just the newest there is.
    pinned: bool,
    pub(crate) bundle: Option<String>,
    /// Serial number or path of the disk to install on.
    pub(crate) disk: Option<String>,
    pub(crate) wipe: bool,
    /// Decided once more is another decision.
    decided_s: u64,
}

impl Plan {
    pub(crate) fn parse(text: &str) -> Option<Plan> {
        let plan: Value = serde_json::from_str(text).ok()?;
        Some(Plan {
            action: plan["action"].as_str()?.to_owned(),
            version: plan["version"].as_str().and_then(version),
            pinned: plan["pinned"] == true,
            bundle: plan["files"]["bundle"].as_str().map(str::to_owned),
            disk: plan["disk"].as_str().map(str::to_owned),
            wipe: plan["wipe"] == true,
            decided_s: plan["decided_s"].as_u64().unwrap_or(0),
        })
    }

    /// Where the newer version is that this node was decided to run, if it is to run a newer one.
    fn upgrade(&self, running: &str) -> Option<(&str, [u32; 3])> {
        let (wanted, running) = (self.version?, version(running)?);
        // `local` alone is "boot what you have"; with a version it is "and have that one".
        let decided = self.action == "install" || self.action == "local" && self.pinned;
        (decided && wanted > running).then_some((self.bundle.as_deref()?, wanted))
    }
}

fn version(text: &str) -> Option<[u32; 3]> {
    let numbers: Vec<u32> = text.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

struct Client {
    /// From the command line: stronger than what DHCP says.
    given: Option<String>,
    running: Running,
    uuid: Option<String>,
    mac: Option<[u8; 6]>,
    service: Option<Url>,
    reached: bool,
    plan: Option<Plan>,
    planned: bool,
    /// An answer came before: asking once more is no new boot.
    again: bool,
    healthy: bool,
    upgraded: bool,
    pending: VecDeque<Message>,
    said: Option<String>,
}

impl Client {
    fn new(given: Option<String>, running: Running) -> Client {
        let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").ok();
        Client {
            given,
            running,
            uuid: uuid.map(|u| u.trim().to_ascii_lowercase()).filter(|u| u.len() == 36),
            mac: None,
            service: None,
            reached: false,
            plan: None,
            planned: false,
            again: false,
            healthy: false,
            upgraded: false,
            pending: VecDeque::new(),
            said: None,
        }
    }

    fn run(mut self, inbox: &Receiver<News>) {
        let mut pause = FIRST_PAUSE;
        let mut next = Instant::now();
        loop {
            match inbox
                .recv_timeout(next.saturating_duration_since(Instant::now()).max(Duration::from_millis(50)))
            {
                Ok(news) => self.take(news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() < next {
                continue;
            }
            match self.tell() {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    // Nothing to do until something comes.
                    next = Instant::now();
                    if self.pending.is_empty() || self.service.is_none() {
                        self.upgrade();
                        match inbox.recv() {
                            Ok(news) => self.take(news),
                            Err(_) => return,
                        }
                    }
                }
                Err(why) => {
                    if self.said.as_ref() != Some(&why) {
                        say(&format_args!("boot service: {why}"));
                        self.said = Some(why);
                    }
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Lease { mac, service } => {
                let address = self.given.as_deref().or(service.as_deref());
                let mut board = board();
                if !board.leased.contains(&mac) {
                    board.leased.push(mac);
                }
                if let Some(text) = address
                    && !self.reached
                {
                    match Url::parse(text) {
                        Some(url) => {
                            board.service = Some(url.to_string());
                            (self.mac, self.service) = (Some(mac), Some(url));
                        }
                        None => say(&format_args!("boot service {text:?}: wanted http://ADDRESS:PORT")),
                    }
                }
            }
            News::AskAgain => self.planned = false,
            News::Step(message) => {
                self.pending.push_back(message);
                if self.pending.len() > MOST_PENDING {
                    self.pending.pop_front();
                }
            }
            News::Healthy => self.healthy = true,
        }
    }

    fn mac(&self) -> Option<String> {
        let bytes: Vec<String> = self.mac?.iter().map(|b| format!("{b:02x}")).collect();
        Some(bytes.join(":"))
    }

    /// Asks for the plan, then tells what is pending.
    fn tell(&mut self) -> Result<(), String> {
        let Some(service) = self.service.clone() else { return Ok(()) };
        if !self.planned {
            let again = self.again.then(|| "1".to_owned());
            let ids = [("mac", self.mac()), ("uuid", self.uuid.clone()), ("again", again)];
            let query: Vec<String> =
                ids.into_iter().filter_map(|(k, v)| Some(format!("{k}={}", v?))).collect();
            let url = service.join(&format!("boot/v1/plan?{}", query.join("&")));
            let answer = http::get(&url).map_err(|e| format!("{service}: {e}"))?;
            let status = answer.status;
            let text = answer.text().map_err(|e| format!("{service}: {e}"))?;
            if status != 200 && status != 403 {
                return Err(format!("{service} answers {status}: {}", text.trim()));
            }
            self.reached = true;
            self.planned = true;
            let plan = Plan::parse(&text).filter(|_| status == 200);
            let answer = plan.clone().map_or_else(|| Answer::Refused(text.clone()), Answer::Plan);
            let changed = board().answer.as_ref() != Some(&answer);
            if changed && self.again && plan.is_some() {
                // Another decision: asked for like the first, with what goes with it.
                (self.planned, self.again) = (false, false);
                return self.tell();
            }
            match &plan {
                Some(plan) if changed => say(&format_args!("boot service {service}: {}", plan.action)),
                None if changed => say(&format_args!("boot service {service}: {}", text.trim())),
                _ => {}
            }
            if plan.is_some() && !self.again {
                keep_plan(&text);
            }
            self.again = true;
            self.plan = plan;
            board().answer = Some(answer);
        }
        while let Some(message) = self.pending.front() {
            self.post(&service, message.step, &message.detail)?;
            if let Some(told) = self.pending.pop_front().and_then(|m| m.told) {
                let _ = told.try_send(());
            }
        }
        Ok(())
    }

    fn post(&self, service: &Url, step: &str, detail: &str) -> Result<(), String> {
        let event = json!({ "mac": self.mac(), "uuid": self.uuid, "step": step, "detail": detail });
        let answer = http::post(&service.join("boot/v1/events"), &event.to_string())
            .map_err(|e| format!("{service}: {e}"))?;
        if answer.status >= 500 {
            return Err(format!("{service} answers {} to {step}", answer.status));
        }
        // What it does not take now it will not take later either.
        if !(200..300).contains(&answer.status) {
            say(&format_args!("boot service {service} does not take {step}: {}", answer.status));
        }
        Ok(())
    }

    /// Takes the version that was decided for this node, once, when what runs has proved itself.
    fn upgrade(&mut self) {
        if !self.healthy || self.upgraded || !self.running.on_disk {
            return;
        }
        let Some((address, wanted)) = self.plan.as_ref().and_then(|p| p.upgrade(&self.running.version))
        else {
            return;
        };
        let (Some(service), Some(url)) = (self.service.clone(), Url::parse(address)) else { return };
        self.upgraded = true;
        let wanted = wanted.map(|n| n.to_string()).join(".");
        let report = |step, detail: &str| {
            if let Err(e) = self.post(&service, step, detail) {
                say(&format_args!("boot service: {e}"));
            }
        };
        let installed = is_worth_trying(&wanted).and_then(|()| {
            say(&format_args!("upgrade to {wanted} was decided: fetching {url}"));
            report("installing", &format!("Basalt {wanted} beside {}", self.running.version));
            install(&url)
        });
        match installed {
            Ok(()) => {
                say(&format_args!("upgrade to {wanted} is written: rebooting to try it"));
                report("installed", &format!("Basalt {wanted}"));
                // Init drains and reboots, as for Ctrl-Alt-Del.
                let _ = kill(Pid::this(), Signal::SIGINT);
            }
            Err(why) => {
                say(&format_args!("upgrade to {wanted}: {why}"));
                report("failed", &why);
            }
        }
    }
}

pub(crate) fn basalt(arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/basalt");
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin")
        .env("BASALT_DIR", "/var/lib/basalt")
        .env("NO_COLOR", "1");
    command
}

fn is_worth_trying(wanted: &str) -> Result<(), String> {
    let slots = programs::run(&mut basalt(&["--output", "json", "upgrade", "status"]))?;
    if was_bad(&slots, wanted) {
        return Err(format!(
            "version {wanted} was found bad on this node and is not tried again; decide for another"
        ));
    }
    Ok(())
}

fn install(url: &Url) -> Result<(), String> {
    let fetched = fetch(url).map_err(|e| format!("{url}: {e}"));
    // The bundle's signature and every byte of it are checked before the first write.
    let installed = fetched.and_then(|()| programs::run(&mut basalt(&["upgrade", "install", BUNDLE])));
    let _ = fs::remove_file(BUNDLE);
    installed.map(|_| ())
}

fn was_bad(status: &str, wanted: &str) -> bool {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let slots = status["slots"].as_array().map(Vec::as_slice).unwrap_or_default();
    slots.iter().any(|s| s["version"] == wanted && s["state"] == "bad")
}

pub(crate) fn fetch(url: &Url) -> std::io::Result<()> {
    let answer = http::get(url)?;
    if answer.status != 200 {
        return Err(std::io::Error::other(format!("the server answers {}", answer.status)));
    }
    let mut file = fs::File::create(BUNDLE)?;
    answer.copy_to(&mut file)?;
    file.flush()
}

/// For the agent: it holds the token to join with.
fn keep_plan(text: &str) {
    let path = Path::new(PLAN);
    let _ = fs::remove_file(path);
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            chown(path, Some(BASALT_UID), Some(BASALT_GID))
        });
    if let Err(e) = written {
        say(&format_args!("{PLAN}: {e}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    const ANSWER: &str = r#"{"action":"install","version":"1.10.0","files":{"bundle":"http://10.0.0.1:8069/boot/v1/files/basalt_1.10.0.bundle"},"token":"t"}"#;
    const WITH_DISK: &str =
        r#"{"action":"install","version":"1.10.0","disk":"S1","wipe":true,"decided_s":7,"token":"u"}"#;

    #[test]
    fn only_a_newer_version_that_was_decided_is_an_upgrade() {
        let plan = Plan::parse(ANSWER).unwrap();
        assert_eq!(plan.upgrade("1.9.0").unwrap().1, [1, 10, 0]);
        assert_eq!((plan.upgrade("1.10.0"), plan.upgrade("2.0.0"), plan.upgrade("x")), (None, None, None));
        let diskless = Plan::parse(&ANSWER.replace("install", "diskless")).unwrap();
        assert_eq!(diskless.upgrade("1.9.0"), None);
        let local = ANSWER.replace("install", "local");
        assert_eq!(Plan::parse(&local).unwrap().upgrade("1.9.0"), None);
        let pinned = Plan::parse(&local.replacen('{', "{\"pinned\":true,", 1)).unwrap();
        assert_eq!(pinned.upgrade("1.9.0").unwrap().1, [1, 10, 0]);
        assert_eq!(Plan::parse("quarantine: nothing was decided"), None);
        let disk = Plan::parse(WITH_DISK).unwrap();
        assert_eq!((disk.disk.as_deref(), disk.wipe, plan.disk, plan.wipe), (Some("S1"), true, None, false));
        assert_eq!(
            Plan::parse(&WITH_DISK.replace("\"u\"", "\"v\"")).as_ref(),
            Some(&disk),
            "the token is new each time"
        );
        assert_ne!(Plan::parse(&WITH_DISK.replace(":7", ":8")).unwrap(), disk, "decided once more");
        let bare = Plan::parse(r#"{"action":"install","version":null,"files":null}"#).unwrap();
        assert_eq!(bare.upgrade("1.9.0"), None);
    }

    #[test]
    fn a_version_found_bad_is_known() {
        let status = r#"{"slots":[{"version":"1.0.0","state":"blessed"},{"version":"1.1.0","state":"bad"}]}"#;
        assert!(was_bad(status, "1.1.0"));
        assert!(!was_bad(status, "1.0.0") && !was_bad(status, "1.2.0") && !was_bad("", "1.1.0"));
    }

    /// A service that fails first: plan before events, in their order, nothing lost.
    #[test]
    fn everything_is_told_in_its_order_although_the_service_fails_at_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (n, stream) in listener.incoming().take(4).enumerate() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                let mut text = String::new();
                while !text.contains("\r\n\r\n") || text.starts_with("POST") && !text.ends_with('}') {
                    let length = stream.read(&mut buffer).unwrap();
                    text.push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
                let reply = match n {
                    0 => "HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    1 => "HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    _ => "HTTP/1.1 204 fine\r\n\r\n".to_owned(),
                };
                stream.write_all(reply.as_bytes()).unwrap();
                asked.push(text);
            }
            asked
        });
        let (outbox, inbox) = sync_channel(8);
        let step = |step, detail: &str, told| {
            outbox.send(News::Step(Message { step, detail: detail.into(), told })).unwrap();
        };
        let (tell, told) = sync_channel(1);
        step("failed", "first", None);
        outbox.send(News::Lease { mac: [2, 0, 0, 0, 0, 1], service: Some(address) }).unwrap();
        step("ready", "second", Some(tell));
        let running = Running { version: "1.0.0".into(), on_disk: false };
        let client = std::thread::spawn(move || Client::new(None, running).run(&inbox));
        let asked = server.join().unwrap();
        assert_eq!(told.recv(), Ok(()), "it is known to be told");
        drop(outbox);
        client.join().unwrap();
        assert!(
            asked[..2].iter().all(|a| a.starts_with("GET /boot/v1/plan?mac=02:00:00:00:00:01")),
            "{asked:?}"
        );
        assert!(asked[2].contains(r#""step":"failed""#) && asked[2].contains("first"), "{asked:?}");
        assert!(asked[3].contains(r#""step":"ready""#) && asked[3].contains("second"), "{asked:?}");
    }
}
