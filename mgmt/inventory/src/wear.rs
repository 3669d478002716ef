//! When drives wear out, and which are about to fail, from SMART over time.

use crate::check::drive_name;
use crate::health::{Cause, Health};
use crate::record::{Drive, Smart};
use serde::{Deserialize, Serialize};

pub const DAY_S: u64 = 86_400;
/// A sample a day for three years.
pub const MAX_SAMPLES: usize = 1100;
/// Below this much time a trend is a guess: percentages come in whole steps.
const MIN_SPAN_S: u64 = 7 * DAY_S;
/// Drives are ordered and replaced within this time.
const SOON_DAYS: u64 = 90;
/// Makers rate 3,500 to 7,000 write cycles; from here on a drive is watched.
const WORN_PERCENT: u32 = 90;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at_s: u64,
    pub used_percent: u32,
    pub spare_percent: u32,
    pub media_errors: u64,
    pub data_units_written: u64,
}

impl Sample {
    pub fn of(at_s: u64, smart: &Smart) -> Sample {
        Sample {
            at_s,
            used_percent: smart.used_percent,
            spare_percent: smart.spare_percent,
            media_errors: smart.media_errors,
            data_units_written: smart.data_units_written,
        }
    }
}

/// What became of one drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trend {
    /// Oldest first, at most [`MAX_SAMPLES`].
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Days until 100 % by the pace so far; None: not wearing, or too little is known.
    pub worn_out_in_days: Option<u64>,
    /// Bytes written per day.
    pub written_per_day: Option<u64>,
    /// Why it is likely to fail soon.
    pub failing: Vec<String>,
}

