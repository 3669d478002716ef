//! The programs that the node runs.

use std::path::Path;
use std::time::Duration;

pub(crate) struct ServiceSpec {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    /// None: it feeds no watchdog.
    pub(crate) watchdog: Option<Duration>,
    /// How long it may take to say READY before it counts as hung.
    pub(crate) start_limit: Duration,
    /// How long it may drain before it is killed.
    pub(crate) stop_limit: Duration,
}

/// The image's users; `/etc/passwd` says the same.
pub(crate) const BASALT_UID: u32 = 990;
pub(crate) const BASALT_GID: u32 = 990;

const DATAPLANE: ServiceSpec = ServiceSpec {
    name: "dataplane",
    program: "/usr/bin/basalt-dataplane",
    watchdog: Some(Duration::from_secs(30)),
    // An import replays journals; on a large pool with slow drives that takes minutes.
    start_limit: Duration::from_secs(600),
    stop_limit: Duration::from_secs(60),
};

const AGENT: ServiceSpec = ServiceSpec {
    name: "agent",
    program: "/usr/bin/basalt-agent",
    watchdog: Some(Duration::from_secs(60)),
    start_limit: Duration::from_secs(120),
    stop_limit: Duration::from_secs(20),
};

/// What is in this image, in order of start.
pub(crate) fn present() -> Vec<ServiceSpec> {
    [DATAPLANE, AGENT].into_iter().filter(|s| Path::new(s.program).exists()).collect()
}
