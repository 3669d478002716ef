//! One bounded retry policy for every driver.

use crate::error::{Cause, Result, SwitchError};
use std::future::Future;
use std::time::Duration;

/// How often and how patiently a request is repeated when its cause [`Cause::is_transient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first included.
    pub attempts: u32,
    pub first_pause: Duration,
    /// Pauses double up to this; a switch's own Retry-After is kept to it as well.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 4, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// For requests that may not be sent twice (a commit whose answer was lost).
    pub const ONCE: Self = Self { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// Runs `request` until it succeeds, fails for good, or the attempts are used up.
    pub async fn run<T, F, Fut>(&self, mut request: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut pause = self.first_pause;
        for attempt in 1.. {
            let error = match request().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.cause.is_transient() || attempt >= self.attempts {
                return Err(counted(error, attempt));
            }
            let wait = match &error.cause {
                Cause::RateLimited { retry_after: Some(asked), .. } => *asked,
                _ => pause,
            };
            tracing::debug!(switch = %error.switch, attempt, cause = %error.cause, "trying again");
            tokio::time::sleep(wait.min(self.longest_pause)).await;
            pause = (pause * 2).min(self.longest_pause);
        }
        unreachable!("the loop above has no other end")
    }
}

fn counted(mut error: SwitchError, tried: u32) -> SwitchError {
    if let Cause::RateLimited { attempts, .. } = &mut error.cause {
        *attempts = tried;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceName;
    use std::cell::Cell;

    async fn tries(cause: Cause, succeed_at: u32) -> (u32, Result<()>) {
        let count = Cell::new(0);
        let result = RetryPolicy::default()
            .run(|| {
                count.set(count.get() + 1);
                let result = if count.get() == succeed_at {
                    Ok(())
                } else {
                    Err(cause.clone().at(&DeviceName::from("leaf-1")))
                };
                async move { result }
            })
            .await;
        (count.get(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_only_what_may_go_better_and_only_so_often() {
        let busy = Cause::RateLimited { retry_after: Some(Duration::from_secs(3600)), attempts: 0 };
        let begin = tokio::time::Instant::now();
        let (count, result) = tries(busy, 9).await;
        assert_eq!(count, 4);
        assert!(matches!(result.unwrap_err().cause, Cause::RateLimited { attempts: 4, .. }));
        assert!(begin.elapsed() < Duration::from_secs(16), "a switch may not make us wait an hour");

        let cut = Cause::PartialReply { request: "x".into(), got_bytes: 3 };
        assert_eq!(tries(cut, 3).await, (3, Ok(())));
        let refused = Cause::Unauthorised { user: "basalt".into() };
        assert_eq!(tries(refused, 2).await.0, 1);
    }
}
