//! The admin queue: shared by all reactors under a lock, as its commands are few. Whoever waits for one looks at the
//! completions of all.

use super::{Controller, Mode, lock};
use crate::dma::DmaRegion;
use crate::error::{NvmeError, Result};
use crate::pointer::Segment;
use crate::queue::{DataStyle, QueuePair};
use crate::recovery::Event;
use crate::spec::command::{Nsid, admin};
use crate::spec::log::AsyncEvent;
use crate::spec::{Sqe, Status};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(super) const ADMIN_ENTRIES: u16 = 32;
/// Event requests outstanding, where the controller takes as many.
const EVENT_REQUESTS: u8 = 4;
/// Answers are looked for this often at first, then ever less often.
const FIRST_LOOK: Duration = Duration::from_micros(20);
const LAST_LOOK: Duration = Duration::from_millis(2);

pub(super) struct Admin {
    pair: QueuePair<Token>,
    next_key: u64,
    /// Answers that nobody has taken yet; `None` until they come.
    answers: BTreeMap<u64, Option<Answer>>,
    events: VecDeque<AsyncEvent>,
}

pub(super) enum Token {
    /// The data's memory stays until the controller is done with it.
    Command {
        key: u64,
        data: Option<DmaRegion>,
    },
    EventRequest,
}

pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) dw0: u32,
    data: Option<DmaRegion>,
}

impl Answer {
    /// What the controller has written.
    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        if let Some(region) = &self.data {
            region.read(0, &mut out);
        }
        out
    }
}

/// Data of an admin command.
pub(crate) enum Data<'a> {
    None,
    ToController(&'a [u8]),
    FromController(usize),
}

impl Admin {
    pub(super) fn new(pair: QueuePair<Token>) -> Admin {
        Admin { pair, next_key: 0, answers: BTreeMap::new(), events: VecDeque::new() }
    }

    pub(super) fn queue_iovas(&self) -> (u64, u64) {
        (self.pair.sq_iova().0, self.pair.cq_iova().0)
    }

    /// Empties the queue after a disable: every command counts as aborted.
    pub(super) fn restart(&mut self) {
        for token in self.pair.restart(u64::MAX, |_| false) {
            if let Token::Command { key, data } = token {
                let status = Status::new(0, 0x08);
                self.answer(key, Answer { status, dw0: 0, data });
            }
        }
    }

    fn answer(&mut self, key: u64, answer: Answer) {
        // Where nobody waits any more the answer goes, and the memory with it.
        if let Some(place) = self.answers.get_mut(&key) {
            *place = Some(answer);
        }
    }

    fn look(&mut self) -> std::result::Result<(), Event> {
        let mut done = Vec::new();
        let max = usize::from(ADMIN_ENTRIES);
        self.pair.reap(max, |c| done.push(c)).map_err(Event::Violation)?;
        for c in done {
            match c.token {
                Token::Command { key, data } => {
                    self.answer(key, Answer { status: c.status, dw0: c.dw0, data });
                }
                Token::EventRequest if c.status.is_success() => {
                    self.events.push_back(AsyncEvent::from_dw0(c.dw0));
                    self.request_event();
                }
                Token::EventRequest => {}
            }
        }
        Ok(())
    }

    fn request_event(&mut self) {
        let sqe = Sqe::new(admin::ASYNC_EVENT_REQUEST, Nsid(0));
        // A full admin queue means one event request less.
        let _ = self.pair.submit(sqe, &[], DataStyle::Prp, u64::MAX, Token::EventRequest);
        self.pair.ring();
    }
}

/// Forgets the answer when its waiter goes.
struct Waiting<'a> {
    controller: &'a Controller,
    key: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.controller.admin).answers.remove(&self.key);
    }
}

impl Waiting<'_> {
    fn take(&self) -> Option<Answer> {
        let mut admin = lock(&self.controller.admin);
        if let Err(event) = admin.look() {
            drop(admin);
            self.controller.report(event);
            return None;
        }
        admin.answers.get_mut(&self.key).and_then(Option::take)
    }
}

