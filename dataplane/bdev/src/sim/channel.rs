//! Requests to a simulated drive.

use super::Shared;
use super::media::InFlight;
use crate::{
    BLOCK_BYTES, Bdev, BdevError, DriveInfo, Durability, Result, check_compare_and_write, check_range,
};
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::rng::Rng;
use basalt_reactor::{self as reactor, LocalBoxFuture, WallTime};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Of a request without data; a mid-range NVMe drive.
const LATENCY_MIN_US: u64 = 20;
const LATENCY_MAX_US: u64 = 120;
/// Transfer time: 2 GB/s.
const BYTES_PER_US: u64 = 2000;
/// Written bits flip within this time, if they do.
const ROT_WITHIN_NS: u64 = 10_000_000_000;

pub(super) struct Channel {
    shared: Arc<Shared>,
    gone_error: BdevError,
}

/// Virtual time of the world; wall time is the same clock everywhere, CLOCK_BOOTTIME is each node's own.
fn world_now_ns() -> u64 {
    let WallTime { sec, nsec } = reactor::wall_clock();
    sec as u64 * 1_000_000_000 + u64::from(nsec)
}

/// One draw from the world, spread by a generator of the request's own.
fn request_rng() -> Rng {
    Rng::new(reactor::random_u64())
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Channel> {
        let gone_error = BdevError::Gone { drive: shared.info.name.clone() };
        if shared.state().gone {
            return Err(gone_error);
        }
        Ok(Channel { shared, gone_error })
    }

    fn check_present(&self) -> Result<()> {
        if self.shared.state().gone { Err(self.gone_error.clone()) } else { Ok(()) }
    }

    fn service_time(&self, rng: &mut Rng, len: u64) -> Duration {
        let faults = self.shared.state().faults.clone();
        let mut us = rng.between(LATENCY_MIN_US, LATENCY_MAX_US) + len / BYTES_PER_US;
        if rng.chance_ppm(faults.slow_ppm) {
            us += u64::from(faults.slow_us);
        }
        Duration::from_micros(us)
    }

    async fn read_blocks(&self, offset: u64, len: usize) -> Result<DmaBuf> {
        check_range(&self.shared.info, offset, len as u64)?;
        let mut rng = request_rng();
        reactor::sleep(self.service_time(&mut rng, len as u64)).await;
        self.check_present()?;
        let mut buf = DmaBuf::new(len);
        let now_ns = world_now_ns();
        let mut s = self.shared.state();
        s.rot_until(now_ns);
        s.counters.reads += 1;
        if rng.chance_ppm(s.faults.read_error_ppm) {
            s.counters.read_errors += 1;
            return Err(BdevError::Unreadable {
                drive: self.shared.info.name.clone(),
                offset,
                len: len as u64,
            });
        }
        for (i, out) in buf.chunks_mut(BLOCK_BYTES as usize).enumerate() {
            out.copy_from_slice(s.media.block(offset + i as u64 * BLOCK_BYTES));
        }
        Ok(buf)
    }

    /// Runs to its end even when the caller goes away; only a crash of the node stops it.
    async fn write_blocks(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> Result<()> {
        let len = data.iter().map(|d| d.len() as u64).sum();
        check_range(&self.shared.info, offset, len)?;
        self.check_present()?;
        let mut rng = request_rng();
        let time = self.service_time(&mut rng, len);
        let id = {
            let mut s = self.shared.state();
            s.entropy = rng.next_u64();
            s.accept(InFlight { offset, data })
        };
        let flight = Flight { shared: self.shared.clone(), id };
        let gone_error = self.gone_error.clone();
        let task = reactor::spawn(async move {
            reactor::sleep(time).await;
            flight.land(&mut rng, durability).unwrap_or(Err(gone_error))
        });
        task.await
    }
}

/// A write on its way to the media. Dropped before it lands, it is torn.
struct Flight {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut s = self.shared.state();
        if let Some(write) = s.take_in_flight(self.id)
            && reactor::on_reactor()
        {
            let mut rng = request_rng();
            s.tear(&write, &mut rng);
        }
    }
}

impl Flight {
    /// `None` when the drive is gone or lost its power.
    fn land(self, rng: &mut Rng, durability: Durability) -> Option<Result<()>> {
        let now_ns = world_now_ns();
        let mut s = self.shared.state();
        let write = s.take_in_flight(self.id)?;
        if s.gone {
            return None;
        }
        s.rot_until(now_ns);
        s.counters.writes += 1;
        let faults = s.faults.clone();
        if rng.chance_ppm(faults.lost_write_ppm) {
            s.counters.lost_writes += 1;
            return Some(Ok(()));
        }
        let astray = rng.chance_ppm(faults.misdirected_write_ppm);
        if astray {
            s.counters.misdirected_writes += 1;
        }
        let len: u64 = write.data.iter().map(|d| d.len() as u64).sum();
        let size = self.shared.info.size_bytes;
        let shift = if astray { s.media.random_block(rng) } else { 0 };
        let durable = durability == Durability::Durable;
        for (offset, block) in write.blocks() {
            s.media.put((offset + shift) % size, &block, durable);
        }
        if rng.chance_ppm(faults.bit_rot_ppm) {
            let victim = (write.offset + rng.below(len / BLOCK_BYTES) * BLOCK_BYTES + shift) % size;
            let at_ns = now_ns + rng.below(ROT_WITHIN_NS);
            s.schedule_rot(at_ns, victim, rng.below(BLOCK_BYTES * 8));
        }
        Some(Ok(()))
    }
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        &self.shared.info
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(self.read_blocks(offset, len))
    }

    fn write(&self, offset: u64, data: Vec<Bytes>, durability: Durability) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.write_blocks(offset, data, durability))
    }

    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut rng = request_rng();
            reactor::sleep(self.service_time(&mut rng, 0)).await;
            self.check_present()?;
            let mut s = self.shared.state();
            s.counters.flushes += 1;
            s.media.flush();
            Ok(())
        })
    }

    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        self.write_zeroes(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            check_range(&self.shared.info, offset, len)?;
            let mut rng = request_rng();
            reactor::sleep(self.service_time(&mut rng, 0)).await;
            self.check_present()?;
            let mut s = self.shared.state();
            s.media.put_zeroes(offset, len);
            Ok(())
        })
    }

    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            check_compare_and_write(&self.shared.info, offset, &expect, &new)?;
            let mut rng = request_rng();
            reactor::sleep(self.service_time(&mut rng, BLOCK_BYTES)).await;
            self.check_present()?;
            let mut s = self.shared.state();
            let equal = s.media.block(offset) == &expect[..];
            if equal {
                s.counters.writes += 1;
                s.media.put_durable(offset, &new);
            }
            Ok(equal)
        })
    }
}
