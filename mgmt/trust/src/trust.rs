//! Where trust comes from, and the TLS that follows from it.

use crate::certain::Certain;
use crate::fingerprint::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whom to believe. There is no default: such a device's certificate is nearly always its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Any certificate that one of these vouches for, for this name (without one: the address).
    Ca { file: PathBuf, server_name: Option<String> },
    /// The one certificate with this fingerprint, whatever its name and dates: that is what pinning says.
    Pin(Fingerprint),
    /// Said aloud.
    Insecure,
    /// No TLS: a socket on this machine, or said aloud.
    Plaintext,
}

/// How we prove who we are to a server that asks for a certificate (RFC 8446, section 4.3.2): PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: PathBuf,
    /// Nobody else may be able to read it.
    pub key: PathBuf,
}

/// A setting that TLS cannot be made from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    #[error("CA file {0}: {1}", file.display(), reason)]
    Ca { file: PathBuf, reason: String },
    #[error("certificate {0}: {1}", file.display(), reason)]
    Certificate { file: PathBuf, reason: String },
    #[error("key {0}: {1}", file.display(), reason)]
    Key { file: PathBuf, reason: String },
    #[error("'{name}' is no name for a server: {reason}")]
    Name { name: String, reason: String },
    #[error("TLS: {0}")]
    Other(String),
}

impl Trust {
    /// For every kind of client; None: no TLS. `own` is shown where the server asks for it. The caller sets ALPN.
    pub fn client_config(&self, own: Option<&Identity>) -> Result<Option<ClientConfig>, BadSetting> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Plaintext => return Ok(None),
            Self::Ca { file, .. } => {
                WebPkiServerVerifier::builder_with_provider(roots(file)?, provider.clone())
                    .build()
                    .map_err(|e| bad_ca(file, format!("holds no usable certificate ({e})")))?
            }
            Self::Pin(pin) => Arc::new(Certain::new(&provider, Some(*pin))),
            Self::Insecure => Arc::new(Certain::new(&provider, None)),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| BadSetting::Other(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(own) = own else { return Ok(Some(config.with_no_client_auth())) };
        let bad_certificate =
            |reason: String| BadSetting::Certificate { file: own.certificate.clone(), reason };
        let certificates = CertificateDer::pem_file_iter(&own.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| bad_certificate(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&own.key)
            .map_err(|e| BadSetting::Key { file: own.key.clone(), reason: e.to_string() })?;
        let config = config.with_client_auth_cert(certificates, key);
        config.map(Some).map_err(|e| bad_certificate(format!("does not fit its key ({e})")))
    }

    /// The name to ask for in the handshake.
    pub fn server_name(&self, address: &str) -> Result<ServerName<'static>, BadSetting> {
        let name = match self {
            Self::Ca { server_name: Some(name), .. } => name,
            _ => address,
        };
        ServerName::try_from(name.to_owned())
            .map_err(|e| BadSetting::Name { name: name.to_owned(), reason: e.to_string() })
    }
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, BadSetting> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad_ca(file, e.to_string()))? {
        let certificate = certificate.map_err(|e| bad_ca(file, e.to_string()))?;
        roots.add(certificate).map_err(|e| bad_ca(file, e.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn bad_ca(file: &Path, reason: String) -> BadSetting {
    BadSetting::Ca { file: file.to_owned(), reason }
}
