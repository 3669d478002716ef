//! Others' programs against the emulator, so that it is not merely consistent with our client; and our client against others' BMC.
//!
//! They are Python programs in a virtual environment beside the build, and Debian's `redfishtool`. Where they cannot be installed the
//! tests say so and pass.

use basalt_redfish::model::{BootTarget, OverrideEnabled, PowerState};
use basalt_redfish::{Bmc, BootOverride, Client, Connection, Credentials, Limits, PowerAction, Trust};
use basalt_redfish_emulator::{Emulator, Options, Tree, vendors};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use tokio::process::{Child, Command};

const PACKAGES: &[&str] =
    &["sushy==5.14.0", "redfish==3.4.2", "redfish-service-validator==3.1.8", "sushy-tools==2.2.0"];
const SCHEMAS: &str = "nv-redfish-schema = \"=0.22.1\"";

fn temporary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn run(program: &Path, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new(program);
    command.args(arguments).output().is_ok_and(|output| output.status.success())
}

/// The virtual environment's programs; None where PyPI cannot be reached.
async fn programs() -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let make = || {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let venv = temporary().join("venv-redfish");
        let (python, ready) = (venv.join("bin/python"), venv.join(PACKAGES.join("_")));
        if !ready.exists() {
            let mut arguments = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            arguments.extend(PACKAGES);
            let made = run("python3".as_ref(), &["-m", "venv", venv.to_str()?]) && run(&python, &arguments);
            if !made || std::fs::write(&ready, "").is_err() {
                eprintln!("skipped: {} cannot be installed from PyPI", PACKAGES.join(", "));
                return None;
            }
        }
        Some(venv.join("bin"))
    };
    tokio::task::spawn_blocking(make).await.unwrap()
}

async fn emulator(tree: Tree) -> Emulator {
    Emulator::start(tree).await
}

