//! What is tested of `basalt node` at the BMCs of virtual servers, one thing after the other.

use crate::domain::{DRIVE_BYTES, Domain, FIRST_SERIAL, Firmware};
use crate::rack::Rack;
use crate::world::{ADDRESS, World, until};
use crate::{installed, story};
use serde_json::Value;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

/// What a case notes beside its name.
pub(crate) type Outcome = Result<String, String>;
pub(crate) type Case = (&'static str, fn(&mut Bench<'_>) -> Outcome);

pub(crate) const ALL: &[Case] = &[
    ("bmc/discover and add", discover_and_add),
    ("bmc/inventory", inventory),
    ("bmc/power", power),
    ("bmc/boot override", boot_override),
    ("bmc/virtual media", virtual_media),
    ("bmc/boots from the CD", boots_from_the_cd),
    ("story/three servers", story::three_servers),
    ("story/installed", installed::one_server),
];

/// A server with UEFI and one with BIOS, for all cases but the story.
pub(crate) struct Bench<'a> {
    pub(crate) world: &'a World,
    rack: Option<Rack>,
    added: bool,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(world: &'a World) -> Bench<'a> {
        Bench { world, rack: None, added: false }
    }

    fn rack(&mut self) -> Result<&Rack, String> {
        if self.rack.is_none() {
            self.rack = Some(Rack::new(self.world, 1, &[Firmware::Uefi, Firmware::Uefi, Firmware::Bios])?);
        }
        self.rack.as_ref().ok_or_else(String::new)
    }

    fn added(&mut self) -> Result<&Rack, String> {
        if !self.added {
            self.rack()?.add()?;
            self.added = true;
        }
        self.rack()
    }

    /// Its machines are not needed any more.
    pub(crate) fn clear(&mut self) {
        (self.rack, self.added) = (None, false);
    }
}

pub(crate) fn check(right: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(what()) }
}

/// Three BMCs in a range with a web server of another kind and with somebody who never says anything.
fn discover_and_add(bench: &mut Bench<'_>) -> Outcome {
    bench.clear();
    let world = bench.world;
    let rack = bench.rack()?;
    let (web, mute) = ("10.98.1.40", "10.98.1.41");
    for address in [web, mute] {
        crate::world::run(Command::new("ip").args([
            "addr",
            "replace",
            &format!("{address}/32"),
            "dev",
            "lo",
        ]))?;
    }
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", &Rack::port(), "--bind", web]).current_dir("/tmp");
    let _web = world.start(&mut server, "web")?;
    let _mute = TcpListener::bind(format!("{mute}:{}", Rack::port())).map_err(|e| e.to_string())?;
    let found = rack.station.node(&["discover", &rack.range(), "--port", &Rack::port()])?;
    let urls: Vec<&str> = found.as_array().into_iter().flatten().filter_map(|f| f["url"].as_str()).collect();
    let wanted: Vec<String> = rack.bmcs.iter().map(|b| b.url()).collect();
    check(urls == wanted, || format!("found {urls:?}, wanted {wanted:?}"))?;
    rack.add()?;
    let found = rack.station.node(&["discover", &rack.range(), "--port", &Rack::port()])?;
    for (found, server) in found.as_array().into_iter().flatten().zip(&rack.servers) {
        check(found["node"] == server.name.as_str(), || format!("{found} is not {}", server.name))?;
    }
    for server in &rack.servers {
        let shown = rack.station.node(&["show", &server.name])?;
        check(shown["node"]["identity"]["uuid"] == server.uuid.as_str(), || format!("{shown}"))?;
    }
    // Another server than the list says: nothing is done.
    let wrong = rack.bmcs.first().ok_or("no BMC")?.url();
    let add = ["node", "add", "twice", "--bmc", &wrong, "--user", "root", "--accept-certificate"];
    let (code, _, err) = rack.station.run(&add)?;
    check(code == 34 && err.contains("r1-u01"), || format!("the same server twice: {code}: {err}"))?;
    bench.added = true;
    Ok(format!("{} of {} addresses", wanted.len(), 62))
}

/// The numbers of an XML element: `<memory unit='KiB'>1310720</memory>`.
fn element<'a>(xml: &'a str, name: &str) -> Result<&'a str, String> {
    let start = xml.find(&format!("<{name}")).ok_or_else(|| format!("no {name} in the domain"))?;
    let rest = &xml[start..];
    let text = rest.split_once('>').and_then(|(_, rest)| rest.split_once('<'));
    text.map(|(text, _)| text).ok_or_else(|| format!("no text in {name}"))
}

