//! A node that was booted over the network and was decided `install`: writes its disk and starts from it.
//!
//! What it is to do has to be known before its blank drives become a pool, so this comes first. A node that knows of no boot service
//! goes on at once, and one with a pool goes on when the service does not answer; one whose drives are all blank waits.

use crate::boot::{self, Answer, Heard, Plan};
use crate::console::say;
use crate::disks::{self, Disk};
use crate::http::Url;
use crate::node::Ending;
use crate::programs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// No port got an address for so long (a switch may hold a new link back for 50 s): nobody will say what to do.
const NO_ADDRESS: Duration = Duration::from_secs(60);
/// So long after the first address the other ports may bring a boot service with theirs.
const OTHER_PORTS: Duration = Duration::from_secs(10);
/// A node that has something to serve waits no longer for an answer.
const NO_ANSWER: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_secs(30);
const FETCH_TRIES: u32 = 3;

/// Called again and again: feeds the watchdog, reaps, sleeps a little. Some: init was told to end.
type Turn<'a> = &'a mut dyn FnMut() -> Option<Ending>;

/// Asks the boot service and does what has to come before the drives. None: go on as a node that runs from memory.
pub(crate) fn before_drives(given: bool, may_pool: bool, turn: Turn<'_>) -> Option<Ending> {
    let mut waiting = Waiting::new(given, may_pool);
    loop {
        if let Some(ending) = turn() {
            return Some(ending);
        }
        match waiting.next(&boot::heard(), crate::net::links) {
            Next::Wait => {}
            Next::GoOn => return None,
            Next::Install(plan) => return install(plan, turn),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait,
    GoOn,
    Install(Plan),
}

/// Ports with a link, and how many there are at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) up: usize,
    pub(crate) all: usize,
}

struct Waiting {
    /// The command line names the boot service.
    given: bool,
    may_pool: bool,
    begun: Instant,
    first_address: Option<Instant>,
    asked: Instant,
    said: bool,
    blank: Option<Receiver<bool>>,
    all_blank: Option<bool>,
}

impl Waiting {
    fn new(given: bool, may_pool: bool) -> Waiting {
        let now = Instant::now();
        let (begun, asked) = (now, now);
        Waiting {
            given,
            may_pool,
            begun,
            first_address: None,
            asked,
            said: false,
            blank: None,
            all_blank: None,
        }
    }

    fn next(&mut self, heard: &Heard, links: impl Fn() -> Links) -> Next {
        match &heard.answer {
            Some(Answer::Plan(plan)) if plan.action == "install" => return Next::Install(plan.clone()),
            Some(Answer::Plan(_)) => return Next::GoOn,
            Some(Answer::Refused(why)) => return self.if_blank(&format!("boot service: {}", why.trim())),
            None => {}
        }
        if heard.service.is_some() || self.given {
            return match self.begun.elapsed() > NO_ANSWER {
                true => self.if_blank("the boot service does not answer"),
                false => Next::Wait,
            };
        }
        if heard.leased.is_empty() {
            let limit = if links().all == 0 { OTHER_PORTS } else { NO_ADDRESS };
            return if self.begun.elapsed() > limit { Next::GoOn } else { Next::Wait };
        }
        let since = *self.first_address.get_or_insert_with(Instant::now);
        let all_leased = heard.leased.len() >= links().up;
        if all_leased || since.elapsed() > OTHER_PORTS { Next::GoOn } else { Next::Wait }
    }

    /// Blank drives wait for a plan; with a pool on them the node serves all the same.
    fn if_blank(&mut self, why: &str) -> Next {
        if !self.may_pool {
            return Next::GoOn;
        }
        let looked = self.all_blank.or_else(|| {
            let looking = self.blank.get_or_insert_with(|| {
                let (tell, told) = channel();
                std::thread::spawn(move || tell.send(disks::all_blank(&disks::settled(|_| false))));
                told
            });
            looking.try_recv().ok()
        });
        self.all_blank = looked;
        match looked {
            None => Next::Wait,
            Some(false) => Next::GoOn,
            Some(true) => {
                if !self.said {
                    self.said = true;
                    say(&format_args!(
                        "{why}; all drives here are blank: waiting for what is decided (basalt boot decide)"
                    ));
                }
                if self.asked.elapsed() > ASK_EVERY {
                    self.asked = Instant::now();
                    boot::ask_again();
                }
                Next::Wait
            }
        }
    }
}

/// Until it is done, or the decision changes.
fn install(mut plan: Plan, turn: Turn<'_>) -> Option<Ending> {
    loop {
        if let Err(e) = memory_for_files() {
            say(&format_args!("installing: {e}"));
        }
        let (tell, told) = channel();
        let work = plan.clone();
        std::thread::spawn(move || tell.send(write_disk(&work)));
        let result = loop {
            if let Some(ending) = turn() {
                return Some(ending);
            }
            match told.try_recv() {
                Ok(result) => break result,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break Err("the installer ended early".to_owned()),
            }
        };
        match result {
            Ok(what) => {
                say(&format_args!("{what}: telling the boot service, then starting from it"));
                return Some(told_and_rebooted(&what, turn));
            }
            Err(why) => {
                say(&format_args!("installing failed: {why}"));
                say(&"nothing else is done until another decision is made (basalt boot decide)");
                boot::failed(&format!("installing: {why}"));
            }
        }
        plan = match changed(&plan, turn) {
            Changed::Install(plan) => plan,
            Changed::Ended(ending) => return Some(ending),
            Changed::Local => {
                say(&"boot service: local; rebooting");
                return Some(Ending::Reboot);
            }
            Changed::GoOn => {
                let _ = umount2("/var", MntFlags::empty());
                return None;
            }
        };
    }
}

/// The service must know before the reboot: a node that comes by the network again would be told to install again.
fn told_and_rebooted(what: &str, turn: Turn<'_>) -> Ending {
    let heard = boot::told("installed", what);
    loop {
        if let Some(ending) = turn() {
            return ending;
        }
        if heard.try_recv() != Err(TryRecvError::Empty) {
            return Ending::Reboot;
        }
    }
}

enum Changed {
    Install(Plan),
    Local,
    GoOn,
    Ended(Ending),
}

/// Asks now and then until the answer is another one.
fn changed(before: &Plan, turn: Turn<'_>) -> Changed {
    let mut asked = Instant::now();
    loop {
        if let Some(ending) = turn() {
            return Changed::Ended(ending);
        }
        if asked.elapsed() > ASK_EVERY {
            asked = Instant::now();
            boot::ask_again();
        }
        if let Some(Answer::Plan(plan)) = boot::heard().answer
            && plan != *before
        {
            return match plan.action.as_str() {
                "install" => Changed::Install(plan),
                "local" => Changed::Local,
                _ => Changed::GoOn,
            };
        }
    }
}

/// The bundle is kept in memory while it is written: half of it is the bound, and 1 GiB has room for one.
fn memory_for_files() -> Result<(), String> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if !Path::new("/var/tmp").exists() {
        mount(Some("tmpfs"), "/var", Some("tmpfs"), flags, Some("mode=0755,size=50%"))
            .map_err(|e| format!("tmpfs on /var: {e}"))?;
    }
    for dir in ["/var/tmp", "/var/lib/basalt"] {
        fs::create_dir_all(dir).map_err(|e| format!("{dir}: {e}"))?;
    }
    Ok(())
}

