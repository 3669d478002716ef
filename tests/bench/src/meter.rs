//! Rates: medians over windows of a row's time, so that a neighbour's burst does not decide.

use std::time::{Duration, Instant};

const WINDOWS: u32 = 3;

/// Counts what is finished within windows of the row's time.
pub(crate) struct Meter {
    started: Instant,
    window: Duration,
    /// When the running window began, and what was done by then.
    window_start: Instant,
    window_count: u64,
    count: u64,
    rates: Vec<f64>,
}

impl Meter {
    pub(crate) fn new(time: Duration) -> Meter {
        let now = Instant::now();
        Meter {
            started: now,
            window: time / WINDOWS,
            window_start: now,
            window_count: 0,
            count: 0,
            rates: Vec::new(),
        }
    }

    /// One more is finished. False once the row's time is over.
    pub(crate) fn add(&mut self, amount: u64) -> bool {
        self.count += amount;
        let now = Instant::now();
        let passed = now - self.window_start;
        if passed >= self.window {
            self.rates.push((self.count - self.window_count) as f64 / passed.as_secs_f64());
            (self.window_start, self.window_count) = (now, self.count);
        }
        self.running()
    }

    pub(crate) fn running(&self) -> bool {
        self.started.elapsed() < self.window * WINDOWS
    }

    /// Median of the windows; of what there is when it ended early.
    pub(crate) fn rate(&self) -> f64 {
        if self.rates.len() < WINDOWS as usize {
            return self.total_rate();
        }
        median(self.rates.clone())
    }

    /// Everything by all the time.
    pub(crate) fn total_rate(&self) -> f64 {
        self.count as f64 / self.started.elapsed().as_secs_f64()
    }
}

/// Of an empty list: 0.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// GB/s of a call that handles `bytes`: the median of five parts of `time`.
pub(crate) fn gigabytes_per_second(bytes: usize, time: Duration, mut call: impl FnMut()) -> f64 {
    call();
    let part = time / 5;
    let rates = (0..5).map(|_| {
        let started = Instant::now();
        let mut calls = 0u64;
        while started.elapsed() < part {
            for _ in 0..8 {
                call();
            }
            calls += 8;
        }
        (calls * bytes as u64) as f64 / 1e9 / started.elapsed().as_secs_f64()
    });
    median(rates.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_meter_ends_with_its_time() {
        let mut meter = Meter::new(Duration::from_millis(30));
        let mut calls = 0u64;
        while meter.add(2) {
            calls += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(calls > 0 && meter.rate() > 0.0 && meter.total_rate() > 0.0);
    }
}