/// Of what a BMC could not tell.
fn parts(unread: &Value) -> String {
    let parts = unread.as_array().into_iter().flatten().filter_map(|u| u["part"].as_str());
    parts.collect::<Vec<_>>().join(", ")
}

fn inventory(bench: &mut Bench<'_>) -> Outcome {
    let rack = bench.added()?;
    let all = rack.station.node(&["inspect", "--all"])?;
    let mut notes = String::new();
    for (read, server) in all.as_array().into_iter().flatten().zip(&rack.servers) {
        let (record, xml) = (&read["record"], server.next_xml()?);
        check(read["error"].is_null(), || format!("{}: {}", server.name, read["error"]))?;
        // sushy-tools says whole GiB.
        let kib: u64 = element(&xml, "memory")?.parse().map_err(|e| format!("{e}"))?;
        let bytes = (kib >> 20) << 30;
        check(record["memory_bytes"] == bytes, || format!("memory {} of {kib} KiB", record["memory_bytes"]))?;
        let cpus: usize = element(&xml, "vcpu")?.parse().map_err(|e| format!("{e}"))?;
        let sockets = record["processors"].as_array().map_or(0, Vec::len);
        check(sockets == cpus, || format!("processors {}, wanted {cpus}", record["processors"]))?;
        let ports = record["nics"].to_string().to_lowercase();
        check(ports.contains(&server.mac), || format!("ports {ports} without {}", server.mac))?;
        let drives: Vec<(Option<&str>, Option<u64>)> = record["drives"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|d| (d["serial"].as_str(), d["bytes"].as_u64()))
            .collect();
        check(drives == [(Some(FIRST_SERIAL), Some(DRIVE_BYTES))], || {
            format!("drives {}", record["drives"])
        })?;
        notes = format!(
            "memory, processors, ports, a drive as libvirt says; not told: {}",
            parts(&record["unread"])
        );
    }
    check(all.as_array().map_or(0, Vec::len) == rack.servers.len(), || format!("{all}"))?;
    Ok(notes)
}

fn power(bench: &mut Bench<'_>) -> Outcome {
    let rack = bench.added()?;
    for server in [&rack.servers[0], &rack.servers[2]] {
        let power = |verb: &str| rack.station.node(&["power", &server.name, verb]);
        let is = |wanted: &str| {
            until(&format!("{} is {wanted}", server.name), Duration::from_secs(30), || {
                Ok((server.state()? == wanted).then_some(()))
            })
        };
        is("shut off")?;
        power("on")?;
        is("running")?;
        let first = server.start_number()?;
        // Again is no error and no restart.
        power("on")?;
        check(server.start_number()? == first, || "a second `on` restarted it".into())?;
        power("force-restart")?;
        is("running")?;
        check(server.start_number()? != first, || "it was not restarted".into())?;
        let said = power("status")?;
        check(said["power"] == "On", || format!("{said}"))?;
        // Its firmware hears neither.
        power("restart")?;
        power("off")?;
        power("force-off")?;
        is("shut off")?;
        let said = power("status")?;
        check(said["power"] == "Off", || format!("{said}"))?;
    }
    Ok("on, on again, restart, off; UEFI and BIOS".into())
}

/// Which device the domain boots from first.
fn boots_first(server: &Domain) -> Result<String, String> {
    let xml = server.next_xml()?;
    let at = xml.find("<boot order='1'").ok_or_else(|| format!("no boot order in {xml}"))?;
    let kinds = [("<interface ", "network"), ("device='cdrom'", "cdrom"), ("device='disk'", "disk")];
    let last = kinds.iter().filter_map(|(tag, kind)| Some((xml[..at].rfind(tag)?, *kind))).max();
    Ok(last.map_or_else(String::new, |(_, kind)| kind.to_owned()))
}

