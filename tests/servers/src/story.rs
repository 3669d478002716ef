//! From blank servers to nodes that serve, by one command, with a BMC that hangs and a command that dies.

use crate::cases::{Bench, Outcome, check};
use crate::domain::Firmware;
use crate::node::nfs_answers;
use crate::rack::Rack;
use crate::terminal::Terminal;
use crate::world::{World, until};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Three servers that boot at once in software emulation, and the five minutes that a BMC may hang.
const LIMIT: Duration = Duration::from_secs(1500);
const PROVISION: [&str; 4] = ["node", "provision", "--all", "--watch"];
/// What the live table is erased with before it is drawn again.
const ERASE: &str = "\x1b[J";

pub(crate) fn three_servers(bench: &mut Bench<'_>) -> Outcome {
    // Two cores for three machines.
    bench.clear();
    let world = bench.world;
    let begin = Instant::now();
    let rack = Rack::new(world, 2, &[Firmware::Uefi, Firmware::Uefi, Firmware::Bios])?;
    for server in &rack.servers {
        check(!server.written()?, || format!("{} is not blank", server.name))?;
    }
    let found = rack.station.node(&["discover", &rack.range(), "--port", &Rack::port()])?;
    check(found.as_array().map_or(0, Vec::len) == 3, || format!("found {found}"))?;
    rack.add()?;
    let _boots = rack.station.serve_boots(world, &world.image.join("out"))?;
    killed(world, &rack)?;
    let killed_s = begin.elapsed().as_secs();
    resumed(world, &rack)?;
    let resumed_s = begin.elapsed().as_secs();
    retried(world, &rack)?;
    for server in &rack.servers {
        check(server.written()?, || format!("{} serves and wrote nothing on its drives", server.name))?;
        nfs_answers(&address(&rack, &server.mac)?).map_err(|e| format!("{}: {e}", server.name))?;
    }
    let list = rack.station.node(&["list"])?;
    let running = list.as_array().into_iter().flatten().filter(|n| n["state"] == "running").count();
    check(running == 3, || format!("not all are running: {list}"))?;
    let all_s = begin.elapsed().as_secs();
    Ok(format!(
        "killed at {killed_s} s, two run and one failed at {resumed_s} s, all three serve at {all_s} s"
    ))
}

/// One BMC hangs between inventory and reset; the command is killed while the other two boot.
fn killed(world: &World, rack: &Rack) -> Result<(), String> {
    let [first, hung, last] = &rack.servers[..] else { return Err("not three servers".into()) };
    let terminal = Terminal::start(rack.station.command(&PROVISION), world.log("provision-1")?)?;
    // Between the inventory and the reset lie two seconds and more: this looks often enough.
    let start = Instant::now();
    while !matches!(&*rack.station.state(&hung.name), "inspected" | "firmware" | "boot_set") {
        check(start.elapsed() < Duration::from_secs(120), || format!("{} was not inspected", hung.name))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    rack.bmcs[1].hang()?;
    until("the other two boot", Duration::from_secs(240), || {
        let booting = |name: &str| rack.station.state(name) == "booting";
        let asked = |mac: &str| Ok::<bool, String>(!rack.station.boot_steps(mac)?.is_empty());
        let shown = terminal.text().contains("booting");
        Ok((shown && booting(&first.name) && booting(&last.name) && asked(&first.mac)? && asked(&last.mac)?)
            .then_some(()))
    })?;
    let text = terminal.kill()?;
    check(text.matches(ERASE).count() > 5, || format!("the table was not drawn again and again: {text}"))?;
    for word in ["NODE", "STATE", "booting", &first.name, &hung.name, &last.name] {
        check(text.contains(word), || format!("{word:?} is not in the table: {text}"))?;
    }
    let state = hung.state()?;
    check(state == "shut off", || format!("the BMC hung too late: its server is {state}"))
}

/// The same command again: the two go on where they are, the third ends in failed.
fn resumed(world: &World, rack: &Rack) -> Result<(), String> {
    let [first, hung, last] = &rack.servers[..] else { return Err("not three servers".into()) };
    let starts = (first.start_number()?, last.start_number()?);
    let terminal = Terminal::start(rack.station.command(&PROVISION), world.log("provision-2")?)?;
    let (code, text) = terminal.wait(LIMIT)?;
    check(code == 36, || format!("ended with {code}, wanted 36: {}", tail(&text)))?;
    for server in [first, last] {
        let node = rack.station.node(&["show", &server.name])?;
        check(node["node"]["state"] == "running", || format!("{}: {}", server.name, node["node"]))?;
        let history = node["node"]["history"].to_string();
        check(history.contains("taken up again"), || format!("{} was not taken up: {history}", server.name))?;
    }
    let now = (first.start_number()?, last.start_number()?);
    check(now == starts, || "a server that was booting was reset again".into())?;
    let node = rack.station.node(&["show", &hung.name])?;
    let failure = node["node"]["failure"].to_string();
    check(node["node"]["state"] == "failed", || format!("{}: {}", hung.name, node["node"]))?;
    check(failure.contains("no answer") && failure.contains(&rack.bmcs[1].address), || {
        format!("no cause: {failure}")
    })?;
    // In the last table, which stays.
    let last_words = tail(&text);
    check(last_words.contains("failed") && last_words.contains("gave no answer"), || last_words.clone())?;
    check(text.contains("\x1b[32m"), || "nothing is green on a terminal".into())
}

/// The BMC answers again, and so does the command: what runs is left alone.
fn retried(world: &World, rack: &Rack) -> Result<(), String> {
    let [first, hung, last] = &rack.servers[..] else { return Err("not three servers".into()) };
    let starts = (first.start_number()?, last.start_number()?);
    rack.bmcs[1].go_on()?;
    let mut command = rack.station.command(&PROVISION);
    command.env("NO_COLOR", "1");
    let (code, text) = Terminal::start(command, world.log("provision-3")?)?.wait(LIMIT)?;
    check(code == 0, || format!("ended with {code}, wanted 0: {}", tail(&text)))?;
    check(!text.contains("\x1b[3"), || "colours in spite of NO_COLOR".into())?;
    let last_words = tail(&text);
    check(last_words.contains(&hung.name) && !last_words.contains("failed"), || last_words.clone())?;
    let now = (first.start_number()?, last.start_number()?);
    check(now == starts, || "a node that ran was reset".into())
}

/// The last address that the boot service gave it.
pub(crate) fn address(rack: &Rack, mac: &str) -> Result<String, String> {
    let events = rack.station.json(&["boot", "events", mac, "--limit", "1000"])?;
    let leased = events.as_array().into_iter().flatten().filter(|e| e["step"] == "leased");
    let words = leased.filter_map(|e| e["detail"].as_str()).flat_map(str::split_whitespace);
    let address = words.filter_map(|w| w.parse::<IpAddr>().ok()).next_back();
    address.map(|a| a.to_string()).ok_or_else(|| format!("{mac} got no address: {events}"))
}

fn tail(text: &str) -> String {
    text.rsplit(ERASE).next().unwrap_or(text).to_owned()
}
