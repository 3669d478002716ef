//! What an operator calls a range: `10.0.0.0/24`, `10.0.0.10-10.0.0.40`, `10.0.0.10-40`, one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most addresses of one range: a /16.
const ADDRESSES: u128 = 1 << 16;

/// Addresses, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no range of addresses: {reason}; write 10.0.0.0/24, 10.0.0.10-40 or one address")]
pub struct RangeError {
    text: String,
    reason: &'static str,
}

impl AddressRange {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let four = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |n| address(n, four))
    }

    pub fn count(&self) -> usize {
        (number(self.last) - number(self.first) + 1) as usize
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u32::from(four).into(),
        IpAddr::V6(six) => six.into(),
    }
}

fn address(number: u128, four: bool) -> IpAddr {
    if four { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let fail = |reason| RangeError { text: text.to_owned(), reason };
        let parse = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| fail("it has no address"));
        let range = if let Some((base, bits)) = text.split_once('/') {
            let base = parse(base)?;
            let width: u32 = if base.is_ipv4() { 32 } else { 128 };
            let bits: u32 = bits.trim().parse().map_err(|_| fail("its prefix length is no number"))?;
            if bits > width {
                return Err(fail("its prefix is longer than an address"));
            }
            let host_bits = width - bits;
            let mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
            let network = number(base) & !mask;
            let (mut first, mut last) = (network, network | mask);
            // Network and broadcast address are nobody's, except on links of two.
            if base.is_ipv4() && host_bits > 1 {
                (first, last) = (first + 1, last - 1);
            }
            Self { first: address(first, base.is_ipv4()), last: address(last, base.is_ipv4()) }
        } else if let Some((first, last)) = text.split_once('-') {
            let first = parse(first)?;
            let last = match (last.trim().parse::<u8>(), first) {
                (Ok(end), IpAddr::V4(four)) => {
                    let [a, b, c, _] = four.octets();
                    Ipv4Addr::new(a, b, c, end).into()
                }
                _ => parse(last)?,
            };
            Self { first, last }
        } else {
            let one = parse(text)?;
            Self { first: one, last: one }
        };
        if range.first.is_ipv4() != range.last.is_ipv4() || number(range.last) < number(range.first) {
            return Err(fail("its end is before its beginning"));
        }
        if number(range.last) - number(range.first) >= ADDRESSES {
            return Err(fail("it has more than 65536 addresses"));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(text: &str) -> (String, String, usize) {
        let range: AddressRange = text.parse().unwrap();
        (range.first.to_string(), range.last.to_string(), range.count())
    }

    #[test]
    fn ranges_as_operators_write_them() {
        assert_eq!(ends("10.0.0.7/24"), ("10.0.0.1".into(), "10.0.0.254".into(), 254));
        assert_eq!(ends("10.0.0.10-40"), ("10.0.0.10".into(), "10.0.0.40".into(), 31));
        assert_eq!(ends("10.0.0.250-10.0.1.3"), ("10.0.0.250".into(), "10.0.1.3".into(), 10));
        assert_eq!(ends("10.0.0.9"), ("10.0.0.9".into(), "10.0.0.9".into(), 1));
        assert_eq!(ends("10.0.0.8/31"), ("10.0.0.8".into(), "10.0.0.9".into(), 2));
        assert_eq!(ends("fd00::/120").2, 256);
        for wrong in
            ["", "10.0.0.0/8", "::/0", "10.0.0.40-10", "10.0.0.0/33", "rack1", "10.0.0.1-fd00::1", "1-2"]
        {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f.:/-]{0,40}") {
            if let Ok(range) = text.parse::<AddressRange>() {
                prop_assert!(range.count() <= 1 << 16);
            }
        }
    }
}
