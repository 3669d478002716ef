//! A drive that wraps another and fails on request: latency, errors every n-th request or in a range, corruption, and
//! being gone. Its [`FaultControl`] changes that while requests run, from any thread.

use crate::{BLOCK_BYTES, Bdev, BdevError, Drive, DriveInfo, DriveRef, Durability, Result};
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::{self as reactor, LocalBoxFuture};
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rules kept at most: each request looks at all of them.
pub const RULES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Read,
    Write,
    Flush,
    Unmap,
    WriteZeroes,
    CompareAndWrite,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::Unmap => "unmap",
            Op::WriteZeroes => "write-zeroes",
            Op::CompareAndWrite => "compare-and-write",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Takes this much longer.
    Delay { us: u64 },
    /// Fails with [`BdevError::Io`], and has no effect.
    Error,
    /// Fails with [`BdevError::Unreadable`] (reads) or [`BdevError::Io`].
    Unreadable,
    /// Fails with [`BdevError::HostFull`].
    HostFull,
    /// Flips a bit in the first block: of what is returned (reads) or of what is written, silently.
    Corrupt,
    /// Reports success and writes nothing.
    LoseWrite,
}

/// Applies `effect` to matching requests.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Rule {
    /// `None`: every operation.
    #[serde(default)]
    pub op: Option<Op>,
    /// Bytes of the drive that a request must touch; `None`: anywhere (flushes touch nothing).
    #[serde(default)]
    pub range: Option<Range<u64>>,
    /// Every n-th matching request; 0 and 1: each.
    #[serde(default)]
    pub every: u64,
    /// Ends after this many; 0: never.
    #[serde(default)]
    pub count: u64,
    pub effect: Effect,
}

impl Rule {
    pub fn always(op: Op, effect: Effect) -> Rule {
        Rule { op: Some(op), range: None, every: 1, count: 0, effect }
    }
}

#[derive(Default)]
struct State {
    gone: bool,
    rules: Vec<(RuleId, Rule, Tally)>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(pub u64);

#[derive(Default)]
struct Tally {
    matched: u64,
    applied: u64,
}

/// The handle that changes a fault drive's behaviour; clones control the same drive.
#[derive(Clone, Default)]
pub struct FaultControl {
    state: Arc<Mutex<State>>,
}

impl FaultControl {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when there are [`RULES_MAX`] already.
    pub fn add(&self, rule: Rule) -> Option<RuleId> {
        let mut s = self.state();
        if s.rules.len() >= RULES_MAX {
            return None;
        }
        s.next_id += 1;
        let id = RuleId(s.next_id);
        s.rules.push((id, rule, Tally::default()));
        Some(id)
    }

    /// Whether the rule was there.
    pub fn remove(&self, id: RuleId) -> bool {
        let mut s = self.state();
        let before = s.rules.len();
        s.rules.retain(|r| r.0 != id);
        s.rules.len() < before
    }

    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// All requests fail with `Gone`, those in flight too, until it is back.
    pub fn set_gone(&self, gone: bool) {
        self.state().gone = gone;
    }

    /// How often the rule has been applied.
    pub fn applied(&self, id: RuleId) -> u64 {
        self.state().rules.iter().find(|r| r.0 == id).map_or(0, |r| r.2.applied)
    }

    /// The effects that the next request of this kind is to suffer.
    fn effects(&self, op: Op, offset: u64, len: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (_, rule, tally) in &mut self.state().rules {
            let touches = |r: &Range<u64>| offset < r.end && r.start < offset + len;
            let matches = rule.op.is_none_or(|o| o == op) && rule.range.as_ref().is_none_or(touches);
            if !matches || (rule.count > 0 && tally.applied >= rule.count) {
                continue;
            }
            tally.matched += 1;
            if tally.matched.is_multiple_of(rule.every.max(1)) {
                tally.applied += 1;
                effects.push(rule.effect.clone());
            }
        }
        effects
    }

