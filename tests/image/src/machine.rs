//! A virtual machine and what it says on its serial console.

use crate::work::Scratch;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Arguments of QEMU, gathered before it starts.
pub(crate) struct Machine {
    command: Command,
    drives: u32,
}

impl Machine {
    /// q35, two CPUs, no disk and no network yet. `netns`: run in that network namespace.
    pub(crate) fn new(memory_mib: u32, netns: Option<&str>) -> Machine {
        let mut command = match netns {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "qemu-system-x86_64"]);
                command
            }
            None => Command::new("qemu-system-x86_64"),
        };
        // One thread for both CPUs: with one each, code that the kernel patches while it runs (a breakpoint, the rest, the first byte) was
        // seen half patched by the other CPU, "Oops: int3", about once in twenty boots. It is no slower on two busy cores.
        command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"]);
        command.args(["-m", &memory_mib.to_string()]);
        command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-device", "i6300esb"]);
        Machine { command, drives: 0 }
    }

    /// A reboot ends the machine, so that a boot loop is not taken for a slow boot.
    pub(crate) fn one_boot(self) -> Machine {
        self.args(["-no-reboot"])
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Machine {
        self.command.args(args);
        self
    }

    fn drive(mut self, file: &std::path::Path, device: &str) -> Machine {
        let n = self.drives;
        self.drives += 1;
        let file = file.display();
        self.args(["-drive".to_owned(), format!("if=none,id=d{n},file={file},format=raw")])
            .args(["-device".to_owned(), format!("{device},drive=d{n},serial=s{n}")])
    }
    pub(crate) fn nvme(self, file: &std::path::Path) -> Machine {
        self.drive(file, "nvme")
    }
    pub(crate) fn virtio(self, file: &std::path::Path) -> Machine {
        self.drive(file, "virtio-blk-pci")
    }
    /// The disk that the firmware boots from.
    pub(crate) fn boot_disk(self, file: &std::path::Path) -> Machine {
        self.drive(file, "nvme,bootindex=1")
    }

    /// The disk that the firmware boots from when the network offers nothing. Its serial number is `s0` where it comes first.
    pub(crate) fn boot_disk_after_network(self, file: &std::path::Path) -> Machine {
        self.drive(file, "nvme,bootindex=2")
    }

    /// A disk to boot from whose every write, flush and order of them is recorded in `log` (dm-log-writes' format).
    pub(crate) fn recorded_boot_disk(self, file: &std::path::Path, log: &std::path::Path) -> Machine {
        let node = |driver: &str| ["-blockdev".to_owned(), driver.to_owned()];
        self.args(node(&format!("driver=file,node-name=bootfile,filename={}", file.display())))
            .args(node(&format!("driver=file,node-name=bootlog,filename={}", log.display())))
            .args(node("driver=blklogwrites,node-name=boot,file=bootfile,log=bootlog"))
            .args(["-device".to_owned(), "virtio-blk-pci,drive=boot,serial=boot,bootindex=1".to_owned()])
    }

    /// An IOMMU, so that drives may be given to user space.
    pub(crate) fn iommu(self) -> Machine {
        self.args(["-device", "intel-iommu,intremap=on"])
    }

    /// QEMU's own network, with the guest's NFS port on a loopback port of the host.
    pub(crate) fn user_network(self, nfs_port: u16) -> Machine {
        self.args([
            "-netdev".to_owned(),
            format!("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{nfs_port}-:20490"),
        ])
        .args(["-device", "virtio-net-pci,netdev=n,romfile="])
    }

    /// The port of [`crate::lan::Lan`], with this address. The firmware does not boot from it: the disk does.
    pub(crate) fn tap(self, mac: &str) -> Machine {
        self.port(mac, "")
    }

    /// The same, and the firmware tries it first.
    pub(crate) fn boot_tap(self, mac: &str) -> Machine {
        self.port(mac, ",bootindex=1")
    }

    fn port(self, mac: &str, more: &str) -> Machine {
        self.args(["-netdev".to_owned(), "tap,id=n,ifname=tap0,script=no,downscript=no".to_owned()])
            .args(["-device".to_owned(), format!("virtio-net-pci,netdev=n,romfile=,mac={mac}{more}")])
    }

    pub(crate) fn start(mut self, scratch: &Scratch) -> Result<Running, String> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
        let mut out = child.stdout.take().ok_or("no console")?;
        let mut log = File::create(&scratch.log).map_err(|e| format!("{}: {e}", scratch.log.display()))?;
        let text = Arc::new(Mutex::new(String::new()));
        let seen = text.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                let _ = log.write_all(&buffer[..length]);
                seen.lock().expect("no panic with it").push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Ok(Running { child, text, log: scratch.log.clone() })
    }
}

