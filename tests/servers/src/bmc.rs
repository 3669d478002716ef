//! A BMC: sushy-emulator before one libvirt domain, with TLS, a user and a password.

use crate::domain::{DRIVE_BYTES, Domain};
use crate::world::{Running, World, make_dir, run, until, write};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

pub(crate) const PORT: u16 = 8443;
pub(crate) const USER: &str = "root";
pub(crate) const PASSWORD: &str = "calvin-and-hobbes";
/// `PASSWORD` as `htpasswd -B` writes it.
const HTPASSWD: &str = "root:$2y$05$AlZ9cuPbbH06vUQIs.J2GOAVnjY34dTgvUvUjb592Z7SfYhJD3kiG\n";

pub(crate) struct Bmc {
    pub(crate) address: String,
    process: Running,
}

impl Bmc {
    pub(crate) fn start(world: &World, domain: &Domain, address: &str) -> Result<Bmc, String> {
        run(Command::new("ip").args(["addr", "replace", &format!("{address}/32"), "dev", "lo"]))?;
        let dir = world.scratch.join(format!("bmc-{}", domain.name));
        make_dir(&dir)?;
        let file = |name: &str| dir.join(name).display().to_string();
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
            ])
            .args(["-subj", &format!("/CN={address}"), "-keyout", &key, "-out", &cert]))?;
        write(&dir.join("users"), HTPASSWD)?;
        // Firmware is named, as a change of the boot mode writes it anew: with Secure Boot and its own template by default.
        let config = format!(
            "SUSHY_EMULATOR_STATE_DIR = {dir:?}
SUSHY_EMULATOR_ALLOWED_INSTANCES = [{uuid:?}]
SUSHY_EMULATOR_AUTH_FILE = {users:?}
SUSHY_EMULATOR_SSL_CERT = {cert:?}
SUSHY_EMULATOR_SSL_KEY = {key:?}
SUSHY_EMULATOR_LISTEN_IP = {address:?}
SUSHY_EMULATOR_LISTEN_PORT = {PORT}
SUSHY_EMULATOR_LIBVIRT_URI = 'qemu:///system'
SUSHY_EMULATOR_BOOT_LOADER_MAP = {{
    'UEFI': {{'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}},
    'Legacy': {{'x86_64': '/usr/share/seabios/bios-256k.bin'}},
}}
SUSHY_EMULATOR_STORAGE = {{{uuid:?}: [{{'Id': '1', 'Name': 'Disks', 'StorageControllers': [], 'Drives': ['vda']}}]}}
SUSHY_EMULATOR_DRIVES = {{({uuid:?}, '1'): [{{'Id': 'vda', 'Name': 'vda', 'CapacityBytes': {DRIVE_BYTES}, 'Protocol': 'SAS'}}]}}
SUSHY_EMULATOR_SECURE_BOOT_DISABLED_NVRAM = '/usr/share/OVMF/OVMF_VARS_4M.fd'
",
            dir = dir.display().to_string(),
            uuid = domain.uuid,
            users = file("users"),
        );
        write(&dir.join("emulator.conf"), &config)?;
        let mut command = Command::new(&world.sushy);
        command.args(["--config", &file("emulator.conf")]).current_dir(&dir);
        let process = world.start(&mut command, &format!("bmc-{}", domain.name))?;
        Ok(Bmc { address: address.to_owned(), process })
    }

    pub(crate) fn wait_until_up(&self) -> Result<(), String> {
        let to = format!("{}:{PORT}", self.address);
        until(&format!("the BMC at {to} listens"), Duration::from_secs(120), || {
            Ok(TcpStream::connect(&to).ok())
        })?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}:{PORT}", self.address)
    }

    /// From now on connections come about, and nothing is answered.
    pub(crate) fn hang(&self) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn go_on(&self) -> Result<(), String> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(Pid::from_raw(self.process.0.id() as i32), signal).map_err(|e| format!("{signal}: {e}"))
    }
}
