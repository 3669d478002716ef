//! NVMe drives: who they are from sysfs and Identify, how they are from the SMART log.

use super::{Tree, block};
use crate::record::{Drive, Record, Smart};
use basalt_nvme::spec::identify::{IDENTIFY_BYTES, IdentifyController};
use basalt_nvme::spec::log::HealthLog;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zerocopy::FromBytes;

const CONTROLLERS: &str = "sys/class/nvme";

/// Where Identify data and SMART logs come from: sysfs has neither.
pub trait NvmeLogs {
    /// Identify Controller, 4,096 bytes, of `nvme0`.
    fn identify(&self, controller: &str) -> Option<Vec<u8>>;
    /// SMART / Health Information, 512 bytes.
    fn health(&self, controller: &str) -> Option<Vec<u8>>;
}

/// `dev/nvme0.identify` and `dev/nvme0.health` of a recorded tree.
pub struct RecordedLogs {
    dev: PathBuf,
}

impl RecordedLogs {
    pub fn new(root: &Path) -> RecordedLogs {
        RecordedLogs { dev: root.join("dev") }
    }
}

impl NvmeLogs for RecordedLogs {
    fn identify(&self, controller: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dev.join(format!("{controller}.identify"))).ok()
    }
    fn health(&self, controller: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dev.join(format!("{controller}.health"))).ok()
    }
}

/// The program `nvme` (nvme-cli), on a running node. Drives that the data plane drives itself are not the kernel's; it reports those.
pub struct NvmeCli;

impl NvmeCli {
    fn ask(&self, what: &str, controller: &str) -> Option<Vec<u8>> {
        let device = format!("/dev/{controller}");
        let asked =
            Command::new("nvme").args([what, &device, "--raw-binary"]).stderr(Stdio::null()).output().ok()?;
        asked.status.success().then_some(asked.stdout)
    }
}

impl NvmeLogs for NvmeCli {
    fn identify(&self, controller: &str) -> Option<Vec<u8>> {
        self.ask("id-ctrl", controller)
    }
    fn health(&self, controller: &str) -> Option<Vec<u8>> {
        self.ask("smart-log", controller)
    }
}

pub(super) fn read(tree: &Tree, logs: &dyn NvmeLogs, record: &mut Record) {
    for name in tree.list(CONTROLLERS) {
        let dir = format!("{CONTROLLERS}/{name}");
        // Drives of other nodes, reached over a fabric, are not this node's.
        if tree.text(&format!("{dir}/transport")).is_some_and(|t| t != "pcie") {
            continue;
        }
        let text = |file: &str| tree.text(&format!("{dir}/{file}")).unwrap_or_default();
        let pci = [text("address"), tree.link_name(&format!("{dir}/device")).unwrap_or_default()];
        let mut drive = Drive {
            serial: text("serial"),
            model: text("model"),
            firmware: text("firmware_rev"),
            protocol: "NVMe".into(),
            media: "SSD".into(),
            pci: pci.into_iter().find(|p| !p.is_empty()).unwrap_or_default(),
            device: name.clone(),
            numa: tree.numa(&dir).or_else(|| tree.numa(&format!("{dir}/device"))),
            ..Drive::default()
        };
        for namespace in tree.list(&dir) {
            // nvme0n1; with multipath also nvme0c0n1, which is the same once more.
            let own = namespace.strip_prefix(&name).and_then(|n| n.strip_prefix('n'));
            if own.is_none_or(|n| n.parse::<u32>().is_err()) {
                continue;
            }
            let dir = format!("{dir}/{namespace}");
            drive.bytes += tree.number::<u64>(&format!("{dir}/size")).unwrap_or(0).saturating_mul(512);
            let ids = ["nguid", "eui"].map(|id| tree.text(&format!("{dir}/{id}")).unwrap_or_default());
            drive
                .eui
                .extend(ids.into_iter().find(|id| id.chars().any(|c| c.is_ascii_hexdigit() && c != '0')));
            drive.contents = block::worse(drive.contents, block::contents(tree, &dir, &namespace));
            drive.device = namespace;
        }
        if let Some(identify) = logs.identify(&name) {
            identified(&identify, &mut drive);
        }
        if let Some(smart) = logs.health(&name).as_deref().and_then(smart) {
            drive.used_percent = Some(smart.used_percent);
            drive.smart = Some(smart);
        }
        record.drives.push(drive);
    }
}

fn identified(bytes: &[u8], drive: &mut Drive) {
    let Some(bytes) = bytes.get(..IDENTIFY_BYTES) else { return };
    let Ok((id, _)) = IdentifyController::read_from_prefix(bytes) else { return };
    for (mine, theirs) in [
        (&mut drive.serial, id.serial()),
        (&mut drive.model, id.model()),
        (&mut drive.firmware, id.firmware()),
    ] {
        if mine.is_empty() {
            *mine = theirs;
        }
    }
    if drive.bytes == 0 {
        drive.bytes = u64::try_from(id.total_capacity.get()).unwrap_or(u64::MAX);
    }
}

/// From the log as the drive sends it.
pub(crate) fn smart(bytes: &[u8]) -> Option<Smart> {
    let (log, _) = HealthLog::read_from_prefix(bytes).ok()?;
    let number = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    Some(Smart {
        warnings: log
            .warnings()
            .into_iter()
            .map(|w| w.split(';').next().unwrap_or_default().to_owned())
            .collect(),
        temperature_c: i32::from(log.temperature_k.get()) - 273,
        spare_percent: log.spare_percent.into(),
        spare_threshold_percent: log.spare_threshold_percent.into(),
        used_percent: log.used_percent.into(),
        data_units_written: number(log.data_units_written.get()),
        data_units_read: number(log.data_units_read.get()),
        power_on_hours: number(log.power_on_hours.get()),
        unsafe_shutdowns: number(log.unsafe_shutdowns.get()),
        media_errors: number(log.media_errors.get()),
        error_log_entries: number(log.error_log_entries.get()),
    })
}
