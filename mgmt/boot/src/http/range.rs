//! The `Range` header (RFC 9110, section 14): one range of bytes. Several at once are answered with the whole file, as 14.2 allows.

/// What of a file goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// First byte and number of bytes, at least 1.
    Part(u64, u64),
    /// Nothing of it is there: 416.
    None,
}

pub fn wanted(header: Option<&str>, len: u64) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::All };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More digits than fit are more bytes than there are.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last), first.is_empty(), last.is_empty()) {
        (Some(first), Some(last), ..) if last < first => Wanted::All,
        (Some(first), ..) if first >= len && (last.is_empty() || number(last).is_some()) => Wanted::None,
        (Some(first), Some(last), ..) => Wanted::Part(first, last.min(len - 1) - first + 1),
        (Some(first), None, _, true) => Wanted::Part(first, len - first),
        (None, Some(0), true, _) => Wanted::None,
        (None, Some(_), true, _) if len == 0 => Wanted::None,
        (None, Some(count), true, _) => Wanted::Part(len - count.min(len), count.min(len)),
        // Malformed or several: as if it were not there.
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (header, want) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=0-99", Wanted::Part(0, 100)),
            ("bytes=0-100", Wanted::Part(0, 100)),
            ("bytes=90-", Wanted::Part(90, 10)),
            ("bytes=-10", Wanted::Part(90, 10)),
            ("bytes=-1000", Wanted::Part(0, 100)),
            ("bytes=100-", Wanted::None),
            ("bytes=100-200", Wanted::None),
            ("bytes=-0", Wanted::None),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=1", Wanted::All),
            ("items=0-1", Wanted::All),
            ("bytes=99999999999999999999999-", Wanted::None),
            ("bytes=1-99999999999999999999999", Wanted::Part(1, 99)),
        ] {
            assert_eq!(wanted(Some(header), 100), want, "{header}");
        }
        assert_eq!(wanted(None, 100), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::None);
        assert_eq!(wanted(Some("bytes=-5"), 0), Wanted::None);
    }

    proptest! {
        #[test]
        fn never_beyond_the_file(header in "bytes=[0-9,-]{0,12}", len in 0u64..2000) {
            if let Wanted::Part(first, count) = wanted(Some(&header), len) {
                prop_assert!(count > 0 && first + count <= len);
            }
        }
    }
}
