//! What the guest sees of its machine.

use basalt_bdev::DriveRef;
use basalt_nvme::controller::{Controller, Timing};
use basalt_nvme::recovery::Limits;
use basalt_nvme::vfio::{self, PciAddress};
use basalt_nvme::{NvmeDrive, NvmeError};
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::real;
use bytes::Bytes;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

pub(super) const BLOCK: usize = 4096;

pub(super) fn address(text: &str) -> PciAddress {
    text.parse().expect("an address of this machine")
}

/// Short enough for a test, long enough for an emulated machine.
pub(super) fn timing() -> Timing {
    Timing {
        command: Duration::from_secs(3),
        abort: Duration::from_secs(1),
        admin: Duration::from_secs(20),
        look: Duration::from_millis(100),
        limits: Limits::default(),
    }
}

pub(super) async fn attach(text: &str) -> Result<(Arc<Controller>, Vec<DriveRef>), String> {
    let controller = vfio::controller(address(text), timing()).await.map_err(words)?;
    let drives = NvmeDrive::open_all(&controller, None).await.map_err(words)?;
    Ok((controller, drives))
}

pub(super) fn words(e: NvmeError) -> String {
    e.to_string()
}

pub(super) fn on_reactors<T, F>(cores: u16, body: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    real::run(real::Config { cores, pin: false, idle_spin_us: 20 }, body)
}

/// Bytes that no other block holds.
pub(super) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut b = DmaBuf::new(len);
    for (i, word) in b.chunks_exact_mut(8).enumerate() {
        let x = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word.copy_from_slice(&x.to_le_bytes());
    }
    b.freeze()
}

/// The hot-plug slot's power, by the root port's slot control register (PCIe 7.5.3.10): as if somebody pulled the drive.
pub(super) fn cut_slot_power(port: &str) -> io::Result<()> {
    let path = format!("/sys/bus/pci/devices/{port}/config");
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    let mut config = [0; 256];
    file.read_exact(&mut config)?;
    let mut at = usize::from(config[0x34]);
    while at != 0 && config[at] != 0x10 {
        at = usize::from(config[at + 1]);
    }
    if at == 0 {
        return Err(io::Error::other("the port has no PCI Express capability"));
    }
    let control = at + 0x18;
    let value = u16::from_le_bytes([config[control], config[control + 1]]);
    // Power controller off (bit 10), power indicator off (bits 9:8 = 11).
    let off = value | 1 << 10 | 0b11 << 8;
    file.seek(SeekFrom::Start(control as u64))?;
    file.write_all(&off.to_le_bytes())
}

/// Busy time of all CPUs in seconds, interrupts included.
pub(super) fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().filter_map(|w| w.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; in hundredths.
    let busy: f64 = numbers.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|n| n.1).sum();
    busy / 100.0
}

/// CPU time of this process in seconds.
pub(super) fn own_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
