//! Byte sizes as people write and read them.

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `1.5 GiB`
pub fn show(bytes: u64) -> String {
    let (unit, scale) = UNITS.into_iter().find(|u| bytes >= u.1).unwrap_or(("B", 1));
    if scale == 1 { format!("{bytes} B") } else { format!("{:.1} {unit}", bytes as f64 / scale as f64) }
}

/// `2GiB`, `2G`, `512`: powers of two.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let scale = UNITS.into_iter().find(|u| unit.is_empty() && u.1 == 1 || u.0 == unit || u.0[..1] == *unit);
    match (digits.parse::<u64>(), scale) {
        (Ok(n), Some((_, scale))) => n.checked_mul(scale).ok_or(format!("{text} is too large")),
        _ => Err(format!("'{text}' is not a size such as 2GiB, 512MiB or 1T")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("3M"), Ok(3 << 20));
        assert_eq!(parse("512"), Ok(512));
        assert!(parse("2 parsecs").is_err() && parse("").is_err() && parse("99999999999T").is_err());
        assert_eq!(show(1536), "1.5 KiB");
        assert_eq!(show(7), "7 B");
    }
}
