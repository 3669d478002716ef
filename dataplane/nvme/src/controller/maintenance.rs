//! What an operator asks of a drive beside I/O: health, firmware, format, sanitize.

use super::admin::Data;
use super::{Controller, lock};
use crate::error::{NvmeError, Result};
use crate::recovery::Event;
use crate::spec::Sqe;
use crate::spec::command::{ALL_NAMESPACES, Nsid};
use crate::spec::log::{FirmwareSlotLog, HealthLog, SanitizeLog, page};
use std::time::Duration;
use zerocopy::FromBytes;

const KELVIN_AT_ZERO_C: i32 = 273;
/// The format of a large drive with a user data erase.
const FORMAT_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// A piece of firmware: every granularity (Identify Controller, FWUG) in use divides it or is not enforced below it.
const FIRMWARE_PIECE_BYTES: usize = 4096;

/// From the SMART / health information log.
#[derive(Clone, Debug)]
pub struct Health {
    /// For the operator; empty when all is well.
    pub warnings: Vec<&'static str>,
    pub temperature_c: i32,
    /// Spare blocks left, of 100.
    pub spare_percent: u8,
    /// Rated endurance used; may exceed 100.
    pub used_percent: u8,
    pub read_bytes: u128,
    pub written_bytes: u128,
    pub power_on_hours: u128,
    pub unsafe_shutdowns: u128,
    pub media_errors: u128,
}

#[derive(Clone, Debug)]
pub struct FirmwareSlots {
    /// 1-based.
    pub active: u8,
    /// After the next reset, where that is another one.
    pub next: Option<u8>,
    /// Revision per slot; empty where there is none.
    pub revisions: Vec<String>,
}

/// How a sanitize destroys what was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    Block,
    Overwrite,
    Crypto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanitizeState {
    Never,
    Done,
    /// Percent.
    UnderWay(u8),
    Failed,
}

impl Controller {
    async fn log<T: FromBytes>(&self, what: &'static str, page: u8) -> Result<T> {
        let sqe = Sqe::get_log_page(page, ALL_NAMESPACES, size_of::<T>() as u32);
        let answer = self.admin(what, sqe, Data::FromController(size_of::<T>()), self.timing.admin).await?;
        Ok(T::read_from_bytes(&answer.bytes(size_of::<T>())).expect("as many bytes as the structure has"))
    }

    pub async fn health(&self) -> Result<Health> {
        let log: HealthLog = self.log("health log", page::HEALTH).await?;
        const UNIT_BYTES: u128 = 512_000;
        Ok(Health {
            warnings: log.warnings(),
            temperature_c: i32::from(log.temperature_k.get()) - KELVIN_AT_ZERO_C,
            spare_percent: log.spare_percent,
            used_percent: log.used_percent,
            read_bytes: log.data_units_read.get().saturating_mul(UNIT_BYTES),
            written_bytes: log.data_units_written.get().saturating_mul(UNIT_BYTES),
            power_on_hours: log.power_on_hours.get(),
            unsafe_shutdowns: log.unsafe_shutdowns.get(),
            media_errors: log.media_errors.get(),
        })
    }

    pub async fn firmware_slots(&self) -> Result<FirmwareSlots> {
        let log: FirmwareSlotLog = self.log("firmware slots", page::FIRMWARE_SLOTS).await?;
        let slots = usize::from(lock(&self.identity).firmware_slots().clamp(1, 7));
        let revision = |r: &[u8; 8]| String::from_utf8_lossy(r).trim_matches([' ', '\0']).to_owned();
        Ok(FirmwareSlots {
            active: log.active & 7,
            next: Some(log.active >> 4 & 7).filter(|&n| n != 0),
            revisions: log.revisions[..slots].iter().map(revision).collect(),
        })
    }

    /// Writes an image to a slot (0: the drive chooses) and activates it at the reset that follows here. I/O goes on
    /// after the reset.
    pub async fn update_firmware(&self, image: &[u8], slot: u8) -> Result<()> {
        let unsupported = |what| NvmeError::Unsupported { name: self.name().to_owned(), what };
        if !lock(&self.identity).updates_firmware() {
            return Err(unsupported("a firmware update"));
        }
        if image.is_empty() || !image.len().is_multiple_of(4) || image.len() > 1 << 30 {
            let why = format!("a firmware image of {} bytes: not a multiple of 4 up to 1 GiB", image.len());
            return Err(NvmeError::Unsuitable { name: self.name().to_owned(), why });
        }
        for (i, piece) in image.chunks(FIRMWARE_PIECE_BYTES).enumerate() {
            let sqe = Sqe::firmware_download((i * FIRMWARE_PIECE_BYTES) as u32, piece.len() as u32);
            self.admin("firmware download", sqe, Data::ToController(piece), self.timing.admin).await?;
        }
        // Action 1: store, activate at the next controller reset.
        let commit =
            self.admin("firmware commit", Sqe::firmware_commit(slot, 1), Data::None, self.timing.admin).await;
        match commit {
            Ok(_) => {}
            // "Needs a reset": of the controller is what comes next; others need a power cycle.
            Err(NvmeError::Status { status, .. }) if status.code_type() == 1 && status.code() == 0x11 => {}
            Err(e) => return Err(e),
        }
        self.report(Event::Wanted("new firmware waits for it".to_owned()));
        Ok(())
    }

    /// Formats a namespace: everything on it is lost. No namespace of the drive may be open.
    pub async fn format(&self, nsid: u32, lba_format: u8, protection_type: u8, erase: bool) -> Result<()> {
        if !lock(&self.identity).formats() {
            return Err(NvmeError::Unsupported { name: self.name().to_owned(), what: "format" });
        }
        self.unused()?;
        let sqe = Sqe::format_nvm(Nsid(nsid), lba_format, protection_type, erase);
        self.admin("format", sqe, Data::None, FORMAT_LIMIT).await.map(drop)
    }

    /// Starts to destroy everything on the drive, all namespaces and caches. [`sanitize_state`](Self::sanitize_state)
    /// says when it is done.
    pub async fn sanitize(&self, how: Erase) -> Result<()> {
        let (bit, action) = match how {
            Erase::Crypto => (0, 4),
            Erase::Block => (1, 2),
            Erase::Overwrite => (2, 3),
        };
        if lock(&self.identity).sanitize.get() >> bit & 1 == 0 {
            return Err(NvmeError::Unsupported {
                name: self.name().to_owned(),
                what: "this kind of sanitize",
            });
        }
        self.unused()?;
        self.admin("sanitize", Sqe::sanitize(action), Data::None, self.timing.admin).await.map(drop)
    }

    pub async fn sanitize_state(&self) -> Result<SanitizeState> {
        let log: SanitizeLog = self.log("sanitize status", page::SANITIZE).await?;
        Ok(match log.status.get() & 7 {
            0 => SanitizeState::Never,
            2 => SanitizeState::UnderWay((u32::from(log.progress.get()) * 100 / 65536) as u8),
            3 => SanitizeState::Failed,
            _ => SanitizeState::Done,
        })
    }
}
