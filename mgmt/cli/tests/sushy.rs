//! `basalt node` against a BMC that others wrote: `sushy-emulator` of sushy-tools with its fake driver. It comes from PyPI into a virtual
//! environment beside the build; where that cannot be, the test says so and passes.

mod common;

use common::Site;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const PACKAGE: &str = "sushy-tools==2.2.0";

fn emulator() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-sushy-tools");
    let ready = venv.join(PACKAGE);
    let run = |program: &Path, args: &[&str]| {
        std::process::Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    if !ready.exists() {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
        let made =
            run("python3".as_ref(), &["-m", "venv", venv.to_str()?]) && run(&venv.join("bin/python"), &pip);
        if !made || std::fs::write(&ready, "").is_err() {
            eprintln!("skipped: {PACKAGE} cannot be installed from PyPI");
            return None;
        }
    }
    Some(venv.join("bin/sushy-emulator"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_makers_bmc_is_found_read_and_driven() {
    let Some(program) = tokio::task::spawn_blocking(emulator).await.unwrap() else { return };
    let site = Site::new("sushy");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let system = "{'uuid': 'aaaaaaaa-0000-4000-8000-000000000001', 'name': 'fake', 'power_state': 'Off', 'nics': [{'mac': '02:00:00:00:0a:01', 'ip': '10.1.1.1'}]}";
    let config = site.file(
        "emulator.conf",
        &format!(
            "SUSHY_EMULATOR_STATE_DIR = {:?}\nSUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{system}]\n",
            site.dir.display().to_string()
        ),
    );
    let mut command = Command::new(program);
    command
        .args(["--config", &config, "-i", "127.0.0.1", "-p", &port])
        .current_dir(&site.dir)
        .kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _bmc = command.spawn().unwrap();
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let url = format!("http://127.0.0.1:{port}");
    let found = site.json(&["discover", "127.0.0.1", "--port", &port, "--plaintext"]).await;
    assert_eq!(found[0]["url"], json!(url));
    site.ok(&["add", "s1", "--bmc", &url, "--user", "admin"]).await;
    let read = site.json(&["inspect", "s1"]).await;
    assert_eq!(read[0]["record"]["identity"]["uuid"], "aaaaaaaa-0000-4000-8000-000000000001");
    // It links memory and storage that it does not have: not read is not missing.
    let unread = read[0]["record"]["unread"].as_array().unwrap();
    assert!(
        unread.iter().any(|u| u["part"] == "memory") && unread.iter().any(|u| u["part"] == "drives"),
        "{unread:?}"
    );
    let boot = site.json(&["boot", "s1", "pxe", "--always"]).await;
    assert_eq!((&boot["target"], &boot["override_enabled"]), (&json!("Pxe"), &json!("Continuous")));
    site.ok(&["power", "s1", "on"]).await;
    for _ in 0..300 {
        if site.json(&["power", "s1"]).await["power"] == "On" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(site.json(&["power", "s1"]).await["power"], "On");
    // Nobody serves its boot: it ends in failed, with the cause.
    let (code, out, err) = site.run(&["provision", "s1", "--limit", "30", "--no-probe"]).await;
    assert_eq!(code, 36, "{out}{err}");
    assert!(out.contains("the boot service heard nothing of it"), "{out}{err}");
}
