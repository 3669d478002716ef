//! The emulated machine and its drives.

use crate::image::Image;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1 << 20;
/// Sizes of the drives that have an image file.
pub(crate) const IMAGES: [(&str, u64); 6] = [
    ("main1", 64 * MIB),
    ("main2", 32 * MIB),
    ("zoned", 64 * MIB),
    ("guarded", 32 * MIB),
    ("plug", 32 * MIB),
    ("slow", 32 * MIB),
];

pub(crate) struct Machine {
    child: Child,
    pub(crate) lines: Receiver<String>,
    qmp: Option<Qmp>,
    qmp_path: PathBuf,
}

struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Machine {
    /// Boots; the serial line goes to `log` as well.
    pub(crate) fn boot(
        image: &Image,
        dir: &Path,
        append: &str,
        drives: &[String],
        console: bool,
    ) -> Result<Machine, String> {
        let qmp_path = dir.join("qmp.sock");
        let _ = std::fs::remove_file(&qmp_path);
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"])
            .args(["-device", "intel-iommu,intremap=on"])
            // Hot plug by the slot itself, as on servers, instead of ACPI.
            .args(["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp_path.display())])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initramfs)
            .args([
                "-append",
                &format!("console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off intel_iommu=on {append}"),
            ])
            .args(drives)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("qemu.log")).map_err(|e| e.to_string())?);
        let mut child = command
            .spawn()
            .map_err(|e| format!("qemu-system-x86_64: {e} (apt-get install qemu-system-x86)"))?;
        let stdout = child.stdout.take().ok_or("QEMU has no output")?;
        let mut log = File::create(dir.join("console.log")).map_err(|e| e.to_string())?;
        let (tx, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let _ = log.write_all(&line);
                let text = String::from_utf8_lossy(&line).into_owned();
                if console {
                    print!("{text}");
                }
                if tx.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Machine { child, lines, qmp: None, qmp_path })
    }

    /// One command of QEMU's monitor; its answer.
    pub(crate) fn monitor(&mut self, execute: &str, arguments: Value) -> Result<Value, String> {
        if self.qmp.is_none() {
            self.qmp = Some(Qmp::connect(&self.qmp_path)?);
        }
        match &mut self.qmp {
            Some(qmp) => qmp.call(execute, arguments),
            None => Err("no monitor".to_owned()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qmp {
    fn connect(path: &Path) -> Result<Qmp, String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(s) => break s,
                Err(e) if Instant::now() > deadline => return Err(format!("{}: {e}", path.display())),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|e| e.to_string())?;
        let mut qmp = Qmp { reader: BufReader::new(stream) };
        qmp.read()?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).map_err(|e| format!("monitor: {e}"))?;
        serde_json::from_str(&line).map_err(|e| format!("monitor said {line:?}: {e}"))
    }

    fn call(&mut self, execute: &str, arguments: Value) -> Result<Value, String> {
        let mut text = json!({ "execute": execute, "arguments": arguments }).to_string();
        text.push('\n');
        self.reader.get_mut().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{execute}: {error}"));
            }
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }
}

/// Fresh image files.
pub(crate) fn make_images(dir: &Path) -> Result<(), String> {
    for (name, bytes) in IMAGES {
        let file = File::create(dir.join(format!("{name}.img"))).map_err(|e| e.to_string())?;
        file.set_len(bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The drives of the tests. Addresses are fixed: the guest names them (module `guest`, its tests).
pub(crate) fn test_drives(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|w| (*w).to_owned()));
    for (name, _) in IMAGES {
        let file = format!(
            "driver=file,node-name={name}-file,filename={}",
            dir.join(format!("{name}.img")).display()
        );
        add(&["-blockdev", &file]);
        if name != "guarded" {
            add(&["-blockdev", &format!("driver=raw,node-name={name},file={name}-file")]);
        }
    }
    // Reads of the megabyte from 16 MiB on fail, and writes of that from 20 MiB on.
    let injected = json!({
        "driver": "blkdebug", "node-name": "guarded", "image": "guarded-file",
        "inject-error": (0..8).map(|i| json!({ "event": "none", "iotype": "read", "errno": 5, "sector": (16 * MIB + i * 4096) / 512 }))
            .chain((0..8).map(|i| json!({ "event": "none", "iotype": "write", "errno": 5, "sector": (20 * MIB + i * 4096) / 512 })))
            .collect::<Vec<_>>(),
    });
    add(&["-blockdev", &injected.to_string()]);
    add(&["-object", "throttle-group,id=brake"]);
    add(&["-blockdev", "driver=throttle,node-name=braked,throttle-group=brake,file=slow"]);

    // Three namespaces, one of them zoned.
    add(&["-device", "nvme,id=main,serial=MAIN,addr=04.0"]);
    add(&["-device", "nvme-ns,bus=main,drive=main1,nsid=1,logical_block_size=4096,physical_block_size=4096"]);
    add(&["-device", "nvme-ns,bus=main,drive=main2,nsid=2,logical_block_size=512,physical_block_size=512"]);
    add(&[
        "-device",
        "nvme-ns,bus=main,drive=zoned,nsid=3,zoned=on,zoned.zone_size=4M,logical_block_size=4096,physical_block_size=4096",
    ]);
    // Protection information type 1, and injected errors.
    add(&["-device", "nvme,id=guard,serial=GUARD,addr=05.0"]);
    add(&[
        "-device",
        "nvme-ns,bus=guard,drive=guarded,nsid=1,logical_block_size=4096,physical_block_size=4096,ms=8,pi=1",
    ]);
    add(&[
        "-device",
        "nvme,id=slow,serial=SLOW,addr=06.0,drive=braked,logical_block_size=4096,physical_block_size=4096",
    ]);
    add(&["-device", "pcie-root-port,id=port1,bus=pcie.0,addr=07.0,chassis=1,slot=1"]);
    add(&["-device", PLUG]);
    all
}

const PLUG: &str =
    "nvme,id=plug,serial=PLUG,bus=port1,drive=plug,logical_block_size=4096,physical_block_size=4096";

/// What `device_add` takes to put the drive into the slot again.
pub(crate) fn plug_device() -> Value {
    json!({
        "driver": "nvme", "id": "plug", "serial": "PLUG", "bus": "port1", "drive": "plug",
        "logical_block_size": 4096, "physical_block_size": 4096,
    })
}

/// One fast drive without media, for measurements.
pub(crate) fn bench_drives() -> Vec<String> {
    let words = [
        "-blockdev",
        "driver=null-co,node-name=void,size=1073741824,read-zeroes=off",
        "-device",
        "nvme,id=main,serial=VOID,addr=04.0,drive=void,logical_block_size=4096,physical_block_size=4096",
    ];
    words.map(str::to_owned).to_vec()
}
