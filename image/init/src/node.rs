//! Stage 2: from the verified root to a node that serves, and its life until power-off.

use crate::cmdline::Cmdline;
use crate::console::say;
use crate::modules::Modules;
use crate::supervise::Service;
use crate::watchdog::Watchdog;
use crate::{boot, drives, install, net, power, programs, secret, services, slots, state};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// A slot on trial is blessed when everything has been ready, and every check has passed, for this long …
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// … and given up when that has not come this long after the start, unless `basalt.trial=` says otherwise.
const TRIAL_LIMIT: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Reboot,
    PowerOff,
}

pub(crate) fn run() -> Result<(), String> {
    let cmdline = Cmdline::read();
    let version = version();
    let root_device = fs::read_to_string("/run/root-device").unwrap_or_default();
    let on_disk = !root_device.starts_with("/dev/loop");
    let place = if on_disk { root_device.as_str() } else { "memory (network boot)" };
    mount_rest();
    say(&format_args!("Basalt {version}, root from {place}, lockdown {}", lockdown()));
    let mut signals = block_signals()?;
    // Drivers first: everything else waits for devices.
    let mut modules = Modules::open()?;
    modules.load_for_devices();
    for name in fs::read_to_string("/usr/lib/basalt/modules-load").unwrap_or_default().lines() {
        modules.load(name);
    }
    let mut watchdog = Watchdog::start(&mut modules);
    boot::start(&cmdline, boot::Running { version: version.clone(), on_disk });
    let with_network = cmdline.get("net") != Some("off");
    net::start(with_network);
    if !on_disk && with_network {
        let may_pool = cmdline.get("drives") != Some("none");
        let ending = install::before_drives(cmdline.get("boot").is_some(), may_pool, &mut || {
            reap(&mut []);
            watchdog.feed();
            std::thread::sleep(TICK);
            asked_to_end(&mut signals)
        });
        if let Some(ending) = ending {
            return end(ending, &mut [], &mut watchdog);
        }
    }
    let state_is_kept = state::mount_var(on_disk)?;
    secret::prepare(state_is_kept);
    drives::prepare(&cmdline, &mut modules)?;
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_CORE] {
        let limit = if resource == Resource::RLIMIT_CORE { 0 } else { RLIM_INFINITY };
        setrlimit(resource, limit, limit).map_err(|e| format!("setrlimit: {e}"))?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, 1 << 20, 1 << 20).map_err(|e| format!("setrlimit: {e}"))?;
    let on_trial = on_disk
        && slots::on_trial(&version).unwrap_or_else(|e| {
            say(&format_args!("boot counting: {e}"));
            false
        });
    write_boot_facts(&version, &cmdline, &root_device, on_disk, on_trial);
    let mut services = Vec::new();
    for spec in services::present() {
        services.push(Service::new(spec, environment(&cmdline))?);
    }
    let limit = cmdline.number("trial").map_or(TRIAL_LIMIT, |s| Duration::from_secs(s.clamp(10, 3600)));
    let trial = on_trial.then_some(limit);
    let ending = supervise(&mut services, &mut signals, &mut watchdog, &version, trial);
    end(ending, &mut services, &mut watchdog)
}

fn end(ending: Ending, services: &mut [Service], watchdog: &mut Watchdog) -> Result<(), String> {
    shut_down(services, watchdog);
    let Err(e) = match ending {
        Ending::Reboot => power::restart(),
        Ending::PowerOff => power::off(),
    };
    Err(format!("reboot: {e}"))
}

/// By the signals that process 1 gets.
fn asked_to_end(signals: &mut SignalFd) -> Option<Ending> {
    while let Ok(Some(info)) = signals.read_signal() {
        match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGINT | Signal::SIGTERM) => {
                say(&"reboot was asked for");
                return Some(Ending::Reboot);
            }
            Ok(Signal::SIGUSR2) => {
                say(&"power-off was asked for");
                return Some(Ending::PowerOff);
            }
            _ => {}
        }
    }
    None
}

/// What stage 1 did not need.
fn mount_rest() {
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let hugepages = format!("uid={},gid={},mode=0750", services::BASALT_UID, services::BASALT_GID);
    for (kind, dir, data) in [
        ("tmpfs", "/tmp", "mode=1777,size=16m"),
        ("tmpfs", "/dev/shm", "mode=1777,size=64m"),
        ("hugetlbfs", "/dev/hugepages", hugepages.as_str()),
        ("securityfs", "/sys/kernel/security", ""),
        ("efivarfs", "/sys/firmware/efi/efivars", ""),
        ("configfs", "/sys/kernel/config", ""),
    ] {
        let _ = fs::create_dir_all(dir);
        // Each may be missing: no EFI, no hugepages.
        let _ = mount(Some(kind), dir, Some(kind), strict, Some(data));
    }
    for dir in ["/run/basalt", "/run/lock"] {
        let _ = fs::create_dir_all(dir);
    }
    // The kernel's own idea of how a hang and a panic end.
    for (file, value) in [("kernel/panic", "10"), ("kernel/panic_on_oops", "1"), ("vm/panic_on_oom", "0")] {
        let _ = fs::write(format!("/proc/sys/{file}"), value);
    }
}

