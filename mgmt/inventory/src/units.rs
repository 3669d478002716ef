//! Sizes as people write them.

const UNITS: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// `3.84 TB`: decimal, as drives are sold.
pub fn bytes_text(bytes: u64) -> String {
    let decimal = UNITS.iter().filter(|(name, _)| !name.contains('i'));
    match decimal.into_iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => {
            let text = format!("{:.2}", bytes as f64 / *size as f64);
            format!("{} {name}", text.trim_end_matches('0').trim_end_matches('.'))
        }
        None => format!("{bytes} B"),
    }
}

/// `512GiB` for what is made in powers of two.
pub fn memory_text(bytes: u64) -> String {
    let binary = UNITS.iter().filter(|(name, _)| name.contains('i'));
    match binary.into_iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => {
            let text = format!("{:.1}", bytes as f64 / *size as f64);
            format!("{} {name}", text.strip_suffix(".0").unwrap_or(&text))
        }
        None => format!("{bytes} B"),
    }
}

/// Reads `3.84TB`, `512 GiB`, `4096`.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number_ends = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let number: f64 = number.trim().parse().ok()?;
    let size = match unit.trim() {
        "" | "B" => 1,
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    let bytes = number * size as f64;
    (bytes.is_finite() && (0.0..9.0e18).contains(&bytes)).then_some(bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_shown() {
        assert_eq!(parse_bytes("3.84TB"), Some(3_840_000_000_000));
        assert_eq!(parse_bytes("512 GiB"), Some(512 << 30));
        assert_eq!(parse_bytes("4096"), Some(4096));
        for bad in ["", "TB", "x", "1 QB", "-1", "nan", "inf", "1e30TB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
        assert_eq!(bytes_text(3_840_755_982_336), "3.84 TB");
        assert_eq!(bytes_text(12), "12 B");
        assert_eq!(memory_text(512 << 30), "512 GiB");
    }
}