/// Runs a program to its end; its output is the message where it fails.
async fn succeeds(mut command: Command) -> String {
    let output = command.kill_on_drop(true).stdin(Stdio::null()).output().await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

fn script(programs: &Path, name: &str, emulator: &Emulator) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent_support");
    let options = Options::default();
    let mut command = Command::new(programs.join("python"));
    command
        .arg(folder.join(name))
        .arg(format!("http://{}", emulator.address()))
        .args([options.user, options.password]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sushy_works_with_the_emulator() {
    let Some(programs) = programs().await else { return };
    for tree in [vendors::plain(1), vendors::dell(1).0] {
        let emulator = emulator(tree).await;
        succeeds(script(&programs, "sushy_client.py", &emulator)).await;
        let targets: Vec<String> = emulator.boots().into_iter().map(|boot| boot.target).collect();
        assert_eq!(targets, ["Pxe", "None"]);
        assert_eq!(emulator.open_sessions(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dmtfs_python_library_works_with_the_emulator() {
    let Some(programs) = programs().await else { return };
    let emulator = emulator(vendors::plain(1)).await;
    succeeds(script(&programs, "dmtf_client.py", &emulator)).await;
    assert_eq!(emulator.boots().len(), 1);
    assert_eq!(emulator.open_sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redfishtool_works_with_the_emulator() {
    if !run("redfishtool".as_ref(), &["-h"]) {
        eprintln!("skipped: redfishtool is not installed");
        return;
    }
    let emulator = emulator(vendors::plain(1)).await;
    let options = Options::default();
    let call = async |auth: &str, arguments: &[&str]| {
        let mut command = Command::new("redfishtool");
        let host = emulator.address().to_string();
        command.args(["-r", &host, "-u", &options.user, "-p", &options.password, "-A", auth, "-S", "Never"]);
        command.args(arguments);
        succeeds(command).await
    };
    for auth in ["Basic", "Session"] {
        let text = call(auth, &["Systems", "-1"]).await;
        assert!(text.contains("CN00000001"), "{text}");
    }
    call("Session", &["Systems", "-1", "setBootOverride", "Once", "Pxe"]).await;
    call("Session", &["Systems", "-1", "reset", "On"]).await;
    call("Basic", &["Systems", "-1", "setAssetTag", "rack 7"]).await;
    call("Basic", &["Chassis", "-1"]).await;
    call("Basic", &["Managers", "-1", "Logs"]).await;
    call("Basic", &["AccountService", "adduser", "basalt", "long-enough", "Administrator"]).await;
    assert_eq!(emulator.boots()[0].target, "Pxe");
    assert_eq!(emulator.resource("/redfish/v1/Systems/1").unwrap()["AssetTag"], "rack 7");
    assert_eq!(emulator.open_sessions(), 0);
}

/// The DMTF's schemas, out of a crate that carries them; None where crates.io cannot be reached.
async fn schemas() -> Option<PathBuf> {
    let make = || {
        let folder = temporary().join("redfish-schemas");
        let found = folder.join("vendor/nv-redfish-schema/redfish-csdl/csdl");
        if found.is_dir() {
            return Some(found);
        }
        std::fs::create_dir_all(folder.join("src")).ok()?;
        let manifest = format!(
            "[package]\nname = \"schemas\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n{SCHEMAS}\n[workspace]\n"
        );
        std::fs::write(folder.join("Cargo.toml"), manifest).ok()?;
        std::fs::write(folder.join("src/lib.rs"), "").ok()?;
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["vendor", "--quiet", "vendor"]).current_dir(&folder).stdout(Stdio::null());
        let vendored = cargo.status().is_ok_and(|status| status.success());
        Some(found).filter(|found| vendored && found.is_dir())
    };
    tokio::task::spawn_blocking(make).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_validator_finds_no_error() {
    let Some(programs) = programs().await else { return };
    let Some(schemas) = schemas().await else {
        eprintln!("skipped: the Redfish schemas cannot be fetched from crates.io");
        return;
    };
    // The validator reads its schemas anew each time, some ten seconds: those that differ most, and all where asked for.
    let mut trees =
        vec![("plain", vendors::plain(1)), ("dell", vendors::dell(1).0), ("ami", vendors::ami(1).0)];
    if std::env::var("BASALT_REDFISH_VALIDATE").is_ok_and(|which| which == "all") {
        trees.push(("hpe", vendors::hpe(1).0));
        trees.push(("lenovo", vendors::lenovo(1).0));
        trees.push(("supermicro", vendors::supermicro(1).0));
        trees.push(("openbmc", vendors::openbmc(1).0));
    }
    let logs = temporary().join(format!("validator-{}", std::process::id()));
    for (name, tree) in trees {
        let emulator = emulator(tree).await;
        populate(&emulator).await;
        let options = Options::default();
        let folder = logs.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(programs.join("rf_service_validator"));
        command.current_dir(&folder).args(["--rhost", &format!("http://{}", emulator.address())]);
        command.args([
            "--user",
            &options.user,
            "--password",
            &options.password,
            "--authtype",
            "Basic",
            "--skipschema",
        ]);
        command.arg("--schema_directory").arg(&schemas).arg("--logdir").arg(&folder);
        let text = succeeds(command).await;
        // The table's row: passed, warnings, failed, not tested.
        let row = text
            .lines()
            .rev()
            .find(|line| line.starts_with('|') && line.contains(|c: char| c.is_ascii_digit()));
        let counts: Vec<u32> =
            row.into_iter().flat_map(|row| row.split('|')).filter_map(|n| n.trim().parse().ok()).collect();
        assert!(matches!(counts[..], [passed, _, 0, _] if passed > 1000), "{name}: {text}");
        eprintln!("{name}: {} checks passed, {} warnings, none failed", counts[0], counts[1]);
    }
    std::fs::remove_dir_all(&logs).unwrap();
}

/// Members of every collection that has none at first.
async fn populate(emulator: &Emulator) {
    let client = client(emulator.port(), Options::default());
    let system = client.systems().await.unwrap().remove(0).path;
    client.subscribe("https://192.0.2.1/events", "basalt").await.unwrap();
    client.create_account(&Credentials::new("basalt", "long-enough"), "Operator").await.unwrap();
    client
        .enrol_certificate(&system, "db", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
        .await
        .unwrap();
    client.power(&system, PowerAction::On).await.unwrap();
    let image = basalt_redfish::UpdateImage::Uri {
        uri: "http://192.0.2.1/bios-2.bin".into(),
        protocol: None,
        credentials: None,
    };
    let update = basalt_redfish::UpdateRequest { image, targets: Vec::new(), apply_time: None };
    client.update_firmware(&update).await.unwrap();
}

fn client(port: u16, options: Options) -> Client {
    let credentials = Credentials::new(options.user, options.password);
    let limits = Limits { first_pause: Duration::from_millis(50), attempts: 6, ..Limits::default() };
    let connection =
        Connection { port, limits, ..Connection::new("127.0.0.1", credentials, Trust::Plaintext) };
    Client::new(connection).unwrap()
}

/// `sushy-emulator` with its fake driver, in a folder of its own.
struct SushyTools {
    _child: Child,
    port: u16,
    folder: PathBuf,
}

impl SushyTools {
    async fn start(programs: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = temporary().join(format!("sushy-tools-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("emulator.conf");
        std::fs::write(&config, format!("SUSHY_EMULATOR_STATE_DIR = {:?}\n", folder.display().to_string()))
            .unwrap();
        let mut command = Command::new(programs.join("sushy-emulator"));
        command.arg("--config").arg(&config).args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string()]);
        command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Self { _child: child, port, folder }
    }
}

impl Drop for SushyTools {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_works_with_sushy_tools() {
    let Some(programs) = programs().await else { return };
    let bmc = SushyTools::start(&programs).await;
    let client =
        client(bmc.port, Options { user: "admin".into(), password: "password".into(), ..Options::default() });
    let system = client.systems().await.unwrap().remove(0);
    assert_eq!(system.power_state, Some(PowerState::Off));
    let inventory = client.inventory(&system.path).await.unwrap();
    // What it links and does not have: memory, and storage that nobody configured.
    let lacks: Vec<&str> = inventory.problems.iter().map(|problem| problem.part.as_str()).collect();
    assert_eq!(lacks, ["memory", "storage"], "{:?}", inventory.problems);
    assert_eq!(inventory.ethernet_interfaces[0].mac_address.as_deref(), Some("00:5c:52:31:3a:9c"));
    assert!(!inventory.managers.is_empty() && !inventory.chassis.is_empty());

    client.set_boot_override(&system.path, &BootOverride::pxe(OverrideEnabled::Continuous)).await.unwrap();
    let boot = client.system(&system.path).await.unwrap().boot;
    assert_eq!(boot.target, Some(BootTarget::Pxe));
    let wait_for = async |wanted: PowerState| {
        for _ in 0..150 {
            if client.system(&system.path).await.unwrap().power_state.as_ref() == Some(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server is not {wanted}");
    };
    client.power(&system.path, PowerAction::On).await.unwrap();
    wait_for(PowerState::On).await;
    client.power(&system.path, PowerAction::ForceOff).await.unwrap();
    wait_for(PowerState::Off).await;
}
