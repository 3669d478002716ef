//! Taking a device from the kernel's driver and giving it back (sysfs; blocks for a moment: administration).

use super::pci::PciAddress;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const VFIO_PCI: &str = "vfio-pci";
const DRIVERS: &str = "/sys/bus/pci/drivers";
/// Class code of NVMe controllers: mass storage, non-volatile memory, NVMe.
const NVME_CLASS: &str = "0x010802";

fn driver(address: PciAddress) -> Option<String> {
    let link = fs::read_link(address.sysfs().join("driver")).ok()?;
    link.file_name().and_then(|n| n.to_str()).map(str::to_owned)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Binds to vfio-pci. Refused while one of its disks is mounted or otherwise in use.
pub(super) fn bind(address: PciAddress) -> Result<(), String> {
    let sysfs = address.sysfs();
    let class = fs::read_to_string(sysfs.join("class")).map_err(|_| "no such PCI device".to_owned())?;
    if class.trim() != NVME_CLASS {
        return Err(format!("it is no NVMe controller (class {})", class.trim()));
    }
    match driver(address).as_deref() {
        Some(VFIO_PCI) => return Ok(()),
        Some(other) => {
            unused(&sysfs)?;
            tracing::info!("taking {address} from the kernel's driver {other}");
            write(&Path::new(DRIVERS).join(other).join("unbind"), &address.to_string())?;
        }
        None => {}
    }
    if !Path::new(DRIVERS).join(VFIO_PCI).exists() {
        return Err("the kernel has no vfio-pci driver loaded (modprobe vfio-pci)".to_owned());
    }
    write(&sysfs.join("driver_override"), VFIO_PCI)?;
    write(Path::new("/sys/bus/pci/drivers_probe"), &address.to_string())?;
    match driver(address).as_deref() {
        Some(VFIO_PCI) => Ok(()),
        _ => Err("vfio-pci does not take it; the kernel's log (dmesg) says why".to_owned()),
    }
}

/// Back to the driver that the kernel would choose.
pub fn release(address: PciAddress) -> Result<(), String> {
    let sysfs = address.sysfs();
    write(&sysfs.join("driver_override"), "\n")?;
    if let Some(driver) = driver(address) {
        write(&Path::new(DRIVERS).join(driver).join("unbind"), &address.to_string())?;
    }
    write(Path::new("/sys/bus/pci/drivers_probe"), &address.to_string())
}

/// Opens each of its disks exclusively, which fails for mounted ones and members of others.
fn unused(sysfs: &Path) -> Result<(), String> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    for controller in names(&sysfs.join("nvme")) {
        for disk in names(&sysfs.join("nvme").join(&controller)) {
            let path = Path::new("/dev").join(&disk);
            if !disk.starts_with("nvme") || !path.exists() {
                continue;
            }
            let open = fs::File::options().read(true).custom_flags(libc::O_EXCL).open(&path);
            if let Err(e) = open
                && e.raw_os_error() == Some(libc::EBUSY)
            {
                return Err(format!("{} is mounted or in use; free it first", path.display()));
            }
        }
    }
    Ok(())
}
