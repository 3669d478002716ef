//! `basalt node` against emulated BMCs.

mod common;

use basalt_redfish_emulator::vendors::Shape;
use basalt_redfish_emulator::{Emulator, Fault, Options, Tls};
use common::{PASSWORD, SYSTEM, Site, bmc, bmc_with, boot_service, changes, url};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_range_of_addresses_to_an_inventory() {
    let site = Site::new("story");
    let (one, two) = (bmc(1).await, bmc(2).await);
    // Another device on the same network.
    let printer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = printer.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = printer.accept().await.unwrap();
        let _ = stream.write_all(b"220 printer ready\r\n").await;
        let mut heard = vec![0; 4096];
        let n = stream.read(&mut heard).await.unwrap_or(0);
        heard.truncate(n);
        heard
    });
    let ports = format!("{},{},{port}", one.port(), two.port());
    let found = site.json(&["discover", "127.0.0.1", "--port", &ports, "--patience", "2"]).await;
    assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
    assert_eq!(found[0]["vendor"], "Contoso");
    let heard = heard.await.unwrap();
    assert!(!String::from_utf8_lossy(&heard).contains("Authorization"), "a stranger is not sent a password");
    assert!(changes(&one).is_empty(), "looking changes nothing");

    site.add("node-1", &one).await;
    site.add("node-2", &two).await;
    let text = site.ok(&["list"]).await;
    assert!(text.contains("node-1  discovered") && text.contains("CN00000002"), "{text}");
    let found = site.json(&["discover", "127.0.0.1", "--port", &ports, "--patience", "2"]).await;
    assert_eq!(found[1]["node"], "node-2", "what is in the list is recognised");

    let read = site.json(&["inspect", "--all"]).await;
    let record = &read[0]["record"];
    assert_eq!(record["identity"]["serial"], "CN00000001");
    assert_eq!(record["drives"].as_array().unwrap().len(), 4);
    assert_eq!(record["memory_bytes"], 4 * 64 * (1u64 << 30));
    assert_eq!(record["processors"].as_array().unwrap().len(), 2);
    assert_eq!(record["location"]["rack"], "R1");
    let shown = site.ok(&["show", "node-1", "--history"]).await;
    assert!(shown.contains("Contoso Storage Server 2") && shown.contains("3.84 TB"), "{shown}");
    assert!(shown.contains("02:00:00:00:01:00"), "{shown}");
    let yaml = site.ok(&["show", "node-1", "--output", "yaml"]).await;
    assert!(yaml.starts_with("node:\n"), "{yaml}");

    // As expected, and not.
    let good = site.file("good.yaml", "version: 1\nname: p\nmemory: {at_least: 256GiB}\ndrives: [{count: 4, size: 3.84TB}]\nports: [{count: 2}]\nfirmware: {BIOS: '1.2'}\n");
    let text = site.ok(&["check", "--all", "--profile", &good]).await;
    assert_eq!(text, "node-1: as expected\nnode-2: as expected\n");
    let bad = site.file("bad.yaml", "version: 1\nname: p\ndrives: [{count: 8}]\nfirmware: {BIOS: '2.0'}\n");
    let (code, text, err) = site.run(&["check", "node-1", "--profile", &bad]).await;
    assert_eq!(code, 30, "{err}");
    assert!(
        text.contains("- drives: 4, expected 8")
            && text.contains("- firmware System BIOS: 1.2.3, expected at least 2.0"),
        "{text}"
    );
    // Drift.
    one.change(SYSTEM, |s| s["BiosVersion"] = json!("1.2.4"));
    let text = site.ok(&["check", "node-1", "--fresh"]).await;
    assert!(text.contains("changed: server: BIOS was 1.2.3, is 1.2.4"), "{text}");
    assert!(changes(&one).is_empty(), "reading changes nothing: {:?}", changes(&one));
    // Looking for it took one for its certificate, which the BMC may still be closing when the next one comes.
    let most = one.most_connections();
    assert!(one.open_sessions() == 0 && most <= 2, "no session stays, one connection at a time: {most}");
    // Nothing of the password is on disk or on screen.
    for entry in walk(&site.dir) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()), "{}", entry.display());
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_is_looked_after() {
    let site = Site::new("acts");
    let one = bmc(1).await;
    site.add("n", &one).await;
    let off = site.json(&["power", "n", "force-off"]).await;
    assert_eq!(off["power"], "Off");
    assert_eq!(site.json(&["power", "n", "on"]).await["power"], "On");
    let boot = site.json(&["boot", "n", "pxe"]).await;
    assert_eq!((&boot["target"], &boot["override_enabled"]), (&json!("Pxe"), &json!("Once")));
    let boot = site.json(&["boot", "n", "default"]).await;
    assert_eq!(boot["override_enabled"], "Disabled");
    site.ok(&["locate", "n"]).await;
    let lit = |path: &str| one.resource(path).unwrap()["LocationIndicatorActive"].clone();
    assert_eq!(lit(SYSTEM), json!(true));
    site.ok(&["locate", "n", "off"]).await;
    assert_eq!(lit(SYSTEM), json!(false));
    let (code, _, err) = site.run(&["locate", "n", "--drive", "NONE"]).await;
    assert_eq!(code, 2, "{err}");
    let slots = site.json(&["media", "n", "--insert", "http://10.0.0.1/basalt.iso"]).await;
    let inserted = slots.as_array().unwrap().iter().find(|s| s["inserted"] == true).unwrap();
    assert_eq!(inserted["image"], "http://10.0.0.1/basalt.iso");
    let (code, _, err) = site.run(&["media", "n", "--insert", "http://10.0.0.1/other.iso"]).await;
    assert!(code == 35 && err.contains("--eject"), "{code} {err}");
    let slots = site.json(&["media", "n", "--eject"]).await;
    assert!(slots.as_array().unwrap().iter().all(|s| s["inserted"] == false), "{slots}");
    let firmware = site.json(&["firmware", "n"]).await;
    assert!(!firmware.as_array().unwrap().is_empty());
    site.ok(&["logs", "n"]).await;
    let (code, _, err) = site.run(&["power", "m"]).await;
    assert_eq!(code, 4, "{err}");
    // Exchanged: another board in the same place.
    let two = bmc(2).await;
    let (code, _, err) = site
        .run(&["replace", "n", "--bmc", &url(&two), "--serial", "CN00000009", "--accept-certificate"])
        .await;
    assert_eq!(code, 34, "{err}");
    let node = site.json(&["replace", "n", "--bmc", &url(&two), "--accept-certificate"]).await;
    assert_eq!((&node["identity"]["serial"], &node["state"]), (&json!("CN00000002"), &json!("discovered")));
    let (code, _, err) = site.run(&["remove", "n"]).await;
    assert_eq!(code, 2, "nobody is there to ask: {err}");
    site.ok(&["remove", "n", "--yes"]).await;
    assert_eq!(site.json(&["list"]).await, json!([]));
    site.add("n", &two).await;
    assert_eq!(site.state("n").await, "discovered", "removed is not for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_one_message_one_code_and_nothing_touched() {
    let site = Site::new("bad");
    let add = async |name: &str, bmc: &Emulator, more: &[&str]| {
        let url = url(bmc);
        let mut args = vec!["add", name, "--bmc", &url, "--user", "root", "--timeout", "5"];
        args.extend(more);
        site.run(&args).await
    };
    let accept = &["--accept-certificate"][..];
    let expect = |what: &str, (code, out, err): (i32, String, String), wanted: i32, words: &[&str]| {
        assert_eq!(code, wanted, "{what}: {out}{err}");
        assert_eq!(err.lines().count(), 1, "{what}: one message: {err}");
        for word in words {
            assert!(err.contains(word), "{what}: {word} in {err}");
        }
    };

    let options = |password: &str, tls| Options { tls, password: password.into(), ..Options::default() };
    let other = bmc_with(1, options("another", Tls::On)).await;
    expect(
        "wrong password",
        add("a", &other, accept).await,
        32,
        &["refused user 'root'", "basalt node login"],
    );
    let tries = other.seen().iter().filter(|s| s.status == 401).count();
    assert_eq!(tries, 1, "BMCs lock accounts: {:?}", other.seen());

    let locked = bmc(2).await;
    locked.lock_account();
    expect("locked", add("a", &locked, accept).await, 32, &["locked", "unlock"]);

    let good = bmc(3).await;
    expect("not accepted", add("a", &good, &[]).await, 33, &["was not accepted"]);
    let wrong = "00".repeat(32);
    expect("another certificate", add("a", &good, &["--certificate", &wrong]).await, 33, &["certificate"]);
    let expired = bmc_with(4, options(PASSWORD, Tls::Expired)).await;
    let ca = site.file("ca.pem", &expired.ca_pem().unwrap());
    expect("expired", add("a", &expired, &["--ca", &ca]).await, 33, &["expired"]);

    expect(
        "serial",
        add("a", &good, &["--accept-certificate", "--serial", "XYZ"]).await,
        34,
        &["CN00000003", "XYZ"],
    );
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port());
    drop(silent);
    let refused = site.run(&["add", "a", "--bmc", &nobody, "--user", "root", "--accept-certificate"]).await;
    expect("nobody", refused, 31, &["check the BMC's address"]);

    assert_eq!(site.json(&["list"]).await, json!([]), "nothing of that is in the list");
    for bmc in [&other, &locked, &good, &expired] {
        assert_eq!(changes(bmc), Vec::<String>::new());
    }

    assert_eq!(add("a", &good, accept).await.0, 0);
    let twin = bmc(3).await;
    expect("twin", add("b", &twin, accept).await, 34, &["CN00000003", "node a"]);
    let five = bmc(5).await;
    assert_eq!(add("a", &five, accept).await.0, 1, "a name is taken once");

    // The server behind the address is exchanged for another one.
    good.change(SYSTEM, |s| s["SerialNumber"] = json!("OTHER"));
    for args in [&["power", "a", "force-off"][..], &["boot", "a", "pxe"], &["inspect", "a"], &["locate", "a"]]
    {
        let (code, out, err) = site.run(args).await;
        assert_eq!(code, 34, "{args:?}: {out}{err}");
        assert!(format!("{out}{err}").contains("OTHER, expected CN00000003"), "{out}{err}");
    }
    let (code, out, err) = site.run(&["provision", "a"]).await;
    assert_eq!(code, 36, "{out}{err}");
    assert!(out.contains("OTHER") && out.contains("nothing was changed"), "{out}");
    assert_eq!(changes(&good), Vec::<String>::new());

    good.change_certificate();
    let (code, _, err) = site.run(&["power", "a"]).await;
    assert_eq!(code, 33, "{err}");
    assert!(err.contains("another certificate"), "{err}");
    good.change(SYSTEM, |s| s["SerialNumber"] = json!("CN00000003"));
    site.ok(&["login", "a", "--accept-certificate"]).await;
    site.ok(&["power", "a"]).await;

    let mut wrong = site.command(&["power", "a"]);
    wrong.env("BASALT_NODE_PASSPHRASE", "wrong");
    let (code, _, err) = common::parts(wrong.output().await.unwrap());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("passphrase does not open"), "{err}");
}

