//! A device's registers, configuration space and interrupts.

use super::container::{Member, Space};
use super::ioctl::{self, GroupStatus, IrqInfo, IrqSet, RegionInfo};
use super::pci::PciAddress;
use crate::dma::DmaSpace;
use crate::queue::DoorbellRegister;
use crate::spec::registers::{CSTS, Csts};
use crate::transport::Transport;
use basalt_reactor::event::EventFd;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// MSI-X vectors in use at most: the admin queue's and 64 I/O queues'.
const VECTORS_MAX: usize = 65;

/// PCI configuration space (PCI Local Bus 3.0, 6.1, 6.7, 6.8.2).
const COMMAND: u64 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const STATUS: u64 = 0x06;
const CLASS: u64 = 0x0a;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u64 = 0x34;
const CAPABILITY_MSIX: u8 = 0x11;
/// Bytes of an MSI-X table entry, and its vector control.
const MSIX_ENTRY: usize = 16;
const MSIX_CONTROL: usize = 12;

pub(super) struct VfioDevice {
    name: String,
    bar: Arc<Bar>,
    space: Space,
    events: Vec<Arc<EventFd>>,
    /// Where vectors are masked: offset of the table in BAR 0.
    msix_table: Option<usize>,
    request: EventFd,
    requested: AtomicBool,
    /// `None` once the device has been handed back. The device closes before its group leaves the container.
    files: Mutex<Option<Files>>,
    config_offset: u64,
}

struct Files {
    device: File,
    _member: Member,
}

/// BAR 0, mapped.
struct Bar {
    start: NonNull<u8>,
    len: usize,
}
// SAFETY: registers, accessed as units of 32 and 64 bits by atomic operations only.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl Bar {
    fn map(device: BorrowedFd<'_>, info: &RegionInfo) -> Result<Bar, String> {
        let len = info.size as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let offset = info.offset as libc::off_t;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, device.as_raw_fd(), offset)
        };
        match NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED) {
            Some(start) => Ok(Bar { start, len }),
            None => Err(format!("its registers cannot be mapped: {}", std::io::Error::last_os_error())),
        }
    }

    /// Puts memory of all ones in place of the registers: whoever still looks sees a device that is gone.
    fn detach(&self) {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: replaces our own mapping at once, and every access to it is to plain memory afterwards.
        unsafe {
            if libc::mmap(self.start.as_ptr().cast(), self.len, protection, flags, -1, 0) != libc::MAP_FAILED
            {
                std::ptr::write_bytes(self.start.as_ptr(), 0xff, self.len);
            }
        }
    }

    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let fits = offset.is_multiple_of(size) && offset.checked_add(size).is_some_and(|end| end <= self.len);
        // SAFETY: within the mapping.
        fits.then(|| unsafe { self.start.add(offset) })
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        // SAFETY: four aligned bytes of the mapping, which lives as long as `self`.
        self.at(offset, 4).map(|p| unsafe { p.cast::<AtomicU32>().as_ref() })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // SAFETY: our own mapping, dropped once; doorbells hold the Arc.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl VfioDevice {
    pub(super) fn open(address: PciAddress) -> Result<VfioDevice, String> {
        let link = std::fs::read_link(address.sysfs().join("iommu_group")).map_err(|_| {
            "it is behind no IOMMU; turn it on in the firmware and with intel_iommu=on or amd_iommu=on"
                .to_owned()
        })?;
        let group =
            link.file_name().and_then(|n| n.to_str()).ok_or("its IOMMU group has no name")?.to_owned();
        let path = format!("/dev/vfio/{group}");
        let group =
            File::options().read(true).write(true).open(&path).map_err(|e| match e.raw_os_error() {
                Some(libc::EBUSY) => format!("{path}: in use by another program; stop that first"),
                _ => format!("{path}: {e}"),
            })?;
        let mut status = GroupStatus { argsz: size_of::<GroupStatus>() as u32, flags: 0 };
        // SAFETY: the request's structure.
        unsafe { ioctl::with_struct(group.as_fd(), ioctl::GROUP_GET_STATUS, &mut status) }
            .map_err(|e| e.to_string())?;
        if status.flags & ioctl::GROUP_VIABLE == 0 {
            return Err(format!(
                "other devices of its IOMMU group are in use by the kernel; see {}",
                address.sysfs().join("iommu_group/devices").display()
            ));
        }
        let member = Member::join(group)?;
        let name = address.to_string();
        let device = device_fd(&member, &name)?;
        Self::set_up(name, device, member)
    }

    fn set_up(name: String, device: File, member: Member) -> Result<VfioDevice, String> {
        let bar = region(&device, ioctl::PCI_BAR0)?;
        if bar.flags & ioctl::REGION_MMAP == 0 || bar.size < 0x2000 {
            return Err("its registers (BAR 0) cannot be mapped".to_owned());
        }
        let bar = Arc::new(Bar::map(device.as_fd(), &bar)?);
        let config = region(&device, ioctl::PCI_CONFIG)?.offset;
        let command = read16(&device, config + COMMAND)? | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        device.write_all_at(&command.to_le_bytes(), config + COMMAND).map_err(|e| e.to_string())?;
        let msix_table = msix_table(&device, config).filter(|&t| bar.word(t + MSIX_CONTROL).is_some());
        let events = msix_events(&device)?;
        let request = EventFd::new().map_err(|e| e.to_string())?;
        // Absent on old kernels: then removal is seen when reads return all ones.
        let _ = set_events::<1>(&device, ioctl::IRQ_REQUEST, &[request.as_fd().as_raw_fd()]);
        let space = Space(member.container.clone());
        Ok(VfioDevice {
            name,
            bar,
            space,
            events,
            msix_table,
            request,
            requested: AtomicBool::new(false),
            files: Mutex::new(Some(Files { device, _member: member })),
            config_offset: config,
        })
    }

    fn ready(&self) -> bool {
        Csts(self.read32(CSTS)).ready()
    }

    /// Configuration space of all ones: not every bus answers for registers of a device that is away with ones.
    fn vanished(&self) -> bool {
        // The class: VFIO answers for vendor and device from memory.
        let class = self.with_device(|device| read16(device, self.config_offset + CLASS));
        !matches!(class, Some(Ok(class)) if class != u16::MAX)
    }

    fn with_device<T>(&self, f: impl FnOnce(&File) -> T) -> Option<T> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|files| f(&files.device))
    }
}

