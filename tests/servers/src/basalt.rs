//! A management station: the program `basalt` with a directory of its own, and the boot service.

use crate::bmc::PASSWORD;
use crate::world::{ADDRESS, BRIDGE, Running, World, make_dir, text};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Station {
    program: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Station {
    pub(crate) fn new(world: &World, name: &str) -> Result<Station, String> {
        let dir = world.scratch.join(format!("station-{name}"));
        make_dir(&dir)?;
        Ok(Station { program: world.basalt.clone(), dir })
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--dir").arg(&self.dir).args(args);
        command
            .env("BASALT_NODE_PASSPHRASE", "test")
            .env("BASALT_BMC_PASSWORD", PASSWORD)
            .stdin(Stdio::null());
        command
    }

    /// Exit code, standard output, standard error.
    pub(crate) fn run(&self, args: &[&str]) -> Result<(i32, String, String), String> {
        let output = self.command(args).env("NO_COLOR", "1").output().map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    pub(crate) fn ok(&self, args: &[&str]) -> Result<String, String> {
        match self.run(args)? {
            (0, out, _) => Ok(out),
            (code, out, err) => Err(format!("basalt {}: {code}: {out}{err}", args.join(" "))),
        }
    }

    pub(crate) fn json(&self, args: &[&str]) -> Result<Value, String> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let out = self.ok(&all)?;
        serde_json::from_str(&out).map_err(|e| format!("basalt {}: {e}: {out}", args.join(" ")))
    }

    pub(crate) fn node(&self, args: &[&str]) -> Result<Value, String> {
        let mut all = vec!["node"];
        all.extend(args);
        self.json(&all)
    }

    /// As the list has it on disk; looked at while another command works.
    fn listed(&self, node: &str) -> Option<Value> {
        let file = self.dir.join("nodes/list").join(format!("{node}.json"));
        serde_json::from_str(&text(&file).ok()?).ok()
    }

    pub(crate) fn state(&self, node: &str) -> String {
        self.listed(node).and_then(|n| Some(n["node"]["state"].as_str()?.to_owned())).unwrap_or_default()
    }

    /// The steps that the boot service saw a node take, oldest first; what was decided for it is none.
    pub(crate) fn boot_steps(&self, mac: &str) -> Result<Vec<String>, String> {
        let events = self.json(&["boot", "events", mac, "--limit", "1000"])?;
        let steps = events.as_array().ok_or("no list of events")?.iter();
        let all = steps.filter_map(|e| Some(e["step"].as_str()?.to_owned()));
        Ok(all.filter(|step| step != "decided").collect())
    }

    /// `basalt boot serve` as the DHCP server of the network.
    pub(crate) fn serve_boots(&self, world: &World, images: &Path) -> Result<Running, String> {
        let mut command = self.command(&["boot", "serve", "--images"]);
        command.arg(images);
        command.args(["--listen", &format!("{ADDRESS}:8069"), "--interface", BRIDGE, "--address", ADDRESS]);
        command.args(["--range", "10.99.0.10-10.99.0.50", "--dnsmasq-user", "root"]);
        command.arg("--ipxe").arg(world.image.join("builder/usr/lib/ipxe"));
        command.stdout(Stdio::piped()).stderr(world.log("boot-service")?);
        let mut server = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
        let out = server.stdout.take();
        let server = Running(server);
        let mut line = String::new();
        // Ends with the process, if that ends.
        BufReader::new(out.ok_or("no output")?).read_line(&mut line).map_err(|e| e.to_string())?;
        if line.starts_with("ready ") {
            return Ok(server);
        }
        let log = text(&world.logs.join("boot-service.log")).unwrap_or_default();
        Err(format!("the boot service did not start: {log}"))
    }
}
