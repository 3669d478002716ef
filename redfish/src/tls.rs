//! Whom we believe to be our BMC: a CA, one pinned certificate, or, only if told so, anyone.

use crate::error::Cause;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

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

/// Where trust comes from. There is no default: a BMC's certificate is nearly always its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Any certificate that one of these vouches for, for this name (without one: the address).
    Ca { file: PathBuf, server_name: Option<String> },
    /// The one certificate with this fingerprint, whatever its name and dates: that is what pinning says.
    Pin(Fingerprint),
    /// Said aloud.
    Insecure,
    /// No TLS, said aloud.
    Plaintext,
}

impl Trust {
    /// None: no TLS.
    pub(crate) fn client_config(&self) -> Result<Option<ClientConfig>, Cause> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Plaintext => return Ok(None),
            Self::Ca { file, .. } => {
                let bad = |reason: String| settings(format!("CA file {}", file.display()), reason);
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))? {
                    let certificate = certificate.map_err(|e| bad(e.to_string()))?;
                    roots.add(certificate).map_err(|e| bad(e.to_string()))?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| bad(format!("holds no usable certificate ({e})")))?
            }
            Self::Pin(pin) => Arc::new(Certain::new(&provider, Some(*pin))),
            Self::Insecure => Arc::new(Certain::new(&provider, None)),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| settings("TLS".to_owned(), e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(config))
    }

    /// The name to ask for in the handshake.
    pub(crate) fn server_name(&self, address: &str) -> Result<ServerName<'static>, Cause> {
        let name = match self {
            Self::Ca { server_name: Some(name), .. } => name,
            _ => address,
        };
        ServerName::try_from(name.to_owned())
            .map_err(|e| settings(format!("address '{name}'"), e.to_string()))
    }
}

/// What a failed handshake means to an operator.
pub(crate) fn handshake_cause(error: &std::io::Error) -> Cause {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::General(reason)) if reason.starts_with(CHANGED) => {
            Cause::CertificateChanged { presented: reason[CHANGED.len()..].to_owned() }
        }
        Some(Error::InvalidCertificate(
            reason @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
        )) => Cause::CertificateExpired { reason: reason.to_string() },
        Some(other) => Cause::Tls { reason: other.to_string() },
        None => Cause::Unreachable { reason: format!("during the TLS handshake: {error}") },
    }
}

fn settings(what: String, reason: String) -> Cause {
    Cause::Settings { what, reason }
}

const CHANGED: &str = "not the pinned certificate: ";

/// Believes the one pinned certificate, or any; the handshake's signature is checked all the same, so that the other side must
/// hold the certificate's key.
#[derive(Debug)]
struct Certain {
    pin: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Certain {
    fn new(provider: &CryptoProvider, pin: Option<Fingerprint>) -> Self {
        Self { pin, algorithms: provider.signature_verification_algorithms }
    }
}

/// The hash of a suite that the provider has anyway: no second implementation is linked for pins.
fn sha256() -> &'static dyn rustls::crypto::hash::Hash {
    match ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    }
}

impl ServerCertVerifier for Certain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = Fingerprint::of(end_entity);
        match self.pin {
            Some(pin) if presented != pin => Err(Error::General(format!("{CHANGED}{presented}"))),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
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
        let abc = Fingerprint::of(b"abc").to_string();
        assert!(abc.starts_with("ba7816bf8f01cfea"), "{abc}");
    }
}
