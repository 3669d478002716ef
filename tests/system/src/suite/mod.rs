//! The tests, by group. Tests of a group share one server and one guest; a failure gives the next a fresh pair.

mod bad_input;
mod chaos;
mod client;
mod full;
mod restart;
mod wire_input;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::server::{BasaltServer, Binaries, GaneshaServer, Server};
use crate::uml::{Guest, GuestConfig, NfsVersion};

/// Result of a test: a line about it, or what went wrong.
pub type Verdict = Result<String, String>;

/// Which server is tested.
#[derive(Debug, Clone)]
pub enum Target {
    /// Ours.
    Basalt(Binaries),
    /// nfs-ganesha, to test the tests.
    Ganesha,
}

/// What all tests share.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The server under test.
    pub target: Target,
    /// Where drives and exports lie while a test runs.
    pub work_dir: PathBuf,
    /// Logs, kept.
    pub log_dir: PathBuf,
    /// How long random operations go on, per version.
    pub chaos_seconds: u64,
    /// Seed of the random operations.
    pub seed: u64,
    /// Whether servers are killed during random operations.
    pub kill: bool,
}

/// One test.
pub struct Test {
    /// Group and name, `group/name`.
    pub name: &'static str,
    /// Whether it makes sense for a server that is not ours.
    pub any_server: bool,
    run: fn(&mut Fixture) -> Verdict,
}

const fn any(name: &'static str, run: fn(&mut Fixture) -> Verdict) -> Test {
    Test { name, any_server: true, run }
}

const fn ours(name: &'static str, run: fn(&mut Fixture) -> Verdict) -> Test {
    Test { name, any_server: false, run }
}

/// All tests, in the order in which they run.
pub const TESTS: &[Test] = &[
    any("client/mounts", client::mounts),
    any("client/posix v4.2", |f| client::posix(f, NfsVersion::V42)),
    any("client/posix v4.1", |f| client::posix(f, NfsVersion::V41)),
    any("client/posix v3", |f| client::posix(f, NfsVersion::V3)),
    any("client/tar v4.2", |f| client::tar(f, NfsVersion::V42)),
    any("client/tar v3", |f| client::tar(f, NfsVersion::V3)),
    any("client/rsync v4.2", |f| client::rsync(f, NfsVersion::V42)),
    any("client/rsync v3", |f| client::rsync(f, NfsVersion::V3)),
    any("client/git v4.2", |f| client::git(f, NfsVersion::V42)),
    any("client/git v3", |f| client::git(f, NfsVersion::V3)),
    any("client/sqlite v4.2", |f| client::sqlite(f, NfsVersion::V42)),
    any("client/sqlite v3", |f| client::sqlite(f, NfsVersion::V3)),
    any("client/10000 files v4.2", |f| client::many_files(f, NfsVersion::V42)),
    any("client/10000 files v3", |f| client::many_files(f, NfsVersion::V3)),
    any("client/large file v4.2", |f| client::large_file(f, NfsVersion::V42)),
    any("client/large file v3", |f| client::large_file(f, NfsVersion::V3)),
    any("client/one version sees the other", client::across_versions),
    any("client/df is true", client::df),
    ours("client/several exports", client::several_exports),
    any("chaos/v4.2", |f| chaos::run(f, NfsVersion::V42)),
    any("chaos/v3", |f| chaos::run(f, NfsVersion::V3)),
    ours("restart/full journal", restart::full_journal),
    ours("restart/big pool", restart::big_pool),
    ours("restart/clean stop", restart::clean_stop),
    any("wire/malformed RPC", wire_input::malformed),
    any("wire/forged and stale handles", wire_input::handles),
    ours("full/pool", full::pool),
    ours("full/host disk", full::host_disk),
    ours("input/second start", bad_input::second_start),
    ours("input/port in use", bad_input::port_in_use),
    ours("input/truncated drive", bad_input::truncated_drive),
    ours("input/foreign drive", bad_input::foreign_drive),
    ours("input/duplicate drive", bad_input::duplicate_drive),
    ours("input/drive with a file system", bad_input::drive_with_a_file_system),
    ours("input/too many drives lost", bad_input::too_many_lost),
    ours("input/impossible schemes", bad_input::impossible_schemes),
    ours("input/small drives", bad_input::small_drives),
];

/// A server and a guest, made when a test first asks for them.
pub struct Fixture {
    /// What all tests share.
    pub environment: Environment,
    group: String,
    generation: u32,
    server: Option<Box<dyn Server>>,
    guest: Option<Guest>,
}

impl Fixture {
    fn new(environment: Environment, group: &str) -> Self {
        Self { environment, group: group.to_owned(), generation: 0, server: None, guest: None }
    }