/// One BMC hangs half-way; the command is killed in the middle and run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rack_comes_up_while_one_hangs_and_the_command_is_killed() {
    let site = Site::new("rack");
    let mut bmcs = Vec::new();
    let mut services = Vec::new();
    for n in 1..=5 {
        let bmc = bmc(n).await;
        bmc.change(SYSTEM, |s| s["PowerState"] = json!("Off"));
        site.add(&format!("node-{n}"), &bmc).await;
        services.push(boot_service(&site, n, bmc.clone()));
        bmcs.push(bmc);
    }
    bmcs[2].faults(&format!("PATCH {SYSTEM}"), Fault::Hang, usize::MAX);
    let args = ["provision", "--all", "--watch", "--limit", "20", "--timeout", "4", "--no-probe"];
    let mut child = site.spawn(&args);
    let until = Instant::now() + Duration::from_secs(60);
    while bmcs[0].boots().is_empty() {
        assert!(Instant::now() < until, "nothing boots");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().await.unwrap();
    let states = site.json(&["list"]).await;
    let running = states.as_array().unwrap().iter().filter(|n| n["state"] == "running").count();
    assert!(running < 4, "it was killed too late to prove anything: {states}");

    let (code, out, err) = site.run(&args).await;
    assert_eq!(code, 36, "{out}{err}");
    for n in [1, 2, 4, 5] {
        assert_eq!(site.state(&format!("node-{n}")).await, "running", "{out}{err}");
        assert!((1..=2).contains(&bmcs[n - 1].boots().len()), "{:?}", bmcs[n - 1].boots());
    }
    let failed = site.json(&["show", "node-3"]).await;
    assert_eq!(failed["node"]["state"], "failed");
    let cause = failed["node"]["failure"]["cause"].as_str().unwrap();
    assert!(cause.contains("setting the boot source"), "{cause}");
    assert!(out.contains("node-3  failed") && out.contains("the BMC may hang"), "{out}");
    assert!(bmcs[2].boots().is_empty(), "what hangs is not reset");
    assert!(err.contains("node-1: running"), "each step is told: {err}");

    // Mended: the same command brings the last one up and leaves the others alone.
    let boots: Vec<usize> = bmcs.iter().map(|b| b.boots().len()).collect();
    bmcs[2].clear_faults();
    let out = site.ok(&args).await;
    assert!(out.contains("node-3  running"), "{out}");
    for (n, bmc) in bmcs.iter().enumerate().filter(|(n, _)| *n != 2) {
        assert_eq!(bmc.boots().len(), boots[n]);
    }
    services.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_goes_to_the_drive_that_was_named_and_starts_from_it() {
    let site = Site::new("install");
    let one = bmc(1).await;
    site.add("n", &one).await;
    let service = boot_service(&site, 1, one.clone());
    let record = site.json(&["inspect", "n"]).await;
    let serial = record[0]["record"]["drives"][0]["serial"].as_str().unwrap().to_owned();
    let args = ["provision", "n", "--install", "--limit", "30", "--no-probe"];
    let (code, out, _) = site.run(&args).await;
    assert!(code == 36 && out.contains("--drive"), "which of four is not guessed: {out}");
    let drive = ["--drive", serial.as_str()];
    assert!(changes(&one).is_empty(), "{:?}", changes(&one));
    let out = site.ok(&[&args[..], &drive].concat()).await;
    assert!(out.contains("n     running"), "{out}");
    let boot = site.json(&["boot", "n"]).await;
    assert_ne!(boot["target"], "Pxe", "from its disk from then on: {boot}");
    service.abort();
}

/// As many as a data hall has, at once; a slow one delays nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_inventories_within_a_minute() {
    const NODES: u32 = 500;
    let site = Site::new("many");
    let mut bmcs = Vec::new();
    let mut list = String::new();
    for n in 1..=NODES {
        let bmc =
            Emulator::start_with(Shape::plain(n).tree(), Options { tls: Tls::On, ..Options::default() })
                .await;
        list.push_str(&format!("- {{name: node-{n:03}, bmc: '{}'}}\n", url(&bmc)));
        bmcs.push(Arc::new(bmc));
    }
    let list = site.file("list.yaml", &list);
    let begun = Instant::now();
    site.ok(&["add", "--from", &list, "--user", "root", "--accept-certificate"]).await;
    println!("{NODES} added in {:.1} s", begun.elapsed().as_secs_f64());
    bmcs[0].faults("GET /redfish/v1/Systems/1", Fault::Slow(Duration::from_secs(3)), usize::MAX);
    bmcs[1].faults("GET /redfish/v1/Chassis", Fault::Hang, usize::MAX);
    let begun = Instant::now();
    let mut child = site.command(&["inspect", "--all", "--limit", "25", "--output", "json"]).spawn().unwrap();
    let (pid, mut out) = (child.id().unwrap(), child.stdout.take().unwrap());
    let memory = tokio::spawn(async move {
        let mut peak_kb = 0;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
            peak_kb = peak_kb.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        peak_kb
    });
    let mut text = String::new();
    out.read_to_string(&mut text).await.unwrap();
    let status = child.wait().await.unwrap();
    let took = begun.elapsed();
    let peak_kb = memory.await.unwrap();
    println!("{NODES} inventoried in {:.1} s, at most {} MB of memory", took.as_secs_f64(), peak_kb / 1024);
    assert_eq!(status.code(), Some(31), "one hangs");
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let all = all.as_array().unwrap();
    let read = all.iter().filter(|n| n["record"]["drives"].as_array().is_some_and(|d| d.len() == 4)).count();
    assert!(read >= NODES as usize - 2, "{read}");
    assert!(all[1]["error"].as_str().unwrap().contains("127.0.0.1"), "{}", all[1]);
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(peak_kb < 512 << 10, "{peak_kb} kB");
}
