//! Whom we believe to be our BMC.

use crate::error::Cause;
use basalt_trust::{BadSetting, Trust, changed};
use rustls::{CertificateError, ClientConfig, Error};

/// For a client of HTTP/1.1; None: no TLS.
pub(crate) fn client_config(trust: &Trust) -> Result<Option<ClientConfig>, Cause> {
    let mut config = trust.client_config(None)?;
    if let Some(config) = &mut config {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(config)
}

/// What a failed handshake means to an operator.
pub(crate) fn handshake_cause(error: &std::io::Error) -> Cause {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    if let Some(presented) = inner.and_then(changed) {
        return Cause::CertificateChanged { presented: presented.to_owned() };
    }
    match inner {
        Some(Error::InvalidCertificate(
            reason @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
        )) => Cause::CertificateExpired { reason: reason.to_string() },
        Some(other) => Cause::Tls { reason: other.to_string() },
        None => Cause::Unreachable { reason: format!("during the TLS handshake: {error}") },
    }
}

impl From<BadSetting> for Cause {
    fn from(bad: BadSetting) -> Self {
        let what = match &bad {
            BadSetting::Ca { .. } => "CA",
            BadSetting::Certificate { .. } | BadSetting::Key { .. } => "own certificate",
            BadSetting::Name { .. } => "address",
            BadSetting::Other(_) => "TLS",
        };
        Cause::Settings { what: what.to_owned(), reason: bad.to_string() }
    }
}
