//! Programs that run to their end while the node serves. Init reaps every process in one place, so whoever waits for one is
//! told from there.

use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Processes that somebody waits for; how each ended, once it has.
static RUNNING: Mutex<BTreeMap<i32, Option<Ended>>> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();
/// The last of what a program says is kept.
const MOST_WORDS_BYTES: usize = 2048;

type Ended = Result<(), String>;

fn running() -> MutexGuard<'static, BTreeMap<i32, Option<Ended>>> {
    RUNNING.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs a program and returns what it said on standard output; the error has its last words.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    run_with(command, &mut |_| ())
}

/// The same; `line` hears each line of standard output as it comes.
pub(crate) fn run_with(command: &mut Command, line: &mut dyn FnMut(&str)) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = {
        // Held, so that it cannot end before it is known here.
        let mut running = running();
        let child = crate::sys::unblock_signals(command).spawn().map_err(|e| format!("{program}: {e}"))?;
        running.insert(child.id() as i32, None);
        child
    };
    let pid = child.id() as i32;
    let errors = child.stderr.take().map(|e| std::thread::spawn(move || last_words(e, &mut |_| ())));
    let output = child.stdout.take().map(|o| last_words(o, line)).unwrap_or_default();
    let errors = errors.and_then(|e| e.join().ok()).unwrap_or_default();
    let mut running = running();
    loop {
        if let Some(ended) = running.get_mut(&pid).and_then(Option::take) {
            running.remove(&pid);
            return ended.map(|()| output).map_err(|how| format!("{} ({how})", errors.trim()));
        }
        running = CHANGED.wait(running).unwrap_or_else(|e| e.into_inner());
    }
}

/// A process ended; true if somebody here waits for it.
pub(crate) fn ended(pid: Pid, how: &str) -> bool {
    let mut running = running();
    let Some(entry) = running.get_mut(&pid.as_raw()) else { return false };
    *entry = Some(if how == "exit code 0" { Ok(()) } else { Err(how.to_owned()) });
    CHANGED.notify_all();
    true
}

fn last_words(mut source: impl Read, line: &mut dyn FnMut(&str)) -> String {
    let (mut kept, mut buffer, mut begun) = (Vec::new(), [0; 4096], Vec::new());
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        kept.extend(&buffer[..length]);
        for byte in &buffer[..length] {
            match byte {
                b'\n' => {
                    line(&String::from_utf8_lossy(&begun));
                    begun.clear();
                }
                // A line without an end is heard as far as this.
                byte if begun.len() < MOST_WORDS_BYTES => begun.push(*byte),
                _ => {}
            }
        }
        let excess = kept.len().saturating_sub(MOST_WORDS_BYTES);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    /// Reaps as init does, but only what this test started.
    fn reap(name: &'static str) {
        std::thread::spawn(move || {
            loop {
                let pid =
                    running().iter().find(|(_, ended)| ended.is_none()).map(|(pid, _)| Pid::from_raw(*pid));
                if let Some(pid) = pid
                    && let Ok(WaitStatus::Exited(pid, code)) = waitpid(pid, None)
                {
                    assert!(ended(pid, &format!("exit code {code}")), "{name}");
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
    }

    #[test]
    fn output_or_last_words() {
        reap("good");
        assert_eq!(run(Command::new("/bin/sh").args(["-c", "echo fine"])).as_deref(), Ok("fine\n"));
        reap("lines");
        let mut lines = Vec::new();
        let script = "echo one; sleep 0.1; echo two three; printf rest";
        run_with(Command::new("/bin/sh").args(["-c", script]), &mut |l| lines.push(l.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two three"]);
        reap("bad");
        let why = run(Command::new("/bin/sh").args(["-c", "echo no room >&2; exit 16"])).unwrap_err();
        assert_eq!(why, "no room (exit code 16)");
        // A child hears the signals that init blocks.
        let mut blocked = nix::sys::signal::SigSet::empty();
        blocked.add(nix::sys::signal::Signal::SIGTERM);
        blocked.thread_block().unwrap();
        reap("masked");
        let mask = run(Command::new("/bin/sh").args(["-c", "grep SigBlk /proc/self/status"])).unwrap();
        assert_eq!(mask.split_whitespace().last(), Some("0000000000000000"));
        assert!(run(&mut Command::new("/no/such")).unwrap_err().starts_with("/no/such: "));
        assert!(!ended(Pid::from_raw(1), "exit code 0"));
        assert!(running().is_empty());
    }
}
