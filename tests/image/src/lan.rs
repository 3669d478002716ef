//! A network of its own with the servers that a network boot needs, in a network namespace.

use crate::work::{Scratch, run};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
    /// Serves the files of `dir`.
    pub(crate) fn start(scratch: &Scratch, dir: &Path, offer: &Offer<'_>) -> Result<Lan, String> {
        let netns = format!("basalt-image-{}", std::process::id());
        let _ = Command::new("ip").args(["netns", "del", &netns]).stderr(Stdio::null()).status();
        run(Command::new("ip").args(["netns", "add", &netns]))?;
        let mut lan = Lan { netns, servers: Vec::new() };
        for step in [
            "link set lo up",
            "tuntap add tap0 mode tap",
            &format!("addr add {ADDRESS}/24 dev tap0"),
            "link set tap0 up",
        ] {
            run(lan.inside("ip").args(step.split(' ')))?;
        }
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

    fn serve(&mut self, mut command: Command) -> Result<(), String> {
        self.servers.push(command.stdin(Stdio::null()).spawn().map_err(|e| format!("{command:?}: {e}"))?);
        Ok(())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}