/// All of it but the reboot; what was installed where.
fn write_disk(plan: &Plan) -> Result<String, String> {
    if !Path::new("/sys/firmware/efi").exists() {
        return Err(
            "this node was booted by a BIOS, and its disk boots by UEFI: switch the firmware to UEFI, or decide diskless"
                .to_owned(),
        );
    }
    let named = plan.disk.as_deref();
    let disks = disks::settled(|found| named.is_some() && disks::choose(found, named).is_ok());
    let disk = disks::choose(&disks, named)?;
    let version = plan.version.map(|v| v.map(|n| n.to_string()).join("."));
    let (Some(version), Some(url)) = (version, plan.bundle.as_deref().and_then(Url::parse)) else {
        return Err("the boot service has no image of the version that was decided".to_owned());
    };
    if !disk.blank && !plan.wipe {
        // Said before anything is fetched. The command looks again, and closer.
        say(&format_args!("installing: {disk}"));
    }
    let what = format!("Basalt {version} on {}", describe(disk));
    say(&format_args!("installing {what}: fetching {url}"));
    boot::step("installing", &what);
    fetch(&url)?;
    let device = disk.device().display().to_string();
    let mut arguments = vec!["upgrade", "disk", boot::BUNDLE, "--tenths", "--disk", &device];
    if plan.wipe {
        arguments.push("--wipe");
    }
    let mut tenths = 0;
    let made = programs::run_with(&mut boot::basalt(&arguments), &mut |line| {
        if let Some(now) = percent(line).map(|p| p / 10)
            && now > tenths
        {
            tenths = now;
            say(&format_args!("installing: {} %", now * 10));
            boot::step("installing", &format!("{} %", now * 10));
        }
    });
    let _ = fs::remove_file(boot::BUNDLE);
    made.map_err(|why| {
        let there =
            if why.contains("Basalt already") { "; `basalt boot decide NODE local` boots it" } else { "" };
        format!("{device}: {why}{there}")
    })?;
    nix::unistd::sync();
    Ok(what)
}

fn describe(disk: &Disk) -> String {
    let serial = if disk.serial.is_empty() { String::new() } else { format!(" ({})", disk.serial) };
    format!("{}{serial}", disk.device().display())
}

