//! What a supervisor sees: logs on standard error, sd_notify, signals.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::IsTerminal;
use std::time::Duration;

pub(crate) fn start_logging(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    Ok(())
}

/// The first signal drains; a second one ends the process at once, which is safe at any moment.
pub(crate) fn drain_on_signals() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut draining = false;
        for _ in signals.forever() {
            if draining {
                std::process::exit(130);
            }
            draining = true;
            tracing::info!("stopping: flushing what is in memory");
            basalt_reactor::real::request_drain();
        }
    })?;
    Ok(())
}

/// Tells systemd (or another supervisor) that the node serves, and keeps its watchdog fed from the reactor, so that a
/// reactor that hangs is noticed.
pub(crate) fn ready() {
    // Without NOTIFY_SOCKET there is no supervisor to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        basalt_reactor::spawn(async move {
            loop {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                basalt_reactor::sleep((limit / 2).max(Duration::from_millis(100))).await;
            }
        });
    }
}

pub(crate) fn stopping() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
}
