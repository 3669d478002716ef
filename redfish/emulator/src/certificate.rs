//! Certificates: a CA of the emulator's own, and what it issues.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// A certificate that is served, with what a client needs to believe it.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) der: Vec<u8>,
    pub(crate) ca_pem: String,
}

impl Certificate {
    /// For 127.0.0.1 and localhost, signed by a new CA.
    pub(crate) fn issue(expired: bool) -> Self {
        let made = "certificates are made from constants";
        let mut ca = CertificateParams::new(Vec::new()).expect(made);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "emulated CA");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect(made)).expect(made);
        let mut own =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect(made);
        own.distinguished_name.push(DnType::CommonName, "emulated BMC");
        if expired {
            own.not_before = date_time_ymd(2019, 1, 1);
            own.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect(made);
        let certificate = own.signed_by(&key, &ca).expect(made);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect(made)
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect(made);
        Self { config: Arc::new(config), der: certificate.der().to_vec(), ca_pem: ca.pem() }
    }
}
