//! Admin commands.

use super::{Completions, Mock, State, Submission};
use crate::spec::command::admin;
use crate::spec::identify::{IdentifyController, IdentifyNamespace, cns};
use crate::spec::log::{FirmwareSlotLog, HealthLog, SanitizeLog, page};
use crate::spec::{Cqe, Sqe, Status};
use std::sync::atomic::Ordering;
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::new(0, 0x02);
const OK: Option<(Status, u32)> = Some((Status::SUCCESS, 0));

impl Mock {
    /// `None`: answered later.
    pub(super) fn admin(&self, state: &mut State, sqe: &Sqe) -> Option<(Status, u32)> {
        let cdw10 = sqe.cdw10.get();
        let qid = cdw10 as u16;
        let entries = (cdw10 >> 16) as u16 + 1;
        match sqe.opcode {
            admin::IDENTIFY => self.identify(sqe),
            admin::CREATE_IO_CQ => {
                let cq = Completions { base: sqe.data[0].get(), entries, tail: 0, phase: true };
                self.create(qid, |q| state.completion[q] = Some(cq))
            }
            admin::CREATE_IO_SQ => {
                let sq = Submission { base: sqe.data[0].get(), entries, head: 0 };
                self.create(qid, |q| state.submission[q] = Some(sq))
            }
            admin::DELETE_IO_SQ => self.create(qid, |q| state.submission[q] = None),
            admin::DELETE_IO_CQ => self.create(qid, |q| state.completion[q] = None),
            admin::SET_FEATURES if cdw10 & 0xff == 7 => {
                let granted = u32::from(self.config.queues - 1);
                Some((Status::SUCCESS, granted << 16 | granted))
            }
            admin::SET_FEATURES | admin::GET_FEATURES => OK,
            admin::ABORT => self.abort(state, qid, (cdw10 >> 16) as u16),
            admin::ASYNC_EVENT_REQUEST => {
                state.events.push_back(sqe.cid.get());
                None
            }
            admin::GET_LOG_PAGE => self.log_page(sqe),
            admin::DOORBELL_BUFFER_CONFIG if self.config.shadow_doorbells => {
                state.shadow = Some((sqe.data[0].get(), sqe.data[1].get()));
                OK
            }
            admin::FIRMWARE_DOWNLOAD => {
                state.log.firmware_bytes += 4 * (u64::from(cdw10) + 1);
                OK
            }
            admin::FIRMWARE_COMMIT if state.log.firmware_bytes == 0 => Some((Status::new(1, 0x07), 0)),
            admin::FIRMWARE_COMMIT => OK,
            admin::FORMAT_NVM => {
                state.log.formats += 1;
                state.media[sqe.nsid.get() as usize - 1].fill(0);
                OK
            }
            admin::SANITIZE => {
                state.media.iter_mut().for_each(|m| m.fill(0));
                OK
            }
            _ => Some((Status::new(0, 0x01), 0)),
        }
    }

    fn create(&self, qid: u16, apply: impl FnOnce(usize)) -> Option<(Status, u32)> {
        if qid == 0 || qid > self.config.queues {
            return Some((Status::new(1, 0x01), 0));
        }
        for doorbell in &self.doorbells[2 * usize::from(qid)..][..2] {
            doorbell.store(0, Ordering::Release);
        }
        apply(usize::from(qid));
        OK
    }

    fn abort(&self, state: &mut State, qid: u16, cid: u16) -> Option<(Status, u32)> {
        state.log.aborts += 1;
        let found = state.swallowed.iter().position(|&s| s == (qid, cid));
        let Some(at) = found.filter(|_| self.config.aborts) else { return Some((Status::SUCCESS, 1)) };
        state.swallowed.remove(at);
        let head = state.submission[usize::from(qid)].map_or(0, |s| s.head);
        let cqe = Cqe {
            sq_head: head.into(),
            sq_id: qid.into(),
            cid: cid.into(),
            phase_and_status: Status::new(0, 0x07).to_cqe().into(),
            ..Cqe::default()
        };
        self.complete(state, qid, cqe);
        OK
    }

