//! The guest: this program as init.

mod bench;
mod init;
mod tests;
mod vm;

use crate::protocol::Line;
use std::collections::BTreeMap;
use std::time::Instant;

/// Never returns: the host ends the machine.
pub(crate) fn main() -> ! {
    let outcome = std::panic::catch_unwind(|| {
        init::bring_up()?;
        Line::Up.print();
        let settings = settings();
        let get = |name: &str| settings.get(name).cloned().unwrap_or_default();
        match get("basalt.mode").as_str() {
            "bench" => bench::run(get("basalt.seconds").parse().unwrap_or(5)),
            _ => {
                tests::run(&get("basalt.filter"));
                Ok(())
            }
        }
    });
    let why = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e),
        Err(panic) => Some(words_of(&*panic)),
    };
    if let Some(why) = why {
        Line::Failed { test: "guest".to_owned(), why }.print();
    }
    Line::Done.print();
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

fn settings() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    text.split_whitespace()
        .filter_map(|w| w.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Runs one test and prints how it went.
fn test(name: &str, filter: &str, body: impl FnOnce() -> Result<(), String> + std::panic::UnwindSafe) {
    if !name.contains(filter) {
        return;
    }
    let started = Instant::now();
    let outcome = std::panic::catch_unwind(body);
    let test = name.to_owned();
    match outcome {
        Ok(Ok(())) => Line::Passed { test, ms: started.elapsed().as_millis() as u64 },
        Ok(Err(why)) => Line::Failed { test, why },
        Err(panic) => Line::Failed { test, why: words_of(&*panic) },
    }
    .print();
}
