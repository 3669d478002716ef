//! Whom a driver believes to be its switch.

use crate::error::Cause;
use crate::intent::Tls;
use basalt_trust::BadSetting;
use rustls::{AlertDescription, Error};
use std::io;

pub use basalt_trust::{Fingerprint, Identity, Trust};

/// What the intent says of a switch.
pub fn trust(tls: &Tls, local_socket: bool) -> Result<Trust, Cause> {
    if tls.plaintext || local_socket {
        return Ok(Trust::Plaintext);
    }
    if let Some(pin) = &tls.pin_sha256 {
        return Ok(Trust::Pin(pin.parse().map_err(|reason| settings("pin_sha256", reason))?));
    }
    match &tls.ca_file {
        Some(file) => Ok(Trust::Ca { file: file.clone(), server_name: tls.server_name.clone() }),
        None if tls.insecure => Ok(Trust::Insecure),
        None => Err(settings("tls", "does not say how the switch proves who it is")),
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

impl From<BadSetting> for Cause {
    fn from(bad: BadSetting) -> Self {
        let what = match &bad {
            BadSetting::Ca { .. } => "management.tls.ca_file",
            BadSetting::Certificate { .. } => "management.tls.certificate_file",
            BadSetting::Key { .. } => "management.tls.key_file",
            BadSetting::Name { .. } => "management.address",
            BadSetting::Other(_) => "management.tls",
        };
        settings(what, &bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_refused() {
        assert!(matches!(trust(&Tls::default(), false), Err(Cause::Settings { .. })));
        assert_eq!(trust(&Tls::default(), true), Ok(Trust::Plaintext));
        assert_eq!(trust(&Tls { insecure: true, ..Tls::default() }, false), Ok(Trust::Insecure));
        let pinned = |pin: &str| trust(&Tls { pin_sha256: Some(pin.into()), ..Tls::default() }, false);
        assert_eq!(pinned(&"a5:".repeat(32)), Ok(Trust::Pin(Fingerprint([0xa5; 32]))));
        assert!(pinned(&"a5".repeat(31)).is_err());
        assert!(pinned(&"zz".repeat(32)).is_err());
    }
}
