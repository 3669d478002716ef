//! The I/O address space: one VFIO container per process, so that buffers are mapped once for all drives.

use super::ioctl::{self, DmaMap, DmaUnmap, IommuInfo};
use crate::dma::{DmaError, DmaRegion, DmaSpace, Iova, Mapping, PAGE_BYTES};
use basalt_reactor::buf::{ArenaRef, arenas};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static CURRENT: Mutex<Weak<Container>> = Mutex::new(Weak::new());

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Where the kernel does not say what it has: above 4 GiB, so clear of the interrupt window at FEEx_xxxx, and below what
/// the smallest IOMMUs address (39 bits).
const DEFAULT_RANGE: (u64, u64) = (1 << 32, 1 << 39);
/// Never used: address 0 is too easily a mistake, and below 1 MiB firmware may have reserved.
const LOWEST: u64 = 1 << 32;

pub(super) struct Container {
    file: File,
    /// Free ranges: start to length.
    free: Mutex<BTreeMap<u64, u64>>,
    /// Arenas that are mapped; held, so that their addresses stay theirs.
    buffers: Mutex<BTreeMap<usize, (ArenaRef, Mapping)>>,
    /// Its last group has left, and all mappings with it.
    over: AtomicBool,
    groups: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group's membership in the container.
pub(super) struct Member {
    pub(super) container: Arc<Container>,
    group: Option<File>,
}

impl Member {
    /// Puts a group into the process's container, making that first where there is none.
    pub(super) fn join(group: File) -> Result<Member, String> {
        let mut current = lock(&CURRENT);
        let container = match current.upgrade().filter(|c| !c.over.load(Ordering::Acquire)) {
            Some(container) => container,
            None => Arc::new(Container::new()?),
        };
        let raw = container.file.as_raw_fd();
        // SAFETY: the request reads an int.
        unsafe { ioctl::with_struct(group.as_fd(), ioctl::GROUP_SET_CONTAINER, &mut { raw }) }
            .map_err(|e| format!("its IOMMU group cannot be taken: {e}"))?;
        let mut groups = lock(&container.groups);
        if *groups == 0 {
            container.set_iommu()?;
        }
        *groups += 1;
        drop(groups);
        *current = Arc::downgrade(&container);
        Ok(Member { container, group: Some(group) })
    }

    pub(super) fn group(&self) -> Option<&File> {
        self.group.as_ref()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _current = lock(&CURRENT);
        // Closing it takes it out of the container, once its devices are closed.
        self.group.take();
        let mut groups = lock(&self.container.groups);
        *groups -= 1;
        if *groups == 0 {
            self.container.over.store(true, Ordering::Release);
        }
    }
}

impl Container {
    fn new() -> Result<Container, String> {
        let file = File::options().read(true).write(true).open("/dev/vfio/vfio").map_err(|e| {
            format!("/dev/vfio/vfio: {e}; load the modules vfio-pci and vfio_iommu_type1, or run as root")
        })?;
        let version =
            ioctl::with_value(file.as_fd(), ioctl::GET_API_VERSION, 0).map_err(|e| e.to_string())?;
        let type1 = ioctl::with_value(file.as_fd(), ioctl::CHECK_EXTENSION, ioctl::TYPE1V2_IOMMU);
        if version != ioctl::API_VERSION || !matches!(type1, Ok(1)) {
            return Err("this kernel's VFIO has no type 1 IOMMU; turn the IOMMU on (intel_iommu=on) and load vfio_iommu_type1".to_owned());
        }
        Ok(Container {
            file,
            free: Mutex::default(),
            buffers: Mutex::default(),
            over: AtomicBool::new(false),
            groups: Mutex::default(),
        })
    }

    fn set_iommu(&self) -> Result<(), String> {
        ioctl::with_value(self.file.as_fd(), ioctl::SET_IOMMU, ioctl::TYPE1V2_IOMMU)
            .map_err(|e| format!("the IOMMU cannot be used: {e}"))?;
        let mut free = lock(&self.free);
        for (start, end) in self.ranges() {
            let (start, end) = (start.max(LOWEST), end.min(1 << 48));
            if start < end {
                free.insert(start, end - start);
            }
        }
        Ok(())
    }

    /// Address ranges that the IOMMU translates, ends exclusive.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let mut info = IommuInfo {
            argsz: size_of::<IommuInfo>() as u32,
            flags: 0,
            page_sizes: 0,
            cap_offset: 0,
            pad: 0,
            rest: [0; 4072],
        };
        let header = size_of::<IommuInfo>() - info.rest.len();
        // SAFETY: the request's structure, with as much room behind it as `argsz` says.
        if unsafe { ioctl::with_struct(self.file.as_fd(), ioctl::IOMMU_GET_INFO, &mut info) }.is_err() {
            return vec![DEFAULT_RANGE];
        }
        let word = |at: usize, n: usize| -> Option<u64> {
            let bytes = info.rest.get(at.checked_sub(header)?..)?.get(..n)?;
            Some(bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
        };
        let mut at = info.cap_offset as usize;
        // Each capability names the next; more than a handful would be a loop.
        for _ in 0..16 {
            let Some(id) = word(at, 2).filter(|_| at != 0) else { break };
            if id == u64::from(ioctl::CAP_IOVA_RANGE) {
                let count = word(at + 8, 4).unwrap_or(0).min(64) as usize;
                let range = |i: usize| {
                    let start = word(at + 16 + 16 * i, 8)?;
                    Some((start, word(at + 24 + 16 * i, 8)?.saturating_add(1)))
                };
                return (0..count).filter_map(range).collect();
            }
            at = word(at + 4, 4).unwrap_or(0) as usize;
        }
        vec![DEFAULT_RANGE]
    }