    /// A name no other fixture part has.
    fn label(&mut self) -> String {
        self.generation += 1;
        format!("{}-{}", self.group.replace(['/', ' '], "-"), self.generation)
    }

    /// A server of ours that does not run yet, in an empty directory.
    pub fn new_basalt(&mut self) -> Result<BasaltServer, String> {
        let Target::Basalt(binaries) = self.environment.target.clone() else {
            return Err("this test is for our own server".into());
        };
        let label = self.label();
        let dir = self.environment.work_dir.join(&label);
        let _ = fs::remove_dir_all(&dir);
        let log = self.environment.log_dir.join(format!("{label}.dataplane.log"));
        let _ = fs::remove_file(&log);
        BasaltServer::new(binaries, dir, log)
    }

    /// The running server.
    pub fn server(&mut self) -> Result<&mut dyn Server, String> {
        if self.server.is_none() {
            let mut server: Box<dyn Server> = match self.environment.target {
                Target::Basalt(_) => Box::new(self.new_basalt()?),
                Target::Ganesha => {
                    let label = self.label();
                    Box::new(GaneshaServer::new(self.environment.work_dir.join(label))?)
                }
            };
            server.start()?;
            self.server = Some(server);
        }
        Ok(self.server.as_mut().expect("just made").as_mut())
    }

    /// Our running server.
    pub fn basalt(&mut self) -> Result<&mut BasaltServer, String> {
        self.server()?.as_basalt().ok_or_else(|| "this test is for our own server".into())
    }

    /// Takes a server that a test prepared itself, running.
    pub fn use_server(&mut self, server: impl Server + 'static) {
        self.guest = None;
        self.server = Some(Box::new(server));
    }

    /// The running guest.
    pub fn guest(&mut self) -> Result<&mut Guest, String> {
        Ok(self.both()?.1)
    }

    /// The server and the guest, both running.
    pub fn both(&mut self) -> Result<(&mut dyn Server, &mut Guest), String> {
        let server = self.server()?;
        let (server_port, mount_port) = (server.port(), server.mount_port());
        if self.guest.is_none() {
            let name = self.label();
            let config =
                GuestConfig { server_port, mount_port, log_dir: self.environment.log_dir.clone(), name };
            self.guest = Some(Guest::boot(&config).map_err(|e| format!("boot a guest: {e}"))?);
        }
        let server = self.server.as_mut().expect("made above").as_mut();
        Ok((server, self.guest.as_mut().expect("just made")))
    }

    /// Mounts the export with a version, once, and says where.
    pub fn mount(&mut self, version: NfsVersion) -> Result<String, String> {
        let (server, guest) = self.both()?;
        let target = format!("/mnt/{}", version.name());
        let export = server.export();
        let mounts = guest.shell("cat /proc/mounts", Duration::from_secs(20))?;
        if !mounts.contains(&format!(" {target} ")) {
            guest.mount(version, &export, &target)?;
        }
        Ok(target)
    }

    /// An empty directory on a mount for one test.
    pub fn directory(&mut self, version: NfsVersion, name: &str) -> Result<String, String> {
        let dir = format!("{}/{name}-{}", self.mount(version)?, version.name());
        self.guest()?.shell(&format!("rm -rf '{dir}'; mkdir '{dir}'"), Duration::from_secs(60))?;
        Ok(dir)
    }
}

/// Runs the tests whose name contains one of the filters; how many passed and failed.
pub fn run(environment: &Environment, filters: &[String]) -> (usize, usize) {
    let chosen: Vec<&Test> = TESTS
        .iter()
        .filter(|t| t.any_server || matches!(environment.target, Target::Basalt(_)))
        .filter(|t| filters.is_empty() || filters.iter().any(|f| t.name.contains(f.as_str())))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    let mut fixture: Option<Fixture> = None;
    for test in chosen {
        // Only the client's tests leave the server as they found it.
        let group = if test.name.starts_with("client/") { "client" } else { test.name };
        if fixture.as_ref().is_none_or(|f| f.group != group) {
            fixture = None;
        }
        let fixture_now = fixture.get_or_insert_with(|| Fixture::new(environment.clone(), group));
        let started = Instant::now();
        let result = (test.run)(fixture_now);
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(detail) => {
                passed += 1;
                let detail = if detail.is_empty() { detail } else { format!(": {}", detail.trim_end()) };
                println!("{} ... ok ({seconds:.1} s){detail}", test.name);
            }
            Err(error) => {
                failed += 1;
                println!(
                    "{} ... FAILED ({seconds:.1} s)\n    {}",
                    test.name,
                    error.trim_end().replace('\n', "\n    ")
                );
                fixture = None;
            }
        }
    }
    (passed, failed)
}
