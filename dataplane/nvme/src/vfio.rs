//! Controllers through VFIO: the kernel hands over registers, interrupts and an I/O address space behind the IOMMU
//! (linux/vfio.h, Documentation/driver-api/vfio.rst; group and container interface, type 1 v2).

mod bind;
mod container;
mod device;
mod ioctl;
mod pci;

pub use bind::release;
pub use pci::{DriveName, PciAddress};

use crate::controller::{Controller, Timing};
use crate::drive::NvmeDrive;
use crate::error::{NvmeError, Result};
use basalt_bdev::DriveRef;
use device::VfioDevice;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Controllers of this process, by address: two namespaces of one share it.
static CONTROLLERS: Mutex<BTreeMap<PciAddress, Weak<Controller>>> = Mutex::new(BTreeMap::new());

/// Takes a controller from whatever driver has it (if nothing uses its disks), and brings it up; one that this process
/// has already is shared.
pub async fn controller(address: PciAddress, timing: Timing) -> Result<Arc<Controller>> {
    let existing = {
        let mut all = CONTROLLERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, c| c.strong_count() > 0);
        all.get(&address).and_then(Weak::upgrade)
    };
    if let Some(controller) = existing.filter(|c| !matches!(c.trouble(), Some(NvmeError::Gone(_)))) {
        return Ok(controller);
    }
    let name = address.to_string();
    let failed = |cause: String| NvmeError::Vfio { name: name.clone(), cause };
    bind::bind(address).map_err(failed)?;
    let device = VfioDevice::open(address).map_err(failed)?;
    let controller = Controller::bring_up(Arc::new(device), timing).await?;
    CONTROLLERS.lock().unwrap_or_else(PoisonError::into_inner).insert(address, Arc::downgrade(&controller));
    Ok(controller)
}

/// The drives that a name in the configuration means: one namespace, or all of a controller.
pub async fn open(name: &DriveName) -> Result<Vec<DriveRef>> {
    let controller = controller(name.address, Timing::default()).await?;
    NvmeDrive::open_all(&controller, name.nsid).await
}
