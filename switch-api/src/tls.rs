//! Whom a driver believes to be its switch: a CA, one pinned certificate, or, only if told so, anyone.

use crate::error::Cause;
use crate::intent::Tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How we prove who we are to a switch that asks (Open vSwitch does, RFC 5246's client certificate): PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: PathBuf,
    /// Nobody else may be able to read it.
    pub key: PathBuf,
}

/// Where trust comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate that one of these vouches for, for this name (without one: the address).
    Ca { file: PathBuf, server_name: Option<String> },
    /// The one certificate with this SHA-256, whatever its name and dates: that is what pinning says.
    Pin { sha256: [u8; 32] },
    /// Said aloud in the intent.
    Insecure,
    /// No TLS: a socket on this machine, or said aloud.
    Plaintext,
}

impl Trust {
    pub fn of(tls: &Tls, local_socket: bool) -> Result<Self, Cause> {
        if tls.plaintext || local_socket {
            return Ok(Self::Plaintext);
        }
        if let Some(pin) = &tls.pin_sha256 {
            let sha256 = digest(pin).ok_or_else(|| settings("pin_sha256", "is not 64 hexadecimal digits"))?;
            return Ok(Self::Pin { sha256 });
        }
        match &tls.ca_file {
            Some(file) => Ok(Self::Ca { file: file.clone(), server_name: tls.server_name.clone() }),
            None if tls.insecure => Ok(Self::Insecure),
            None => Err(settings("tls", "does not say how the switch proves who it is")),
        }
    }

    /// For every client (HTTP, gRPC, Redis, OVSDB). None: no TLS. The caller sets ALPN.
    pub fn client_config(&self) -> Result<Option<ClientConfig>, Cause> {
        self.client_config_as(None)
    }

    /// The same, with a certificate of our own to show where the switch asks for one.
    pub fn client_config_as(&self, own: Option<&Identity>) -> Result<Option<ClientConfig>, Cause> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Plaintext => return Ok(None),
            Self::Ca { file, .. } => {
                let bad = |reason: String| {
                    settings("management.tls.ca_file", &format!("{}: {reason}", file.display()))
                };
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))? {
                    let certificate = certificate.map_err(|e| bad(e.to_string()))?;
                    roots.add(certificate).map_err(|e| bad(e.to_string()))?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| bad(format!("holds no usable certificate ({e})")))?
            }
            Self::Pin { sha256 } => Arc::new(Certain::new(&provider, Some(*sha256))),
            Self::Insecure => Arc::new(Certain::new(&provider, None)),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| settings("management.tls", &e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(own) = own else { return Ok(Some(config.with_no_client_auth())) };
        let bad = |file: &Path, field: &str, reason: String| {
            settings(&format!("management.tls.{field}"), &format!("{}: {reason}", file.display()))
        };
        let certificates = CertificateDer::pem_file_iter(&own.certificate)
            .and_then(|all| all.collect::<Result<Vec<_>, _>>())
            .map_err(|e| bad(&own.certificate, "certificate_file", e.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_file(&own.key).map_err(|e| bad(&own.key, "key_file", e.to_string()))?;
        let config = config.with_client_auth_cert(certificates, key);
        config
            .map(Some)
            .map_err(|e| bad(&own.certificate, "certificate_file", format!("does not fit its key ({e})")))
    }

    /// The name to ask for in the handshake.
    pub fn server_name(&self, address: &str) -> Result<ServerName<'static>, Cause> {
        let name = match self {
            Self::Ca { server_name: Some(name), .. } => name,
            _ => address,
        };
        ServerName::try_from(name.to_owned())
            .map_err(|e| settings("management.address", &format!("'{name}': {e}")))
    }
}

/// Why a connection with TLS failed: at the handshake, or, as TLS 1.3 lets a server ask late, at the first answer. None: that was not TLS.
pub fn failure(endpoint: &str, error: &io::Error) -> Option<Cause> {
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    let (endpoint, reason) = (endpoint.to_owned(), tls.to_string());
    // RFC 8446, section 6.2: what a server says of a client's certificate.
    let of_ours = matches!(
        tls,
        Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::DecryptError
        )
    );
    Some(if of_ours { Cause::OwnCertificate { endpoint, reason } } else { Cause::Tls { endpoint, reason } })
}

fn settings(what: &str, reason: &str) -> Cause {
    Cause::Settings { what: what.to_owned(), reason: reason.to_owned() }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

/// Believes the one pinned certificate, or any; the handshake's signature is checked all the same, so that the other side must
/// hold the certificate's key.
#[derive(Debug)]
struct Certain {
    pin: Option<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Certain {
    fn new(provider: &CryptoProvider, pin: Option<[u8; 32]>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { pin, algorithms }
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
        let found = sha256().hash(end_entity);
        match self.pin {
            Some(pin) if found.as_ref() != pin => {
                let hex: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                Err(Error::General(format!(
                    "the switch presents a certificate with SHA-256 {hex}, not the pinned one"
                )))
            }
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
    fn nothing_said_is_refused() {
        assert!(matches!(Trust::of(&Tls::default(), false), Err(Cause::Settings { .. })));
        assert_eq!(Trust::of(&Tls::default(), true), Ok(Trust::Plaintext));
        assert_eq!(Trust::of(&Tls { insecure: true, ..Tls::default() }, false), Ok(Trust::Insecure));
        let pinned = |pin: &str| Trust::of(&Tls { pin_sha256: Some(pin.into()), ..Tls::default() }, false);
        assert_eq!(pinned(&"a5:".repeat(32)), Ok(Trust::Pin { sha256: [0xa5; 32] }));
        assert!(pinned(&"a5".repeat(31)).is_err());
        assert!(pinned(&"zz".repeat(32)).is_err());
    }

    #[test]
    fn pin_hash_is_sha256() {
        // FIPS 180-2, appendix B.1.
        let hex: String = sha256().hash(b"abc").as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Trust::Insecure.client_config().unwrap().is_some());
    }
}