impl Controller {
    fn start(&self, mut sqe: Sqe, data: &Data<'_>) -> Result<Option<Waiting<'_>>> {
        let region = match data {
            Data::None => None,
            Data::ToController(bytes) => {
                let region = self.transport.dma().allocate(bytes.len()).map_err(|e| self.dma_error(e))?;
                region.write(0, bytes);
                Some((region, bytes.len()))
            }
            Data::FromController(len) => {
                Some((self.transport.dma().allocate(*len).map_err(|e| self.dma_error(e))?, *len))
            }
        };
        let segments: Vec<Segment> =
            region.iter().map(|(r, len)| Segment { iova: r.iova(), len: *len as u32 }).collect();
        sqe.cid = 0.into();
        let mut admin = lock(&self.admin);
        let key = admin.next_key;
        let token = Token::Command { key, data: region.map(|r| r.0) };
        if admin.pair.submit(sqe, &segments, DataStyle::Prp, u64::MAX, token).is_err() {
            return Ok(None);
        }
        admin.next_key += 1;
        admin.answers.insert(key, None);
        admin.pair.ring();
        Ok(Some(Waiting { controller: self, key }))
    }

    /// Sends a command and waits, without regard to resets: they use this themselves.
    pub(super) async fn admin_now(
        &self,
        what: &'static str,
        sqe: Sqe,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<Answer> {
        let started = basalt_reactor::now();
        let mut pause = FIRST_LOOK;
        let mut waiting = None;
        loop {
            if waiting.is_none() {
                waiting = self.start(sqe, &data)?;
            }
            if let Some(answer) = waiting.as_ref().and_then(Waiting::take) {
                return self.check(what, answer);
            }
            if self.mode() == Mode::Gone || self.status().gone() {
                return Err(NvmeError::Gone(self.name().to_owned()));
            }
            if started.elapsed() > limit {
                return Err(self.admin_timeout(what, limit));
            }
            basalt_reactor::sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// As `admin_now`, once no reset is under way; a command that is not answered in time has the controller reset.
    pub(crate) async fn admin(
        &self,
        what: &'static str,
        sqe: Sqe,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<Answer> {
        let started = basalt_reactor::now();
        while self.mode() == Mode::Resetting && started.elapsed() < limit {
            basalt_reactor::sleep(LAST_LOOK).await;
        }
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let result = self.admin_now(what, sqe, data, limit).await;
        if let Err(NvmeError::Timeout { .. }) = result {
            self.report(Event::Wanted(format!("{what} was not answered")));
        }
        result
    }

    /// Blocks the reactor: for opening and closing queues, which take microseconds.
    pub(crate) fn admin_blocking(&self, what: &'static str, sqe: Sqe) -> Result<Answer> {
        const LIMIT: Duration = Duration::from_secs(5);
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let started = basalt_reactor::now();
        let mut waiting = None;
        loop {
            if waiting.is_none() {
                waiting = self.start(sqe, &Data::None)?;
            }
            if let Some(answer) = waiting.as_ref().and_then(Waiting::take) {
                return self.check(what, answer);
            }
            if started.elapsed() > LIMIT || self.mode() != Mode::Running {
                return Err(self.trouble().unwrap_or_else(|| self.admin_timeout(what, LIMIT)));
            }
            self.transport.relax();
        }
    }

    fn check(&self, what: &'static str, answer: Answer) -> Result<Answer> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(NvmeError::Status { name: self.name().to_owned(), what, status: answer.status })
    }

    fn admin_timeout(&self, what: &'static str, limit: Duration) -> NvmeError {
        NvmeError::Timeout { name: self.name().to_owned(), what, ms: limit.as_millis() as u64 }
    }

    pub(super) fn request_events(&self, limit: u8) {
        let mut admin = lock(&self.admin);
        for _ in 0..EVENT_REQUESTS.min(limit.saturating_add(1)) {
            admin.request_event();
        }
    }

    /// Events that have come since the last time.
    pub(super) fn take_events(&self) -> Vec<AsyncEvent> {
        let mut admin = lock(&self.admin);
        let looked = admin.look();
        let events = admin.events.drain(..).collect();
        drop(admin);
        if let Err(event) = looked {
            self.report(event);
        }
        events
    }
}