impl Trend {
    /// Samples less than an hour apart replace one another; a clock that went back begins anew.
    pub fn add(&mut self, sample: Sample) {
        if self.samples.last().is_some_and(|last| last.at_s > sample.at_s) {
            self.samples.clear();
        }
        let closely = |last: &Sample, before: Option<&Sample>| {
            sample.at_s - last.at_s < 3600 && before.is_some_and(|b| sample.at_s - b.at_s < 2 * 3600)
        };
        if let [.., before, last] = &self.samples[..]
            && closely(last, Some(before))
        {
            self.samples.pop();
        }
        self.samples.push(sample);
        if self.samples.len() > MAX_SAMPLES {
            // Every other one of the older half: the beginning stays.
            let half = self.samples.len() / 2;
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at == 1 || at > half || at % 2 == 0
            });
        }
    }

    pub fn forecast(&self, spare_threshold_percent: u32) -> Forecast {
        let mut forecast = Forecast { worn_out_in_days: None, written_per_day: None, failing: Vec::new() };
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else { return forecast };
        let span_s = last.at_s - first.at_s;
        if span_s >= DAY_S {
            let units = last.data_units_written.saturating_sub(first.data_units_written);
            let bytes = u128::from(units) * 512_000 * u128::from(DAY_S) / u128::from(span_s);
            forecast.written_per_day = Some(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        if span_s >= MIN_SPAN_S {
            forecast.worn_out_in_days = days_until(
                slope(&self.samples, |s| f64::from(s.used_percent)),
                f64::from(last.used_percent),
                100.0,
            );
            let spare = slope(&self.samples, |s| f64::from(s.spare_percent));
            let limit = f64::from(spare_threshold_percent);
            if let Some(days) = days_until(-spare, -f64::from(last.spare_percent), -limit)
                && days <= SOON_DAYS
            {
                forecast.failing.push(format!(
                    "spare blocks fell from {} to {} % and are used up in about {days} days",
                    first.spare_percent, last.spare_percent
                ));
            }
        }
        // Errors of the last week against those of all the time before: a drive that begins to fail.
        let recent_s = last.at_s.saturating_sub(7 * DAY_S);
        let week_ago = self.samples.iter().rev().find(|s| s.at_s <= recent_s);
        if let Some(week_ago) = week_ago {
            let (new, old) = (
                last.media_errors.saturating_sub(week_ago.media_errors),
                week_ago.media_errors.saturating_sub(first.media_errors),
            );
            if new >= 3 && new > old {
                forecast
                    .failing
                    .push(format!("{new} media errors within a week, {old} in all the time before"));
            }
        }
        forecast
    }
}

/// Least squares, per second.
fn slope(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let n = samples.len() as f64;
    let origin = samples.first().map_or(0, |s| s.at_s);
    let x = |s: &Sample| (s.at_s - origin) as f64;
    let (mean_x, mean_y) =
        (samples.iter().map(&x).sum::<f64>() / n, samples.iter().map(&value).sum::<f64>() / n);
    let over: f64 = samples.iter().map(|s| (x(s) - mean_x) * (value(s) - mean_y)).sum();
    let under: f64 = samples.iter().map(|s| (x(s) - mean_x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

fn days_until(slope_per_s: f64, now: f64, limit: f64) -> Option<u64> {
    if now >= limit {
        return Some(0);
    }
    let days = (limit - now) / slope_per_s / DAY_S as f64;
    // Beyond ten years nobody plans.
    (slope_per_s > 0.0 && days.is_finite() && days < 3650.0).then_some(days.ceil() as u64)
}

/// What one reading says of a drive.
pub(crate) fn drive_causes(drive: &Drive) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut say = |health, cause: String, next: &str| {
        causes.push(Cause { health, part: format!("drive {}", drive_name(drive)), cause, next: next.into() });
    };
    const REPLACE: &str = "replace it";
    const PLAN: &str = "plan its replacement";
    if drive.failure_predicted == Some(true) {
        say(Health::Critical, "it predicts its own failure".into(), REPLACE);
    }
    if let Some(smart) = &drive.smart {
        for warning in &smart.warnings {
            say(Health::Critical, warning.clone(), REPLACE);
        }
        // The threshold's own warning bit is above; some drives never set it.
        if smart.warnings.is_empty()
            && smart.spare_threshold_percent > 0
            && smart.spare_percent < smart.spare_threshold_percent
        {
            let cause = format!(
                "{} % spare blocks left, the maker's limit is {} %",
                smart.spare_percent, smart.spare_threshold_percent
            );
            say(Health::Critical, cause, REPLACE);
        }
    }
    match drive.used_percent {
        Some(used) if used >= 100 => {
            say(Health::Warning, format!("{used} % worn: beyond what its maker promises"), PLAN)
        }
        Some(used) if used >= WORN_PERCENT => say(Health::Warning, format!("{used} % worn"), PLAN),
        _ => {}
    }
    if causes.is_empty()
        && let Some(health) = drive.health
        && health > Health::Ok
    {
        let part = format!("drive {}", drive_name(drive));
        causes.push(Cause {
            health,
            part,
            cause: "its BMC reports it".into(),
            next: "see the BMC's log".into(),
        });
    }
    causes
}

/// The causes that only time shows.
pub fn trend_causes(drive: &Drive, trend: &Trend) -> Vec<Cause> {
    let forecast = trend.forecast(drive.smart.as_ref().map_or(10, |s| s.spare_threshold_percent));
    let part = format!("drive {}", drive_name(drive));
    let warning = |cause: String, next: &str| Cause {
        health: Health::Warning,
        part: part.clone(),
        cause,
        next: next.into(),
    };
    let mut causes: Vec<Cause> =
        forecast.failing.into_iter().map(|why| warning(why, "replace it before it fails")).collect();
    if let Some(days) = forecast.worn_out_in_days.filter(|d| (1..=SOON_DAYS).contains(d)) {
        causes.push(warning(
            format!("worn out in about {days} days by the pace so far"),
            "plan its replacement",
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trend(
        days: u64,
        used: impl Fn(u64) -> u32,
        spare: impl Fn(u64) -> u32,
        errors: impl Fn(u64) -> u64,
    ) -> Trend {
        let mut trend = Trend::default();
        for day in 0..days {
            trend.add(Sample {
                at_s: 1_000_000 + day * DAY_S,
                used_percent: used(day),
                spare_percent: spare(day),
                media_errors: errors(day),
                data_units_written: day * 2_000_000,
            });
        }
        trend
    }

    #[test]
    fn wear_is_foretold_by_its_pace() {
        let steady = trend(101, |d| (d / 2) as u32, |_| 100, |_| 0).forecast(10);
        let days = steady.worn_out_in_days.unwrap();
        assert!((95..=105).contains(&days), "50 % in 100 days: {days}");
        assert_eq!(steady.written_per_day, Some(1_024_000_000_000));
        assert!(steady.failing.is_empty());
        assert_eq!(trend(100, |_| 3, |_| 100, |_| 0).forecast(10).worn_out_in_days, None);
        assert_eq!(
            trend(3, |d| d as u32 * 10, |_| 100, |_| 0).forecast(10).worn_out_in_days,
            None,
            "too soon to say"
        );
        assert_eq!(trend(30, |_| 120, |_| 100, |_| 0).forecast(10).worn_out_in_days, Some(0));
    }

    #[test]
    fn failing_drives_are_named_and_old_scars_are_not() {
        let spare = trend(40, |_| 5, |d| 100 - d as u32, |_| 0).forecast(10);
        assert!(spare.failing[0].contains("from 100 to 61 %"), "{spare:?}");
        let errors = trend(60, |_| 5, |_| 100, |d| if d > 55 { 10 * (d - 55) } else { 0 }).forecast(10);
        assert!(errors.failing[0].starts_with("40 media errors within a week"), "{errors:?}");
        let scars = trend(60, |_| 5, |_| 100, |d| if d > 10 { 40 } else { 0 }).forecast(10);
        assert!(scars.failing.is_empty(), "{scars:?}");
    }

    #[test]
    fn samples_are_bounded_and_keep_their_span() {
        let trend = trend(5000, |_| 0, |_| 100, |_| 0);
        assert!(trend.samples.len() <= MAX_SAMPLES);
        assert_eq!(trend.samples[0].at_s, 1_000_000);
        let mut often = Trend::default();
        for i in 0..10_000 {
            often.add(Sample {
                at_s: i,
                used_percent: 0,
                spare_percent: 0,
                media_errors: 0,
                data_units_written: 0,
            });
        }
        assert!(often.samples.len() < 20, "{}", often.samples.len());
    }

    proptest! {
        #[test]
        fn any_readings_give_a_forecast(samples in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()), 0..40)) {
            let mut trend = Trend::default();
            for (at_s, used_percent, spare_percent, media_errors, data_units_written) in samples {
                trend.add(Sample { at_s, used_percent, spare_percent, media_errors, data_units_written });
            }
            trend.forecast(10);
        }
    }
}
