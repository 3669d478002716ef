//! What all tests stand on: file systems in memory, a network, libvirt.

use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of the network that servers boot from: here is the boot service, and whoever serves images to BMCs.
pub(crate) const ADDRESS: &str = "10.99.0.1";
pub(crate) const BRIDGE: &str = "boot0";
/// In memory, gone with the mount namespace.
const SCRATCH: &str = "/tmp/basalt-servers";

pub(crate) struct World {
    pub(crate) image: PathBuf,
    pub(crate) version: String,
    pub(crate) basalt: PathBuf,
    pub(crate) sushy: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) scratch: PathBuf,
    daemons: Vec<Running>,
}

/// A process that ends with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    pub(crate) fn new(
        image: &Path,
        venv: &Path,
        logs: &Path,
        basalt: Option<&Path>,
    ) -> Result<World, String> {
        let image = real(image, "run `make image` or `make image-short` first")?;
        let sushy = real(&venv.join("bin/sushy-emulator"), "run `tests/setup servers` first")?;
        let manifest = text(&image.join("out/manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest).map_err(|e| e.to_string())?;
        let version = manifest["version"].as_str().ok_or("the image's manifest names no version")?.to_owned();
        let beside = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("basalt");
        let basalt = real(basalt.unwrap_or(&beside), "build basalt-cli first")?;
        let _ = fs::remove_dir_all(logs);
        make_dir(logs)?;
        let logs = real(logs, "")?;
        in_memory(&[&image, &sushy, &basalt, &logs])?;
        // Where we were may be hidden now, and programs that go back to it fail.
        std::env::set_current_dir("/").map_err(|e| e.to_string())?;
        let scratch = PathBuf::from(SCRATCH);
        make_dir(&scratch)?;
        let mut world = World { image, version, basalt, sushy, logs, scratch, daemons: Vec::new() };
        world.network()?;
        world.libvirt()?;
        Ok(world)
    }

    fn network(&self) -> Result<(), String> {
        for step in [
            "link set lo up",
            &format!("link add {BRIDGE} type bridge"),
            &format!("addr add {ADDRESS}/24 dev {BRIDGE}"),
            &format!("link set {BRIDGE} up"),
        ] {
            run(Command::new("ip").args(step.split(' ')))?;
        }
        Ok(())
    }

    /// No cgroups, no other user, no labels: this is nobody's production.
    fn libvirt(&mut self) -> Result<(), String> {
        let etc = Path::new("/etc/libvirt");
        let qemu = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\nremember_owner = 0\ndynamic_ownership = 0\n";
        write(&etc.join("qemu.conf"), qemu)?;
        let daemon = "unix_sock_group = \"root\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";
        write(&etc.join("libvirtd.conf"), daemon)?;
        write(&etc.join("virtlogd.conf"), "")?;
        for daemon in ["virtlogd", "libvirtd"] {
            let running = self.start(&mut Command::new(daemon), daemon)?;
            self.daemons.push(running);
        }
        until("libvirt answers", Duration::from_secs(60), || Ok(virsh(&["list"]).ok()))?;
        // Where BMCs keep images for virtual media.
        let pool = self.scratch.join("pool");
        make_dir(&pool)?;
        virsh(&["pool-create-as", "default", "dir", "--target", &pool.to_string_lossy()])?;
        Ok(())
    }

    /// Starts a program that logs to `logs/NAME.log`.
    pub(crate) fn start(&self, command: &mut Command, name: &str) -> Result<Running, String> {
        let log = self.log(name)?;
        let err = log.try_clone().map_err(|e| e.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(err).spawn();
        Ok(Running(child.map_err(|e| format!("{command:?}: {e}"))?))
    }

    pub(crate) fn log(&self, name: &str) -> Result<File, String> {
        let path = self.logs.join(format!("{name}.log"));
        File::options().create(true).append(true).open(&path).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Empty file systems over everything that libvirt, sushy-tools and these tests write; what `needed` names must not vanish below one.
fn in_memory(needed: &[&PathBuf]) -> Result<(), String> {
    if let Some(hidden) = needed.iter().find(|path| path.starts_with("/tmp") || path.starts_with("/run")) {
        return Err(format!(
            "{} would be hidden: these tests have a /tmp and a /run of their own",
            hidden.display()
        ));
    }
    for path in ["/tmp", "/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"]
    {
        make_dir(Path::new(path))?;
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .map_err(|e| format!("a file system in memory at {path}: {e}"))?;
    }
    Ok(())
}

fn real(path: &Path, advice: &str) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|e| format!("{}: {e}; {advice}", path.display()))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs a command to its end; its output if it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e: io::Error| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

pub(crate) fn virsh(args: &[&str]) -> Result<String, String> {
    run(Command::new("virsh").args(["--connect", "qemu:///system", "--quiet"]).args(args))
}

/// Asks until there is an answer.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            return Err(format!("not within {} s: {what}", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
