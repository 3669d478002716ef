//! Timestamps as BMCs write them: RFC 3339, without a zone, without seconds, month first, or seconds since 1970.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds since 1970-01-01 UTC. A time without a zone is taken as UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// None: not a time, or the zero of a clock that was never set ("0000-00-00…").
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > 48 || !text.is_ascii() {
            return None;
        }
        if text.len() >= 9 && text.bytes().all(|b| b.is_ascii_digit()) {
            let number: i64 = text.parse().ok()?;
            // Thirteen digits are milliseconds.
            return (number < 100_000_000_000_000).then_some(Self(if number > 100_000_000_000 {
                number / 1000
            } else {
                number
            }));
        }
        let split = text.find(['T', 't', ' ']).unwrap_or(text.len());
        let (date, rest) = (&text[..split], text[split..].trim_start_matches(['T', 't', ' ']));
        let days = days_of(date)?;
        let (clock, zone_s) = zone_of(rest)?;
        Some(Self(days * 86_400 + seconds_of(clock)? - zone_s))
    }
}

/// `2024-06-11` or `06/11/2024`.
fn days_of(date: &str) -> Option<i64> {
    let parts: Vec<i64> = date.split(['-', '/', '.']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (year, month, day) = match parts[..] {
        [year, month, day] if year > 31 => (year, month, day),
        [month, day, year] if year > 31 => (year, month, day),
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from civil, Howard Hinnant's algorithm.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn zone_of(text: &str) -> Option<(&str, i64)> {
    let text = text.trim_end();
    if let Some(clock) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix(" UTC")) {
        return Some((clock.trim_end(), 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let digits: String = text[at + 1..].chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits.parse::<i64>().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse().ok()?),
        _ => return None,
    };
    let sign = if text[at..].starts_with('-') { -1 } else { 1 };
    Some((text[..at].trim_end(), sign * (hours * 3600 + minutes * 60)))
}

/// `23:59:59.123`, `23:59`, `11:59:59 PM` or nothing.
fn seconds_of(clock: &str) -> Option<i64> {
    let lower = clock.trim().to_ascii_lowercase();
    let (clock, afternoon) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(clock), _) => (clock.trim(), Some(false)),
        (_, Some(clock)) => (clock.trim(), Some(true)),
        _ => (lower.as_str(), None),
    };
    if clock.is_empty() {
        return Some(0);
    }
    let mut parts = clock.split(':').map(|part| part.split('.').next().unwrap_or("").parse::<i64>().ok());
    let hour = parts.next()??;
    let minute = parts.next()??;
    let second = parts.next().unwrap_or(Some(0))?;
    let hour = match afternoon {
        Some(true) => hour % 12 + 12,
        Some(false) => hour % 12,
        None => hour,
    };
    let fits = parts.next().is_none()
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    fits.then_some(hour * 3600 + minute * 60 + second)
}

/// RFC 3339 in UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let z = days + 719_468;
        let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_one_moment() {
        for text in [
            "2024-06-11T05:14:47Z",
            "2024-06-11T00:14:47-05:00",
            "2024-06-11T05:14:47.123456+00:00",
            "2024-06-11T07:14:47+0200",
            "2024-06-11 05:14:47",
            "2024-06-11T05:14:47",
            "06/11/2024 05:14:47 AM",
            "06/11/2024 05:14:47",
            "1718082887",
            "1718082887000",
        ] {
            assert_eq!(
                Timestamp::read(text).map(|t| t.to_string()).as_deref(),
                Some("2024-06-11T05:14:47Z"),
                "{text}"
            );
        }
        for text in [
            "",
            "0000-00-00T00:00:00Z",
            "N/A",
            "2024",
            "yesterday",
            "2024-13-01",
            "99:99",
            "2024-06-11T25:00",
        ] {
            assert_eq!(Timestamp::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0i64..200_000_000_000) {
            let time = Timestamp(seconds);
            prop_assert_eq!(Timestamp::read(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}", digits in "[0-9TZ:+ ./-]{0,40}") {
            Timestamp::read(&text);
            Timestamp::read(&digits);
        }
    }
}
