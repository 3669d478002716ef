//! Stage 1: from the initrd to the verified root.

use crate::block::{self, wait_for};
use crate::cmdline::Cmdline;
use crate::console::say;
use crate::devmapper::open_verity;
use crate::modules::Modules;
use crate::sys;
use crate::verity::{RootSpec, file_sha256, hex};
use nix::mount::{MsFlags, mount};
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where the boot loader puts a root that came over the network.
const NETWORK_ROOT: &str = "/root.img";
const ROOT_LABELS: [&str; 2] = ["basalt-root-a", "basalt-root-b"];
/// Servers with many drives and slow controllers take their time.
const DISK_WAIT: Duration = Duration::from_secs(60);

pub(crate) fn run() -> Result<(), String> {
    mount_kernel_file_systems("")?;
    say(&format_args!("stage 1, {}", fs::read_to_string("/proc/version").unwrap_or_default().trim()));
    let cmdline = Cmdline::read();
    let spec = cmdline.get("root").ok_or("refused: the command line names no root hash (basalt.root=)")?;
    let spec = RootSpec::parse(spec)?;
    let mut modules = Modules::open()?;
    for name in ["squashfs", "dm-verity", "loop"] {
        modules.load(name);
    }
    let network = Path::new(NETWORK_ROOT);
    let device = if network.exists() {
        check_expiry(&cmdline)?;
        network_root(&cmdline, network, &spec)?
    } else {
        disk_root(&mut modules, &spec)?
    };
    let verified =
        open_verity(&spec, &device).map_err(|e| format!("dm-verity over {}: {e}", device.display()))?;
    // A crash of the node must not leave it at a prompt or hanging: panics reboot, counted by the boot loader.
    fs::create_dir_all("/newroot").map_err(|e| e.to_string())?;
    let options = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(&verified), "/newroot", Some("squashfs"), options, None::<&str>)
        .map_err(|e| format!("refused: the root on {} does not mount: {e}", device.display()))?;
    fs::write("/run/root-device", device.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
    crate::secret::hand_on();
    enter("/newroot")
}

/// proc, sys, dev and run, below `prefix`.
fn mount_kernel_file_systems(prefix: &str) -> Result<(), String> {
    for (kind, dir, flags) in [
        ("proc", "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV),
        ("sysfs", "/sys", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV),
    ] {
        let dir = format!("{prefix}{dir}");
        fs::create_dir_all(&dir).map_err(|e| format!("{dir}: {e}"))?;
        let options = if kind == "tmpfs" { Some("mode=0755,size=64m") } else { None };
        match mount(Some(kind), dir.as_str(), Some(kind), flags, options) {
            Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
            Err(e) => return Err(format!("mount {kind} on {dir}: {e}")),
        }
    }
    Ok(())
}

/// An image that is booted from the network says until when it may be, so that an old, signed one with known holes cannot
/// be handed out for ever. What is installed on a disk boots without this: a node must come up after years in a rack.
fn check_expiry(cmdline: &Cmdline) -> Result<(), String> {
    let Some(not_after_s) = cmdline.number("not_after") else { return Ok(()) };
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if now_s > not_after_s {
        let days = (now_s - not_after_s) / 86_400;
        return Err(format!(
            "refused: this image is expired: it may be booted from the network until {not_after_s} (seconds since 1970), {days} days ago by this node's clock ({now_s}). Offer a newer image, or set the clock"
        ));
    }
    Ok(())
}

fn network_root(cmdline: &Cmdline, path: &Path, spec: &RootSpec) -> Result<PathBuf, String> {
    // A UKI was checked as a whole by the firmware; a root fetched beside the kernel has its digest on the command line.
    if let Some(wanted) = cmdline.get("root_sha256") {
        let found = hex(&file_sha256(path).map_err(|e| format!("{NETWORK_ROOT}: {e}"))?);
        if found != wanted {
            return Err(format!(
                "refused: the root image is not the one that was asked for (tampered with, or another version): SHA-256 is {found}, wanted {wanted}"
            ));
        }
    }
    if !spec.is_on(path).map_err(|e| format!("{NETWORK_ROOT}: {e}"))? {
        return Err(format!(
            "refused: the root image does not have root hash {} (tampered with, or another version)",
            spec.hex_hash()
        ));
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
    let bound = control.and_then(|control| {
        let device = PathBuf::from(format!("/dev/loop{}", sys::loop_get_free(&control)?));
        sys::loop_set_fd(&OpenOptions::new().read(true).open(&device)?, &fs::File::open(path)?)?;
        Ok(device)
    });
    bound.map_err(|e| format!("loop device over {NETWORK_ROOT}: {e}"))
}

fn disk_root(modules: &mut Modules, spec: &RootSpec) -> Result<PathBuf, String> {
    modules.load_for_devices();
    for name in ["sd_mod", "nls_cp437", "nls_ascii"] {
        modules.load(name);
    }
    let mut rejected = Vec::new();
    let found = wait_for(DISK_WAIT, || {
        rejected.clear();
        // USB and NVMe controllers bring their devices late; drivers for those are in the initrd too.
        modules.load_for_devices();
        for partition in ROOT_LABELS.iter().flat_map(|label| block::partitions(label)) {
            let device = partition.device();
            match spec.is_on(&device) {
                Ok(true) => return Some(device),
                Ok(false) => rejected.push(format!(
                    "{} ({}): another version or tampered with",
                    device.display(),
                    partition.label
                )),
                Err(e) => rejected.push(format!("{} ({}): {e}", device.display(), partition.label)),
            }
        }
        // Both slots are there and neither fits: no later device will help.
        (rejected.len() >= ROOT_LABELS.len()).then(PathBuf::new)
    });
    match found {
        Some(device) if device != Path::new("") => Ok(device),
        _ if rejected.is_empty() => Err(format!(
            "no partition named {} within {} s: the disk is missing, or its driver is not in the image",
            ROOT_LABELS.join(" or "),
            DISK_WAIT.as_secs()
        )),
        _ => Err(format!(
            "refused: no root partition has the root hash {} that this boot image was signed for; {}",
            spec.hex_hash(),
            rejected.join("; ")
        )),
    }
}

/// Makes `new` the root and goes on there as stage 2. The initrd's files go, but for the root image itself.
fn enter(new: &str) -> Result<(), String> {
    let failed = |what: &'static str| move |e: nix::errno::Errno| format!("{what}: {e}");
    for dir in ["/proc", "/sys", "/dev", "/run"] {
        let to = format!("{new}{dir}");
        mount(Some(dir), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed(dir))?;
    }
    for dir in ["/lib", "/init"] {
        let _ = fs::remove_dir_all(dir);
        let _ = fs::remove_file(dir);
    }
    std::env::set_current_dir(new).map_err(|e| e.to_string())?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed("moving the root"))?;
    nix::unistd::chroot(".").map_err(failed("chroot"))?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    let program = CString::new("/usr/lib/basalt/init").expect("no NUL");
    let arguments = [program.clone(), CString::new("stage2").expect("no NUL")];
    match nix::unistd::execv(&program, &arguments) {
        Ok(never) => match never {},
        Err(e) => Err(format!("{}: {e}", program.to_string_lossy())),
    }
}