fn fetch(url: &Url) -> Result<(), String> {
    let mut pause = Duration::from_secs(2);
    for left in (0..FETCH_TRIES).rev() {
        match boot::fetch(url) {
            Ok(()) => break,
            Err(e) if left == 0 => {
                return Err(format!(
                    "{url}: {e}; `basalt upgrade bundle` makes it, it lies beside the images"
                ));
            }
            Err(e) => say(&format_args!("{url}: {e}; trying again")),
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    Ok(())
}

/// How far all of it is, from a line of the command: `writing root 40`.
fn percent(line: &str) -> Option<u32> {
    let (stage, done) = line.trim().rsplit_once(' ')?;
    let done: u32 = done.parse().ok().filter(|d| *d <= 100)?;
    // In the order in which they come; what each takes on a slow disk.
    let (from, to) = match stage {
        "checking" => (0, 20),
        "writing kernel" => (20, 35),
        "writing root" => (35, 80),
        "reading back" => (80, 100),
        _ => return None,
    };
    Some(from + (to - from) * done / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(action: &str) -> Plan {
        Plan::parse(&format!(r#"{{"action":"{action}","version":"1.2.3","disk":"S1","decided_s":4}}"#))
            .unwrap()
    }

    fn links(up: usize, all: usize) -> impl Fn() -> Links {
        move || Links { up, all }
    }

    #[test]
    fn a_plan_is_waited_for_where_there_is_a_service() {
        let mut waiting = Waiting::new(false, true);
        let mut heard = Heard::default();
        assert_eq!(waiting.next(&heard, links(1, 1)), Next::Wait, "no address yet");
        heard.leased.push([1; 6]);
        heard.service = Some("http://10.0.0.1".into());
        assert_eq!(waiting.next(&heard, links(1, 1)), Next::Wait, "no answer yet");
        heard.answer = Some(Answer::Plan(plan("install")));
        assert_eq!(waiting.next(&heard, links(1, 1)), Next::Install(plan("install")));
        heard.answer = Some(Answer::Plan(plan("diskless")));
        assert_eq!(waiting.next(&heard, links(1, 1)), Next::GoOn);
    }

    #[test]
    fn without_a_service_nothing_is_waited_for() {
        let mut waiting = Waiting::new(false, true);
        let mut heard = Heard::default();
        heard.leased.push([1; 6]);
        assert_eq!(waiting.next(&heard, links(2, 2)), Next::Wait, "the other port may know one");
        assert_eq!(waiting.next(&heard, links(1, 2)), Next::GoOn);
        waiting.first_address = Instant::now().checked_sub(OTHER_PORTS * 2);
        assert_eq!(waiting.next(&heard, links(2, 2)), Next::GoOn);
        let mut nobody = Waiting::new(false, true);
        nobody.begun = Instant::now().checked_sub(OTHER_PORTS * 2).unwrap();
        assert_eq!(nobody.next(&Heard::default(), links(0, 0)), Next::GoOn, "no port");
        assert_eq!(nobody.next(&Heard::default(), links(0, 1)), Next::Wait, "a slow one");
        nobody.begun = Instant::now().checked_sub(NO_ADDRESS * 2).unwrap();
        assert_eq!(nobody.next(&Heard::default(), links(0, 1)), Next::GoOn);
    }

    #[test]
    fn without_an_answer_blank_drives_wait_and_a_pool_does_not() {
        let heard = Heard { leased: vec![[1; 6]], service: Some("http://x".into()), answer: None };
        let refused = Heard { answer: Some(Answer::Refused("quarantine".into())), ..heard.clone() };
        let mut waiting = Waiting::new(false, true);
        waiting.begun = Instant::now().checked_sub(NO_ANSWER * 2).unwrap();
        waiting.all_blank = Some(true);
        for heard in [&heard, &refused] {
            assert_eq!(waiting.next(heard, links(1, 1)), Next::Wait);
        }
        assert!(waiting.said);
        waiting.all_blank = Some(false);
        for heard in [&heard, &refused] {
            assert_eq!(waiting.next(heard, links(1, 1)), Next::GoOn);
        }
        // Named on the command line, and no port has an address: there is a service all the same.
        let mut given = Waiting::new(true, true);
        given.begun = waiting.begun;
        given.all_blank = Some(true);
        assert_eq!(given.next(&Heard::default(), links(0, 1)), Next::Wait);
        let mut no_drives = Waiting::new(false, false);
        assert_eq!(no_drives.next(&refused, links(1, 1)), Next::GoOn, "basalt.drives=none");
    }

    #[test]
    fn progress_never_goes_back() {
        let lines = [
            "checking 0",
            "checking 100",
            "writing kernel 50",
            "writing root 0",
            "writing root 90",
            "reading back 100",
        ];
        let all: Vec<u32> = lines.iter().filter_map(|l| percent(l)).collect();
        assert_eq!(all, [0, 20, 27, 35, 75, 100]);
        for odd in ["", "x", "writing root", "writing root 101", "other 5", "{\"version\":1}"] {
            assert_eq!(percent(odd), None, "{odd}");
        }
    }
}
