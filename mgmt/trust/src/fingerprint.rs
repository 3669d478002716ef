//! Certificates by their hash.

use rustls::SupportedCipherSuite::{Tls12, Tls13};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a certificate in DER, in text as 64 hexadecimal digits (colons are allowed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub fn of(certificate_der: &[u8]) -> Self {
        let hash = sha256().hash(certificate_der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a SHA-256 fingerprint is 64 hexadecimal digits";
        let digits = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8));
        let digits: Vec<u8> = digits.collect::<Option<_>>().ok_or(WRONG)?;
        if digits.len() != 64 {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        digits.chunks(2).zip(&mut bytes).for_each(|(pair, byte)| *byte = pair[0] << 4 | pair[1]);
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// The hash of a suite that the provider has anyway: no second implementation is linked for pins.
fn sha256() -> &'static dyn rustls::crypto::hash::Hash {
    match TLS13_AES_128_GCM_SHA256 {
        Tls13(suite) => suite.common.hash_provider,
        Tls12(suite) => suite.common.hash_provider,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_written() {
        let text = "AB".repeat(32);
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.to_string(), text.to_lowercase());
        let colons: Vec<String> = fingerprint.0.iter().map(|b| format!("{b:02X}")).collect();
        assert_eq!(colons.join(":").parse(), Ok(fingerprint));
        for wrong in ["", "ab", "zz", &"ab".repeat(33), "äb"] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of(b"abc").to_string(), abc);
    }
}
