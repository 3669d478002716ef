//! A network of its own with the servers that a network boot needs, in a network namespace.

use crate::work::{Image, Scratch, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const ADDRESS: &str = "10.99.0.1";
const PORT: u16 = 8080;

pub(crate) struct Lan {
    pub(crate) netns: String,
    servers: Vec<Child>,
}

/// What dnsmasq offers.
pub(crate) enum Offer<'a> {
    /// A UKI by TFTP
    UefiPxe(&'a str),
    /// A UKI by HTTP
    UefiHttp(&'a str),
    /// A script for iPXE by HTTP
    Ipxe(&'a str),
}

impl Lan {
    /// A network with nobody on it yet.
    fn bare() -> Result<Lan, String> {
        let netns = format!("basalt-image-{}", std::process::id());
        let _ = Command::new("ip").args(["netns", "del", &netns]).stderr(Stdio::null()).status();
        run(Command::new("ip").args(["netns", "add", &netns]))?;
        let lan = Lan { netns, servers: Vec::new() };
        for step in [
            "link set lo up",
            "tuntap add tap0 mode tap",
            &format!("addr add {ADDRESS}/24 dev tap0"),
            "link set tap0 up",
        ] {
            run(lan.inside("ip").args(step.split(' ')))?;
        }
        Ok(lan)
    }

    /// Serves the files of `dir`.
    pub(crate) fn start(scratch: &Scratch, dir: &Path, offer: &Offer<'_>) -> Result<Lan, String> {
        let mut lan = Lan::bare()?;
        let config = scratch.dir.join("dnsmasq.conf");
        let boot = match offer {
            Offer::UefiPxe(file) => {
                format!("dhcp-match=set:uefi,option:client-arch,7\ndhcp-boot=tag:uefi,{file}\n")
            }
            Offer::UefiHttp(file) => format!(
                "dhcp-match=set:http,option:client-arch,16\ndhcp-option-force=tag:http,60,HTTPClient\ndhcp-boot=tag:http,http://{ADDRESS}:{PORT}/{file}\n"
            ),
            Offer::Ipxe(file) => {
                format!("dhcp-match=set:ipxe,175\ndhcp-boot=tag:ipxe,http://{ADDRESS}:{PORT}/{file}\n")
            }
        };
        let common = format!(
            "port=0\nno-resolv\nno-hosts\nuser=root\ninterface=tap0\nbind-interfaces\ndhcp-range=10.99.0.10,10.99.0.50,1h\nenable-tftp\ntftp-root={}\ndhcp-leasefile={}\nlog-dhcp\n",
            dir.display(),
            scratch.dir.join("leases").display()
        );
        fs::write(&config, common + &boot).map_err(|e| e.to_string())?;
        let log = fs::File::create(scratch.log.with_extension("dnsmasq")).map_err(|e| e.to_string())?;
        let mut dnsmasq = lan.inside("dnsmasq");
        dnsmasq.arg("--keep-in-foreground").arg(format!("--conf-file={}", config.display())).stderr(log);
        lan.serve(dnsmasq)?;
        let mut http = lan.inside("python3");
        http.args(["-m", "http.server", &PORT.to_string(), "--bind", ADDRESS, "--directory"]).arg(dir);
        http.stdout(Stdio::null()).stderr(Stdio::null());
        lan.serve(http)?;
        Ok(lan)
    }

    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, program]);
        command
    }

    /// Somebody on this network; `port` of `host` as seen from here.
    pub(crate) fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let address = format!("{host}:{port}");
        let netns = fs::File::open(format!("/run/netns/{}", self.netns))
            .map_err(|e| format!("{}: {e}", self.netns))?;
        // A thread of its own goes there; the socket it makes stays there and is used from here.
        let there = std::thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(|e| format!("setns: {e}"))?;
            let to: std::net::SocketAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
            TcpStream::connect_timeout(&to, Duration::from_secs(20)).map_err(|e| format!("{address}: {e}"))
        });
        there.join().map_err(|_| "no thread".to_owned())?
    }

    fn serve(&mut self, mut command: Command) -> Result<(), String> {
        self.servers.push(command.stdin(Stdio::null()).spawn().map_err(|e| format!("{command:?}: {e}"))?);
        Ok(())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // Asked first: the boot service ends its dnsmasq when it ends.
            let _ = kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM);
            let asked = Instant::now();
            while matches!(server.try_wait(), Ok(None)) && asked.elapsed() < Duration::from_secs(15) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// `basalt boot serve` on a network of its own.