fn version() -> String {
    let text = fs::read_to_string("/usr/lib/os-release").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VERSION_ID="));
    line.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn lockdown() -> String {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    text.split_once('[')
        .and_then(|(_, t)| t.split_once(']'))
        .map_or("not seen".to_owned(), |(mode, _)| mode.to_owned())
}

fn environment(cmdline: &Cmdline) -> Vec<(String, String)> {
    let fixed = [("PATH", "/usr/bin:/usr/sbin"), ("BASALT_DIR", "/var/lib/basalt"), ("NO_COLOR", "1")];
    fixed.into_iter().chain(cmdline.environment()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn write_boot_facts(version: &str, cmdline: &Cmdline, root_device: &str, on_disk: bool, on_trial: bool) {
    let root_hash = cmdline.get("root").and_then(|r| r.split(':').next()).unwrap_or_default();
    let esp = crate::block::partitions("basalt-esp").into_iter().next();
    let esp = esp
        .filter(|_| on_disk)
        .map_or("null".to_owned(), |p| format!("{:?}", p.device().display().to_string()));
    let boot = if on_disk { "slot" } else { "netboot" };
    // None of these holds a character that JSON escapes.
    let text = format!(
        "{{\"version\":\"{version}\",\"root_hash\":\"{root_hash}\",\"root_device\":\"{root_device}\",\"boot\":\"{boot}\",\"esp_device\":{esp},\"counted\":{on_trial}}}\n"
    );
    if let Err(e) = fs::write("/run/basalt/boot.json", text) {
        say(&format_args!("/run/basalt/boot.json: {e}"));
    }
}

fn block_signals() -> Result<SignalFd, String> {
    // Ctrl-Alt-Del becomes SIGINT to us, instead of a reboot on the spot.
    let _ = set_cad_enabled(false);
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR2, Signal::SIGCHLD] {
        set.add(signal);
    }
    set.thread_block().map_err(|e| format!("signals: {e}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| format!("signals: {e}"))
}

/// Whether the version that runs is to stay.
enum Trial {
    /// It stays, and the boot service knows.
    Over,
    /// Since when.
    Running(Instant),
    /// `basalt upgrade bless` looks at it; what it says comes here.
    Looking(Instant, Receiver<Result<(), String>>),
}

/// Until somebody asks for a reboot or power-off, or a slot on trial is given up.
fn supervise(
    services: &mut [Service],
    signals: &mut SignalFd,
    watchdog: &mut Watchdog,
    version: &str,
    on_trial: Option<Duration>,
) -> Ending {
    let limit = on_trial.unwrap_or(TRIAL_LIMIT);
    let mut trial = on_trial.map_or(Trial::Over, |_| Trial::Running(Instant::now()));
    let mut was_ready = false;
    loop {
        if let Some(ending) = asked_to_end(signals) {
            return ending;
        }
        reap(services);
        let now = Instant::now();
        for service in services.iter_mut() {
            service.tick(now);
        }
        watchdog.feed();
        let ready = services.iter().all(|s| s.ready_since().is_some());
        if ready && !was_ready {
            boot::ready(version);
            if matches!(trial, Trial::Over) {
                boot::healthy();
            }
        }
        was_ready = ready;
        trial = match trial {
            Trial::Over => Trial::Over,
            Trial::Running(since) | Trial::Looking(since, _) if now > since + limit => {
                let why =
                    format!("version {version} is on trial and was not healthy within {} s", limit.as_secs());
                say(&format_args!("{why}: rebooting, the boot loader counts"));
                boot::failed(&why);
                return Ending::Reboot;
            }
            Trial::Running(since) if ready => {
                let (tell, told) = channel();
                std::thread::spawn(move || {
                    let left = (since + limit).saturating_duration_since(Instant::now());
                    let _ = tell.send(slots::bless(HEALTHY_AFTER, left));
                });
                Trial::Looking(since, told)
            }
            Trial::Looking(since, told) => match told.try_recv() {
                Ok(Ok(())) => {
                    say(&format_args!("this slot is healthy: blessed as basalt_{version}.efi"));
                    boot::healthy();
                    Trial::Over
                }
                Ok(Err(why)) => {
                    say(&format_args!("this slot could not be blessed: {why}"));
                    Trial::Running(since)
                }
                Err(_) => Trial::Looking(since, told),
            },
            other => other,
        };
        std::thread::sleep(TICK);
    }
}

fn reap(services: &mut [Service]) {
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("{signal}")),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        let now = Instant::now();
        if !services.iter_mut().any(|s| s.ended(pid, &how, now)) {
            // Neither: an orphan that came to process 1.
            programs::ended(pid, &how);
        }
    }
}

/// Drains in reverse order of start; each service has its own limit, so this ends.
fn shut_down(services: &mut [Service], watchdog: &mut Watchdog) {
    for index in (0..services.len()).rev() {
        services[index].stop(Instant::now());
        while !services[index].is_stopped() {
            reap(services);
            services[index].tick(Instant::now());
            watchdog.feed();
            std::thread::sleep(TICK);
        }
    }
    nix::unistd::sync();
    let _ = nix::mount::umount2("/var", nix::mount::MntFlags::empty());
    say(&"stopped");
}