fn device_fd(member: &Member, name: &str) -> Result<File, String> {
    let group = member.group().ok_or("its group is closed")?;
    let text = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: the request reads a string that ends with a zero byte.
    let fd = unsafe { libc::ioctl(group.as_raw_fd(), ioctl::GROUP_GET_DEVICE_FD as _, text.as_ptr()) };
    if fd < 0 {
        return Err(format!("VFIO does not give it: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: a fresh fd that nobody else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn region(device: &File, index: u32) -> Result<RegionInfo, String> {
    let mut info = RegionInfo { argsz: size_of::<RegionInfo>() as u32, index, ..RegionInfo::default() };
    // SAFETY: the request's structure; capabilities do not fit and are left out.
    unsafe { ioctl::with_struct(device.as_fd(), ioctl::DEVICE_GET_REGION_INFO, &mut info) }
        .map_err(|e| format!("region {index}: {e}"))?;
    Ok(info)
}

fn read16(device: &File, at: u64) -> Result<u16, String> {
    let mut bytes = [0; 2];
    device
        .read_exact_at(&mut bytes, at)
        .map_err(|e| format!("its configuration space cannot be read: {e}"))?;
    Ok(u16::from_le_bytes(bytes))
}

/// Offset of the MSI-X table, where it lies in BAR 0.
fn msix_table(device: &File, config: u64) -> Option<usize> {
    if read16(device, config + STATUS).ok()? & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = u64::from(read16(device, config + CAPABILITIES).ok()? & 0xfc);
    // 48 capabilities fill the space.
    for _ in 0..48 {
        if at == 0 {
            return None;
        }
        let header = read16(device, config + at).ok()?;
        if header as u8 == CAPABILITY_MSIX {
            let low = read16(device, config + at + 4).ok()?;
            let high = read16(device, config + at + 6).ok()?;
            let table = u32::from(high) << 16 | u32::from(low);
            return (table & 7 == 0).then_some((table & !7) as usize);
        }
        at = u64::from(header >> 8 & 0xfc);
    }
    None
}

fn msix_events(device: &File) -> Result<Vec<Arc<EventFd>>, String> {
    let argsz = size_of::<IrqInfo>() as u32;
    let mut info = IrqInfo { argsz, index: ioctl::IRQ_MSIX, ..IrqInfo::default() };
    // SAFETY: the request's structure.
    unsafe { ioctl::with_struct(device.as_fd(), ioctl::DEVICE_GET_IRQ_INFO, &mut info) }
        .map_err(|e| e.to_string())?;
    let count = (info.count as usize).min(VECTORS_MAX);
    let events: Result<Vec<_>, _> = (0..count).map(|_| EventFd::new().map(Arc::new)).collect();
    let events = events.map_err(|e| format!("{count} eventfds: {e}; raise the limit of open files"))?;
    let fds: Vec<i32> = events.iter().map(|e| e.as_fd().as_raw_fd()).collect();
    if count == 0 {
        return Ok(Vec::new());
    }
    match set_events::<VECTORS_MAX>(device, ioctl::IRQ_MSIX, &fds) {
        Ok(()) => Ok(events),
        Err(e) => {
            tracing::warn!("no interrupts ({e}); waiting reactors look every millisecond");
            Ok(Vec::new())
        }
    }
}

fn set_events<const N: usize>(device: &File, index: u32, fds: &[i32]) -> Result<(), String> {
    let mut events = [-1; N];
    events[..fds.len()].copy_from_slice(fds);
    let argsz = (std::mem::offset_of!(IrqSet<N>, events) + 4 * fds.len()) as u32;
    let flags = ioctl::IRQ_DATA_EVENTFD | ioctl::IRQ_ACTION_TRIGGER;
    let mut set = IrqSet { argsz, flags, index, start: 0, count: fds.len() as u32, events };
    // SAFETY: the request's structure with `count` fds behind it, as `argsz` says.
    unsafe { ioctl::with_struct(device.as_fd(), ioctl::DEVICE_SET_IRQS, &mut set) }
        .map_err(|e| e.to_string())?;
    Ok(())
}

impl Transport for VfioDevice {
    fn name(&self) -> &str {
        &self.name
    }
    fn read32(&self, offset: u32) -> u32 {
        self.bar.word(offset as usize).map_or(u32::MAX, |w| u32::from_le(w.load(Ordering::Acquire)))
    }
    fn read64(&self, offset: u32) -> u64 {
        let Some(at) = self.bar.at(offset as usize, 8) else { return u64::MAX };
        // SAFETY: eight aligned bytes of the mapping.
        u64::from_le(unsafe { at.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire))
    }
    fn write32(&self, offset: u32, value: u32) {
        if let Some(word) = self.bar.word(offset as usize) {
            word.store(value.to_le(), Ordering::Release);
        }
    }
    fn write64(&self, offset: u32, value: u64) {
        if let Some(at) = self.bar.at(offset as usize, 8) {
            // SAFETY: eight aligned bytes of the mapping.
            unsafe { at.cast::<AtomicU64>().as_ref() }.store(value.to_le(), Ordering::Release);
        }
    }
    fn doorbell(&self, offset: u32) -> Option<DoorbellRegister> {
        let at = self.bar.at(offset as usize, 4)?;
        // SAFETY: a register of the mapping, which the Arc given along keeps.
        Some(unsafe { DoorbellRegister::new(at.cast(), self.bar.clone()) })
    }
    fn dma(&self) -> &dyn DmaSpace {
        &self.space
    }
    fn event(&self, vector: u16) -> Option<Arc<EventFd>> {
        self.events.get(usize::from(vector)).cloned()
    }
    /// By the mask bit of the vector's table entry (PCI Local Bus 3.0, 6.8.2.9): a plain store, where the kernel's way
    /// would free and request the interrupt each time.
    fn mask(&self, vector: u16, masked: bool) -> bool {
        let word =
            self.msix_table.and_then(|t| self.bar.word(t + MSIX_ENTRY * usize::from(vector) + MSIX_CONTROL));
        if let Some(word) = word {
            word.store(u32::from(masked).to_le(), Ordering::Release);
        }
        word.is_some()
    }
    fn reset_function(&self) -> Result<(), String> {
        let reset = self.with_device(|d| ioctl::with_value(d.as_fd(), ioctl::DEVICE_RESET, 0));
        match reset {
            Some(Ok(_)) => Ok(()),
            Some(Err(e)) => Err(format!("the bus cannot reset it: {e}")),
            None => Err("it has been handed back".to_owned()),
        }
    }
    fn isolate(&self) {
        let at = self.config_offset + COMMAND;
        self.with_device(|device| {
            if let Ok(command) = read16(device, at) {
                let _ = device.write_all_at(&(command & !COMMAND_BUS_MASTER).to_le_bytes(), at);
            }
        });
        if self.departed() || Csts(self.read32(CSTS)).gone() {
            // The kernel waits for this before it forgets the device.
            self.bar.detach();
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Beside the reactor: on closing, the kernel tries to reset the function, and waits more than a minute for one
            // that has vanished. Should there be no thread to be had, it is closed here.
            let _ = std::thread::Builder::new().name("vfio-close".to_owned()).spawn(move || drop(files));
        }
    }
    fn departed(&self) -> bool {
        if self.request.clear() {
            self.requested.store(true, Ordering::Release);
        }
        self.requested.load(Ordering::Acquire) || (!self.ready() && self.vanished())
    }
}