    fn give(&self, sqe: &Sqe, bytes: &[u8]) -> Option<(Status, u32)> {
        self.transfer(sqe, bytes.len(), |memory, at, iova, len| memory.write(iova, &bytes[at..at + len]));
        OK
    }

    fn identify(&self, sqe: &Sqe) -> Option<(Status, u32)> {
        let nsid = sqe.nsid.get();
        let namespace = self.config.namespaces.get((nsid as usize).wrapping_sub(1));
        match sqe.cdw10.get() as u8 {
            cns::CONTROLLER => self.give(sqe, self.identify_controller().as_bytes()),
            cns::NAMESPACE => {
                let mut id = IdentifyNamespace::new_zeroed();
                if let Some(n) = namespace {
                    id.size_blocks = (n.size_bytes / u64::from(n.block_bytes)).into();
                    id.capacity_blocks = id.size_blocks;
                    id.formats[0].data_shift = n.block_bytes.trailing_zeros() as u8;
                    id.formats[0].metadata_bytes = n.metadata_bytes.into();
                    id.protection = n.protection;
                }
                self.give(sqe, id.as_bytes())
            }
            cns::ACTIVE_NAMESPACES => {
                let mut list = [0u32; 1024];
                let after = (nsid + 1..=self.config.namespaces.len() as u32).zip(list.iter_mut());
                after.for_each(|(n, place)| *place = n.to_le());
                self.give(sqe, list.as_bytes())
            }
            cns::NAMESPACE_DESCRIPTORS => {
                let mut list = [0u8; 4096];
                list[..5].copy_from_slice(&[
                    4,
                    1,
                    0,
                    0,
                    if namespace.is_some_and(|n| n.zoned) { 2 } else { 0 },
                ]);
                self.give(sqe, &list)
            }
            _ => Some((INVALID_FIELD, 0)),
        }
    }

    fn identify_controller(&self) -> IdentifyController {
        let mut id = IdentifyController::new_zeroed();
        id.serial.fill(b' ');
        id.model.fill(b' ');
        id.serial[..6].copy_from_slice(b"MOCK-1");
        id.model[..9].copy_from_slice(b"Mock NVMe");
        id.firmware.copy_from_slice(b"1.0     ");
        id.max_data_transfer = self.config.max_transfer_shift;
        id.optional_admin = (0b110 | u16::from(self.config.shadow_doorbells) << 8).into();
        id.abort_limit = 3;
        id.event_request_limit = 3;
        id.firmware_updates = 2 << 1 | 1 << 4;
        id.sanitize = 0b11.into();
        id.namespace_count = (self.config.namespaces.len() as u32).into();
        id.optional_commands =
            (u16::from(self.config.compare) | 1 << 2 | u16::from(self.config.write_zeroes) << 3).into();
        id.fused = u16::from(self.config.fused).into();
        id.volatile_write_cache = self.config.volatile_cache.into();
        id.sgl = u32::from(self.config.sgl).into();
        id
    }

    fn log_page(&self, sqe: &Sqe) -> Option<(Status, u32)> {
        let cdw10 = sqe.cdw10.get();
        let len = 4 * ((cdw10 >> 16) as usize + 1);
        let mut bytes = vec![0; len.max(512)];
        match cdw10 as u8 {
            page::HEALTH => {
                let mut log = HealthLog::new_zeroed();
                log.temperature_k = 310.into();
                log.spare_percent = 100;
                log.power_on_hours = 42.into();
                bytes[..512].copy_from_slice(log.as_bytes());
            }
            page::FIRMWARE_SLOTS => {
                let mut log = FirmwareSlotLog::new_zeroed();
                log.active = 1;
                log.revisions[0] = *b"1.0     ";
                bytes[..512].copy_from_slice(log.as_bytes());
            }
            page::SANITIZE => {
                let mut log = SanitizeLog::new_zeroed();
                log.status = 1.into();
                bytes[..512].copy_from_slice(log.as_bytes());
            }
            page::ERROR | page::CHANGED_NAMESPACES => {}
            _ => return Some((Status::new(1, 0x09), 0)),
        }
        self.give(sqe, &bytes[..len])
    }
}