fn boot_override(bench: &mut Bench<'_>) -> Outcome {
    let world = bench.world;
    let rack = bench.added()?;
    let _boots = rack.station.serve_boots(world, &world.image.join("out"))?;
    for server in [&rack.servers[0], &rack.servers[2]] {
        let bios = server.firmware == Firmware::Bios;
        let mode = if bios { "Legacy" } else { "UEFI" };
        for (source, device, target) in
            [("pxe", "network", "Pxe"), ("disk", "disk", "Hdd"), ("pxe", "network", "Pxe")]
        {
            let mut args = vec!["boot", &server.name, source, "--always"];
            if bios {
                args.push("--legacy");
            }
            let said = rack.station.node(&args)?;
            check(said["target"] == target && said["mode"] == mode, || format!("{source}: {said}"))?;
            let first = boots_first(server)?;
            check(first == device, || format!("{}: {source} boots from {first}", server.name))?;
        }
        // It stays what it was.
        let xml = server.next_xml()?;
        let loader = if bios { "bios-256k.bin" } else { "firmware='efi'" };
        check(xml.contains(loader), || format!("another firmware: {xml}"))?;
        // And it does so: the firmware asks the network, and gets nothing, as nothing was decided for it.
        rack.station.node(&["power", &server.name, "on"])?;
        until(&format!("{} asks for an address", server.name), Duration::from_secs(180), || {
            Ok((!rack.station.boot_steps(&server.mac)?.is_empty()).then_some(()))
        })?;
        rack.station.node(&["power", &server.name, "force-off"])?;
    }
    Ok("network and disk, seen in the domain and at the next start; UEFI and BIOS".into())
}

fn slot(slots: &Value) -> Result<&Value, String> {
    let all = slots.as_array().into_iter().flatten();
    let mut discs =
        all.filter(|s| s["types"].to_string().contains("CD") || s["types"].to_string().contains("DVD"));
    discs.next().ok_or_else(|| format!("no slot for CDs: {slots}"))
}

/// `basalt_VERSION.iso` over HTTP.
fn images(world: &World) -> Result<(crate::world::Running, String), String> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "http.server", "8081", "--bind", ADDRESS, "--directory"])
        .arg(world.image.join("out"));
    let server = world.start(&mut command, "images")?;
    let listens = || Ok(std::net::TcpStream::connect((ADDRESS, 8081)).ok());
    until("images are served", Duration::from_secs(30), listens)?;
    Ok((server, format!("http://{ADDRESS}:8081/basalt_{}.iso", world.version)))
}

fn virtual_media(bench: &mut Bench<'_>) -> Outcome {
    let world = bench.world;
    let rack = bench.added()?;
    let (_images, iso) = images(world)?;
    for server in [&rack.servers[0], &rack.servers[2]] {
        let name = &server.name;
        let inserted = rack.station.node(&["media", name, "--insert", &iso])?;
        let disc = slot(&inserted)?;
        check(disc["inserted"] == true && disc["image"] == iso.as_str(), || format!("{inserted}"))?;
        let xml = server.next_xml()?;
        check(xml.contains("device='cdrom'"), || format!("no CD in {xml}"))?;
        // Again is the same, another is refused.
        rack.station.node(&["media", name, "--insert", &iso])?;
        let (code, _, err) =
            rack.station.run(&["node", "media", name, "--insert", &format!("{iso}.other")])?;
        check(code == 35 && err.contains("--eject"), || format!("another image over it: {code}: {err}"))?;
        let ejected = rack.station.node(&["media", name, "--eject"])?;
        check(slot(&ejected)?["inserted"] == false, || format!("{ejected}"))?;
        let xml = server.next_xml()?;
        check(!xml.contains("device='cdrom'"), || format!("the CD is still in {xml}"))?;
        let (code, _, err) =
            rack.station.run(&["node", "media", name, "--insert", &format!("{iso}.none")])?;
        check(code != 0, || format!("an image that is not there: {code}: {err}"))?;
    }
    Ok("inserted over HTTP, seen in the domain, ejected; UEFI and BIOS".into())
}

fn boots_from_the_cd(bench: &mut Bench<'_>) -> Outcome {
    let world = bench.world;
    let rack = bench.added()?;
    let (_images, iso) = images(world)?;
    let server = &rack.servers[1];
    let name = &server.name;
    rack.station.node(&["media", name, "--insert", &iso])?;
    rack.station.node(&["boot", name, "cd"])?;
    rack.station.node(&["power", name, "on"])?;
    let start = std::time::Instant::now();
    let ran = until("the image's init speaks", Duration::from_secs(300), || {
        Ok(server.said().contains("basalt: [").then(|| start.elapsed()))
    });
    rack.station.node(&["power", name, "force-off"])?;
    rack.station.node(&["media", name, "--eject"])?;
    Ok(format!("init ran after {:.0} s", ran?.as_secs_f64()))
}