pub(crate) struct Running {
    child: Child,
    text: Arc<Mutex<String>>,
    log: std::path::PathBuf,
}

impl Running {
    pub(crate) fn console(&self) -> String {
        self.text.lock().expect("no panic with it").clone()
    }

    /// Waits until one of `wanted` is on the console, and says which. Fails if the machine ends before, or says one of `unwanted`.
    pub(crate) fn expect<'a>(
        &mut self,
        wanted: &[&'a str],
        unwanted: &[&str],
        limit: Duration,
    ) -> Result<&'a str, String> {
        let start = Instant::now();
        loop {
            // Asked first, so that the last words of a machine that ended are looked at.
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() {
                std::thread::sleep(Duration::from_millis(200));
            }
            let console = self.console();
            if let Some(found) = wanted.iter().find(|w| console.contains(**w)) {
                return Ok(found);
            }
            let wrong =
                unwanted.iter().find(|u| console.contains(**u)).map(|u| format!("the console says {u:?}"));
            let ended = ended.map(|status| format!("the machine ended ({status})"));
            let late = (start.elapsed() > limit).then(|| format!("not within {} s", limit.as_secs()));
            if let Some(why) = wrong.or(ended).or(late) {
                return Err(format!("{why}, wanted {wanted:?}; see {}", self.log.display()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until `line` has been said `times` times.
    pub(crate) fn expect_times(
        &mut self,
        line: &str,
        times: usize,
        unwanted: &[&str],
        limit: Duration,
    ) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let console = self.console();
            if console.matches(line).count() >= times {
                return Ok(());
            }
            if let Some(wrong) = unwanted.iter().find(|u| console.contains(**u)) {
                return Err(format!(
                    "the console says {wrong:?}, wanted {line:?}; see {}",
                    self.log.display()
                ));
            }
            if start.elapsed() > limit || self.child.try_wait().ok().flatten().is_some() {
                return Err(format!("{line:?} was not said {times} times; see {}", self.log.display()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the machine ends by itself, as [`Machine::one_boot`] makes of a reboot.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        while self.child.try_wait().ok().flatten().is_none() {
            if start.elapsed() > limit {
                return Err(format!(
                    "it did not reboot within {} s; see {}",
                    limit.as_secs(),
                    self.log.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The address that the node got last.
    pub(crate) fn address(&self) -> Result<String, String> {
        let console = self.console();
        let line = console
            .lines()
            .rev()
            .find(|l| l.contains("basalt: [") && l.contains(" network "))
            .ok_or("no address")?;
        let address = line.rsplit_once(": ").and_then(|(_, t)| t.split('/').next());
        address.map(str::to_owned).ok_or_else(|| format!("no address in {line:?}"))
    }

    /// Guest seconds from kernel start to the ready line, as init says them.
    pub(crate) fn ready_s(&mut self, limit: Duration) -> Result<f64, String> {
        self.expect(&["ready line printed"], &["refused:", "cannot go on", "Kernel panic"], limit)?;
        let console = self.console();
        // Of the last boot.
        let line = console.lines().rev().find(|l| l.contains("ready line printed")).ok_or("no time")?;
        if !console.lines().any(|l| l.trim_start().starts_with("ready pid=")) {
            return Err("no ready line on the console".to_owned());
        }
        let seconds = line.split(['[', ']']).nth(1).and_then(|t| t.trim().parse().ok());
        seconds.ok_or_else(|| format!("no time in {line:?}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See [`nfs_replies`].
pub(crate) fn nfs_answers(address: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).map_err(|e| format!("NFS at {address}: {e}"))?;
    nfs_replies(stream).map_err(|e| format!("NFS at {address}: {e}"))
}

/// A NULL call of NFS version 4 (RFC 5531): an accepted, successful reply means that the server serves.
pub(crate) fn nfs_replies(mut stream: TcpStream) -> Result<(), String> {
    let words: [u32; 10] = [0x6261_7361, 0, 2, 100_003, 4, 0, 0, 0, 0, 0];
    let mut call = (0x8000_0000u32 | 40).to_be_bytes().to_vec();
    call.extend(words.iter().flat_map(|w| w.to_be_bytes()));
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).map_err(|e| e.to_string())?;
    let mut reply = [0; 28];
    stream.write_all(&call).and_then(|()| stream.read_exact(&mut reply)).map_err(|e| e.to_string())?;
    let _ = stream.shutdown(Shutdown::Both);
    // Same xid, a reply, accepted, empty verifier, success.
    let wanted: Vec<u8> = [0x6261_7361u32, 1, 0, 0, 0, 0].iter().flat_map(|w| w.to_be_bytes()).collect();
    if reply[4..] == wanted[..] { Ok(()) } else { Err(format!("answers {reply:?}")) }
}
