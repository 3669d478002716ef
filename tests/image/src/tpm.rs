//! The node secret and the TPM that seals it: swtpm, a process beside the machine.

use crate::disk::Disk;
use crate::firmware::secure_boot;
use crate::machine::{Machine, Running};
use crate::upgrade::{blessed, install, make_bundle};
use crate::work::{Image, Scratch, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ONE_BOOT: Duration = Duration::from_secs(240);

/// A TPM 2.0 whose memory outlives the machine, as a real one's does.
struct Tpm {
    dir: PathBuf,
}

impl Tpm {
    fn new(scratch: &Scratch) -> Result<Tpm, String> {
        let dir = scratch.dir.join("tpm");
        fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        Ok(Tpm { dir })
    }

    /// Switched on with the machine: it ends with the connection.
    fn power_on(&self, machine: Machine) -> Result<(Machine, Powered), String> {
        // A path of a socket has at most 107 bytes, and a test's directory may lie deep.
        let socket = std::env::temp_dir().join(format!("basalt-tpm-{}", std::process::id()));
        let _ = fs::remove_file(&socket);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
            .arg(format!("dir={}", self.dir.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("swtpm: {e}"))?;
        let powered = Powered { child, socket };
        let start = Instant::now();
        while !powered.socket.exists() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("swtpm makes no socket".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let chardev = format!("socket,id=tpm,path={}", powered.socket.display());
        let machine = machine.args(["-chardev", &chardev, "-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
        Ok((machine.args(["-device", "tpm-crb,tpmdev=tpm0"]), powered))
    }
}

struct Powered {
    child: Child,
    socket: PathBuf,
}

impl Drop for Powered {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Boots, and hands back what the console says of the node secret, with the machine still running.
fn boot(
    image: &Image,
    scratch: &Scratch,
    disk: &Disk,
    tpm: &Tpm,
) -> Result<(String, Running, Powered), String> {
    let machine = secure_boot(Machine::new(1024, None).one_boot(), image, scratch)?.boot_disk(&disk.path);
    let (machine, powered) = tpm.power_on(machine)?;
    let mut node = machine.start(scratch)?;
    node.ready_s(ONE_BOOT).map_err(|e| format!("{e}; {}", said(&node)))?;
    Ok((said(&node), node, powered))
}

fn said(node: &Running) -> String {
    let console = node.console();
    let line = console.lines().find_map(|l| l.split_once("node secret"));
    line.map_or("nothing is said of a node secret".to_owned(), |(_, words)| words.trim().to_owned())
}

/// `12345678` of `12345678: unsealed by the TPM`.
fn digest<'a>(said: &'a str, how: &str) -> Result<&'a str, String> {
    let found = said.split_once(": ").filter(|(digest, words)| digest.len() == 8 && words.starts_with(how));
    found
        .map(|(digest, _)| digest)
        .ok_or_else(|| format!("wanted a node secret {how:?}, the node says: {said}"))
}

/// The slot's boot image with another command line, signed for Secure Boot with the owner's key all the same, and with the signed
/// measurements of the image that it was: what a thief of that one key could make.
fn changed(image: &Image, scratch: &Scratch) -> Result<PathBuf, String> {
    let (bare, signed) = (scratch.dir.join("changed"), scratch.dir.join("changed.efi"));
    fs::copy(image.output(".efi"), &bare).map_err(|e| e.to_string())?;
    run(image.builder_program("usr/bin/sbattach").arg("--remove").arg(&bare))?;
    let mut bytes = fs::read(&bare).map_err(|e| e.to_string())?;
    let words = image.cmdline.as_bytes();
    let at =
        bytes.windows(words.len()).position(|w| w == words).ok_or("no command line in the boot image")?;
    let word = image.cmdline.find("quiet").ok_or("no word to change in the command line")?;
    bytes[at + word..][..5].copy_from_slice(b"debug");
    fs::write(&bare, bytes).map_err(|e| e.to_string())?;
    let mut sign = image.builder_program("usr/bin/sbsign");
    sign.arg("--key").arg(image.key("secure-boot.key")).arg("--cert").arg(image.key("secure-boot.crt"));
    run(sign.arg("--output").arg(&signed).arg(&bare))?;
    Ok(signed)
}

/// Sealed at the first boot; not given to a changed image, whoever signed it for Secure Boot; given again to the good one, and to
/// the next version.
pub(crate) fn node_secret(image: &Image, scratch: &Scratch) -> Result<String, String> {
    let next = Image::open(&image.dir.join("next"))?;
    let (disk, tpm) = (Disk::copy(image, scratch)?, Tpm::new(scratch)?);

    let (first, mut node, powered) = boot(image, scratch, &disk, &tpm)?;
    let secret = digest(&first, "new, sealed by the TPM")?;
    node.expect(&[&blessed(image)], &["could not be blessed"], ONE_BOOT)?;
    drop((node, powered));

    let slot = |file: &Path| disk.put_slot(image, file, &format!("basalt_{}.efi", image.version));
    slot(&changed(image, scratch)?)?;
    let (other, ..) = boot(image, scratch, &disk, &tpm)?;
    if !other.contains("kept back by the TPM") || !other.contains("PCR 11") {
        return Err(format!("a changed image, and the node says: {other}"));
    }

    slot(&image.output(".efi"))?;
    let (again, ..) = boot(image, scratch, &disk, &tpm)?;
    if digest(&again, "unsealed by the TPM")? != secret {
        return Err(format!("another secret than at first: {first}; {again}"));
    }

    let bundle = scratch.dir.join("bundle");
    make_bundle(image, &next, &bundle)?;
    install(image, &disk.path, &bundle)?;
    let (upgraded, node, _powered) = boot(image, scratch, &disk, &tpm)?;
    if digest(&upgraded, "unsealed by the TPM")? != secret
        || !node.console().contains(&format!("Basalt {},", next.version))
    {
        return Err(format!("after the upgrade: {upgraded}"));
    }
    Ok(format!("sealed, kept from a changed image, unsealed again and by {}", next.version))
}