    fn is_gone(&self) -> bool {
        self.state().gone
    }
}

pub struct FaultDrive {
    info: DriveInfo,
    inner: DriveRef,
    control: FaultControl,
}

impl FaultDrive {
    /// The wrapped drive keeps its name; its backend reads `fault:...`.
    pub fn wrap(inner: DriveRef) -> (DriveRef, FaultControl) {
        let control = FaultControl::default();
        let mut info = inner.info().clone();
        info.backend = format!("fault:{}", info.backend);
        (Arc::new(FaultDrive { info, inner, control: control.clone() }), control)
    }
}

impl Drive for FaultDrive {
    fn info(&self) -> &DriveInfo {
        &self.info
    }
    fn open(&self) -> Result<Rc<dyn Bdev>> {
        if self.control.is_gone() {
            return Err(BdevError::Gone { drive: self.info.name.clone() });
        }
        Ok(Rc::new(Channel {
            info: self.info.clone(),
            inner: self.inner.open()?,
            control: self.control.clone(),
        }))
    }
}

struct Channel {
    info: DriveInfo,
    inner: Rc<dyn Bdev>,
    control: FaultControl,
}

/// What is left of the effects when delays have passed and errors have been returned.
#[derive(Default)]
struct Silent {
    corrupt: bool,
    lose: bool,
}

impl Channel {
    fn check_present(&self) -> Result<()> {
        if self.control.is_gone() { Err(BdevError::Gone { drive: self.info.name.clone() }) } else { Ok(()) }
    }

    async fn before(&self, op: Op, offset: u64, len: u64) -> Result<Silent> {
        self.check_present()?;
        let mut silent = Silent::default();
        let mut error = None;
        for effect in self.control.effects(op, offset, len) {
            let drive = self.info.name.clone();
            let cause = "injected fault".to_owned();
            match effect {
                Effect::Delay { us } => reactor::sleep(Duration::from_micros(us)).await,
                Effect::Unreadable if op == Op::Read => {
                    error = Some(BdevError::Unreadable { drive, offset, len })
                }
                Effect::Error | Effect::Unreadable => {
                    error = Some(BdevError::Io { drive, op: op.name(), offset, len, cause });
                }
                Effect::HostFull => error = Some(BdevError::HostFull { drive }),
                Effect::Corrupt => silent.corrupt = true,
                Effect::LoseWrite => silent.lose = true,
            }
        }
        self.check_present()?;
        error.map_or(Ok(silent), Err)
    }
}

fn flip_a_bit(block: &mut [u8]) {
    let bit = reactor::random_u64() % (block.len().min(BLOCK_BYTES as usize) as u64 * 8);
    block[(bit / 8) as usize] ^= 1 << (bit % 8);
}

impl Bdev for Channel {
    fn info(&self) -> &DriveInfo {
        &self.info
    }

    fn read(&self, offset: u64, len: usize) -> LocalBoxFuture<'_, Result<DmaBuf>> {
        Box::pin(async move {
            let silent = self.before(Op::Read, offset, len as u64).await?;
            let mut buf = self.inner.read(offset, len).await?;
            self.check_present()?;
            if silent.corrupt {
                flip_a_bit(&mut buf);
            }
            Ok(buf)
        })
    }

    fn write(
        &self,
        offset: u64,
        mut data: Vec<Bytes>,
        durability: Durability,
    ) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let len = data.iter().map(|d| d.len() as u64).sum();
            let silent = self.before(Op::Write, offset, len).await?;
            if silent.lose {
                return Ok(());
            }
            if silent.corrupt
                && let Some(first) = data.iter_mut().find(|d| !d.is_empty())
            {
                let mut copy = DmaBuf::from_slice(first);
                flip_a_bit(&mut copy);
                *first = copy.freeze();
            }
            self.inner.write(offset, data, durability).await?;
            self.check_present()
        })
    }

    fn flush(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.before(Op::Flush, 0, 0).await?.lose {
                return Ok(());
            }
            self.inner.flush().await?;
            self.check_present()
        })
    }

    fn unmap(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.before(Op::Unmap, offset, len).await?.lose {
                return Ok(());
            }
            self.inner.unmap(offset, len).await?;
            self.check_present()
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.before(Op::WriteZeroes, offset, len).await?.lose {
                return Ok(());
            }
            self.inner.write_zeroes(offset, len).await?;
            self.check_present()
        })
    }

    fn compare_and_write(&self, offset: u64, expect: Bytes, new: Bytes) -> LocalBoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            if self.before(Op::CompareAndWrite, offset, BLOCK_BYTES).await?.lose {
                return Ok(true);
            }
            let written = self.inner.compare_and_write(offset, expect, new).await?;
            self.check_present()?;
            Ok(written)
        })
    }
}