pub(crate) struct BootService {
    pub(crate) lan: Lan,
    basalt: PathBuf,
    dir: PathBuf,
}

impl BootService {
    /// Offers the images of `images`, by the real dnsmasq and its own HTTP server.
    pub(crate) fn start(image: &Image, scratch: &Scratch, images: &Path) -> Result<BootService, String> {
        let mut lan = Lan::bare()?;
        let (basalt, dir) = (image.dir.join("programs/basalt"), scratch.dir.join("boot-service"));
        let mut command = lan.inside(&basalt.to_string_lossy());
        command.arg("--dir").arg(&dir).args(["boot", "serve", "--images"]).arg(images);
        command.args(["--listen", &format!("{ADDRESS}:8069"), "--interface", "tap0", "--address", ADDRESS]);
        command.args(["--range", "10.99.0.10-10.99.0.50", "--dnsmasq-user", "root", "--ipxe"]);
        command.arg(image.builder("usr/lib/ipxe")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let log = scratch.log.with_extension("boot-service");
        command.stderr(fs::File::create(&log).map_err(|e| e.to_string())?);
        let mut server = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        let out = server.stdout.take().ok_or("no output")?;
        lan.servers.push(server);
        let mut line = String::new();
        // Ends with the process, if that ends.
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
        if !line.starts_with("ready ") {
            return Err(format!(
                "the boot service did not start: {}",
                fs::read_to_string(&log).unwrap_or_default()
            ));
        }
        Ok(BootService { lan, basalt, dir })
    }

    fn basalt(&self, arguments: &[&str]) -> Result<String, String> {
        run(Command::new(&self.basalt).arg("--dir").arg(&self.dir).arg("boot").args(arguments))
    }

    pub(crate) fn decide(&self, mac: &str, action: &str, version: &str) -> Result<(), String> {
        self.basalt(&["decide", mac, action, "--boot-version", version]).map(|_| ())
    }

    pub(crate) fn decide_install(
        &self,
        mac: &str,
        version: &str,
        disk: &str,
        wipe: bool,
    ) -> Result<(), String> {
        let mut arguments = vec!["decide", mac, "install", "--boot-version", version, "--disk", disk];
        if wipe {
            arguments.push("--wipe");
        }
        self.basalt(&arguments).map(|_| ())
    }

    /// The steps that were recorded for a node, oldest first, each with its detail.
    pub(crate) fn steps(&self, mac: &str) -> Result<Vec<(String, String)>, String> {
        let mut command = Command::new(&self.basalt);
        command
            .arg("--dir")
            .arg(&self.dir)
            .args(["--output", "json", "boot", "events", mac, "--limit", "1000"]);
        let text = run(&mut command)?;
        let events: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("events: {e}: {text}"))?;
        let word = |e: &serde_json::Value, key: &str| e[key].as_str().unwrap_or_default().to_owned();
        Ok(events
            .as_array()
            .ok_or("no list of events")?
            .iter()
            .map(|e| (word(e, "step"), word(e, "detail")))
            .collect())
    }

    /// Fails unless these steps were recorded in this order, whatever else was between them.
    pub(crate) fn went_through(&self, mac: &str, wanted: &[&str]) -> Result<(), String> {
        let steps = self.steps(mac)?;
        let mut left = wanted.iter();
        let mut next = left.next();
        for (step, _) in &steps {
            if next == Some(&step.as_str()) {
                next = left.next();
            }
        }
        match next {
            None => Ok(()),
            Some(missing) => {
                Err(format!("the boot service was not told {missing:?} (wanted {wanted:?}): {steps:?}"))
            }
        }
    }
}
