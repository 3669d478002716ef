//! The `basalt` program against emulated BMCs, with a boot service that sees every boot through.
#![allow(dead_code, unreachable_pub)]

use basalt_boot::decision::{Action, Decisions};
use basalt_boot::event::{Event, Events, Step};
use basalt_boot::node::NodeId;
use basalt_boot::now_s;
use basalt_boot::store::FileStore;
use basalt_redfish_emulator::vendors::Shape;
use basalt_redfish_emulator::{Emulator, Options, Tls};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};

pub const PASSWORD: &str = "calvin-and-hobbes";
pub const SYSTEM: &str = "/redfish/v1/Systems/1";

/// A management station: `$BASALT_DIR`, gone with the test.
pub struct Site {
    pub dir: PathBuf,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Site {
    pub fn new(name: &str) -> Site {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("basalt-node-{}-{n}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Site { dir }
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.args(["--dir", &self.dir.display().to_string(), "node"]).args(args);
        command
            .env("BASALT_NODE_PASSPHRASE", "test")
            .env("BASALT_BMC_PASSWORD", PASSWORD)
            .env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// Exit code, standard output, standard error.
    pub async fn run(&self, args: &[&str]) -> (i32, String, String) {
        parts(self.command(args).output().await.unwrap())
    }

    pub async fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args).await;
        assert_eq!(code, 0, "{args:?}\n{out}\n{err}");
        out
    }

    pub async fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&all).await).unwrap()
    }

    pub async fn state(&self, node: &str) -> String {
        self.json(&["show", node]).await["node"]["state"].as_str().unwrap().to_owned()
    }

    pub async fn add(&self, name: &str, bmc: &Emulator) {
        let url = url(bmc);
        self.ok(&["add", name, "--bmc", &url, "--user", "root", "--accept-certificate"]).await;
    }
}

pub fn parts(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

pub fn url(bmc: &Emulator) -> String {
    format!("https://127.0.0.1:{}", bmc.port())
}

pub async fn bmc(number: u32) -> Arc<Emulator> {
    bmc_with(number, Options { tls: Tls::On, ..Options::default() }).await
}

pub async fn bmc_with(number: u32, options: Options) -> Arc<Emulator> {
    let mut shape = Shape::plain(number);
    shape.rack = Some(format!("R{}", number % 4));
    Arc::new(Emulator::start_with(shape.tree(), options).await)
}

/// Requests that change something, but logging in and out.
pub fn changes(bmc: &Emulator) -> Vec<String> {
    let all = bmc.seen().into_iter();
    let changing = all.filter(|s| s.method != "GET" && s.method != "HEAD" && !s.path.contains("/Sessions"));
    changing.map(|s| format!("{} {}", s.method, s.path)).collect()
}

/// What network, boot service and image do for a server that boots from the network: its events, as decided.
pub fn boot_service(site: &Site, number: u32, bmc: Arc<Emulator>) -> tokio::task::JoinHandle<()> {
    let store = FileStore::open(&site.dir.join("boot")).unwrap();
    let node: NodeId = Shape::plain(number).macs[0].parse().unwrap();
    tokio::spawn(async move {
        let mut handled = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let boots = bmc.boots();
            let Some(boot) = boots.get(handled) else { continue };
            handled += 1;
            if boot.target != "Pxe" {
                continue;
            }
            let action = store.for_node(&node).await.unwrap().map_or(Action::Quarantine, |d| d.action);
            let steps: &[Step] = match action {
                Action::Diskless => {
                    &[Step::Asked, Step::Leased, Step::Fetching, Step::Fetched, Step::Plan, Step::Ready]
                }
                Action::Install => &[
                    Step::Asked,
                    Step::Leased,
                    Step::Fetching,
                    Step::Plan,
                    Step::Installing,
                    Step::Installed,
                    Step::Ready,
                ],
                Action::Local | Action::Quarantine => &[Step::Asked, Step::Ignored],
            };
            for step in steps {
                tokio::time::sleep(Duration::from_millis(150)).await;
                if bmc.boots().len() > handled {
                    break;
                }
                // A node that was told to start from its disk: wait until it was.
                while *step == Step::Ready
                    && action == Action::Install
                    && store.for_node(&node).await.unwrap().is_none_or(|d| d.action != Action::Local)
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                store.record(Event::new(now_s(), node, *step, "")).await.unwrap();
            }
        }
    })
}
