//! One state's work: its deadline, and questions to the BMC within it.

use crate::fault::{Fault, FaultKind};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Turn {
    url: String,
    limit: Duration,
    deadline: Instant,
    call: Duration,
}

impl Turn {
    pub(super) fn new(url: &str, limit: Duration, call: Duration) -> Turn {
        Turn { url: url.to_owned(), limit, deadline: Instant::now() + limit, call }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Asks the BMC; no answer in time is a fault that names the question.
    pub(super) async fn ask<T>(
        &self,
        what: &str,
        question: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.ask_within(self.call, what, question).await
    }

    pub(super) async fn ask_within<T>(
        &self,
        patience: Duration,
        what: &str,
        question: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let patience = patience.min(self.left());
        match tokio::time::timeout(patience, question).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::new(
                FaultKind::TimedOut,
                format!(
                    "its BMC {} gave no answer within {} when asked to {what}",
                    self.url,
                    minutes(patience)
                ),
            )),
        }
    }

    /// Waits, or says that the time is over and how things stand.
    pub(super) async fn wait(&self, time: Duration, stands: impl FnOnce() -> String) -> Result<(), Fault> {
        if self.left() <= time {
            let cause = format!("not done within {}: {}", minutes(self.limit), stands());
            return Err(Fault::new(FaultKind::OutOfTime, cause));
        }
        tokio::time::sleep(time).await;
        Ok(())
    }
}

/// `90 s`, `5 min`.
pub(super) fn minutes(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s if s >= 120 && s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