    fn take_range(&self, len: u64) -> Option<u64> {
        let mut free = lock(&self.free);
        // Large mappings are aligned, so that the IOMMU can use large pages for them.
        let align = if len >= HUGE_PAGE_BYTES as u64 { HUGE_PAGE_BYTES as u64 } else { PAGE_BYTES };
        let fitting = free.iter().find_map(|(&start, &room)| {
            let at = start.next_multiple_of(align);
            (at + len <= start + room).then_some((start, room, at))
        });
        let (start, room, at) = fitting?;
        free.remove(&start);
        if at > start {
            free.insert(start, at - start);
        }
        if at + len < start + room {
            free.insert(at + len, start + room - at - len);
        }
        Some(at)
    }

    fn give_range(&self, mut start: u64, mut len: u64) {
        let mut free = lock(&self.free);
        if let Some(after) = free.remove(&(start + len)) {
            len += after;
        }
        if let Some((&before, &room)) = free.range(..start).next_back()
            && before + room == start
        {
            free.remove(&before);
            start = before;
            len += room;
        }
        free.insert(start, len);
    }

    fn map(&self, start: *const u8, len: usize) -> Result<Iova, DmaError> {
        let iova = self.take_range(len as u64).ok_or(DmaError::Full)?;
        let mut map = DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            flags: ioctl::DMA_READ | ioctl::DMA_WRITE,
            vaddr: start.addr() as u64,
            iova,
            size: len as u64,
        };
        // SAFETY: the request's structure. The kernel pins the pages, so what the device may write to stays memory of this
        // range until it is unmapped, whoever frees it.
        let mapped = unsafe { ioctl::with_struct(self.file.as_fd(), ioctl::IOMMU_MAP_DMA, &mut map) };
        match mapped {
            Ok(_) => Ok(Iova(iova)),
            Err(e) => {
                self.give_range(iova, len as u64);
                Err(DmaError::Map { len_bytes: len, cause: e.to_string() })
            }
        }
    }

    fn unmap(&self, iova: Iova, len: usize) {
        let argsz = size_of::<DmaUnmap>() as u32;
        let mut unmap = DmaUnmap { argsz, flags: 0, iova: iova.0, size: len as u64 };
        // SAFETY: the request's structure. Fails when the container has lost its IOMMU, and with it the mapping.
        let _ = unsafe { ioctl::with_struct(self.file.as_fd(), ioctl::IOMMU_UNMAP_DMA, &mut unmap) };
        self.give_range(iova.0, len as u64);
    }
}

/// Memory of a [`DmaRegion`].
struct Pages {
    start: NonNull<u8>,
    len: usize,
    iova: Iova,
    container: Arc<Container>,
}
// SAFETY: owns a private mapping.
unsafe impl Send for Pages {}
// SAFETY: as above; gives no access.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        self.container.unmap(self.iova, self.len);
        // SAFETY: the mapping made by `allocate`, no longer visible to any device, dropped once.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The container as a drive's DMA space.
pub(super) struct Space(pub(super) Arc<Container>);

impl DmaSpace for Space {
    fn allocate(&self, len: usize) -> Result<DmaRegion, DmaError> {
        let len = len.max(1).next_multiple_of(PAGE_BYTES as usize);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        let start = NonNull::new(at.cast::<u8>()).filter(|_| at != libc::MAP_FAILED);
        let Some(start) = start else {
            return Err(DmaError::Map { len_bytes: len, cause: io::Error::last_os_error().to_string() });
        };
        let iova = match self.0.map(start.as_ptr(), len) {
            Ok(iova) => iova,
            Err(e) => {
                // SAFETY: the mapping just made.
                unsafe { libc::munmap(at, len) };
                return Err(e);
            }
        };
        let owner = Pages { start, len, iova, container: self.0.clone() };
        // SAFETY: fresh, zeroed and mapped until `owner` is dropped.
        Ok(unsafe { DmaRegion::new(start, len, iova, Arc::new(owner)) })
    }

    fn buffers(&self) -> Vec<Mapping> {
        let mut mapped = lock(&self.0.buffers);
        for arena in arenas() {
            let (start, len) = (arena.start(), arena.len());
            if mapped.contains_key(&start.addr()) {
                continue;
            }
            match self.0.map(start, len) {
                Ok(iova) => {
                    mapped.insert(start.addr(), (arena, Mapping { start: start.addr(), len, iova }));
                }
                Err(e) => tracing::warn!("buffers are copied for DMA: {e}"),
            }
        }
        mapped.values().map(|m| m.1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_reused_and_joined() {
        let container = Container {
            file: File::open("/dev/null").unwrap(),
            free: Mutex::new(BTreeMap::from([(0x1000, 0x10_0000), (1 << 32, 1 << 30)])),
            buffers: Mutex::default(),
            over: AtomicBool::new(false),
            groups: Mutex::default(),
        };
        let before = lock(&container.free).clone();
        let small: Vec<_> = (0..20).map(|_| container.take_range(0x3000).unwrap()).collect();
        let large = container.take_range(8 << 20).unwrap();
        assert_eq!(large % (2 << 20), 0);
        let mut all = small.clone();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
        assert!(container.take_range(1 << 40).is_none());
        container.give_range(large, 8 << 20);
        for (i, at) in small
            .iter()
            .enumerate()
            .rev()
            .filter(|(i, _)| i % 2 == 0)
            .chain(small.iter().enumerate().filter(|(i, _)| i % 2 == 1))
        {
            let _ = i;
            container.give_range(*at, 0x3000);
        }
        assert_eq!(*lock(&container.free), before);
    }
}
